//! Looks for damage in what is at rest, a few bytes at a time, while replica and donors go on with their work.
//!
//! A slow thread of the caller drives it. It changes nothing and opens by itself what it reads. What is written, cut,
//! replaced or removed meanwhile is no damage: so a bad part of a snapshot is looked at once more.

use std::{fmt, mem};

use regency_protocol::ids::{InstanceId, LogPosition};

use crate::Identity;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::log::{Damage, LogReader};
use crate::snapshots::{self, SnapshotFile, SnapshotPart, SnapshotReader};

/// Bytes that a look at a file costs besides what is read of it.
const OPENING_BYTES: u64 = 4096;
/// Bytes that a chunk takes in a manifest.
const ENTRY_BYTES: u64 = 36;

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to read.
    More,
    /// All was read.
    Done,
    /// Something is damaged; there may be more to read.
    Damaged(Defect),
}

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A part of a complete snapshot. A transfer with the same manifest repairs it.
    Snapshot {
        /// The instance after which it was taken.
        instance: InstanceId,
        /// What is bad.
        part: SnapshotPart,
    },
    /// The log; nothing behind this was read.
    Log(Damage),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { instance, part } => {
                let what = match part {
                    SnapshotPart::Manifest => "its manifest".to_owned(),
                    SnapshotPart::Header => "the head of its data".to_owned(),
                    SnapshotPart::Chunk(index) => format!("chunk {index}"),
                };
                write!(f, "the snapshot of instance {instance}: {what}")
            }
            Self::Log(damage) => write!(f, "the log: {damage}"),
        }
    }
}

/// One look at all that is at rest.
pub struct Scrub {
    identity: Identity,
    /// The last record that is read.
    durable: LogPosition,
    phase: Phase,
}

enum Phase {
    /// The snapshots of these instances, the last one first.
    Snapshots { disk: Box<dyn Disk>, left: Vec<InstanceId> },
    /// One of them, from a chunk on.
    Chunks { disk: Box<dyn Disk>, left: Vec<InstanceId>, reader: SnapshotReader, next: usize },
    /// The log, from its beginning on.
    LogBegin { disk: Box<dyn Disk> },
    /// The log, from where its reader is.
    Log { reader: Box<LogReader> },
    /// Nothing.
    Over,
}

impl Scrub {
    /// Begins with the snapshots that there are; the log follows, up to its record `durable`.
    ///
    /// # Errors
    /// The disk refused.
    pub fn new(disk: Box<dyn Disk>, identity: Identity, durable: LogPosition) -> Result<Self, StorageError> {
        let mut left = snapshots::instances(disk.as_ref())?;
        left.sort_unstable();
        Ok(Self { identity, durable, phase: Phase::Snapshots { disk, left } })
    }

    /// Reads about so many bytes, or until something is damaged: at least one chunk, manifest or record, and at most
    /// one more than fits.
    ///
    /// # Errors
    /// A file of another cluster, replica or format, or the disk refused; there is nothing more to read then.
    pub fn step(&mut self, bytes: u64) -> Result<Progress, StorageError> {
        let mut budget = Budget(bytes);
        loop {
            let defect = match mem::replace(&mut self.phase, Phase::Over) {
                Phase::Snapshots { disk, left } => self.enter_snapshot(disk, left, &mut budget)?,
                Phase::Chunks { disk, left, reader, next } => {
                    self.read_chunk(disk, left, reader, next, &mut budget)?
                }
                Phase::LogBegin { disk } => {
                    self.enter_log(disk, &mut budget)?;
                    None
                }
                Phase::Log { reader } => self.read_record(reader, &mut budget)?,
                Phase::Over => return Ok(Progress::Done),
            };
            if let Some(defect) = defect {
                return Ok(Progress::Damaged(defect));
            }
            if budget.is_spent() {
                return Ok(Progress::More);
            }
        }
    }

    fn enter_snapshot(
        &mut self,
        disk: Box<dyn Disk>,
        mut left: Vec<InstanceId>,
        budget: &mut Budget,
    ) -> Result<Option<Defect>, StorageError> {
        let Some(instance) = left.pop() else {
            self.phase = Phase::LogBegin { disk };
            return Ok(None);
        };
        let mut found = SnapshotFile::find(disk.as_ref(), &self.identity, instance)?;
        if let SnapshotFile::Damaged(_) = found {
            found = SnapshotFile::find(disk.as_ref(), &self.identity, instance)?;
        }
        budget.spend(OPENING_BYTES);
        Ok(self.turn_to(found, disk, left, instance, 0, budget))
    }

    /// Goes on with what the snapshot of `instance` turned out to be, from its chunk `next` on.
    fn turn_to(
        &mut self,
        found: SnapshotFile,
        disk: Box<dyn Disk>,
        left: Vec<InstanceId>,
        instance: InstanceId,
        next: usize,
        budget: &mut Budget,
    ) -> Option<Defect> {
        match found {
            SnapshotFile::Absent => {
                self.phase = Phase::Snapshots { disk, left };
                None
            }
            SnapshotFile::Damaged(part) => {
                self.phase = Phase::Snapshots { disk, left };
                Some(Defect::Snapshot { instance, part })
            }
            SnapshotFile::Whole(reader) => {
                budget.spend((reader.manifest().chunks.len() as u64).saturating_mul(ENTRY_BYTES));
                self.phase = Phase::Chunks { disk, left, reader, next };
                None
            }
        }
    }

    fn read_chunk(
        &mut self,
        disk: Box<dyn Disk>,
        left: Vec<InstanceId>,
        reader: SnapshotReader,
        index: usize,
        budget: &mut Budget,
    ) -> Result<Option<Defect>, StorageError> {
        let Some(length) = reader.manifest().chunks.get(index).map(|chunk| chunk.length) else {
            self.phase = Phase::Snapshots { disk, left };
            return Ok(None);
        };
        budget.spend(u64::from(length));
        let next = index.saturating_add(1);
        if reader.chunk(index).is_ok() {
            self.phase = Phase::Chunks { disk, left, reader, next };
            return Ok(None);
        }
        let instance = reader.manifest().instance;
        match SnapshotFile::find(disk.as_ref(), &self.identity, instance)? {
            // Manifest and data were of two snapshots, one of which has taken the other's place.
            SnapshotFile::Whole(other) if other.manifest() != reader.manifest() => {
                self.phase = Phase::Chunks { disk, left, reader: other, next: 0 };
                Ok(None)
            }
            SnapshotFile::Whole(again) => {
                let is_damaged = again.chunk(index).is_err();
                self.phase = Phase::Chunks { disk, left, reader: again, next };
                let part = SnapshotPart::Chunk(index);
                Ok(is_damaged.then_some(Defect::Snapshot { instance, part }))
            }
            other => Ok(self.turn_to(other, disk, left, instance, next, budget)),
        }
    }

    fn enter_log(&mut self, disk: Box<dyn Disk>, budget: &mut Budget) -> Result<(), StorageError> {
        if self.durable == LogPosition(0) {
            return Ok(());
        }
        let reader = LogReader::open(disk, self.identity)?;
        budget.spend(OPENING_BYTES);
        self.phase = Phase::Log { reader: Box::new(reader) };
        Ok(())
    }

    fn read_record(
        &mut self,
        mut reader: Box<LogReader>,
        budget: &mut Budget,
    ) -> Result<Option<Defect>, StorageError> {
        // What was cut needs not be there.
        if reader.last() >= self.durable {
            return Ok(None);
        }
        let frame_bytes = match reader.next_entry() {
            Ok(entry) => entry.map(|entry| entry.frame_bytes()),
            Err(StorageError::Cut { .. }) => {
                self.phase = Phase::LogBegin { disk: reader.into_disk() };
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(frame_bytes) = frame_bytes else { return Ok(Some(Defect::Log(reader.loss()))) };
        budget.spend(frame_bytes);
        self.phase = Phase::Log { reader };
        Ok(None)
    }
}

/// Bytes that may still be read.
struct Budget(u64);

impl Budget {
    fn spend(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(bytes);
    }

    fn is_spent(&self) -> bool {
        self.0 == 0
    }
}
