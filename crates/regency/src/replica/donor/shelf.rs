//! What a replica has for others: its snapshots and its log, read from disk while it goes on writing them [ST-3].
//!
//! What was opened stays open for the next question. What is not there, is damaged, or is not what was asked for is
//! nothing: another donor has it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use regency_protocol::ids::{Digest, InstanceId, LogPosition, ViewId};
use regency_protocol::manifest::ManifestHead;
use regency_protocol::message::{Supply, Wanted};
use regency_protocol::state_transfer::donation::Donation;
use regency_storage::snapshots::SnapshotReader;
use regency_storage::{Disk, Identity, StorageError};
use tracing::warn;

use super::log_cursor::{LogCursor, bytes_of};
use crate::logging::Quieter;

/// Snapshots that are kept open.
const SNAPSHOTS_MAX: usize = 2;
/// How long one stays open, however often it is asked for.
const OPEN_MAX: Duration = Duration::from_secs(600);
/// One that is not what was asked for is not opened again before.
const REOPEN_PERIOD: Duration = Duration::from_secs(1);
/// Places in the log that are kept.
const CURSORS_MAX: usize = 4;

/// Opens the replica's disk once more.
pub(in super::super) type OpenDisk = Box<dyn Fn() -> Box<dyn Disk> + Send>;

/// A snapshot that is open.
struct OpenSnapshot {
    /// When it was opened: if it has been removed since, it takes room on the disk.
    opened: Instant,
    root: Digest,
    head: ManifestHead,
    reader: SnapshotReader,
}

/// The disk, and what is open of it.
pub(super) struct Shelf {
    disk: OpenDisk,
    identity: Identity,
    /// The one that was asked for last is last.
    snapshots: Vec<OpenSnapshot>,
    cursors: Vec<LogCursor>,
    quieter: Quieter,
}

impl Shelf {
    /// What lies on the disk of `identity`.
    pub(super) fn new(disk: OpenDisk, identity: Identity) -> Self {
        Self { disk, identity, snapshots: Vec::new(), cursors: Vec::new(), quieter: Quieter::default() }
    }

    /// The answer to a question that was asked in `view`.
    pub(super) fn supply(&mut self, donation: Donation, view: ViewId) -> Supply {
        let wanted = wanted(&donation, view);
        match self.find(donation) {
            Ok(Some(supply)) => supply,
            Ok(None) => Supply::Nothing(wanted),
            Err(error) => {
                if let Some(left_out) = self.quieter.admits("donor", Instant::now()) {
                    warn!(left_out, "not given to another replica: {error}");
                }
                Supply::Nothing(wanted)
            }
        }
    }

    /// Closes everything: it may be gone from the directory by now, and takes room on the disk.
    pub(super) fn close(&mut self) {
        self.snapshots.clear();
        self.cursors.clear();
    }

    fn find(&mut self, donation: Donation) -> Result<Option<Supply>, StorageError> {
        Ok(match donation {
            Donation::Snapshot { certificate, .. } => {
                let found = self.snapshot(certificate.instance, certificate.root)?;
                found.map(|open| Supply::Snapshot { head: open.head.clone(), certificate })
            }
            Donation::Page { instance, root, page } => {
                let Some(open) = self.snapshot(instance, root)? else { return Ok(None) };
                let chunks = usize::try_from(page).ok().and_then(|page| open.reader.manifest().page(page));
                chunks.map(|chunks| Supply::Page { instance, page, chunks: chunks.to_vec() })
            }
            Donation::Chunk { instance, root, index } => {
                let Some(open) = self.snapshot(instance, root)? else { return Ok(None) };
                let Ok(place) = usize::try_from(index) else { return Ok(None) };
                let chunk = open.reader.chunk(place)?;
                chunk.map(|bytes| Supply::Chunk { instance, index, bytes: Bytes::from(bytes) })
            }
            Donation::Batches { from, last, position } => {
                let found = self.batches(from, last, position)?;
                (!found.is_empty()).then_some(Supply::Batches(found))
            }
        })
    }

    /// The snapshot of an instance, if it has that root.
    fn snapshot(
        &mut self,
        instance: InstanceId,
        root: Digest,
    ) -> Result<Option<&OpenSnapshot>, StorageError> {
        self.snapshots.retain(|open| open.opened.elapsed() < OPEN_MAX);
        // One of another root may have taken its place, or the question is wrong: then it is not read each time.
        let is_it = |open: &OpenSnapshot| {
            let is_known = open.root == root || open.opened.elapsed() < REOPEN_PERIOD;
            is_known && open.reader.manifest().instance == instance
        };
        let open = match self.snapshots.iter().position(is_it) {
            Some(place) => self.snapshots.remove(place),
            None => {
                let found = SnapshotReader::find((self.disk)().as_ref(), &self.identity, instance)?;
                let Some(reader) = found else { return Ok(None) };
                let head = reader.manifest().head();
                let Some(found) = head.root() else { return Ok(None) };
                self.snapshots.retain(|open| open.reader.manifest().instance != instance);
                OpenSnapshot { opened: Instant::now(), root: found, head, reader }
            }
        };
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            self.snapshots.remove(0);
        }
        self.snapshots.push(open);
        Ok(self.snapshots.last().filter(|open| open.root == root))
    }

    fn batches(
        &mut self,
        from: InstanceId,
        last: InstanceId,
        position: LogPosition,
    ) -> Result<Vec<regency_protocol::record::RecordedBatch>, StorageError> {
        if from > last {
            return Ok(Vec::new());
        }
        let near = self.cursors.iter().position(|cursor| cursor.is_before(from));
        if let Some(mut cursor) = near.map(|place| self.cursors.remove(place)) {
            let found = cursor.batches(from, last)?;
            // The cursor may have begun behind a batch of this range.
            if !found.is_empty() {
                self.keep(cursor);
                return Ok(found);
            }
        }
        let mut cursor = match LogCursor::open((self.disk)(), self.identity, from, position) {
            // The core has it cut just now.
            Err(StorageError::Cut { .. }) => return Ok(Vec::new()),
            opened => opened?,
        };
        let found = cursor.batches(from, last)?;
        self.keep(cursor);
        Ok(found)
    }

    fn keep(&mut self, cursor: LogCursor) {
        self.cursors.retain(|cursor| !cursor.is_over());
        if self.cursors.len() >= CURSORS_MAX {
            self.cursors.remove(0);
        }
        self.cursors.push(cursor);
    }
}

/// What is answered if there is nothing.
pub(super) fn wanted(donation: &Donation, view: ViewId) -> Wanted {
    match donation {
        Donation::Snapshot { certificate, above } => {
            Wanted::Snapshot { view: certificate.view, above: *above }
        }
        Donation::Page { instance, root, page } => {
            Wanted::Page { instance: *instance, root: *root, page: *page }
        }
        Donation::Chunk { instance, root, index } => {
            Wanted::Chunk { instance: *instance, root: *root, index: *index }
        }
        Donation::Batches { from, last, .. } => Wanted::Batches { view, from: *from, last: *last },
    }
}

/// About how many bytes an answer comes to.
pub(super) fn bytes_in(supply: &Supply) -> u64 {
    const PIECE: usize = 64;
    let bytes = match supply {
        Supply::Digests { digests, .. } => digests.len() * PIECE,
        Supply::Batches(batches) => batches.iter().map(|recorded| bytes_of(recorded) + PIECE).sum(),
        Supply::Snapshot { certificate, head } => {
            (head.pages.len() + 2 * certificate.signatures.len()) * PIECE
        }
        Supply::Page { chunks, .. } => chunks.len() * PIECE,
        Supply::Chunk { bytes, .. } => bytes.len(),
        Supply::Nothing(_) => PIECE,
    };
    bytes as u64
}
