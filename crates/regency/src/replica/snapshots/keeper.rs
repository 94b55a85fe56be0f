//! The thread that owns the snapshots of a replica: it writes its own, keeps what comes of others', one job after
//! the other [CKPT-1, ST-3].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use mio::Waker;
use regency_protocol::ids::{Digest, InstanceId};
use regency_protocol::manifest::Manifest;
use regency_protocol::snapshot::SnapshotHead;
use regency_storage::StorageError;
use regency_storage::snapshots::{SnapshotStore, TransferDraft};
use thiserror::Error;
use tracing::{info, warn};

use super::image::{self, ROOM_PERIOD};
use super::{Done, Shared};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// What is to be done with the snapshots.
pub(super) enum Job {
    /// Write one of this replica's own; those that a `stable` one makes superfluous go when it is there.
    Write { head: Box<SnapshotHead>, image: Box<dyn Snapshot>, stable: InstanceId },
    /// Begin to take one over from others; a repair may wait, for the replica has its state.
    Begin { manifest: Arc<Manifest>, is_repair: bool },
    /// Keep a chunk of it.
    Put { instance: InstanceId, index: u32, bytes: Bytes },
    /// Make it one of this replica's own.
    Install { instance: InstanceId, root: Digest },
    /// Put it in place of a damaged one.
    Replace { instance: InstanceId, root: Digest },
    /// Remove those of this instance and later ones.
    Discard { from: InstanceId },
}

impl Job {
    /// Bytes that wait with it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put { bytes, .. } => bytes.len(),
            Self::Write { .. }
            | Self::Begin { .. }
            | Self::Install { .. }
            | Self::Replace { .. }
            | Self::Discard { .. } => 0,
        }
    }
}

/// Why the thread has ended before its time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(in super::super) enum KeepError {
    /// What it writes does not get to the disk, or does not come back from it.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A chunk, or the end, of a snapshot that was not begun.
    #[error("no snapshot of instance {0} is being taken over")]
    NotBegun(InstanceId),
    /// A snapshot of another root than was to be installed.
    #[error("the snapshot of instance {instance} has the root {found}, not {expected}")]
    OtherRoot { instance: InstanceId, found: Digest, expected: Digest },
}

/// The thread's end.
pub(super) struct Keeper {
    pub(super) store: SnapshotStore,
    /// What is being taken over.
    pub(super) draft: Option<TransferDraft>,
    /// Whether that stands for a damaged one of this replica's own.
    pub(super) is_repair: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<Waker>,
    pub(super) metrics: Arc<Metrics>,
}

impl Keeper {
    /// Works until the replica ends or a job fails.
    pub(super) fn run(mut self) {
        while let Some(job) = self.shared.next_job() {
            let bytes = job.bytes();
            let outcome = self.work(job);
            let has_failed = outcome.is_err();
            if self.shared.report(bytes, outcome) {
                self.wake();
            }
            if has_failed {
                return;
            }
        }
    }

    fn work(&mut self, job: Job) -> Result<Done, KeepError> {
        match job {
            Job::Write { head, image, stable } => self.write(&head, image, stable),
            Job::Begin { manifest, is_repair } => self.begin(&manifest, is_repair),
            Job::Put { instance, index, bytes } => self.put(instance, index, &bytes),
            Job::Install { instance, root } => {
                self.install(instance, root)?;
                self.metrics.transfers.inc();
                Ok(Done::Installed { instance })
            }
            Job::Replace { instance, root } => {
                self.install(instance, root)?;
                self.metrics.repairs.inc();
                Ok(Done::Replaced { instance })
            }
            Job::Discard { from } => self.discard(from),
        }
    }

    fn write(
        &mut self,
        head: &SnapshotHead,
        image: Box<dyn Snapshot>,
        stable: InstanceId,
    ) -> Result<Done, KeepError> {
        let begun = Instant::now();
        let instance = head.instance;
        let finished = image::write(&self.store, head, image, &self.shared)?;
        let (root, bytes) = (finished.manifest().root(), finished.manifest().total_bytes());
        self.store.install(finished)?;
        self.store.retain(stable)?;
        self.metrics.observe_snapshot(bytes, begun.elapsed());
        info!(%instance, bytes, seconds = begun.elapsed().as_secs_f64(), "snapshot written");
        Ok(Done::Written { instance, root })
    }

    fn begin(&mut self, manifest: &Manifest, is_repair: bool) -> Result<Done, KeepError> {
        let begun = Instant::now();
        self.is_repair = is_repair;
        // The one before ends here; what it has kept is found again.
        self.draft = None;
        let draft = self.with_room(|keeper| keeper.store.begin_transfer(manifest.clone()))?;
        let held = draft.held().to_vec();
        let lengths = manifest.chunks.iter().zip(&held).filter(|(_, is_held)| **is_held);
        info!(
            instance = %manifest.instance,
            bytes = manifest.total_bytes(),
            bytes_here = lengths.map(|(chunk, _)| u64::from(chunk.length)).sum::<u64>(),
            seconds = begun.elapsed().as_secs_f64(),
            "taking a snapshot over from other replicas"
        );
        self.draft = Some(draft);
        Ok(Done::Begun { instance: manifest.instance, held })
    }

    fn put(&mut self, instance: InstanceId, index: u32, bytes: &[u8]) -> Result<Done, KeepError> {
        let is_begun = |draft: &TransferDraft| draft.manifest().instance == instance;
        if !self.draft.as_ref().is_some_and(is_begun) {
            return Err(KeepError::NotBegun(instance));
        }
        // An index that does not fit is none of the snapshot's either.
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        self.with_room(|keeper| match &mut keeper.draft {
            Some(draft) => draft.put(place, bytes),
            None => Ok(()),
        })?;
        self.metrics.transferred_chunks.inc();
        Ok(Done::Kept { instance, index })
    }

    fn install(&mut self, instance: InstanceId, root: Digest) -> Result<(), KeepError> {
        let begun = Instant::now();
        let is_it = |draft: &mut TransferDraft| draft.manifest().instance == instance;
        let draft = self.draft.take_if(is_it).ok_or(KeepError::NotBegun(instance))?;
        let found = draft.manifest().root();
        if found != root {
            return Err(KeepError::OtherRoot { instance, found, expected: root });
        }
        let finished = draft.finish()?;
        let bytes = finished.manifest().total_bytes();
        self.store.install(finished)?;
        // It is certified: what is older serves nobody but those who fetch it just now.
        self.store.retain(instance)?;
        info!(%instance, bytes, seconds = begun.elapsed().as_secs_f64(), "the snapshot is taken over");
        Ok(())
    }

    fn discard(&mut self, from: InstanceId) -> Result<Done, KeepError> {
        let bad: Vec<InstanceId> =
            self.store.manifests().map(|manifest| manifest.instance).filter(|own| *own >= from).collect();
        for instance in bad {
            warn!(%instance, "own snapshot discarded: its state is not the one that was signed");
            self.store.discard(instance)?;
        }
        Ok(Done::Discarded)
    }

    /// Does something as soon as the disk has room for it, or gives up when the replica ends. What repairs may wait: the
    /// replica has its state.
    fn with_room<T>(
        &mut self,
        mut what: impl FnMut(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let outcome = loop {
            match what(self) {
                Err(StorageError::Full { file }) if self.shared.is_ending.load(Ordering::Acquire) => {
                    break Err(StorageError::Full { file });
                }
                Err(StorageError::Full { .. }) => {
                    if !self.shared.is_waiting.swap(true, Ordering::AcqRel) {
                        warn!("no room on the disk for a snapshot of other replicas: it waits");
                    }
                    if !self.is_repair && !self.shared.is_full.swap(true, Ordering::AcqRel) {
                        self.wake();
                    }
                    thread::sleep(ROOM_PERIOD);
                }
                outcome => break outcome,
            }
        };
        self.shared.is_waiting.store(false, Ordering::Release);
        self.shared.is_full.store(false, Ordering::Release);
        outcome
    }

    fn wake(&self) {
        // A loop that has ended needs no waking.
        let _ = self.waker.wake();
    }
}
