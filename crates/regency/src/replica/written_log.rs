//! A log that is written before anything that rests on it leaves, and synced later: durability `async`.
//!
//! The loop writes it itself: handing a record to another thread and waiting until it is written costs more than
//! the write. Another thread syncs about once a second.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use regency_protocol::codec::Wire;
use regency_protocol::ids::{LogPosition, ReplicaId};
use regency_protocol::record::Record;
use regency_storage::StorageError;
use regency_storage::log::Log;

use super::lazy_disk::Unsynced;
use super::room::Room;
use crate::failure::Failure;
use crate::metrics::Metrics;

/// How often what was written is synced.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// The log and the thread that syncs it.
pub(super) struct WrittenLog {
    log: Log,
    room: Room,
    metrics: Arc<Metrics>,
    scratch: Vec<u8>,
    waiting_bytes: usize,
    waiting_records: usize,
    cut: Option<LogPosition>,
    is_full: bool,
    unsynced: Unsynced,
    sync_failed: Arc<Mutex<Option<String>>>,
    /// Dropped, it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WrittenLog {
    /// Takes a log whose disk leaves the syncs to `unsynced`.
    pub(super) fn start(
        replica: ReplicaId,
        log: Log,
        unsynced: Unsynced,
        room: Room,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let (stop, stopped) = sync_channel(1);
        let sync_failed = Arc::new(Mutex::new(None));
        let (failed, disk) = (sync_failed.clone(), unsynced.clone());
        let sync = move || {
            while stopped.recv_timeout(SYNC_PERIOD) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = disk.sync() {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    return;
                }
            }
        };
        let thread =
            thread::Builder::new().name(format!("sync-{replica}")).spawn(sync).map_err(super::no_system)?;
        Ok(Self {
            log,
            room,
            metrics,
            scratch: Vec::new(),
            waiting_bytes: 0,
            waiting_records: 0,
            cut: None,
            is_full: false,
            unsynced,
            sync_failed,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Adds a record to what is written next.
    pub(super) fn append(&mut self, position: LogPosition, record: &Record) -> Result<(), StorageError> {
        self.scratch.clear();
        record.encode(&mut self.scratch);
        let appended = self.log.append(&self.scratch)?;
        assert_eq!(appended, position, "the log numbers as the core does");
        self.waiting_bytes += self.scratch.len();
        self.waiting_records += 1;
        Ok(())
    }

    /// Lets what follows go into a new segment; without room for one it stays in this one.
    pub(super) fn begin_segment(&mut self) -> Result<(), StorageError> {
        match self.log.begin_segment() {
            Err(StorageError::Full { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Cuts the log below `below` once everything before is written.
    pub(super) fn cut(&mut self, below: LogPosition) {
        self.cut = Some(below);
    }

    /// Writes everything that was added. What rests on it must stay back while there is no room.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        if self.waiting_records > 0 {
            self.is_full = !self.room.is_enough(&self.log)?;
            if self.is_full {
                return Ok(());
            }
            let begun = std::time::Instant::now();
            match self.log.commit() {
                Ok(_) => {
                    let time = begun.elapsed();
                    self.metrics.observe_commit(self.waiting_bytes, self.waiting_records, time);
                    (self.waiting_bytes, self.waiting_records) = (0, 0);
                }
                Err(StorageError::Full { .. }) => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        match self.cut.take() {
            Some(below) => self.log.cut(below),
            None => Ok(()),
        }
    }

    /// Whether the disk has too little room to go on.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The last record that is written.
    pub(super) fn written(&self) -> LogPosition {
        self.log.durable()
    }

    /// Why syncing failed, if it did.
    pub(super) fn sync_failure(&self) -> Option<String> {
        self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes everything durable and closes the log; its last record.
    pub(super) fn close(mut self) -> io::Result<LogPosition> {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has synced nothing, which is what comes now.
            let _ = thread.join();
        }
        // [LOG-1] What failed to sync is not tried again.
        if let Some(cause) = self.sync_failure() {
            return Err(io::Error::other(cause));
        }
        let last = self.log.close().map_err(io::Error::other)?;
        self.unsynced.sync()?;
        Ok(last)
    }
}
