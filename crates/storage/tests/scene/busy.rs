//! A disk on which something else happens before each look at it, as if another thread worked there.

use std::io;
use std::sync::{Arc, Mutex};

use regency_storage::{Disk, DiskFile, FaultyDisk};

type Meanwhile = Arc<Mutex<dyn FnMut() + Send>>;

/// A disk whose reader is interrupted before each listing, opening and reading.
pub(crate) struct BusyDisk {
    disk: FaultyDisk,
    meanwhile: Meanwhile,
}

impl BusyDisk {
    pub(crate) fn new(disk: FaultyDisk, meanwhile: impl FnMut() + Send + 'static) -> Self {
        Self { disk, meanwhile: Arc::new(Mutex::new(meanwhile)) }
    }
}

struct BusyFile {
    file: Box<dyn DiskFile>,
    meanwhile: Meanwhile,
}

fn interrupt(meanwhile: &Meanwhile) {
    (meanwhile.lock().unwrap())();
}

/// What reads a log or a snapshot that is in use changes nothing.
fn refused<T>() -> io::Result<T> {
    panic!("a reader must not change anything")
}

impl Disk for BusyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        interrupt(&self.meanwhile);
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        interrupt(&self.meanwhile);
        let file = self.disk.open(name)?;
        Ok(Box::new(BusyFile { file, meanwhile: self.meanwhile.clone() }))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

impl DiskFile for BusyFile {
    fn length(&self) -> io::Result<u64> {
        interrupt(&self.meanwhile);
        self.file.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt(&self.meanwhile);
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn allocate(&mut self, _: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&mut self) -> io::Result<()> {
        refused()
    }
}
