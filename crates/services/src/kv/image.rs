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
use super::map::Map;
use super::record::{self, HEADER_BYTES, Record};
use super::store::{NextVersion, Store};
use super::tree::Tree;

const MAGIC: [u8; 4] = *b"RGKV";
const FORMAT: u16 = 1;
/// Bytes that are read from a source, or written to a sink, at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A store that no longer changes. Shares its records with the store that goes on.
pub(super) struct StoreSnapshot {
    entries: Tree,
    now: Timestamp,
    next: NextVersion,
}

impl StoreSnapshot {
    pub(super) fn of(store: &Store) -> Self {
        Self { entries: store.map.entries(), now: store.now, next: store.next }
    }
}

impl Snapshot for StoreSnapshot {
    fn write(self: Box<Self>, sink: &mut dyn Write) -> io::Result<()> {
        let Self { entries, now, next } = *self;
        let mut sink = BufWriter::with_capacity(BUFFER_BYTES, sink);
        sink.write_all(&MAGIC)?;
        sink.write_all(&FORMAT.to_le_bytes())?;
        sink.write_all(&now.0.to_le_bytes())?;
        sink.write_all(&next.instance.0.to_le_bytes())?;
        sink.write_all(&next.change.to_le_bytes())?;
        sink.write_all(&(entries.len() as u64).to_le_bytes())?;
        entries.consume(|record| sink.write_all(record.as_bytes()))?;
        sink.flush()
    }
}

/// Reads a store from its image.
pub(super) fn read(source: &mut dyn Read) -> Result<Store, RestoreError> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    if array(&mut source)? != MAGIC || u16::from_le_bytes(array(&mut source)?) != FORMAT {
        return Err(RestoreError::UnknownFormat);
    }
    let now = Timestamp(u64::from_le_bytes(array(&mut source)?));
    let instance = InstanceId(u64::from_le_bytes(array(&mut source)?));
    let next = NextVersion { instance, change: u32::from_le_bytes(array(&mut source)?) };
    let count = u64::from_le_bytes(array(&mut source)?);
    let mut map = Map::default();
    let (mut bytes, mut last) = (Vec::new(), None::<Record>);
    for _ in 0..count {
        let record = read_record(&mut source, &mut bytes)?;
        if last.is_some_and(|last| last.key() >= record.key()) {
            return Err(RestoreError::Invalid("its keys are not in order"));
        }
        last = Some(record.clone());
        map.put(record);
    }
    RestoreError::at_end(&mut source)?;
    Ok(Store { map, now, next })
}

/// Reads one record by way of `bytes`, which grow as they come.
fn read_record(source: &mut impl Read, bytes: &mut Vec<u8>) -> Result<Record, RestoreError> {
    let header: [u8; HEADER_BYTES] = array(source)?;
    let (key, value) = record::lengths(&header);
    if key > KEY_BYTES_MAX {
        return Err(RestoreError::Invalid("a key is too long"));
    }
    if value > VALUE_BYTES_MAX {
        return Err(RestoreError::Invalid("a value is too long"));
    }
    bytes.clear();
    bytes.extend_from_slice(&header);
    source.take((key + value) as u64).read_to_end(bytes)?;
    Record::from_bytes(bytes).ok_or(RestoreError::Truncated)
}

fn array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], RestoreError> {
    let mut array = [0; N];
    source.read_exact(&mut array)?;
    Ok(array)
}
