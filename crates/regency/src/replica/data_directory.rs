//! A replica's data directory: one process at a time, one replica for ever, and whether it lived before.
//!
//! Without durable votes a restarted replica does not know how it voted. The boot marker, durable before the
//! first vote can leave, tells it so: it must not vote again [RECOVER-2].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use regency_protocol::ids::{ClusterId, ReplicaId};

use crate::failure::{ErrorCode, Failure};
use crate::keys::parse_hex;

/// The boot marker: exists from before the first vote.
const MARKER_FILE: &str = "booted";
/// Locked by the process that uses the directory; names it.
const LOCK_FILE: &str = "lock";
/// Longest marker or lock file that is read.
const FILE_BYTES_MAX: u64 = 1024;

/// Whether a replica has lived in its directory before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It never voted.
    First,
    /// It lived before, and its votes are lost.
    VotesLost,
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct DataDirectory {
    /// Holds the lock until it is dropped.
    _lock: File,
}

impl DataDirectory {
    /// Creates or opens the directory, locks it, and makes the boot marker durable.
    pub(super) fn open(path: &Path, cluster: ClusterId, replica: ReplicaId) -> Result<(Self, Life), Failure> {
        let disk = |error: io::Error| unusable(path, &error);
        fs::create_dir_all(path).map_err(disk)?;
        let lock = lock(path).map_err(disk)??;
        let marker = path.join(MARKER_FILE);
        let life = match read_small(&marker) {
            Ok(text) => {
                check_marker(path, &text, cluster, replica)?;
                Life::VotesLost
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("cluster = \"{cluster}\"\nreplica = {replica}\n");
                write_durably(path, &marker, &text).map_err(disk)?;
                Life::First
            }
            Err(error) => return Err(disk(error)),
        };
        Ok((Self { _lock: lock }, life))
    }
}

/// Where the boot marker of the data directory `path` lies.
///
/// Whoever removes it declares that the replica never voted. That is true of a whole cluster that begins anew;
/// of one replica of a running cluster it is a lie that counts in `f`.
#[must_use]
pub fn boot_marker(path: &Path) -> PathBuf {
    path.join(MARKER_FILE)
}

/// The data directory of a replica that does not run, held so that it cannot start.
#[derive(Debug)]
pub struct IdleData {
    path: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

impl IdleData {
    /// Holds the data directory `path`; an error if a process uses it.
    pub fn hold(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
        let lock = lock(path).map_err(|error| unusable(path, &error))??;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Removes the boot marker, durably, and lets the directory go.
    ///
    /// This declares that the replica never voted in the cluster that its directory will serve next. The cluster
    /// must be another one by then: in the old one it is a lie that counts in `f`.
    pub fn forget(self) -> Result<(), Failure> {
        let removed = match fs::remove_file(self.path.join(MARKER_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.and_then(|()| File::open(&self.path)?.sync_all()),
        };
        removed.map_err(|error| unusable(&self.path, &error))
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        ErrorCode::Disk,
        format!("data directory {} cannot be used ({error})", path.display()),
        "check the path, its owner and the disk",
    )
}

fn lock(path: &Path) -> io::Result<Result<File, Failure>> {
    let name = path.join(LOCK_FILE);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let holder = read_small(&name).unwrap_or_default();
            let holder = match holder.trim().parse::<u32>() {
                Ok(id) => format!("process {id}"),
                Err(_) => "another process".to_owned(),
            };
            Ok(Err(Failure::new(
                ErrorCode::DirectoryInUse,
                format!("data directory {} is in use by {holder}", path.display()),
                "stop that one first; a replica must not run twice",
            )))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn check_marker(path: &Path, text: &str, cluster: ClusterId, replica: ReplicaId) -> Result<(), Failure> {
    let line = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('=')).map(str::trim)
    };
    let marked_cluster = line("cluster").and_then(|value| parse_hex(value.trim_matches('"')));
    let marked_replica = line("replica").and_then(|value| value.parse::<u16>().ok());
    let (Some(marked_cluster), Some(marked_replica)) = (marked_cluster, marked_replica) else {
        return Err(Failure::new(
            ErrorCode::Disk,
            format!("{} is damaged", path.join(MARKER_FILE).display()),
            "do not remove it: it says that this replica has voted; give the replica up, or restore the file",
        ));
    };
    if marked_cluster != cluster.0 {
        return Err(Failure::new(
            ErrorCode::WrongCluster,
            format!("cluster id: data directory {}, configuration {cluster}", ClusterId(marked_cluster)),
            "wrong directory?",
        ));
    }
    if marked_replica != replica.0 {
        return Err(Failure::new(
            ErrorCode::WrongReplica,
            format!(
                "data directory {} belongs to replica {marked_replica}, not to {replica}",
                path.display()
            ),
            "wrong directory?",
        ));
    }
    Ok(())
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file so that after a crash it is there in full, or not at all.
fn write_durably(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 32]);

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("regency-data-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_second_life_in_one_directory_is_told() {
        let path = scratch("life");
        let (directory, life) = DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap();
        assert_eq!(life, Life::First);
        drop(directory);
        let (_directory, life) = DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap();
        assert_eq!(life, Life::VotesLost);
    }

    #[test]
    fn a_directory_serves_one_process_at_a_time() {
        let path = scratch("lock");
        let _held = DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap();
        let refused = DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DirectoryInUse);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    }

    #[test]
    fn a_forgotten_life_is_a_first_one_again() {
        let path = scratch("forget");
        let running = DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap();
        assert_eq!(IdleData::hold(&path).unwrap_err().code(), ErrorCode::DirectoryInUse);
        drop(running);
        IdleData::hold(&path).unwrap().forget().unwrap();
        IdleData::hold(&path).unwrap().forget().unwrap();
        let (_, life) = DataDirectory::open(&path, ClusterId([8; 32]), ReplicaId(1)).unwrap();
        assert_eq!(life, Life::First);
    }

    #[test]
    fn a_directory_of_another_cluster_or_replica_is_refused() {
        let path = scratch("foreign");
        drop(DataDirectory::open(&path, CLUSTER, ReplicaId(1)).unwrap());
        let refused = |cluster, replica| DataDirectory::open(&path, cluster, replica).unwrap_err().code();
        assert_eq!(refused(ClusterId([8; 32]), ReplicaId(1)), ErrorCode::WrongCluster);
        assert_eq!(refused(CLUSTER, ReplicaId(2)), ErrorCode::WrongReplica);
        fs::write(boot_marker(&path), "nonsense").unwrap();
        assert_eq!(refused(CLUSTER, ReplicaId(1)), ErrorCode::Disk);
    }
}
