//! The store against a model: a map whose expired keys are thrown away before every operation.

mod draw;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use draw::draws;
use proptest::prelude::*;
use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;
use regency_services::kv::{
    Answer, Deadline, ExpireCondition, Moment, Operation, PageEntry, Pattern, PutCondition, PutExpiry,
    Refusal, Reply, Request, RequestWriter, Scan, Store, TimeToLive, parse_integer,
};

/// Keys with their values and deadlines.
#[derive(Default)]
struct Model(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>);

impl Model {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).map(|(value, _)| value.clone())
    }

    fn set(&mut self, key: &[u8], value: &[u8], deadline: Option<u64>) {
        self.0.insert(key.to_vec(), (value.to_vec(), deadline));
    }

    fn apply(&mut self, now: u64, operation: &Operation<'_>) -> Answer<'static> {
        self.0.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
        let answer = self.answer(now, operation);
        self.0.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
        answer
    }

    fn answer(&mut self, now: u64, operation: &Operation<'_>) -> Answer<'static> {
        let found =
            |value: Option<Vec<u8>>| value.map_or(Answer::Absent, |value| Answer::Value(value.into()));
        let done = |done| if done { Answer::Done } else { Answer::NotDone };
        let point = |deadline: &Deadline| deadline.from(Timestamp(now)).0;
        match operation {
            Operation::Get { key } => found(self.value(key)),
            Operation::GetMany { keys } => {
                Answer::Values(keys.iter().map(|key| self.value(key).map(Cow::Owned)).collect())
            }
            Operation::Put(put) => {
                let before = self.0.get(put.key).cloned();
                let wanted = match put.condition {
                    PutCondition::Always => true,
                    PutCondition::IfAbsent => before.is_none(),
                    PutCondition::IfPresent => before.is_some(),
                };
                let deadline = match &put.expiry {
                    PutExpiry::Never => None,
                    PutExpiry::Keep => before.as_ref().and_then(|(_, deadline)| *deadline),
                    PutExpiry::At(deadline) => Some(point(deadline)),
                };
                if wanted {
                    self.set(put.key, put.value, deadline);
                }
                if put.returns_old { found(before.map(|(value, _)| value)) } else { done(wanted) }
            }
            Operation::PutMany { pairs, only_if_all_absent } => {
                let blocked = *only_if_all_absent && pairs.iter().any(|(key, _)| self.0.contains_key(*key));
                if !blocked {
                    pairs.iter().for_each(|(key, value)| self.set(key, value, None));
                }
                done(!blocked)
            }
            Operation::Take { key } => found(self.0.remove(*key).map(|(value, _)| value)),
            Operation::Delete { keys } => {
                Answer::Count(keys.iter().filter(|key| self.0.remove(**key).is_some()).count() as u64)
            }
            Operation::Exists { keys } => {
                Answer::Count(keys.iter().filter(|key| self.0.contains_key(**key)).count() as u64)
            }
            Operation::CompareAndSet { key, expected, new } => {
                let current = self.value(key);
                if current.as_deref() != *expected {
                    return Answer::Mismatch { current: current.map(Cow::Owned) };
                }
                match new {
                    Some(value) => self.set(key, value, None),
                    None => drop(self.0.remove(*key)),
                }
                Answer::Done
            }
            Operation::Increment { key, by } => {
                let (value, deadline) = self.0.get(*key).cloned().unwrap_or((b"0".to_vec(), None));
                let Some(number) = parse_integer(&value) else {
                    return Answer::Refused(Refusal::NotAnInteger);
                };
                let Some(sum) = number.checked_add(*by) else { return Answer::Refused(Refusal::Overflow) };
                self.set(key, sum.to_string().as_bytes(), deadline);
                Answer::Integer(sum)
            }
            Operation::Append { key, value } => {
                let (mut whole, deadline) = self.0.get(*key).cloned().unwrap_or_default();
                whole.extend_from_slice(value);
                self.set(key, &whole, deadline);
                Answer::Count(whole.len() as u64)
            }
            Operation::Length { key } => Answer::Count(self.value(key).unwrap_or_default().len() as u64),
            Operation::Count => Answer::Count(self.0.len() as u64),
            Operation::Keys { pattern } => {
                let matching = self.0.keys().filter(|key| Pattern::new(pattern).matches(key).0);
                Answer::Keys(matching.map(|key| Cow::Owned(key.clone())).collect())
            }
            Operation::Clear => {
                self.0.clear();
                Answer::Done
            }
            Operation::Expire { key, deadline, condition } => {
                let after = point(deadline);
                let Some((_, before)) = self.0.get_mut(*key) else { return Answer::NotDone };
                let wanted = match condition {
                    ExpireCondition::Always => true,
                    ExpireCondition::IfNone => before.is_none(),
                    ExpireCondition::IfSome => before.is_some(),
                    ExpireCondition::IfLater => before.is_some_and(|before| after > before),
                    ExpireCondition::IfEarlier => before.is_none_or(|before| after < before),
                    ExpireCondition::IfSomeAndEarlier => before.is_some_and(|before| after < before),
                };
                if wanted {
                    *before = Some(after);
                }
                done(wanted)
            }
            Operation::Persist { key } => {
                done(self.0.get_mut(*key).is_some_and(|(_, deadline)| deadline.take().is_some()))
            }
            Operation::TimeToLive { key } => Answer::TimeToLive(match self.0.get(*key) {
                None => TimeToLive::Absent,
                Some((_, None)) => TimeToLive::Endless,
                Some((_, Some(deadline))) => TimeToLive::Remaining(Duration::from_micros(deadline - now)),
            }),
            Operation::Scan(_) | Operation::Observe { .. } => unreachable!("compared in another way"),
        }
    }

    /// The keys that a scan has still to give, and whether a page of it is right.
    fn check_page(&self, scan: &Scan<'_>, page: &Answer<'_>) {
        let Answer::Page { entries, next } = page else { panic!("{page:?} is no page") };
        let last = next.as_deref();
        let expected: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| key.starts_with(scan.prefix))
            .filter(|(key, _)| scan.after.is_none_or(|after| key.as_slice() > after))
            .filter(|(key, _)| last.is_none_or(|last| key.as_slice() <= last))
            .filter(|(key, _)| scan.pattern.is_none_or(|pattern| Pattern::new(pattern).matches(key).0))
            .map(|(key, (value, _))| PageEntry {
                key: Cow::Borrowed(key.as_slice()),
                value: scan.with_values.then_some(Cow::Borrowed(value.as_slice())),
            })
            .collect();
        assert_eq!(entries, &expected);
        assert!(entries.len() <= scan.visits.max(1) as usize);
    }
}

fn execute<'r>(store: &mut Store, moment: Moment, request: &[u8], reply: &'r mut Vec<u8>) -> Vec<Answer<'r>> {
    *reply = store.execute(moment, &Request::decode(request).unwrap());
    match Reply::decode(reply).unwrap() {
        Reply::Pipeline(answers) => answers,
        other => panic!("{other:?} answers no pipeline"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_store_does_what_the_model_does(
        requests in prop::collection::vec((0..15_u64, prop::collection::vec(draws(), 1..5)), 1..40),
    ) {
        let (mut store, mut model) = (Store::default(), Model::default());
        let (mut now, mut reply) = (1_000_000, Vec::new());
        for (instance, (pause, draws)) in requests.iter().enumerate() {
            now += pause;
            let moment = Moment { timestamp: Timestamp(now), instance: InstanceId(instance as u64) };
            let operations: Vec<_> = draws.iter().map(|draw| draw.operation(now)).collect();
            let mut writer = RequestWriter::default();
            for operation in &operations {
                prop_assert!(writer.push(operation, usize::MAX));
            }
            let answers = execute(&mut store, moment, &writer.finish(), &mut reply);
            prop_assert_eq!(answers.len(), operations.len());
            for (operation, answer) in operations.iter().zip(&answers) {
                if let Operation::Scan(scan) = operation {
                    model.apply(now, &Operation::Count);
                    model.check_page(scan, answer);
                } else {
                    prop_assert_eq!(answer, &model.apply(now, operation), "{:?}", operation);
                }
            }
            prop_assert_eq!(store.count(), model.0.len() as u64);
        }
    }

    #[test]
    fn operations_survive_encoding(draws in prop::collection::vec(draws(), 1..20)) {
        let operations: Vec<_> = draws.iter().map(|draw| draw.operation(77)).collect();
        let mut writer = RequestWriter::default();
        for operation in &operations {
            prop_assert!(writer.push(operation, usize::MAX));
        }
        let encoded = writer.finish();
        prop_assert_eq!(Request::decode(&encoded), Ok(Request::Pipeline(operations)));
        for length in 0..encoded.len() {
            prop_assert!(Request::decode(&encoded[..length]).is_err());
        }
    }

    #[test]
    fn garbage_is_refused_or_canonical(mut bytes in prop::collection::vec(0..25_u8, 0..60)) {
        if let [format, kind, ..] = bytes.as_mut_slice() {
            (*format, *kind) = (1, *kind % 3);
        }
        let _ = Reply::decode(&bytes);
        if let Ok(Request::Pipeline(operations)) = Request::decode(&bytes) {
            let mut writer = RequestWriter::default();
            for operation in &operations {
                prop_assert!(writer.push(operation, usize::MAX));
            }
            prop_assert_eq!(&writer.finish()[..], &bytes[..]);
        }
    }
}
