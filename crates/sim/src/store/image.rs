//! Snapshots of simulated replicas: real tables of contents over tiny chunks.

use std::collections::BTreeMap;

use bytes::Bytes;
use regency_protocol::ids::{Digest, InstanceId};
use regency_protocol::manifest::{Chunk, Manifest};
use regency_protocol::snapshot::SnapshotHead;

/// Bytes of a chunk: one snapshot has a few dozen.
const CHUNK_BYTES: usize = 48;

/// A snapshot.
#[derive(Clone)]
pub(crate) struct Image {
    /// The instance after which it was taken.
    pub(crate) instance: InstanceId,
    /// The core's part.
    pub(crate) head: Bytes,
    /// The service's part.
    pub(crate) service: Bytes,
    /// The root over both.
    pub(crate) root: Digest,
    bytes: Bytes,
}

impl Image {
    /// The image of a state.
    pub(crate) fn new(head: &SnapshotHead, service: &Bytes) -> Self {
        let own = head.encode();
        let mut bytes = (own.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&own);
        bytes.extend_from_slice(service);
        Self::open(head.instance, bytes.into()).expect("it was just put together")
    }

    /// What these bytes are the image of; `None` if it cannot be told where its parts end.
    pub(crate) fn open(instance: InstanceId, bytes: Bytes) -> Option<Self> {
        let (length, _) = bytes.split_first_chunk()?;
        let end = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_add(length.len())?;
        if end > bytes.len() {
            return None;
        }
        let (head, service) = (bytes.slice(length.len()..end), bytes.slice(end..));
        let mut image = Self { instance, head, service, root: Digest::default(), bytes };
        image.root = image.manifest().root();
        Some(image)
    }

    /// Its table of contents.
    pub(crate) fn manifest(&self) -> Manifest {
        let chunks = self.chunks().filter_map(|chunk| Chunk::of(&chunk)).collect();
        Manifest { instance: self.instance, chunks }
    }

    /// Its chunks in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.bytes.chunks(CHUNK_BYTES).map(|chunk| self.bytes.slice_ref(chunk))
    }
}

/// A snapshot that comes from others, chunk by chunk.
pub(crate) struct Incoming {
    instance: InstanceId,
    chunks: Vec<Option<Bytes>>,
}

impl Incoming {
    /// One of this table of contents, with the chunks that are known.
    pub(super) fn new(manifest: &Manifest, known: &BTreeMap<Digest, Bytes>) -> Self {
        let chunks = manifest.chunks.iter();
        let chunks = chunks.map(|chunk| known.get(&chunk.hash).cloned()).collect();
        Self { instance: manifest.instance, chunks }
    }

    /// The instance after which it was taken.
    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Which chunks are here.
    pub(super) fn held(&self) -> Vec<bool> {
        self.chunks.iter().map(Option::is_some).collect()
    }

    /// Whether the chunk at this place is here.
    pub(super) fn has(&self, place: usize) -> bool {
        self.chunks.get(place).is_some_and(Option::is_some)
    }

    /// The chunks that are here.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.chunks.iter().flatten().cloned()
    }

    /// Keeps a chunk.
    pub(crate) fn put(&mut self, index: u32, bytes: Bytes) {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(chunk) = self.chunks.get_mut(place) {
            *chunk = Some(bytes);
        }
    }

    /// All of it, if all is here.
    pub(crate) fn whole(&self) -> Option<Image> {
        let chunks: Option<Vec<Bytes>> = self.chunks.iter().cloned().collect();
        Image::open(self.instance, chunks?.concat().into())
    }
}
