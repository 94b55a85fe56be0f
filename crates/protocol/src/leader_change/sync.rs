//! SYNC: the statements that a new leader gathered, and what everyone makes of them [SYNC-1, SYNC-3].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use crate::codec;
use crate::digest::{self, Domain};
use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
use crate::leader_change::selection::{Selection, select};
use crate::leader_change::stop_data::{SignedStopData, StopData, StopDataError};
use crate::limits::Settings;
use crate::message::{Batch, ChainCertificate, Statement};
use crate::mutants::{Mutant, is_active};
use crate::time::Timestamp;
use crate::view::View;

/// A regency's beginning, signed by its leader; anyone may relay it [LINK-2].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The view.
    pub view: ViewId,
    /// The regency that begins.
    pub regency: Regency,
    /// The statements that it rests on, by increasing sender.
    pub set: Vec<SignedStopData>,
    /// What the leader selected, by instance: its word only, everyone selects again.
    pub results: Vec<(InstanceId, Digest)>,
    /// The leader's signature over [`Sync::statement`].
    pub signature: Signature,
}

impl Sync {
    /// What its signature covers.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let content = digest::digest(Domain::Sync, &codec::sync_content(self));
        Statement::Sync { view: self.view, regency: self.regency, content }
    }

    /// Checks everything but signatures, which the shell has verified, and selects.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn outcome(&self, view: &View, settings: &Settings) -> Result<Outcome, SyncError> {
        if self.view != view.id() {
            return Err(SyncError::Elsewhere);
        }
        let mut senders = BTreeSet::new();
        for stated in &self.set {
            stated.check(self.regency, view, settings)?;
            if !senders.insert(stated.sender) && !is_active(Mutant::SendersRepeat) {
                return Err(SyncError::SenderRepeats(stated.sender));
            }
        }
        let data: Vec<&StopData> = self.set.iter().map(|stated| &*stated.data).collect();
        let mut outcome = Outcome::select(&data, view).ok_or(SyncError::Undecided)?;
        if is_active(Mutant::LeaderOverBound) {
            outcome.bound = self.results.iter().copied().collect();
        }
        Ok(outcome)
    }
}

/// Why a SYNC begins nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SyncError {
    /// It was made for another view.
    #[error("made for another view")]
    Elsewhere,
    /// A statement in it counts for nothing.
    #[error("a statement in it counts for nothing: {0}")]
    Statement(#[from] StopDataError),
    /// One replica speaks twice in it.
    #[error("replica {0} speaks twice in it")]
    SenderRepeats(ReplicaId),
    /// Its statements do not tell what to propose, or are fewer than a quorum.
    #[error("its statements do not tell what to propose")]
    Undecided,
}

/// What a set of statements comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The highest certificate stated; `None` if there is none.
    pub base: Option<ChainCertificate>,
    /// What is proposed, as if by the leader, for every instance above the base up to the last bound one.
    pub bound: BTreeMap<InstanceId, Digest>,
}

impl Outcome {
    /// Selects for every instance above the highest base up to the highest that is claimed; `None` if the
    /// statements are fewer than a quorum or leave one undecided.
    #[must_use]
    pub fn select(set: &[&StopData], view: &View) -> Option<Self> {
        if set.len() < view.quorum() {
            return None;
        }
        let highest = set.iter().max_by_key(|data| data.base_instance())?;
        let base = highest.base_instance();
        // Only what somebody claims can be bound: a far-off claim costs no more than itself.
        let claimed: BTreeSet<InstanceId> = set
            .iter()
            .flat_map(|data| data.claims.iter().map(|claim| claim.instance))
            .filter(|instance| *instance > base)
            .collect();
        let mut selected = BTreeMap::new();
        for instance in claimed {
            match select(set, instance, view) {
                Selection::Bound { digest, .. } => {
                    selected.insert(instance, digest);
                }
                Selection::Free => {}
                Selection::Undecided => return None,
            }
        }
        // [SYNC-2] A free instance below a bound one becomes the empty batch.
        let mut bound = BTreeMap::new();
        if let Some((last, _)) = selected.last_key_value() {
            let mut instance = base.next();
            while instance <= *last {
                let digest = selected.get(&instance).copied();
                bound.insert(instance, digest.unwrap_or_else(|| empty_batch(view.id(), instance).digest()));
                instance = instance.next();
            }
        }
        Some(Self { base: highest.base.clone(), bound })
    }

    /// The instance of the highest base.
    #[must_use]
    pub fn base_instance(&self) -> InstanceId {
        self.base.as_ref().map_or(InstanceId(0), |certificate| certificate.instance)
    }

    /// The last instance that is proposed by the outcome: the base itself if there is none above it.
    #[must_use]
    pub fn last(&self) -> InstanceId {
        self.bound.last_key_value().map_or(self.base_instance(), |(last, _)| *last)
    }
}

/// What a free instance below a bound one is proposed with: nothing, at time 0.
#[must_use]
pub fn empty_batch(view: ViewId, instance: InstanceId) -> Arc<Batch> {
    Arc::new(Batch { view, instance, timestamp: Timestamp(0), requests: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_change::stop_data::{Claim, Lock};
    use crate::view::Mode;
    use crate::view::tests::view;

    const A: Digest = Digest([1; 32]);

    fn stated(sender: u16, locked: &[u64]) -> SignedStopData {
        let claim = |instance: &u64| Claim {
            instance: InstanceId(*instance),
            lock: Lock::At { epoch: Regency(0), digest: A },
            write_set: vec![(Regency(0), A)],
        };
        let claims = locked.iter().map(claim).collect();
        let data = StopData { view: ViewId(0), regency: Regency(1), base: None, claims };
        SignedStopData { sender: ReplicaId(sender), data: Arc::new(data), signature: Signature([0; 64]) }
    }

    fn outcome(set: Vec<SignedStopData>) -> Result<Outcome, SyncError> {
        let sync = Sync {
            view: ViewId(0),
            regency: Regency(1),
            set,
            results: vec![],
            signature: Signature([0; 64]),
        };
        sync.outcome(&view(Mode::Bft, 4, 1).unwrap(), &Settings::default())
    }

    #[test]
    fn a_free_instance_below_a_bound_one_becomes_the_empty_batch() {
        let outcome = outcome(vec![stated(0, &[2]), stated(1, &[2]), stated(2, &[])]).unwrap();
        let empty = empty_batch(ViewId(0), InstanceId(1)).digest();
        assert_eq!(outcome.bound, [(InstanceId(1), empty), (InstanceId(2), A)].into());
        assert_eq!(outcome.last(), InstanceId(2));
    }

    #[test]
    fn nothing_claimed_binds_nothing() {
        let outcome = outcome(vec![stated(0, &[]), stated(1, &[]), stated(2, &[])]).unwrap();
        assert_eq!((outcome.last(), outcome.bound.len()), (InstanceId(0), 0));
    }

    #[test]
    fn a_sender_counts_once_and_a_quorum_is_needed() {
        let twice = vec![stated(0, &[]), stated(0, &[]), stated(1, &[])];
        assert_eq!(outcome(twice), Err(SyncError::SenderRepeats(ReplicaId(0))));
        assert_eq!(outcome(vec![stated(0, &[]), stated(1, &[])]), Err(SyncError::Undecided));
    }
}
