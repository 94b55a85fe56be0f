//! A snapshot that comes from other replicas, chunk by chunk and in any order [ST-3].
//!
//! Its manifest is durable before the first chunk, and every chunk is written where it stays. So a crash loses what
//! was not synced and no more: whoever begins again, be it with a newer manifest, keeps all that is equal [ST-4].
//! Nothing is taken over before its hash is verified. Memory is a chunk, and the manifests.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use regency_protocol::ids::{Digest, InstanceId};

use super::draft_name::DraftName;
use super::manifest_file::ManifestFile;
use super::reader::SnapshotReader;
use super::{
    DATA_HEADER_BYTES, FinishedSnapshot, SYNC_BYTES, data_header, data_name, has_room, offsets, refused,
};
use crate::Identity;
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError, TransferRefusal};
use crate::manifest::{CHUNKS_MAX, Chunk, Manifest};

const MAGIC: &[u8; 8] = b"rgntrnsm";

/// A snapshot that is being transferred.
pub struct TransferDraft {
    name: String,
    file: Box<dyn DiskFile>,
    manifest: Manifest,
    /// Where each chunk begins.
    offsets: Vec<u64>,
    held: Vec<bool>,
    unsynced_bytes: u64,
    failed: Option<StorageError>,
}

impl TransferDraft {
    /// Makes room for the snapshot, and takes over what is here of it: from its own draft, from those of others,
    /// which then go, and from the `complete` snapshots.
    pub(super) fn begin(
        disk: &dyn Disk,
        identity: &Identity,
        manifest: Manifest,
        complete: &BTreeMap<InstanceId, Manifest>,
        reserve_bytes: u64,
    ) -> Result<Self, StorageError> {
        if manifest.chunks.len() > CHUNKS_MAX {
            return Err(StorageError::TooLong { bytes: manifest.chunks.len(), bytes_max: CHUNKS_MAX });
        }
        let own = DraftName::of(&manifest);
        let mut names = disk.list().on(DiskOperation::List, ".")?;
        for name in names.iter().filter(|name| DraftName::is_unfinished(name)) {
            disk.remove(name).on(DiskOperation::Remove, name)?;
        }
        let mut drafts = DraftName::all(&names);
        DraftName::reclaim(disk, &drafts, &mut names)?;
        drafts.retain(|name| *name != own);
        let mut others = Vec::new();
        for name in &drafts {
            let file = ManifestFile::read(disk, identity, MAGIC, &name.manifest())?;
            others.extend(file.whole().map(|manifest| (name.data(), manifest)));
        }
        let is_new = !names.contains(&own.data());
        let made = match make_room(disk, identity, &own, &manifest, reserve_bytes) {
            // Room for this one comes before what an older one may spare.
            Err(StorageError::Full { .. }) if !drafts.is_empty() => {
                others.clear();
                DraftName::remove(disk, &std::mem::take(&mut drafts))?;
                make_room(disk, identity, &own, &manifest, reserve_bytes)
            }
            made => made,
        };
        let file = match made {
            Err(error @ StorageError::Full { .. }) if is_new => {
                DraftName::remove(disk, &[own])?;
                return Err(error);
            }
            made => made?,
        };
        let mut draft = Self {
            name: own.data(),
            file,
            offsets: offsets(&manifest),
            held: vec![false; manifest.chunks.len()],
            manifest,
            unsynced_bytes: 0,
            failed: None,
        };
        if !is_new {
            draft.resume()?;
        }
        for (name, manifest) in others {
            draft.adopt(disk, name, manifest)?;
        }
        for manifest in complete.values().rev() {
            draft.adopt(disk, data_name(manifest.instance), manifest.clone())?;
        }
        draft.sync()?;
        DraftName::remove(disk, &drafts)?;
        Ok(draft)
    }

    /// What the snapshot consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// For each chunk whether it is here.
    #[must_use]
    pub fn held(&self) -> &[bool] {
        &self.held
    }

    /// Keeps a chunk; one that is held already is left as it is.
    ///
    /// # Errors
    /// [`StorageError::Transfer`] for bytes that are not that chunk's; [`StorageError::Full`], after which it may be
    /// tried again; or the disk refused now or before, which is final.
    pub fn put(&mut self, index: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let chunks = self.manifest.chunks.len();
        let Some(chunk) = self.manifest.chunks.get(index) else {
            return Err(StorageError::Transfer(TransferRefusal::NoSuchChunk { index, chunks }));
        };
        if !chunk.is_of(bytes) {
            return Err(StorageError::Transfer(TransferRefusal::WrongChunk { index }));
        }
        if self.held.get(index) == Some(&true) { self.check() } else { self.keep(index, bytes) }
    }

    /// Makes all of it durable and reads every chunk back; [`install`](super::SnapshotStore::install) does the rest.
    /// What was put stays on disk if this fails.
    ///
    /// # Errors
    /// [`StorageError::Transfer`] if a chunk is missing; the disk refused now or before, or what it returned is not
    /// what was written.
    pub fn finish(mut self) -> Result<FinishedSnapshot, StorageError> {
        self.check()?;
        let missing = self.held.iter().filter(|is_held| !**is_held).count();
        if missing > 0 {
            return Err(StorageError::Transfer(TransferRefusal::Incomplete { missing }));
        }
        self.sync()?;
        SnapshotReader::new(self.file, self.name, self.manifest).finish()
    }

    /// Takes over what an earlier process has put into the same file.
    fn resume(&mut self) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        for index in 0..self.held.len() {
            let (Some(chunk), Some(offset)) = (self.manifest.chunks.get(index), self.offsets.get(index))
            else {
                continue;
            };
            bytes.resize(chunk.length as usize, 0);
            // What cannot be read is not here.
            let is_read = self.file.read_at(*offset, &mut bytes).is_ok_and(|count| count == bytes.len());
            if is_read && chunk.is_of(&bytes) {
                // It may stand in the page cache alone, and count as clean after a sync that failed.
                self.keep(index, &bytes)?;
            }
        }
        Ok(())
    }

    /// Takes over what is equal in another data file.
    fn adopt(&mut self, disk: &dyn Disk, name: String, manifest: Manifest) -> Result<(), StorageError> {
        let key = |chunk: &Chunk| (chunk.hash, chunk.length);
        let is_missing = |(index, _): &(usize, &Chunk)| self.held.get(*index) == Some(&false);
        let missing = self.manifest.chunks.iter().enumerate().filter(is_missing);
        let mut wanted: Vec<(Digest, u32, usize)> =
            missing.map(|(index, chunk)| (chunk.hash, chunk.length, index)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        let file = match disk.open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.on(DiskOperation::Open, &name)?,
        };
        let source = SnapshotReader::new(file, name, manifest);
        for (at, chunk) in source.manifest().chunks.iter().enumerate() {
            let begin = wanted.partition_point(|(hash, length, _)| (*hash, *length) < key(chunk));
            let places: Vec<usize> = wanted
                .get(begin..)
                .unwrap_or_default()
                .iter()
                .take_while(|(hash, length, _)| (*hash, *length) == key(chunk))
                .map(|(_, _, index)| *index)
                .filter(|index| self.held.get(*index) == Some(&false))
                .collect();
            if places.is_empty() {
                continue;
            }
            // What is damaged there is not here: another replica has it.
            let Ok(Some(bytes)) = source.chunk(at) else { continue };
            places.into_iter().try_for_each(|index| self.keep(index, &bytes))?;
        }
        Ok(())
    }

    /// Writes a verified chunk where it belongs.
    fn keep(&mut self, index: usize, bytes: &[u8]) -> Result<(), StorageError> {
        self.check()?;
        let Some(offset) = self.offsets.get(index).copied() else { return Ok(()) };
        self.write(offset, bytes)?;
        if let Some(is_held) = self.held.get_mut(index) {
            *is_held = true;
        }
        if self.unsynced_bytes >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn check(&self) -> Result<(), StorageError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(bytes.len() as u64);
        match self.file.write_at(offset, bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                Err(StorageError::Full { file: self.name.clone() })
            }
            Err(error) => self.fail(StorageError::disk(DiskOperation::Write, &self.name, &error)),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced_bytes = 0;
        let synced = self.file.sync().on(DiskOperation::Sync, &self.name);
        synced.or_else(|error| self.fail(error))
    }

    /// Nothing is known any more of what is durable, and nothing is tried again.
    fn fail(&mut self, error: StorageError) -> Result<(), StorageError> {
        self.failed = Some(error.clone());
        Err(error)
    }
}

/// The draft's two files, as far as they are not there yet, with room for all chunks beside the reserve; what is written
/// is not synced.
fn make_room(
    disk: &dyn Disk,
    identity: &Identity,
    own: &DraftName,
    manifest: &Manifest,
    reserve_bytes: u64,
) -> Result<Box<dyn DiskFile>, StorageError> {
    let length = manifest.total_bytes().saturating_add(DATA_HEADER_BYTES as u64);
    // The manifest comes first: without it the data could not be told apart.
    let name = own.manifest();
    let found = ManifestFile::read(disk, identity, MAGIC, &name)?;
    if found.whole().is_none_or(|found| found != *manifest) {
        ManifestFile::write(disk, identity, MAGIC, &name, manifest).map_err(StorageError::or_full)?;
    }
    let name = own.data();
    let mut file = match disk.open(&name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if !has_room(disk, length.saturating_add(reserve_bytes))? {
                return Err(StorageError::Full { file: name });
            }
            let created = disk.create(&name);
            created.map_err(|error| refused(DiskOperation::Create, &name, &error))?
        }
        opened => opened.on(DiskOperation::Open, &name)?,
    };
    disk.sync_directory().on(DiskOperation::SyncDirectory, &name)?;
    file.allocate(length).map_err(|error| refused(DiskOperation::Allocate, &name, &error))?;
    let header = data_header(identity, manifest.instance);
    file.write_at(0, &header).map_err(|error| refused(DiskOperation::Write, &name, &error))?;
    Ok(file)
}
