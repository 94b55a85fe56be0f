//! What the tests of the log share: an identity, small segments, records that tell their number, reading back.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod busy;

use std::ops::Deref;
use std::path::{Path, PathBuf};

use regency_protocol::ids::{ClusterId, ReplicaId};
use regency_storage::log::{Ending, Log, LogReader, LogSettings, Tail};
use regency_storage::{Disk, FaultyDisk, Identity, LogPosition, StorageError};

pub(crate) const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(2) };

pub(crate) fn settings() -> LogSettings {
    LogSettings { segment_bytes: 16 << 10, filled_bytes: None, salt: [5; 16] }
}

/// The record with this number: its length varies, its bytes tell the number.
pub(crate) fn record(number: u64) -> Vec<u8> {
    let length = 20 + (number * 397 % 1900) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length, (number % 251) as u8 + 1);
    bytes
}

pub(crate) fn open(disk: impl Disk + 'static) -> Result<(Log, Tail, u64), StorageError> {
    let mut last = None;
    let (log, tail) = Log::open(Box::new(disk), IDENTITY, settings(), &mut |position, payload| {
        assert_eq!(position.0, last.map_or(position.0, |last| last + 1), "dense");
        assert_eq!(payload, record(position.0), "record {position}");
        last = Some(position.0);
    })?;
    let last = last.unwrap_or(log.last().0);
    assert_eq!(log.last().0, last);
    Ok((log, tail, last))
}

/// Appends the records up to `last` and commits them as one group.
pub(crate) fn grow(log: &mut Log, last: u64) -> Result<LogPosition, StorageError> {
    while log.last().0 < last {
        let number = log.last().0 + 1;
        assert_eq!(log.append(&record(number))?, LogPosition(number));
    }
    log.commit()
}

/// Reads a log without changing it: the last good record and the ending. Every record is checked.
pub(crate) fn read(disk: impl Disk + 'static) -> Result<(u64, Ending), StorageError> {
    let mut reader = LogReader::open(Box::new(disk), IDENTITY)?;
    let mut expected = None;
    while let Some(entry) = reader.next_entry()? {
        if entry.kind == regency_storage::log::FrameKind::Record {
            assert_eq!(entry.position.0, expected.unwrap_or(entry.position.0), "dense");
            assert_eq!(entry.payload, record(entry.position.0));
            expected = Some(entry.position.0 + 1);
        }
    }
    Ok((reader.last().0, reader.ending().unwrap().clone()))
}

/// A disk with the log up to `last`, in groups of `group`.
pub(crate) fn log_of(last: u64, group: u64) -> (FaultyDisk, Log) {
    let disk = FaultyDisk::seeded(1);
    let (mut log, _, _) = open(disk.clone()).unwrap();
    let mut end = 0;
    while end < last {
        end = (end + group).min(last);
        grow(&mut log, end).unwrap();
    }
    (disk, log)
}

/// An empty directory of this test's own, removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("regency-storage-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Scratch(path)
}
