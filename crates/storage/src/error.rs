//! What can go wrong on disk, as the caller needs to tell it apart.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::log::Damage;

/// What was being done when the disk refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Listing the directory.
    List,
    /// Opening a file.
    Open,
    /// Creating a file.
    Create,
    /// Reserving room for a file.
    Allocate,
    /// Reading a file.
    Read,
    /// Writing a file.
    Write,
    /// Making a file durable.
    Sync,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making the directory durable.
    SyncDirectory,
    /// Locking the directory.
    Lock,
}

impl fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Open => "open",
            Self::Create => "create",
            Self::Allocate => "allocate",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDirectory => "sync directory of",
            Self::Lock => "lock",
        })
    }
}

/// Why a transferred snapshot did not take what it was given.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TransferRefusal {
    /// The snapshot has not so many chunks.
    #[error("there is no chunk {index} of {chunks}")]
    NoSuchChunk {
        /// The chunk's number, from 0.
        index: usize,
        /// How many there are.
        chunks: usize,
    },
    /// The bytes are not those of the chunk.
    #[error("the bytes are not those of chunk {index}")]
    WrongChunk {
        /// The chunk's number, from 0.
        index: usize,
    },
    /// Not all chunks are here.
    #[error("{missing} chunks are missing")]
    Incomplete {
        /// How many.
        missing: usize,
    },
}

/// Why storage could not do what it was asked to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StorageError {
    /// The disk refused. After a failed write or sync nothing is known of what is durable: the replica stops [LOG-1].
    #[error("cannot {operation} {file}: {message}")]
    Disk {
        /// What was being done.
        operation: DiskOperation,
        /// The file's name.
        file: String,
        /// The kind of refusal.
        kind: io::ErrorKind,
        /// The operating system's words.
        message: String,
    },
    /// There is no room for another file; nothing was lost, and it may be tried again when there is.
    #[error("the disk is full: no room for {file}")]
    Full {
        /// The file that found no room.
        file: String,
    },
    /// A record or file that is longer than this version keeps.
    #[error("{bytes} bytes are more than the {bytes_max} that one record may have")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest there may be.
        bytes_max: usize,
    },
    /// A file of another cluster.
    #[error("{file} belongs to cluster {found}")]
    WrongCluster {
        /// The file's name.
        file: String,
        /// Whose it is.
        found: regency_protocol::ids::ClusterId,
    },
    /// A file of another replica.
    #[error("{file} belongs to replica {found}")]
    WrongReplica {
        /// The file's name.
        file: String,
        /// Whose it is.
        found: regency_protocol::ids::ReplicaId,
    },
    /// A file of a format that this version does not read.
    #[error("{file} has format version {found}, this program reads version {known}")]
    Version {
        /// The file's name.
        file: String,
        /// Its version.
        found: u32,
        /// The version that is read.
        known: u32,
    },
    /// A directory that another process uses.
    #[error("the directory is in use by {}", .holder.map_or("another process".to_owned(), |id| format!("process {id}")))]
    InUse {
        /// The process, where it is known.
        holder: Option<u32>,
    },
    /// A directory in which a replica lived already.
    #[error("a replica has lived here: there is {file}")]
    Exists {
        /// A file that it left.
        file: String,
    },
    /// The log is damaged where no crash can have torn it.
    #[error("log damage: {0}")]
    Damaged(Damage),
    /// A record that was cut from the log, maybe while it was being read.
    #[error("record {position} was cut from the log")]
    Cut {
        /// Its number.
        position: regency_protocol::ids::LogPosition,
    },
    /// A file of a snapshot, or a mark, that is not what was written.
    #[error("{file} is damaged at offset {offset}")]
    FileDamaged {
        /// The file's name.
        file: String,
        /// Where the first bad piece begins.
        offset: u64,
    },
    /// A chunk, or the end of a transfer, that was not accepted; what was put before stays.
    #[error("transferred snapshot: {0}")]
    Transfer(TransferRefusal),
}

impl StorageError {
    /// The same, but as [`StorageError::Full`] if it says that there is no room.
    pub(crate) fn or_full(self) -> Self {
        match self {
            Self::Disk { kind: io::ErrorKind::StorageFull, file, .. } => Self::Full { file },
            other => other,
        }
    }

    /// An error of the operating system.
    pub(crate) fn disk(operation: DiskOperation, file: &str, error: &io::Error) -> Self {
        Self::Disk { operation, file: file.to_owned(), kind: error.kind(), message: error.to_string() }
    }
}

/// Says which operation on which file an error belongs to.
pub(crate) trait OnFile<T> {
    /// The error in this crate's words.
    fn on(self, operation: DiskOperation, file: &str) -> Result<T, StorageError>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on(self, operation: DiskOperation, file: &str) -> Result<T, StorageError> {
        self.map_err(|error| StorageError::disk(operation, file, &error))
    }
}
