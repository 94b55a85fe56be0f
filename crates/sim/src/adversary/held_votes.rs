//! Votes of owned replicas that are held back: until a change of leader is under way, or until so many others have
//! voted the same that those of the owned just make a quorum.

use std::collections::{BTreeMap, BTreeSet};

use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId};
use regency_protocol::message::Message;

use crate::plan::Plan;

/// Votes that are held back, at most.
const HELD_MAX: usize = 256;
/// Places whose voters it knows, at most.
const PLACES_MAX: usize = 256;

/// What a vote is for: whether an ACCEPT, where, and for what.
type Ballot = (bool, InstanceId, Regency, Digest);

/// A vote on its way from an owned replica to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldVote {
    /// In whose name.
    pub(super) from: ReplicaId,
    /// To whom.
    pub(super) to: ReplicaId,
    /// WRITE or ACCEPT.
    pub(super) message: Message,
}

/// All that are held back.
pub(super) struct HeldVotes {
    until_change: Vec<HeldVote>,
    until_edge: Vec<HeldVote>,
    /// Who of the correct has voted for what.
    voters: BTreeMap<Ballot, BTreeSet<ReplicaId>>,
    /// With so many of them, and with those of all owned, there is a quorum.
    edge: usize,
}

impl HeldVotes {
    pub(super) fn new(plan: &Plan) -> Self {
        let edge = plan.view.quorum().saturating_sub(plan.byzantine.len());
        Self { until_change: Vec::new(), until_edge: Vec::new(), voters: BTreeMap::new(), edge }
    }

    /// A correct replica's vote came: takes out what has waited for it.
    pub(super) fn note(&mut self, from: ReplicaId, message: &Message) -> Vec<HeldVote> {
        let Some(ballot) = ballot(message) else { return Vec::new() };
        let voters = self.voters.entry(ballot).or_default();
        voters.insert(from);
        let is_edge = voters.len() >= self.edge;
        if self.voters.len() > PLACES_MAX {
            self.voters.pop_first();
        }
        if !is_edge {
            return Vec::new();
        }
        self.until_edge.extract_if(.., |held| ballot_of(held) == Some(ballot)).collect()
    }

    /// Holds a vote back until a change is under way.
    pub(super) fn until_change(&mut self, vote: HeldVote) {
        if self.until_change.len() < HELD_MAX {
            self.until_change.push(vote);
        }
    }

    /// Holds a vote back until there are just enough others; gives it back if there are.
    pub(super) fn until_edge(&mut self, vote: HeldVote) -> Option<HeldVote> {
        let voters = ballot_of(&vote).and_then(|ballot| self.voters.get(&ballot));
        if voters.is_some_and(|voters| voters.len() >= self.edge) || self.until_edge.len() >= HELD_MAX {
            return Some(vote);
        }
        self.until_edge.push(vote);
        None
    }

    /// A change is under way: takes out everything.
    pub(super) fn all(&mut self) -> Vec<HeldVote> {
        let mut all = std::mem::take(&mut self.until_change);
        all.append(&mut self.until_edge);
        all
    }
}

fn ballot_of(held: &HeldVote) -> Option<Ballot> {
    ballot(&held.message)
}

fn ballot(message: &Message) -> Option<Ballot> {
    let (is_accept, vote) = match message {
        Message::Write(vote) => (false, vote),
        Message::Accept(vote) => (true, vote),
        _other => return None,
    };
    Some((is_accept, vote.instance, vote.regency, vote.digest))
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::ViewId;
    use regency_protocol::message::Vote;

    use super::*;
    use crate::plan::Plan;
    use crate::scenario::Scenario;

    fn write(digest: u8) -> Message {
        let (view, instance, regency) = (ViewId(0), InstanceId(1), Regency(0));
        Message::Write(Vote { view, instance, regency, digest: Digest([digest; 32]) })
    }

    fn held(digest: u8) -> HeldVote {
        HeldVote { from: ReplicaId(9), to: ReplicaId(0), message: write(digest) }
    }

    #[test]
    fn votes_follow_when_they_just_make_a_quorum() {
        let plan = Plan::new(1, Some(Scenario::LyingLeader)).1;
        let mut votes = HeldVotes::new(&plan);
        assert_eq!(votes.until_edge(held(1)), None);
        votes.until_change(held(2));
        for replica in 1..votes.edge {
            assert_eq!(votes.note(ReplicaId(replica as u16), &write(1)), []);
            assert_eq!(votes.note(ReplicaId(replica as u16), &write(1)), []);
        }
        assert_eq!(votes.note(ReplicaId(100), &write(2)), []);
        assert_eq!(votes.note(ReplicaId(100), &write(1)), [held(1)]);
        assert_eq!(votes.until_edge(held(1)), Some(held(1)));
        assert_eq!(votes.all(), [held(2)]);
    }
}
