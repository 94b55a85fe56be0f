//! What a snapshot's bytes are: the length of the core's part, that part, and the service's image [CKPT-1].

use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use regency_protocol::codec::DecodeError;
use regency_protocol::ids::{Digest, InstanceId};
use regency_protocol::snapshot::SnapshotHead;
use regency_storage::StorageError;
use regency_storage::snapshots::{FinishedSnapshot, SnapshotReader, SnapshotStore, SnapshotWriter};
use thiserror::Error;
use tracing::warn;

use super::Shared;
use crate::snapshot::{RestoreError, Snapshot};

/// Bytes after which the disk is looked at again, and for which it then has room.
const LOOK_BYTES: u64 = 16 << 20;
/// Bytes that are written without a look in between.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// How long something that found no room on the disk waits before it looks again.
pub(super) const ROOM_PERIOD: Duration = Duration::from_millis(200);
/// Bytes of the length before the core's part.
const LENGTH_BYTES: usize = 8;
/// The longest core's part that is read back.
const HEAD_BYTES_MAX: u64 = 1 << 32;

/// Writes a snapshot up to the point where it can be installed: as soon as there is room for it, of which it leaves the
/// reserve alone. Gives up when the replica ends.
pub(super) fn write(
    store: &SnapshotStore,
    head: &SnapshotHead,
    image: Box<dyn Snapshot>,
    shared: &Shared,
) -> Result<FinishedSnapshot, StorageError> {
    let mut wait = Wait { instance: head.instance, shared };
    while !store.has_room(LOOK_BYTES)? {
        wait.pass()?;
    }
    let mut writer = store.begin(head.instance)?;
    let own = head.encode();
    let mut sink = Sink { writer: &mut writer, store, wait, unlooked_bytes: 0 };
    let written = sink
        .write_all(&(own.len() as u64).to_le_bytes())
        .and_then(|()| sink.write_all(&own))
        .and_then(|()| image.write(&mut sink))
        .and_then(|()| sink.end());
    shared.is_waiting.store(false, Ordering::Release);
    match written {
        Ok(()) => writer.finish(),
        // What is wrong with the writer, it says itself; what is wrong with the image, the image.
        Err(error) => Err(storage_error(&error).cloned().unwrap_or_else(|| StorageError::Disk {
            operation: regency_storage::DiskOperation::Write,
            file: "a snapshot".to_owned(),
            kind: error.kind(),
            message: error.to_string(),
        })),
    }
}

/// What the writer of a snapshot has against it.
fn storage_error(error: &io::Error) -> Option<&StorageError> {
    error.get_ref().and_then(|source| source.downcast_ref::<StorageError>())
}

/// Passes bytes on, as soon as there is room for them, until the replica ends.
struct Sink<'a> {
    writer: &'a mut SnapshotWriter,
    store: &'a SnapshotStore,
    wait: Wait<'a>,
    /// Bytes since the disk was looked at.
    unlooked_bytes: u64,
}

impl Sink<'_> {
    /// Lets the last chunk find room.
    fn end(&mut self) -> io::Result<()> {
        loop {
            match self.writer.end() {
                Err(StorageError::Full { .. }) => self.wait.pass().map_err(io::Error::other)?,
                outcome => return outcome.map_err(io::Error::other),
            }
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.wait.shared.is_ending.load(Ordering::Acquire) {
            return Err(io::Error::other("the replica ends"));
        }
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        self.unlooked_bytes += bytes.len() as u64;
        if self.unlooked_bytes >= LOOK_BYTES {
            self.unlooked_bytes = 0;
            while !self.store.has_room(LOOK_BYTES).map_err(io::Error::other)? {
                self.wait.pass().map_err(io::Error::other)?;
            }
        }
        loop {
            match self.writer.write(bytes) {
                Err(error) if matches!(storage_error(&error), Some(StorageError::Full { .. })) => {
                    self.wait.pass().map_err(io::Error::other)?;
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Patience with a full disk, until the replica ends.
struct Wait<'a> {
    instance: InstanceId,
    shared: &'a Shared,
}

impl Wait<'_> {
    /// Lets some time pass in which somebody may make room.
    fn pass(&mut self) -> Result<(), StorageError> {
        if self.shared.is_ending.load(Ordering::Acquire) {
            return Err(StorageError::Full { file: "a snapshot".to_owned() });
        }
        if !self.shared.is_waiting.swap(true, Ordering::AcqRel) {
            let instance = self.instance;
            warn!(%instance, "no room on the disk for a snapshot: it waits, and the log grows until it is written");
        }
        thread::sleep(ROOM_PERIOD);
        Ok(())
    }
}

/// A snapshot that was read back: the service has taken its state over.
pub(in super::super) struct Restored {
    /// The core's part.
    pub(in super::super) head: SnapshotHead,
    /// The root of the whole.
    pub(in super::super) root: Digest,
    /// Bytes of the whole.
    pub(in super::super) bytes: u64,
}

/// Why a snapshot does not lead to a state.
#[derive(Debug, Error)]
pub(in super::super) enum Unusable {
    /// It is not there.
    #[error("it is not there")]
    Absent,
    /// Its files cannot be read, or are damaged.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// Reading stopped in the middle.
    #[error("it cannot be read ({0})")]
    Read(io::Error),
    /// The core's part is longer than any.
    #[error("its head has {0} bytes")]
    HeadTooLong(u64),
    /// The core's part is none.
    #[error("its head is none ({0})")]
    BadHead(DecodeError),
    /// The core's part is that of another one.
    #[error("its head is that of instance {0}")]
    OtherHead(InstanceId),
    /// The service does not take its part.
    #[error("the service refuses it ({0})")]
    Refused(RestoreError),
}

impl Unusable {
    /// Whether the disk is to blame, and not what was written.
    pub(in super::super) fn is_of_disk(&self) -> bool {
        match self {
            Self::Absent | Self::Storage(_) | Self::Read(_) | Self::Refused(RestoreError::Read(_)) => true,
            Self::HeadTooLong(_) | Self::BadHead(_) | Self::OtherHead(_) | Self::Refused(_) => false,
        }
    }
}

/// Reads a snapshot, and gives the service's part to `restore`.
pub(in super::super) fn read(
    reader: Option<SnapshotReader>,
    restore: impl FnOnce(&mut dyn Read) -> Result<(), RestoreError>,
) -> Result<Restored, Unusable> {
    let mut reader = reader.ok_or(Unusable::Absent)?;
    let manifest = reader.manifest();
    let (instance, root, bytes) = (manifest.instance, manifest.root(), manifest.total_bytes());
    let mut length = [0; LENGTH_BYTES];
    reader.read_exact(&mut length).map_err(Unusable::Read)?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return Err(Unusable::HeadTooLong(length));
    }
    let mut own = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut own).map_err(Unusable::Read)?;
    let head = SnapshotHead::decode(Bytes::from(own)).map_err(Unusable::BadHead)?;
    if head.instance != instance {
        return Err(Unusable::OtherHead(head.instance));
    }
    restore(&mut reader).map_err(Unusable::Refused)?;
    Ok(Restored { head, root, bytes })
}
