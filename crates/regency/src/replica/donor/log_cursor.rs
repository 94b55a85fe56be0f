//! Reads decided batches out of this replica's log, range after range, without beginning anew for each [ST-3].
//!
//! The log is written meanwhile. What was read is a record and true; where reading ends says nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{Digest, InstanceId, LogPosition};
use regency_protocol::limits::{RANGE_BYTES_MAX, RANGE_MAX};
use regency_protocol::record::{Record, RecordedBatch};
use regency_storage::log::{FrameKind, LogReader};
use regency_storage::{Disk, Identity, StorageError};

/// Instances that a cursor reads over to get to a range; beyond it looking the place up is quicker.
const SKIPPED_MAX: u64 = 16 * RANGE_MAX;
/// Bytes of batches that a cursor remembers until it finds which of them are decided.
const REMEMBERED_BYTES_MAX: usize = 64 << 20;

/// A place in the log, and what was read before it and is not decided there.
pub(super) struct LogCursor {
    reader: LogReader,
    /// Records before it were written about other instances.
    begin: LogPosition,
    /// The instance whose decision comes next.
    next: InstanceId,
    batches: BTreeMap<(InstanceId, Digest), RecordedBatch>,
    bytes: usize,
    /// Whether nothing more can be read.
    is_over: bool,
}

impl LogCursor {
    /// A cursor before `from`, about which no record stands before `begin`.
    pub(super) fn open(
        disk: Box<dyn Disk>,
        identity: Identity,
        from: InstanceId,
        begin: LogPosition,
    ) -> Result<Self, StorageError> {
        let reader = LogReader::open_at(disk, identity, begin)?;
        Ok(Self { reader, begin, next: from, batches: BTreeMap::new(), bytes: 0, is_over: false })
    }

    /// Whether nothing more can be read.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether a range that begins with `from` is quickly reached from here.
    pub(super) fn is_before(&self, from: InstanceId) -> bool {
        let skipped = from.0.checked_sub(self.next.0);
        !self.is_over && skipped.is_some_and(|skipped| skipped <= SKIPPED_MAX)
    }

    /// The batches that were decided from `from` to `last`, or as many of them as one answer takes; none if the first
    /// is not to be found.
    pub(super) fn batches(
        &mut self,
        from: InstanceId,
        last: InstanceId,
    ) -> Result<Vec<RecordedBatch>, StorageError> {
        let last = last.min(from.plus(RANGE_MAX - 1));
        let mut found = Vec::new();
        let mut found_bytes = 0;
        self.next = from;
        while self.next <= last && found_bytes < RANGE_BYTES_MAX && !self.is_over {
            let Some((instance, digest)) = self.next_decision()? else { break };
            if instance < self.next {
                continue;
            }
            match self.batches.remove(&(instance, digest)).filter(|_| instance == self.next) {
                Some(recorded) => {
                    let bytes = bytes_of(&recorded);
                    self.bytes -= bytes;
                    found_bytes += bytes;
                    found.push(recorded);
                    self.next = instance.next();
                }
                // The log has a gap here, or the batch stands before the beginning.
                None => self.is_over = true,
            }
        }
        Ok(found)
    }

    /// Reads on to the next decision, and remembers the batches on the way.
    fn next_decision(&mut self) -> Result<Option<(InstanceId, Digest)>, StorageError> {
        while let Some(entry) = self.reader.next_entry()? {
            if entry.kind != FrameKind::Record || entry.position < self.begin {
                continue;
            }
            let Ok(record) = Record::decode(Bytes::copy_from_slice(entry.payload)) else { break };
            match record {
                Record::Batch(recorded) => {
                    if !self.remember(recorded) {
                        break;
                    }
                }
                Record::Decided { instance, digest, .. } => {
                    self.forget_below(instance);
                    return Ok(Some((instance, digest)));
                }
                Record::Stop { .. }
                | Record::Regency { .. }
                | Record::Write(_)
                | Record::Lock(_)
                | Record::Confirm(_)
                | Record::Certificate(_)
                | Record::Checkpoint(_)
                | Record::Bounds(_) => {}
            }
        }
        self.is_over = true;
        Ok(None)
    }

    /// Keeps a batch until its decision comes; false if there is no room.
    fn remember(&mut self, recorded: RecordedBatch) -> bool {
        if recorded.batch.instance < self.next {
            return true;
        }
        self.bytes += bytes_of(&recorded);
        let key = (recorded.batch.instance, recorded.batch.digest());
        if let Some(twice) = self.batches.insert(key, recorded) {
            self.bytes -= bytes_of(&twice);
        }
        self.bytes <= REMEMBERED_BYTES_MAX
    }

    /// What is below a decision was not decided.
    fn forget_below(&mut self, instance: InstanceId) {
        let kept = self.batches.split_off(&(instance, Digest([0; 32])));
        let gone = std::mem::replace(&mut self.batches, kept);
        self.bytes -= gone.values().map(bytes_of).sum::<usize>();
    }
}

/// Bytes of a batch's requests.
pub(super) fn bytes_of(recorded: &RecordedBatch) -> usize {
    recorded.requests.iter().map(|request| request.encoded().len()).sum()
}
