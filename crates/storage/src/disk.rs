//! The disk as the rest of this crate sees it: a flat directory of files.
//!
//! Log, snapshots and marks use nothing else, so that the simulator can put a disk with faults in its place. What
//! is written is durable only after [`DiskFile::sync`]; that a name exists, went away or changed, only after
//! [`Disk::sync_directory`].

use std::io;

/// A flat directory of files.
pub trait Disk: Send {
    /// The names of all files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Creates an empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, in place of one that has the new name. Open files stay usable.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads from `offset` on; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reserves room and grows the file to at least `length` zero bytes.
    fn allocate(&mut self, length: u64) -> io::Result<()>;

    /// Makes the content and the length durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}
