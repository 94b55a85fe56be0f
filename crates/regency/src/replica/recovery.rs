//! From what lies in the data directory to a replica that goes on [RECOVER-1].
//!
//! On the replica's own thread, before it serves anybody: the newest good snapshot, then the log, executed through
//! the service, then [`Core::resume`]. A log that is damaged, or ends too early, has lost votes [RECOVER-2]: a mark
//! says so before a new one is begun, and until the core knows that they do not matter any more. What is missing
//! beside votes comes from the other replicas.

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
use regency_storage::log::{self, DamagedLog, Log, LogSettings, Recovered as RecoveredLog, Tail};
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
use super::spares::{self, Spares};
use super::written_log::WrittenLog;
use crate::failure::{ErrorCode, Failure};
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
    /// Answers those who ask meanwhile how far it is; tells whether somebody wants it to end before it is done.
    pub(super) heed: &'a mut dyn FnMut(&Core) -> bool,
}

/// A replica that is about to take part.
pub(super) struct Recovered {
    pub(super) core: Core,
    pub(super) journal: Journal,
    pub(super) snapshots: Snapshots,
    /// Everything up to it is durable.
    pub(super) durable: LogPosition,
    /// What the core wants done first.
    pub(super) actions: Vec<Action>,
}

/// Why a reading did not come to its end.
enum Setback {
    /// The log is damaged: votes are lost.
    Damaged(Box<DamagedLog>),
    /// It ends before the last record that it had: votes are lost.
    Short { last: LogPosition, least: LogPosition },
    /// It is not there, and it was: votes are lost.
    Gone,
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

/// What there is beside the log.
struct Ground {
    store: SnapshotStore,
    /// The image of the service's state before it has executed anything.
    empty: Vec<u8>,
    begun: Instant,
}

impl Recovery<'_> {
    /// Does all of it; nothing if it was stopped.
    pub(super) fn run(self) -> Result<Option<Recovered>, Failure> {
        let store = SnapshotStore::open(Box::new(self.directory.disk()), self.directory.identity());
        let ground = Ground {
            store: store.map_err(|error| self.failure(error))?.with_reserve(self.reserve_bytes),
            empty: self.executor.image(),
            begun: Instant::now(),
        };
        match self.config.durability {
            Durability::None => self.run_without_log(ground).map(Some),
            Durability::Sync | Durability::Async => self.run_with_log(ground),
        }
    }

    /// Votes are in memory only, snapshots are not.
    fn run_without_log(mut self, ground: Ground) -> Result<Recovered, Failure> {
        let mut actions = Vec::new();
        let core = match self.directory.life() {
            Life::First | Life::Kept { .. } => {
                self.directory.begin_voting()?;
                Core::new(self.config(Start::Fresh))
            }
            Life::VotesLost => match self.restore(&ground) {
                None => Core::new(self.config(Start::StateLost)),
                snapshot @ Some(_) => self.restart(snapshot, &mut actions),
            },
        };
        let snapshots = self.snapshots(ground.store);
        Ok(Recovered { core, journal: Journal::None, snapshots, durable: LogPosition(0), actions })
    }

    fn run_with_log(mut self, ground: Ground) -> Result<Option<Recovered>, Failure> {
        // The least that the log must have; nothing to compare with once votes are lost.
        let mut least = match self.directory.life() {
            Life::First => Some(LogPosition(0)),
            Life::Kept { records } => Some(records),
            Life::VotesLost => None,
        };
        if least.is_none() {
            self.directory.lose_votes()?;
        }
        let (reading, unsynced) = loop {
            let (disk, unsynced) = self.log_disk();
            match self.read(&ground, disk, least) {
                Ok(reading) => break (reading, unsynced),
                Err(Setback::Failed(failure)) => return Err(failure),
                Err(Setback::Stopped) => return Ok(None),
                Err(Setback::Damaged(damaged)) => {
                    self.lose(&format!("log damage: {}", damaged.damage()))?;
                    self.executor.reset(&ground.empty);
                    break (self.begin_anew(&ground, *damaged)?, unsynced);
                }
                Err(Setback::Short { last, least: had }) => {
                    self.lose(&format!(
                        "the log ends with record {}, and it had {} when the replica stopped: an older copy of the \
                         data directory?",
                        last.0, had.0
                    ))?;
                    self.executor.reset(&ground.empty);
                    least = None;
                }
                Err(Setback::Gone) => {
                    self.lose("there is no log, and the replica has had one: was it removed?")?;
                    self.executor.reset(&ground.empty);
                    least = None;
                }
            }
        };
        if least.is_some() && self.directory.life() != Life::VotesLost {
            // Durable before the first vote can leave.
            self.directory.begin_voting()?;
        }
        let Reading { core, log, actions } = reading;
        let durable = log.durable();
        let room = Room::new(self.reserve_bytes);
        let (me, metrics) = (self.config.me, self.metrics.clone());
        let journal = match unsynced {
            None => {
                let disk = Box::new(self.directory.disk());
                let spares = Spares::start(me, disk, log.settings(), self.reserve_bytes)?;
                let waker = self.waker.clone();
                Journal::Sync(DiskThread::start(me, log, Some(spares), room, waker, metrics)?)
            }
            Some(unsynced) => Journal::Async(Box::new(WrittenLog::start(me, log, unsynced, room, metrics)?)),
        };
        let snapshots = self.snapshots(ground.store);
        Ok(Some(Recovered { core, journal, snapshots, durable, actions }))
    }

    /// The disk as the log sees it.
    fn log_disk(&self) -> (Box<dyn Disk>, Option<Unsynced>) {
        match self.config.durability {
            Durability::Sync | Durability::None => (Box::new(self.directory.disk()), None),
            Durability::Async => {
                let (disk, unsynced) = LazyDisk::new(self.directory.disk());
                (Box::new(disk), Some(unsynced))
            }
        }
    }

    fn snapshots(&self, store: SnapshotStore) -> Snapshots {
        let disk = self.directory.open_disk();
        Snapshots::new(store, disk, self.directory.identity(), self.waker.clone(), self.metrics.clone())
    }

    fn config(&self, start: Start) -> CoreConfig {
        CoreConfig { start, ..self.config.clone() }
    }

    /// Votes are lost: durable before anything new is recorded.
    fn lose(&mut self, cause: &str) -> Result<(), Failure> {
        warn!(
            "state-lost: {cause}. What this replica misses comes from the others; until what its lost votes can have \
               been for is past, it does not vote, and counts in f"
        );
        self.directory.lose_votes()
    }

    /// Puts the state together from the newest good snapshot and the log.
    fn read(
        &mut self,
        ground: &Ground,
        disk: Box<dyn Disk>,
        least: Option<LogPosition>,
    ) -> Result<Reading, Setback> {
        let snapshot = self.restore(ground);
        let from = snapshot.as_ref().map_or(InstanceId(0), |(head, _)| head.instance);
        let start = if least.is_some() { Start::Fresh } else { Start::StateLost };
        let mut core = Core::restore(self.config(start), snapshot);
        let is_synced = self.config.durability == Durability::Sync;
        let settings = LogSettings {
            filled_bytes: is_synced.then_some(spares::FILLED_BYTES),
            salt: random_bytes().map_err(Setback::Failed)?,
            ..LogSettings::default()
        };
        let mut recovery = log::Recovery::open(disk, self.directory.identity(), settings)
            .map_err(|error| self.setback(error))?;
        let mut records = 0;
        let mut told = ground.begun;
        while let Some(record) = recovery.next_record().map_err(|error| self.setback(error))? {
            let position = record.position;
            let known = Record::decode(Bytes::copy_from_slice(record.payload))
                .map_err(|error| Setback::Failed(unknown_record(position, &error)))?;
            self.replay(&mut core, position, known)?;
            records += 1;
            if records % RECORDS_PER_LOOK != 0 {
                continue;
            }
            if (self.heed)(&core) {
                return Err(Setback::Stopped);
            }
            if told.elapsed() >= TELL_PERIOD {
                told = Instant::now();
                let (segment, segments) = recovery.segments();
                info!(records, instance = %core.status().executed, segment, segments, "reading the log");
            }
        }
        // Before a new one is made, for which it might be taken.
        if recovery.is_absent() && least.is_some() && self.directory.life() != Life::First {
            return Err(Setback::Gone);
        }
        let (log, tail) = match recovery.finish().map_err(|error| self.setback(error))? {
            RecoveredLog::Ready(log, tail) => (log, tail),
            RecoveredLog::Damaged(damaged) => return Err(Setback::Damaged(Box::new(damaged))),
        };
        if let Some(least) = least.filter(|least| log.last() < *least) {
            return Err(Setback::Short { last: log.last(), least });
        }
        let mut actions = Vec::new();
        let is_first = from == InstanceId(0) && log.last() == LogPosition(0);
        if is_first && self.directory.life() == Life::First {
            core = Core::new(self.config(Start::Fresh));
        } else {
            core.resume(self.now, &mut actions);
            self.tell(ground, &core, from, records, &tail);
        }
        Ok(Reading { core, log, actions })
    }

    /// Sets a damaged log aside and begins a new one, at the newest good snapshot.
    ///
    /// What the damaged one leads to beyond that stays unused: what it decided would be missing in the new one.
    fn begin_anew(&mut self, ground: &Ground, damaged: DamagedLog) -> Result<Reading, Failure> {
        let snapshot = self.restore(ground);
        let from = snapshot.as_ref().map_or(InstanceId(0), |(head, _)| head.instance);
        let log = damaged.begin_anew(LogPosition(1)).map_err(|error| self.failure(error))?;
        let mut actions = Vec::new();
        let core = self.restart(snapshot, &mut actions);
        self.tell(ground, &core, from, 0, &Tail::New);
        Ok(Reading { core, log, actions })
    }

    /// A core without votes at a snapshot, or at the beginning.
    fn restart(&self, snapshot: Option<(SnapshotHead, Digest)>, actions: &mut Vec<Action>) -> Core {
        let mut core = Core::restore(self.config(Start::StateLost), snapshot);
        core.resume(self.now, actions);
        core
    }

    fn tell(&self, ground: &Ground, core: &Core, snapshot: InstanceId, records: u64, log: &Tail) {
        let votes = match self.directory.life() {
            Life::First | Life::Kept { .. } => "kept",
            Life::VotesLost => "lost",
        };
        info!(
            instance = %core.status().executed,
            %snapshot,
            records,
            ?log,
            votes,
            seconds = ground.begun.elapsed().as_secs_f64(),
            "recovered"
        );
    }

    /// Takes a record, and executes what it decides.
    fn replay(&mut self, core: &mut Core, position: LogPosition, record: Record) -> Result<(), Setback> {
        let mut actions = Vec::new();
        core.replay(position, record, &mut actions)
            .map_err(|error| Setback::Failed(contradiction(position, &error)))?;
        for action in actions {
            let Action::Execute(delivery) = action else { continue };
            let results = self.executor.execute(&delivery).results;
            let executed = Event::Executed { instance: delivery.instance, results };
            // Whoever waited for these results has had them, or asks again.
            core.handle(self.now, executed, &mut Vec::new());
        }
        Ok(())
    }

    /// Gives the service the state of the newest snapshot that is good; a bad one stays, and what is good of it is
    /// used when it comes from others.
    fn restore(&mut self, ground: &Ground) -> Option<(SnapshotHead, Digest)> {
        for manifest in ground.store.manifests().rev() {
            let begun = Instant::now();
            let instance = manifest.instance;
            let reader = ground.store.read(instance).map_err(snapshots::Unusable::from);
            let executor = &mut *self.executor;
            match reader.and_then(|reader| snapshots::read(reader, |source| executor.restore(source))) {
                Ok(restored) => {
                    info!(
                        %instance,
                        bytes = restored.bytes,
                        seconds = begun.elapsed().as_secs_f64(),
                        "snapshot read"
                    );
                    return Some((restored.head, restored.root));
                }
                Err(error) => {
                    warn!(
                        "the snapshot of instance {instance} cannot be used ({error}): an older one, or the other \
                         replicas, must do"
                    );
                    // It may have got half of a state.
                    self.executor.reset(&ground.empty);
                }
            }
        }
        None
    }

    fn setback(&self, error: StorageError) -> Setback {
        Setback::Failed(self.failure(error))
    }

    fn failure(&self, error: StorageError) -> Failure {
        refused(self.directory.path(), &self.directory.identity(), error)
    }
}

/// A record that is as it was written, and still none of this program's.
fn unknown_record(position: LogPosition, error: &impl std::fmt::Display) -> Failure {
    Failure::new(
        ErrorCode::LogDamaged,
        format!("record {} of the log is none that this program knows ({error})", position.0),
        "start the version that wrote it, or a newer one",
    )
}

/// Records that are as they were written, and cannot all be true.
fn contradiction(position: LogPosition, error: &impl std::fmt::Display) -> Failure {
    Failure::new(
        ErrorCode::LogDamaged,
        format!("record {} of the log does not follow from those before ({error})", position.0),
        "keep the data directory, report this, and start the replica with an empty one: it gets its state from the \
         others",
    )
}
