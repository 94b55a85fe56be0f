//! The disks of the world: what is appended, committed and held back, snapshots, and how replicas come back.

use std::collections::BTreeSet;

use regency_protocol::action::Action;
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::{InstanceId, LogPosition, ReplicaId};
use regency_protocol::message::Message;
use regency_protocol::record::{Durability, Record};
use regency_protocol::snapshot::SnapshotHead;

use super::{Happening, World};
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::invariants::Violation;
use crate::node::Held;
use crate::store::{Commit, Image, Remains};

/// The quickest commit, in µs.
const COMMIT_MIN: Moment = 20;
/// The longest stall.
const STALL_MAX: Moment = 300_000;
/// How long a full disk is left alone.
const FULL_PAUSE: Moment = 5_000;
/// A vote that waits for so long is held back by the disk.
const HELD_BACK: Moment = 10_000;

impl World<'_> {
    /// The core of `by` wants a record written.
    pub(super) fn on_append(
        &mut self,
        by: ReplicaId,
        position: LogPosition,
        record: Record,
    ) -> Result<(), Violation> {
        self.one_vote.on_append(by, &record);
        let Some(store) = self.nodes.get_mut(&by).and_then(|node| node.store.as_mut()) else {
            return Err(Violation::new("log", format!("replica {by} writes {position}, and has no log")));
        };
        let last = store.last();
        if !store.append(position, record) {
            return Err(Violation::new("log", format!("replica {by} writes {position} after {last}")));
        }
        if self.plan.disk.durability == Durability::Async {
            store.write_through();
        }
        Ok(())
    }

    /// Begins a commit of what has gathered, if none is under way.
    pub(super) fn commit(&mut self, replica: ReplicaId) {
        if self.plan.disk.durability != Durability::Sync {
            return;
        }
        let Some(node) = self.nodes.get_mut(&replica) else { return };
        if node.store.as_mut().is_some_and(|store| store.begin_commit()) {
            let life = node.life;
            let disk = self.plan.disk;
            let most = if self.machines.per_mille(disk.stalls) { STALL_MAX } else { disk.commit_max };
            let at = self.now + self.machines.between(COMMIT_MIN, most);
            self.agenda.add(at, Happening::Committed { replica, life });
        }
    }

    /// A commit comes to its end.
    pub(super) fn committed(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        let life = node.life;
        let Some(store) = node.store.as_mut() else { return Ok(()) };
        match store.end_commit() {
            Commit::Durable(position) => {
                self.commit(replica);
                self.own_event(replica, Event::Durable(position))
            }
            Commit::Full => {
                self.points.insert(Point::DiskFull);
                self.agenda.add(self.now + FULL_PAUSE, Happening::Committed { replica, life });
                Ok(())
            }
            Commit::Failed => {
                // [LOG-1] Nothing is tried again: the replica stops.
                self.points.insert(Point::DiskFailed);
                self.crash(replica);
                Ok(())
            }
        }
    }

    /// What waited for the records up to `position` leaves.
    pub(super) fn release(&mut self, from: ReplicaId, position: LogPosition) -> Result<(), Violation> {
        loop {
            let Some(node) = self.nodes.get_mut(&from) else { return Ok(()) };
            if node.held.front().is_none_or(|held| held.after > position) {
                return Ok(());
            }
            let Some(Held { since, to, message, .. }) = node.held.pop_front() else { return Ok(()) };
            if self.ends_now(from) {
                return Ok(());
            }
            let is_vote = matches!(message, Message::Write(_) | Message::Accept(_));
            if is_vote && self.now - since > HELD_BACK {
                self.points.insert(Point::VoteHeldBack);
            }
            self.on_send(from, to, &message)?;
        }
    }

    /// Counts one more effect of a replica that is to end in the middle; whether it ends before this one.
    pub(super) fn ends_now(&mut self, replica: ReplicaId) -> bool {
        let Some(node) = self.nodes.get_mut(&replica) else { return false };
        match &mut node.effects_left {
            None => false,
            Some(0) => {
                self.points.insert(Point::DiedBetweenEffects);
                self.crash(replica);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// The core of `by` does not need the records below `below` any more.
    pub(super) fn on_cut(&mut self, by: ReplicaId, below: LogPosition) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let stable = node.status().stable_checkpoint;
        let Some(store) = node.store.as_mut() else { return Ok(()) };
        self.points.insert(Point::LogCut);
        let covered = store.snapshot().map_or(InstanceId(0), |image| image.instance).min(stable);
        store.cut(below);
        // [CKPT-2] Only what a stable checkpoint covers that is on this disk.
        match store.last_decided_below(below) {
            Some(instance) if instance > covered => {
                let detail = format!("replica {by} cuts {instance} off, but only {covered} is stable here");
                self.forgiven(Err(Violation::new("checkpoint", detail)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The core of `by` wants its state frozen and written.
    pub(super) fn on_snapshot(
        &mut self,
        by: ReplicaId,
        head: &SnapshotHead,
        after: LogPosition,
    ) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let executed = node.executed;
        if executed != head.instance {
            let detail = format!("replica {by} wants the state after {}, at {executed}", head.instance);
            return Err(Violation::new("checkpoint", detail));
        }
        let image = Image::new(head, &node.service.encode());
        let (instance, root) = (image.instance, image.root);
        if let Some(store) = node.store.as_mut() {
            store.begin_snapshot(image, after);
        }
        let first = *self.roots.entry(instance).or_insert(root);
        let at = self.now + self.machines.between(50, self.plan.disk.snapshot_max);
        self.add_own(at, by, Event::Snapshotted { instance, root });
        if first == root {
            return Ok(());
        }
        let detail = format!("replica {by} has another state at {instance}: {root}, not {first}");
        self.forgiven(Err(Violation::new("checkpoint", detail)))
    }

    /// A replica starts again with what its disk has, unless that cannot be: then it stays away.
    pub(super) fn recover(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let started = self.start_again(replica);
        if started.is_err()
            && let Some(node) = self.nodes.get_mut(&replica)
        {
            node.crash();
        }
        started
    }

    fn start_again(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let broken = |detail: String| Violation::new("recovery", format!("replica {replica}: {detail}"));
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        let recovered = match node.store.as_mut() {
            Some(_) if node.votes_lost => None,
            Some(store) => store.recover().map_err(broken)?,
            None => None,
        };
        let Some(Remains { snapshot, records, is_torn, has_lost }) = recovered else {
            if node.store.is_some() && !node.votes_lost && self.plan.disk.durability == Durability::Sync {
                self.points.insert(Point::DamageFound);
            }
            self.points.insert(Point::RestartedStateLost);
            node.restart(&self.plan);
            self.total_order.on_start(replica, InstanceId(0));
            return Ok(());
        };
        let begun = snapshot.as_ref().map_or(InstanceId(0), |image| image.instance);
        node.restore(&self.plan, snapshot.as_ref()).map_err(broken)?;
        self.total_order.on_start(replica, begun);
        node.is_rolled_back |= has_lost;
        let is_rolled_back = node.is_rolled_back;
        let notes = [
            (is_torn, Point::TornTail),
            (begun > InstanceId(0), Point::RecoveredFromSnapshot),
            (records.is_empty(), Point::RecoveredEmpty),
            (is_rolled_back, Point::RolledBack),
            (self.plan.disk.durability == Durability::Async, Point::RecoveredWithoutSync),
        ];
        self.points.extend(notes.into_iter().filter_map(|(is_so, point)| is_so.then_some(point)));
        for (position, frame) in records {
            let record = Record::decode(frame).map_err(|error| broken(error.to_string()))?;
            self.replay(replica, position, record)?;
        }
        self.take_part(replica)
    }

    fn replay(&mut self, by: ReplicaId, position: LogPosition, record: Record) -> Result<(), Violation> {
        let now = self.now;
        let is_vote = matches!(record, Record::Write(_) | Record::Lock(_));
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let mut actions = Vec::new();
        node.replay(position, record, &mut actions)
            .map_err(|error| Violation::new("recovery", format!("replica {by} at {position}: {error}")))?;
        if is_vote && node.status().recorded_votes > 0 {
            self.points.insert(Point::RecoveredWithVotes);
        }
        for action in actions {
            let Action::Execute(delivery) = action else {
                return Err(Violation::new("recovery", format!("replica {by} reads {position}: {action:?}")));
            };
            if self.roots.contains_key(&delivery.instance) {
                self.points.insert(Point::ReplayedOverCheckpoint);
            }
            let results = self.execute(by, &delivery)?;
            let executed = Event::Executed { instance: delivery.instance, results };
            if let Some(node) = self.nodes.get_mut(&by) {
                node.handle(now, executed, &mut Vec::new());
            }
        }
        Ok(())
    }

    fn take_part(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        let mut actions = Vec::new();
        node.resume(self.now, &mut actions);
        let status = node.status();
        if status.regency.0 > 0 {
            self.points.insert(Point::RecoveredLater);
        }
        if status.leader == replica && status.wanted_regency > status.regency {
            self.points.insert(Point::TermGivenAway);
        }
        if !node.is_rolled_back {
            self.forgiven(self.ledger.check_chain(replica, status.executed, status.chain))?;
        }
        self.perform(replica, actions)?;
        self.arm(replica);
        Ok(())
    }

    /// A correct replica may sign the chain only with all batches up to there on its disk [VOTE-1].
    pub(super) fn check_signed(&self, by: ReplicaId, message: &Message) -> Result<(), Violation> {
        let (Message::ChainSignature(signed), Durability::Sync) = (message, self.plan.disk.durability) else {
            return Ok(());
        };
        let Some(store) = self.nodes.get(&by).and_then(|node| node.store.as_ref()) else { return Ok(()) };
        let covered = store.snapshot().map_or(InstanceId(0), |image| image.instance);
        match store.decided(signed.instance) {
            Some(position) if position <= store.durable() => Ok(()),
            None if signed.instance <= covered => Ok(()),
            found => {
                let (durable, instance) = (store.durable(), signed.instance);
                let detail = format!(
                    "replica {by} signs the chain at {instance}: its record is {found:?}, {durable} is durable"
                );
                Err(Violation::new("durability", detail))
            }
        }
    }

    /// A checkpoint must not be stable before so many took it that a quorum's correct members have it [CKPT-2].
    pub(super) fn check_stable(&mut self, by: ReplicaId, stable: InstanceId) -> Result<(), Violation> {
        if stable <= self.stable {
            return Ok(());
        }
        self.points.insert(Point::CheckpointStable);
        let takers = self.takers.get(&stable).map_or(0, BTreeSet::len);
        let quorum = self.quorum.saturating_sub(self.plan.byzantine.len());
        if takers < quorum {
            let detail =
                format!("{stable} is stable at replica {by}, and {takers} replicas have its snapshot");
            return self.forgiven(Err(Violation::new("checkpoint", detail)));
        }
        self.stable = stable;
        Ok(())
    }
}
