//! Who wants which regency to begin [STOP-2, STOP-3].

use std::collections::BTreeMap;

use crate::ids::{Regency, ReplicaId};

/// The highest STOP of each member, this replica's included: one number each, whatever is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    highest: BTreeMap<ReplicaId, Regency>,
}

impl Stops {
    /// Notes a member's STOP; returns whether it is its highest so far.
    pub(crate) fn note(&mut self, from: ReplicaId, regency: Regency) -> bool {
        let highest = self.highest.entry(from).or_default();
        let is_higher = regency > *highest;
        *highest = regency.max(*highest);
        is_higher
    }

    /// What a member wanted before it lost its votes does not count any more; returns it.
    pub(crate) fn forget(&mut self, member: ReplicaId) -> Regency {
        self.highest.remove(&member).unwrap_or_default()
    }

    /// The highest regency that `member` wants; 0 if it never said so.
    pub(crate) fn of(&self, member: ReplicaId) -> Regency {
        self.highest.get(&member).copied().unwrap_or_default()
    }

    /// The highest regency that at least `count` members have reached with their STOPs.
    pub(crate) fn reached(&self, count: usize) -> Regency {
        let mut wanted: Vec<Regency> = self.highest.values().copied().collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        count.checked_sub(1).and_then(|place| wanted.get(place)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regency_is_reached_by_all_who_want_it_or_a_later_one() {
        let mut stops = Stops::default();
        stops.note(ReplicaId(0), Regency(1));
        stops.note(ReplicaId(1), Regency(u64::MAX));
        assert_eq!(stops.reached(2), Regency(1));
        assert_eq!(stops.reached(3), Regency(0));
        stops.note(ReplicaId(2), Regency(5));
        assert_eq!((stops.reached(2), stops.reached(3)), (Regency(5), Regency(1)));
    }

    #[test]
    fn a_member_counts_once_and_never_takes_back() {
        let mut stops = Stops::default();
        assert!(stops.note(ReplicaId(0), Regency(3)));
        assert!(!stops.note(ReplicaId(0), Regency(1)));
        assert_eq!((stops.reached(1), stops.reached(2)), (Regency(3), Regency(0)));
    }
}
