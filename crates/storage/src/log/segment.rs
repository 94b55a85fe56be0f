//! A segment's name and header, and the file that says where the log begins.
//!
//! A segment gets its name only when its header and its room are durable, and only when every record before it is:
//! so a bad segment header is damage, never a torn write, and whatever is bad in a segment that is not the last one
//! is damage too.

use bytes::{Buf, BufMut};
use regency_protocol::ids::LogPosition;

use super::frame::ChainHash;
use super::spare::{self, Spare};
use crate::Identity;
use crate::block::{self, Refusal, truncated};
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskOperation, OnFile, StorageError};

/// Bytes of a segment before its first record: a page of its own, so that no record's write touches the header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// The file that says where the log begins.
pub(crate) const BEGIN_FILE: &str = "log-begin";
/// How the names of segments begin that were set aside because they are damaged.
pub(crate) const DAMAGED: &str = "damaged-";
/// A file of zeros that can become a segment.
pub(crate) const SPARE_FILE: &str = "log-spare.draft";
/// How the name of a file that is not complete ends.
pub(crate) const DRAFT: &str = ".draft";

const SEGMENT_MAGIC: &[u8; 8] = b"rgnlogsg";
const BEGIN_MAGIC: &[u8; 8] = b"rgnlogbg";
const BEGIN_BYTES: usize = 128;
const PREFIX: &str = "log-";
const DIGITS: usize = 12;
const CHECK_KEY: &[u8; 32] = b"regency 1 log segment key.......";

/// The file of a segment.
pub(crate) fn name(segment: u64) -> String {
    format!("{PREFIX}{segment:0DIGITS$}")
}

/// The segment that a file is, if it is one.
pub(crate) fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Whether a file is a draft that the log began and did not complete.
pub(crate) fn is_draft(file: &str) -> bool {
    let is_of_log = |name: &str| name == BEGIN_FILE || number(name).is_some();
    file == SPARE_FILE || file.strip_suffix(DRAFT).is_some_and(is_of_log)
}

/// What proves that a record's header was written for this segment.
#[derive(Clone)]
pub(crate) struct SegmentKey([u8; 32]);

impl SegmentKey {
    pub(crate) fn new(identity: &Identity, segment: u64, salt: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(CHECK_KEY);
        hasher.update(&identity.cluster.0);
        hasher.update(&identity.replica.0.to_le_bytes());
        hasher.update(&segment.to_le_bytes());
        hasher.update(salt);
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn check(&self, bytes: &[u8]) -> [u8; 8] {
        truncated(blake3::keyed_hash(&self.0, bytes))
    }
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Its number: 1, 2, … without gaps.
    pub(crate) segment: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
    /// The number of the first record that may stand in it.
    pub(crate) first: LogPosition,
    /// The last commit group before it.
    pub(crate) commit: u64,
    /// The chain hash of the last record before it.
    pub(crate) chain: ChainHash,
    /// Makes the headers of its records unforgeable for those who cannot read it.
    pub(crate) salt: [u8; 16],
}

impl SegmentHeader {
    pub(crate) fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut content = Vec::new();
        content.put_u64_le(self.segment);
        content.put_u64_le(self.capacity);
        content.put_u64_le(self.first.0);
        content.put_u64_le(self.commit);
        content.put_slice(&self.chain.0);
        content.put_slice(&self.salt);
        block::seal(SEGMENT_MAGIC, identity, &content, SEGMENT_HEADER_BYTES)
    }

    pub(crate) fn decode(identity: &Identity, bytes: &[u8], file: &str) -> Result<Self, Refusal> {
        let content = block::open(SEGMENT_MAGIC, identity, bytes, file)?;
        Self::fields(content).ok_or(Refusal::Damaged)
    }

    fn fields(mut content: &[u8]) -> Option<Self> {
        let segment = content.try_get_u64_le().ok()?;
        let capacity = content.try_get_u64_le().ok()?;
        let first = LogPosition(content.try_get_u64_le().ok()?);
        let commit = content.try_get_u64_le().ok()?;
        let (chain, content) = content.split_first_chunk::<16>()?;
        let (salt, _) = content.split_first_chunk::<16>()?;
        Some(Self { segment, capacity, first, commit, chain: ChainHash(*chain), salt: *salt })
    }

    /// Makes the segment's file, durably, and opens it: of a spare if there is one.
    pub(crate) fn create(
        &self,
        disk: &dyn Disk,
        identity: &Identity,
        source: Source,
    ) -> Result<Box<dyn DiskFile>, StorageError> {
        let name = name(self.segment);
        let own_draft = format!("{name}{DRAFT}");
        let (mut file, draft) = match source {
            Source::Spare(spare) => (spare.into_file(), SPARE_FILE),
            Source::Filled => {
                let mut file = spare::reserve(disk, &own_draft, &name, self.capacity)?;
                spare::fill(file.as_mut(), 0, self.capacity).on(DiskOperation::Write, &own_draft)?;
                (file, own_draft.as_str())
            }
            Source::Reserved => (spare::reserve(disk, &own_draft, &name, self.capacity)?, own_draft.as_str()),
        };
        file.write_at(0, &self.encode(identity)).on(DiskOperation::Write, draft)?;
        file.sync().on(DiskOperation::Sync, draft)?;
        disk.rename(draft, &name).on(DiskOperation::Rename, draft)?;
        disk.sync_directory().on(DiskOperation::SyncDirectory, &name)?;
        Ok(file)
    }
}

/// What a segment's file is made of.
pub(crate) enum Source {
    /// A spare of the segment's size.
    Spare(Spare),
    /// A new file, filled with zeros at once.
    Filled,
    /// A new file whose room is reserved only.
    Reserved,
}

/// Where the log begins: what lies before was cut, and nothing that lies behind may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBegin {
    pub(crate) segment: u64,
    pub(crate) first: LogPosition,
}

impl LogBegin {
    /// The beginning of a new log.
    pub(crate) const START: Self = Self { segment: 1, first: LogPosition(1) };

    /// Writes it so that after a crash it is there in full, or the one before is.
    pub(crate) fn write(&self, disk: &dyn Disk, identity: &Identity) -> Result<(), StorageError> {
        let mut content = Vec::new();
        content.put_u64_le(self.segment);
        content.put_u64_le(self.first.0);
        let block = block::seal(BEGIN_MAGIC, identity, &content, BEGIN_BYTES);
        block::replace_file(disk, BEGIN_FILE, &block)
    }

    pub(crate) fn decode(identity: &Identity, bytes: &[u8]) -> Result<Self, Refusal> {
        let mut content = block::open(BEGIN_MAGIC, identity, bytes, BEGIN_FILE)?;
        let segment = content.try_get_u64_le().map_err(|_| Refusal::Damaged)?;
        let first = LogPosition(content.try_get_u64_le().map_err(|_| Refusal::Damaged)?);
        Ok(Self { segment, first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_one_form_are_segments() {
        assert_eq!(number(&name(17)), Some(17));
        assert_eq!(number("log-000000000017"), Some(17));
        for other in ["log-17", "log-begin", "log-+00000000017", "log-000000000017.draft", "x"] {
            assert_eq!(number(other), None, "{other}");
        }
        assert!(is_draft("log-000000000017.draft") && is_draft("log-begin.draft") && is_draft(SPARE_FILE));
        assert!(!is_draft("snapshot-1.draft") && !is_draft("log-begin"));
    }
}
