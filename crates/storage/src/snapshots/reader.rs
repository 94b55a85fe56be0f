//! Reads one snapshot, chunk by chunk; no byte is handed out before its chunk is verified.

use std::io::{self, ErrorKind, Read};

use bytes::Buf;
use regency_protocol::ids::InstanceId;

use super::manifest_file::ManifestFile;
use super::writer::FinishedSnapshot;
use super::{DATA_HEADER_BYTES, DATA_MAGIC, data_name, offsets, read_manifest};
use crate::Identity;
use crate::block::{self, Refusal};
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError};
use crate::manifest::Manifest;

/// A part of a snapshot that can be bad for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// The manifest: without it there is no snapshot.
    Manifest,
    /// The head of the data file.
    Header,
    /// A chunk, from 0.
    Chunk(usize),
}

/// What the files of one instance turn out to be, before their chunks are read.
pub(crate) enum SnapshotFile {
    /// No complete snapshot.
    Absent,
    /// One with a bad part.
    Damaged(SnapshotPart),
    /// One whose chunks can be read.
    Whole(SnapshotReader),
}

impl SnapshotFile {
    /// Looks at the snapshot that was taken after `instance`.
    pub(crate) fn find(
        disk: &dyn Disk,
        identity: &Identity,
        instance: InstanceId,
    ) -> Result<Self, StorageError> {
        let manifest = match read_manifest(disk, identity, instance)? {
            ManifestFile::Absent => return Ok(Self::Absent),
            ManifestFile::Damaged => return Ok(Self::Damaged(SnapshotPart::Manifest)),
            ManifestFile::Whole(manifest) => manifest,
        };
        match SnapshotReader::of(disk, identity, manifest) {
            Ok(reader) => Ok(reader.map_or(Self::Absent, Self::Whole)),
            Err(
                StorageError::FileDamaged { .. } | StorageError::Disk { operation: DiskOperation::Read, .. },
            ) => Ok(Self::Damaged(SnapshotPart::Header)),
            Err(error) => Err(error),
        }
    }
}

/// A complete snapshot that is being read.
pub struct SnapshotReader {
    file: Box<dyn DiskFile>,
    name: String,
    manifest: Manifest,
    /// Where each chunk begins.
    offsets: Vec<u64>,
    /// The next chunk to read.
    next: usize,
    /// The chunk that is handed out, and how much of it was.
    chunk: Vec<u8>,
    done: usize,
}

impl SnapshotReader {
    /// The complete snapshot that was taken after `instance`; nothing if there is none, or its manifest is damaged.
    ///
    /// Changes nothing, and minds nothing else in the directory: another thread may write and remove snapshots
    /// meanwhile. What was opened stays readable when it is removed, and a damaged chunk spoils no other.
    ///
    /// # Errors
    /// A snapshot of another cluster, replica or format; a data file that is not this snapshot's; or the disk refused.
    pub fn find(
        disk: &dyn Disk,
        identity: &Identity,
        instance: InstanceId,
    ) -> Result<Option<Self>, StorageError> {
        let Some(manifest) = read_manifest(disk, identity, instance)?.whole() else { return Ok(None) };
        Self::of(disk, identity, manifest)
    }

    /// The snapshot with this manifest; nothing if its data are gone.
    fn of(disk: &dyn Disk, identity: &Identity, manifest: Manifest) -> Result<Option<Self>, StorageError> {
        let name = data_name(manifest.instance);
        match disk.open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => {
                let file = opened.on(DiskOperation::Open, &name)?;
                Self::open(file, name, identity, manifest).map(Some)
            }
        }
    }

    pub(super) fn open(
        file: Box<dyn DiskFile>,
        name: String,
        identity: &Identity,
        manifest: Manifest,
    ) -> Result<Self, StorageError> {
        let mut header = vec![0; DATA_HEADER_BYTES];
        file.read_at(0, &mut header).on(DiskOperation::Read, &name)?;
        let content = match block::open(DATA_MAGIC, identity, &header, &name) {
            Ok(content) => content,
            Err(Refusal::Damaged) => return Err(StorageError::FileDamaged { file: name, offset: 0 }),
            Err(Refusal::Foreign(error)) => return Err(error),
        };
        if content.as_ref().try_get_u64_le() != Ok(manifest.instance.0) {
            return Err(StorageError::FileDamaged { file: name, offset: 0 });
        }
        Ok(Self::new(file, name, manifest))
    }

    /// The same, of a file whose head says nothing yet, or nothing any more.
    pub(super) fn new(file: Box<dyn DiskFile>, name: String, manifest: Manifest) -> Self {
        let offsets = offsets(&manifest);
        Self { file, name, manifest, offsets, next: 0, chunk: Vec::new(), done: 0 }
    }

    /// Reads and verifies all of what was written, so that it can be installed.
    pub(super) fn finish(self) -> Result<FinishedSnapshot, StorageError> {
        self.verify()?;
        Ok(FinishedSnapshot { manifest: self.manifest, file: self.name })
    }

    /// What the snapshot consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// One chunk's bytes, verified; nothing behind the last.
    ///
    /// # Errors
    /// The disk refused, or returned other bytes than were written.
    pub fn chunk(&self, index: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let mut bytes = Vec::new();
        Ok(self.load(index, &mut bytes)?.then_some(bytes))
    }

    /// Reads and verifies all of it.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk), for the first bad one.
    pub fn verify(&self) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        (0..self.manifest.chunks.len()).try_for_each(|index| self.load(index, &mut bytes).map(|_| ()))
    }

    /// Puts a chunk into `bytes`. False if there is none of that index.
    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool, StorageError> {
        let (Some(chunk), Some(offset)) = (self.manifest.chunks.get(index), self.offsets.get(index)) else {
            return Ok(false);
        };
        bytes.resize(chunk.length as usize, 0);
        let count = self.file.read_at(*offset, bytes).on(DiskOperation::Read, &self.name)?;
        bytes.truncate(count);
        if !chunk.is_of(bytes) {
            return Err(StorageError::FileDamaged { file: self.name.clone(), offset: *offset });
        }
        Ok(true)
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done >= self.chunk.len() {
            let mut chunk = std::mem::take(&mut self.chunk);
            let is_there = self
                .load(self.next, &mut chunk)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if !is_there {
                return Ok(0);
            }
            self.chunk = chunk;
            self.done = 0;
            self.next = self.next.saturating_add(1);
        }
        let left = self.chunk.get(self.done..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), left.get(..count)) {
            to.copy_from_slice(from);
        }
        self.done = self.done.saturating_add(count);
        Ok(count)
    }
}
