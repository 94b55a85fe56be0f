//! The ordered map under the store: entries by key, and the deadlines by time.
//!
//! Owns both and keeps them equal: an entry with a deadline has exactly one place among the deadlines. It knows
//! neither limits nor answers. Everything that the store reads goes through a point in time, so that an expired
//! entry is invisible whether it has been removed yet or not.

use std::collections::BTreeSet;
use std::ops::Bound;

use regency::protocol::time::Timestamp;

use super::limits::ENTRY_OVERHEAD_BYTES;
use super::record::Record;
use super::tree::Tree;
use super::version::Version;

#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    entries: Tree,
    deadlines: BTreeSet<(Timestamp, Box<[u8]>)>,
    /// Of all keys and values, with [`ENTRY_OVERHEAD_BYTES`] for each.
    bytes: u64,
}

impl Map {
    pub(super) fn get(&self, key: &[u8], now: Timestamp) -> Option<&Record> {
        self.entries.get(key).filter(|record| is_live(record, now))
    }

    /// Sets the record's key, whatever was there.
    pub(super) fn put(&mut self, record: Record) {
        let deadline = record.deadline();
        self.bytes += weight(&record);
        if deadline != Timestamp::NEVER {
            self.deadlines.insert((deadline, Box::from(record.key())));
        }
        if let Some(before) = self.entries.insert(record) {
            self.bytes -= weight(&before);
            if before.deadline() != deadline {
                self.forget_deadline(&before);
            }
        }
    }

    /// Changes the deadline of an entry that is there.
    pub(super) fn set_deadline(&mut self, key: &[u8], deadline: Timestamp, version: Version) {
        let Some(record) = self.entries.get_mut(key) else { return };
        let before = record.deadline();
        record.set_deadline(deadline, version);
        if before != Timestamp::NEVER {
            self.deadlines.remove(&(before, Box::from(key)));
        }
        if deadline != Timestamp::NEVER {
            self.deadlines.insert((deadline, Box::from(key)));
        }
    }

    /// Removes `key`; answers the entry if it was still visible.
    pub(super) fn remove(&mut self, key: &[u8], now: Timestamp) -> Option<Record> {
        let record = self.entries.remove(key)?;
        self.bytes -= weight(&record);
        self.forget_deadline(&record);
        is_live(&record, now).then_some(record)
    }

    /// Removes up to `most` expired entries, those that expired first before others.
    pub(super) fn collect(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= now => {}
                Some(_) | None => return,
            }
            let Some((_, key)) = self.deadlines.pop_first() else { return };
            if let Some(record) = self.entries.remove(&key) {
                self.bytes -= weight(&record);
            }
        }
    }

    /// Visible entries. Counts the expired ones that are still there, of which there are few.
    pub(super) fn count(&self, now: Timestamp) -> u64 {
        let expired = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).count();
        (self.entries.len() - expired) as u64
    }

    /// All entries, the expired ones with them: a copy at once, that stays as it is.
    pub(super) fn entries(&self) -> Tree {
        self.entries.clone()
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
    ) -> impl Iterator<Item = (&[u8], Option<&Record>)> {
        self.entries
            .range(from)
            .map(move |record| (record.key(), Some(record).filter(|record| is_live(record, now))))
    }

    fn forget_deadline(&mut self, record: &Record) {
        if record.deadline() != Timestamp::NEVER {
            self.deadlines.remove(&(record.deadline(), Box::from(record.key())));
        }
    }
}

fn is_live(record: &Record, now: Timestamp) -> bool {
    record.deadline() > now
}

/// What a record is counted for.
fn weight(record: &Record) -> u64 {
    ENTRY_OVERHEAD_BYTES + record.content_bytes()
}
