//! The thread that reads what is at rest, slowly and again and again: damage is found while others still have what is
//! damaged, and not when this replica needs it.
//!
//! It only tells, of what is still damaged once in every reading; the core knows what is to be done about it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use regency_protocol::ids::LogPosition;
use regency_storage::Identity;
use regency_storage::scrub::{Defect, Progress, Scrub};
use tracing::warn;

use super::donor::OpenDisk;
use crate::failure::Failure;

/// Bytes that are read at a time.
const STEP_BYTES: u64 = 256 << 10;
/// Defects that are told of one reading; more are only counted.
const TOLD_MAX: usize = 16;

/// How the disk is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes a second; 0: it is not read at all.
    pub(super) bytes_per_second: u64,
    /// How long the thread rests between two readings.
    pub(super) rest: Duration,
}

/// What one reading, or the part of it that is over, has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// How many defects.
    pub(super) count: usize,
    /// The first of them.
    pub(super) told: Vec<Defect>,
}

#[derive(Debug, Default)]
struct State {
    written: LogPosition,
    /// What the reading before found, and then what this one has found in addition.
    findings: Findings,
    has_changed: bool,
    is_ending: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long; false when the replica ends.
    fn rest(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.is_ending);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_ending
    }
}

/// The loop's end of the thread.
pub(super) struct Scrubber {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Begins to read the directory of `identity`.
    pub(super) fn start(disk: OpenDisk, identity: Identity, pace: Pace) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        if pace.bytes_per_second == 0 {
            return Ok(Self { shared, thread: None });
        }
        let worker = Worker { disk, identity, pace, shared: shared.clone() };
        let thread = thread::Builder::new()
            .name(format!("scrub-{}", identity.replica))
            .spawn(move || worker.run())
            .map_err(super::no_system)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells the thread up to which record the log is written; what it has found if there is anything to tell.
    pub(super) fn look(&self, written: LogPosition) -> Option<Findings> {
        let mut state = self.shared.lock();
        state.written = written;
        std::mem::take(&mut state.has_changed).then(|| state.findings.clone())
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has found nothing more.
            let _ = thread.join();
        }
    }
}

/// The thread's end.
struct Worker {
    disk: OpenDisk,
    identity: Identity,
    pace: Pace,
    shared: Arc<Shared>,
}

impl Worker {
    /// Reads until the replica ends. What lay there at the start was read by the recovery.
    fn run(&self) {
        while self.shared.rest(self.pace.rest) {
            let written = self.shared.lock().written;
            let mut found = Findings::default();
            match self.read(written, &mut found) {
                Ok(false) => return,
                Ok(true) => self.tell(&found),
                // Whoever writes here notices too, and knows what it means.
                Err(error) => warn!("what lies on the disk could not be read to its end ({error})"),
            }
        }
    }

    /// Reads everything once; false when the replica ends.
    fn read(
        &self,
        written: LogPosition,
        found: &mut Findings,
    ) -> Result<bool, regency_storage::StorageError> {
        let mut scrub = Scrub::new((self.disk)(), self.identity, written)?;
        let step = Duration::from_secs_f64(STEP_BYTES as f64 / self.pace.bytes_per_second.max(1) as f64);
        loop {
            let begun = Instant::now();
            match scrub.step(STEP_BYTES)? {
                Progress::Done => return Ok(true),
                Progress::More => {}
                Progress::Damaged(defect) => {
                    found.count += 1;
                    if found.told.len() < TOLD_MAX {
                        found.told.push(defect);
                    }
                    if found.count > self.shared.lock().findings.count {
                        self.tell(found);
                    }
                }
            }
            if !self.shared.rest(step.saturating_sub(begun.elapsed())) {
                return Ok(false);
            }
        }
    }

    fn tell(&self, found: &Findings) {
        let mut state = self.shared.lock();
        // What lasts is told again: it may not have been time to do anything about it.
        state.has_changed |= state.findings != *found || found.count > 0;
        state.findings = found.clone();
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClusterId, ReplicaId};
    use regency_storage::log::{Log, LogSettings};
    use regency_storage::{Disk, FaultyDisk};

    use super::*;

    const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };
    const PACE: Pace = Pace { bytes_per_second: 1 << 30, rest: Duration::from_millis(1) };

    fn scrubber(disk: &FaultyDisk, pace: Pace) -> Scrubber {
        let disk = disk.clone();
        Scrubber::start(Box::new(move || Box::new(disk.clone())), IDENTITY, pace).unwrap()
    }

    fn log(disk: &FaultyDisk) -> Log {
        let settings = LogSettings { segment_bytes: 1 << 14, ..LogSettings::default() };
        let (mut log, _) = Log::open(Box::new(disk.clone()), IDENTITY, settings, &mut |_, _| {}).unwrap();
        for number in 0..40 {
            log.append(&[number; 2000]).unwrap();
            log.commit().unwrap();
        }
        log
    }

    /// Looks until something has changed.
    fn wait(scrubber: &Scrubber, written: LogPosition) -> Findings {
        for _ in 0..2000 {
            if let Some(findings) = scrubber.look(written) {
                return findings;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("nothing was found")
    }

    #[test]
    fn damage_of_the_log_is_found_and_is_gone_when_the_log_is_cut_behind_it() {
        let disk = FaultyDisk::seeded(1);
        let mut log = log(&disk);
        let written = log.durable();
        let scrubber = scrubber(&disk, PACE);
        let mut file = disk.open("log-000000000001").unwrap();
        file.write_at(5000, &[0xff; 8]).unwrap();
        let found = wait(&scrubber, written);
        assert_eq!(found.count, 1);
        assert!(matches!(&found.told[..], [Defect::Log(damage)] if damage.file == "log-000000000001"));
        assert_eq!(wait(&scrubber, written), found, "told again while it lasts");
        log.cut(LogPosition(30)).unwrap();
        while wait(&scrubber, written) != Findings::default() {}
    }

    #[test]
    fn nothing_is_read_where_that_is_not_wanted() {
        let disk = FaultyDisk::seeded(1);
        let scrubber = scrubber(&disk, Pace { bytes_per_second: 0, ..PACE });
        assert!(scrubber.thread.is_none());
        assert_eq!(scrubber.look(LogPosition(9)), None);
    }
}
