//! What a simulated replica keeps on disk: its log, as far as that is durable, and its newest snapshot.
//!
//! The world appends what the core wants written, begins and ends commits, and takes back after a crash what is
//! left: all that was durable, and any prefix of what was on its way.

mod files;
mod image;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::digest::{Domain, digest};
use regency_protocol::ids::{ClusterId, Digest, InstanceId, LogPosition, ReplicaId};
use regency_protocol::manifest::Manifest;
use regency_protocol::record::{Record, RecordedBatch};

use crate::random::Stream;
use files::Files;
pub(crate) use image::{Image, Incoming};

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// All records up to this one are durable.
    Durable(LogPosition),
    /// There is no room; it may be tried again.
    Full,
    /// The disk failed: nothing is known of what was on its way.
    Failed,
}

/// What stood on disk after a crash.
pub(crate) struct Remains {
    /// The newest snapshot.
    pub(crate) snapshot: Option<Image>,
    /// The records, oldest first.
    pub(crate) records: Vec<(LogPosition, Bytes)>,
    /// Whether the end of the log was cut off, because it never was whole.
    pub(crate) is_torn: bool,
    /// Whether something is missing that was durable, and nobody can tell.
    pub(crate) has_lost: bool,
}

/// Where the records lie.
enum Medium {
    /// In a list: quick, and enough for what a crash may leave of them.
    List(VecDeque<(LogPosition, Record)>),
    /// In the files of a real log, on a disk that tears and fails.
    Files(Box<Files>),
}

/// A copy of a disk, to be put back later.
enum Copy {
    List(VecDeque<(LogPosition, Record)>),
    Files(regency_storage::DiskImage),
}

/// The disk of one replica.
pub(crate) struct Store {
    medium: Medium,
    /// Appended, and in no commit yet.
    waiting: VecDeque<(LogPosition, Record)>,
    /// In the commit that is under way.
    flying: VecDeque<(LogPosition, Record)>,
    durable: LogPosition,
    last: LogPosition,
    /// The last record of the commit before the newest one.
    group_before: LogPosition,
    /// Records below the first may go when the second is durable.
    cut: Option<(LogPosition, LogPosition)>,
    /// All that are on disk.
    snapshots: BTreeMap<InstanceId, Image>,
    writing: Option<(Image, LogPosition)>,
    /// A chunk of a snapshot that cannot be read any more.
    spoilt: Option<Digest>,
    /// A snapshot that comes from others.
    incoming: Option<Incoming>,
    /// What is on disk of batches and decisions, for others to read.
    readable: BTreeMap<LogPosition, Record>,
    /// The records of decisions that are kept.
    decided: BTreeMap<InstanceId, LogPosition>,
    copy: Option<(Copy, BTreeMap<InstanceId, Image>)>,
    /// Whether the next commit fails, or finds no room.
    fails: bool,
    is_full: bool,
    /// Whether the log has been damaged, or exchanged for the copy, since the replica last started.
    is_damaged: bool,
    is_exchanged: bool,
    /// Whether a write was to go astray: for good, since a restart may find the right bytes in the cache, and a later one
    /// the wrong ones on the disk.
    is_astray: bool,
    /// Whether the last crash left a part of a commit.
    is_torn: bool,
}

impl Store {
    /// An empty list of records.
    pub(crate) fn light() -> Self {
        Self::new(Medium::List(VecDeque::new()))
    }

    /// A real log on an empty disk.
    pub(crate) fn real(cluster: ClusterId, replica: ReplicaId, seed: u64) -> Self {
        Self::new(Medium::Files(Box::new(Files::new(cluster, replica, seed))))
    }

    fn new(medium: Medium) -> Self {
        Self {
            medium,
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            durable: LogPosition(0),
            last: LogPosition(0),
            group_before: LogPosition(0),
            cut: None,
            snapshots: BTreeMap::new(),
            writing: None,
            spoilt: None,
            incoming: None,
            readable: BTreeMap::new(),
            decided: BTreeMap::new(),
            copy: None,
            fails: false,
            is_full: false,
            is_damaged: false,
            is_exchanged: false,
            is_astray: false,
            is_torn: false,
        }
    }

    /// The last record that was appended.
    pub(crate) fn last(&self) -> LogPosition {
        self.last
    }

    /// The last record that is durable.
    pub(crate) fn durable(&self) -> LogPosition {
        self.durable
    }

    /// Whether the records lie in files.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self.medium, Medium::Files(_))
    }

    /// The newest snapshot on disk.
    pub(crate) fn snapshot(&self) -> Option<&Image> {
        self.snapshots.last_key_value().map(|(_, image)| image)
    }

    /// Whether a snapshot is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The record that says that `instance` is decided, if it is kept.
    pub(crate) fn decided(&self, instance: InstanceId) -> Option<LogPosition> {
        self.decided.get(&instance).copied()
    }

    /// The highest instance whose decision a record below `below` tells.
    pub(crate) fn last_decided_below(&self, below: LogPosition) -> Option<InstanceId> {
        self.decided.iter().rev().find(|(_, position)| **position < below).map(|(instance, _)| *instance)
    }

    /// Appends a record; false if it is not the next one.
    pub(crate) fn append(&mut self, position: LogPosition, record: Record) -> bool {
        let is_next = position == self.last.next();
        self.last = position;
        if let Record::Decided { instance, .. } = &record {
            self.decided.insert(*instance, position);
        }
        self.waiting.push_back((position, record));
        is_next
    }

    /// Writes all that was appended without waiting for the disk.
    pub(crate) fn write_through(&mut self) {
        if self.begin_commit() {
            self.end_commit();
        }
    }

    /// Begins to make durable what was appended, unless that is under way or there is nothing.
    pub(crate) fn begin_commit(&mut self) -> bool {
        let begins = self.flying.is_empty() && !self.waiting.is_empty();
        if begins {
            std::mem::swap(&mut self.flying, &mut self.waiting);
        }
        begins
    }

    /// The commit that was begun ends.
    pub(crate) fn end_commit(&mut self) -> Commit {
        let Some((last, _)) = self.flying.back() else { return Commit::Durable(self.durable) };
        let last = *last;
        let written: Vec<_> = self.flying.iter().filter(|(_, record)| is_of_use(record)).cloned().collect();
        match &mut self.medium {
            Medium::List(_) if self.fails => return Commit::Failed,
            Medium::List(_) if self.is_full => return Commit::Full,
            Medium::List(records) => records.append(&mut self.flying),
            Medium::Files(files) => match files.commit(&self.flying) {
                Commit::Durable(_) => self.flying.clear(),
                other => return other,
            },
        }
        self.readable.extend(written);
        self.group_before = self.durable;
        self.durable = last;
        if let Some((below, after)) = self.cut
            && after <= self.durable
        {
            self.cut = None;
            match &mut self.medium {
                Medium::List(records) => {
                    let count = records.partition_point(|(position, _)| *position < below);
                    records.drain(..count);
                }
                Medium::Files(files) => files.cut(below),
            }
            self.decided.retain(|_, position| *position >= below);
            self.readable = self.readable.split_off(&below);
        }
        Commit::Durable(last)
    }

    /// Records below `below` may go as soon as all that was appended so far is durable.
    pub(crate) fn cut(&mut self, below: LogPosition) {
        self.cut = Some((below, self.last));
    }

    /// A snapshot is to be written.
    pub(crate) fn begin_snapshot(&mut self, image: Image, after: LogPosition) {
        self.writing = Some((image, after));
    }

    /// Whether the snapshot that is being written waits for records that are not durable yet.
    pub(crate) fn waits_for_records(&self) -> bool {
        self.writing.as_ref().is_some_and(|(_, after)| *after > self.durable)
    }

    /// The snapshot that was to be written is on disk in full.
    pub(crate) fn end_snapshot(&mut self, stable: InstanceId) {
        if let Some((image, _)) = self.writing.take() {
            self.keep(image, stable);
        }
    }

    /// A snapshot is on disk in full: the newest two are kept, and all from the stable one on.
    pub(crate) fn keep(&mut self, image: Image, stable: InstanceId) {
        self.spoilt = None;
        self.snapshots.insert(image.instance, image);
        while self.snapshots.len() > 2
            && self.snapshots.first_key_value().is_some_and(|(oldest, _)| *oldest < stable)
        {
            self.snapshots.pop_first();
        }
    }

    /// The snapshot of an instance, if its root is this one.
    pub(crate) fn image(&self, instance: InstanceId, root: &Digest) -> Option<&Image> {
        self.snapshots.get(&instance).filter(|image| image.root == *root)
    }

    /// The instance of the snapshot with this root.
    pub(crate) fn instance_of(&self, root: &Digest) -> Option<InstanceId> {
        self.snapshots.values().find(|image| image.root == *root).map(|image| image.instance)
    }

    /// The snapshot of `instance` is not what it should be.
    pub(crate) fn discard(&mut self, instance: InstanceId) {
        self.snapshots.remove(&instance);
    }

    /// Some chunk of the snapshot of `instance` cannot be read any more.
    pub(crate) fn spoil(&mut self, instance: InstanceId, place: usize) {
        let image = self.snapshots.get(&instance);
        let chunks: Vec<Bytes> = image.into_iter().flat_map(Image::chunks).collect();
        self.spoilt = chunks.get(place.checked_rem(chunks.len()).unwrap_or(0)).map(chunk_hash);
    }

    /// Makes room for a snapshot that comes from others; says which chunks are here.
    pub(crate) fn begin_transfer(&mut self, manifest: &Manifest) -> Vec<bool> {
        let old = self.incoming.take();
        let images = self.snapshots.values();
        let mut known: BTreeMap<Digest, Bytes> =
            images.flat_map(|image| image.chunks().map(|chunk| (chunk_hash(&chunk), chunk))).collect();
        known.extend(old.iter().flat_map(Incoming::chunks).map(|chunk| (chunk_hash(&chunk), chunk)));
        if let Some(spoilt) = &self.spoilt {
            known.remove(spoilt);
        }
        let incoming = Incoming::new(manifest, &known);
        let held = incoming.held();
        self.incoming = Some(incoming);
        held
    }

    /// The snapshot that comes from others.
    pub(crate) fn incoming(&mut self) -> Option<&mut Incoming> {
        self.incoming.as_mut()
    }

    /// Whether this chunk of it is here.
    pub(crate) fn has_come(&self, instance: InstanceId, index: u32) -> bool {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let incoming = self.incoming.as_ref().filter(|incoming| incoming.instance() == instance);
        incoming.is_some_and(|incoming| incoming.has(place))
    }

    /// It is complete.
    pub(crate) fn take_incoming(&mut self) -> Option<Incoming> {
        self.incoming.take()
    }

    /// The decided batches from `from` to `last`, as far as they stand in the log from `position` on without a gap.
    pub(crate) fn batches(
        &self,
        from: InstanceId,
        last: InstanceId,
        position: LogPosition,
    ) -> Vec<RecordedBatch> {
        let mut seen = BTreeMap::new();
        let mut found = Vec::new();
        let mut next = from;
        for record in self.readable.range(position..).map(|(_, record)| record) {
            match record {
                Record::Batch(recorded) => {
                    let digest = recorded.batch.digest();
                    seen.insert((recorded.batch.instance, digest), recorded.clone());
                }
                Record::Decided { instance, digest, .. } if *instance == next && next <= last => {
                    let Some(recorded) = seen.remove(&(*instance, *digest)) else { break };
                    found.push(recorded);
                    next = next.next();
                }
                _ => {}
            }
        }
        found
    }

    /// The replica ends: of what was on its way to the disk some prefix is left.
    pub(crate) fn crash(&mut self, stream: &mut Stream) {
        let kept = stream.index(self.flying.len() + 1);
        self.is_torn = (1..self.flying.len()).contains(&kept);
        match &mut self.medium {
            Medium::List(records) => records.extend(self.flying.drain(..kept)),
            Medium::Files(files) => files.crash(&self.flying, stream),
        }
        self.flying.clear();
        self.waiting.clear();
        self.writing = None;
        self.cut = None;
        self.fails = false;
    }

    /// What is left on disk; `None` if the log is damaged.
    ///
    /// # Errors
    ///
    /// What must not be: that something durable is missing.
    pub(crate) fn recover(&mut self) -> Result<Option<Remains>, String> {
        let is_damaged = std::mem::take(&mut self.is_damaged);
        let is_exchanged = std::mem::take(&mut self.is_exchanged);
        let (records, is_torn) = match &mut self.medium {
            Medium::List(_) if is_damaged && !is_exchanged => return Ok(None),
            Medium::List(records) => {
                let frames = records.iter().map(|(position, record)| (*position, record.to_frame()));
                (frames.collect(), self.is_torn)
            }
            Medium::Files(files) => match files.recover()? {
                Some(found) => found,
                None if is_damaged || is_exchanged || self.is_astray => return Ok(None),
                None => return Err(String::from("the log is damaged, and nothing has harmed its disk")),
            },
        };
        let last = records.last().map_or(LogPosition(0), |(position, _)| *position);
        // Damage of the last commit cannot be told from a torn tail.
        let owed = if is_damaged { self.group_before } else { self.durable };
        if !is_exchanged && !self.is_astray && last < owed {
            return Err(format!("{owed} records were durable, {last} are left"));
        }
        let has_lost = last < self.durable;
        self.last = last;
        if last > self.durable {
            self.group_before = self.durable;
        }
        self.durable = last;
        self.group_before = self.group_before.min(last);
        self.decided.clear();
        self.readable.clear();
        Ok(Some(Remains { snapshot: self.snapshot().cloned(), records, is_torn, has_lost }))
    }

    /// Notes which records tell of decisions, as they are read again.
    pub(crate) fn note_read(&mut self, position: LogPosition, record: &Record) {
        if let Record::Decided { instance, .. } = record {
            self.decided.insert(*instance, position);
        }
        if is_of_use(record) {
            self.readable.insert(position, record.clone());
        }
    }

    /// Nothing of it can be relied on: an empty log takes its place.
    pub(crate) fn begin_anew(&mut self) {
        let medium = match &mut self.medium {
            Medium::List(_) => Medium::List(VecDeque::new()),
            Medium::Files(files) => Medium::Files(Box::new(files.begin_anew())),
        };
        *self = Self::new(medium);
    }

    /// The next commit fails.
    pub(crate) fn fail(&mut self) {
        match &mut self.medium {
            Medium::List(_) => self.fails = true,
            Medium::Files(files) => files.fail(),
        }
    }

    /// There is no room any more, or there is again.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        if let Medium::Files(files) = &mut self.medium {
            files.set_full(is_full);
        }
    }

    /// Whether there is no room: then a replica may not even start.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// What was written without a sync is gone.
    pub(crate) fn lose(&mut self) {
        self.is_damaged = true;
    }

    /// A bit of the log turns, while the replica is down.
    pub(crate) fn rot(&mut self, stream: &mut Stream) {
        self.is_damaged = true;
        if let Medium::Files(files) = &mut self.medium {
            files.rot(stream);
        }
    }

    /// The next write is lost, or goes to another place: only real files have places.
    pub(crate) fn lead_astray(&mut self, is_lost: bool, stream: &mut Stream) {
        if let Medium::Files(files) = &mut self.medium {
            self.is_astray = true;
            files.lead_astray(is_lost, stream);
        }
    }

    /// Makes a copy of the whole disk.
    pub(crate) fn copy(&mut self) {
        let copy = match &self.medium {
            Medium::List(records) => Copy::List(records.clone()),
            Medium::Files(files) => Copy::Files(files.copy()),
        };
        self.copy = Some((copy, self.snapshots.clone()));
    }

    /// Puts the copy back; false if there is none.
    pub(crate) fn put_back(&mut self) -> bool {
        let Some((copy, snapshots)) = &self.copy else { return false };
        match (copy, &mut self.medium) {
            (Copy::List(copied), Medium::List(records)) => records.clone_from(copied),
            (Copy::Files(copied), Medium::Files(files)) => files.put_back(copied),
            (Copy::List(_) | Copy::Files(_), _) => return false,
        }
        self.snapshots.clone_from(snapshots);
        self.decided.clear();
        self.is_exchanged = true;
        true
    }
}

/// Whether others may want to read it.
fn is_of_use(record: &Record) -> bool {
    matches!(record, Record::Batch(_) | Record::Decided { .. })
}

fn chunk_hash(chunk: &Bytes) -> Digest {
    digest(Domain::Chunk, chunk)
}
