//! The store: what each operation does. A function of the requests before and nothing else.
//!
//! Called by [`KvService`](super::KvService), one request after the other. A refused operation leaves no trace;
//! every change of a key gets a [`Version`] of its own.

use std::borrow::Cow;
use std::ops::Bound;

use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;

use super::answer::{Answer, PageEntry, Refusal, TimeToLive};
use super::budget::Budget;
use super::integer::parse_integer;
use super::limits::{
    ENTRY_OVERHEAD_BYTES, EXPIRED_PER_REQUEST_MAX, SCAN_VISITS_MAX, STORE_BYTES_MAX, VALUE_BYTES_MAX,
};
use super::map::Map;
use super::operation::{Deadline, ExpireCondition, Operation, Put, PutCondition, PutExpiry, Scan};
use super::pattern::Pattern;
use super::record::Record;
use super::reply::ReplyWriter;
use super::request::{Precondition, Request};
use super::version::{Observed, Version};

/// Where in the order, and when in ordered time, a request is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Ordered time; it never goes back.
    pub timestamp: Timestamp,
    /// The instance that ordered the request.
    pub instance: InstanceId,
}

/// Keys and values in the order of the keys' bytes.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub(super) map: Map,
    pub(super) now: Timestamp,
    /// What the next change will be called.
    pub(super) next: NextVersion,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NextVersion {
    pub(super) instance: InstanceId,
    pub(super) change: u32,
}

type Outcome<'a> = Result<Answer<'a>, Refusal>;

impl Store {
    /// Executes a request and answers with the encoded [`Reply`](super::Reply).
    pub fn execute(&mut self, moment: Moment, request: &Request<'_>) -> Vec<u8> {
        self.begin(moment);
        match request {
            Request::Pipeline(operations) => self.pipeline(operations),
            Request::Transaction { preconditions, operations } => self.transaction(preconditions, operations),
        }
    }

    /// Keys that are visible at the time of the last request.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.map.count(self.now)
    }

    /// Bytes that the store is counted for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.map.bytes()
    }

    fn begin(&mut self, moment: Moment) {
        self.now = self.now.max(moment.timestamp);
        if self.next.instance != moment.instance {
            self.next = NextVersion { instance: moment.instance, change: 0 };
        }
        self.map.collect(self.now, EXPIRED_PER_REQUEST_MAX);
    }

    fn pipeline(&mut self, operations: &[Operation<'_>]) -> Vec<u8> {
        let mut reply = ReplyWriter::pipeline();
        let mut budget = Budget::full();
        for (place, operation) in operations.iter().enumerate() {
            match self.apply(operation, &mut budget) {
                Ok(answer) => reply.push(&answer),
                // The client sends this one and the rest again: they get a budget of their own.
                Err(refusal) if refusal.is_for_want_of_room() && place > 0 => break,
                Err(refusal) => reply.push(&Answer::Refused(refusal)),
            }
        }
        reply.finish()
    }

    fn transaction(&mut self, preconditions: &[Precondition<'_>], operations: &[Operation<'_>]) -> Vec<u8> {
        if preconditions.iter().any(|demand| self.observe(demand.key) != demand.observed) {
            return ReplyWriter::conflict();
        }
        let mut reply = ReplyWriter::committed();
        let mut budget = Budget::full();
        for operation in operations {
            reply.push(&self.apply(operation, &mut budget).unwrap_or_else(Answer::Refused));
        }
        reply.finish()
    }

    fn apply(&mut self, operation: &Operation<'_>, budget: &mut Budget) -> Outcome<'_> {
        budget.take_answer(0)?;
        match operation {
            Operation::Get { key } => self.get(key, budget),
            Operation::GetMany { keys } => self.get_many(keys, budget),
            Operation::Put(put) => self.put(put, budget),
            Operation::PutMany { pairs, only_if_all_absent } => self.put_many(pairs, *only_if_all_absent),
            Operation::Take { key } => self.take(key, budget),
            Operation::Delete { keys } => {
                Ok(count(keys.iter().filter(|key| self.map.remove(key, self.now).is_some()).count()))
            }
            Operation::Exists { keys } => {
                Ok(count(keys.iter().filter(|key| self.map.get(key, self.now).is_some()).count()))
            }
            Operation::CompareAndSet { key, expected, new } => {
                self.compare_and_set(key, *expected, *new, budget)
            }
            Operation::Increment { key, by } => self.increment(key, *by),
            Operation::Append { key, value } => self.append(key, value),
            Operation::Length { key } => {
                Ok(count(self.map.get(key, self.now).map_or(0, |entry| entry.value().len())))
            }
            Operation::Count => Ok(Answer::Count(self.count())),
            Operation::Scan(scan) => self.scan(scan, budget),
            Operation::Keys { pattern } => self.keys(pattern, budget),
            Operation::Clear => {
                self.map.clear();
                Ok(Answer::Done)
            }
            Operation::Expire { key, deadline, condition } => Ok(self.expire(key, *deadline, *condition)),
            Operation::Persist { key } => Ok(self.persist(key)),
            Operation::TimeToLive { key } => Ok(Answer::TimeToLive(self.time_to_live(key))),
            Operation::Observe { keys } => {
                for _ in keys {
                    budget.take_answer(size_of::<Observed>())?;
                }
                Ok(Answer::Versions(keys.iter().map(|key| self.observe(key)).collect()))
            }
        }
    }

    fn get(&self, key: &[u8], budget: &mut Budget) -> Outcome<'_> {
        let Some(entry) = self.map.get(key, self.now) else { return Ok(Answer::Absent) };
        budget.take_answer(entry.value().len())?;
        Ok(Answer::Value(Cow::Borrowed(entry.value())))
    }

    fn get_many(&self, keys: &[&[u8]], budget: &mut Budget) -> Outcome<'_> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.map.get(key, self.now).map(|entry| Cow::Borrowed(entry.value()));
            budget.take_answer(value.as_ref().map_or(0, |value| value.len()))?;
            values.push(value);
        }
        Ok(Answer::Values(values))
    }

    fn put(&mut self, put: &Put<'_>, budget: &mut Budget) -> Outcome<'_> {
        let current = self.map.get(put.key, self.now);
        let answer = match current {
            Some(entry) if put.returns_old => {
                budget.take_answer(entry.value().len())?;
                Answer::Value(Cow::Owned(entry.value().to_vec()))
            }
            Some(_) | None if put.returns_old => Answer::Absent,
            Some(_) | None => Answer::Done,
        };
        let wanted = match put.condition {
            PutCondition::Always => true,
            PutCondition::IfAbsent => current.is_none(),
            PutCondition::IfPresent => current.is_some(),
        };
        if !wanted {
            return Ok(if put.returns_old { answer } else { Answer::NotDone });
        }
        let deadline = match put.expiry {
            PutExpiry::Never => Timestamp::NEVER,
            PutExpiry::Keep => current.map_or(Timestamp::NEVER, |entry| entry.deadline()),
            PutExpiry::At(deadline) => deadline.from(self.now),
        };
        self.write(put.key, put.value, deadline)?;
        Ok(answer)
    }

    fn put_many(&mut self, pairs: &[(&[u8], &[u8])], only_if_all_absent: bool) -> Outcome<'_> {
        if only_if_all_absent && pairs.iter().any(|(key, _)| self.map.get(key, self.now).is_some()) {
            return Ok(Answer::NotDone);
        }
        let added = pairs.iter().map(|(key, value)| weight(key, value.len())).sum();
        self.check_room(added)?;
        for (key, value) in pairs {
            self.write(key, value, Timestamp::NEVER)?;
        }
        Ok(Answer::Done)
    }

    fn take(&mut self, key: &[u8], budget: &mut Budget) -> Outcome<'_> {
        let Some(entry) = self.map.get(key, self.now) else { return Ok(Answer::Absent) };
        budget.take_answer(entry.value().len())?;
        let taken = self.map.remove(key, self.now);
        Ok(taken.map_or(Answer::Absent, |entry| Answer::Value(Cow::Owned(entry.value().to_vec()))))
    }

    fn compare_and_set(
        &mut self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        budget: &mut Budget,
    ) -> Outcome<'_> {
        let current = self.map.get(key, self.now).map(|entry| entry.value());
        if current != expected {
            budget.take_answer(current.map_or(0, <[u8]>::len))?;
            return Ok(Answer::Mismatch { current: current.map(|value| Cow::Owned(value.to_vec())) });
        }
        match new {
            Some(value) => self.write(key, value, Timestamp::NEVER)?,
            None => drop(self.map.remove(key, self.now)),
        }
        Ok(Answer::Done)
    }

    fn increment(&mut self, key: &[u8], by: i64) -> Outcome<'_> {
        let (number, deadline) = match self.map.get(key, self.now) {
            None => (0, Timestamp::NEVER),
            Some(entry) => (parse_integer(entry.value()).ok_or(Refusal::NotAnInteger)?, entry.deadline()),
        };
        let sum = number.checked_add(by).ok_or(Refusal::Overflow)?;
        self.write(key, sum.to_string().as_bytes(), deadline)?;
        Ok(Answer::Integer(sum))
    }

    fn append(&mut self, key: &[u8], suffix: &[u8]) -> Outcome<'_> {
        let (before, deadline) = match self.map.get(key, self.now) {
            None => (&[][..], Timestamp::NEVER),
            Some(entry) => (entry.value(), entry.deadline()),
        };
        let value = [before, suffix].concat();
        self.write(key, &value, deadline)?;
        Ok(count(value.len()))
    }

    fn scan(&self, scan: &Scan<'_>, budget: &mut Budget) -> Outcome<'_> {
        let pattern = scan.pattern.map(Pattern::new);
        let from = match scan.after {
            Some(after) if after >= scan.prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(scan.prefix),
        };
        let visits_max = scan.visits.clamp(1, SCAN_VISITS_MAX);
        let (mut entries, mut visits, mut last) = (Vec::new(), 0, None);
        for (key, entry) in self.map.range(from, self.now) {
            if !key.starts_with(scan.prefix) {
                return Ok(Answer::Page { entries, next: None });
            }
            if visits == visits_max {
                return Ok(Answer::Page { entries, next: last.map(Cow::Borrowed) });
            }
            let (is_match, steps) = pattern.map_or((true, 0), |pattern| pattern.matches(key));
            let found = entry.filter(|_| is_match);
            let room = budget.take_visit(steps).and_then(|()| {
                let Some(entry) = found else { return Ok(()) };
                budget.take_answer(key.len() + if scan.with_values { entry.value().len() } else { 0 })
            });
            match (room, last) {
                (Ok(()), _) => {}
                // A page that has come somewhere is a page; the next one goes on from there.
                (Err(_), Some(last)) => return Ok(Answer::Page { entries, next: Some(Cow::Borrowed(last)) }),
                (Err(refusal), None) => return Err(refusal),
            }
            if let Some(entry) = found {
                let value = scan.with_values.then_some(Cow::Borrowed(entry.value()));
                entries.push(PageEntry { key: Cow::Borrowed(key), value });
            }
            visits += 1;
            last = Some(key);
        }
        Ok(Answer::Page { entries, next: None })
    }

    fn keys(&self, pattern: &[u8], budget: &mut Budget) -> Outcome<'_> {
        let pattern = Pattern::new(pattern);
        let prefix = pattern.literal_prefix();
        let mut keys = Vec::new();
        for (key, entry) in self.map.range(Bound::Included(prefix), self.now) {
            if !key.starts_with(prefix) {
                break;
            }
            let (is_match, steps) = pattern.matches(key);
            budget.take_visit(steps)?;
            if is_match && entry.is_some() {
                budget.take_answer(key.len())?;
                keys.push(Cow::Borrowed(key));
            }
        }
        Ok(Answer::Keys(keys))
    }

    fn expire(&mut self, key: &[u8], deadline: Deadline, condition: ExpireCondition) -> Answer<'static> {
        let Some(entry) = self.map.get(key, self.now) else { return Answer::NotDone };
        let (before, after) = (entry.deadline(), deadline.from(self.now));
        let has_one = before != Timestamp::NEVER;
        let wanted = match condition {
            ExpireCondition::Always => true,
            ExpireCondition::IfNone => !has_one,
            ExpireCondition::IfSome => has_one,
            ExpireCondition::IfLater => has_one && after > before,
            ExpireCondition::IfEarlier => after < before,
            ExpireCondition::IfSomeAndEarlier => has_one && after < before,
        };
        if !wanted {
            return Answer::NotDone;
        }
        if after <= self.now {
            self.map.remove(key, self.now);
        } else {
            let version = self.next_version();
            self.map.set_deadline(key, after, version);
        }
        Answer::Done
    }

    fn persist(&mut self, key: &[u8]) -> Answer<'static> {
        match self.map.get(key, self.now) {
            Some(entry) if entry.deadline() != Timestamp::NEVER => {
                let version = self.next_version();
                self.map.set_deadline(key, Timestamp::NEVER, version);
                Answer::Done
            }
            Some(_) | None => Answer::NotDone,
        }
    }

    fn time_to_live(&self, key: &[u8]) -> TimeToLive {
        match self.map.get(key, self.now) {
            None => TimeToLive::Absent,
            Some(entry) if entry.deadline() == Timestamp::NEVER => TimeToLive::Endless,
            Some(entry) => TimeToLive::Remaining(entry.deadline().since(self.now)),
        }
    }

    fn observe(&self, key: &[u8]) -> Observed {
        self.map.get(key, self.now).map_or(Observed::Absent, |entry| Observed::Present(entry.version()))
    }

    /// Sets a key; with a deadline that has passed, deletes it.
    fn write(&mut self, key: &[u8], value: &[u8], deadline: Timestamp) -> Result<(), Refusal> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::ValueTooLong);
        }
        if deadline <= self.now {
            self.map.remove(key, self.now);
            return Ok(());
        }
        self.check_room(weight(key, value.len()))?;
        let version = self.next_version();
        self.map.put(Record::new(key, value, version, deadline));
        Ok(())
    }

    /// Refuses what might exceed the store. What is about to be replaced counts, too: the bound is a safe one.
    fn check_room(&self, added: u64) -> Result<(), Refusal> {
        if self.map.bytes().saturating_add(added) > STORE_BYTES_MAX {
            Err(Refusal::StoreFull)
        } else {
            Ok(())
        }
    }

    fn next_version(&mut self) -> Version {
        let NextVersion { instance, change } = self.next;
        // An instance has far fewer changes: a batch is bounded in bytes, and each change takes some.
        self.next.change = change.saturating_add(1);
        Version { instance, change }
    }
}

fn weight(key: &[u8], value_bytes: usize) -> u64 {
    ENTRY_OVERHEAD_BYTES + (key.len() + value_bytes) as u64
}

fn count(count: usize) -> Answer<'static> {
    Answer::Count(count as u64)
}
