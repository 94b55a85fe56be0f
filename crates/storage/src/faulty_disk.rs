//! A disk in memory that forgets, tears, lies and refuses, as a seed or its owner decides.
//!
//! It keeps what is durable apart from what was only written, block by block, as a page cache does. The simulator
//! and the tests crash it and go on with what is left. Holes cost nothing, so large preallocated files are free.

mod content;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use content::{Content, FileState};

/// A choice among `0..bound`; `bound` is at least 1.
pub type Random = Box<dyn FnMut(u64) -> u64 + Send>;

/// Something that goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read fails.
    ReadError,
    /// A write fails; a part of it may have been done.
    WriteError,
    /// A sync fails; as with a real page cache, what it should have written counts as clean from then on, and only
    /// some of it is durable.
    SyncError,
    /// A write is reported as done, and never reaches the disk.
    LostWrite,
    /// A write reaches the disk at another offset of the file.
    MisdirectedWrite {
        /// Where it lands.
        offset: u64,
    },
}

/// All that was durable at one moment.
#[derive(Clone, Debug)]
pub struct DiskImage {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
}

/// A disk in memory; its clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

struct State {
    random: Random,
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names that are not durable, oldest first.
    changes: Vec<Change>,
    /// Each with the number of such operations that come before.
    faults: Vec<(Fault, u64)>,
    capacity: Option<u64>,
    operations: u64,
    /// Changing operations until the power fails.
    power: Option<u64>,
    is_off: bool,
    /// Files that were opened in an earlier life are of no use.
    life: u64,
}

#[derive(Clone)]
enum Change {
    Add { name: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Remove { name: String, file: u64 },
}

impl FaultyDisk {
    /// An empty disk that asks `random` what a crash leaves.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            faults: Vec::new(),
            capacity: None,
            operations: 0,
            power: None,
            is_off: false,
            life: 0,
        })))
    }

    /// An empty disk whose crashes follow from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut state = seed;
        Self::new(Box::new(move |bound| {
            // SplitMix64: a step and a mix.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
        }))
    }

    /// Power failure and restart: of what was not synced each block survives, is lost or torn, each change of a
    /// name survives or not. Open files are of no use any more; faults that were injected stay.
    pub fn crash(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        for file in state.files.values_mut() {
            file.crash(&mut state.random);
        }
        for change in std::mem::take(&mut state.changes) {
            if (state.random)(2) == 1 {
                change.apply(&mut state.durable_names);
            }
        }
        state.names.clone_from(&state.durable_names);
        state.restart();
    }

    /// The end of the process alone: nothing that was written is lost, only open files are.
    pub fn kill(&self) {
        self.state().restart();
    }

    /// Lets `fault` happen to the operation of its kind that `after` others of that kind precede.
    pub fn inject(&self, fault: Fault, after: u64) {
        self.state().faults.push((fault, after));
    }

    /// Whether every fault that was injected has happened.
    #[must_use]
    pub fn is_faultless(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// Forgets the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Lets the power fail in the middle of the changing operation that `after` others precede: it and all later
    /// ones fail until [`crash`](Self::crash).
    pub fn cut_power_after(&self, after: u64) {
        self.state().power = Some(after);
    }

    /// Operations so far that change something: creations, writes, syncs and the like.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Leaves room for so many more bytes; `None` is room without end.
    pub fn set_free_bytes(&self, free: Option<u64>) {
        let mut state = self.state();
        state.capacity = free.map(|free| free.saturating_add(state.used()));
    }

    /// Flips the bits of `mask` in the byte at `offset`. False if there is no such byte.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut state = self.state();
        let Some(number) = state.names.get(name).copied() else { return false };
        state.files.get_mut(&number).is_some_and(|file| file.rot(offset, mask))
    }

    /// All that is durable now.
    #[must_use]
    pub fn save(&self) -> DiskImage {
        let state = self.state();
        let durable = |number: &u64| Some((*number, state.files.get(number)?.durable.clone()));
        DiskImage {
            names: state.durable_names.clone(),
            files: state.durable_names.values().filter_map(durable).collect(),
        }
    }

    /// Puts an older copy of the whole disk back; open files are of no use any more.
    pub fn restore(&self, image: &DiskImage) {
        let mut state = self.state();
        state.names.clone_from(&image.names);
        state.durable_names.clone_from(&image.names);
        state.changes.clear();
        let beyond = image.files.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
        state.next_file = state.next_file.max(beyond);
        state.files = image.files.iter().map(|(number, content)| (*number, content.clone().into())).collect();
        state.restart();
    }

    /// The names of all files in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file, as a reader sees them.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.files.get(state.names.get(name)?)?;
        let mut bytes = vec![0; usize::try_from(file.cache.length).ok()?];
        file.cache.read(0, &mut bytes);
        Some(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn restart(&mut self) {
        let named: std::collections::BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|number, _| named.contains(number));
        self.life = self.life.wrapping_add(1);
        self.power = None;
        self.is_off = false;
    }

    /// Counts an operation that changes something. Whether the power fails in it: then what it does may or may not
    /// survive, and it does not return.
    fn change(&mut self) -> io::Result<Power> {
        self.check_power()?;
        self.operations = self.operations.saturating_add(1);
        match self.power.as_mut() {
            Some(0) => {
                self.is_off = true;
                Ok(Power::Fails)
            }
            Some(left) => {
                *left = left.saturating_sub(1);
                Ok(Power::Stays)
            }
            None => Ok(Power::Stays),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.is_off { Err(power_failure()) } else { Ok(()) }
    }

    /// The fault that happens to this operation, one of those that `concerns` it.
    fn fault(&mut self, concerns: fn(&Fault) -> bool) -> Option<Fault> {
        let mut happens = None;
        for (index, (fault, after)) in self.faults.iter_mut().enumerate() {
            if concerns(fault) {
                if *after == 0 && happens.is_none() {
                    happens = Some(index);
                }
                *after = after.saturating_sub(1);
            }
        }
        happens.map(|index| self.faults.remove(index).0)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|number| self.files.get(number))
            .fold(0, |sum, file| sum.saturating_add(file.cache.length))
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn file(&mut self, number: u64, life: u64) -> io::Result<&mut FileState> {
        self.check_power()?;
        if life != self.life {
            return Err(io::Error::other("the file was opened before the restart"));
        }
        self.files.get_mut(&number).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Lets a file grow to `length` if there is room.
    fn grow(&mut self, number: u64, life: u64, length: u64) -> io::Result<()> {
        let now = self.file(number, life)?.cache.length;
        if length > now {
            if self.capacity.is_some() && length.saturating_sub(now) > self.free() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.file(number, life)?.cache.length = length;
        }
        Ok(())
    }
}

enum Power {
    Stays,
    Fails,
}

impl Power {
    fn outcome(self) -> io::Result<()> {
        match self {
            Self::Stays => Ok(()),
            Self::Fails => Err(power_failure()),
        }
    }
}

fn power_failure() -> io::Error {
    io::Error::other("the power is off")
}

/// What a disk says that cannot.
fn input_output_error() -> io::Error {
    rustix::io::Errno::IO.into()
}

impl Change {
    /// Does it to the durable names, of which earlier changes may have been lost.
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add { name, file } => {
                names.insert(name, file);
            }
            Self::Rename { from, to, file } => {
                if names.get(&from) == Some(&file) {
                    names.remove(&from);
                }
                names.insert(to, file);
            }
            Self::Remove { name, file } => {
                if names.get(&name) == Some(&file) {
                    names.remove(&name);
                }
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_power()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.check_power()?;
        let number = *state.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), number, life: state.life }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let power = state.change()?;
        let number = state.next_file;
        state.next_file = number.saturating_add(1);
        state.files.insert(number, FileState::default());
        state.names.insert(name.to_owned(), number);
        state.changes.push(Change::Add { name: name.to_owned(), file: number });
        power.outcome()?;
        Ok(Box::new(FaultyFile { disk: self.clone(), number, life: state.life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let power = state.change()?;
        let file = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.changes.push(Change::Rename { from: from.to_owned(), to: to.to_owned(), file });
        power.outcome()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let power = state.change()?;
        let file = state.names.remove(name).ok_or(ErrorKind::NotFound)?;
        state.changes.push(Change::Remove { name: name.to_owned(), file });
        power.outcome()
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?.outcome()?;
        if state.fault(|fault| *fault == Fault::SyncError).is_some() {
            return Err(input_output_error());
        }
        let names = state.names.clone();
        state.durable_names = names;
        state.changes.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.check_power()?;
        Ok(state.free())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    number: u64,
    life: u64,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().file(self.number, self.life)?.cache.length)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.fault(|fault| *fault == Fault::ReadError).is_some() {
            return Err(input_output_error());
        }
        Ok(state.file(self.number, self.life)?.cache.read(offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.file(self.number, self.life)?;
        let power = state.change()?;
        let is_off = std::mem::replace(&mut state.is_off, false);
        let fault = state.fault(|fault| match fault {
            Fault::WriteError | Fault::LostWrite | Fault::MisdirectedWrite { .. } => true,
            Fault::ReadError | Fault::SyncError => false,
        });
        state.grow(self.number, self.life, offset.saturating_add(bytes.len() as u64))?;
        let written = match fault {
            Some(Fault::WriteError) => {
                let part = (state.random)((bytes.len() as u64).saturating_add(1));
                bytes.get(..usize::try_from(part).unwrap_or(0)).unwrap_or_default()
            }
            _ => bytes,
        };
        let file = state.file(self.number, self.life)?;
        match fault {
            Some(Fault::LostWrite) => file.cache.write(offset, written),
            Some(Fault::MisdirectedWrite { offset: elsewhere }) => {
                file.cache.write(offset, written);
                file.misdirect(elsewhere, written);
            }
            Some(Fault::WriteError | Fault::ReadError | Fault::SyncError) | None => {
                file.write(offset, written);
            }
        }
        state.is_off = is_off;
        match fault {
            Some(Fault::WriteError) => Err(input_output_error()),
            _ => power.outcome(),
        }
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let power = state.change()?;
        if !state.is_off {
            state.grow(self.number, self.life, length)?;
        }
        power.outcome()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.disk.state();
        guard.change()?.outcome()?;
        let fails = guard.fault(|fault| *fault == Fault::SyncError).is_some();
        let state = &mut *guard;
        if fails {
            let mut choice = std::mem::replace(&mut state.random, Box::new(|_| 0));
            let outcome = state.file(self.number, self.life).map(|file| file.lose_dirty(&mut choice));
            state.random = choice;
            outcome?;
            return Err(input_output_error());
        }
        state.file(self.number, self.life)?.sync();
        Ok(())
    }
}
