//! The image of a store: all that its later answers depend on, in one form [CKPT-1].
//!
//! Little-endian. A header, then the entries in increasing order of their keys, then nothing:
//!
//! | part | fields |
//! |---|---|
//! | header | `RGKV`, format `u16`, the store's time `u64`, instance `u64` and number `u32` of the next change, entries `u64` |
//! | entry | key bytes `u16`, value bytes `u32`, instance `u64` and number `u32` of its version, deadline `u64`, key, value |
//!
//! An entry has the same bytes in every image for as long as it does not change. Entries that have expired but are
//! not removed yet are there, since they still take room; there are no others, and absent keys leave nothing
//! behind. What can be derived is left out: the order of deadlines, and the bytes of the whole.

use std::io::{self, BufReader, BufWriter, Read, Write};

use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;
use regency::{RestoreError, Snapshot};

use super::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::map::{Entry, Map};
use super::store::{NextVersion, Store};
use super::version::Version;

const MAGIC: [u8; 4] = *b"RGKV";
const FORMAT: u16 = 1;
/// Bytes that are read from a source, or written to a sink, at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A store that no longer changes.
pub(super) struct StoreSnapshot {
    pub(super) store: Store,
}

impl Snapshot for StoreSnapshot {
    fn write(self: Box<Self>, sink: &mut dyn Write) -> io::Result<()> {
        let Store { map, now, next } = self.store;
        let mut sink = BufWriter::with_capacity(BUFFER_BYTES, sink);
        sink.write_all(&MAGIC)?;
        sink.write_all(&FORMAT.to_le_bytes())?;
        sink.write_all(&now.0.to_le_bytes())?;
        sink.write_all(&next.instance.0.to_le_bytes())?;
        sink.write_all(&next.change.to_le_bytes())?;
        sink.write_all(&map.len().to_le_bytes())?;
        for (key, entry) in map.into_entries() {
            sink.write_all(&u16::try_from(key.len()).map_err(io::Error::other)?.to_le_bytes())?;
            sink.write_all(&u32::try_from(entry.value.len()).map_err(io::Error::other)?.to_le_bytes())?;
            sink.write_all(&entry.version.instance.0.to_le_bytes())?;
            sink.write_all(&entry.version.change.to_le_bytes())?;
            sink.write_all(&entry.deadline.0.to_le_bytes())?;
            sink.write_all(&key)?;
            sink.write_all(&entry.value)?;
        }
        sink.flush()
    }
}

/// Reads a store from its image.
pub(super) fn read(source: &mut dyn Read) -> Result<Store, RestoreError> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    if array::<4>(&mut source)? != MAGIC || u16::from_le_bytes(array(&mut source)?) != FORMAT {
        return Err(RestoreError::UnknownFormat);
    }
    let now = Timestamp(u64(&mut source)?);
    let next = NextVersion { instance: InstanceId(u64(&mut source)?), change: u32(&mut source)? };
    let count = u64(&mut source)?;
    let mut map = Map::default();
    let (mut last, mut key, mut value) = (None::<Vec<u8>>, Vec::new(), Vec::new());
    for _ in 0..count {
        let key_bytes = u16::from_le_bytes(array(&mut source)?);
        let value_bytes = u32(&mut source)?;
        let version = Version { instance: InstanceId(u64(&mut source)?), change: u32(&mut source)? };
        let deadline = Timestamp(u64(&mut source)?);
        if usize::from(key_bytes) > KEY_BYTES_MAX {
            return Err(RestoreError::Invalid("a key is too long"));
        }
        if usize::try_from(value_bytes).unwrap_or(usize::MAX) > VALUE_BYTES_MAX {
            return Err(RestoreError::Invalid("a value is too long"));
        }
        bytes(&mut source, u64::from(key_bytes), &mut key)?;
        bytes(&mut source, u64::from(value_bytes), &mut value)?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(RestoreError::Invalid("its keys are not in order"));
        }
        map.put(&key, Entry { value: Box::from(value.as_slice()), version, deadline });
        last.get_or_insert_default().clone_from(&key);
    }
    RestoreError::at_end(&mut source)?;
    Ok(Store { map, now, next })
}

fn array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], RestoreError> {
    let mut array = [0; N];
    source.read_exact(&mut array)?;
    Ok(array)
}

fn u32(source: &mut impl Read) -> Result<u32, RestoreError> {
    array(source).map(u32::from_le_bytes)
}

fn u64(source: &mut impl Read) -> Result<u64, RestoreError> {
    array(source).map(u64::from_le_bytes)
}

/// Reads `length` bytes into `into`, which grows as they come.
fn bytes(source: &mut impl Read, length: u64, into: &mut Vec<u8>) -> Result<(), RestoreError> {
    into.clear();
    source.take(length).read_to_end(into)?;
    if into.len() as u64 == length { Ok(()) } else { Err(RestoreError::Truncated) }
}
