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

/// Records in the order of their keys, and a byte for each that tells most keys apart: the right one of them is
/// found without a look at the others, of which each would be a cache miss.
#[derive(Clone, Debug, Default)]
struct Base {
    marks: ArrayVec<u8, RECORDS_MAX>,
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
            base.marks.remove(place);
            let removed = base.records.remove(place);
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
        let Base { marks, records } = Arc::unwrap_or_clone(upper.base);
        let base = self.own();
        base.marks.extend(marks);
        base.records.extend(records);
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
        let mark = mark(key);
        let marked = self.marks.iter().enumerate().filter(|(_, other)| **other == mark);
        marked.map(|(place, _)| place).find(|place| self.records[*place].key() == key)
    }

    fn find_mut(&mut self, key: &[u8]) -> Option<&mut Record> {
        self.find(key).map(|place| &mut self.records[place])
    }

    fn insert(&mut self, record: Record) -> (Option<Record>, Option<Self>) {
        if let Some(place) = self.find(record.key()) {
            return (Some(std::mem::replace(&mut self.records[place], record)), None);
        }
        let place = self.records.partition_point(|other| other.key() < record.key());
        if self.records.len() < RECORDS_MAX {
            self.add(place, record);
            return (None, None);
        }
        let middle = split_place(place, RECORDS_MAX);
        let mut upper = Self {
            marks: self.marks.drain(middle..).collect(),
            records: self.records.drain(middle..).collect(),
        };
        match place.checked_sub(middle) {
            Some(place) => upper.add(place, record),
            None => self.add(place, record),
        }
        (None, Some(upper))
    }

    fn add(&mut self, place: usize, record: Record) {
        self.marks.insert(place, mark(record.key()));
        self.records.insert(place, record);
    }

    /// Enters changes: first those that make room.
    fn enter(&mut self, changes: &mut Vec<Change>) {
        for change in &*changes {
            if let Change::Removed(record) = change
                && let Some(place) = self.find(record.key())
            {
                self.marks.remove(place);
                self.records.remove(place);
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

/// One byte that depends on all bytes of a key. Who makes many keys with the same one makes the search among the
/// records of a leaf as slow as it would be without.
fn mark(key: &[u8]) -> u8 {
    let (words, rest) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mix = |sum: u64, word: &[u8; 8]| {
        (sum.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let [.., mark] = mix(words.iter().fold(key.len() as u64, mix), &last).to_le_bytes();
    mark
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
