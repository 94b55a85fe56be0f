//! Votes of one phase of one instance: the first of each replica counts.

use crate::ids::{Digest, ReplicaId};
use crate::mutants::{Mutant, is_active};

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The replica's first vote.
    First,
    /// The same vote again.
    Again,
    /// Another vote than its first: ignored.
    Conflicting,
}

/// The first vote of each replica. As many entries as members at most, so a list serves best.
#[derive(Clone, Debug, Default)]
pub(crate) struct VoteSet {
    votes: Vec<(ReplicaId, Digest)>,
}

impl VoteSet {
    /// Counts a vote of a member.
    pub(crate) fn add(&mut self, from: ReplicaId, digest: Digest) -> Counted {
        if !is_active(Mutant::VotesPerMessage)
            && let Some((_, first)) = self.votes.iter().find(|(voter, _)| *voter == from)
        {
            return if *first == digest { Counted::Again } else { Counted::Conflicting };
        }
        self.votes.push((from, digest));
        Counted::First
    }

    /// How many replicas voted for `digest`.
    pub(crate) fn count(&self, digest: &Digest) -> usize {
        self.votes.iter().filter(|(_, voted)| voted == digest).count()
    }

    /// The digest that at least `threshold` replicas voted for; the smallest if there are several.
    pub(crate) fn reached(&self, threshold: usize) -> Option<Digest> {
        self.votes.iter().map(|(_, digest)| *digest).filter(|digest| self.count(digest) >= threshold).min()
    }

    /// Who voted for `digest`.
    pub(crate) fn voters<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = ReplicaId> + 'a {
        self.votes.iter().filter(move |(_, voted)| voted == digest).map(|(voter, _)| *voter)
    }

    /// What `voter` voted for.
    pub(crate) fn vote_of(&self, voter: ReplicaId) -> Option<Digest> {
        self.votes.iter().find(|(from, _)| *from == voter).map(|(_, digest)| *digest)
    }

    /// Whether nobody has voted.
    pub(crate) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_vote_from_same_replica_is_ignored() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let mut votes = VoteSet::default();
        assert_eq!(votes.add(ReplicaId(1), a), Counted::First);
        assert_eq!(votes.add(ReplicaId(1), a), Counted::Again);
        assert_eq!(votes.add(ReplicaId(1), b), Counted::Conflicting);
        assert_eq!((votes.count(&a), votes.count(&b)), (1, 0));
    }

    #[test]
    fn a_threshold_is_reached_by_distinct_replicas_only() {
        let a = Digest([1; 32]);
        let mut votes = VoteSet::default();
        votes.add(ReplicaId(1), a);
        votes.add(ReplicaId(1), a);
        assert_eq!(votes.reached(2), None);
        votes.add(ReplicaId(2), a);
        assert_eq!(votes.reached(2), Some(a));
    }
}
