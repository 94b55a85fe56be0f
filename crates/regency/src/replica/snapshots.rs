//! Writes snapshots in the background, one at a time, and reads the newest good one at the start [CKPT-1].
//!
//! A snapshot's bytes are the length of the core's part, that part, and the service's image. The store travels to
//! the thread that writes and comes back with the outcome; old images are removed there too.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use mio::Waker;
use regency_protocol::ids::{Digest, InstanceId, ReplicaId};
use regency_protocol::snapshot::SnapshotHead;
use regency_storage::StorageError;
use regency_storage::snapshots::{FinishedSnapshot, SnapshotStore};
use tracing::info;

use super::journal::disk_failed;
use crate::failure::{ErrorCode, Failure};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// Bytes of the length before the core's part.
const LENGTH_BYTES: usize = 8;
/// The longest core's part that is read back.
const HEAD_BYTES_MAX: u64 = 1 << 32;

type Outcome = Result<(SnapshotStore, InstanceId, Digest), StorageError>;

/// The snapshots of a running replica.
pub(super) struct Snapshots {
    replica: ReplicaId,
    /// Away while one is being written.
    store: Option<SnapshotStore>,
    done: (SyncSender<Outcome>, Receiver<Outcome>),
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    waker: Arc<Waker>,
    metrics: Arc<Metrics>,
}

impl Snapshots {
    /// The snapshots in `store`; whoever writes one wakes the loop by `waker`.
    pub(super) fn new(
        replica: ReplicaId,
        store: SnapshotStore,
        waker: Arc<Waker>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            replica,
            store: Some(store),
            done: sync_channel(1),
            is_ending: Arc::default(),
            thread: None,
            waker,
            metrics,
        }
    }

    /// Begins to write a snapshot; those that a `stable` one makes superfluous go when it is there.
    ///
    /// # Panics
    ///
    /// If another one is being written: the core asks for one at a time.
    pub(super) fn begin(
        &mut self,
        head: Box<SnapshotHead>,
        image: Box<dyn Snapshot>,
        stable: InstanceId,
    ) -> Result<(), Failure> {
        let store = self.store.take().expect("the core asks for one snapshot at a time");
        let work = Work {
            store,
            head,
            image,
            stable,
            is_ending: self.is_ending.clone(),
            metrics: self.metrics.clone(),
        };
        let (done, waker) = (self.done.0.clone(), self.waker.clone());
        let write = move || {
            let outcome = work.write();
            // A loop that has ended needs neither.
            if done.try_send(outcome).is_ok() {
                let _ = waker.wake();
            }
        };
        let name = format!("snapshot-{}", self.replica);
        self.thread = Some(thread::Builder::new().name(name).spawn(write).map_err(super::no_system)?);
        Ok(())
    }

    /// The snapshot that has become durable, if one has since; an error if it could not be written.
    pub(super) fn finished(&mut self) -> Result<Option<(InstanceId, Digest)>, Failure> {
        if self.store.is_some() {
            return Ok(None);
        }
        let Ok(outcome) = self.done.1.try_recv() else { return Ok(None) };
        let (store, instance, root) = outcome.map_err(|error| disk_failed(&error))?;
        self.store = Some(store);
        Ok(Some((instance, root)))
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it was writing is a draft, which the next start removes.
            let _ = thread.join();
        }
    }
}

/// One snapshot on its way to the disk.
struct Work {
    store: SnapshotStore,
    head: Box<SnapshotHead>,
    image: Box<dyn Snapshot>,
    stable: InstanceId,
    is_ending: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Work {
    fn write(self) -> Outcome {
        let Self { mut store, head, image, stable, is_ending, metrics } = self;
        let begun = Instant::now();
        let instance = head.instance;
        let finished = write_draft(&store, &head, image, &is_ending)?;
        let (root, bytes) = (finished.manifest().root(), finished.manifest().total_bytes());
        store.install(finished)?;
        store.retain(stable)?;
        metrics.observe_snapshot(bytes, begun.elapsed());
        info!(%instance, bytes, seconds = begun.elapsed().as_secs_f64(), "snapshot written");
        Ok((store, instance, root))
    }
}

fn write_draft(
    store: &SnapshotStore,
    head: &SnapshotHead,
    image: Box<dyn Snapshot>,
    is_ending: &AtomicBool,
) -> Result<FinishedSnapshot, StorageError> {
    let mut writer = store.begin(head.instance)?;
    let own = head.encode();
    let mut sink = Sink { writer: &mut writer, is_ending };
    let written = sink
        .write_all(&(own.len() as u64).to_le_bytes())
        .and_then(|()| sink.write_all(&own))
        .and_then(|()| image.write(&mut sink));
    match written {
        Ok(()) => writer.finish(),
        Err(error) => {
            let known = error.get_ref().and_then(|source| source.downcast_ref::<StorageError>()).cloned();
            // What is wrong with the writer, it says itself; what is wrong with the image, the image.
            Err(known.unwrap_or_else(|| StorageError::Disk {
                operation: regency_storage::DiskOperation::Write,
                file: "a snapshot".to_owned(),
                kind: error.kind(),
                message: error.to_string(),
            }))
        }
    }
}

/// Passes bytes on until the replica ends.
struct Sink<'a, W> {
    writer: &'a mut W,
    is_ending: &'a AtomicBool,
}

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_ending.load(Ordering::Acquire) {
            return Err(io::Error::other("the replica ends"));
        }
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A snapshot that was read back: the service has taken its state over.
pub(super) struct Restored {
    /// The core's part.
    pub(super) head: SnapshotHead,
    /// The root of the whole.
    pub(super) root: Digest,
    /// Bytes of the whole.
    pub(super) bytes: u64,
}

/// Reads the snapshot of `instance`, and gives the service's part to `restore`.
pub(super) fn read(
    store: &SnapshotStore,
    instance: InstanceId,
    restore: impl FnOnce(&mut dyn Read) -> Result<(), crate::snapshot::RestoreError>,
) -> Result<Restored, Failure> {
    let bad = |cause: String| {
        Failure::new(
            ErrorCode::Disk,
            format!("the snapshot of instance {instance} cannot be used ({cause})"),
            "nothing: an older one, or the other replicas, must do",
        )
    };
    let reader = store.read(instance).map_err(|error| bad(error.to_string()))?;
    let mut reader = reader.ok_or_else(|| bad("it is not there".to_owned()))?;
    let manifest = reader.manifest();
    let (root, bytes) = (manifest.root(), manifest.total_bytes());
    let mut length = [0; LENGTH_BYTES];
    reader.read_exact(&mut length).map_err(|error| bad(error.to_string()))?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return Err(bad("its head is too long".to_owned()));
    }
    let mut own = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut own).map_err(|error| bad(error.to_string()))?;
    let head = SnapshotHead::decode(Bytes::from(own)).map_err(|error| bad(error.to_string()))?;
    if head.instance != instance {
        return Err(bad(format!("it is that of instance {}", head.instance)));
    }
    restore(&mut reader).map_err(|error| bad(error.to_string()))?;
    Ok(Restored { head, root, bytes })
}
