//! The snapshots of a running replica, its own and those that it takes over: a thread owns them, the loop says what
//! is to be done with them [CKPT-1, ST-3].
//!
//! Jobs are done in the order given, so that a snapshot of its own that is being written is there before a transfer
//! begins. Reading beside that is safe: what the loop and other replicas want read is looked up anew.

mod image;
mod keeper;

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mio::Waker;
use regency_protocol::ids::{Digest, InstanceId};
use regency_protocol::manifest::Manifest;
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::state_transfer::donation::Transfer;
use regency_storage::snapshots::{SnapshotReader, SnapshotStore};
use regency_storage::{Identity, StorageError};

use super::donor::OpenDisk;
use super::journal::{Obstacle, disk_failed};
use crate::failure::{ErrorCode, Failure};
use crate::metrics::Metrics;
use crate::snapshot::{RestoreError, Snapshot};
pub(super) use image::{Restored, Unusable, read};
use keeper::{Job, KeepError, Keeper};

/// Bytes of chunks that may wait for the disk; beyond it the loop takes no more input.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// A snapshot of this replica's own is durable.
    Written { instance: InstanceId, root: Digest },
    /// One of others can be written; for each chunk whether it is here.
    Begun { instance: InstanceId, held: Vec<bool> },
    /// A chunk of it is.
    Kept { instance: InstanceId, index: u32 },
    /// It is one of this replica's own, and durable.
    Installed { instance: InstanceId },
    /// It stands in place of a damaged one, durable.
    Replaced { instance: InstanceId },
    /// What was to go is gone.
    Discarded,
}

/// What waits for the thread, and what for the loop.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Bytes of those, and of the one in work.
    bytes: usize,
    done: VecDeque<Done>,
    failed: Option<KeepError>,
}

/// What both threads see.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    is_ending: AtomicBool,
    /// Whether the thread waits for room on the disk.
    is_waiting: AtomicBool,
    /// Whether it does so with what the replica needs for its state.
    is_full: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; nothing when the replica ends.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if self.is_ending.load(Ordering::Acquire) {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes what came of a job; true if the loop has to be woken for it.
    fn report(&self, bytes: usize, outcome: Result<Done, KeepError>) -> bool {
        let mut queue = self.lock();
        queue.bytes -= bytes;
        match outcome {
            Ok(done) => {
                queue.done.push_back(done);
                queue.done.len() == 1
            }
            Err(error) => {
                queue.failed = Some(error);
                true
            }
        }
    }
}

/// The loop's end of the thread.
pub(super) struct Snapshots {
    shared: Arc<Shared>,
    disk: OpenDisk,
    identity: Identity,
    /// What the thread will own, until it begins.
    keeper: Option<Keeper>,
    thread: Option<JoinHandle<()>>,
    /// Jobs whose outcome is not known.
    open: usize,
}

impl Snapshots {
    /// The snapshots in `store`, which lies on `disk`; whoever works on them wakes the loop by `waker`.
    pub(super) fn new(
        store: SnapshotStore,
        disk: OpenDisk,
        identity: Identity,
        waker: Arc<Waker>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let keeper = Keeper { store, draft: None, is_repair: false, shared: shared.clone(), waker, metrics };
        Self { shared, disk, identity, keeper: Some(keeper), thread: None, open: 0 }
    }

    /// Begins to write a snapshot; those that a `stable` one makes superfluous go when it is there.
    pub(super) fn write(
        &mut self,
        head: Box<SnapshotHead>,
        image: Box<dyn Snapshot>,
        stable: InstanceId,
    ) -> Result<(), Failure> {
        self.push(Job::Write { head, image, stable })
    }

    /// Begins the next step of taking one over from others.
    pub(super) fn transfer(&mut self, step: Transfer) -> Result<(), Failure> {
        self.push(match step {
            Transfer::Begin(manifest) => Job::Begin { manifest, is_repair: false },
            Transfer::Put { instance, index, bytes } => Job::Put { instance, index, bytes },
            Transfer::Install { instance, root } => Job::Install { instance, root },
            Transfer::Replace { instance, root } => Job::Replace { instance, root },
        })
    }

    /// Begins to take one over that stands for a damaged one: the replica has its state.
    pub(super) fn repair(&mut self, manifest: Arc<Manifest>) -> Result<(), Failure> {
        self.push(Job::Begin { manifest, is_repair: true })
    }

    /// Begins to remove the snapshots of `from` and all later ones.
    pub(super) fn discard(&mut self, from: InstanceId) -> Result<(), Failure> {
        self.push(Job::Discard { from })
    }

    /// The next job that is done, if there is one; an error if one failed.
    pub(super) fn next_done(&mut self) -> Result<Option<Done>, Failure> {
        if self.open == 0 {
            return Ok(None);
        }
        let mut queue = self.shared.lock();
        let done = queue.done.pop_front();
        if done.is_none() {
            if let Some(error) = &queue.failed {
                return Err(failed(error));
            }
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                return Err(panicked());
            }
        }
        self.open -= usize::from(done.is_some());
        Ok(done)
    }

    /// Why the loop must take no input just now: what it brings could not be kept.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        if self.open == 0 {
            return None;
        }
        let queue = self.shared.lock();
        // What the replica needs may stand behind one of its own that waits.
        let is_needed = |job: &Job| matches!(job, Job::Begin { is_repair: false, .. });
        let waits = self.shared.is_waiting.load(Ordering::Acquire) && queue.jobs.iter().any(is_needed);
        if waits || self.shared.is_full.load(Ordering::Acquire) {
            return Some(Obstacle::Full);
        }
        (queue.bytes > WAITING_BYTES_MAX).then_some(Obstacle::Behind)
    }

    /// Gives the state of a snapshot to `restore`.
    pub(super) fn restore(
        &self,
        instance: InstanceId,
        restore: impl FnOnce(&mut dyn Read) -> Result<(), RestoreError>,
    ) -> Result<Restored, Unusable> {
        read(SnapshotReader::find((self.disk)().as_ref(), &self.identity, instance)?, restore)
    }

    fn push(&mut self, job: Job) -> Result<(), Failure> {
        if let Some(keeper) = self.keeper.take() {
            let name = format!("snapshot-{}", self.identity.replica);
            let spawned = thread::Builder::new().name(name).spawn(move || keeper.run());
            self.thread = Some(spawned.map_err(super::no_system)?);
        }
        self.open += 1;
        let mut queue = self.shared.lock();
        queue.bytes += job.bytes();
        queue.jobs.push_back(job);
        self.shared.filled.notify_one();
        Ok(())
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        {
            let _queue = self.shared.lock();
            self.shared.is_ending.store(true, Ordering::Release);
        }
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // What it was writing is a draft; the next start removes it, or goes on with it.
            let _ = thread.join();
        }
    }
}

/// The thread is gone, and with it what it was to do.
fn panicked() -> Failure {
    Failure::new(
        ErrorCode::Invariant,
        "the replica stopped because its thread that writes snapshots panicked",
        "look for the panic above, and report it as a defect of the service or of this program",
    )
}

fn failed(error: &KeepError) -> Failure {
    match error {
        KeepError::Storage(StorageError::Transfer(_))
        | KeepError::NotBegun(_)
        | KeepError::OtherRoot { .. } => Failure::new(
            ErrorCode::Invariant,
            format!("the replica stopped because it took something over that it had not checked ({error})"),
            "keep its log and report this as a defect",
        ),
        KeepError::Storage(error) => disk_failed(error),
    }
}

#[cfg(test)]
mod tests;
