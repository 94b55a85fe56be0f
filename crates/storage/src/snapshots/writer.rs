//! Writes one snapshot from a stream of bytes, on the thread that calls it, and reads it back.

use std::io::{self, Write};

use regency_protocol::ids::InstanceId;

use super::reader::SnapshotReader;
use super::{DATA_HEADER_BYTES, SYNC_BYTES, data_header, refused};
use crate::Identity;
use crate::chunks::Chunker;
use crate::disk::DiskFile;
use crate::error::{DiskOperation, OnFile, StorageError};
use crate::manifest::{CHUNKS_MAX, Chunk, Manifest};

/// A snapshot that is being written.
pub struct SnapshotWriter {
    name: String,
    file: Box<dyn DiskFile>,
    manifest: Manifest,
    chunker: Chunker,
    /// The chunk so far.
    chunk: Vec<u8>,
    /// Where it goes.
    offset: u64,
    unsynced_bytes: u64,
    /// Whether the chunk has all its bytes, and found no room.
    is_waiting: bool,
    failed: Option<StorageError>,
}

/// A snapshot that is written, durable and read back, and waits to be installed.
#[derive(Debug)]
pub struct FinishedSnapshot {
    pub(super) manifest: Manifest,
    /// The draft's name.
    pub(super) file: String,
}

impl FinishedSnapshot {
    /// What it consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl SnapshotWriter {
    pub(super) fn new(
        name: String,
        mut file: Box<dyn DiskFile>,
        identity: &Identity,
        instance: InstanceId,
    ) -> Result<Self, StorageError> {
        file.write_at(0, &data_header(identity, instance))
            .map_err(|error| refused(DiskOperation::Write, &name, &error))?;
        Ok(Self {
            name,
            file,
            manifest: Manifest { instance, chunks: Vec::new() },
            chunker: Chunker::default(),
            chunk: Vec::new(),
            offset: DATA_HEADER_BYTES as u64,
            unsynced_bytes: 0,
            is_waiting: false,
            failed: None,
        })
    }

    /// Writes the last chunk.
    ///
    /// # Errors
    /// The disk refused now or before. If it is full, this may be tried again.
    pub fn end(&mut self) -> Result<(), StorageError> {
        self.end_chunk()
    }

    /// Writes the last chunk, makes all of it durable, and reads every chunk back.
    ///
    /// # Errors
    /// The disk refused now or before, or what it returned is not what was written.
    pub fn finish(mut self) -> Result<FinishedSnapshot, StorageError> {
        self.end_chunk()?;
        self.sync()?;
        SnapshotReader::new(self.file, self.name, self.manifest).finish()
    }

    fn end_chunk(&mut self) -> Result<(), StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.write_chunk();
        self.is_waiting = matches!(outcome, Err(StorageError::Full { .. }));
        if !self.is_waiting {
            self.failed = outcome.as_ref().err().cloned();
        }
        outcome
    }

    fn write_chunk(&mut self) -> Result<(), StorageError> {
        let Some(entry) = Chunk::of(&self.chunk) else { return Ok(()) };
        if self.manifest.chunks.len() >= CHUNKS_MAX {
            return Err(StorageError::TooLong { bytes: CHUNKS_MAX.saturating_add(1), bytes_max: CHUNKS_MAX });
        }
        let written = self.file.write_at(self.offset, &self.chunk);
        written.map_err(|error| refused(DiskOperation::Write, &self.name, &error))?;
        self.offset = self.offset.saturating_add(u64::from(entry.length));
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(u64::from(entry.length));
        self.manifest.chunks.push(entry);
        self.chunk.clear();
        if self.unsynced_bytes >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced_bytes = 0;
        self.file.sync().on(DiskOperation::Sync, &self.name)
    }
}

impl Write for SnapshotWriter {
    /// Takes bytes of the snapshot; none if it fails. If the disk is full, the same ones may be offered again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_waiting {
            self.end_chunk().map_err(io::Error::other)?;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (count, is_end) = self.chunker.take(rest);
            let (taken, left) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.chunk.extend_from_slice(taken);
            rest = left;
            if is_end {
                match self.end_chunk() {
                    Ok(()) => {}
                    // What was taken of these bytes stays taken.
                    Err(StorageError::Full { .. }) => break,
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
