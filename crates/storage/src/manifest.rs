//! What a snapshot consists of: its chunks in order, and the one hash that names them all.
//!
//! The root is a Merkle root over the chunks' hashes; checkpoint signatures cover it [CKPT-1]. It does not cover
//! the instance, which the signature names by itself, so that equal states have equal roots.

use bytes::{Buf, BufMut};
use regency_protocol::digest::{Domain, Hasher, digest};
use regency_protocol::ids::{Digest, InstanceId};

use crate::chunks::CHUNK_BYTES_MAX;

/// The most chunks that one snapshot may have; at the usual length they hold about 1 TiB.
pub const CHUNKS_MAX: usize = 4 << 20;
/// Bytes before the first chunk's entry.
const HEADER_BYTES: usize = 24;
/// Bytes of a chunk's entry.
const ENTRY_BYTES: usize = 36;
/// The longest manifest in bytes.
pub const MANIFEST_BYTES_MAX: usize = HEADER_BYTES + CHUNKS_MAX * ENTRY_BYTES;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes.
    pub length: u32,
    /// Their hash.
    pub hash: Digest,
}

impl Chunk {
    /// The entry of a chunk with these bytes; `None` if they are too many or none.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let length =
            u32::try_from(bytes.len()).ok().filter(|_| (1..=CHUNK_BYTES_MAX).contains(&bytes.len()))?;
        Some(Self { length, hash: digest(Domain::Chunk, bytes) })
    }

    /// Whether these are the chunk's bytes.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == u64::from(self.length) && digest(Domain::Chunk, bytes) == self.hash
    }
}

/// The table of contents of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The instance after which the snapshot was taken.
    pub instance: InstanceId,
    /// Its chunks in order.
    pub chunks: Vec<Chunk>,
}

impl Manifest {
    /// Bytes of the snapshot.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(u64::from(chunk.length)))
    }

    /// The Merkle root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut level: Vec<Digest> = self.chunks.iter().map(|chunk| chunk.hash).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(parent).collect();
        }
        Hasher::new(Domain::Snapshot)
            .number(self.chunks.len() as u64)
            .number(self.total_bytes())
            .bytes(&level.pop().unwrap_or_default().0)
            .finish()
    }

    /// The canonical bytes: instance, total bytes, count, then each chunk's length and hash.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = self.chunks.len().saturating_mul(ENTRY_BYTES).saturating_add(HEADER_BYTES);
        let mut out = Vec::with_capacity(length);
        out.put_u64_le(self.instance.0);
        out.put_u64_le(self.total_bytes());
        out.put_u64_le(self.chunks.len() as u64);
        for chunk in &self.chunks {
            out.put_u32_le(chunk.length);
            out.put_slice(&chunk.hash.0);
        }
        out
    }

    /// The manifest with these bytes; what follows it is returned too.
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<(Self, &[u8])> {
        let instance = InstanceId(bytes.try_get_u64_le().ok()?);
        let total_bytes = bytes.try_get_u64_le().ok()?;
        let count =
            usize::try_from(bytes.try_get_u64_le().ok()?).ok().filter(|count| *count <= CHUNKS_MAX)?;
        let (mut entries, rest) = bytes.split_at_checked(count.checked_mul(ENTRY_BYTES)?)?;
        let mut chunks = Vec::with_capacity(count);
        while let Some((entry, more)) = entries.split_first_chunk::<ENTRY_BYTES>() {
            let (mut length, hash) = entry.split_last_chunk::<32>()?;
            let length = length.try_get_u32_le().ok()?;
            if length == 0 || u64::from(length) > CHUNK_BYTES_MAX as u64 {
                return None;
            }
            chunks.push(Chunk { length, hash: Digest(*hash) });
            entries = more;
        }
        let manifest = Self { instance, chunks };
        (manifest.total_bytes() == total_bytes).then_some((manifest, rest))
    }
}

/// The hash of two neighbours; the last one of an odd row goes up as it is.
fn parent(pair: &[Digest]) -> Digest {
    match pair {
        [left, right] => Hasher::new(Domain::SnapshotNode).bytes(&left.0).bytes(&right.0).finish(),
        [alone] => *alone,
        [..] => Digest::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(count: u8) -> Manifest {
        let chunks =
            (0..count).map(|byte| Chunk::of(&vec![byte; 100 + usize::from(byte)]).unwrap()).collect();
        Manifest { instance: InstanceId(7), chunks }
    }

    #[test]
    fn a_manifest_is_read_back_and_its_tail_returned() {
        for count in 0..9 {
            let mut bytes = manifest(count).to_bytes();
            bytes.extend_from_slice(b"rest");
            assert_eq!(Manifest::from_bytes(&bytes), Some((manifest(count), b"rest".as_slice())));
            assert_eq!(Manifest::from_bytes(&bytes[..bytes.len() - 5]), None);
        }
    }

    #[test]
    fn roots_differ_where_chunks_differ_in_content_order_or_number() {
        let mut roots: Vec<Digest> = (0..9).map(|count| manifest(count).root()).collect();
        let mut swapped = manifest(5);
        swapped.chunks.swap(1, 3);
        roots.push(swapped.root());
        let mut doubled = manifest(5);
        doubled.chunks.push(doubled.chunks[4]);
        roots.push(doubled.root());
        let count = roots.len();
        roots.sort_unstable();
        roots.dedup();
        assert_eq!(roots.len(), count);
    }

    #[test]
    fn the_root_does_not_depend_on_the_instance() {
        let other = Manifest { instance: InstanceId(8), ..manifest(5) };
        assert_eq!(other.root(), manifest(5).root());
    }

    #[test]
    fn a_count_beyond_the_bytes_or_the_limit_is_refused() {
        for count in [6, CHUNKS_MAX as u64 + 1, u64::MAX] {
            let mut bytes = manifest(5).to_bytes();
            bytes[16..24].copy_from_slice(&count.to_le_bytes());
            assert_eq!(Manifest::from_bytes(&bytes), None);
        }
    }

    #[test]
    fn a_chunk_knows_its_bytes() {
        let chunk = Chunk::of(b"abc").unwrap();
        assert!(chunk.is_of(b"abc") && !chunk.is_of(b"abd") && !chunk.is_of(b"abcd"));
        assert_eq!(Chunk::of(b""), None);
        assert_eq!(Chunk::of(&vec![0; CHUNK_BYTES_MAX + 1]), None);
    }
}
