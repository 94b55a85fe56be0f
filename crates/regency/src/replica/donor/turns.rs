//! Donations that wait, taken from one requester after the other [ST-4].

use std::collections::{BTreeMap, VecDeque};

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::DONOR_QUESTIONS_MAX;

/// Donations that may wait.
pub(super) const WAITING_MAX: usize = 64;
/// Donations that may wait for one requester: nobody can take the room of all.
const WAITING_PER_REQUESTER_MAX: usize = 2 * DONOR_QUESTIONS_MAX;

/// What waits, by requester.
#[derive(Debug)]
pub(super) struct Turns<T> {
    waiting: BTreeMap<ReplicaId, VecDeque<T>>,
    count: usize,
    /// Whose turn was last.
    last: Option<ReplicaId>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), count: 0, last: None }
    }
}

impl<T> Turns<T> {
    /// Lets something wait for its turn; returns what there is no room for: of a requester that asks for too much the
    /// oldest, which it has asked another for since.
    pub(super) fn push(&mut self, requester: ReplicaId, order: T) -> Option<T> {
        let own = self.waiting.get(&requester).map_or(0, VecDeque::len);
        if own < WAITING_PER_REQUESTER_MAX && self.count >= WAITING_MAX {
            return Some(order);
        }
        let orders = self.waiting.entry(requester).or_default();
        orders.push_back(order);
        if own >= WAITING_PER_REQUESTER_MAX {
            return orders.pop_front();
        }
        self.count += 1;
        None
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The oldest order of the requester after the one whose turn was last.
    pub(super) fn next(&mut self) -> Option<(ReplicaId, T)> {
        let after = |last: ReplicaId| self.waiting.keys().find(|id| **id > last);
        let requester = *self.last.and_then(after).or_else(|| self.waiting.keys().next())?;
        let orders = self.waiting.get_mut(&requester)?;
        let order = orders.pop_front()?;
        if orders.is_empty() {
            self.waiting.remove(&requester);
        }
        self.count -= 1;
        self.last = Some(requester);
        Some((requester, order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requesters_take_turns_and_each_is_served_in_order() {
        let mut turns = Turns::default();
        for (id, order) in [(5, 1), (5, 2), (5, 3), (2, 4), (9, 5), (2, 6)] {
            assert_eq!(turns.push(ReplicaId(id), order), None);
        }
        let served: Vec<(u16, i32)> = std::iter::from_fn(|| turns.next()).map(|(id, n)| (id.0, n)).collect();
        assert_eq!(served, [(2, 4), (5, 1), (9, 5), (2, 6), (5, 2), (5, 3)]);
        assert!(turns.is_empty());
        turns.push(ReplicaId(2), 7);
        turns.push(ReplicaId(7), 8);
        assert_eq!(turns.next(), Some((ReplicaId(7), 8)), "whose turn was last is last");
    }

    #[test]
    fn there_is_a_bound_for_one_and_for_all() {
        let mut turns = Turns::default();
        let mut push = |id, n: usize| turns.push(ReplicaId(id), n);
        let dropped: Vec<Option<usize>> = (0..WAITING_PER_REQUESTER_MAX + 2).map(|n| push(1, n)).collect();
        let (kept, dropped) = dropped.split_at(WAITING_PER_REQUESTER_MAX);
        assert!(kept.iter().all(Option::is_none));
        assert_eq!(dropped, [Some(0), Some(1)], "the oldest ones");
        let all =
            (2..40).flat_map(|id| (0..99).map(move |n| (id, n))).filter(|(id, n)| push(*id, *n).is_none());
        assert_eq!(all.count() + WAITING_PER_REQUESTER_MAX, WAITING_MAX);
        assert_eq!(turns.push(ReplicaId(50), 7), Some(7));
    }
}
