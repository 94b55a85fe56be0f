//! STOPDATA: what a replica states, under its signature, about the instances above its certificate [STOPDATA-1].

use std::sync::Arc;

use thiserror::Error;

use crate::chain;
use crate::codec;
use crate::digest::{self, Domain};
use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
use crate::limits::{Settings, WRITE_SET_MAX};
use crate::message::{ChainCertificate, Statement};
use crate::mutants::{Mutant, is_active};
use crate::view::View;

/// The latest ACCEPT that a replica sent for an instance. No lock and a lock in epoch 0 are two things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lock {
    /// It sent none.
    #[default]
    None,
    /// It sent one.
    At {
        /// In this epoch.
        epoch: Regency,
        /// For this digest.
        digest: Digest,
    },
}

/// What a replica states about one instance: its lock and its write set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The instance.
    pub instance: InstanceId,
    /// The lock.
    pub lock: Lock,
    /// For each digest the highest epoch in which it sent WRITE for it, by increasing epoch, one per epoch.
    pub write_set: Vec<(Regency, Digest)>,
}

/// A replica's statement for a regency, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopData {
    /// The view.
    pub view: ViewId,
    /// The regency that begins.
    pub regency: Regency,
    /// The highest certificate; `None` if there is none yet: then the base is instance 0.
    pub base: Option<ChainCertificate>,
    /// Its votes for instances above the base, by increasing instance; one that is left out has none.
    pub claims: Vec<Claim>,
}

impl StopData {
    /// The instance up to which everything is certified.
    #[must_use]
    pub fn base_instance(&self) -> InstanceId {
        self.base.as_ref().map_or(InstanceId(0), |certificate| certificate.instance)
    }

    /// What it states about `instance`, if anything.
    #[must_use]
    pub fn claim(&self, instance: InstanceId) -> Option<&Claim> {
        let place = self.claims.binary_search_by_key(&instance, |claim| claim.instance).ok()?;
        self.claims.get(place)
    }

    /// The lock that it states for `instance`.
    #[must_use]
    pub fn lock(&self, instance: InstanceId) -> Lock {
        self.claim(instance).map_or(Lock::None, |claim| claim.lock)
    }

    /// What its signature covers.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let content = digest::digest(Domain::StopData, &codec::stop_data_content(self));
        Statement::StopData { view: self.view, regency: self.regency, content }
    }
}

/// A STOPDATA with the signature of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStopData {
    /// Who states it.
    pub sender: ReplicaId,
    /// What.
    pub data: Arc<StopData>,
    /// The sender's signature over [`StopData::statement`].
    pub signature: Signature,
}

/// Why a STOPDATA counts for nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StopDataError {
    /// It was made for another view or regency.
    #[error("made for another view or regency")]
    Elsewhere,
    /// It was made for a view's first regency, which begins without any.
    #[error("made for a regency that begins without statements")]
    FirstRegency,
    /// Its sender is no member.
    #[error("its sender is no member of the view")]
    NotAMember,
    /// Its base has too few signers, or such as are no members.
    #[error("its base is not certified")]
    BaseUncertified,
    /// Instances out of order, at or below the base, or more than `span` above it; or a claim of nothing.
    #[error("its claims are out of order or out of bounds")]
    ClaimsOutOfBounds,
    /// A lock or a WRITE in an epoch that had not begun, or a write set no correct replica has.
    #[error("its votes are not such as a correct replica can have")]
    ImpossibleVotes,
}

impl SignedStopData {
    /// Checks everything but signatures, which the shell has verified: membership, place, certificate, bounds.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn check(&self, regency: Regency, view: &View, settings: &Settings) -> Result<(), StopDataError> {
        let data = &self.data;
        if data.view != view.id() || data.regency != regency {
            return Err(StopDataError::Elsewhere);
        }
        if regency == Regency(0) {
            return Err(StopDataError::FirstRegency);
        }
        if view.member(self.sender).is_none() {
            return Err(StopDataError::NotAMember);
        }
        if let Some(base) = &data.base {
            let is_certified =
                base.view == view.id() && base.instance > InstanceId(0) && chain::has_signers(base, view);
            if !is_certified && !is_active(Mutant::BaseUncertified) {
                return Err(StopDataError::BaseUncertified);
            }
        }
        let mut below = data.base_instance();
        let last = below.plus(settings.span);
        for claim in &data.claims {
            let is_within = claim.instance <= last || is_active(Mutant::ClaimsBeyondSpan);
            let is_empty = claim.lock == Lock::None && claim.write_set.is_empty();
            if claim.instance <= below || !is_within || is_empty {
                return Err(StopDataError::ClaimsOutOfBounds);
            }
            below = claim.instance;
            if !claim.is_possible(regency) {
                return Err(StopDataError::ImpossibleVotes);
            }
        }
        Ok(())
    }
}

impl Claim {
    /// Whether it names `digest` as written or locked.
    pub(crate) fn names(&self, digest: &Digest) -> bool {
        matches!(&self.lock, Lock::At { digest: locked, .. } if locked == digest)
            || self.write_set.iter().any(|(_, written)| written == digest)
    }

    /// Whether a correct replica can have these votes before `regency` begins.
    fn is_possible(&self, regency: Regency) -> bool {
        let lock_epoch = match self.lock {
            Lock::None => Regency(0),
            Lock::At { epoch, .. } if epoch >= regency => return false,
            Lock::At { epoch, .. } => epoch,
        };
        let is_increasing = self.write_set.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
        let are_within = self.write_set.iter().all(|(epoch, _)| *epoch >= lock_epoch && *epoch < regency);
        let mut digests: Vec<&Digest> = self.write_set.iter().map(|(_, digest)| digest).collect();
        digests.sort_unstable();
        let are_distinct = digests.windows(2).all(|pair| matches!(pair, [a, b] if a != b));
        self.write_set.len() <= WRITE_SET_MAX && is_increasing && are_within && are_distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Mode;
    use crate::view::tests::view;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn stated(claims: Vec<Claim>) -> SignedStopData {
        let data = StopData { view: ViewId(0), regency: Regency(3), base: None, claims };
        SignedStopData { sender: ReplicaId(1), data: Arc::new(data), signature: Signature([0; 64]) }
    }

    fn check(stated: &SignedStopData) -> Result<(), StopDataError> {
        let view = view(Mode::Bft, 4, 1).unwrap();
        stated.check(Regency(3), &view, &Settings::default())
    }

    fn claim(instance: u64, lock: Lock, write_set: &[(u64, Digest)]) -> Claim {
        let write_set = write_set.iter().map(|(epoch, digest)| (Regency(*epoch), *digest)).collect();
        Claim { instance: InstanceId(instance), lock, write_set }
    }

    fn at(epoch: u64, digest: Digest) -> Lock {
        Lock::At { epoch: Regency(epoch), digest }
    }

    #[test]
    fn what_a_correct_replica_states_is_accepted() {
        let claims = vec![
            claim(1, at(0, A), &[(0, A)]),
            claim(2, Lock::None, &[(0, A), (2, B)]),
            claim(9, at(1, A), &[(1, A), (2, B)]),
        ];
        assert_eq!(check(&stated(claims)), Ok(()));
    }

    #[test]
    fn votes_of_the_future_are_refused() {
        let refused = Err(StopDataError::ImpossibleVotes);
        assert_eq!(check(&stated(vec![claim(1, at(3, A), &[])])), refused);
        assert_eq!(check(&stated(vec![claim(1, Lock::None, &[(3, A)])])), refused);
    }

    #[test]
    fn a_stuffed_write_set_is_refused() {
        let refused = Err(StopDataError::ImpossibleVotes);
        assert_eq!(check(&stated(vec![claim(1, Lock::None, &[(1, A), (1, B)])])), refused);
        assert_eq!(check(&stated(vec![claim(1, Lock::None, &[(1, A), (2, A)])])), refused);
        assert_eq!(check(&stated(vec![claim(1, at(2, A), &[(1, B), (2, A)])])), refused);
    }

    #[test]
    fn claims_keep_to_their_order_and_bounds() {
        let refused = Err(StopDataError::ClaimsOutOfBounds);
        let write: &[(u64, Digest)] = &[(0, A)];
        let last = Settings::default().span;
        assert_eq!(check(&stated(vec![claim(last, Lock::None, write)])), Ok(()));
        assert_eq!(check(&stated(vec![claim(last + 1, Lock::None, write)])), refused);
        assert_eq!(check(&stated(vec![claim(u64::MAX, Lock::None, write)])), refused);
        assert_eq!(check(&stated(vec![claim(0, Lock::None, write)])), refused);
        assert_eq!(check(&stated(vec![claim(2, Lock::None, write), claim(2, Lock::None, write)])), refused);
        assert_eq!(check(&stated(vec![claim(2, Lock::None, &[])])), refused);
    }

    #[test]
    fn a_base_needs_enough_signers_and_counts_for_its_view_only() {
        let with_base = |view, signers: &[u16]| {
            let mut stated = stated(vec![]);
            let signatures = signers.iter().map(|id| (ReplicaId(*id), Signature([0; 64]))).collect();
            let base = ChainCertificate { view: ViewId(view), instance: InstanceId(8), chain: A, signatures };
            Arc::make_mut(&mut stated.data).base = Some(base);
            stated
        };
        let refused = Err(StopDataError::BaseUncertified);
        assert_eq!(check(&with_base(0, &[0, 2])), Ok(()));
        assert_eq!(check(&with_base(0, &[0])), refused);
        assert_eq!(check(&with_base(0, &[0, 0])), refused);
        assert_eq!(check(&with_base(0, &[0, 9])), refused);
        assert_eq!(check(&with_base(1, &[0, 2])), refused);
    }
}
