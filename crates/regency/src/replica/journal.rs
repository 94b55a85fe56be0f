//! The log as the event loop sees it, whatever the cluster's durability.
//!
//! The loop adds the records of a turn, hands them over before anything of the turn leaves, and asks now and then
//! how far the log is. A failure here ends the replica [LOG-1].

use std::time::Instant;

use regency_protocol::ids::LogPosition;
use regency_protocol::record::Record;

use super::disk_thread::DiskThread;
use super::written_log::WrittenLog;
use crate::failure::{ErrorCode, Failure};

/// Where records go.
pub(super) enum Journal {
    /// Nowhere: the core makes none.
    None,
    /// To a thread that makes them durable.
    Sync(DiskThread),
    /// Into a log that is synced now and then.
    Async(Box<WrittenLog>),
}

/// Why the loop must take no input just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The disk is nearly full.
    Full,
    /// Too much waits for the disk.
    Behind,
}

impl Journal {
    /// Adds a record.
    pub(super) fn append(&mut self, position: LogPosition, record: &Record) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Sync(disk) => {
                disk.append(position, record);
                Ok(())
            }
            Self::Async(log) => log.append(position, record).map_err(|error| disk_failed(&error)),
        }
    }

    /// Lets what follows go into a new segment, so that what is damaged in the newest one can be cut off.
    pub(super) fn begin_segment(&mut self) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Sync(disk) => {
                disk.begin_segment();
                Ok(())
            }
            Self::Async(log) => log.begin_segment().map_err(|error| disk_failed(&error)),
        }
    }

    /// Cuts the log once everything that was added before is kept.
    pub(super) fn cut(&mut self, below: LogPosition) {
        match self {
            Self::None => {}
            Self::Sync(disk) => disk.cut(below),
            Self::Async(log) => log.cut(below),
        }
    }

    /// Hands over what was added, or what of it somebody waits for; with `async` it is written when this returns, unless there is an obstacle.
    pub(super) fn hand_over(&mut self) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Sync(disk) => {
                disk.hand_over();
                Ok(())
            }
            Self::Async(log) => log.write().map_err(|error| disk_failed(&error)),
        }
    }

    /// When to hand over what may wait until then.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Sync(disk) => disk.due(),
            Self::None | Self::Async(_) => None,
        }
    }

    /// The last durable record, where somebody waits for that, and what is in the way.
    pub(super) fn progress(&self) -> Result<(LogPosition, Option<Obstacle>), Failure> {
        match self {
            Self::None => Ok((LogPosition(0), None)),
            Self::Sync(disk) => {
                let progress = disk.progress().map_err(|error| disk_failed(&error))?;
                let obstacle = match (progress.is_full, progress.is_behind) {
                    (true, _) => Some(Obstacle::Full),
                    (false, true) => Some(Obstacle::Behind),
                    (false, false) => None,
                };
                Ok((progress.durable, obstacle))
            }
            Self::Async(log) => match log.sync_failure() {
                Some(cause) => Err(disk_failed(&cause)),
                None => Ok((LogPosition(0), log.is_full().then_some(Obstacle::Full))),
            },
        }
    }

    /// The last record that is written, as far as it is known here.
    pub(super) fn written(&self) -> LogPosition {
        match self {
            Self::None => LogPosition(0),
            Self::Sync(disk) => disk.durable(),
            Self::Async(log) => log.written(),
        }
    }

    /// Makes everything durable, and ends. The last record; nothing if that failed, or nothing is kept.
    pub(super) fn close(self) -> Option<LogPosition> {
        match self {
            Self::None => None,
            Self::Sync(disk) => disk.close(),
            Self::Async(log) => log.close().ok(),
        }
    }
}

/// The disk refused a write or a sync: what is on it is not known any more.
pub(super) fn disk_failed(cause: &impl std::fmt::Display) -> Failure {
    Failure::new(
        ErrorCode::DiskFailed,
        format!("the replica stopped because its disk failed ({cause})"),
        "check the disk, then start the replica again: it goes on from what is on it",
    )
}
