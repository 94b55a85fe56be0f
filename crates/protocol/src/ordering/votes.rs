//! Votes of one phase of one instance, by epoch: the first of each replica and epoch counts.
//!
//! Of each replica at most three are kept, whatever it sends: that of the installed epoch, the latest below it,
//! and that of the next one, which comes early to whoever installs late [ACCEPT-1, PROPOSE-3].

use crate::ids::{Digest, Regency, ReplicaId};
use crate::mutants::{Mutant, is_active};

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The replica's first vote in its epoch.
    First,
    /// The same vote again, or one that is too old to be kept.
    Again,
    /// Another vote than its first in that epoch: ignored.
    Conflicting,
}

/// One vote.
#[derive(Clone, Copy, Debug)]
struct Cast {
    by: ReplicaId,
    epoch: Regency,
    digest: Digest,
}

/// The votes kept. A few entries for each member at most, so a list serves best.
#[derive(Clone, Debug, Default)]
pub(crate) struct VoteSet {
    votes: Vec<Cast>,
}

impl VoteSet {
    /// Counts a member's vote in `epoch`, while `installed` is this replica's.
    pub(crate) fn add(
        &mut self,
        by: ReplicaId,
        epoch: Regency,
        digest: Digest,
        installed: Regency,
    ) -> Counted {
        let first = self.votes.iter().find(|cast| cast.by == by && cast.epoch == epoch);
        if let Some(first) = first.filter(|_| !is_active(Mutant::VotesPerMessage)) {
            return if first.digest == digest { Counted::Again } else { Counted::Conflicting };
        }
        if epoch < installed {
            // Of those below the installed epoch the latest is kept.
            let older = self.votes.iter_mut().find(|cast| cast.by == by && cast.epoch < installed);
            if let Some(older) = older {
                if older.epoch > epoch {
                    return Counted::Again;
                }
                *older = Cast { by, epoch, digest };
                return Counted::First;
            }
        }
        self.votes.push(Cast { by, epoch, digest });
        Counted::First
    }

    /// Lets go of what is too old or too new to be kept, now that `installed` is.
    pub(crate) fn install(&mut self, installed: Regency) {
        self.votes.sort_by_key(|cast| (cast.by, cast.epoch));
        let votes = std::mem::take(&mut self.votes);
        for (place, cast) in votes.iter().enumerate() {
            let next = votes.get(place.saturating_add(1));
            let is_superseded = next.is_some_and(|next| next.by == cast.by && next.epoch < installed);
            if cast.epoch >= installed || !is_superseded {
                self.votes.push(*cast);
            }
        }
    }

    /// How many replicas voted for `digest` in `epoch`.
    pub(crate) fn count(&self, epoch: Regency, digest: &Digest) -> usize {
        self.votes.iter().filter(|cast| cast.epoch == epoch && cast.digest == *digest).count()
    }

    /// The digest that at least `threshold` replicas voted for in `epoch`; the smallest if there are several.
    pub(crate) fn reached(&self, epoch: Regency, threshold: usize) -> Option<Digest> {
        let voted = self.votes.iter().filter(|cast| cast.epoch == epoch).map(|cast| cast.digest);
        voted.filter(|digest| self.count(epoch, digest) >= threshold).min()
    }

    /// The digest that at least `threshold` replicas voted for in one epoch, whichever [ACCEPT-1].
    pub(crate) fn reached_in_any(&self, installed: Regency, threshold: usize) -> Option<Digest> {
        if self.votes.len() < threshold {
            return None;
        }
        let counts = |cast: &&Cast| {
            if is_active(Mutant::OlderAcceptsIgnored) && cast.epoch < installed {
                return false;
            }
            if is_active(Mutant::AcceptsAcrossEpochs) {
                return self.voters(&cast.digest).count() >= threshold;
            }
            self.count(cast.epoch, &cast.digest) >= threshold
        };
        self.votes.iter().filter(counts).map(|cast| cast.digest).min()
    }

    /// Who voted for `digest`, in any epoch.
    pub(crate) fn voters<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = ReplicaId> + 'a {
        self.votes.iter().filter(move |cast| cast.digest == *digest).map(|cast| cast.by)
    }

    /// What `voter` voted for in `epoch`.
    pub(crate) fn vote_of(&self, voter: ReplicaId, epoch: Regency) -> Option<Digest> {
        self.votes.iter().find(|cast| cast.by == voter && cast.epoch == epoch).map(|cast| cast.digest)
    }

    /// Whether nobody has voted.
    pub(crate) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn add(votes: &mut VoteSet, by: u16, epoch: u64, digest: Digest) -> Counted {
        votes.add(ReplicaId(by), Regency(epoch), digest, Regency(2))
    }

    #[test]
    fn second_vote_from_same_replica_is_ignored() {
        let mut votes = VoteSet::default();
        assert_eq!(add(&mut votes, 1, 2, A), Counted::First);
        assert_eq!(add(&mut votes, 1, 2, A), Counted::Again);
        assert_eq!(add(&mut votes, 1, 2, B), Counted::Conflicting);
        assert_eq!((votes.count(Regency(2), &A), votes.count(Regency(2), &B)), (1, 0));
    }

    #[test]
    fn epochs_are_counted_apart() {
        let mut votes = VoteSet::default();
        add(&mut votes, 1, 1, A);
        add(&mut votes, 2, 1, A);
        add(&mut votes, 3, 2, A);
        assert_eq!(votes.reached_in_any(Regency(2), 3), None);
        add(&mut votes, 4, 1, A);
        assert_eq!(votes.reached_in_any(Regency(2), 3), Some(A));
        assert_eq!(votes.reached(Regency(2), 2), None);
    }

    #[test]
    fn of_older_votes_the_latest_is_kept() {
        let mut votes = VoteSet::default();
        add(&mut votes, 1, 1, A);
        assert_eq!(add(&mut votes, 1, 0, B), Counted::Again);
        assert_eq!(votes.vote_of(ReplicaId(1), Regency(1)), Some(A));
        let mut votes = VoteSet::default();
        add(&mut votes, 1, 0, B);
        add(&mut votes, 1, 1, A);
        assert_eq!(votes.votes.len(), 1);
        add(&mut votes, 1, 2, B);
        add(&mut votes, 1, 3, A);
        votes.install(Regency(3));
        assert_eq!((votes.votes.len(), votes.count(Regency(2), &B)), (2, 1));
    }
}
