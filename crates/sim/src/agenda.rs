//! What is going to happen: one heap, ordered by virtual time, then by the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Microseconds of virtual time since the schedule began.
pub(crate) type Moment = u64;

/// All that is going to happen.
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    entered: u64,
    /// The place of what happens now.
    now: Place,
}

/// A place on the agenda: places are passed in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    at: Moment,
    number: u64,
}

struct Entry<T> {
    place: Place,
    what: T,
}

impl<T> Agenda<T> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), entered: 0, now: Place::default() }
    }

    /// `what` happens `at` this moment.
    pub(crate) fn add(&mut self, at: Moment, what: T) {
        let place = self.reserve(at);
        self.put(place, what);
    }

    /// Keeps a place for something that may turn out not to be worth an entry.
    pub(crate) fn reserve(&mut self, at: Moment) -> Place {
        self.entered += 1;
        Place { at, number: self.entered }
    }

    /// `what` happens at a place that was kept, and has not been passed.
    pub(crate) fn put(&mut self, place: Place, what: T) {
        self.heap.push(Reverse(Entry { place, what }));
    }

    /// Whether the agenda has come past `place`.
    pub(crate) fn is_past(&self, place: Place) -> bool {
        place < self.now
    }

    /// What happens next, and when.
    pub(crate) fn next(&mut self) -> Option<(Moment, T)> {
        let Reverse(Entry { place, what }) = self.heap.pop()?;
        self.now = place;
        Some((place.at, what))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_equals_keep_their_order() {
        let mut agenda = Agenda::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.add(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(order, [(1, 'a'), (3, 'b'), (5, 'c'), (5, 'd')]);
    }

    #[test]
    fn a_place_that_was_kept_comes_before_what_was_put_in_later() {
        let mut agenda = Agenda::new();
        let kept = agenda.reserve(5);
        agenda.add(5, 'b');
        agenda.add(1, 'x');
        assert_eq!(agenda.next(), Some((1, 'x')));
        assert!(!agenda.is_past(kept));
        agenda.put(kept, 'a');
        assert_eq!(agenda.next(), Some((5, 'a')));
        assert_eq!(agenda.next(), Some((5, 'b')));
        assert!(agenda.is_past(kept));
    }
}
