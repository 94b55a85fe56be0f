//! A replica's data directory: one process at a time, one replica for ever, and what is left of the life before.
//!
//! Marks, log and snapshots lie in it, each in the format of `regency-storage`; this file turns what they tell into
//! what the replica may do, and their errors into a person's. A replica that may have forgotten a vote must not
//! vote [RECOVER-2]; a mark keeps it one that has forgotten, whatever it records, until the core says that what it
//! forgot is past.

use std::fs;
use std::path::{Path, PathBuf};

use regency_protocol::ids::{ClusterId, LogPosition, ReplicaId};
use regency_storage::directory::{BootId, DirectoryLock, Life as Past, Marks};
use regency_storage::{Identity, RealDisk, StorageError};

use super::donor::OpenDisk;
use crate::config::Durability;
use crate::failure::{ErrorCode, Failure};

/// Where the operating system tells which of its boots this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Whether a replica has lived in its directory before, and with what it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It never voted.
    First,
    /// It lived before, and everything that it recorded is there.
    Kept {
        /// Records that its log has at least.
        records: LogPosition,
    },
    /// It lived before, or may have, and votes of it may be lost.
    VotesLost,
}

/// A data directory that this process holds.
pub(super) struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    marks: Marks,
    boot: BootId,
    life: Life,
    /// Whether a mark says that votes are lost.
    is_marked_lost: bool,
    /// Holds the directory until it is dropped.
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Opens the directory of `identity`, and holds it.
    pub(super) fn open(path: &Path, identity: Identity, durability: Durability) -> Result<Self, Failure> {
        let lock = hold(path)?;
        let failed = |error| refused(path, &identity, error);
        let (marks, past) = Marks::open(Box::new(RealDisk::new(path)), identity).map_err(failed)?;
        let boot = current_boot();
        let life = life_after(past, durability, boot);
        // A boot without a name is never the same one.
        let boot = boot.map_or_else(random_boot, Ok)?;
        let is_marked_lost = past == Past::VotesLost;
        Ok(Self { path: path.to_owned(), identity, marks, boot, life, is_marked_lost, _lock: lock })
    }

    pub(super) fn life(&self) -> Life {
        self.life
    }

    /// Votes are lost, and stay so after the next start: durable before anything new is recorded.
    pub(super) fn lose_votes(&mut self) -> Result<(), Failure> {
        self.life = Life::VotesLost;
        self.is_marked_lost = true;
        let lost = self.marks.lose_votes();
        lost.map_err(|error| refused(&self.path, &self.identity, error))
    }

    /// What votes that are lost can have been for is past: the log is everything from now on.
    pub(super) fn remember(&mut self) -> Result<(), Failure> {
        if !self.is_marked_lost {
            return Ok(());
        }
        self.begin_voting()?;
        self.is_marked_lost = false;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The files in it.
    pub(super) fn disk(&self) -> RealDisk {
        RealDisk::new(&self.path)
    }

    /// Opens them anew, on any thread.
    pub(super) fn open_disk(&self) -> OpenDisk {
        let disk = self.disk();
        Box::new(move || Box::new(disk.clone()))
    }

    /// From now on votes may leave: durable before the first of them.
    pub(super) fn begin_voting(&mut self) -> Result<(), Failure> {
        let begun = self.marks.begin_voting(self.boot);
        begun.map_err(|error| refused(&self.path, &self.identity, error))
    }

    /// The replica has ended in order: all its records up to `log` are durable.
    pub(super) fn stop(self, log: LogPosition) -> Result<(), Failure> {
        let Self { path, identity, marks, is_marked_lost, .. } = self;
        if is_marked_lost {
            return Ok(());
        }
        marks.stop(log).map_err(|error| refused(&path, &identity, error))
    }
}

/// Makes `path` the data directory of a replica that has never voted in `cluster`; `init` does it once.
///
/// In a directory without this a replica counts as one that lost its votes.
pub fn prepare_data(path: &Path, cluster: ClusterId, replica: ReplicaId) -> Result<(), Failure> {
    let _lock = hold(path)?;
    let identity = Identity { cluster, replica };
    Marks::init(&RealDisk::new(path), identity).map_err(|error| refused(path, &identity, error))
}

/// The data directory of a replica that does not run, held so that it cannot start.
#[derive(Debug)]
pub struct IdleData {
    path: PathBuf,
    /// Holds the directory until it is dropped.
    _lock: DirectoryLock,
}

impl IdleData {
    /// Holds the data directory `path`; an error if a process uses it.
    pub fn hold(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), _lock: hold(path)? })
    }

    /// What a replica that starts here would come back with.
    pub fn life(
        &self,
        cluster: ClusterId,
        replica: ReplicaId,
        durability: Durability,
    ) -> Result<Life, Failure> {
        let identity = Identity { cluster, replica };
        let (_, past) = Marks::open(Box::new(RealDisk::new(&self.path)), identity)
            .map_err(|error| refused(&self.path, &identity, error))?;
        Ok(life_after(past, durability, current_boot()))
    }

    /// Removes everything that a replica left, and makes the directory that of one that never voted in `cluster`.
    ///
    /// That must be another cluster than the one it served: in the old one it is a lie that counts in `f`.
    pub fn renew(self, cluster: ClusterId, replica: ReplicaId) -> Result<(), Failure> {
        let identity = Identity { cluster, replica };
        let disk = RealDisk::new(&self.path);
        let renewed = Marks::wipe(&disk).and_then(|()| Marks::init(&disk, identity));
        renewed.map_err(|error| refused(&self.path, &identity, error))
    }
}

/// What is left of a life, by what the durability kept of it.
fn life_after(past: Past, durability: Durability, boot: Option<BootId>) -> Life {
    match (durability, past) {
        (_, Past::First) => Life::First,
        (_, Past::Unknown | Past::VotesLost) | (Durability::None, _) => Life::VotesLost,
        (Durability::Sync | Durability::Async, Past::CleanStop { log }) => Life::Kept { records: log },
        (Durability::Sync, Past::Interrupted { .. }) => Life::Kept { records: LogPosition(0) },
        // What was written and not synced is there as long as the operating system has not gone down.
        (Durability::Async, Past::Interrupted { boot: then }) if Some(then) == boot => {
            Life::Kept { records: LogPosition(0) }
        }
        (Durability::Async, Past::Interrupted { .. }) => Life::VotesLost,
    }
}

fn hold(path: &Path) -> Result<DirectoryLock, Failure> {
    fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
    DirectoryLock::hold(path).map_err(|error| match error {
        StorageError::InUse { holder } => {
            let holder = holder.map_or("another process".to_owned(), |id| format!("process {id}"));
            Failure::new(
                ErrorCode::DirectoryInUse,
                format!("data directory {} is in use by {holder}", path.display()),
                "stop that one first; a replica must not run twice",
            )
        }
        other => unusable(path, &other),
    })
}

/// The boot that this system is in, if it says so.
fn current_boot() -> Option<BootId> {
    parse_boot(&fs::read_to_string(BOOT_ID_FILE).ok()?)
}

fn parse_boot(text: &str) -> Option<BootId> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(|number| BootId(number.to_be_bytes()))
}

fn random_boot() -> Result<BootId, Failure> {
    random_bytes().map(BootId)
}

/// Bytes that nobody can guess.
pub(super) fn random_bytes() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(ErrorCode::System, format!("no randomness ({error})"), "look into the system's log")
    })?;
    Ok(bytes)
}

/// What storage says of a directory, for a person.
pub(super) fn refused(path: &Path, own: &Identity, error: StorageError) -> Failure {
    match error {
        StorageError::WrongCluster { found, .. } => Failure::new(
            ErrorCode::WrongCluster,
            format!("cluster id: data directory {found}, configuration {}", own.cluster),
            "wrong directory?",
        ),
        StorageError::WrongReplica { found, .. } => Failure::new(
            ErrorCode::WrongReplica,
            format!("data directory {} belongs to replica {found}, not to {}", path.display(), own.replica),
            "wrong directory?",
        ),
        StorageError::FileDamaged { file, .. } => Failure::new(
            ErrorCode::Disk,
            format!("{} is damaged or missing, and says whose directory this is", path.join(file).display()),
            "empty the directory: the replica gets all it misses from the others, and counts in f until then; never put \
             an older copy back",
        ),
        other => unusable(path, &other),
    }
}

fn unusable(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::new(
        ErrorCode::Disk,
        format!("data directory {} cannot be used ({error})", path.display()),
        "check the path, its owner and the disk",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("regency-data-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn prepared(name: &str) -> PathBuf {
        let path = scratch(name);
        prepare_data(&path, OWN.cluster, OWN.replica).unwrap();
        path
    }

    fn life(path: &Path, durability: Durability) -> Life {
        DataDirectory::open(path, OWN, durability).unwrap().life()
    }

    #[test]
    fn a_second_life_in_one_directory_is_told() {
        let path = prepared("life");
        let mut directory = DataDirectory::open(&path, OWN, Durability::None).unwrap();
        assert_eq!(directory.life(), Life::First);
        directory.begin_voting().unwrap();
        drop(directory);
        assert_eq!(life(&path, Durability::None), Life::VotesLost);
        assert_eq!(life(&path, Durability::Sync), Life::Kept { records: LogPosition(0) });
        let stopping = DataDirectory::open(&path, OWN, Durability::Async).unwrap();
        assert_eq!(stopping.life(), Life::Kept { records: LogPosition(0) }, "the same boot");
        stopping.stop(LogPosition(9)).unwrap();
        assert_eq!(life(&path, Durability::Async), Life::Kept { records: LogPosition(9) });
        assert_eq!(life(&path, Durability::None), Life::VotesLost);
    }

    #[test]
    fn lost_votes_are_lost_after_each_start_until_they_do_not_matter() {
        let path = prepared("lost");
        let open = || DataDirectory::open(&path, OWN, Durability::Sync).unwrap();
        let mut directory = open();
        directory.begin_voting().unwrap();
        directory.lose_votes().unwrap();
        assert_eq!(directory.life(), Life::VotesLost);
        directory.stop(LogPosition(9)).unwrap();
        let mut directory = open();
        assert_eq!(directory.life(), Life::VotesLost, "a stop in order says nothing of what was lost before");
        directory.remember().unwrap();
        drop(directory);
        let mut directory = open();
        assert_eq!(directory.life(), Life::Kept { records: LogPosition(0) });
        directory.remember().unwrap();
        directory.stop(LogPosition(4)).unwrap();
        assert_eq!(open().life(), Life::Kept { records: LogPosition(4) });
    }

    #[test]
    fn what_was_not_synced_ends_with_the_boot() {
        let [then, now] = [BootId([1; 16]), BootId([2; 16])];
        let after = |durability| life_after(Past::Interrupted { boot: then }, durability, Some(now));
        assert_eq!(after(Durability::Async), Life::VotesLost);
        assert_eq!(after(Durability::Sync), Life::Kept { records: LogPosition(0) });
    }

    #[test]
    fn an_empty_directory_is_no_first_life() {
        let path = scratch("empty");
        assert_eq!(life(&path, Durability::Sync), Life::VotesLost);
        assert_eq!(life(&path, Durability::None), Life::VotesLost);
    }

    #[test]
    fn a_directory_serves_one_process_at_a_time() {
        let path = prepared("lock");
        let _held = DataDirectory::open(&path, OWN, Durability::Sync).unwrap();
        let refused = DataDirectory::open(&path, OWN, Durability::Sync).err().unwrap();
        assert_eq!(refused.code(), ErrorCode::DirectoryInUse);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(IdleData::hold(&path).unwrap_err().code(), ErrorCode::DirectoryInUse);
    }

    #[test]
    fn a_renewed_directory_begins_a_first_life_in_another_cluster() {
        let path = prepared("renew");
        DataDirectory::open(&path, OWN, Durability::Sync).unwrap().begin_voting().unwrap();
        let cluster = ClusterId([8; 32]);
        IdleData::hold(&path).unwrap().renew(cluster, OWN.replica).unwrap();
        let idle = IdleData::hold(&path).unwrap();
        assert_eq!(idle.life(cluster, OWN.replica, Durability::Sync).unwrap(), Life::First);
    }

    #[test]
    fn a_directory_of_another_cluster_or_replica_is_refused() {
        let path = prepared("foreign");
        let refused = |identity| DataDirectory::open(&path, identity, Durability::Sync).err().unwrap().code();
        assert_eq!(refused(Identity { cluster: ClusterId([8; 32]), ..OWN }), ErrorCode::WrongCluster);
        assert_eq!(refused(Identity { replica: ReplicaId(2), ..OWN }), ErrorCode::WrongReplica);
        fs::write(path.join("identity"), "nonsense").unwrap();
        assert_eq!(refused(OWN), ErrorCode::Disk);
    }

    #[test]
    fn a_boot_is_read_as_the_system_writes_it() {
        let boot = parse_boot("01020304-0506-0708-090a-0b0c0d0e0f10\n");
        assert_eq!(boot, Some(BootId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])));
        assert_eq!(parse_boot("nonsense"), None);
    }
}
