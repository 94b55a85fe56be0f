//! The thread that fills the log's next segment with zeros while the log goes on: durability `sync`.
//!
//! It takes one order at a time, writes a little, syncs it and rests as long as that took, so that the log's own syncs
//! wait for little, and leaves the disk's reserve alone. Where there is no room there is no spare, and the log makes do with smaller segments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use regency_protocol::ids::ReplicaId;
use regency_storage::log::{Log, LogSettings, Spare};
use regency_storage::{Disk, StorageError};

use crate::failure::Failure;

/// Bytes of a segment that is begun while there is no spare.
pub(super) const FILLED_BYTES: u64 = 4 << 20;
/// Bytes that are filled and synced at a time.
const STEP_BYTES: u64 = 1 << 20;
/// The longest rest after a step.
const REST_MAX: Duration = Duration::from_millis(100);
/// After a full disk there is no order for so long.
const FULL_WAIT: Duration = Duration::from_secs(10);

/// The log's end of the thread.
pub(super) struct Spares {
    orders: Option<SyncSender<()>>,
    made: Receiver<Result<Spare, StorageError>>,
    is_ordered: bool,
    not_before: Option<Instant>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Spares {
    /// A thread that fills spares on the log's disk and leaves `reserve_bytes` of it free.
    pub(super) fn start(
        replica: ReplicaId,
        disk: Box<dyn Disk>,
        settings: LogSettings,
        reserve_bytes: u64,
    ) -> Result<Self, Failure> {
        let (orders, ordered) = mpsc::sync_channel(1);
        let (sender, made) = mpsc::sync_channel(1);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let room = reserve_bytes.saturating_add(settings.segment_bytes);
        let worker = Worker {
            disk,
            bytes: settings.segment_bytes,
            room,
            is_stopped: is_stopped.clone(),
            made: sender,
        };
        let thread = thread::Builder::new()
            .name(format!("spare-{replica}"))
            .spawn(move || worker.run(&ordered))
            .map_err(super::no_system)?;
        let orders = Some(orders);
        Ok(Self { orders, made, is_ordered: false, not_before: None, is_stopped, thread: Some(thread) })
    }

    /// Gives the log its spare if it has none and one is ready; orders one if none is on its way.
    ///
    /// # Errors
    /// The disk refused to fill one: what it does with a log's writes next is not known either.
    pub(super) fn supply(&mut self, log: &mut Log) -> Result<(), StorageError> {
        if log.has_spare() || self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return Ok(());
        }
        if !self.is_ordered {
            self.is_ordered = self.orders.as_ref().is_some_and(|orders| orders.try_send(()).is_ok());
            return Ok(());
        }
        match self.made.try_recv() {
            Ok(Ok(spare)) => {
                self.is_ordered = false;
                log.keep_spare(spare);
            }
            Ok(Err(StorageError::Full { .. })) => {
                self.is_ordered = false;
                self.not_before = Instant::now().checked_add(FULL_WAIT);
            }
            Ok(Err(error)) => return Err(error),
            // A thread that has ended makes none: the log goes on with smaller segments.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        Ok(())
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked leaves a draft, which the next start removes.
            let _ = thread.join();
        }
    }
}

/// The thread's end.
struct Worker {
    disk: Box<dyn Disk>,
    bytes: u64,
    /// Bytes that must be free before one is begun.
    room: u64,
    is_stopped: Arc<AtomicBool>,
    made: SyncSender<Result<Spare, StorageError>>,
}

impl Worker {
    fn run(&self, orders: &Receiver<()>) {
        for () in orders {
            let Some(made) = self.make().transpose() else { return };
            if self.made.try_send(made).is_err() {
                return;
            }
        }
    }

    /// Fills one; nothing if it is stopped.
    fn make(&self) -> Result<Option<Spare>, StorageError> {
        let free = self.disk.free_bytes().unwrap_or(0);
        if free < self.room {
            return Err(StorageError::Full { file: "a spare segment".to_owned() });
        }
        let mut spare = Spare::begin(self.disk.as_ref(), self.bytes)?;
        while !self.is_stopped.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if spare.fill(STEP_BYTES)? {
                return Ok(Some(spare));
            }
            thread::sleep(begun.elapsed().min(REST_MAX));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::ClusterId;
    use regency_storage::{Fault, FaultyDisk, Identity};

    use super::*;

    const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };
    const SETTINGS: LogSettings =
        LogSettings { segment_bytes: 3 << 20, filled_bytes: Some(1 << 16), salt: [0; 16] };
    const RESERVE: u64 = 1 << 20;

    fn start(disk: &FaultyDisk) -> (Log, Spares) {
        let (log, _) = Log::open(Box::new(disk.clone()), IDENTITY, SETTINGS, &mut |_, _| {}).unwrap();
        let spares = Spares::start(ReplicaId(1), Box::new(disk.clone()), SETTINGS, RESERVE).unwrap();
        (log, spares)
    }

    /// Asks until something has come of it.
    fn supply(spares: &mut Spares, log: &mut Log) -> Result<(), StorageError> {
        for _ in 0..1000 {
            spares.supply(log)?;
            if log.has_spare() || spares.not_before.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("no spare")
    }

    #[test]
    fn the_next_segments_are_made_of_spares() {
        let disk = FaultyDisk::seeded(1);
        let (mut log, mut spares) = start(&disk);
        for _ in 0..3 {
            supply(&mut spares, &mut log).unwrap();
            assert!(log.has_spare());
            let before = log.segments();
            while log.segments() == before {
                log.append(&[1; 20_000]).unwrap();
                log.commit().unwrap();
            }
            assert!(!log.has_spare());
        }
        drop(spares);
        let recovered = Log::open(Box::new(disk.clone()), IDENTITY, SETTINGS, &mut |_, _| {}).unwrap();
        assert_eq!(recovered.0.last(), log.last());
        assert!(!disk.names().iter().any(|name| name.ends_with(".draft")));
    }

    #[test]
    fn a_full_disk_makes_no_spare_and_a_failing_one_ends_it() {
        let disk = FaultyDisk::seeded(1);
        let (mut log, mut spares) = start(&disk);
        disk.set_free_bytes(Some(RESERVE + SETTINGS.segment_bytes - 1));
        supply(&mut spares, &mut log).unwrap();
        assert!(!log.has_spare());
        disk.set_free_bytes(None);
        spares.not_before = None;
        disk.inject(Fault::SyncError, 0);
        supply(&mut spares, &mut log).unwrap_err();
    }
}
