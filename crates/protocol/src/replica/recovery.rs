//! The recovery walk: a replica is put together from its snapshot and its log, then takes part again [RECOVER-1]; and
//! what waits until its record is on disk [VOTE-1].

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::{Replica, ReplicaConfig, broadcast_after};
use crate::action::Action;
use crate::decided::{DecidedBatch, DecidedLog};
use crate::ids::{Digest, InstanceId, LogPosition, Regency, ReplicaId};
use crate::journal::Held;
use crate::leader_change::state::{Gathering, Phase};
use crate::message::{Body, Message};
use crate::mutants::{Mutant, is_active};
use crate::ordering::candidate::{Candidate, Source};
use crate::record::{Record, RecordedBatch};
use crate::snapshot::SnapshotHead;
use crate::time::Timestamp;
use crate::view::Mode;

/// Why a log does not lead to a state; it is damaged, or another replica's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReplayError {
    /// A decision whose chain does not follow from the one before.
    #[error("the chain breaks at instance {0}")]
    ChainBroken(InstanceId),
}

/// A log that is being read.
#[derive(Debug, Default)]
pub(super) struct Replay {
    batches: BTreeMap<(InstanceId, Digest), RecordedBatch>,
    regency: Regency,
    /// The instance of the snapshot that the state comes from.
    snapshot: InstanceId,
    /// Whether decisions are on record that the state does not lead to: others must help [ST-1].
    has_gap: bool,
}

impl Replica {
    /// A replica that lived before, at its snapshot, or at the beginning if it had none. Its records follow by
    /// [`Self::replay`], in their order, then [`Self::resume`].
    #[must_use]
    pub fn restore(config: ReplicaConfig, snapshot: Option<(SnapshotHead, Digest)>) -> Self {
        let mut replica = Self::new(config);
        replica.journal.begin_replay();
        if let Some((head, root)) = snapshot {
            replica.checkpoints.restore(&head, root);
            let SnapshotHead { instance, chain, timestamp, sessions, .. } = head;
            replica.log = DecidedLog::after(instance, chain, timestamp);
            replica.sessions = sessions;
            replica.executed = (instance, chain);
            replica.replay.snapshot = instance;
        }
        replica
    }

    /// Takes the next record of the own log. The only actions are executions, which the caller carries out and
    /// answers before the next record.
    ///
    /// # Errors
    ///
    /// What no log of this replica can hold.
    pub fn replay(
        &mut self,
        position: LogPosition,
        record: Record,
        actions: &mut Vec<Action>,
    ) -> Result<(), ReplayError> {
        let about = record.instance();
        self.journal.replayed(position, about);
        match record {
            Record::Stop { view, regency } if view == self.view.id() => {
                self.change.stops.note(self.me, regency);
            }
            Record::Regency { view, regency } if view == self.view.id() => {
                self.replay.regency = self.replay.regency.max(regency);
            }
            // Of an earlier view.
            Record::Stop { .. } | Record::Regency { .. } => {}
            Record::Batch(recorded) => {
                let digest = recorded.batch.digest();
                self.replay.batches.insert((recorded.batch.instance, digest), recorded);
            }
            Record::Write(_) | Record::Lock(_) | Record::Confirm(_)
                if is_active(Mutant::VotesDroppedAtBoot) => {}
            Record::Write(vote) => {
                self.record.write(vote.instance, vote.regency, vote.digest);
            }
            Record::Lock(vote) => {
                self.record.accept(vote.instance, vote.regency, vote.digest);
            }
            Record::Confirm(vote) => {
                self.record.confirm(vote.instance, vote.regency, vote.digest);
            }
            Record::Decided { instance, digest, chain } => {
                self.replay_decided(instance, digest, chain, actions)?;
            }
            Record::Certificate(certificate) => {
                self.chain.install(certificate);
                if self.replay.has_gap {
                    // What it covers comes from others, and needs no votes.
                    let closed = self.chain.certified().next();
                    self.replay.batches = self.replay.batches.split_off(&(closed, Digest([0; 32])));
                }
            }
            Record::Bounds(bounds) => self.record.restore_bounds(bounds),
            Record::Checkpoint(certificate) => {
                self.checkpoints.install(certificate);
                self.checkpoints.take_unrecorded();
            }
        }
        Ok(())
    }

    fn replay_decided(
        &mut self,
        instance: InstanceId,
        digest: Digest,
        chain: Digest,
        actions: &mut Vec<Action>,
    ) -> Result<(), ReplayError> {
        let expected = self.log.prefix().next();
        if instance > expected {
            // The snapshot that it followed is gone, or came from others in the middle of the log.
            self.replay.has_gap = true;
            self.journal.skip_to(instance);
            return Ok(());
        }
        let Some(recorded) = self.replay.batches.remove(&(instance, digest)) else {
            // What the snapshot covers may be cut off in the middle: its batch is gone, its decision is not. What was
            // executed twice, since the state came from others, is on record twice.
            self.journal.skip_to(instance);
            self.replay.has_gap |= instance == expected;
            return Ok(());
        };
        self.replay.batches = self.replay.batches.split_off(&(instance.next(), Digest([0; 32])));
        let RecordedBatch { batch, requests } = recorded;
        if instance < expected {
            self.journal.extend_decided(instance);
            if instance <= self.replay.snapshot {
                self.log.remember(DecidedBatch { batch, digest, requests, chain }, &self.settings);
            }
            return Ok(());
        }
        self.replay.has_gap = false;
        let begun = actions.len();
        self.deliver(batch, digest, requests, actions);
        if self.log.chain() != chain {
            return Err(ReplayError::ChainBroken(instance));
        }
        // Whoever waited for these replies has had them, or asks again.
        let executions = actions.split_off(begun).into_iter();
        actions.extend(executions.filter(|action| matches!(action, Action::Execute(_))));
        Ok(())
    }

    /// Whether there is room for another execution while the log is read.
    #[must_use]
    pub fn can_replay(&self) -> bool {
        !self.executor_is_full()
    }

    /// The log has been read: from now on the replica takes part again. Called once, before any other event.
    pub fn resume(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.journal.end_replay();
        self.log.close_gap();
        let regency = self.replay.regency;
        let is_stated = self.record.has_voted_in(regency);
        self.record.retire(regency);
        self.close_votes();
        for ((id, digest), recorded) in std::mem::take(&mut self.replay.batches) {
            if id > self.log.prefix() && self.record.stands_for(id, &digest) {
                self.journal.note_batch(id, digest);
                self.restore_candidate(now, id, digest, &recorded);
            }
        }
        self.vote_edge = self.log.prefix();
        self.change.regency = regency;
        if regency > Regency(0) {
            let patience = self.timer.timeout(&self.settings);
            let deadline = now.plus(patience);
            self.change.phase = Phase::Syncing(Gathering { deadline, ..Gathering::default() });
            self.change.stops.note(self.me, regency);
            // Who has voted in it has stated before; a statement of now would tell of votes in it.
            if self.record.may_state(self.chain.certified(), regency) && !is_stated {
                self.change.unsigned = Some(self.statement(regency));
                actions.extend(self.change.unsigned.as_ref().map(|data| Action::Sign(data.statement())));
            }
        }
        self.restore_votes(now);
        // [PROPOSE-5] What it proposed is not on record: it gives its term away.
        if self.leader() == self.me && !self.record.may_lead() {
            self.stop(now, regency.next(), actions);
        }
        // The certificate may have come before the snapshot, or stopped the life before.
        if self.checkpoints.differs() {
            self.on_diverged(self.checkpoints.stable(), actions);
        }
        self.status_due = Some(now);
        self.arm(now);
    }

    /// Opens an instance with a batch that stands on record.
    fn restore_candidate(
        &mut self,
        now: Timestamp,
        id: InstanceId,
        digest: Digest,
        recorded: &RecordedBatch,
    ) {
        let mut candidate = Candidate::new(Arc::clone(&recorded.batch));
        for (position, request) in recorded.requests.iter().enumerate() {
            let body = Body { request: Arc::clone(request), proof: None };
            candidate.put(position, &body, Source::Unproven);
        }
        self.window.add_candidate(id, digest, candidate, now);
    }

    /// Counts the votes on record, which are durable, where they still count.
    fn restore_votes(&mut self, now: Timestamp) {
        let (me, regency) = (self.me, self.change.regency);
        let open: Vec<InstanceId> =
            self.record.instances().filter(|instance| *instance > self.log.prefix()).collect();
        for id in open {
            let votes: Vec<Message> = self.record.resend(id).collect();
            for vote in votes {
                match vote {
                    Message::Write(vote) if vote.regency == regency => {
                        self.window.open(id, now).writes.add(me, vote.regency, vote.digest, regency);
                    }
                    Message::Accept(vote) => {
                        self.window.open(id, now).accepts.add(me, vote.regency, vote.digest, regency);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Records are on disk: what waited for them counts.
    pub(super) fn on_durable(&mut self, now: Timestamp, position: LogPosition, actions: &mut Vec<Action>) {
        for held in self.journal.settle(position) {
            self.count_own(now, held, actions);
        }
    }

    /// Records a vote, and sends and counts it as soon as it may be.
    pub(super) fn cast(&mut self, now: Timestamp, message: Message, held: Held, actions: &mut Vec<Action>) {
        self.record_vote(&message, actions);
        broadcast_after(self.journal.gate(), message, actions);
        if let Some(held) = self.journal.hold(held) {
            self.add_own(now, held);
        }
    }

    /// Writes a vote into the log, after the batch that it is for [VOTE-1].
    pub(super) fn record_vote(&mut self, message: &Message, actions: &mut Vec<Action>) {
        let (record, id, digest) = match message {
            Message::Write(vote) => (Record::Write(*vote), vote.instance, vote.digest),
            Message::Accept(vote) => (Record::Lock(*vote), vote.instance, vote.digest),
            _ => return,
        };
        // An ACCEPT may rest on the WRITEs of others alone: their records hold the batch.
        let may_lack = matches!(record, Record::Lock(_)) && self.view.mode() == Mode::Bft;
        if !is_active(Mutant::WriteWithoutBodies) {
            self.record_batch(id, digest, may_lack, actions);
        }
        self.journal.append(record, Some(id), actions);
    }

    fn record_batch(&mut self, id: InstanceId, digest: Digest, may_lack: bool, actions: &mut Vec<Action>) {
        if !self.journal.is_kept() || id <= self.log.prefix() {
            return;
        }
        let Some(candidate) = self.window.get(id).and_then(|open| open.candidates.get(&digest)) else {
            return;
        };
        if !candidate.is_complete() {
            assert!(may_lack, "a WRITE needs its batch with all bodies");
            return;
        }
        if self.journal.note_batch(id, digest) {
            return;
        }
        let batch = Arc::clone(candidate.batch());
        let requests = candidate.requests().cloned().collect();
        self.journal.append(Record::Batch(RecordedBatch { batch, requests }), Some(id), actions);
    }

    /// Counts something of this replica's own that is durable, and does what it calls for.
    fn count_own(&mut self, now: Timestamp, held: Held, actions: &mut Vec<Action>) {
        match held {
            Held::Write(id, ..) | Held::Accept(id, ..) => {
                self.add_own(now, held);
                self.evaluate(now, id, actions);
            }
            Held::Chain(instance, chain, signature) => {
                self.on_chain_signed(now, instance, chain, signature, actions);
            }
            Held::Bounds => self.on_bounds_kept(actions),
        }
    }

    fn add_own(&mut self, now: Timestamp, held: Held) {
        let (me, installed): (ReplicaId, Regency) = (self.me, self.change.regency);
        match held {
            // What is decided since, or belongs to an epoch that has ended, is of no use.
            Held::Write(id, ..) | Held::Accept(id, ..) if id <= self.log.prefix() => {}
            Held::Write(_, epoch, _) if epoch < installed && !is_active(Mutant::OldEpochVotes) => {}
            Held::Write(id, epoch, digest) => {
                self.window.open(id, now).writes.add(me, epoch, digest, installed);
            }
            Held::Accept(id, epoch, digest) => {
                self.window.open(id, now).accepts.add(me, epoch, digest, installed);
            }
            Held::Chain(..) | Held::Bounds => {}
        }
    }
}
