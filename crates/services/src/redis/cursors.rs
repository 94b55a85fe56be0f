//! Positions of scans between their pages.
//!
//! Redis clients carry a position as a number, the store goes on after a key: this table maps one to the other.
//! It is the front's own and bounded; the oldest position gives way, and whoever comes back to it begins anew.

use std::collections::BTreeMap;

use super::limits::CURSORS_MAX;

/// The positions of all connections' scans.
#[derive(Clone, Debug)]
pub(super) struct Cursors {
    after: BTreeMap<u64, Box<[u8]>>,
    next: u64,
}

impl Cursors {
    /// An empty table whose numbers begin at `first`: another one at each start, lest a number from before be
    /// taken for a position of now.
    pub(super) fn new(first: u64) -> Self {
        Self { after: BTreeMap::new(), next: first.max(1) }
    }

    /// The number of the position after `key`.
    pub(super) fn leave(&mut self, key: &[u8]) -> u64 {
        if self.after.len() >= CURSORS_MAX {
            self.after.pop_first();
        }
        let cursor = self.next;
        self.next += 1;
        self.after.insert(cursor, Box::from(key));
        cursor
    }

    /// The key after which `cursor` goes on. It stays: a client may ask for a page twice.
    pub(super) fn find(&self, cursor: u64) -> Option<&[u8]> {
        self.after.get(&cursor).map(|key| &**key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_position_gives_way() {
        let mut cursors = Cursors::new(0);
        let first = cursors.leave(b"first");
        assert_ne!(first, 0, "0 is the beginning, and the end");
        assert_eq!(cursors.find(first), Some(&b"first"[..]));
        let last = (0..CURSORS_MAX).map(|_| cursors.leave(b"later")).last().unwrap();
        assert_eq!(cursors.find(first), None);
        assert_eq!(cursors.find(last), Some(&b"later"[..]));
    }
}
