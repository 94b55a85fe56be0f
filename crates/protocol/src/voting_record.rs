//! The one gate through which a vote leaves [VOTE-1].
//!
//! Remembers every WRITE and ACCEPT of this replica above its certificate and hands out a message only for a
//! vote that does not contradict it. Called by the replica's walks, by nobody else; durability will make the
//! record outlive a crash, until then a replica that lost it is told so at the start and gets no vote out.

use std::collections::BTreeMap;

use crate::amnesia::Bounds;
use crate::ids::{Digest, InstanceId, Regency, ViewId};
use crate::leader_change::stop_data::{Claim, Lock};
use crate::limits::WRITE_SET_MAX;
use crate::message::{Message, Vote};
use crate::mutants::{Mutant, is_active};

/// Whether this replica may vote at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It never voted before.
    Fresh,
    /// It lived before and lost its votes: it must not vote, and counts in `f` [RECOVER-2].
    StateLost,
}

/// The votes sent for one instance [STOPDATA-1].
#[derive(Clone, Debug, Default)]
struct Votes {
    /// The latest ACCEPT that rests on a quorum of WRITEs of its epoch (in crash-only mode: on a proposal).
    lock: Lock,
    /// The latest ACCEPT of all: that, or one for what was decided before.
    accepted: Option<(Regency, Digest)>,
    /// For each digest the highest epoch of a WRITE for it, by increasing epoch; none below the lock's.
    write_set: Vec<(Regency, Digest)>,
}

/// What is remembered of the votes of earlier lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Everything: they are on record.
    Whole,
    /// Nothing.
    Lost,
    /// What they cannot have been for [RECOVER-2].
    Bounded(Bounds),
}

/// What this replica has voted for.
#[derive(Debug)]
pub(crate) struct VotingRecord {
    view: ViewId,
    memory: Memory,
    /// The highest instance that this replica ever locked: it never shrinks [RECOVER-2].
    highest_locked: InstanceId,
    votes: BTreeMap<InstanceId, Votes>,
    /// No vote at or below this any more: the own certificate and prefix.
    closed: InstanceId,
    /// No vote in an epoch below this any more [STOP-3].
    installed: Regency,
    /// The highest instance for which this replica sent a PROPOSE in the installed regency [PROPOSE-5].
    proposed: InstanceId,
    /// The regency in which it restarted: what it proposed until then is not on record, so it leads none up to this.
    retired: Option<Regency>,
}

impl VotingRecord {
    pub(crate) fn new(view: ViewId, start: Start) -> Self {
        let memory = match start {
            Start::StateLost if !is_active(Mutant::EmptyIsFirstStart) => Memory::Lost,
            Start::Fresh | Start::StateLost => Memory::Whole,
        };
        Self {
            view,
            memory,
            highest_locked: InstanceId(0),
            votes: BTreeMap::new(),
            closed: InstanceId(0),
            installed: Regency(0),
            proposed: InstanceId(0),
            retired: None,
        }
    }

    /// Whether this replica may propose in the installed regency, and begin it, if it leads it [PROPOSE-5].
    pub(crate) fn may_lead(&self) -> bool {
        let may_propose = match self.memory {
            Memory::Whole => true,
            Memory::Lost => false,
            Memory::Bounded(bounds) => self.installed > bounds.regency,
        };
        may_propose && self.retired.is_none_or(|retired| self.installed > retired)
    }

    /// After a restart in `regency`: this replica leads no regency up to it any more.
    pub(crate) fn retire(&mut self, regency: Regency) {
        self.installed = self.installed.max(regency);
        if !is_active(Mutant::RestartedLeaderProposes) {
            self.retired = Some(regency);
        }
    }

    /// Whether a vote stands on record in `regency` or later.
    pub(crate) fn has_voted_in(&self, regency: Regency) -> bool {
        self.votes.values().any(|votes| {
            votes.has_accepted(regency) || votes.write_set.last().is_some_and(|(epoch, _)| *epoch >= regency)
        })
    }

    /// The instances with a vote on record.
    pub(crate) fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.votes.keys().copied()
    }

    /// Whether votes may leave at all.
    pub(crate) fn may_vote(&self) -> bool {
        self.memory != Memory::Lost
    }

    /// Learns what the lost votes cannot have been for; of several answers the last is the narrowest.
    pub(crate) fn bound(&mut self, bounds: Bounds) {
        match self.memory {
            Memory::Whole => {}
            Memory::Lost | Memory::Bounded(_) => self.memory = Memory::Bounded(bounds),
        }
    }

    /// What is on record of an earlier life whose votes are not. Whoever has lost votes since does not believe it.
    pub(crate) fn restore_bounds(&mut self, bounds: Bounds) {
        match self.memory {
            Memory::Lost => {}
            Memory::Whole | Memory::Bounded(_) => self.memory = Memory::Bounded(bounds),
        }
    }

    /// What the lost votes cannot have been for, if any were lost.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        match self.memory {
            Memory::Whole | Memory::Lost => None,
            Memory::Bounded(bounds) => Some(bounds),
        }
    }

    /// Whether this replica counts as faulty, because it may have voted for what is not certified yet.
    pub(crate) fn is_recovering(&self, base: InstanceId) -> bool {
        match self.memory {
            Memory::Whole => false,
            Memory::Lost => true,
            Memory::Bounded(bounds) => base < bounds.instance,
        }
    }

    /// Whether a statement for `regency` above `base` tells of all votes there are [STOPDATA-1, RECOVER-2].
    pub(crate) fn may_state(&self, base: InstanceId, regency: Regency) -> bool {
        match self.memory {
            Memory::Whole => true,
            Memory::Lost | Memory::Bounded(_) if is_active(Mutant::AmnesiacStates) => true,
            Memory::Lost => false,
            Memory::Bounded(bounds) => base >= bounds.instance && regency > bounds.regency,
        }
    }

    /// The highest regency that this replica may have asked for in a life that it has forgotten.
    pub(crate) fn regency_bound(&self) -> Regency {
        match self.memory {
            Memory::Whole | Memory::Lost => Regency(0),
            Memory::Bounded(bounds) => bounds.regency,
        }
    }

    /// The highest instance that this replica ever locked, or may have touched in a life that it has forgotten.
    pub(crate) fn highest_locked(&self) -> InstanceId {
        match self.memory {
            Memory::Whole | Memory::Lost => self.highest_locked,
            Memory::Bounded(bounds) => self.highest_locked.max(bounds.instance),
        }
    }

    /// Ends all epochs below `regency`: no vote leaves in them any more [STOP-3].
    pub(crate) fn install(&mut self, regency: Regency) {
        assert!(regency > self.installed, "regencies grow");
        if !is_active(Mutant::OldEpochVotes) {
            self.installed = regency;
        }
        self.proposed = InstanceId(0);
    }

    /// Records that the installed regency proposes everything up to `instance` by its SYNC [SYNC-3].
    pub(crate) fn begin(&mut self, regency: Regency, instance: InstanceId) {
        self.installed = regency;
        self.proposed = self.proposed.max(instance);
    }

    /// Records a PROPOSE for `instance`; false if one was sent already or must not be sent [PROPOSE-5].
    pub(crate) fn propose(&mut self, instance: InstanceId) -> bool {
        if !self.may_lead() || instance <= self.proposed {
            return false;
        }
        self.proposed = instance;
        true
    }

    /// The highest instance proposed by this replica in the installed regency.
    pub(crate) fn proposed(&self) -> InstanceId {
        self.proposed
    }

    /// Records a WRITE and returns the message; `None` if this or another one left before, or none may leave.
    pub(crate) fn write(
        &mut self,
        instance: InstanceId,
        regency: Regency,
        digest: Digest,
    ) -> Option<Message> {
        let votes = self.open(instance, regency)?;
        if votes.write_set.last().is_some_and(|(epoch, _)| *epoch >= regency) {
            return None;
        }
        if is_active(Mutant::WriteSetLastOnly) {
            votes.write_set.clear();
        }
        votes.write_set.retain(|(_, written)| *written != digest);
        if votes.write_set.len() >= WRITE_SET_MAX {
            votes.write_set.remove(0);
        }
        votes.write_set.push((regency, digest));
        Some(Message::Write(Vote { view: self.view, instance, regency, digest }))
    }

    /// Records the lock and returns its ACCEPT; `None` as for [`Self::write`].
    pub(crate) fn accept(
        &mut self,
        instance: InstanceId,
        regency: Regency,
        digest: Digest,
    ) -> Option<Message> {
        let votes = self.open(instance, regency)?;
        if votes.has_accepted(regency) {
            return None;
        }
        votes.lock = Lock::At { epoch: regency, digest };
        votes.accepted = Some((regency, digest));
        votes.write_set.retain(|(epoch, _)| *epoch >= regency);
        self.highest_locked = self.highest_locked.max(instance);
        Some(Message::Accept(Vote { view: self.view, instance, regency, digest }))
    }

    /// Records an ACCEPT for what is decided here. It is no lock: nobody need have written it in this epoch, so as a
    /// lock it could keep selection from ever deciding (decision 0017). False if it or a later one left before.
    pub(crate) fn confirm(&mut self, instance: InstanceId, regency: Regency, digest: Digest) -> bool {
        let Some(votes) = self.open(instance, regency) else { return false };
        let is_new = !votes.has_accepted(regency);
        if is_new {
            votes.accepted = Some((regency, digest));
        }
        is_new
    }

    /// The digest written for in `regency`.
    pub(crate) fn written(&self, instance: InstanceId, regency: Regency) -> Option<Digest> {
        let (epoch, digest) = *self.votes.get(&instance)?.write_set.last()?;
        (epoch == regency).then_some(digest)
    }

    /// Whether an ACCEPT left in `regency` or later.
    pub(crate) fn has_accepted(&self, instance: InstanceId, regency: Regency) -> bool {
        self.votes.get(&instance).is_some_and(|votes| votes.has_accepted(regency))
    }

    /// Whether a vote for `digest` stands on record: its batch must be kept for others [VOTE-1].
    pub(crate) fn stands_for(&self, instance: InstanceId, digest: &Digest) -> bool {
        self.votes.get(&instance).is_some_and(|votes| {
            let is_locked = matches!(votes.lock, Lock::At { digest: locked, .. } if locked == *digest);
            is_locked || votes.write_set.iter().any(|(_, written)| written == digest)
        })
    }

    /// The votes above `base`, as a STOPDATA states them.
    pub(crate) fn claims(&self, base: InstanceId) -> Vec<Claim> {
        let above = self.votes.range(base.next()..);
        above
            .filter(|(_, votes)| votes.lock != Lock::None || !votes.write_set.is_empty())
            .map(|(instance, votes)| Claim {
                instance: *instance,
                lock: votes.lock,
                write_set: votes.write_set.clone(),
            })
            .collect()
    }

    /// The latest votes on record for `instance`, to be sent again as they were [LINK-1].
    pub(crate) fn resend(&self, instance: InstanceId) -> impl Iterator<Item = Message> + '_ {
        let votes = self.votes.get(&instance);
        let vote = move |regency, digest| Vote { view: self.view, instance, regency, digest };
        let write = votes.and_then(|votes| votes.write_set.last());
        let accept = votes.and_then(|votes| votes.accepted);
        let write = write.map(|(epoch, digest)| Message::Write(vote(*epoch, *digest)));
        write.into_iter().chain(accept.map(|(epoch, digest)| Message::Accept(vote(epoch, digest))))
    }

    /// Forgets the votes up to `instance`, which a certificate covers and whose batches are here; votes at or
    /// below it are refused from now on.
    pub(crate) fn close(&mut self, instance: InstanceId) {
        if instance <= self.closed {
            return;
        }
        self.closed = instance;
        self.votes = self.votes.split_off(&instance.next());
    }

    /// Instances with a vote on record.
    pub(crate) fn len(&self) -> usize {
        self.votes.len()
    }

    fn open(&mut self, instance: InstanceId, regency: Regency) -> Option<&mut Votes> {
        let is_forgotten = match self.memory {
            Memory::Whole => false,
            Memory::Lost => true,
            Memory::Bounded(bounds) => instance <= bounds.instance || regency < bounds.regency,
        };
        if is_forgotten || instance <= self.closed || regency < self.installed {
            return None;
        }
        Some(self.votes.entry(instance).or_default())
    }
}

impl Votes {
    fn has_accepted(&self, regency: Regency) -> bool {
        self.accepted.is_some_and(|(epoch, _)| epoch >= regency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn record(start: Start) -> VotingRecord {
        VotingRecord::new(ViewId(0), start)
    }

    #[test]
    fn a_differing_vote_never_leaves() {
        let mut record = record(Start::Fresh);
        assert!(record.write(InstanceId(1), Regency(0), A).is_some());
        assert!(record.write(InstanceId(1), Regency(0), B).is_none());
        assert!(record.accept(InstanceId(1), Regency(0), A).is_some());
        assert!(record.accept(InstanceId(1), Regency(0), B).is_none());
        assert_eq!(record.resend(InstanceId(1)).count(), 2);
    }

    #[test]
    fn a_replica_that_lost_its_votes_never_votes() {
        let mut record = record(Start::StateLost);
        assert!(!record.propose(InstanceId(1)));
        assert!(record.write(InstanceId(1), Regency(0), A).is_none());
        assert!(record.accept(InstanceId(1), Regency(0), A).is_none());
    }

    #[test]
    fn bounds_of_a_log_say_nothing_of_votes_that_were_lost_since() {
        let bounds = Bounds { instance: InstanceId(5), regency: Regency(0) };
        let mut known = record(Start::Fresh);
        known.restore_bounds(bounds);
        assert!(known.write(InstanceId(5), Regency(0), A).is_none());
        assert!(known.write(InstanceId(6), Regency(0), A).is_some());
        let mut lost = record(Start::StateLost);
        lost.restore_bounds(bounds);
        assert!(lost.write(InstanceId(6), Regency(0), A).is_none() && lost.is_recovering(InstanceId(9)));
    }

    #[test]
    fn no_vote_leaves_at_or_below_the_certificate() {
        let mut record = record(Start::Fresh);
        record.close(InstanceId(5));
        assert!(record.write(InstanceId(5), Regency(0), A).is_none());
        assert!(record.write(InstanceId(6), Regency(0), A).is_some());
    }

    #[test]
    fn one_proposal_leaves_per_instance() {
        let mut record = record(Start::Fresh);
        assert!(record.propose(InstanceId(1)));
        assert!(!record.propose(InstanceId(1)));
    }

    #[test]
    fn no_vote_leaves_below_the_installed_regency() {
        let mut record = record(Start::Fresh);
        record.write(InstanceId(1), Regency(0), A);
        record.install(Regency(2));
        assert!(record.accept(InstanceId(1), Regency(0), A).is_none());
        assert!(record.write(InstanceId(2), Regency(1), A).is_none());
        assert!(record.write(InstanceId(1), Regency(2), B).is_some());
    }

    #[test]
    fn a_write_set_holds_each_digest_once_and_a_lock_cuts_it() {
        let mut record = record(Start::Fresh);
        let one = InstanceId(1);
        record.write(one, Regency(0), A);
        record.write(one, Regency(1), B);
        record.write(one, Regency(2), A);
        let write_set = |record: &VotingRecord| record.claims(InstanceId(0))[0].write_set.clone();
        assert_eq!(write_set(&record), [(Regency(1), B), (Regency(2), A)]);
        record.accept(one, Regency(2), A);
        assert_eq!(write_set(&record), [(Regency(2), A)]);
        assert!(record.stands_for(one, &A) && !record.stands_for(one, &B));
        assert_eq!(record.claims(one), []);
    }

    #[test]
    fn a_new_regency_proposes_anew_above_what_its_sync_proposed() {
        let mut record = record(Start::Fresh);
        record.propose(InstanceId(9));
        record.install(Regency(1));
        record.begin(Regency(1), InstanceId(4));
        assert!(!record.propose(InstanceId(4)));
        assert!(record.propose(InstanceId(5)));
    }
}
