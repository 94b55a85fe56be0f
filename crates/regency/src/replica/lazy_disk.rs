//! A disk that writes at once and syncs later: what durability `async` keeps its log on.
//!
//! What was written survives the process, whatever becomes of it; what was synced survives the machine. A file's
//! `sync` only notes its name, and [`Unsynced::sync`] catches up, on another thread.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regency_storage::{Disk, DiskFile, RealDisk};

/// The files that were opened, under the names that they have by now, and which of them are not synced.
#[derive(Debug, Default)]
struct Files {
    opened: u64,
    names: BTreeMap<u64, String>,
    unsynced: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Files>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory whose files are synced when somebody catches up.
pub(super) struct LazyDisk {
    disk: RealDisk,
    files: Shared,
}

/// What is to be synced of a [`LazyDisk`].
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    disk: RealDisk,
    files: Shared,
}

impl LazyDisk {
    /// The lazy view of `disk`, and the way to catch up.
    pub(super) fn new(disk: RealDisk) -> (Self, Unsynced) {
        let files = Shared::default();
        (Self { disk: disk.clone(), files: files.clone() }, Unsynced { disk, files })
    }

    fn lazy(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let mut files = self.files.lock();
        let number = files.opened;
        files.opened += 1;
        files.names.insert(number, name.to_owned());
        Box::new(LazyFile { file, number, files: self.files.clone() })
    }
}

impl Unsynced {
    /// Makes durable what was written until now; tells how many files that were.
    pub(super) fn sync(&self) -> io::Result<usize> {
        let numbers = std::mem::take(&mut self.files.lock().unsynced);
        let mut synced = 0;
        for number in numbers {
            while let Some(name) = self.name(number) {
                match self.disk.open(&name).and_then(|mut file| file.sync()) {
                    // Renamed or removed since: then it is known by another name, or by none.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && self.name(number) != Some(name) => {}
                    outcome => {
                        outcome?;
                        synced += 1;
                        break;
                    }
                }
            }
        }
        Ok(synced)
    }

    fn name(&self, number: u64) -> Option<String> {
        self.files.lock().names.get(&number).cloned()
    }
}

impl Disk for LazyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.lazy(name, file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.lazy(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // Under the lock, so that whoever catches up finds the file under the name that is noted.
        let mut files = self.files.lock();
        self.disk.rename(from, to)?;
        files.names.retain(|_, name| name != to);
        files.names.values_mut().filter(|name| *name == from).for_each(|name| to.clone_into(name));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().names.retain(|_, known| known != name);
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// One of its files.
struct LazyFile {
    file: Box<dyn DiskFile>,
    number: u64,
    files: Shared,
}

impl DiskFile for LazyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.lock().unsynced.insert(self.number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_synced_under_the_name_that_it_has_by_then() {
        let path = std::env::temp_dir().join(format!("regency-lazy-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let (disk, unsynced) = LazyDisk::new(RealDisk::new(&path));
        let mut file = disk.create("a.draft").unwrap();
        file.write_at(0, b"content").unwrap();
        file.sync().unwrap();
        disk.rename("a.draft", "a").unwrap();
        assert_eq!(unsynced.sync().unwrap(), 1);
        assert_eq!(unsynced.sync().unwrap(), 0, "nothing was written since");
        file.sync().unwrap();
        assert_eq!(unsynced.files.lock().unsynced.len(), 1);
        assert_eq!(unsynced.sync().unwrap(), 1);
        file.sync().unwrap();
        disk.remove("a").unwrap();
        assert_eq!(unsynced.sync().unwrap(), 0);
    }
}
