//! A snapshot that comes from several donors: contents page by page under the certified root, then chunk by chunk.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Digest, InstanceId};
use crate::manifest::{Chunk, Manifest, ManifestHead, page_digest};
use crate::message::CheckpointCertificate;
use crate::mutants::{Mutant, is_active};
use crate::state_transfer::donation::Transfer;

/// Chunks that are asked for or being written at a time: memory does not grow with the state [ST-4].
const CHUNKS_IN_FLIGHT_MAX: usize = 16;
/// Pages that are asked for at a time.
const PAGES_IN_FLIGHT_MAX: usize = 8;

/// The snapshot of a stable checkpoint on its way here.
#[derive(Debug)]
pub(crate) struct SnapshotFetch {
    certificate: CheckpointCertificate,
    head: ManifestHead,
    stage: Stage,
    /// Bytes that are here.
    bytes: u64,
}

#[derive(Debug)]
enum Stage {
    /// The table of contents: pages that are here, in order, and those that are not asked for.
    Contents { pages: Vec<Option<Vec<Chunk>>>, unasked: BTreeSet<u32>, asked: BTreeSet<u32> },
    /// It is all here; the shell looks which chunks it has.
    Beginning(Arc<Manifest>),
    /// The chunks.
    Chunks { manifest: Arc<Manifest>, unasked: BTreeSet<u32>, asked: BTreeSet<u32>, writing: BTreeSet<u32> },
    /// All of it is on disk; the service takes it over.
    Installing,
}

/// What a page or a chunk has brought.
#[derive(Debug)]
pub(crate) enum Brought {
    /// Nothing that was not there.
    Nothing,
    /// A page, but not the last one.
    Page,
    /// What the shell is to do with it: begin, if that was the last page, or write a chunk.
    Step(Transfer),
}

/// What a donor sent is not what the root says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongPart;

impl SnapshotFetch {
    /// The snapshot under a certificate, whose signers are enough; `None` if this is not the head of its manifest.
    pub(crate) fn new(certificate: CheckpointCertificate, head: ManifestHead) -> Option<Self> {
        let is_certified = head.root() == Some(certificate.root) || is_active(Mutant::ManifestUnchecked);
        let pages = u32::try_from(head.pages.len()).ok()?;
        let stage = Stage::Contents {
            pages: vec![None; head.pages.len()],
            unasked: (0..pages).collect(),
            asked: BTreeSet::new(),
        };
        is_certified.then_some(Self { certificate, head, stage, bytes: 0 })
    }

    /// The certificate.
    pub(crate) fn certificate(&self) -> &CheckpointCertificate {
        &self.certificate
    }

    /// The instance of the snapshot.
    pub(crate) fn instance(&self) -> InstanceId {
        self.certificate.instance
    }

    /// The root.
    pub(crate) fn root(&self) -> Digest {
        self.certificate.root
    }

    /// Bytes that are here, and all.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.bytes, self.head.total_bytes)
    }

    /// What has been received, and all of it: pages of the table of contents, then bytes.
    pub(crate) fn received(&self) -> (u64, u64) {
        match &self.stage {
            Stage::Contents { pages, .. } => (pages.iter().flatten().count() as u64, pages.len() as u64),
            Stage::Beginning(_) | Stage::Chunks { .. } | Stage::Installing => self.progress(),
        }
    }

    /// The next page to ask for.
    pub(crate) fn next_page(&mut self) -> Option<u32> {
        let Stage::Contents { unasked, asked, .. } = &mut self.stage else { return None };
        if asked.len() >= PAGES_IN_FLIGHT_MAX {
            return None;
        }
        let page = unasked.pop_first()?;
        asked.insert(page);
        Some(page)
    }

    /// A page is to be asked for again.
    pub(crate) fn give_back_page(&mut self, page: u32) {
        if let Stage::Contents { unasked, asked, .. } = &mut self.stage
            && asked.remove(&page)
        {
            unasked.insert(page);
        }
    }

    /// Takes a page.
    ///
    /// # Errors
    ///
    /// It is not the certified page.
    pub(crate) fn put_page(&mut self, page: u32, chunks: Vec<Chunk>) -> Result<Brought, WrongPart> {
        let Stage::Contents { pages, unasked, asked } = &mut self.stage else { return Ok(Brought::Nothing) };
        let place = usize::try_from(page).map_err(|_| WrongPart)?;
        let (Some(expected), Some(slot)) = (self.head.pages.get(place), pages.get_mut(place)) else {
            return Err(WrongPart);
        };
        let is_good = chunks.len() == self.head.page_length(place) && page_digest(&chunks) == *expected;
        if !is_good && !is_active(Mutant::ManifestUnchecked) {
            return Err(WrongPart);
        }
        let is_news = slot.replace(chunks).is_none();
        unasked.remove(&page);
        asked.remove(&page);
        if pages.iter().any(Option::is_none) {
            return Ok(if is_news { Brought::Page } else { Brought::Nothing });
        }
        let chunks = std::mem::take(pages).into_iter().flatten().flatten().collect();
        let manifest = Arc::new(Manifest { instance: self.certificate.instance, chunks });
        // Each page is certified, and so is the sum of lengths: they differ only if a quorum signed nonsense.
        if manifest.total_bytes() != self.head.total_bytes && !is_active(Mutant::ManifestUnchecked) {
            return Err(WrongPart);
        }
        self.stage = Stage::Beginning(Arc::clone(&manifest));
        Ok(Brought::Step(Transfer::Begin(manifest)))
    }

    /// A snapshot without any chunk has no pages either: its manifest.
    pub(crate) fn empty_manifest(&mut self) -> Option<Arc<Manifest>> {
        let Stage::Contents { pages, .. } = &self.stage else { return None };
        if !pages.is_empty() {
            return None;
        }
        let manifest = Arc::new(Manifest { instance: self.certificate.instance, chunks: Vec::new() });
        self.stage = Stage::Beginning(Arc::clone(&manifest));
        Some(manifest)
    }

    /// The shell has said which chunks it holds.
    pub(crate) fn begun(&mut self, held: &[bool]) {
        let Stage::Beginning(manifest) = &self.stage else { return };
        let manifest = Arc::clone(manifest);
        let mut unasked = BTreeSet::new();
        for (index, chunk) in (0_u32..).zip(&manifest.chunks) {
            let place = usize::try_from(index).unwrap_or(usize::MAX);
            if held.get(place) == Some(&true) && !is_active(Mutant::TransferFromZero) {
                self.bytes = self.bytes.saturating_add(u64::from(chunk.length));
            } else {
                unasked.insert(index);
            }
        }
        self.stage = Stage::Chunks { manifest, unasked, asked: BTreeSet::new(), writing: BTreeSet::new() };
    }

    /// The next chunk to ask for.
    pub(crate) fn next_chunk(&mut self) -> Option<u32> {
        let Stage::Chunks { unasked, asked, writing, .. } = &mut self.stage else { return None };
        if asked.len().saturating_add(writing.len()) >= CHUNKS_IN_FLIGHT_MAX {
            return None;
        }
        let index = unasked.pop_first()?;
        asked.insert(index);
        Some(index)
    }

    /// A chunk is to be asked for again.
    pub(crate) fn give_back_chunk(&mut self, index: u32) {
        if let Stage::Chunks { unasked, asked, .. } = &mut self.stage
            && asked.remove(&index)
        {
            unasked.insert(index);
        }
    }

    /// Judges a chunk, which is to be written now if it is missing.
    ///
    /// # Errors
    ///
    /// It is not the certified chunk.
    pub(crate) fn put_chunk(&mut self, index: u32, bytes: Bytes) -> Result<Brought, WrongPart> {
        let Stage::Chunks { manifest, unasked, asked, writing } = &mut self.stage else {
            return Ok(Brought::Nothing);
        };
        let place = usize::try_from(index).map_err(|_| WrongPart)?;
        let chunk = manifest.chunks.get(place).ok_or(WrongPart)?;
        let is_unchecked = index == 0 && is_active(Mutant::ReplyCacheUnverified);
        if !chunk.is_of(&bytes) && !is_unchecked {
            return Err(WrongPart);
        }
        // It may have come twice, from two donors.
        let is_missing = unasked.remove(&index) | asked.remove(&index);
        if !(is_missing && writing.insert(index)) {
            return Ok(Brought::Nothing);
        }
        Ok(Brought::Step(Transfer::Put { instance: self.certificate.instance, index, bytes }))
    }

    /// A chunk is written.
    pub(crate) fn kept(&mut self, index: u32) {
        if let Stage::Chunks { manifest, writing, .. } = &mut self.stage
            && writing.remove(&index)
        {
            let chunk = usize::try_from(index).ok().and_then(|place| manifest.chunks.get(place));
            let length = chunk.map_or(0, |chunk| u64::from(chunk.length));
            self.bytes = self.bytes.saturating_add(length);
        }
    }

    /// Whether all chunks are written, and the service may take the state over.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.stage {
            Stage::Chunks { unasked, asked, writing, .. } => {
                unasked.is_empty() && asked.is_empty() && writing.is_empty()
            }
            Stage::Contents { .. } | Stage::Beginning(_) | Stage::Installing => false,
        }
    }

    /// Whether it is others that it waits for.
    pub(crate) fn waits_for_donors(&self) -> bool {
        match &self.stage {
            Stage::Contents { .. } => true,
            Stage::Chunks { unasked, asked, writing, .. } => {
                writing.is_empty() && !(unasked.is_empty() && asked.is_empty())
            }
            Stage::Beginning(_) | Stage::Installing => false,
        }
    }

    /// Whether there is anything that nobody was asked for yet.
    pub(crate) fn has_unasked(&self) -> bool {
        match &self.stage {
            Stage::Contents { unasked, .. } | Stage::Chunks { unasked, .. } => !unasked.is_empty(),
            Stage::Beginning(_) | Stage::Installing => false,
        }
    }

    /// The service takes the state over.
    pub(crate) fn install(&mut self) {
        self.stage = Stage::Installing;
    }

    /// Whether the service takes the state over just now.
    pub(crate) fn is_installing(&self) -> bool {
        matches!(self.stage, Stage::Installing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ViewId;

    fn manifest(count: u8) -> Manifest {
        let chunks = (0..count).map(|byte| Chunk::of(&[byte; 9]).unwrap()).collect();
        Manifest { instance: InstanceId(7), chunks }
    }

    fn fetch(manifest: &Manifest) -> SnapshotFetch {
        let certificate = CheckpointCertificate {
            view: ViewId(0),
            instance: manifest.instance,
            chain: Digest([1; 32]),
            root: manifest.root(),
            signatures: Vec::new(),
        };
        SnapshotFetch::new(certificate, manifest.head()).unwrap()
    }

    #[test]
    fn a_head_that_does_not_lead_to_the_certified_root_is_refused() {
        let right = fetch(&manifest(3));
        let certificate = right.certificate().clone();
        assert!(SnapshotFetch::new(certificate.clone(), manifest(4).head()).is_none());
        let mut head = manifest(3).head();
        head.total_bytes = u64::MAX;
        assert!(SnapshotFetch::new(certificate, head).is_none(), "a bomb");
    }

    #[test]
    fn pages_and_chunks_are_judged_before_they_are_used() {
        let manifest = manifest(3);
        let mut fetch = fetch(&manifest);
        assert_eq!((fetch.next_page(), fetch.next_page()), (Some(0), None));
        let mut wrong = manifest.chunks.clone();
        wrong[1].length = 1 << 20;
        assert!(fetch.put_page(0, wrong).is_err());
        assert!(fetch.put_page(9, manifest.chunks.clone()).is_err());
        let whole = fetch.put_page(0, manifest.chunks.clone()).unwrap();
        assert!(matches!(whole, Brought::Step(Transfer::Begin(begun)) if *begun == manifest));
        fetch.begun(&[false, true, false]);
        assert_eq!(fetch.progress(), (9, 27));
        assert_eq!((fetch.next_chunk(), fetch.next_chunk(), fetch.next_chunk()), (Some(0), Some(2), None));
        let put = |fetch: &mut SnapshotFetch, index, byte: u8| fetch.put_chunk(index, vec![byte; 9].into());
        let is_written = |brought| matches!(brought, Ok(Brought::Step(Transfer::Put { .. })));
        assert!(put(&mut fetch, 0, 7).is_err());
        assert!(is_written(put(&mut fetch, 0, 0)));
        assert!(matches!(put(&mut fetch, 0, 0), Ok(Brought::Nothing)), "once is enough");
        fetch.give_back_chunk(2);
        assert_eq!(fetch.next_chunk(), Some(2));
        assert!(is_written(put(&mut fetch, 2, 2)));
        fetch.kept(0);
        assert!(!fetch.is_complete());
        fetch.kept(2);
        assert!(fetch.is_complete());
    }
}
