//! A leaf of the store's tree: some records in a row, in the order of their keys.
//!
//! Called by the [`Tree`](super::tree::Tree). A clone shares the records, and whoever changes the one or the other
//! afterwards leaves them where they are: it notes its changes beside them, and enters them once the clone is
//! gone. Sharing them one by one would touch a counter beside each record, all over the memory: copying a leaf
//! that way takes longer than all the rest of a checkpoint together (decision 0022).

use std::ops::Bound;
use std::slice;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::record::Record;

/// Records of a leaf at most.
pub(super) const RECORDS_MAX: usize = 64;
/// Changes that are noted beside shared records; with more the leaf gets records of its own.
const CHANGES_MAX: usize = 16;
/// Bytes of a key that are looked at before the key itself.
const HEAD_BYTES: usize = 8;

/// Records by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    base: Arc<Base>,
    /// What has changed while the base was shared: in the order of keys, one change for each.
    changes: Vec<Change>,
    /// Records of the base with the changes.
    len: usize,
}

#[derive(Clone, Debug)]
enum Change {
    Put(Record),
    /// There is none with this record's key.
    Removed(Record),
}

/// Records in the order of their keys, and of each key the first bytes that are not the same in all of them: most
/// searches look at one record only, of which each would be a cache miss.
#[derive(Clone, Debug, Default)]
struct Base {
    /// Bytes with which all keys begin.
    shared: usize,
    /// What follows them in each key, up to eight bytes.
    heads: ArrayVec<u64, RECORDS_MAX>,
    records: ArrayVec<Record, RECORDS_MAX>,
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        match self.change(key) {
            Ok(place) => self.changes[place].record(),
            Err(_) => self.base.find(key).map(|place| &self.base.records[place]),
        }
    }

    /// A record to be changed; its key stays.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Record> {
        if self.unshared().is_some() {
            return self.own().find_mut(key);
        }
        let shared = self.get(key)?.clone();
        self.insert(shared);
        match self.change(key) {
            Ok(place) => self.changes[place].record_mut(),
            // There were so many changes that the leaf got records of its own.
            Err(_) => self.unshared().and_then(|base| base.find_mut(key)),
        }
    }

    /// Sets a key. Answers the record that was there, and the upper part if there were too many for one leaf.
    pub(super) fn insert(&mut self, record: Record) -> (Option<Record>, Option<Self>) {
        if let Some(base) = self.unshared() {
            let (before, upper) = base.insert(record);
            self.len = self.base.records.len();
            return (before, upper.map(Self::of));
        }
        let before = self.get(record.key()).cloned();
        if self.changes.len() == CHANGES_MAX || (before.is_none() && self.len == RECORDS_MAX) {
            self.own();
            return self.insert(record);
        }
        self.len += usize::from(before.is_none());
        self.note(Change::Put(record));
        (before, None)
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Record> {
        if let Some(base) = self.unshared() {
            let place = base.find(key)?;
            let removed = base.remove(place);
            self.len -= 1;
            return Some(removed);
        }
        let removed = self.get(key)?.clone();
        if self.changes.len() == CHANGES_MAX {
            self.own();
            return self.remove(key);
        }
        self.len -= 1;
        self.note(Change::Removed(removed.clone()));
        Some(removed)
    }

    /// Takes over the records of a leaf whose keys are all greater.
    pub(super) fn append(&mut self, mut upper: Self) {
        upper.own();
        let Base { records, .. } = Arc::unwrap_or_clone(upper.base);
        let base = self.own();
        base.records.extend(records);
        base.look_at_all();
        self.len = base.records.len();
    }

    pub(super) fn last(&self) -> Option<&Record> {
        match (self.base.records.last(), self.changes.last()) {
            (record, None) => record,
            // Rare, and short enough.
            (_, Some(_)) => self.range(Bound::Unbounded).last(),
        }
    }

    /// Records from `from` on, in order.
    pub(super) fn range(&self, from: Bound<&[u8]>) -> LeafRecords<'_> {
        let is_before = |key: &[u8]| match from {
            Bound::Included(from) => key < from,
            Bound::Excluded(from) => key <= from,
            Bound::Unbounded => false,
        };
        let base = self.base.records.partition_point(|record| is_before(record.key()));
        let changes = self.changes.partition_point(|change| is_before(change.key()));
        LeafRecords { base: self.base.records[base..].iter(), changes: self.changes[changes..].iter() }
    }

    fn of(base: Base) -> Self {
        let len = base.records.len();
        Self { base: Arc::new(base), changes: Vec::new(), len }
    }

    /// The records with all changes entered, if nobody else has them.
    fn unshared(&mut self) -> Option<&mut Base> {
        let base = Arc::get_mut(&mut self.base)?;
        base.enter(&mut self.changes);
        Some(base)
    }

    /// The records with all changes entered, copied if somebody else has them.
    fn own(&mut self) -> &mut Base {
        let base = Arc::make_mut(&mut self.base);
        base.enter(&mut self.changes);
        base
    }

    /// The place of a key's change, or where it would be.
    fn change(&self, key: &[u8]) -> Result<usize, usize> {
        self.changes.binary_search_by(|change| change.key().cmp(key))
    }

    fn note(&mut self, change: Change) {
        match self.change(change.key()) {
            Ok(place) => self.changes[place] = change,
            Err(place) => self.changes.insert(place, change),
        }
    }
}

impl Change {
    fn key(&self) -> &[u8] {
        match self {
            Self::Put(record) | Self::Removed(record) => record.key(),
        }
    }

    fn record(&self) -> Option<&Record> {
        match self {
            Self::Put(record) => Some(record),
            Self::Removed(_) => None,
        }
    }

    fn record_mut(&mut self) -> Option<&mut Record> {
        match self {
            Self::Put(record) => Some(record),
            Self::Removed(_) => None,
        }
    }
}

impl Base {
    fn find(&self, key: &[u8]) -> Option<usize> {
        self.search(key).ok()
    }

    fn find_mut(&mut self, key: &[u8]) -> Option<&mut Record> {
        self.find(key).map(|place| &mut self.records[place])
    }

    /// The place of a key; if there is none, where it would be among keys that begin as all of them do.
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let head = head(key, self.shared);
        let low = self.heads.partition_point(|other| *other < head);
        let same = self.heads[low..].partition_point(|other| *other == head);
        let found = self.records[low..low + same].binary_search_by(|record| record.key().cmp(key));
        found.map(|place| low + place).map_err(|place| low + place)
    }

    fn insert(&mut self, record: Record) -> (Option<Record>, Option<Self>) {
        let place = match self.search(record.key()) {
            Ok(place) => return (Some(std::mem::replace(&mut self.records[place], record)), None),
            Err(place) => place,
        };
        let Some(first) = self.records.first() else {
            self.records.push(record);
            self.look_at_all();
            return (None, None);
        };
        let begins_alike = record.key().get(..self.shared) == first.key().get(..self.shared);
        let place = if begins_alike {
            place
        } else if record.key() < first.key() {
            0
        } else {
            self.records.len()
        };
        if self.records.len() < RECORDS_MAX {
            self.add(place, record, begins_alike);
            return (None, None);
        }
        let middle = split_place(place, RECORDS_MAX);
        let mut upper = Self {
            shared: self.shared,
            heads: self.heads.drain(middle..).collect(),
            records: self.records.drain(middle..).collect(),
        };
        match place.checked_sub(middle) {
            Some(place) => upper.add(place, record, begins_alike),
            None => self.add(place, record, begins_alike),
        }
        self.look_again();
        upper.look_again();
        (None, Some(upper))
    }

    fn add(&mut self, place: usize, record: Record, begins_alike: bool) {
        self.heads.insert(place, head(record.key(), self.shared));
        self.records.insert(place, record);
        if !begins_alike {
            self.look_at_all();
        }
    }

    fn remove(&mut self, place: usize) -> Record {
        self.heads.remove(place);
        self.records.remove(place)
    }

    /// Makes the heads say more, if their keys have come to share much more than they did.
    fn look_again(&mut self) {
        if self.shared_by_all() >= self.shared + HEAD_BYTES / 2 {
            self.look_at_all();
        }
    }

    fn look_at_all(&mut self) {
        self.shared = self.shared_by_all();
        self.heads = self.records.iter().map(|record| head(record.key(), self.shared)).collect();
    }

    /// Bytes with which all keys begin: those that the first and the last have in common.
    fn shared_by_all(&self) -> usize {
        let ends = self.records.first().zip(self.records.last());
        ends.map_or(0, |(first, last)| {
            first.key().iter().zip(last.key()).take_while(|(first, last)| first == last).count()
        })
    }

    /// Enters changes: first those that make room.
    fn enter(&mut self, changes: &mut Vec<Change>) {
        for change in &*changes {
            if let Change::Removed(record) = change
                && let Some(place) = self.find(record.key())
            {
                self.remove(place);
            }
        }
        for change in changes.drain(..) {
            if let Change::Put(record) = change {
                // There is room: a leaf with its changes is never too large.
                self.insert(record);
            }
        }
    }
}

/// Where a full node that gets one more at `place` is cut: in the middle, or at the end if it grows there, since
/// keys that come in order leave no room that is never used.
pub(super) fn split_place(place: usize, most: usize) -> usize {
    if place >= most { most } else { most / 2 }
}

/// What follows the first `shared` bytes of a key, as a number in the order of keys.
fn head(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    let mut head = [0; HEAD_BYTES];
    let length = rest.len().min(HEAD_BYTES);
    head[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(head)
}

/// Records in order; see [`Leaf::range`].
#[derive(Default)]
pub(super) struct LeafRecords<'a> {
    base: slice::Iter<'a, Record>,
    changes: slice::Iter<'a, Change>,
}

impl<'a> Iterator for LeafRecords<'a> {
    type Item = &'a Record;

    fn next(&mut self) -> Option<&'a Record> {
        while let Some(change) = self.changes.as_slice().first() {
            match self.base.as_slice().first() {
                Some(record) if record.key() < change.key() => break,
                Some(record) if record.key() == change.key() => drop(self.base.next()),
                Some(_) | None => {}
            }
            self.changes.next();
            if let Some(record) = change.record() {
                return Some(record);
            }
        }
        self.base.next()
    }
}
