//! *Selection*: what an instance must be proposed with, given what a set of replicas states [SYNC-2].
//!
//! A pure function: the new leader and everyone who checks it come to the same result.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Digest, InstanceId, Regency};
use crate::leader_change::stop_data::{Lock, StopData};
use crate::limits::WRITE_SET_LONG;
use crate::mutants::{Mutant, is_active};
use crate::view::{Mode, View};

/// What becomes of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// Only this digest may be proposed.
    Bound {
        /// The epoch of the lock that binds it.
        epoch: Regency,
        /// What it is bound to.
        digest: Digest,
    },
    /// Nothing can have been decided: anything may be proposed.
    Free,
    /// The statements at hand do not tell: more are needed.
    Undecided,
}

/// Selects for `instance`, which must lie above the highest base of `set`.
#[must_use]
pub fn select(set: &[&StopData], instance: InstanceId, view: &View) -> Selection {
    let mut locks: Vec<Lock> = set.iter().map(|data| told_lock(data, instance)).collect();
    if is_active(Mutant::HighestLockIgnored) {
        let highest = locks.iter().filter_map(epoch_of).max();
        locks.iter_mut().filter(|lock| epoch_of(lock) == highest).for_each(|lock| *lock = Lock::None);
    }
    let unlocked = locks.iter().filter(|lock| **lock == Lock::None).count();
    let is_free = unlocked >= view.quorum() || is_active(Mutant::LocksIgnored);
    if is_free && (is_active(Mutant::FreePreferred) || is_active(Mutant::LocksIgnored)) {
        return Selection::Free;
    }
    let pairs: BTreeSet<(Regency, Digest)> = locks
        .iter()
        .filter_map(|lock| match lock {
            Lock::None => None,
            Lock::At { epoch, digest } => Some((*epoch, *digest)),
        })
        .filter(|(epoch, digest)| {
            has_no_rival(&locks, *epoch, *digest, view) && is_vouched(set, instance, *epoch, *digest, view)
        })
        .collect();
    // The highest epoch, then the smallest digest.
    let first_epoch = pairs.first().map(|(epoch, _)| *epoch);
    let last_epoch = pairs.last().map(|(epoch, _)| *epoch);
    let epoch = if is_active(Mutant::LowestEpochBound) { first_epoch } else { last_epoch };
    let bound = pairs.into_iter().find(|(at, _)| Some(*at) == epoch);
    match bound {
        Some((epoch, digest)) => Selection::Bound { epoch, digest },
        None if is_free => kept(set, instance, view).unwrap_or(Selection::Free),
        None => Selection::Undecided,
    }
}

/// Anything may be proposed, but so many batches were written for here that some write set is long: then one of those is
/// taken again that `weak` members hold. Somebody correct has checked it, and write sets stop growing, so that none of
/// them loses what vouches for a lock that nobody in `set` knows (decision 0035). The latest one, then the smallest digest.
fn kept(set: &[&StopData], instance: InstanceId, view: &View) -> Option<Selection> {
    let claims = || set.iter().filter_map(|data| data.claim(instance));
    if !claims().any(|claim| claim.write_set.len() >= WRITE_SET_LONG) {
        return None;
    }
    let mut holders: BTreeMap<Digest, Vec<Regency>> = BTreeMap::new();
    for claim in claims() {
        // One replica may name a digest once for each epoch: only its latest counts.
        let latest: BTreeMap<Digest, Regency> =
            claim.write_set.iter().map(|(epoch, digest)| (*digest, *epoch)).collect();
        latest.into_iter().for_each(|(digest, epoch)| holders.entry(digest).or_default().push(epoch));
    }
    let held = holders.into_iter().filter_map(|(digest, mut epochs)| {
        epochs.sort_unstable_by_key(|epoch| Reverse(*epoch));
        let epoch = *epochs.get(view.weak().checked_sub(1)?)?;
        Some((epoch, Reverse(digest)))
    });
    held.max().map(|(epoch, Reverse(digest))| Selection::Bound { epoch, digest })
}

/// Condition (1): a quorum has no lock, or one of an earlier epoch, or this one.
fn has_no_rival(locks: &[Lock], epoch: Regency, digest: Digest, view: &View) -> bool {
    let agrees = |lock: &&Lock| match lock {
        Lock::None => true,
        Lock::At { epoch: at, digest: locked } => *at < epoch || (*at == epoch && *locked == digest),
    };
    locks.iter().filter(agrees).count() >= view.quorum() || is_active(Mutant::BoundWithoutQuorum)
}

/// Condition (2): somebody correct wrote it at this epoch or later, so it was proposed and its batch exists.
fn is_vouched(set: &[&StopData], instance: InstanceId, epoch: Regency, digest: Digest, view: &View) -> bool {
    let has_written = |data: &&&StopData| {
        let written = data.claim(instance).map(|claim| claim.write_set.as_slice()).unwrap_or_default();
        written.iter().any(|(at, written)| *at >= epoch && *written == digest)
    };
    match view.mode() {
        Mode::Bft => {
            set.iter().filter(has_written).count() >= view.weak() || is_active(Mutant::BoundWithoutWrites)
        }
        Mode::Cft => true,
    }
}

fn epoch_of(lock: &Lock) -> Option<Regency> {
    match lock {
        Lock::None => None,
        Lock::At { epoch, .. } => Some(*epoch),
    }
}

fn told_lock(data: &StopData, instance: InstanceId) -> Lock {
    match data.lock(instance) {
        Lock::At { epoch: Regency(0), .. } if is_active(Mutant::NoLockIsEpochZero) => Lock::None,
        lock => lock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ViewId;
    use crate::leader_change::stop_data::Claim;
    use crate::view::tests::view;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn stated(lock: Option<(u64, Digest)>, write_set: &[(u64, Digest)]) -> StopData {
        let lock = lock.map_or(Lock::None, |(epoch, digest)| Lock::At { epoch: Regency(epoch), digest });
        let write_set = write_set.iter().map(|(epoch, digest)| (Regency(*epoch), *digest)).collect();
        let claims = vec![Claim { instance: InstanceId(1), lock, write_set }];
        StopData { view: ViewId(0), regency: Regency(5), base: None, claims }
    }

    fn selected(set: &[StopData]) -> Selection {
        let view = view(Mode::Bft, 4, 1).unwrap();
        select(&set.iter().collect::<Vec<_>>(), InstanceId(1), &view)
    }

    fn bound(epoch: u64, digest: Digest) -> Selection {
        Selection::Bound { epoch: Regency(epoch), digest }
    }

    #[test]
    fn a_decided_value_is_bound_whichever_quorum_speaks() {
        let locked = || stated(Some((0, A)), &[(0, A)]);
        let without = || stated(None, &[]);
        assert_eq!(selected(&[locked(), locked(), without()]), bound(0, A));
        // The third is a liar that denies its vote.
        assert_eq!(selected(&[locked(), locked(), without(), without()]), bound(0, A));
    }

    #[test]
    fn no_lock_and_a_lock_in_epoch_zero_differ() {
        let set = [stated(None, &[(0, A)]), stated(Some((0, A)), &[(0, A)]), stated(None, &[])];
        assert_eq!(selected(&set), bound(0, A), "two unlocked are no quorum");
    }

    #[test]
    fn a_lock_that_nobody_wrote_does_not_bind() {
        let set = [stated(Some((0, A)), &[(0, A)]), stated(None, &[]), stated(None, &[])];
        assert_eq!(selected(&set), Selection::Undecided);
        let set = [&set[..], &[stated(None, &[])]].concat();
        assert_eq!(selected(&set), Selection::Free, "the lock is the liar's");
    }

    #[test]
    fn where_write_sets_are_long_something_old_is_proposed_again() {
        let long = |own: u8| -> Vec<(u64, Digest)> {
            let others = (2..16).map(|epoch| (u64::from(epoch), Digest([own + epoch; 32])));
            [(0, A), (1, B)].into_iter().chain(others).collect()
        };
        let without = || stated(None, &[]);
        assert_eq!(selected(&[stated(None, &long(20)), stated(None, &long(60)), without()]), bound(1, B));
        let short = &long(20)[..15];
        assert_eq!(selected(&[stated(None, short), stated(None, short), without()]), Selection::Free);
        // Of what one alone holds nobody else may have checked anything.
        assert_eq!(selected(&[stated(None, &long(20)), without(), without()]), Selection::Free);
        let liar = stated(None, &[(4, A), (4, B)]);
        assert_eq!(selected(&[stated(None, &long(20)), liar, without()]), bound(1, B));
        let locked = stated(Some((0, A)), &[(0, A)]);
        assert_eq!(selected(&[stated(None, &long(20)), locked, without()]), bound(0, A), "a lock goes first");
    }

    #[test]
    fn of_two_locks_the_later_one_binds() {
        let set = [stated(Some((0, A)), &[(0, A)]), stated(Some((1, B)), &[(1, B)]), stated(None, &[(1, B)])];
        assert_eq!(selected(&set), bound(1, B));
    }

    #[test]
    fn two_values_bound_in_one_epoch_are_told_apart_by_their_digests() {
        let view = view(Mode::Bft, 7, 2).unwrap();
        let mut set: Vec<StopData> = (0..5).map(|_| stated(None, &[(0, A), (1, B)])).collect();
        set.push(stated(Some((1, B)), &[(1, B)]));
        set.push(stated(Some((1, A)), &[(1, A)]));
        set[0] = stated(None, &[(1, A)]);
        set[1] = stated(None, &[(1, A)]);
        assert_eq!(select(&set.iter().collect::<Vec<_>>(), InstanceId(1), &view), bound(1, A));
    }

    #[test]
    fn crash_only_mode_believes_the_latest_lock() {
        let view = view(Mode::Cft, 3, 1).unwrap();
        let set = [stated(Some((0, A)), &[]), stated(None, &[])];
        assert_eq!(select(&set.iter().collect::<Vec<_>>(), InstanceId(1), &view), bound(0, A));
        let set = [stated(None, &[]), stated(None, &[])];
        assert_eq!(select(&set.iter().collect::<Vec<_>>(), InstanceId(1), &view), Selection::Free);
    }
}
