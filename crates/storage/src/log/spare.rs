//! The file of a segment that is still to come, filled with zeros ahead of time.
//!
//! Where a file system has only reserved room, the first write to a block changes the file system's own records too,
//! and the sync of a record waits until these are durable. A block that was written once takes further writes for
//! itself alone, which halves the time of a sync and more.

use std::io::ErrorKind;

use super::segment;
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError};

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 1 << 18;

/// A file of zeros that can become a segment.
///
/// Of one directory there must not be two: they have the same name, and a recovery removes it.
pub struct Spare {
    file: Box<dyn DiskFile>,
    bytes: u64,
    filled: u64,
}

impl Spare {
    /// Begins one of so many bytes.
    ///
    /// # Errors
    /// [`StorageError::Full`] when there is no room, and then nothing is left of it; or the disk refused.
    pub fn begin(disk: &dyn Disk, bytes: u64) -> Result<Self, StorageError> {
        Ok(Self { file: reserve(disk, segment::SPARE_FILE, segment::SPARE_FILE, bytes)?, bytes, filled: 0 })
    }

    /// Writes about so many more zeros, durably; whether all of it is filled.
    ///
    /// # Errors
    /// The disk refused: nothing is known of the file any more.
    pub fn fill(&mut self, bytes: u64) -> Result<bool, StorageError> {
        let end = self.filled.saturating_add(bytes).min(self.bytes);
        fill(self.file.as_mut(), self.filled, end).on(DiskOperation::Write, segment::SPARE_FILE)?;
        self.file.sync().on(DiskOperation::Sync, segment::SPARE_FILE)?;
        self.filled = end;
        Ok(self.is_filled())
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_filled(&self) -> bool {
        self.filled == self.bytes
    }

    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }
}

/// Creates a file and reserves its room; an error tells of `wanted`.
pub(crate) fn reserve(
    disk: &dyn Disk,
    name: &str,
    wanted: &str,
    bytes: u64,
) -> Result<Box<dyn DiskFile>, StorageError> {
    let full = || StorageError::Full { file: wanted.to_owned() };
    let mut file = match disk.create(name) {
        Err(error) if error.kind() == ErrorKind::StorageFull => return Err(full()),
        created => created.on(DiskOperation::Create, name)?,
    };
    match file.allocate(bytes) {
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            drop(file);
            disk.remove(name).on(DiskOperation::Remove, name)?;
            Err(full())
        }
        allocated => {
            allocated.on(DiskOperation::Allocate, name)?;
            Ok(file)
        }
    }
}

/// Writes zeros from `begin` up to `end`.
pub(crate) fn fill(file: &mut dyn DiskFile, begin: u64, end: u64) -> std::io::Result<()> {
    let zeros = [0; PIECE_BYTES];
    let mut offset = begin;
    while offset < end {
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let piece = zeros.get(..left).unwrap_or(&zeros);
        file.write_at(offset, piece)?;
        offset = offset.saturating_add(piece.len() as u64);
    }
    Ok(())
}
