//! From what lies on disk to a log that can be appended to, or the word that it is damaged.
//!
//! The caller reads every record once, then finishes. A torn tail is cut by the header of the next segment, which
//! names the last record before it: one durable rename, so that a second crash in the middle changes nothing. What
//! is damaged is never cut and never appended to [LOG-1].

use std::collections::VecDeque;
use std::io;

use regency_protocol::ids::LogPosition;
use regency_protocol::mutants::{Mutant, is_active};

use super::frame::FrameKind;
use super::reader::{Damage, Ending, LogReader, SegmentPlace};
use super::segment::{self, LogBegin};
use super::{Log, LogSettings};
use crate::Identity;
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError};

/// What is written again at a time.
const WRITE_AGAIN_BYTES: usize = 1 << 20;

/// A record that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number.
    pub position: LogPosition,
    /// What the caller appended.
    pub payload: &'a [u8],
}

/// How the log that was recovered had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// A new log: nothing was on disk.
    New,
    /// Closed in order.
    Sealed,
    /// Not closed, nothing torn.
    Open,
    /// The last commit group never was durable; what was bad of it is cut off.
    Torn {
        /// The segment's file.
        file: String,
        /// Where the first bad record began.
        offset: u64,
        /// Bytes that were cut off.
        bytes: u64,
    },
}

/// What recovery comes to.
pub enum Recovered {
    /// The log goes on.
    Ready(Log, Tail),
    /// The log is damaged: what was read before is good, what lies behind is not known. It counts as amnesia.
    Damaged(DamagedLog),
}

/// A log that is being recovered.
pub struct Recovery {
    reader: LogReader,
    settings: LogSettings,
}

impl Recovery {
    /// Begins to recover the log of `identity`, or to make a new one.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open(
        disk: Box<dyn Disk>,
        identity: Identity,
        settings: LogSettings,
    ) -> Result<Self, StorageError> {
        Ok(Self { reader: LogReader::open(disk, identity)?, settings })
    }

    /// The next record, oldest first.
    ///
    /// # Errors
    /// A segment of another cluster, replica or format.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, StorageError> {
        loop {
            let Some(entry) = self.reader.next_entry()? else { return Ok(None) };
            if entry.kind == FrameKind::Record {
                break;
            }
        }
        Ok(self.reader.current().map(|entry| Record { position: entry.position, payload: entry.payload }))
    }

    /// Whether all of it is read, and there was no log at all.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.reader.ending(), Some(Ending::Absent))
    }

    /// Segments that were begun to be read, and those that there are.
    #[must_use]
    pub fn segments(&self) -> (usize, usize) {
        self.reader.segments()
    }

    /// Reads what is left, cuts a torn tail, and opens the log for appending.
    ///
    /// # Errors
    /// The disk refused, or has no room for a segment; or a file of another cluster, replica or format.
    pub fn finish(mut self) -> Result<Recovered, StorageError> {
        while self.reader.next_entry()?.is_some() {}
        let tail = match self.reader.ending().cloned() {
            Some(Ending::Absent) | None => Tail::New,
            Some(Ending::Sealed) => Tail::Sealed,
            Some(Ending::Open) => Tail::Open,
            Some(Ending::Torn { file, offset, bytes }) => Tail::Torn { file, offset, bytes },
            Some(Ending::Damaged(damage)) if is_active(Mutant::LogCutAtDamage) => {
                Tail::Torn { file: damage.file, offset: damage.offset, bytes: 0 }
            }
            Some(Ending::Damaged(damage)) => {
                let Self { reader, settings } = self;
                return Ok(Recovered::Damaged(DamagedLog { reader, settings, damage }));
            }
        };
        let log = self.go_on(&tail)?;
        Ok(Recovered::Ready(log, tail))
    }

    fn go_on(self, tail: &Tail) -> Result<Log, StorageError> {
        let progress = self.reader.progress();
        let parts = self.reader.into_parts();
        // Where the log begins may have been renamed just before a crash: it must not be lost once they are gone.
        if !parts.leftovers.is_empty() {
            parts.disk.sync_directory().on(DiskOperation::SyncDirectory, ".")?;
        }
        for name in &parts.leftovers {
            parts.disk.remove(name).on(DiskOperation::Remove, name)?;
        }
        // A crash may have come between the two files that make a log.
        if !parts.has_begin && parts.scan.is_some() {
            LogBegin::START.write(parts.disk.as_ref(), &parts.identity)?;
        }
        let segments: VecDeque<SegmentPlace> = parts.visited.into();
        let Some(scan) = parts.scan else {
            return Log::create(parts.disk, parts.identity, self.settings, LogBegin::START);
        };
        let is_torn = match tail {
            Tail::Torn { .. } => true,
            Tail::New | Tail::Sealed | Tail::Open => false,
        };
        let header = scan.header;
        let offset = scan.offset;
        let mut log =
            Log::resume(parts.disk, parts.identity, self.settings, segments, header, offset, progress);
        let mut file = scan.into_file();
        // What a killed process had written may stand in the page cache alone: from here on it counts as durable. After
        // a sync that failed the system takes it for clean, and a further sync would do nothing: it is written again.
        write_again(file.as_mut(), offset).on(DiskOperation::Write, &segment::name(header.segment))?;
        file.sync().on(DiskOperation::Sync, &segment::name(header.segment))?;
        log.take_file(file);
        log.disk().sync_directory().on(DiskOperation::SyncDirectory, ".")?;
        // A group of which only a beginning was found must end there for good: the next segment's header says so.
        if is_torn || !progress.is_ended {
            for segment in parts.segments.iter().filter(|segment| **segment > header.segment) {
                let name = segment::name(*segment);
                log.disk().remove(&name).on(DiskOperation::Remove, &name)?;
            }
            log.begin_segment()?;
        }
        Ok(log)
    }
}

/// Writes the first `length` bytes of a file once more, as they are.
fn write_again(file: &mut dyn DiskFile, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; WRITE_AGAIN_BYTES];
    let mut offset = 0;
    while offset < length {
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let end = left.min(buffer.len());
        let Some(piece) = buffer.get_mut(..end) else { break };
        let count = file.read_at(offset, piece)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        file.write_at(offset, read)?;
        offset = offset.saturating_add(count as u64);
    }
    Ok(())
}

/// A log that must not be appended to.
pub struct DamagedLog {
    reader: LogReader,
    settings: LogSettings,
    damage: Damage,
}

impl DamagedLog {
    /// The first bad place.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// The last good record before it.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.reader.last()
    }

    /// Sets the damaged log aside and begins an empty one, whose records are numbered on from `first`.
    ///
    /// The files stay for a look at them, under names that begin with `damaged-`, until the new log is cut. Only
    /// for a replica that counts as an amnesiac from now on [RECOVER-2], or has installed all that the log held.
    ///
    /// # Errors
    /// The disk refused, or is full.
    pub fn begin_anew(self, first: LogPosition) -> Result<Log, StorageError> {
        let highest = self.reader.highest_segment();
        let parts = self.reader.into_parts();
        let disk = parts.disk;
        for name in disk.list().on(DiskOperation::List, ".")? {
            if segment::is_draft(&name) {
                disk.remove(&name).on(DiskOperation::Remove, &name)?;
            }
        }
        let segment = highest.saturating_add(1);
        let begin = LogBegin { segment, first: first.max(LogPosition(1)) };
        let log = Log::create(disk, parts.identity, self.settings, begin)?;
        // Only now is the old log no longer the log; one that is forgotten here goes at the next start.
        for name in parts.segments.into_iter().map(segment::name).chain(parts.leftovers) {
            if !segment::is_draft(&name) {
                let aside = format!("{}{name}", segment::DAMAGED);
                log.disk().rename(&name, &aside).on(DiskOperation::Rename, &name)?;
            }
        }
        log.disk().sync_directory().on(DiskOperation::SyncDirectory, ".")?;
        Ok(log)
    }
}
