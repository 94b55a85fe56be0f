//! Reads a whole log, oldest record first, and judges how it ends.
//!
//! Changes nothing on disk; recovery, scrub and `regency log` all read through it. Nothing behind the first bad
//! byte is handed out [LOG-1].

use std::fmt;
use std::io::ErrorKind;

use regency_protocol::ids::LogPosition;

use super::frame::{ChainHash, FrameKind, frame_bytes};
use super::scan::{Frame, Progress, Rest, SegmentScan};
use super::segment::{self, BEGIN_FILE, LogBegin, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::Identity;
use crate::block::{self, Refusal};
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};

/// Longest file that says where the log begins.
const BEGIN_BYTES_MAX: usize = 4096;

/// Why a place in the log is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageCause {
    /// No record that was written here, although what comes later was.
    Record,
    /// The header of a file is not what was written.
    Header,
    /// A file that must be there is not, or one stands in its place that does not belong there.
    Missing,
    /// A file is shorter than it was made.
    Short,
    /// The disk refuses to read.
    Unreadable,
}

impl fmt::Display for DamageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "no valid record",
            Self::Header => "no valid header",
            Self::Missing => "missing, or another file in its place",
            Self::Short => "cut short",
            Self::Unreadable => "cannot be read",
        })
    }
}

/// The first bad place of a log, where no crash can have torn it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub file: String,
    /// Where in it the first bad record, or header, begins.
    pub offset: u64,
    /// The first record that cannot be read.
    pub first: LogPosition,
    /// What is bad.
    pub cause: DamageCause,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {} (record {}): {}", self.file, self.offset, self.first, self.cause)
    }
}

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is no log.
    Absent,
    /// It was closed in order.
    Sealed,
    /// It was not closed, and nothing is torn.
    Open,
    /// A commit group that never was durable is torn: from `offset` on, so many bytes.
    Torn {
        /// The segment's file.
        file: String,
        /// Where the first bad record begins.
        offset: u64,
        /// Bytes until the last one that is not zero.
        bytes: u64,
    },
    /// It is damaged.
    Damaged(Damage),
}

/// A frame of the log, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its segment.
    pub segment: u64,
    /// Where in the segment it begins.
    pub offset: u64,
    /// The record's number; for a seal the number of the record before.
    pub position: LogPosition,
    /// The commit group it was written in.
    pub commit: u64,
    /// What it holds.
    pub kind: FrameKind,
    /// The hash of it and of all before.
    pub chain: ChainHash,
    /// What the caller wrote.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes that it takes in its segment.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload.len() as u64)
    }
}

/// A segment that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPlace {
    pub(crate) segment: u64,
    /// The first record that may stand in it.
    pub(crate) first: LogPosition,
}

/// A log that is being read.
///
/// A log that is written and cut meanwhile can be read too, for a scrub or for another replica; see
/// [`open_at`](Self::open_at).
pub struct LogReader {
    disk: Box<dyn Disk>,
    identity: Identity,
    begin: Option<LogBegin>,
    /// The segments that are there, from the log's beginning on, oldest first.
    segments: Vec<u64>,
    /// Files that a crash left: drafts, and segments that were cut.
    leftovers: Vec<String>,
    visited: Vec<SegmentPlace>,
    scan: Option<SegmentScan>,
    /// The frame that was read last, and where it begins.
    current: Option<(u64, Frame)>,
    ending: Option<Ending>,
}

impl LogReader {
    /// Begins to read the log of `identity`.
    ///
    /// # Errors
    /// A log of another cluster, replica or format, and files that cannot even be listed and opened. Damage is no
    /// error here: [`ending`](Self::ending) tells it.
    pub fn open(disk: Box<dyn Disk>, identity: Identity) -> Result<Self, StorageError> {
        // First the names, then where the log begins: if it is cut in between so far that it begins with a segment that
        // was not there yet, nothing that was durable before is left.
        let names = disk.list().on(DiskOperation::List, ".")?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        segments.sort_unstable();
        let mut leftovers: Vec<String> = names.into_iter().filter(|name| segment::is_draft(name)).collect();
        let mut ending = None;
        let bad_begin = |cause| {
            let first = LogPosition(1);
            Some(Ending::Damaged(Damage { file: BEGIN_FILE.to_owned(), offset: 0, first, cause }))
        };
        let begin = match block::read_file(disk.as_ref(), BEGIN_FILE, BEGIN_BYTES_MAX) {
            Ok(None) => {
                // Only the very first segment is made before this file is.
                match segments.as_slice() {
                    [] => ending = Some(Ending::Absent),
                    [1] => {}
                    [..] => ending = bad_begin(DamageCause::Missing),
                }
                None
            }
            Ok(Some(bytes)) => match LogBegin::decode(&identity, &bytes) {
                Ok(begin) => Some(begin),
                Err(Refusal::Foreign(error)) => return Err(error),
                Err(Refusal::Damaged) => {
                    ending = bad_begin(DamageCause::Header);
                    None
                }
            },
            Err(StorageError::Disk { operation: DiskOperation::Read, .. }) => {
                ending = bad_begin(DamageCause::Unreadable);
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(begin) = begin {
            let cut = segments.partition_point(|segment| *segment < begin.segment);
            leftovers.extend(segments.drain(..cut).map(segment::name));
        }
        let visited = Vec::new();
        let (scan, current) = (None, None);
        Ok(Self { disk, identity, begin, segments, leftovers, visited, scan, current, ending })
    }

    /// Begins to read a log that is written and cut meanwhile, with the segment that holds the record `position`.
    ///
    /// Records before it in that segment come first, those of earlier segments are not looked at; the chain hash is
    /// checked from that segment on. All that was durable before this call is read as it was written, or not at all.
    /// Behind that there may be less than was written, and the ending means nothing.
    ///
    /// # Errors
    /// [`StorageError::Cut`] when the log begins behind `position`; otherwise as [`open`](Self::open).
    pub fn open_at(
        disk: Box<dyn Disk>,
        identity: Identity,
        position: LogPosition,
    ) -> Result<Self, StorageError> {
        let mut reader = Self::open(disk, identity)?;
        let Some(begin) = reader.begin else { return Ok(reader) };
        let position = position.max(LogPosition(1));
        if position < begin.first {
            return Err(StorageError::Cut { position });
        }
        let mut start = None;
        for (index, segment) in reader.segments.iter().enumerate().rev() {
            let first = reader.first_of(*segment)?;
            if let Some(first) = first.filter(|first| *first <= position) {
                start = Some((index, LogBegin { segment: *segment, first }));
                break;
            }
        }
        if let Some((index, begin)) = start {
            reader.segments.drain(..index);
            reader.begin = Some(begin);
        }
        Ok(reader)
    }

    /// The next frame; nothing at the end, of which [`ending`](Self::ending) then tells the kind.
    ///
    /// # Errors
    /// A segment of another cluster, replica or format, or one that cannot be opened; [`StorageError::Cut`] for one
    /// that was removed since the log was opened.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, StorageError> {
        let current = loop {
            if self.ending.is_some() {
                return Ok(None);
            }
            let Some(scan) = self.scan.as_mut() else {
                self.enter_segment()?;
                continue;
            };
            let offset = scan.offset;
            match scan.next_frame() {
                // Nothing is written before the file that says where the log begins.
                Ok(Some(_)) if self.begin.is_none() => {
                    self.damaged(BEGIN_FILE.to_owned(), 0, DamageCause::Missing);
                }
                Ok(Some(frame)) => break (offset, frame),
                Ok(None) => self.leave_segment()?,
                Err(_) => self.unreadable(),
            }
        };
        self.current = Some(current);
        Ok(self.current())
    }

    /// The frame that was read last.
    #[must_use]
    pub fn current(&self) -> Option<Entry<'_>> {
        let (offset, frame) = self.current.as_ref()?;
        Some(entry(self.scan.as_ref()?, *offset, frame))
    }

    /// How the log ends; nothing before all of it is read.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Segments that were begun to be read, and those that there are.
    #[must_use]
    pub fn segments(&self) -> (usize, usize) {
        (self.visited.len(), self.segments.len())
    }

    /// The last good record so far.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.progress().position
    }

    /// The number of the newest segment; 0 if there is none.
    pub(crate) fn highest_segment(&self) -> u64 {
        self.segments.last().copied().unwrap_or(0)
    }

    pub(crate) fn progress(&self) -> Progress {
        match (&self.scan, self.begin) {
            (Some(scan), _) => scan.progress,
            (None, begin) => Progress {
                position: begin.map_or(LogPosition(0), |begin| begin.first.previous()),
                commit: 0,
                is_ended: true,
                chain: ChainHash::default(),
            },
        }
    }

    /// The damage that all this comes to where more records had been durable than are there.
    pub(crate) fn loss(&self) -> Damage {
        let first = self.last().next();
        match (&self.ending, &self.scan) {
            (Some(Ending::Damaged(damage)), _) => damage.clone(),
            (_, Some(scan)) => {
                let file = segment::name(scan.header.segment);
                Damage { file, offset: scan.offset, first, cause: DamageCause::Record }
            }
            (_, None) => {
                Damage { file: BEGIN_FILE.to_owned(), offset: 0, first, cause: DamageCause::Missing }
            }
        }
    }

    /// The disk, for another reader.
    pub(crate) fn into_disk(self) -> Box<dyn Disk> {
        self.disk
    }

    /// What recovery needs to go on from here.
    pub(crate) fn into_parts(self) -> ReaderParts {
        ReaderParts {
            disk: self.disk,
            identity: self.identity,
            has_begin: self.begin.is_some(),
            segments: self.segments,
            leftovers: self.leftovers,
            visited: self.visited,
            scan: self.scan,
        }
    }

    /// The first record that may stand in a segment; nothing if its header does not tell, or it is gone.
    fn first_of(&self, segment: u64) -> Result<Option<LogPosition>, StorageError> {
        let name = segment::name(segment);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.on(DiskOperation::Open, &name)?,
        };
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        if file.read_at(0, &mut block).is_err() {
            return Ok(None);
        }
        match SegmentHeader::decode(&self.identity, &block, &name) {
            Ok(header) => Ok(Some(header.first).filter(|_| header.segment == segment)),
            Err(Refusal::Damaged) => Ok(None),
            Err(Refusal::Foreign(error)) => Err(error),
        }
    }

    /// Goes on in the next segment.
    fn enter_segment(&mut self) -> Result<(), StorageError> {
        let index = self.visited.len();
        let before = self.visited.last().map(|place| place.segment.saturating_add(1));
        let expected = before.or(self.begin.map(|begin| begin.segment)).unwrap_or(1);
        let name = segment::name(expected);
        if self.segments.get(index) != Some(&expected) {
            self.damaged(name, 0, DamageCause::Missing);
            return Ok(());
        }
        // Who may not open it has the wrong rights, or too many files; that says nothing of what is in it.
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StorageError::Cut { position: self.last().next() });
            }
            opened => opened.on(DiskOperation::Open, &name)?,
        };
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        if file.read_at(0, &mut block).is_err() {
            self.damaged(name, 0, DamageCause::Unreadable);
            return Ok(());
        }
        let header = match SegmentHeader::decode(&self.identity, &block, &name) {
            Ok(header) => header,
            Err(Refusal::Damaged) => {
                self.damaged(name, 0, DamageCause::Header);
                return Ok(());
            }
            Err(Refusal::Foreign(error)) => return Err(error),
        };
        let is_misplaced = header.segment != expected
            || (index == 0 && self.begin.is_some_and(|begin| begin.first != header.first));
        if is_misplaced {
            self.damaged(name, 0, DamageCause::Missing);
            return Ok(());
        }
        if let Some(scan) = &self.scan
            && !scan.progress.leads_to(&header)
        {
            let (file, offset) = (segment::name(scan.header.segment), scan.offset);
            self.damaged(file, offset, DamageCause::Record);
            return Ok(());
        }
        match SegmentScan::new(file, &self.identity, header) {
            Ok(scan) => {
                self.visited.push(SegmentPlace { segment: expected, first: header.first });
                self.scan = Some(scan);
            }
            Err(_) => self.damaged(name, 0, DamageCause::Unreadable),
        }
        Ok(())
    }

    /// The segment's good frames are read: the log goes on in the next one, or ends here.
    fn leave_segment(&mut self) -> Result<(), StorageError> {
        if self.visited.len() < self.segments.len() {
            return self.enter_segment();
        }
        let is_sealed = self.current.as_ref().is_some_and(|(_, frame)| frame.header.kind == FrameKind::Seal);
        let Some(scan) = self.scan.as_mut() else { return Ok(()) };
        let (file, offset) = (segment::name(scan.header.segment), scan.offset);
        let file_bytes = scan.file_bytes();
        if scan.is_short() {
            self.damaged(file, file_bytes, DamageCause::Short);
            return Ok(());
        }
        match scan.rest() {
            Err(_) => self.unreadable(),
            Ok(Rest::Contradicted { .. }) => self.damaged(file, offset, DamageCause::Record),
            Ok(Rest::Torn { bytes }) => self.ending = Some(Ending::Torn { file, offset, bytes }),
            Ok(Rest::Empty) if is_sealed => self.ending = Some(Ending::Sealed),
            Ok(Rest::Empty) => self.ending = Some(Ending::Open),
        }
        Ok(())
    }

    fn unreadable(&mut self) {
        if let Some(scan) = &self.scan {
            let (file, offset) = (segment::name(scan.header.segment), scan.offset);
            self.damaged(file, offset, DamageCause::Unreadable);
        }
    }

    fn damaged(&mut self, file: String, offset: u64, cause: DamageCause) {
        let first = self.last().next();
        self.ending = Some(Ending::Damaged(Damage { file, offset, first, cause }));
    }
}

/// What a reader has found, for recovery.
pub(crate) struct ReaderParts {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) identity: Identity,
    pub(crate) has_begin: bool,
    pub(crate) segments: Vec<u64>,
    pub(crate) leftovers: Vec<String>,
    pub(crate) visited: Vec<SegmentPlace>,
    pub(crate) scan: Option<SegmentScan>,
}

fn entry<'a>(scan: &'a SegmentScan, offset: u64, frame: &Frame) -> Entry<'a> {
    Entry {
        segment: scan.header.segment,
        offset,
        position: frame.header.position,
        commit: frame.header.commit,
        kind: frame.header.kind,
        chain: frame.chain,
        payload: scan.payload(frame),
    }
}
