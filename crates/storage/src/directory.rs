//! Whose data directory this is, whether a process uses it, and whether votes may have been lost.
//!
//! Four marks answer the last question. *Never voted* is written by `init` alone [PROPOSE-5]; *clean stop* when
//! the replica stops in order [RECOVER-2]; both go, durably, before the first vote. *Running* names the boot of the
//! operating system in which the replica began to vote last. *Votes lost* outweighs them all, from before a new log
//! is begun until nothing that was forgotten matters any more. An empty directory has none, and that is amnesia: a
//! replica that lost its disk must not be taken for one that never voted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Buf;
use regency_protocol::ids::LogPosition;

use crate::Identity;
use crate::block::{self, Refusal};
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};

/// Locked by the process that uses the directory; names it.
const LOCK_FILE: &str = "lock";
/// Whose directory it is.
const IDENTITY_FILE: &str = "identity";
/// The replica has never voted.
const NEVER_VOTED_FILE: &str = "never-voted";
/// The replica stopped in order.
const CLEAN_STOP_FILE: &str = "clean-stop";
/// The replica began to vote.
const RUNNING_FILE: &str = "running";
/// The replica lost votes, and its log is not everything that it ever recorded.
const VOTES_LOST_FILE: &str = "votes-lost";
/// How the names of all other files begin that a replica keeps.
const PREFIXES: [&str; 4] = ["log-", "snapshot-", "transfer-", "damaged-"];

const MARK_MAGIC: &[u8; 8] = b"rgnmark ";
const MARK_BYTES: usize = 128;
/// Bytes of a mark's kind.
const KIND_BYTES: usize = 16;
/// Longest lock file that is read.
const LOCK_BYTES_MAX: u64 = 64;

/// One boot of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

/// What the marks tell of the life before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// There was none: `init` or a promotion made this directory, and no vote has left since.
    First,
    /// It stopped in order, with so many records in its log.
    CleanStop {
        /// The log's last record.
        log: LogPosition,
    },
    /// It was running: what its durability kept is all there is.
    Interrupted {
        /// The boot in which it ran.
        boot: BootId,
    },
    /// It had lost votes, and what those can have been for was not past.
    VotesLost,
    /// Nothing is known: an empty directory. Amnesia.
    Unknown,
}

/// Holds a data directory against other processes until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Holds the directory `path`.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when a process holds it, or the disk refused.
    pub fn hold(path: &Path) -> Result<Self, StorageError> {
        let name = path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let (file, is_written) = match options.open(&name) {
            // Enough to read what a failed disk has left.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => (File::open(&name), false),
            opened => (opened, true),
        };
        let mut file = file.on(DiskOperation::Open, LOCK_FILE)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::InUse { holder: holder(&name) });
            }
            Err(TryLockError::Error(error)) => {
                return Err(StorageError::disk(DiskOperation::Lock, LOCK_FILE, &error));
            }
        }
        if is_written {
            file.set_len(0).on(DiskOperation::Write, LOCK_FILE)?;
            writeln!(file, "{}", std::process::id()).on(DiskOperation::Write, LOCK_FILE)?;
        }
        Ok(Self { _file: file })
    }
}

/// The process that says that it holds the directory.
fn holder(name: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(name).ok()?.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The marks of a data directory.
pub struct Marks {
    disk: Box<dyn Disk>,
    identity: Identity,
}

impl Marks {
    /// Makes an empty directory the one of a replica that has never voted.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when a replica lived here, or the disk refused.
    pub fn init(disk: &dyn Disk, identity: Identity) -> Result<(), StorageError> {
        let names = disk.list().on(DiskOperation::List, ".")?;
        if let Some(file) = names.into_iter().find(|name| is_kept(name)) {
            return Err(StorageError::Exists { file });
        }
        // The mark comes first: what has an identity and no mark is no first start.
        write(disk, &identity, NEVER_VOTED_FILE, &[])?;
        write(disk, &identity, IDENTITY_FILE, &[])
    }

    /// Removes all that a replica keeps, durably. It is then as if the disk had been lost.
    ///
    /// # Errors
    /// The disk refused.
    pub fn wipe(disk: &dyn Disk) -> Result<(), StorageError> {
        for name in disk.list().on(DiskOperation::List, ".")? {
            if is_kept(&name) || name.ends_with(".draft") {
                disk.remove(&name).on(DiskOperation::Remove, &name)?;
            }
        }
        disk.sync_directory().on(DiskOperation::SyncDirectory, ".")
    }

    /// Reads the marks of `identity`'s directory. An empty one becomes its own, without a past.
    ///
    /// # Errors
    /// A directory of another cluster, replica or format, or one that does not say whose it is; or the disk refused.
    pub fn open(disk: Box<dyn Disk>, identity: Identity) -> Result<(Self, Life), StorageError> {
        let life = Self::look(disk.as_ref(), &identity)?;
        if read(disk.as_ref(), &identity, IDENTITY_FILE)?.is_none() {
            write(disk.as_ref(), &identity, IDENTITY_FILE, &[])?;
        }
        Ok((Self { disk, identity }, life))
    }

    /// Reads the marks of `identity`'s directory, and changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look(disk: &dyn Disk, identity: &Identity) -> Result<Life, StorageError> {
        if read(disk, identity, IDENTITY_FILE)?.is_none() {
            // A crash may have come between the two files that `init` writes.
            let names = disk.list().on(DiskOperation::List, ".")?;
            if names.iter().any(|name| is_kept(name) && name != NEVER_VOTED_FILE) {
                return Err(damaged(IDENTITY_FILE));
            }
        }
        match life(disk, identity) {
            // A mark that cannot be read may have been any: then votes may be lost.
            Err(StorageError::FileDamaged { .. }) => Ok(Life::Unknown),
            life => life,
        }
    }

    /// From now on the replica may vote: the marks of a past without loss go, durably, and then that of a loss, whose
    /// consequences are past.
    ///
    /// # Errors
    /// The disk refused: no vote may leave.
    pub fn begin_voting(&mut self, boot: BootId) -> Result<(), StorageError> {
        write(self.disk.as_ref(), &self.identity, RUNNING_FILE, &boot.0)?;
        self.remove(&[NEVER_VOTED_FILE, CLEAN_STOP_FILE])?;
        // Last: as long as it is there, the others mean nothing.
        self.remove(&[VOTES_LOST_FILE])
    }

    /// Votes of this replica are lost, and remain so, durably, until [`begin_voting`](Self::begin_voting), whatever
    /// is recorded meanwhile.
    ///
    /// # Errors
    /// The disk refused: no new log may be begun.
    pub fn lose_votes(&mut self) -> Result<(), StorageError> {
        write(self.disk.as_ref(), &self.identity, VOTES_LOST_FILE, &[])?;
        self.remove(&[NEVER_VOTED_FILE, CLEAN_STOP_FILE])
    }

    /// The replica has stopped, votes no more, and all that it recorded up to `log` is durable.
    ///
    /// # Errors
    /// The disk refused.
    pub fn stop(self, log: LogPosition) -> Result<(), StorageError> {
        write(self.disk.as_ref(), &self.identity, CLEAN_STOP_FILE, &log.0.to_le_bytes())
    }

    /// Removes marks, as far as they are there, durably.
    fn remove(&self, names: &[&str]) -> Result<(), StorageError> {
        let mut has_changed = false;
        for name in names {
            match self.disk.remove(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => {
                    outcome.on(DiskOperation::Remove, name)?;
                    has_changed = true;
                }
            }
        }
        if has_changed { self.disk.sync_directory().on(DiskOperation::SyncDirectory, ".") } else { Ok(()) }
    }
}

fn life(disk: &dyn Disk, identity: &Identity) -> Result<Life, StorageError> {
    if read(disk, identity, VOTES_LOST_FILE)?.is_some() {
        return Ok(Life::VotesLost);
    }
    if read(disk, identity, NEVER_VOTED_FILE)?.is_some() {
        return Ok(Life::First);
    }
    if let Some(mark) = read(disk, identity, CLEAN_STOP_FILE)? {
        let log = mark.as_slice().try_get_u64_le().map_err(|_| damaged(CLEAN_STOP_FILE))?;
        return Ok(Life::CleanStop { log: LogPosition(log) });
    }
    let Some(mark) = read(disk, identity, RUNNING_FILE)? else { return Ok(Life::Unknown) };
    let (boot, _) = mark.split_first_chunk::<16>().ok_or_else(|| damaged(RUNNING_FILE))?;
    Ok(Life::Interrupted { boot: BootId(*boot) })
}

fn damaged(name: &str) -> StorageError {
    StorageError::FileDamaged { file: name.to_owned(), offset: 0 }
}

/// Whether a replica keeps a file of this name.
fn is_kept(name: &str) -> bool {
    [IDENTITY_FILE, NEVER_VOTED_FILE, CLEAN_STOP_FILE, RUNNING_FILE, VOTES_LOST_FILE].contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Writes the mark `name`: which one it is stands in it, so that none can be renamed to another.
fn write(disk: &dyn Disk, identity: &Identity, name: &str, content: &[u8]) -> Result<(), StorageError> {
    let mut bytes = kind(name).to_vec();
    bytes.extend_from_slice(content);
    block::replace_file(disk, name, &block::seal(MARK_MAGIC, identity, &bytes, MARK_BYTES))
}

/// The content of the mark `name`; nothing if it is not there.
fn read(disk: &dyn Disk, identity: &Identity, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(bytes) = block::read_file(disk, name, MARK_BYTES)? else { return Ok(None) };
    let content = match block::open(MARK_MAGIC, identity, &bytes, name) {
        Ok(content) => content,
        Err(Refusal::Damaged) => return Err(damaged(name)),
        Err(Refusal::Foreign(error)) => return Err(error),
    };
    match content.split_first_chunk::<KIND_BYTES>() {
        Some((found, content)) if *found == kind(name) => Ok(Some(content.to_vec())),
        Some(_) | None => Err(damaged(name)),
    }
}

fn kind(name: &str) -> [u8; KIND_BYTES] {
    let mut kind = [0; KIND_BYTES];
    kind.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    kind
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClusterId, ReplicaId};

    use super::*;
    use crate::{FaultyDisk, RealDisk};

    const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(2) };
    const BOOT: BootId = BootId([4; 16]);

    fn open(disk: &FaultyDisk) -> Result<(Marks, Life), StorageError> {
        Marks::open(Box::new(disk.clone()), IDENTITY)
    }

    #[test]
    fn a_life_begins_stops_and_is_interrupted() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::First);
        let (mut marks, life) = open(&disk).unwrap();
        assert_eq!(life, Life::First);
        marks.begin_voting(BOOT).unwrap();
        drop(marks);
        let (mut marks, life) = open(&disk).unwrap();
        assert_eq!(life, Life::Interrupted { boot: BOOT });
        marks.begin_voting(BootId([5; 16])).unwrap();
        marks.stop(LogPosition(17)).unwrap();
        let (mut marks, life) = open(&disk).unwrap();
        assert_eq!(life, Life::CleanStop { log: LogPosition(17) });
        marks.begin_voting(BOOT).unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::Interrupted { boot: BOOT });
    }

    #[test]
    fn an_empty_directory_is_no_first_start() {
        let disk = FaultyDisk::seeded(1);
        assert_eq!(open(&disk).unwrap().1, Life::Unknown);
        assert_eq!(open(&disk).unwrap().1, Life::Unknown);
        assert!(matches!(Marks::init(&disk, IDENTITY), Err(StorageError::Exists { .. })));
    }

    #[test]
    fn a_directory_without_its_identity_is_not_taken_for_an_empty_one() {
        let disk = FaultyDisk::seeded(1);
        disk.create("log-000000000001").unwrap();
        assert!(matches!(open(&disk), Err(StorageError::FileDamaged { .. })));
    }

    #[test]
    fn a_directory_of_another_cluster_or_replica_is_refused() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
        let refused = Marks::open(Box::new(disk.clone()), other).map(|_| ());
        assert!(matches!(refused, Err(StorageError::WrongCluster { .. })));
        let other = Identity { replica: ReplicaId(3), ..IDENTITY };
        let refused = Marks::open(Box::new(disk), other).map(|_| ());
        assert!(matches!(refused, Err(StorageError::WrongReplica { .. })));
    }

    #[test]
    fn no_mark_passes_for_another() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        let (mut marks, _) = open(&disk).unwrap();
        marks.begin_voting(BOOT).unwrap();
        disk.rename(RUNNING_FILE, NEVER_VOTED_FILE).unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::Unknown);
    }

    #[test]
    fn a_damaged_mark_means_that_votes_may_be_lost_and_a_damaged_identity_ends_it() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        let (mut marks, _) = open(&disk).unwrap();
        marks.begin_voting(BOOT).unwrap();
        marks.stop(LogPosition(17)).unwrap();
        let flip = |name| {
            let mut file = disk.open(name).unwrap();
            let mut byte = [0];
            file.read_at(60, &mut byte).unwrap();
            file.write_at(60, &[byte[0] ^ 1]).unwrap();
        };
        flip(CLEAN_STOP_FILE);
        assert_eq!(open(&disk).unwrap().1, Life::Unknown);
        flip(CLEAN_STOP_FILE);
        assert_eq!(open(&disk).unwrap().1, Life::CleanStop { log: LogPosition(17) });
        flip(IDENTITY_FILE);
        assert!(matches!(open(&disk), Err(StorageError::FileDamaged { .. })));
    }

    #[test]
    fn once_voting_has_begun_no_crash_brings_the_marks_back() {
        for seed in 0..100 {
            let disk = FaultyDisk::seeded(seed);
            Marks::init(&disk, IDENTITY).unwrap();
            let mut after = 0;
            // Until it has succeeded once, the replica has not voted, and either answer is true.
            loop {
                disk.cut_power_after(after);
                let begun = open(&disk).and_then(|(mut marks, _)| marks.begin_voting(BOOT));
                disk.crash();
                if begun.is_ok() {
                    break;
                }
                let life = open(&disk).unwrap().1;
                assert!(life == Life::First || life == Life::Interrupted { boot: BOOT }, "{life:?}");
                after += 1;
            }
            assert_eq!(open(&disk).unwrap().1, Life::Interrupted { boot: BOOT }, "seed {seed}");
        }
    }

    #[test]
    fn a_clean_stop_that_was_durable_stays_until_voting_begins() {
        for seed in 0..50 {
            let disk = FaultyDisk::seeded(seed);
            Marks::init(&disk, IDENTITY).unwrap();
            let (mut marks, _) = open(&disk).unwrap();
            marks.begin_voting(BOOT).unwrap();
            marks.stop(LogPosition(9)).unwrap();
            disk.crash();
            assert_eq!(open(&disk).unwrap().1, Life::CleanStop { log: LogPosition(9) });
        }
    }

    #[test]
    fn lost_votes_stay_lost_until_voting_begins() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        let (mut marks, _) = open(&disk).unwrap();
        marks.begin_voting(BOOT).unwrap();
        marks.stop(LogPosition(9)).unwrap();
        let (mut marks, _) = open(&disk).unwrap();
        marks.lose_votes().unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::VotesLost);
        marks.stop(LogPosition(3)).unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::VotesLost, "whatever else is marked");
        open(&disk).unwrap().0.begin_voting(BOOT).unwrap();
        assert_eq!(open(&disk).unwrap().1, Life::Interrupted { boot: BOOT });
    }

    #[test]
    fn no_crash_between_losing_votes_and_voting_again_hides_the_loss() {
        let later = BootId([5; 16]);
        for seed in 0..100 {
            let disk = FaultyDisk::seeded(seed);
            Marks::init(&disk, IDENTITY).unwrap();
            let (mut marks, _) = open(&disk).unwrap();
            marks.begin_voting(BOOT).unwrap();
            marks.stop(LogPosition(9)).unwrap();
            let mut after = 0;
            loop {
                disk.cut_power_after(after);
                let lost = open(&disk).and_then(|(mut marks, _)| marks.lose_votes());
                disk.crash();
                if lost.is_ok() {
                    break;
                }
                // No new log was begun.
                let life = open(&disk).unwrap().1;
                assert!(
                    life == Life::CleanStop { log: LogPosition(9) } || life == Life::VotesLost,
                    "{life:?}"
                );
                after += 1;
            }
            let mut after = 0;
            loop {
                assert_eq!(open(&disk).unwrap().1, Life::VotesLost, "seed {seed}");
                disk.cut_power_after(after);
                let begun = open(&disk).and_then(|(mut marks, _)| marks.begin_voting(later));
                disk.crash();
                let life = open(&disk).unwrap().1;
                if begun.is_ok() || life != Life::VotesLost {
                    // Never the clean stop of the life before, which knows another log.
                    assert_eq!(life, Life::Interrupted { boot: later }, "seed {seed}");
                    break;
                }
                after += 1;
            }
        }
    }

    #[test]
    fn what_is_wiped_has_no_past() {
        let disk = FaultyDisk::seeded(1);
        Marks::init(&disk, IDENTITY).unwrap();
        Marks::wipe(&disk).unwrap();
        assert_eq!(disk.names(), Vec::<String>::new());
        let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
        Marks::init(&disk, other).unwrap();
        assert_eq!(Marks::open(Box::new(disk), other).unwrap().1, Life::First);
    }

    #[test]
    fn a_directory_serves_one_process_at_a_time() {
        let path = std::env::temp_dir().join(format!("regency-lock-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let held = DirectoryLock::hold(&path).unwrap();
        let refused = DirectoryLock::hold(&path).unwrap_err();
        assert_eq!(refused, StorageError::InUse { holder: Some(std::process::id()) });
        drop(held);
        DirectoryLock::hold(&path).unwrap();
        Marks::init(&RealDisk::new(&path), IDENTITY).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
}
