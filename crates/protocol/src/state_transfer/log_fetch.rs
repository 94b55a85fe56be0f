//! A gap that is closed from the logs of others: digests under a certificate first, then batches under digests.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::chain_next;
use crate::ids::{Digest, InstanceId};
use crate::limits::RANGE_MAX;
use crate::mutants::{Mutant, is_active};
use crate::record::RecordedBatch;

/// Instances that are fetched before those below them have been delivered.
const AHEAD_MAX: u64 = 16 * RANGE_MAX;
/// Bytes of batches that wait for those below them; with so many only what is delivered next is asked for.
const AHEAD_BYTES_MAX: usize = 16 << 20;

/// Digests that a certificate proves, and the batches that have come for them.
#[derive(Debug)]
pub(crate) struct LogFetch {
    /// The instance of the first digest.
    first: InstanceId,
    digests: Vec<Digest>,
    /// The first instance that is not delivered.
    next: InstanceId,
    /// What nobody was asked for yet: the first instance, and pieces that came back.
    unasked: InstanceId,
    returned: BTreeSet<(InstanceId, InstanceId)>,
    ready: BTreeMap<InstanceId, RecordedBatch>,
    ready_bytes: usize,
}

/// A batch that is not the one under the certified digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongBatch;

/// Whether digests lead from one place of the chain to another.
pub(crate) fn leads(base: &Digest, digests: &[Digest], to: &Digest) -> bool {
    is_active(Mutant::SuffixUnverified)
        || digests.iter().fold(*base, |chain, digest| chain_next(&chain, digest)) == *to
}

impl LogFetch {
    /// What is to be fetched: the batches of these digests, from `first` on.
    pub(crate) fn new(first: InstanceId, digests: Vec<Digest>) -> Self {
        Self {
            first,
            digests,
            next: first,
            unasked: first,
            returned: BTreeSet::new(),
            ready: BTreeMap::new(),
            ready_bytes: 0,
        }
    }

    /// The last instance.
    pub(crate) fn last(&self) -> InstanceId {
        InstanceId(self.first.0.saturating_add(self.digests.len() as u64).saturating_sub(1))
    }

    /// Notes that everything up to `prefix` is delivered; true if nothing is left.
    pub(crate) fn advance(&mut self, prefix: InstanceId) -> bool {
        self.next = self.next.max(prefix.next());
        self.unasked = self.unasked.max(self.next);
        if self.ready.first_key_value().is_some_and(|(first, _)| *first < self.next) {
            self.ready = self.ready.split_off(&self.next);
            self.ready_bytes = self.ready.values().map(RecordedBatch::bytes).fold(0, usize::saturating_add);
        }
        let next = self.next;
        self.returned = std::mem::take(&mut self.returned)
            .into_iter()
            .filter(|(_, last)| *last >= next)
            .map(|(from, last)| (from.max(next), last))
            .collect();
        self.next > self.last()
    }

    /// The next range to ask for, if there is one and room for it.
    pub(crate) fn next_range(&mut self) -> Option<(InstanceId, InstanceId)> {
        let is_full = self.ready_bytes >= AHEAD_BYTES_MAX;
        if let Some((from, last)) = self.returned.first().copied() {
            let may_wait = is_full && from > self.next;
            return (!may_wait && self.returned.remove(&(from, last))).then_some((from, last));
        }
        let from = self.unasked;
        if is_full && from > self.next {
            return None;
        }
        if from > self.last() || from > self.next.plus(AHEAD_MAX) {
            return None;
        }
        let last = from.plus(RANGE_MAX.saturating_sub(1)).min(self.last());
        self.unasked = last.next();
        Some((from, last))
    }

    /// A range that was asked for is to be asked for again.
    pub(crate) fn give_back(&mut self, from: InstanceId, last: InstanceId) {
        let mut from = from.max(self.next);
        while from <= last && self.ready.contains_key(&from) {
            from = from.next();
        }
        if from <= last {
            self.returned.insert((from, last));
        }
    }

    /// Takes batches that a donor sent for a range; whether one of them was not there yet.
    ///
    /// # Errors
    ///
    /// One of them is not the certified one; those before it are kept.
    pub(crate) fn put(&mut self, batches: Vec<RecordedBatch>) -> Result<bool, WrongBatch> {
        let mut is_news = false;
        for recorded in batches {
            let instance = recorded.batch.instance;
            // It answers a question of an earlier fetch.
            let Some(digest) = self.digest(instance) else { continue };
            if recorded.batch.digest() != digest && !is_active(Mutant::SuffixUnverified) {
                return Err(WrongBatch);
            }
            // Whoever sends what nobody was asked for yet, or far more than was asked for, would have it kept for long.
            let has_room = self.ready_bytes < 2 * AHEAD_BYTES_MAX || instance == self.next;
            if has_room && instance >= self.next && instance < self.unasked {
                let bytes = recorded.bytes();
                let before = self.ready.insert(instance, recorded);
                is_news |= before.is_none();
                let before = before.map_or(0, |before| before.bytes());
                self.ready_bytes = self.ready_bytes.saturating_add(bytes).saturating_sub(before);
            }
        }
        Ok(is_news)
    }

    /// The batch of `instance` with its digest, if it is here.
    pub(crate) fn take(&mut self, instance: InstanceId) -> Option<(Digest, RecordedBatch)> {
        let digest = self.digest(instance)?;
        let recorded = self.ready.remove(&instance)?;
        self.ready_bytes = self.ready_bytes.saturating_sub(recorded.bytes());
        Some((digest, recorded))
    }

    /// How far it is: instances delivered, and all.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.next.0.saturating_sub(self.first.0), self.digests.len() as u64)
    }

    fn digest(&self, instance: InstanceId) -> Option<Digest> {
        let offset = instance.0.checked_sub(self.first.0)?;
        self.digests.get(usize::try_from(offset).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{ClientId, ViewId};
    use crate::message::{Batch, Request};
    use crate::time::Timestamp;

    fn recorded(instance: u64) -> RecordedBatch {
        let batch = Batch {
            view: ViewId(0),
            instance: InstanceId(instance),
            timestamp: Timestamp(instance),
            requests: Vec::new(),
        };
        RecordedBatch { batch: Arc::new(batch), requests: Vec::new() }
    }

    fn fetch(first: u64, count: u64) -> LogFetch {
        let digests = (first..first + count).map(|instance| recorded(instance).batch.digest()).collect();
        LogFetch::new(InstanceId(first), digests)
    }

    #[test]
    fn ranges_cover_all_of_it_and_come_back_where_they_were_not_answered() {
        let mut fetch = fetch(10, 100);
        assert_eq!(fetch.next_range(), Some((InstanceId(10), InstanceId(73))));
        assert_eq!(fetch.next_range(), Some((InstanceId(74), InstanceId(109))));
        assert_eq!(fetch.next_range(), None);
        fetch.put((10..20).map(recorded).collect()).unwrap();
        fetch.give_back(InstanceId(10), InstanceId(73));
        assert_eq!(fetch.next_range(), Some((InstanceId(20), InstanceId(73))));
        assert!(fetch.take(InstanceId(10)).is_some() && fetch.take(InstanceId(10)).is_none());
    }

    #[test]
    fn another_batch_than_the_certified_one_is_refused() {
        let mut fetch = fetch(10, 5);
        fetch.next_range();
        let mut wrong = recorded(12);
        Arc::make_mut(&mut wrong.batch).timestamp = Timestamp(99);
        assert_eq!(fetch.put(vec![recorded(11), wrong]), Err(WrongBatch));
        assert!(fetch.take(InstanceId(11)).is_some() && fetch.take(InstanceId(12)).is_none());
        assert_eq!(fetch.put(vec![recorded(15)]), Ok(false), "of an earlier question");
        assert!(fetch.take(InstanceId(15)).is_none());
    }

    #[test]
    fn what_was_not_asked_for_is_not_kept() {
        let mut fetch = fetch(1, 5000);
        fetch.next_range();
        fetch.put((60..5000).map(recorded).collect()).unwrap();
        assert_eq!(fetch.ready.len(), 5, "60 to 64");
    }

    #[test]
    fn far_more_bytes_than_were_asked_for_are_not_kept() {
        let request = Arc::new(Request::open(ClientId([1; 32]), 1, Timestamp(0)));
        let many = AHEAD_BYTES_MAX / request.encoded().len() + 1;
        let large = |instance| RecordedBatch { requests: vec![request.clone(); many], ..recorded(instance) };
        let mut fetch = fetch(1, 5000);
        assert_eq!(fetch.next_range(), range(1, 64));
        fetch.put((2..10).map(large).collect()).unwrap();
        assert_eq!(fetch.ready.len(), 2);
        fetch.put(vec![large(1)]).unwrap();
        assert!(fetch.take(InstanceId(1)).is_some(), "what is delivered next always is");
        fetch.give_back(InstanceId(2), InstanceId(64));
        fetch.advance(InstanceId(3));
        assert_eq!(fetch.next_range(), range(4, 64));
    }

    #[test]
    fn with_many_bytes_ahead_only_the_next_range_is_asked_for() {
        let request = Request::open(ClientId([1; 32]), 1, Timestamp(0));
        let many = AHEAD_BYTES_MAX / request.encoded().len() + 1;
        let mut large = recorded(70);
        large.requests = std::iter::repeat_n(Arc::new(request), many).collect();
        let mut fetch = fetch(1, 5000);
        assert_eq!((fetch.next_range(), fetch.next_range()), (range(1, 64), range(65, 128)));
        fetch.put(vec![large]).unwrap();
        assert_eq!(fetch.next_range(), None);
        fetch.give_back(InstanceId(1), InstanceId(64));
        assert_eq!(fetch.next_range(), range(1, 64), "without it nothing goes on");
        fetch.advance(InstanceId(69));
        assert_eq!(fetch.next_range(), None);
        assert!(fetch.take(InstanceId(70)).is_some());
        assert_eq!(fetch.next_range(), range(129, 192));
    }

    fn range(from: u64, last: u64) -> Option<(InstanceId, InstanceId)> {
        Some((InstanceId(from), InstanceId(last)))
    }

    #[test]
    fn what_is_delivered_otherwise_is_not_fetched() {
        let mut fetch = fetch(10, 100);
        fetch.next_range();
        fetch.put(vec![recorded(30)]).unwrap();
        assert!(!fetch.advance(InstanceId(40)));
        assert!(fetch.take(InstanceId(30)).is_none());
        fetch.give_back(InstanceId(10), InstanceId(73));
        assert_eq!(fetch.next_range(), Some((InstanceId(41), InstanceId(73))));
        assert!(fetch.advance(InstanceId(109)));
    }

    #[test]
    fn only_so_much_is_fetched_ahead() {
        let mut fetch = fetch(1, 10_000);
        let ranges = std::iter::from_fn(|| fetch.next_range()).count();
        assert_eq!(ranges, usize::try_from(AHEAD_MAX / RANGE_MAX).unwrap() + 1);
    }
}
