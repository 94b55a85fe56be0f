//! A real log in the files of a simulated disk.

use std::collections::VecDeque;

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{ClusterId, LogPosition, ReplicaId};
use regency_protocol::record::Record;
use regency_storage::log::{Log, LogSettings, Recovered, Recovery, Tail};
use regency_storage::{DiskImage, Fault, FaultyDisk, Identity, StorageError};

use super::Commit;
use crate::random::Stream;

/// Small segments: one schedule fills several.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Operations of one commit in which the power may fail, at most.
const COMMIT_OPERATIONS: u64 = 4;

/// The records of a log, and whether its end was cut off.
pub(super) type Found = (Vec<(LogPosition, Bytes)>, bool);

/// A log, its disk, and whose they are.
pub(super) struct Files {
    identity: Identity,
    seed: u64,
    disk: FaultyDisk,
    log: Option<Log>,
}

impl Files {
    pub(super) fn new(cluster: ClusterId, replica: ReplicaId, seed: u64) -> Self {
        let identity = Identity { cluster, replica };
        let mut files = Self { identity, seed, disk: FaultyDisk::seeded(seed), log: None };
        let _ = files.recover();
        files
    }

    /// An empty disk in place of this one.
    pub(super) fn begin_anew(&self) -> Self {
        Self::new(self.identity.cluster, self.identity.replica, self.seed.wrapping_add(1))
    }

    /// Makes these records durable.
    pub(super) fn commit(&mut self, records: &VecDeque<(LogPosition, Record)>) -> Commit {
        let Some(log) = &mut self.log else { return Commit::Failed };
        // After a full disk they are in the log's buffer already.
        let appended = log.last();
        for (position, record) in records.iter().filter(|(position, _)| *position > appended) {
            match log.append(&record.to_frame()) {
                Ok(at) if at == *position => {}
                Ok(_) | Err(_) => return Commit::Failed,
            }
        }
        match log.commit() {
            Ok(position) => Commit::Durable(position),
            Err(StorageError::Full { .. }) => Commit::Full,
            Err(_) => Commit::Failed,
        }
    }

    pub(super) fn cut(&mut self, below: LogPosition) {
        if let Some(log) = &mut self.log {
            // What fails here fails at the next commit, too.
            let _ = log.cut(below);
        }
    }

    /// The power fails, perhaps in the middle of a commit of these records.
    pub(super) fn crash(&mut self, flying: &VecDeque<(LogPosition, Record)>, stream: &mut Stream) {
        if !flying.is_empty() {
            self.disk.cut_power_after(stream.below(COMMIT_OPERATIONS));
            let _ = self.commit(flying);
        }
        self.log = None;
        self.disk.clear_faults();
        if stream.percent(30) { self.disk.kill() } else { self.disk.crash() }
    }

    /// Reads the log; `None` if it is damaged.
    pub(super) fn recover(&mut self) -> Result<Option<Found>, String> {
        let settings = LogSettings { segment_bytes: SEGMENT_BYTES, filled_bytes: None, salt: [7; 16] };
        let words = |error: StorageError| error.to_string();
        let mut recovery =
            Recovery::open(Box::new(self.disk.clone()), self.identity, settings).map_err(words)?;
        let mut records = Vec::new();
        while let Some(record) = recovery.next_record().map_err(words)? {
            records.push((record.position, Bytes::copy_from_slice(record.payload)));
        }
        match recovery.finish().map_err(words)? {
            Recovered::Ready(log, tail) => {
                self.log = Some(log);
                Ok(Some((records, matches!(tail, Tail::Torn { .. }))))
            }
            Recovered::Damaged(_) => Ok(None),
        }
    }

    pub(super) fn fail(&mut self) {
        self.disk.inject(Fault::SyncError, 0);
    }

    /// The next write is lost, or goes to another place of its file.
    pub(super) fn lead_astray(&mut self, is_lost: bool, stream: &mut Stream) {
        let fault = if is_lost {
            Fault::LostWrite
        } else {
            Fault::MisdirectedWrite { offset: stream.below(SEGMENT_BYTES) }
        };
        self.disk.inject(fault, 0);
    }

    pub(super) fn set_full(&mut self, is_full: bool) {
        self.disk.set_free_bytes(is_full.then_some(0));
    }

    /// Turns a bit somewhere in the records.
    pub(super) fn rot(&mut self, stream: &mut Stream) {
        let segments: Vec<String> =
            self.disk.names().into_iter().filter(|name| name.starts_with("log-")).collect();
        if segments.is_empty() {
            return;
        }
        let name = stream.pick(&segments.iter().collect::<Vec<_>>()).clone();
        let used = self.disk.content(&name).unwrap_or_default();
        let used = used.iter().rposition(|byte| *byte != 0).unwrap_or_default() as u64;
        self.disk.rot(&name, stream.below(used + 1), 1 << stream.below(8));
    }

    pub(super) fn copy(&self) -> DiskImage {
        self.disk.save()
    }

    pub(super) fn put_back(&mut self, image: &DiskImage) {
        self.log = None;
        self.disk.restore(image);
    }
}
