//! The log: opaque records, numbered 1, 2, …, appended, committed in groups, cut from below.
//!
//! The caller's disk thread owns it. A record is durable when [`Log::commit`] has returned its number, and not
//! before. After a failed write or sync nothing is known of what is durable, so the log is dead and says so to
//! every later call; nothing is retried [LOG-1]. The layout is in docs/log-format.md.

mod frame;
mod reader;
mod recovery;
mod scan;
mod segment;
mod spare;

use std::collections::VecDeque;
use std::mem;

use regency_protocol::ids::LogPosition;
use regency_protocol::mutants::{Mutant, is_active};

pub use frame::{ChainHash, FrameKind};
pub use reader::{Damage, DamageCause, Ending, Entry, LogReader};
pub use recovery::{DamagedLog, Record, Recovered, Recovery, Tail};
pub use spare::Spare;

use crate::Identity;
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError};
use frame::{FrameHeader, HEADER_BYTES};
use reader::SegmentPlace;
use scan::Progress;
use segment::{LogBegin, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKey, Source};

/// The longest record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Room for records that is kept between commits.
const BUFFER_BYTES_KEPT: usize = 1 << 20;
/// The smallest segment.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes of a segment; one is larger if its first record is.
    pub segment_bytes: u64,
    /// Bytes of a segment that is begun while there is no [`Spare`]: such a one is filled with zeros at once. With
    /// none it is as large as others, and its room is reserved only.
    pub filled_bytes: Option<u64>,
    /// Something that those who send requests cannot know: recovery then cannot be led to take their bytes for
    /// records. Need not be the same from start to start.
    pub salt: [u8; 16],
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, filled_bytes: None, salt: [0; 16] }
    }
}

impl LogSettings {
    fn bytes_without_spare(&self) -> u64 {
        self.filled_bytes.unwrap_or(self.segment_bytes)
    }

    fn source_without_spare(&self) -> Source {
        self.filled_bytes.map_or(Source::Reserved, |_| Source::Filled)
    }
}

/// An open log.
pub struct Log {
    disk: Box<dyn Disk>,
    identity: Identity,
    settings: LogSettings,
    /// The segments that exist, oldest first.
    segments: VecDeque<SegmentPlace>,
    /// The newest of them.
    file: Option<Box<dyn DiskFile>>,
    file_name: String,
    /// Where the next frame goes when all that is buffered is written.
    cursor: Cursor,
    /// What is buffered, in the order in which it is written.
    runs: VecDeque<Run>,
    /// The newest frame, whose header waits to know whether it ends its group.
    pending: Option<Pending>,
    /// The room of a run that was written, for the next one.
    buffer: Vec<u8>,
    /// What the next segment is made of.
    spare: Option<Spare>,
    durable: LogPosition,
    state: State,
}

/// Whether the log can be written.
enum State {
    Open,
    Dead(StorageError),
}

/// The place of the next frame.
struct Cursor {
    segment: u64,
    key: SegmentKey,
    capacity: u64,
    offset: u64,
    progress: Progress,
}

/// Frames that stand together in one segment and become durable together.
struct Run {
    /// The segment that is created for them, and the spare that it is made of.
    begins: Option<(SegmentHeader, Option<Spare>)>,
    offset: u64,
    bytes: Vec<u8>,
    last: LogPosition,
    /// Whether more frames may follow in it.
    is_open: bool,
}

/// A frame whose header is not written into its run yet.
struct Pending {
    header: FrameHeader,
    /// Where in the newest run it begins.
    at: usize,
}

impl Log {
    /// Recovers the log of `identity`, or makes a new one; `visit` sees every record, oldest first.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when the log is damaged; [`Recovery`] tells what can be done about it. Otherwise as
    /// [`Recovery::finish`].
    pub fn open(
        disk: Box<dyn Disk>,
        identity: Identity,
        settings: LogSettings,
        visit: &mut dyn FnMut(LogPosition, &[u8]),
    ) -> Result<(Self, Tail), StorageError> {
        let mut recovery = Recovery::open(disk, identity, settings)?;
        while let Some(record) = recovery.next_record()? {
            visit(record.position, record.payload);
        }
        match recovery.finish()? {
            Recovered::Ready(log, tail) => Ok((log, tail)),
            Recovered::Damaged(damaged) => Err(StorageError::Damaged(damaged.damage().clone())),
        }
    }

    /// Appends a record to what the next commit writes, and returns its number.
    ///
    /// # Errors
    /// A record that is too long, or an earlier failure.
    pub fn append(&mut self, record: &[u8]) -> Result<LogPosition, StorageError> {
        self.check()?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(StorageError::TooLong { bytes: record.len(), bytes_max: RECORD_BYTES_MAX });
        }
        self.push(FrameKind::Record, record);
        Ok(self.cursor.progress.position)
    }

    /// Makes all that was appended durable, and returns the last durable record's number.
    ///
    /// # Errors
    /// [`StorageError::Full`] when there is no room for a new segment: what is durable stays, what is not stays
    /// buffered, and a later commit tries again. Anything else is final.
    pub fn commit(&mut self) -> Result<LogPosition, StorageError> {
        self.check()?;
        self.end_group();
        while let Some(mut run) = self.runs.pop_front() {
            match self.write(&mut run) {
                Ok(()) => {
                    self.durable = self.durable.max(run.last);
                    self.keep_room(run.bytes);
                }
                Err(error @ StorageError::Full { .. }) => {
                    self.runs.push_front(run);
                    return Err(error);
                }
                Err(error) => {
                    self.state = State::Dead(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(self.durable)
    }

    /// Removes the segments of which all records are below `below`, durably, and what was set aside as damaged.
    ///
    /// # Errors
    /// The disk refused: the log is dead.
    pub fn cut(&mut self, below: LogPosition) -> Result<(), StorageError> {
        self.check()?;
        let below = below.min(self.durable.next());
        // A segment ends where the next one begins; the newest one stays.
        let ends = self.segments.iter().skip(1).map(|next| next.first);
        let count = ends.take_while(|end| *end <= below).count();
        let outcome = self.remove_oldest(count);
        if let Err(error) = &outcome {
            self.state = State::Dead(error.clone());
        }
        outcome
    }

    /// Commits, and seals the log: damage of its last records is from now on told from a torn tail.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn close(mut self) -> Result<LogPosition, StorageError> {
        self.commit()?;
        self.push(FrameKind::Seal, &[]);
        self.commit()
    }

    /// How it is written.
    #[must_use]
    pub fn settings(&self) -> LogSettings {
        self.settings
    }

    /// The last durable record.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.durable
    }

    /// The last record that was appended.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.cursor.progress.position
    }

    /// The oldest record that is kept; one above the last if there is none.
    #[must_use]
    pub fn first(&self) -> LogPosition {
        self.segments.front().map_or(LogPosition(1), |place| place.first)
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Bytes that can still be written on the disk.
    ///
    /// # Errors
    /// The disk does not say.
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        self.disk.free_bytes().on(DiskOperation::Open, ".")
    }

    /// Gives it what the next segment is made of: one that is filled, and as large as segments are.
    pub fn keep_spare(&mut self, spare: Spare) {
        self.spare = Some(spare).filter(|spare| spare.is_filled());
    }

    /// Whether it has what the next segment is made of.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// A log that has its first segment and nothing in it.
    pub(crate) fn create(
        disk: Box<dyn Disk>,
        identity: Identity,
        settings: LogSettings,
        begin: LogBegin,
    ) -> Result<Self, StorageError> {
        let header = SegmentHeader {
            segment: begin.segment,
            capacity: segment_capacity(settings.bytes_without_spare(), 0),
            first: begin.first,
            commit: 0,
            chain: ChainHash::default(),
            salt: settings.salt,
        };
        let file = header.create(disk.as_ref(), &identity, settings.source_without_spare())?;
        begin.write(disk.as_ref(), &identity)?;
        let segments = VecDeque::from([SegmentPlace { segment: begin.segment, first: begin.first }]);
        let offset = SEGMENT_HEADER_BYTES as u64;
        let progress = Progress::before(&header);
        let mut log = Self::resume(disk, identity, settings, segments, header, offset, progress);
        log.take_file(file);
        Ok(log)
    }

    /// The log whose newest segment has this header, and is good up to `offset`.
    pub(crate) fn resume(
        disk: Box<dyn Disk>,
        identity: Identity,
        settings: LogSettings,
        segments: VecDeque<SegmentPlace>,
        header: SegmentHeader,
        offset: u64,
        progress: Progress,
    ) -> Self {
        Self {
            disk,
            identity,
            settings,
            segments,
            file: None,
            file_name: segment::name(header.segment),
            cursor: Cursor {
                segment: header.segment,
                key: SegmentKey::new(&identity, header.segment, &header.salt),
                capacity: header.capacity,
                offset,
                progress,
            },
            runs: VecDeque::new(),
            pending: None,
            buffer: Vec::new(),
            spare: None,
            durable: progress.position,
            state: State::Open,
        }
    }

    /// The newest segment's file.
    pub(crate) fn take_file(&mut self, file: Box<dyn DiskFile>) {
        self.file = Some(file);
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Commits, and begins a new segment at once.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn begin_segment(&mut self) -> Result<(), StorageError> {
        self.commit()?;
        self.next_segment(0);
        self.commit().map(|_| ())
    }

    fn check(&self) -> Result<(), StorageError> {
        match &self.state {
            State::Open => Ok(()),
            State::Dead(error) => Err(error.clone()),
        }
    }

    /// Appends a frame to the newest run.
    fn push(&mut self, kind: FrameKind, payload: &[u8]) {
        let frame_bytes = frame::frame_bytes(payload.len() as u64);
        let end = self.cursor.offset.saturating_add(frame_bytes);
        if end > self.cursor.capacity {
            self.end_group();
            self.next_segment(frame_bytes);
        }
        self.finish_pending(false);
        let cursor = &mut self.cursor;
        let progress = &mut cursor.progress;
        if progress.is_ended {
            progress.commit = progress.commit.saturating_add(1);
            progress.is_ended = false;
        }
        if kind == FrameKind::Record {
            progress.position = progress.position.next();
        }
        let header = FrameHeader {
            // A record's length was checked against a limit far below this type's.
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            kind,
            is_last: false,
            position: progress.position,
            commit: progress.commit,
            offset: cursor.offset,
        };
        if self.runs.back().is_none_or(|run| !run.is_open) {
            self.runs.push_back(Run::new(None, cursor.offset, mem::take(&mut self.buffer)));
        }
        cursor.offset = cursor.offset.saturating_add(frame_bytes);
        if let Some(run) = self.runs.back_mut() {
            let at = run.bytes.len();
            let end = at.saturating_add(usize::try_from(frame_bytes).unwrap_or(usize::MAX));
            run.bytes.reserve(end.saturating_sub(at));
            run.bytes.resize(at.saturating_add(HEADER_BYTES), 0);
            run.bytes.extend_from_slice(payload);
            run.bytes.resize(end, 0);
            run.last = progress.position;
            self.pending = Some(Pending { header, at });
        }
    }

    /// Writes the newest frame's header into its run.
    fn finish_pending(&mut self, is_last: bool) {
        let (Some(mut pending), Some(run)) = (self.pending.take(), self.runs.back_mut()) else { return };
        pending.header.is_last = is_last;
        let begin = pending.at.saturating_add(HEADER_BYTES);
        let end = begin.saturating_add(pending.header.length as usize);
        let payload = run.bytes.get(begin..end).unwrap_or_default();
        let chain = pending.header.chain(self.cursor.progress.chain, payload);
        let header = pending.header.encode(chain, &self.cursor.key);
        if let Some(place) = run.bytes.get_mut(pending.at..begin) {
            place.copy_from_slice(&header);
        }
        self.cursor.progress.chain = chain;
    }

    /// Ends the commit group: what is appended from now on belongs to the next one.
    fn end_group(&mut self) {
        self.finish_pending(true);
        self.cursor.progress.is_ended = true;
        if let Some(run) = self.runs.back_mut() {
            run.is_open = false;
        }
    }

    /// Lets the next frames, `bytes` of them at least, go into a new segment.
    fn next_segment(&mut self, bytes: u64) {
        let progress = &self.cursor.progress;
        // One that is too small for what comes stays for another segment.
        let spare = self.spare.take_if(|spare| segment_capacity(spare.bytes(), bytes) == spare.bytes());
        let usual = spare.as_ref().map_or(self.settings.bytes_without_spare(), Spare::bytes);
        let header = SegmentHeader {
            segment: self.cursor.segment.saturating_add(1),
            capacity: segment_capacity(usual, bytes),
            first: progress.position.next(),
            commit: progress.commit,
            chain: progress.chain,
            salt: self.settings.salt,
        };
        let offset = SEGMENT_HEADER_BYTES as u64;
        self.runs.push_back(Run::new(Some((header, spare)), offset, mem::take(&mut self.buffer)));
        self.cursor = Cursor {
            segment: header.segment,
            key: SegmentKey::new(&self.identity, header.segment, &header.salt),
            capacity: header.capacity,
            offset,
            progress: Progress { is_ended: true, ..*progress },
        };
    }

    /// Makes one run durable.
    fn write(&mut self, run: &mut Run) -> Result<(), StorageError> {
        if let Some((header, spare)) = &mut run.begins {
            let source = spare.take().map_or(self.settings.source_without_spare(), Source::Spare);
            // All that the segment before holds is durable by now: its run was written and synced first.
            self.file = Some(header.create(self.disk.as_ref(), &self.identity, source)?);
            self.file_name = segment::name(header.segment);
            self.segments.push_back(SegmentPlace { segment: header.segment, first: header.first });
        }
        let Some(file) = self.file.as_mut().filter(|_| !run.bytes.is_empty()) else { return Ok(()) };
        file.write_at(run.offset, &run.bytes).on(DiskOperation::Write, &self.file_name)?;
        let mut synced = file.sync();
        if is_active(Mutant::FailedSyncRetried) && synced.is_err() {
            synced = file.sync();
        }
        synced.on(DiskOperation::Sync, &self.file_name)
    }

    /// Keeps a written run's room, unless it has grown large.
    fn keep_room(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= BUFFER_BYTES_KEPT {
            bytes.clear();
            self.buffer = bytes;
        }
    }

    fn remove_oldest(&mut self, count: usize) -> Result<(), StorageError> {
        let aside: Vec<String> = self
            .disk
            .list()
            .on(DiskOperation::List, ".")?
            .into_iter()
            .filter(|name| name.starts_with(segment::DAMAGED))
            .collect();
        let Some(begin) = self.segments.get(count).filter(|_| count > 0 || !aside.is_empty()) else {
            return Ok(());
        };
        let begin = LogBegin { segment: begin.segment, first: begin.first };
        // First the word that they may be missing, then they.
        if count > 0 {
            begin.write(self.disk.as_ref(), &self.identity)?;
        }
        let cut = self.segments.drain(..count).map(|place| segment::name(place.segment));
        for name in cut.chain(aside) {
            self.disk.remove(&name).on(DiskOperation::Remove, &name)?;
        }
        self.disk.sync_directory().on(DiskOperation::SyncDirectory, ".")
    }
}

impl Run {
    fn new(begins: Option<(SegmentHeader, Option<Spare>)>, offset: u64, bytes: Vec<u8>) -> Self {
        Self { begins, offset, bytes, last: LogPosition(0), is_open: true }
    }
}

/// Bytes of a segment whose first frame has `frame_bytes`.
fn segment_capacity(usual: u64, frame_bytes: u64) -> u64 {
    usual.max(frame_bytes.saturating_add(SEGMENT_HEADER_BYTES as u64)).max(SEGMENT_BYTES_MIN)
}
