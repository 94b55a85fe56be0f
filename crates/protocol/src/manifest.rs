//! What a snapshot consists of: its chunks in order, and the one hash that names them all.
//!
//! The root is a Merkle root over the chunks' lengths and hashes; checkpoint signatures cover it [CKPT-1]. It does not
//! cover the instance, which the signature names by itself, so that equal states have equal roots. Whoever knows the
//! root checks a table of contents page by page, before anything is allocated for what it announces [ST-3].

use bytes::{Buf, BufMut};

use crate::digest::{Domain, Hasher, digest};
use crate::ids::{Digest, InstanceId};

/// The longest chunk in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The most chunks that one snapshot may have; at the usual length they hold about 1 TiB.
pub const CHUNKS_MAX: usize = 4 << 20;
/// Chunks of a page of the table of contents; the last one may have fewer. A power of two: a page is a node of the tree.
pub const PAGE_CHUNKS: usize = 1024;
/// The most pages of one table of contents.
pub const PAGES_MAX: usize = CHUNKS_MAX / PAGE_CHUNKS;
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

    /// The leaf of the tree.
    fn leaf(&self) -> Digest {
        Hasher::new(Domain::SnapshotLeaf).number(u64::from(self.length)).bytes(&self.hash.0).finish()
    }
}

/// What a manifest comes to, page by page: the root follows from it, so it is as good as certified where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// How many chunks there are.
    pub chunks: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// The digest of each page, in order; see [`page_digest`].
    pub pages: Vec<Digest>,
}

impl ManifestHead {
    /// The Merkle root of the manifest that this is the head of; `None` if there can be none.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        let chunks = usize::try_from(self.chunks).ok().filter(|chunks| *chunks <= CHUNKS_MAX)?;
        let is_whole = self.pages.len() == chunks.div_ceil(PAGE_CHUNKS);
        is_whole.then(|| root(self.chunks, self.total_bytes, self.pages.clone()))
    }

    /// How many chunks a page has.
    #[must_use]
    pub fn page_length(&self, page: usize) -> usize {
        let chunks = usize::try_from(self.chunks).unwrap_or(usize::MAX);
        chunks.saturating_sub(page.saturating_mul(PAGE_CHUNKS)).min(PAGE_CHUNKS)
    }
}

/// The digest of one page: the node of the tree above its chunks.
#[must_use]
pub fn page_digest(chunks: &[Chunk]) -> Digest {
    top(chunks.iter().map(Chunk::leaf).collect())
}

fn top(mut level: Vec<Digest>) -> Digest {
    while level.len() > 1 {
        level = level.chunks(2).map(parent).collect();
    }
    level.pop().unwrap_or_default()
}

fn root(chunks: u64, total_bytes: u64, pages: Vec<Digest>) -> Digest {
    Hasher::new(Domain::Snapshot).number(chunks).number(total_bytes).bytes(&top(pages).0).finish()
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
        let ManifestHead { chunks, total_bytes, pages } = self.head();
        root(chunks, total_bytes, pages)
    }

    /// What it comes to, page by page.
    #[must_use]
    pub fn head(&self) -> ManifestHead {
        ManifestHead {
            chunks: self.chunks.len() as u64,
            total_bytes: self.total_bytes(),
            pages: self.chunks.chunks(PAGE_CHUNKS).map(page_digest).collect(),
        }
    }

    /// One page; `None` if there are not so many.
    #[must_use]
    pub fn page(&self, page: usize) -> Option<&[Chunk]> {
        self.chunks.chunks(PAGE_CHUNKS).nth(page)
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
    fn a_head_leads_to_the_root_and_its_pages_are_those_of_the_manifest() {
        for count in [0, 1, 2, PAGE_CHUNKS - 1, PAGE_CHUNKS, PAGE_CHUNKS + 1, 5 * PAGE_CHUNKS + 3] {
            let chunks: Vec<Chunk> = (0..count)
                .map(|at| Chunk { length: 1, hash: digest(Domain::Chunk, &at.to_le_bytes()) })
                .collect();
            let manifest = Manifest { instance: InstanceId(7), chunks };
            let head = manifest.head();
            assert_eq!(head.root(), Some(manifest.root()));
            // As one tree over all leaves.
            let whole = top(manifest.chunks.iter().map(Chunk::leaf).collect());
            assert_eq!(top(head.pages.clone()), whole);
            for (page, expected) in head.pages.iter().enumerate() {
                let chunks = manifest.page(page).unwrap();
                assert_eq!((page_digest(chunks), chunks.len()), (*expected, head.page_length(page)));
            }
            assert_eq!(manifest.page(head.pages.len()), None);
        }
    }

    #[test]
    fn a_head_of_another_length_has_no_root_or_another() {
        let head = manifest(5).head();
        let longer = ManifestHead { chunks: head.chunks + PAGE_CHUNKS as u64, ..head.clone() };
        assert_eq!(longer.root(), None);
        let heavier = ManifestHead { total_bytes: head.total_bytes + 1, ..head.clone() };
        assert_ne!(heavier.root(), head.root());
        assert_eq!(ManifestHead { chunks: u64::MAX, ..head }.root(), None);
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
