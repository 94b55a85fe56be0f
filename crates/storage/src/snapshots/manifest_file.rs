//! The file that keeps a manifest, of a complete snapshot or of one that is being transferred.

use std::io;

use crate::Identity;
use crate::block::{self, Refusal};
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};

/// Bytes of the file besides the manifest.
const FRAME_BYTES: usize = 64;

/// What such a file turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ManifestFile {
    /// There is none.
    Absent,
    /// Not what was written.
    Damaged,
    /// It holds this manifest.
    Whole(Manifest),
}

impl ManifestFile {
    /// Reads the file `name`.
    pub(super) fn read(
        disk: &dyn Disk,
        identity: &Identity,
        magic: &[u8; 8],
        name: &str,
    ) -> Result<Self, StorageError> {
        let file = match disk.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            opened => opened.on(DiskOperation::Open, name)?,
        };
        let length = usize::try_from(file.length().on(DiskOperation::Read, name)?).unwrap_or(usize::MAX);
        if length > MANIFEST_BYTES_MAX.saturating_add(FRAME_BYTES) {
            return Ok(Self::Damaged);
        }
        let mut bytes = vec![0; length];
        // A sector that cannot be read is damage like any other.
        if file.read_at(0, &mut bytes).is_err() {
            return Ok(Self::Damaged);
        }
        match block::open(magic, identity, &bytes, name) {
            Ok(content) => {
                let manifest = Manifest::from_bytes(content).map(|(manifest, _)| manifest);
                Ok(manifest.map_or(Self::Damaged, Self::Whole))
            }
            Err(Refusal::Damaged) => Ok(Self::Damaged),
            Err(Refusal::Foreign(error)) => Err(error),
        }
    }

    /// Writes `manifest` as the file `name`, so that after a crash it is there in full or not at all.
    pub(super) fn write(
        disk: &dyn Disk,
        identity: &Identity,
        magic: &[u8; 8],
        name: &str,
        manifest: &Manifest,
    ) -> Result<(), StorageError> {
        let content = manifest.to_bytes();
        let length = content.len().saturating_add(FRAME_BYTES);
        block::replace_file(disk, name, &block::seal(magic, identity, &content, length))
    }

    /// The manifest; nothing if there is none to be had.
    pub(super) fn whole(self) -> Option<Manifest> {
        match self {
            Self::Absent | Self::Damaged => None,
            Self::Whole(manifest) => Some(manifest),
        }
    }
}
