//! The one gate through which a vote leaves [VOTE-1].
//!
//! Remembers every WRITE and ACCEPT of this replica above its certificate and hands out a message only for a
//! vote that does not contradict it. Called by the replica's walks, by nobody else; durability will make the
//! record outlive a crash, until then a replica that lost it is told so at the start and gets no vote out.

use std::collections::BTreeMap;

use crate::ids::{Digest, InstanceId, Regency, ViewId};
use crate::message::{Message, Vote};

/// Whether this replica may vote at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It never voted before.
    Fresh,
    /// It lived before and lost its votes: it must not vote, and counts in `f` [RECOVER-2].
    StateLost,
}

/// The votes sent for one instance, with their epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    write: Option<(Regency, Digest)>,
    accept: Option<(Regency, Digest)>,
}

/// What this replica has voted for.
#[derive(Debug)]
pub(crate) struct VotingRecord {
    view: ViewId,
    start: Start,
    votes: BTreeMap<InstanceId, Votes>,
    /// No vote at or below this any more: the own certificate and prefix.
    closed: InstanceId,
    /// The highest instance for which this replica sent a PROPOSE [PROPOSE-5].
    proposed: InstanceId,
}

impl VotingRecord {
    pub(crate) fn new(view: ViewId, start: Start) -> Self {
        Self { view, start, votes: BTreeMap::new(), closed: InstanceId(0), proposed: InstanceId(0) }
    }

    /// Whether votes may leave at all.
    pub(crate) fn may_vote(&self) -> bool {
        self.start == Start::Fresh
    }

    /// Records a PROPOSE for `instance`; false if one was sent already or must not be sent [PROPOSE-5].
    pub(crate) fn propose(&mut self, instance: InstanceId) -> bool {
        if !self.may_vote() || instance <= self.proposed {
            return false;
        }
        self.proposed = instance;
        true
    }

    /// The highest instance proposed by this replica.
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
        let votes = self.open(instance)?;
        if votes.write.is_some_and(|(epoch, _)| epoch >= regency) {
            return None;
        }
        votes.write = Some((regency, digest));
        Some(Message::Write(Vote { view: self.view, instance, regency, digest }))
    }

    /// Records the lock and returns its ACCEPT; `None` as for [`Self::write`].
    pub(crate) fn accept(
        &mut self,
        instance: InstanceId,
        regency: Regency,
        digest: Digest,
    ) -> Option<Message> {
        let votes = self.open(instance)?;
        if votes.accept.is_some_and(|(epoch, _)| epoch >= regency) {
            return None;
        }
        votes.accept = Some((regency, digest));
        Some(Message::Accept(Vote { view: self.view, instance, regency, digest }))
    }

    /// The digest written for in `regency`.
    pub(crate) fn written(&self, instance: InstanceId, regency: Regency) -> Option<Digest> {
        let (epoch, digest) = self.votes.get(&instance)?.write?;
        (epoch == regency).then_some(digest)
    }

    /// Whether an ACCEPT left in `regency`.
    pub(crate) fn has_accepted(&self, instance: InstanceId, regency: Regency) -> bool {
        self.votes.get(&instance).and_then(|votes| votes.accept).is_some_and(|(epoch, _)| epoch >= regency)
    }

    /// The votes on record for `instance`, to be sent again as they were [LINK-1].
    pub(crate) fn resend(&self, instance: InstanceId) -> impl Iterator<Item = Message> + '_ {
        let votes = self.votes.get(&instance).copied().unwrap_or_default();
        let vote = move |(regency, digest)| Vote { view: self.view, instance, regency, digest };
        let write = votes.write.map(|vote_of| Message::Write(vote(vote_of)));
        write.into_iter().chain(votes.accept.map(|vote_of| Message::Accept(vote(vote_of))))
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

    fn open(&mut self, instance: InstanceId) -> Option<&mut Votes> {
        if !self.may_vote() || instance <= self.closed {
            return None;
        }
        Some(self.votes.entry(instance).or_default())
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
}
