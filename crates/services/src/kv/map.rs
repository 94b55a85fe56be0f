//! The ordered map under the store: entries by key, and the deadlines by time.
//!
//! Owns both and keeps them equal: an entry with a deadline has exactly one place among the deadlines. It knows
//! neither limits nor answers. Everything that the store reads goes through a point in time, so that an expired
//! entry is invisible whether it has been removed yet or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use regency::protocol::time::Timestamp;

use super::limits::ENTRY_OVERHEAD_BYTES;
use super::version::Version;

/// A key's value with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Box<[u8]>,
    pub(super) version: Version,
    /// [`Timestamp::NEVER`] if it lives for ever.
    pub(super) deadline: Timestamp,
}

impl Entry {
    fn is_live(&self, now: Timestamp) -> bool {
        self.deadline > now
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    entries: BTreeMap<Box<[u8]>, Entry>,
    deadlines: BTreeSet<(Timestamp, Box<[u8]>)>,
    /// Of all keys and values, with [`ENTRY_OVERHEAD_BYTES`] for each.
    bytes: u64,
}

impl Map {
    pub(super) fn get(&self, key: &[u8], now: Timestamp) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.is_live(now))
    }

    /// Sets `key`, whatever was there.
    pub(super) fn put(&mut self, key: &[u8], entry: Entry) {
        let deadline = entry.deadline;
        let length = entry.value.len();
        let before = if let Some(place) = self.entries.get_mut(key) {
            let before = std::mem::replace(place, entry);
            self.bytes -= before.value.len() as u64;
            before.deadline
        } else {
            self.entries.insert(Box::from(key), entry);
            self.bytes += ENTRY_OVERHEAD_BYTES + key.len() as u64;
            Timestamp::NEVER
        };
        self.bytes += length as u64;
        self.move_deadline(key, before, deadline);
    }

    /// Changes the deadline of an entry that is there.
    pub(super) fn set_deadline(&mut self, key: &[u8], deadline: Timestamp, version: Version) {
        if let Some(entry) = self.entries.get_mut(key) {
            let before = std::mem::replace(&mut entry.deadline, deadline);
            entry.version = version;
            self.move_deadline(key, before, deadline);
        }
    }

    /// Removes `key`; answers the entry if it was still visible.
    pub(super) fn remove(&mut self, key: &[u8], now: Timestamp) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= ENTRY_OVERHEAD_BYTES + (key.len() + entry.value.len()) as u64;
        self.move_deadline(key, entry.deadline, Timestamp::NEVER);
        entry.is_live(now).then_some(entry)
    }

    /// Removes up to `most` expired entries, those that expired first before others.
    pub(super) fn collect(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= now => {}
                Some(_) | None => return,
            }
            let Some((_, key)) = self.deadlines.pop_first() else { return };
            if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= ENTRY_OVERHEAD_BYTES + (key.len() + entry.value.len()) as u64;
            }
        }
    }

    /// Visible entries. Counts the expired ones that are still there, of which there are few.
    pub(super) fn count(&self, now: Timestamp) -> u64 {
        let expired = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).count();
        (self.entries.len() - expired) as u64
    }

    /// All entries, the expired ones with them.
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// All entries in the order of keys.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (Box<[u8]>, Entry)> {
        self.entries.into_iter()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Entries from `from` on in the order of keys; `None` stands for one that has expired.
    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&[u8], Option<&Entry>)> {
        self.entries
            .range::<[u8], _>((from, Bound::Unbounded))
            .map(move |(key, entry)| (&**key, Some(entry).filter(|entry| entry.is_live(now))))
    }

    fn move_deadline(&mut self, key: &[u8], before: Timestamp, after: Timestamp) {
        if before == after {
            return;
        }
        if before != Timestamp::NEVER {
            self.deadlines.remove(&(before, Box::from(key)));
        }
        if after != Timestamp::NEVER {
            self.deadlines.insert((after, Box::from(key)));
        }
    }
}
