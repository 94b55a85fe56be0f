//! From what lies in the data directory to a replica that takes part again [RECOVER-1].
//!
//! On the replica's own thread, before it serves anybody: the newest good snapshot, then the log, executed through
//! the service, then [`Core::resume`]. What cannot be read leaves a replica that has lost its votes [RECOVER-2]:
//! its files and marks stay as they are, so that it is the same after the next start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::Waker;
use regency_protocol::action::Action;
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::{Digest, InstanceId, LogPosition};
use regency_protocol::record::{Durability, Record};
use regency_protocol::replica::{Replica as Core, ReplicaConfig as CoreConfig, Start};
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::time::Timestamp;
use regency_storage::log::{self, Log, LogSettings, Recovered as RecoveredLog};
use regency_storage::snapshots::SnapshotStore;
use regency_storage::{Disk, StorageError};
use tracing::{info, warn};

use super::data_directory::{DataDirectory, Life, random_bytes, refused};
use super::disk_thread::DiskThread;
use super::executor::Executor;
use super::journal::Journal;
use super::lazy_disk::{LazyDisk, Unsynced};
use super::room::Room;
use super::snapshots::{self, Snapshots};
use super::written_log::WrittenLog;
use crate::failure::Failure;
use crate::metrics::Metrics;

/// How often a long reading tells how far it is.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 256;

/// What a recovery needs.
pub(super) struct Recovery<'a> {
    pub(super) directory: &'a mut DataDirectory,
    pub(super) config: CoreConfig,
    pub(super) executor: &'a mut Executor,
    pub(super) now: Timestamp,
    pub(super) reserve_bytes: u64,
    pub(super) waker: Arc<Waker>,
    pub(super) metrics: Arc<Metrics>,
    /// Whether somebody wants it to end before it is done.
    pub(super) is_stopped: &'a mut dyn FnMut() -> bool,
}

/// A replica that is about to take part.
pub(super) struct Recovered {
    pub(super) core: Core,
    pub(super) journal: Journal,
    pub(super) snapshots: Option<Snapshots>,
    /// Everything up to it is durable.
    pub(super) durable: LogPosition,
    /// What the core wants done first.
    pub(super) actions: Vec<Action>,
}

/// Why a reading did not end with a replica that may vote.
enum Setback {
    /// What is there is not all that there was: the replica has lost its votes.
    Lost(String),
    /// The replica cannot start.
    Failed(Failure),
    /// Somebody wants it to end.
    Stopped,
}

/// What the reading came to.
struct Reading {
    core: Core,
    log: Log,
    actions: Vec<Action>,
}

impl Recovery<'_> {
    /// Does all of it; nothing if it was stopped.
    pub(super) fn run(self) -> Result<Option<Recovered>, Failure> {
        match (self.directory.life(), self.config.durability) {
            (Life::VotesLost, _) => Ok(Some(self.lost())),
            (Life::First | Life::Kept { .. }, Durability::None) => {
                self.directory.begin_voting()?;
                let core = Core::new(CoreConfig { start: Start::Fresh, ..self.config });
                Ok(Some(without_log(core, Vec::new())))
            }
            (Life::First, _) => self.read(LogPosition(0)),
            (Life::Kept { records }, _) => self.read(records),
        }
    }

    /// One that follows without votes, from the beginning. It keeps nothing: what it would keep now must not be
    /// taken for everything that it ever recorded.
    fn lost(self) -> Recovered {
        let config = CoreConfig { start: Start::StateLost, durability: Durability::None, ..self.config };
        without_log(Core::new(config), Vec::new())
    }

    fn read(mut self, least: LogPosition) -> Result<Option<Recovered>, Failure> {
        let empty = self.executor.image();
        let (path, identity) = (self.directory.path().to_owned(), self.directory.identity());
        let store = SnapshotStore::open(Box::new(self.directory.disk()), identity)
            .map_err(|error| refused(&path, &identity, error))?;
        let (disk, unsynced): (Box<dyn Disk>, Option<Unsynced>) = match self.config.durability {
            Durability::Sync | Durability::None => (Box::new(self.directory.disk()), None),
            Durability::Async => {
                let (disk, unsynced) = LazyDisk::new(self.directory.disk());
                (Box::new(disk), Some(unsynced))
            }
        };
        let reading = match self.replay(&store, &empty, disk, least) {
            Ok(reading) => reading,
            Err(Setback::Failed(failure)) => return Err(failure),
            Err(Setback::Stopped) => return Ok(None),
            Err(Setback::Lost(cause)) => {
                warn!(
                    "state-lost: {cause}. This replica follows but does not vote, and counts in f; its files stay as \
                     they are"
                );
                self.executor.reset(&empty);
                return Ok(Some(self.lost()));
            }
        };
        // Durable before the first vote can leave.
        self.directory.begin_voting()?;
        let Reading { core, log, actions } = reading;
        let durable = log.durable();
        let room = Room::new(self.reserve_bytes);
        let (me, metrics) = (self.config.me, self.metrics.clone());
        let journal = match unsynced {
            None => Journal::Sync(DiskThread::start(me, log, room, self.waker.clone(), metrics)?),
            Some(unsynced) => Journal::Async(Box::new(WrittenLog::start(me, log, unsynced, room, metrics)?)),
        };
        let snapshots = Some(Snapshots::new(me, store, self.waker, self.metrics));
        Ok(Some(Recovered { core, journal, snapshots, durable, actions }))
    }

    /// Puts the state together from the newest good snapshot and the log.
    fn replay(
        &mut self,
        store: &SnapshotStore,
        empty: &[u8],
        disk: Box<dyn Disk>,
        least: LogPosition,
    ) -> Result<Reading, Setback> {
        let begun = Instant::now();
        let snapshot = self.restore(store, empty);
        let from = snapshot.as_ref().map_or(InstanceId(0), |(head, _)| head.instance);
        let config = CoreConfig { start: Start::Fresh, ..self.config.clone() };
        let mut core = Core::restore(config.clone(), snapshot);
        let settings =
            LogSettings { salt: random_bytes().map_err(Setback::Failed)?, ..LogSettings::default() };
        let mut recovery = log::Recovery::open(disk, self.directory.identity(), settings)
            .map_err(|error| self.setback(error))?;
        let mut records = 0;
        let mut told = begun;
        while let Some(record) = recovery.next_record().map_err(|error| self.setback(error))? {
            let position = record.position;
            let known = Record::decode(Bytes::copy_from_slice(record.payload)).map_err(|error| {
                Setback::Lost(format!("record {} of the log is none ({error})", position.0))
            })?;
            self.replay_one(&mut core, position, known)?;
            records += 1;
            if records % RECORDS_PER_LOOK == 0 && told.elapsed() >= TELL_PERIOD {
                told = Instant::now();
                info!(records, instance = %core.status().executed, "reading the log");
                if (self.is_stopped)() {
                    return Err(Setback::Stopped);
                }
            }
        }
        let (log, tail) = match recovery.finish().map_err(|error| self.setback(error))? {
            RecoveredLog::Ready(log, tail) => (log, tail),
            RecoveredLog::Damaged(damaged) => {
                return Err(Setback::Lost(format!("log damage: {}", damaged.damage())));
            }
        };
        if log.last() < least {
            return Err(Setback::Lost(format!(
                "the log ends with record {}, and it had {} when the replica stopped: an older copy of the data \
                 directory?",
                log.last().0,
                least.0
            )));
        }
        let mut actions = Vec::new();
        let is_first = from == InstanceId(0) && log.last() == LogPosition(0);
        if is_first && self.directory.life() == Life::First {
            core = Core::new(config);
        } else {
            core.resume(self.now, &mut actions);
            info!(
                instance = %core.status().executed,
                snapshot = %from,
                records,
                log = ?tail,
                seconds = begun.elapsed().as_secs_f64(),
                "recovered"
            );
        }
        Ok(Reading { core, log, actions })
    }

    /// Takes a record, and executes what it decides.
    fn replay_one(&mut self, core: &mut Core, position: LogPosition, record: Record) -> Result<(), Setback> {
        let mut actions = Vec::new();
        core.replay(position, record, &mut actions).map_err(|error| {
            Setback::Lost(format!("record {} of the log does not lead to a state ({error})", position.0))
        })?;
        for action in actions {
            let Action::Execute(delivery) = action else { continue };
            let results = self.executor.execute(&delivery).results;
            let executed = Event::Executed { instance: delivery.instance, results };
            // Whoever waited for these results has had them, or asks again.
            core.handle(self.now, executed, &mut Vec::new());
        }
        Ok(())
    }

    /// Gives the service the state of the newest snapshot that is good.
    fn restore(&mut self, store: &SnapshotStore, empty: &[u8]) -> Option<(SnapshotHead, Digest)> {
        for manifest in store.manifests().rev() {
            let begun = Instant::now();
            match snapshots::read(store, manifest.instance, |source| self.executor.restore(source)) {
                Ok(restored) => {
                    info!(
                        instance = %manifest.instance,
                        bytes = restored.bytes,
                        seconds = begun.elapsed().as_secs_f64(),
                        "snapshot read"
                    );
                    return Some((restored.head, restored.root));
                }
                Err(failure) => {
                    warn!("{failure}");
                    // It may have got half of a state.
                    self.executor.reset(empty);
                }
            }
        }
        None
    }

    fn setback(&self, error: StorageError) -> Setback {
        match error {
            StorageError::Damaged(damage) => Setback::Lost(format!("log damage: {damage}")),
            StorageError::FileDamaged { file, offset } => {
                Setback::Lost(format!("{file} is damaged at offset {offset}"))
            }
            other => Setback::Failed(refused(self.directory.path(), &self.directory.identity(), other)),
        }
    }
}

fn without_log(core: Core, actions: Vec<Action>) -> Recovered {
    Recovered { core, journal: Journal::None, snapshots: None, durable: LogPosition(0), actions }
}
