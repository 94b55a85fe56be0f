//! The snapshots that a replica keeps: written beside the older ones, verified, and only then the newest.
//!
//! A snapshot is two files, data and manifest; the manifest is renamed last, so that its name says that both are
//! complete. Nothing is ever written over: the older snapshot stays until the caller lets it go, after the newer
//! one was read back. Memory is a few chunks, and the manifest.

mod draft_name;
mod manifest_file;
mod reader;
mod transfer;
mod writer;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use regency_protocol::ids::InstanceId;
use regency_protocol::mutants::{Mutant, is_active};

pub use reader::{SnapshotPart, SnapshotReader};
pub use transfer::TransferDraft;
pub use writer::{FinishedSnapshot, SnapshotWriter};

use crate::Identity;
use crate::block;
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};
use crate::manifest::{Chunk, Manifest};
use draft_name::DraftName;
use manifest_file::ManifestFile;
pub(crate) use reader::SnapshotFile;

/// Snapshots that are kept at least, if there are as many.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Bytes of a data file before its first chunk.
const DATA_HEADER_BYTES: usize = 4096;
/// Bytes after which what was written is synced, so that the log's own syncs never wait for a whole snapshot.
const SYNC_BYTES: u64 = 8 << 20;
const DATA_MAGIC: &[u8; 8] = b"rgnsnapd";
const MANIFEST_MAGIC: &[u8; 8] = b"rgnsnapm";
const PREFIX: &str = "snapshot-";
const DATA: &str = ".data";
const MANIFEST: &str = ".manifest";
const DRAFT: &str = ".draft";

/// The complete snapshots of one replica.
pub struct SnapshotStore {
    disk: Box<dyn Disk>,
    identity: Identity,
    manifests: BTreeMap<InstanceId, Manifest>,
    /// Bytes of the disk that are left to others.
    reserve_bytes: u64,
}

impl SnapshotStore {
    /// Finds the complete snapshots, and removes what a crash left of others; drafts of a transfer stay.
    ///
    /// A manifest that is damaged makes its snapshot none: the older one, or the other replicas, must do.
    ///
    /// # Errors
    /// A snapshot of another cluster, replica or format, or the disk refused.
    pub fn open(disk: Box<dyn Disk>, identity: Identity) -> Result<Self, StorageError> {
        let names = disk.list().on(DiskOperation::List, ".")?;
        let mut manifests = BTreeMap::new();
        for name in names.iter().filter(|name| is_draft(name) || DraftName::is_unfinished(name)) {
            disk.remove(name).on(DiskOperation::Remove, name)?;
        }
        for name in &names {
            let Some(instance) = instance_of(name, MANIFEST) else { continue };
            if !names.contains(&data_name(instance)) {
                continue;
            }
            let manifest = read_manifest(disk.as_ref(), &identity, instance)?.whole();
            manifests.extend(manifest.map(|manifest| (instance, manifest)));
        }
        Ok(Self { disk, identity, manifests, reserve_bytes: 0 })
    }

    /// The same, and so many bytes of the disk are left to others.
    #[must_use]
    pub fn with_reserve(self, reserve_bytes: u64) -> Self {
        Self { reserve_bytes, ..self }
    }

    /// Whether so many bytes find room beside the reserve.
    ///
    /// # Errors
    /// The disk refused.
    pub fn has_room(&self, bytes: u64) -> Result<bool, StorageError> {
        has_room(self.disk.as_ref(), self.reserve_bytes.saturating_add(bytes))
    }

    /// The complete snapshots, oldest first.
    pub fn manifests(&self) -> impl DoubleEndedIterator<Item = &Manifest> {
        self.manifests.values()
    }

    /// The newest complete snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<&Manifest> {
        self.manifests().next_back()
    }

    /// The complete snapshot that was taken after `instance`.
    #[must_use]
    pub fn at(&self, instance: InstanceId) -> Option<&Manifest> {
        self.manifests.get(&instance)
    }

    /// Begins to write the snapshot that is taken after `instance`. One at a time: what another writer has left
    /// unfinished goes.
    ///
    /// # Errors
    /// The disk refused, or is full.
    pub fn begin(&self, instance: InstanceId) -> Result<SnapshotWriter, StorageError> {
        for name in self.disk.list().on(DiskOperation::List, ".")?.iter().filter(|name| is_draft(name)) {
            self.disk.remove(name).on(DiskOperation::Remove, name)?;
        }
        let in_place = self.newest().filter(|_| is_active(Mutant::SnapshotInPlace));
        let (name, file) = match in_place {
            Some(older) => {
                let name = data_name(older.instance);
                let file = self.disk.open(&name).on(DiskOperation::Open, &name)?;
                (name, file)
            }
            None => {
                let name = format!("{}{DRAFT}", data_name(instance));
                let file = self.disk.create(&name).on(DiskOperation::Create, &name)?;
                (name, file)
            }
        };
        SnapshotWriter::new(name, file, &self.identity, instance)
    }

    /// Begins to take a snapshot over from other replicas, or goes on where a crash ended that.
    ///
    /// Chunks that are here already are held from the beginning: those of an earlier draft, be it of another
    /// snapshot, and those of the complete snapshots, be they damaged elsewhere. So what is damaged is repaired by
    /// a transfer with the same manifest. All that is taken over is read and verified, so this takes its time.
    /// One at a time: a draft that was begun before must not be used any more.
    ///
    /// # Errors
    /// A draft of another cluster, replica or format; or the disk refused, or is full but for the reserve.
    pub fn begin_transfer(&self, manifest: Manifest) -> Result<TransferDraft, StorageError> {
        let reserve = self.reserve_bytes;
        TransferDraft::begin(self.disk.as_ref(), &self.identity, manifest, &self.manifests, reserve)
    }

    /// Makes a finished snapshot one of the complete ones, durably; the older ones stay. Drafts of a transfer of
    /// this or an older one go.
    ///
    /// # Errors
    /// The disk refused, or is full; the older snapshots are as they were.
    pub fn install(&mut self, finished: FinishedSnapshot) -> Result<(), StorageError> {
        let FinishedSnapshot { manifest, file: draft } = finished;
        let instance = manifest.instance;
        let (data, name) = (data_name(instance), manifest_name(instance));
        // A snapshot of the same instance that is no good: its manifest must not be taken for the new data's.
        if self.disk.list().on(DiskOperation::List, ".")?.contains(&name) {
            self.manifests.remove(&instance);
            self.disk.remove(&name).on(DiskOperation::Remove, &name)?;
            self.disk.sync_directory().on(DiskOperation::SyncDirectory, &name)?;
        }
        self.disk.rename(&draft, &data).on(DiskOperation::Rename, &draft)?;
        self.disk.sync_directory().on(DiskOperation::SyncDirectory, &data)?;
        ManifestFile::write(self.disk.as_ref(), &self.identity, MANIFEST_MAGIC, &name, &manifest)?;
        if read_manifest(self.disk.as_ref(), &self.identity, instance)?.whole().as_ref() != Some(&manifest) {
            return Err(StorageError::FileDamaged { file: name, offset: 0 });
        }
        self.manifests.insert(instance, manifest);
        self.remove_drafts(instance)
    }

    /// Removes the snapshots that are older than `stable` and not among the newest [`SNAPSHOTS_KEPT`].
    ///
    /// # Errors
    /// The disk refused.
    pub fn retain(&mut self, stable: InstanceId) -> Result<(), StorageError> {
        let older = self.manifests.keys().rev().skip(SNAPSHOTS_KEPT).copied();
        let gone: Vec<InstanceId> = older.filter(|instance| *instance < stable).collect();
        self.remove(&gone)
    }

    /// Removes one snapshot: its data are damaged, or its root is not the certified one.
    ///
    /// # Errors
    /// The disk refused.
    pub fn discard(&mut self, instance: InstanceId) -> Result<(), StorageError> {
        self.remove(&[instance])
    }

    /// Reads a complete snapshot; nothing if there is none of that instance.
    ///
    /// # Errors
    /// The disk refused, or the data file is not this snapshot's.
    pub fn read(&self, instance: InstanceId) -> Result<Option<SnapshotReader>, StorageError> {
        let Some(manifest) = self.at(instance) else { return Ok(None) };
        let name = data_name(instance);
        let file = self.disk.open(&name).on(DiskOperation::Open, &name)?;
        SnapshotReader::open(file, name, &self.identity, manifest.clone()).map(Some)
    }

    /// Removes what transfers have left that have no use now that the snapshot of `instance` is here.
    fn remove_drafts(&self, instance: InstanceId) -> Result<(), StorageError> {
        let names = self.disk.list().on(DiskOperation::List, ".")?;
        let mut drafts = DraftName::all(&names);
        drafts.retain(|draft| draft.instance <= instance);
        DraftName::remove(self.disk.as_ref(), &drafts)?;
        // Data whose installation was not completed.
        for name in &names {
            let half = instance_of(name, DATA)
                .filter(|half| *half < instance && !names.contains(&manifest_name(*half)));
            if half.is_some() {
                self.disk.remove(name).on(DiskOperation::Remove, name)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, gone: &[InstanceId]) -> Result<(), StorageError> {
        if gone.is_empty() {
            return Ok(());
        }
        let names = self.disk.list().on(DiskOperation::List, ".")?;
        // The manifests first: without one, data are no snapshot.
        for name_of in [manifest_name, data_name] {
            for name in gone.iter().map(|instance| name_of(*instance)).filter(|name| names.contains(name)) {
                self.disk.remove(&name).on(DiskOperation::Remove, &name)?;
            }
            self.disk.sync_directory().on(DiskOperation::SyncDirectory, ".")?;
        }
        self.manifests.retain(|instance, _| !gone.contains(instance));
        Ok(())
    }
}

/// The instances of which there is a manifest, in no particular order.
pub(crate) fn instances(disk: &dyn Disk) -> Result<Vec<InstanceId>, StorageError> {
    let names = disk.list().on(DiskOperation::List, ".")?;
    Ok(names.iter().filter_map(|name| instance_of(name, MANIFEST)).collect())
}

fn data_name(instance: InstanceId) -> String {
    format!("{PREFIX}{:016}{DATA}", instance.0)
}

fn manifest_name(instance: InstanceId) -> String {
    format!("{PREFIX}{:016}{MANIFEST}", instance.0)
}

fn instance_of(name: &str, kind: &str) -> Option<InstanceId> {
    name.strip_prefix(PREFIX)?.strip_suffix(kind)?.parse().ok().map(InstanceId)
}

fn is_draft(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(DRAFT)
}

/// The manifest of the snapshot that was taken after `instance`.
fn read_manifest(
    disk: &dyn Disk,
    identity: &Identity,
    instance: InstanceId,
) -> Result<ManifestFile, StorageError> {
    let file = ManifestFile::read(disk, identity, MANIFEST_MAGIC, &manifest_name(instance))?;
    Ok(match file {
        ManifestFile::Whole(manifest) if manifest.instance != instance => ManifestFile::Damaged,
        ManifestFile::Absent | ManifestFile::Damaged | ManifestFile::Whole(_) => file,
    })
}

/// What stands before the first chunk.
fn data_header(identity: &Identity, instance: InstanceId) -> Vec<u8> {
    block::seal(DATA_MAGIC, identity, &instance.0.to_le_bytes(), DATA_HEADER_BYTES)
}

/// Where each chunk begins in a data file.
fn offsets(manifest: &Manifest) -> Vec<u64> {
    let mut next = DATA_HEADER_BYTES as u64;
    let advance = |chunk: &Chunk| {
        let offset = next;
        next = next.saturating_add(u64::from(chunk.length));
        offset
    };
    manifest.chunks.iter().map(advance).collect()
}

fn has_room(disk: &dyn Disk, bytes: u64) -> Result<bool, StorageError> {
    Ok(disk.free_bytes().on(DiskOperation::Open, ".")? >= bytes)
}

/// What it means that the disk refused to write.
fn refused(operation: DiskOperation, name: &str, error: &io::Error) -> StorageError {
    if error.kind() == ErrorKind::StorageFull {
        return StorageError::Full { file: name.to_owned() };
    }
    StorageError::disk(operation, name, error)
}
