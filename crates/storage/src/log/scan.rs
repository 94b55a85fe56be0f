//! Reads one segment, frame by frame, and what lies behind its last good frame.
//!
//! Memory is one window of the file, larger only for a record that is. Nothing is handed out before its chain hash
//! is verified.

use std::io;
use std::ops::Range;

use regency_protocol::ids::LogPosition;

use super::frame::{ALIGNMENT, ChainHash, FrameHeader, FrameKind, HEADER_BYTES};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKey};
use crate::Identity;
use crate::disk::DiskFile;

/// Bytes that are read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// Bytes that are skipped at once where they are zero.
const PAGE_BYTES: usize = 4096;

/// How far a log is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last record.
    pub(crate) position: LogPosition,
    /// Its commit group.
    pub(crate) commit: u64,
    /// Whether that group is complete.
    pub(crate) is_ended: bool,
    /// Its chain hash.
    pub(crate) chain: ChainHash,
}

impl Progress {
    /// Before the first record that a segment may hold.
    pub(crate) fn before(header: &SegmentHeader) -> Self {
        Self { position: header.first.previous(), commit: header.commit, is_ended: true, chain: header.chain }
    }

    /// Whether a segment with this header is the one that continues from here.
    pub(crate) fn leads_to(&self, header: &SegmentHeader) -> bool {
        self.position.next() == header.first && self.commit == header.commit && self.chain == header.chain
    }

    /// The commit group that a frame here must belong to.
    fn next_commit(&self) -> u64 {
        self.commit.saturating_add(u64::from(self.is_ended))
    }
}

/// A good frame, and where its payload is in the window.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) chain: ChainHash,
    payload: Range<usize>,
}

/// What lies behind the last good frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Zeros.
    Empty,
    /// What a crash may leave of the last commit group: so many bytes until the last that is not zero.
    Torn { bytes: u64 },
    /// A frame here proves that what is bad before it was durable.
    Contradicted { by: u64 },
}

/// A segment that is being read.
pub(crate) struct SegmentScan {
    file: Box<dyn DiskFile>,
    file_bytes: u64,
    pub(crate) header: SegmentHeader,
    key: SegmentKey,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    pub(crate) progress: Progress,
    window: Vec<u8>,
    window_offset: u64,
}

impl SegmentScan {
    /// The segment with this header.
    pub(crate) fn new(
        file: Box<dyn DiskFile>,
        identity: &Identity,
        header: SegmentHeader,
    ) -> io::Result<Self> {
        Ok(Self {
            file_bytes: file.length()?.min(header.capacity),
            file,
            key: SegmentKey::new(identity, header.segment, &header.salt),
            offset: SEGMENT_HEADER_BYTES as u64,
            progress: Progress::before(&header),
            header,
            window: Vec::new(),
            window_offset: 0,
        })
    }

    /// Whether the file is shorter than it was made.
    pub(crate) fn is_short(&self) -> bool {
        self.file_bytes < self.header.capacity
    }

    /// Bytes of the file that can be read.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The file, for writing on.
    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }

    /// The next frame; nothing where the next bytes are not one.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let key = self.key.clone();
        let Some(bytes) = self.window(self.offset, HEADER_BYTES)? else { return Ok(None) };
        let Some((header, chain)) = bytes.get(..).and_then(|bytes| FrameHeader::decode(bytes, &key)) else {
            return Ok(None);
        };
        let position = match header.kind {
            FrameKind::Record => self.progress.position.next(),
            FrameKind::Seal => self.progress.position,
        };
        if header.offset != self.offset
            || header.position != position
            || header.commit != self.progress.next_commit()
        {
            return Ok(None);
        }
        let frame_bytes = HEADER_BYTES.saturating_add(header.length as usize);
        let previous = self.progress.chain;
        let Some(bytes) = self.window(self.offset, frame_bytes)? else { return Ok(None) };
        let payload = bytes.get(HEADER_BYTES..frame_bytes).unwrap_or_default();
        if header.chain(previous, payload) != chain {
            return Ok(None);
        }
        let begin = usize::try_from(self.offset.saturating_sub(self.window_offset)).unwrap_or(usize::MAX);
        let payload = begin.saturating_add(HEADER_BYTES)..begin.saturating_add(frame_bytes);
        self.offset = self.offset.saturating_add(header.frame_bytes());
        self.progress = Progress { position, commit: header.commit, is_ended: header.is_last, chain };
        Ok(Some(Frame { header, chain, payload }))
    }

    /// The payload of the frame that `next_frame` returned last.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        self.window.get(frame.payload.clone()).unwrap_or_default()
    }

    /// What lies behind the last good frame.
    ///
    /// A crash leaves of the commit group that was being written any of its blocks, in any order; never anything of
    /// a group behind it, for that one begins only when all before is durable; and never a frame elsewhere than
    /// where it says that it belongs.
    pub(crate) fn rest(&mut self) -> io::Result<Rest> {
        let key = self.key.clone();
        let group = self.progress.next_commit();
        let begin = self.offset;
        let mut at = begin;
        let mut end = begin;
        while at < self.file_bytes {
            let left = self.file_bytes.saturating_sub(at);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            let Some(bytes) = self.window(at, length)? else { break };
            // The last bytes are looked at again with what follows them: a header may begin in them.
            let is_last = length as u64 == left;
            let steps = if is_last { length } else { length.saturating_sub(PAGE_BYTES) };
            let mut page = 0usize;
            while page < steps {
                let page_end = page.saturating_add(PAGE_BYTES).min(length);
                let inside = bytes.get(page..page_end).unwrap_or_default();
                if let Some(last) = inside.iter().rposition(|byte| *byte != 0) {
                    end = at.saturating_add(page as u64).saturating_add(last as u64).saturating_add(1);
                    if let Some(by) = contradiction(bytes, page..page_end, at, group, &key) {
                        return Ok(Rest::Contradicted { by });
                    }
                }
                page = page_end;
            }
            at = at.saturating_add(page as u64);
        }
        let bytes = end.saturating_sub(begin);
        Ok(if bytes == 0 { Rest::Empty } else { Rest::Torn { bytes } })
    }

    /// `length` bytes from `offset` on and maybe more; nothing if the segment has not as many.
    fn window(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(length as u64).filter(|end| *end <= self.file_bytes) else {
            return Ok(None);
        };
        let window_end = self.window_offset.saturating_add(self.window.len() as u64);
        if offset < self.window_offset || end > window_end {
            let left = usize::try_from(self.file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            let wanted = left.min(WINDOW_BYTES.max(length));
            self.window.clear();
            if self.window.capacity() > wanted.max(WINDOW_BYTES) {
                self.window.shrink_to(wanted.max(WINDOW_BYTES));
            }
            self.window.resize(wanted, 0);
            self.window_offset = offset;
            // A file that became shorter meanwhile reads as zeros, which are no frame.
            self.file.read_at(offset, &mut self.window)?;
        }
        let begin = usize::try_from(offset.saturating_sub(self.window_offset)).unwrap_or(usize::MAX);
        Ok(self.window.get(begin..))
    }
}

/// Where in `places` of `bytes`, which stand at `at`, a frame begins that a crash cannot have left.
fn contradiction(bytes: &[u8], places: Range<usize>, at: u64, group: u64, key: &SegmentKey) -> Option<u64> {
    places.step_by(ALIGNMENT as usize).find_map(|place| {
        let (header, _) = FrameHeader::decode(bytes.get(place..)?, key)?;
        let offset = at.saturating_add(place as u64);
        (header.commit > group || header.offset != offset).then_some(offset)
    })
}
