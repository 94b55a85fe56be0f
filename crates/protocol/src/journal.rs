//! What this replica has written into its log, and what waits until that is durable [VOTE-1].
//!
//! The one place where records are made. With durability `sync` a message that rests on a record names it, and an
//! own vote counts for a quorum only when its record is on disk: a decision must not rest on what a crash forgets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::action::Action;
use crate::ids::{Digest, InstanceId, LogPosition, Regency, Signature};
use crate::mutants::{Mutant, is_active};
use crate::record::{Durability, Record};

/// Something of this replica's own that counts only when it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A WRITE.
    Write(InstanceId, Regency, Digest),
    /// An ACCEPT.
    Accept(InstanceId, Regency, Digest),
    /// A signature over the chain at an instance.
    Chain(InstanceId, Digest, Signature),
    /// What the votes of an earlier life cannot have been for [RECOVER-2].
    Bounds,
}

/// The own log, as the core sees it.
#[derive(Debug)]
pub(crate) struct Journal {
    durability: Durability,
    /// Whether the log is being read: then nothing is written.
    is_replaying: bool,
    last: LogPosition,
    durable: LogPosition,
    /// The newest regency on record, and its first record.
    regency: (Regency, LogPosition),
    held: VecDeque<(LogPosition, Held)>,
    /// The batches on record of instances that are not decided here.
    batches: BTreeSet<(InstanceId, Digest)>,
    /// The first record about each instance, of those that are not cut off.
    first: BTreeMap<InstanceId, LogPosition>,
    /// From the first of these on, up to the second, every decided batch is on record.
    decided: (InstanceId, InstanceId),
    /// A record that is damaged on the disk.
    damaged: Option<LogPosition>,
}

impl Journal {
    pub(crate) fn new(durability: Durability) -> Self {
        Self {
            durability,
            is_replaying: false,
            last: LogPosition(0),
            durable: LogPosition(0),
            regency: (Regency(0), LogPosition(0)),
            held: VecDeque::new(),
            batches: BTreeSet::new(),
            first: BTreeMap::new(),
            decided: (InstanceId(1), InstanceId(0)),
            damaged: None,
        }
    }

    /// Whether there is a log at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.durability != Durability::None
    }

    /// Whether the log is being read.
    pub(crate) fn is_replaying(&self) -> bool {
        self.is_replaying
    }

    /// The records that follow are read from the log.
    pub(crate) fn begin_replay(&mut self) {
        self.is_replaying = true;
    }

    /// Notes a record that was read.
    pub(crate) fn replayed(&mut self, position: LogPosition, about: Option<InstanceId>) {
        self.last = position;
        self.durable = position;
        self.touch(about);
    }

    /// What follows is written.
    pub(crate) fn end_replay(&mut self) {
        self.is_replaying = false;
    }

    /// Appends a record about an instance or about none.
    pub(crate) fn append(&mut self, record: Record, about: Option<InstanceId>, actions: &mut Vec<Action>) {
        if !self.is_kept() || self.is_replaying {
            return;
        }
        self.last = self.last.next();
        self.touch(about);
        if let Record::Regency { regency, .. } = &record
            && *regency > self.regency.0
        {
            self.regency = (*regency, self.last);
        }
        actions.push(Action::Append { position: self.last, record });
    }

    /// What a message must wait for that rests on anything recorded so far.
    pub(crate) fn gate(&self) -> LogPosition {
        match self.durability {
            Durability::Sync if !is_active(Mutant::SendBeforeSync) => self.last,
            Durability::Sync | Durability::Async | Durability::None => LogPosition(0),
        }
    }

    /// What a leader's PROPOSE and SYNC must wait for: a restart must find the regency on record, or else its leader
    /// begins it a second time [PROPOSE-5].
    pub(crate) fn regency_gate(&self) -> LogPosition {
        self.gate().min(self.regency.1)
    }

    /// Keeps something until all that is recorded so far is durable; returns it if that is so.
    pub(crate) fn hold(&mut self, held: Held) -> Option<Held> {
        let gate = self.gate();
        if gate <= self.durable {
            return Some(held);
        }
        self.held.push_back((gate, held));
        None
    }

    /// Notes that everything up to `position` is durable; returns what waited for it.
    pub(crate) fn settle(&mut self, position: LogPosition) -> Vec<Held> {
        self.durable = self.durable.max(position.min(self.last));
        let count = self.held.partition_point(|(gate, _)| *gate <= self.durable);
        self.held.drain(..count).map(|(_, held)| held).collect()
    }

    /// Whether the batch is on record; from now on it is.
    pub(crate) fn note_batch(&mut self, instance: InstanceId, digest: Digest) -> bool {
        !self.batches.insert((instance, digest))
    }

    /// An instance is decided: its other batches are of no use any more.
    pub(crate) fn note_decided(&mut self, instance: InstanceId) {
        self.batches = self.batches.split_off(&(instance.next(), Digest([0; 32])));
        self.extend_decided(instance);
    }

    /// The decision of `instance` is on record, with its batch.
    pub(crate) fn extend_decided(&mut self, instance: InstanceId) {
        let (first, last) = self.decided;
        let is_next = instance == last.next();
        self.decided = (if is_next { first } else { instance }, instance);
    }

    /// A snapshot of others covers everything up to `instance`: its batches are not on record here.
    pub(crate) fn skip_to(&mut self, instance: InstanceId) {
        self.batches = self.batches.split_off(&(instance.next(), Digest([0; 32])));
        self.decided = (instance.next(), instance);
    }

    /// The lowest instance from which on all decided batches are on record; above the prefix if none is.
    pub(crate) fn logged_from(&self) -> InstanceId {
        if self.is_kept() { self.decided.0 } else { InstanceId(u64::MAX) }
    }

    /// The first record about an instance.
    pub(crate) fn position_of(&self, instance: InstanceId) -> Option<LogPosition> {
        self.first.get(&instance).copied()
    }

    /// The first record that anything from `instance` on needs, if records below it can be cut off; they are
    /// forgotten.
    pub(crate) fn cut(&mut self, instance: InstanceId) -> Option<LogPosition> {
        self.decided.0 = self.decided.0.max(instance);
        let kept = self.first.split_off(&instance);
        let has_older = !self.first.is_empty();
        self.first = kept;
        // The record that is written next is needed in any case.
        let lowest = self.first.values().min().copied().unwrap_or(self.last.next());
        let is_damaged = self.damaged.take_if(|damaged| *damaged < lowest).is_some();
        (has_older || is_damaged).then_some(lowest)
    }

    /// A record that is not cut off cannot be read from the disk.
    pub(crate) fn note_damage(&mut self, position: LogPosition) {
        self.damaged = Some(position);
    }

    /// Whether a damaged record would go if the log were cut below what `instance` needs.
    pub(crate) fn is_damaged_below(&self, instance: InstanceId) -> bool {
        let kept = self.first.range(instance..).map(|(_, position)| *position).min();
        self.damaged.is_some_and(|damaged| damaged < kept.unwrap_or(self.last.next()))
    }

    /// Instances with a record that is not cut off.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    fn touch(&mut self, about: Option<InstanceId>) {
        if let Some(instance) = about {
            self.first.entry(instance).or_insert(self.last);
        }
    }
}
