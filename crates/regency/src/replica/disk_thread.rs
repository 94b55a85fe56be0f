//! The thread that makes a log durable while the event loop goes on: durability `sync`.
//!
//! The loop gathers the records of a turn and hands all of them over at once; the thread appends what has queued up,
//! commits it with one sync, and wakes the loop, which asks how far the log is durable. After a failed write or
//! sync nothing is tried again [LOG-1]. Where the disk is nearly full nothing is written until there is room.
//!
//! A sync of its own for records that nobody waits for would be in the way of the next vote's. They wait a little, and
//! most often go with that.

use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{LogPosition, ReplicaId};
use regency_protocol::record::Record;
use regency_storage::log::Log;
use regency_storage::{DiskOperation, StorageError};

use super::room::Room;
use super::spares::Spares;
use crate::failure::Failure;
use crate::metrics::Metrics;

/// Bytes of records that may wait for the disk; beyond it the loop takes no more input.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// So long records may wait, for others that somebody waits for.
const PATIENCE: Duration = Duration::from_millis(2);
/// Room for records that is kept.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Records on their way to the disk, one after the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Each record's number, and where it ends.
    ends: Vec<(LogPosition, usize)>,
    /// Where to cut the log when they are durable.
    cut: Option<LogPosition>,
    /// Whether they go into a new segment.
    begins_segment: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.cut.is_none() && !self.begins_segment
    }

    fn take(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let begin = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.ends.extend(other.ends.drain(..).map(|(position, end)| (position, begin + end)));
        self.cut = other.cut.take().or(self.cut);
        self.begins_segment |= std::mem::take(&mut other.begins_segment);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.ends.clear();
        self.cut = None;
        self.begins_segment = false;
    }
}

/// What both threads see.
#[derive(Debug, Default)]
struct Queue {
    batch: Batch,
    durable: LogPosition,
    is_idle: bool,
    is_closing: bool,
    is_full: bool,
    failed: Option<StorageError>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last durable record.
    pub(super) durable: LogPosition,
    /// Whether the disk has too little room to go on.
    pub(super) is_full: bool,
    /// Whether so much waits for the disk that nothing should be added.
    pub(super) is_behind: bool,
}

/// The loop's end of the thread.
pub(super) struct DiskThread {
    shared: Arc<Shared>,
    batch: Batch,
    /// Whether somebody waits for something of it.
    is_urgent: bool,
    /// When it goes at the latest if nobody does.
    due: Option<Instant>,
    last: LogPosition,
    thread: Option<JoinHandle<Option<LogPosition>>>,
}

impl DiskThread {
    /// Gives `log` to a thread of its own, which wakes the loop by `waker`.
    pub(super) fn start(
        replica: ReplicaId,
        log: Log,
        spares: Option<Spares>,
        room: Room,
        waker: Arc<Waker>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let last = log.last();
        let shared = Arc::new(Shared::default());
        shared.lock().durable = log.durable();
        let worker = Worker { log, spares, room, waker, metrics, shared: shared.clone() };
        let thread = thread::Builder::new()
            .name(format!("disk-{replica}"))
            .spawn(move || worker.run())
            .map_err(super::no_system)?;
        Ok(Self { shared, batch: Batch::default(), is_urgent: false, due: None, last, thread: Some(thread) })
    }

    /// Adds a record to what is handed over next.
    pub(super) fn append(&mut self, position: LogPosition, record: &Record) {
        assert_eq!(position, self.last.next(), "records are numbered without a gap");
        self.last = position;
        self.is_urgent |= !is_patient(record);
        record.encode(&mut self.batch.bytes);
        self.batch.ends.push((position, self.batch.bytes.len()));
    }

    /// Lets what is handed over next go into a new segment.
    pub(super) fn begin_segment(&mut self) {
        self.batch.begins_segment = true;
        self.is_urgent = true;
    }

    /// Cuts the log below `below` once everything before is durable.
    pub(super) fn cut(&mut self, below: LogPosition) {
        self.batch.cut = Some(below);
        self.is_urgent = true;
    }

    /// When to hand over what may wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Hands everything over that was added since, unless it may wait.
    pub(super) fn hand_over(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if !self.is_urgent {
            let now = Instant::now();
            if now < *self.due.get_or_insert(now + PATIENCE) {
                return;
            }
        }
        self.give();
    }

    fn give(&mut self) {
        self.is_urgent = false;
        self.due = None;
        if self.batch.is_empty() {
            return;
        }
        let mut queue = self.shared.lock();
        queue.batch.take(&mut self.batch);
        if std::mem::take(&mut queue.is_idle) {
            self.shared.filled.notify_one();
        }
    }

    /// How far the thread is; an error if the disk has failed.
    pub(super) fn progress(&self) -> Result<Progress, StorageError> {
        let queue = self.shared.lock();
        match &queue.failed {
            Some(error) => Err(error.clone()),
            // It says what fails; if it has said nothing, it panicked.
            None if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => Err(StorageError::Disk {
                operation: DiskOperation::Write,
                file: "the log".to_owned(),
                kind: ErrorKind::Other,
                message: "its thread panicked".to_owned(),
            }),
            None => Ok(Progress {
                durable: queue.durable,
                is_full: queue.is_full,
                is_behind: queue.batch.bytes.len() > WAITING_BYTES_MAX,
            }),
        }
    }

    /// The last durable record.
    pub(super) fn durable(&self) -> LogPosition {
        self.shared.lock().durable
    }

    /// Makes everything durable that was added, and closes the log. Its last record; none if that failed.
    pub(super) fn close(mut self) -> Option<LogPosition> {
        self.give();
        self.end()
    }

    fn end(&mut self) -> Option<LogPosition> {
        self.shared.lock().is_closing = true;
        self.shared.filled.notify_one();
        // A thread that panicked has closed nothing.
        self.thread.take()?.join().ok().flatten()
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether nothing leaves that rests on `record` before the next vote does: chain signatures, which rest on decisions, are
/// in no hurry.
fn is_patient(record: &Record) -> bool {
    match record {
        Record::Decided { .. } | Record::Certificate(_) => true,
        Record::Stop { .. }
        | Record::Regency { .. }
        | Record::Batch(_)
        | Record::Write(_)
        | Record::Lock(_)
        | Record::Confirm(_)
        | Record::Checkpoint(_)
        | Record::Bounds(_) => false,
    }
}

/// The thread's end.
struct Worker {
    log: Log,
    /// What its next segments are made of; none in tests that count what the disk does.
    spares: Option<Spares>,
    room: Room,
    waker: Arc<Waker>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
}

impl Worker {
    /// Works until the log is closed; its last record, if all of it is durable.
    fn run(mut self) -> Option<LogPosition> {
        let mut batch = Batch::default();
        loop {
            // An empty one at first: a spare is on its way before the first record is.
            match self.write(&batch) {
                Ok(Written::Durable) => {}
                Ok(Written::Closing) => return None,
                Err(error) => {
                    self.shared.lock().failed = Some(error);
                    self.wake();
                    return None;
                }
            }
            batch.clear();
            if !self.next(&mut batch) {
                break;
            }
        }
        match self.log.close() {
            Ok(last) => Some(last),
            Err(error) => {
                self.shared.lock().failed = Some(error);
                None
            }
        }
    }

    /// Waits for the next batch; false when there will be none.
    fn next(&self, batch: &mut Batch) -> bool {
        let mut queue = self.shared.lock();
        while queue.batch.is_empty() {
            if queue.is_closing {
                return false;
            }
            queue.is_idle = true;
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_idle = false;
        std::mem::swap(&mut queue.batch, batch);
        true
    }

    fn write(&mut self, batch: &Batch) -> Result<Written, StorageError> {
        if batch.begins_segment {
            match self.log.begin_segment() {
                // Without room it stays in this one.
                Ok(()) | Err(StorageError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut begin = 0;
        for (position, end) in &batch.ends {
            let appended = self.log.append(&batch.bytes[begin..*end])?;
            assert_eq!(appended, *position, "the log numbers as the core does");
            begin = *end;
        }
        if !batch.ends.is_empty() && self.commit(batch)? == Written::Closing {
            return Ok(Written::Closing);
        }
        if let Some(below) = batch.cut {
            self.log.cut(below)?;
        }
        if let Some(spares) = &mut self.spares {
            spares.supply(&mut self.log)?;
        }
        Ok(Written::Durable)
    }

    /// Commits what was appended as soon as there is room.
    fn commit(&mut self, batch: &Batch) -> Result<Written, StorageError> {
        loop {
            if self.room.is_enough(&self.log)? {
                let begun = Instant::now();
                match self.log.commit() {
                    Ok(durable) => {
                        self.metrics.observe_commit(batch.bytes.len(), batch.ends.len(), begun.elapsed());
                        let mut queue = self.shared.lock();
                        queue.durable = durable;
                        queue.is_full = false;
                        drop(queue);
                        self.wake();
                        return Ok(Written::Durable);
                    }
                    Err(StorageError::Full { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if self.wait_for_room() == Written::Closing {
                return Ok(Written::Closing);
            }
        }
    }

    fn wait_for_room(&self) -> Written {
        let mut queue = self.shared.lock();
        if !std::mem::replace(&mut queue.is_full, true) {
            self.wake();
        }
        if !queue.is_closing {
            let waited = self.shared.filled.wait_timeout(queue, Room::LOOK_PERIOD);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.is_closing { Written::Closing } else { Written::Durable }
    }

    fn wake(&self) {
        // A loop that has ended needs no waking.
        let _ = self.waker.wake();
    }
}

/// Whether the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Durable,
    Closing,
}

/// How long a replica that waits for its disk waits before it looks again.
pub(super) const DISK_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mio::{Poll, Token};
    use regency_protocol::ids::{ClusterId, Digest, InstanceId, Regency, ViewId};
    use regency_storage::log::LogSettings;
    use regency_storage::{Fault, FaultyDisk, Identity};

    use super::*;

    const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };
    const RESERVE: u64 = 1 << 20;

    fn record(regency: u64) -> Record {
        Record::Regency { view: ViewId(0), regency: Regency(regency) }
    }

    fn decided(instance: u64) -> Record {
        let (instance, digest, chain) = (InstanceId(instance), Digest([1; 32]), Digest([2; 32]));
        Record::Decided { instance, digest, chain }
    }

    fn open(disk: &FaultyDisk) -> (Log, Vec<Record>) {
        let settings = LogSettings { segment_bytes: 1 << 16, ..LogSettings::default() };
        let mut records = Vec::new();
        let (log, _) = Log::open(Box::new(disk.clone()), IDENTITY, settings, &mut |_, bytes| {
            records.push(Record::decode(Bytes::copy_from_slice(bytes)).unwrap());
        })
        .unwrap();
        (log, records)
    }

    /// A thread on `disk`, and what its waker wakes.
    fn start(disk: &FaultyDisk) -> (DiskThread, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let metrics = Arc::new(Metrics::new(ReplicaId(1)));
        let room = Room::new(RESERVE);
        (DiskThread::start(ReplicaId(1), open(disk).0, None, room, waker, metrics).unwrap(), poll)
    }

    /// Waits until the thread has come to what is expected.
    fn wait(
        thread: &DiskThread,
        poll: &mut Poll,
        is_expected: impl Fn(Result<Progress, StorageError>) -> bool,
    ) {
        let mut events = mio::Events::with_capacity(4);
        for _ in 0..100 {
            if is_expected(thread.progress()) {
                return;
            }
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
        }
        panic!("{:?}", thread.progress());
    }

    #[test]
    fn what_is_handed_over_becomes_durable_and_is_there_after_a_power_failure() {
        let disk = FaultyDisk::seeded(1);
        let (mut thread, mut poll) = start(&disk);
        (1..=3).for_each(|number| thread.append(LogPosition(number), &record(number)));
        thread.hand_over();
        wait(&thread, &mut poll, |progress| progress.unwrap().durable == LogPosition(3));
        disk.crash();
        assert_eq!(open(&disk).1, [record(1), record(2), record(3)]);
    }

    #[test]
    fn what_nobody_waits_for_goes_with_the_next_or_after_a_while() {
        let disk = FaultyDisk::seeded(1);
        let (mut thread, mut poll) = start(&disk);
        thread.append(LogPosition(1), &decided(1));
        thread.hand_over();
        assert!(thread.shared.lock().batch.is_empty() && thread.due().is_some());
        thread.append(LogPosition(2), &record(1));
        thread.hand_over();
        wait(&thread, &mut poll, |progress| progress.unwrap().durable == LogPosition(2));
        assert_eq!(thread.due(), None);
        thread.append(LogPosition(3), &decided(2));
        thread.hand_over();
        thread::sleep(thread.due().unwrap().saturating_duration_since(Instant::now()));
        thread.hand_over();
        wait(&thread, &mut poll, |progress| progress.unwrap().durable == LogPosition(3));
        thread.append(LogPosition(4), &decided(3));
        thread.hand_over();
        assert_eq!(thread.close(), Some(LogPosition(4)));
        disk.crash();
        assert_eq!(open(&disk).1, [decided(1), record(1), decided(2), decided(3)]);
    }

    #[test]
    fn what_waits_at_the_end_is_durable_too() {
        let disk = FaultyDisk::seeded(1);
        let (mut thread, _poll) = start(&disk);
        thread.append(LogPosition(1), &record(1));
        assert_eq!(thread.close(), Some(LogPosition(1)));
        disk.crash();
        assert_eq!(open(&disk).1, [record(1)]);
    }

    #[test]
    fn a_failed_sync_ends_it_for_good() {
        let disk = FaultyDisk::seeded(1);
        let (mut thread, mut poll) = start(&disk);
        disk.inject(Fault::SyncError, 0);
        thread.append(LogPosition(1), &record(1));
        thread.hand_over();
        wait(&thread, &mut poll, |progress| progress.is_err());
        thread.append(LogPosition(2), &record(2));
        assert_eq!(thread.close(), None);
    }

    #[test]
    fn without_room_nothing_becomes_durable_until_there_is_some() {
        let disk = FaultyDisk::seeded(1);
        let (mut thread, mut poll) = start(&disk);
        disk.set_free_bytes(Some(RESERVE - 1));
        thread.append(LogPosition(1), &record(1));
        thread.hand_over();
        wait(&thread, &mut poll, |progress| progress.unwrap().is_full);
        assert_eq!(thread.progress().unwrap().durable, LogPosition(0));
        disk.set_free_bytes(Some(RESERVE));
        let goes_on = Progress { durable: LogPosition(1), is_full: false, is_behind: false };
        wait(&thread, &mut poll, |progress| progress.unwrap() == goes_on);
    }
}
