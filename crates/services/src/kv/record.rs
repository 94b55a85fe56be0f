//! A record: one entry of the store, in the very bytes that stand for it in an image.
//!
//! The [`Tree`](super::tree::Tree) holds records, and copies of the tree share them. A record is one allocation and
//! never longer than what it holds: a million small ones cost no more than they must.

use std::ops::Range;
use std::sync::Arc;

use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;

use super::version::Version;

/// Bytes before the key: lengths of key and value, version, deadline.
pub(super) const HEADER_BYTES: usize = 2 + 4 + 8 + 4 + 8;
const KEY_BYTES: Range<usize> = 0..2;
const VALUE_BYTES: Range<usize> = 2..6;
const INSTANCE: Range<usize> = 6..14;
const CHANGE: Range<usize> = 14..18;
const DEADLINE: Range<usize> = 18..26;

/// A key's value with what belongs to it; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record(Arc<[u8]>);

impl Record {
    /// A record whose key and value are within their limits. A `deadline` of [`Timestamp::NEVER`] is none.
    ///
    /// # Panics
    ///
    /// If a length does not fit its field, far above the limits.
    pub(super) fn new(key: &[u8], value: &[u8], version: Version, deadline: Timestamp) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + value.len());
        bytes.extend_from_slice(&u16::try_from(key.len()).expect("a key within its limit").to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(value.len()).expect("a value within its limit").to_le_bytes());
        bytes.extend_from_slice(&version.instance.0.to_le_bytes());
        bytes.extend_from_slice(&version.change.to_le_bytes());
        bytes.extend_from_slice(&deadline.0.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(Arc::from(bytes))
    }

    /// A record in its own bytes, if they are one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, value) = lengths(bytes.first_chunk()?);
        (bytes.len() == HEADER_BYTES + key + value).then(|| Self(Arc::from(bytes)))
    }

    /// As it stands in an image.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0[HEADER_BYTES..HEADER_BYTES + self.key_length()]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0[HEADER_BYTES + self.key_length()..]
    }

    pub(super) fn version(&self) -> Version {
        let change = u32::from_le_bytes(self.field(CHANGE));
        Version { instance: InstanceId(u64::from_le_bytes(self.field(INSTANCE))), change }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        Timestamp(u64::from_le_bytes(self.field(DEADLINE)))
    }

    /// Changes the deadline; copies the record only if somebody shares it.
    pub(super) fn set_deadline(&mut self, deadline: Timestamp, version: Version) {
        let bytes = Arc::make_mut(&mut self.0);
        bytes[DEADLINE].copy_from_slice(&deadline.0.to_le_bytes());
        bytes[INSTANCE].copy_from_slice(&version.instance.0.to_le_bytes());
        bytes[CHANGE].copy_from_slice(&version.change.to_le_bytes());
    }

    /// Bytes of key and value.
    pub(super) fn content_bytes(&self) -> u64 {
        (self.0.len() - HEADER_BYTES) as u64
    }

    fn key_length(&self) -> usize {
        usize::from(u16::from_le_bytes(self.field(KEY_BYTES)))
    }

    fn field<const N: usize>(&self, place: Range<usize>) -> [u8; N] {
        *self.0[place].first_chunk().expect("a field of this size")
    }
}

/// The lengths of key and value that a record begins with.
pub(super) fn lengths(header: &[u8; HEADER_BYTES]) -> (usize, usize) {
    let key = u16::from_le_bytes(*header[KEY_BYTES].first_chunk().expect("two bytes"));
    let value = u32::from_le_bytes(*header[VALUE_BYTES].first_chunk().expect("four bytes"));
    (usize::from(key), usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { instance: InstanceId(7), change: 3 };

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        let mut record = Record::new(b"key", b"value", VERSION, Timestamp(9));
        assert_eq!((record.key(), record.value()), (&b"key"[..], &b"value"[..]));
        assert_eq!((record.version(), record.deadline(), record.content_bytes()), (VERSION, Timestamp(9), 8));
        let shared = record.clone();
        record.set_deadline(Timestamp::NEVER, Version { change: 4, ..VERSION });
        assert_eq!((record.version().change, record.deadline()), (4, Timestamp::NEVER));
        assert_eq!((record.key(), record.value()), (&b"key"[..], &b"value"[..]));
        assert_eq!((shared.version(), shared.deadline()), (VERSION, Timestamp(9)), "a copy stays as it was");
    }

    #[test]
    fn only_bytes_of_the_right_length_are_a_record() {
        let record = Record::new(b"key", b"", VERSION, Timestamp(9));
        let bytes = record.as_bytes();
        assert_eq!(Record::from_bytes(bytes).as_ref(), Some(&record));
        for length in 0..bytes.len() {
            assert_eq!(Record::from_bytes(&bytes[..length]), None);
        }
        assert_eq!(Record::from_bytes(&[bytes, b"x"].concat()), None);
    }
}
