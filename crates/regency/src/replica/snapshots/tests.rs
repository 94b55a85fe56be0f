//! Tests of the thread that owns the snapshots, on a simulated disk.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll, Token};
use regency_protocol::ids::{ClusterId, ReplicaId};
use regency_storage::{Fault, FaultyDisk};

use super::image::ROOM_PERIOD;
use super::*;
use crate::snapshot::Frozen;

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };
const WAIT: Duration = Duration::from_secs(10);

/// Bytes without a pattern, `variant` of them at every place different.
fn noise(count: usize, variant: u64) -> Vec<u8> {
    let mut state = variant;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// The snapshot that another replica has after `instance`, and its chunks.
fn of_another(instance: u64, content: &[u8]) -> (Arc<Manifest>, Vec<Bytes>) {
    let disk = FaultyDisk::seeded(9);
    let mut store = SnapshotStore::open(Box::new(disk), IDENTITY).unwrap();
    let mut writer = store.begin(InstanceId(instance)).unwrap();
    std::io::Write::write_all(&mut writer, content).unwrap();
    store.install(writer.finish().unwrap()).unwrap();
    let reader = store.read(InstanceId(instance)).unwrap().unwrap();
    let manifest = reader.manifest().clone();
    let chunks = (0..manifest.chunks.len()).map(|at| Bytes::from(reader.chunk(at).unwrap().unwrap()));
    (Arc::new(manifest.clone()), chunks.collect())
}

/// The core's part of a snapshot without sessions.
fn head(instance: u64) -> SnapshotHead {
    let mut bytes = vec![regency_protocol::codec::PROTOCOL_VERSION, 1];
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&instance.to_le_bytes());
    bytes.extend_from_slice(&[0; 32 + 8 + 8 + 4 + 4]);
    SnapshotHead::decode(bytes.into()).unwrap()
}

fn start(disk: &FaultyDisk) -> (Snapshots, Poll) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let metrics = Arc::new(Metrics::new(IDENTITY.replica));
    let store = SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap();
    let again = disk.clone();
    let open: OpenDisk = Box::new(move || Box::new(again.clone()));
    (Snapshots::new(store, open, IDENTITY, waker, metrics), poll)
}

/// The outcome of the next job that is done or has failed.
fn next(snapshots: &mut Snapshots, poll: &mut Poll) -> Result<Done, Failure> {
    let mut events = Events::with_capacity(4);
    let until = Instant::now() + WAIT;
    loop {
        if let Some(done) = snapshots.next_done()? {
            return Ok(done);
        }
        assert!(Instant::now() < until, "no outcome");
        poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
    }
}

fn put(snapshots: &mut Snapshots, instance: InstanceId, index: usize, bytes: &Bytes) {
    let index = u32::try_from(index).unwrap();
    snapshots.transfer(Transfer::Put { instance, index, bytes: bytes.clone() }).unwrap();
}

/// What the service would get of a snapshot: all after the core's part, which tests do not have.
fn content(disk: &FaultyDisk, instance: InstanceId) -> Vec<u8> {
    let mut content = Vec::new();
    let mut reader = SnapshotReader::find(disk, &IDENTITY, instance).unwrap().unwrap();
    reader.read_to_end(&mut content).unwrap();
    content
}

#[test]
fn a_snapshot_of_others_is_begun_kept_and_installed() {
    let disk = FaultyDisk::seeded(1);
    let state = noise(2 << 20, 1);
    let (manifest, chunks) = of_another(20, &state);
    let (instance, root) = (manifest.instance, manifest.root());
    let (mut snapshots, mut poll) = start(&disk);
    snapshots.transfer(Transfer::Begin(manifest.clone())).unwrap();
    let begun = next(&mut snapshots, &mut poll).unwrap();
    assert_eq!(begun, Done::Begun { instance, held: vec![false; chunks.len()] });
    // In any order, and several at once.
    for index in (0..chunks.len()).rev() {
        put(&mut snapshots, instance, index, &chunks[index]);
    }
    for index in (0..chunks.len()).rev() {
        let index = u32::try_from(index).unwrap();
        assert_eq!(next(&mut snapshots, &mut poll).unwrap(), Done::Kept { instance, index });
    }
    assert_eq!(snapshots.obstacle(), None);
    snapshots.transfer(Transfer::Install { instance, root }).unwrap();
    assert_eq!(next(&mut snapshots, &mut poll).unwrap(), Done::Installed { instance });
    assert_eq!(content(&disk, instance), state);
    drop(snapshots);
    let store = SnapshotStore::open(Box::new(disk), IDENTITY).unwrap();
    assert_eq!(store.newest(), Some(manifest.as_ref()));
}

#[test]
fn after_a_crash_a_transfer_goes_on_with_what_is_kept() {
    let disk = FaultyDisk::seeded(2);
    let (manifest, chunks) = of_another(20, &noise(2 << 20, 1));
    let instance = manifest.instance;
    let (mut snapshots, mut poll) = start(&disk);
    snapshots.transfer(Transfer::Begin(manifest.clone())).unwrap();
    next(&mut snapshots, &mut poll).unwrap();
    for index in [0, 2] {
        put(&mut snapshots, instance, index, &chunks[index]);
        next(&mut snapshots, &mut poll).unwrap();
    }
    drop(snapshots);
    // As kill -9 does: what was written is there.
    disk.kill();
    let (mut snapshots, mut poll) = start(&disk);
    snapshots.transfer(Transfer::Begin(manifest)).unwrap();
    let held: Vec<bool> = (0..chunks.len()).map(|index| index == 0 || index == 2).collect();
    assert_eq!(next(&mut snapshots, &mut poll).unwrap(), Done::Begun { instance, held });
}

#[test]
fn an_own_snapshot_that_is_being_written_is_there_before_a_transfer_begins() {
    let disk = FaultyDisk::seeded(3);
    let (mut snapshots, mut poll) = start(&disk);
    let state = noise(1 << 20, 1);
    snapshots.write(Box::new(head(10)), Frozen::image(state.clone()), InstanceId(0)).unwrap();
    let mut changed = state;
    changed[1000] ^= 1;
    let mut bytes = Vec::new();
    let own = head(20).encode();
    bytes.extend_from_slice(&(own.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&own);
    bytes.extend_from_slice(&changed);
    let (manifest, chunks) = of_another(20, &bytes);
    snapshots.transfer(Transfer::Begin(manifest.clone())).unwrap();
    let written = next(&mut snapshots, &mut poll).unwrap();
    assert!(matches!(written, Done::Written { instance: InstanceId(10), .. }));
    let Done::Begun { held, .. } = next(&mut snapshots, &mut poll).unwrap() else { panic!("not begun") };
    let missing: Vec<usize> = (0..held.len()).filter(|index| !held[*index]).collect();
    assert!(missing.len() < chunks.len(), "what is equal is taken over");
    for index in missing {
        put(&mut snapshots, manifest.instance, index, &chunks[index]);
        next(&mut snapshots, &mut poll).unwrap();
    }
    let (instance, root) = (manifest.instance, manifest.root());
    snapshots.transfer(Transfer::Install { instance, root }).unwrap();
    next(&mut snapshots, &mut poll).unwrap();
    let mut taken = Vec::new();
    let restored = snapshots.restore(instance, |source| {
        source.read_to_end(&mut taken)?;
        Ok(())
    });
    let restored = restored.unwrap();
    assert_eq!((restored.head, restored.root), (head(20), root));
    assert_eq!(taken, changed);
}

#[test]
fn what_was_not_begun_or_is_no_chunk_is_an_error_of_its_own() {
    let disk = FaultyDisk::seeded(4);
    let (manifest, chunks) = of_another(20, &noise(1 << 20, 1));
    let (instance, root) = (manifest.instance, manifest.root());
    type Deed<'a> = Box<dyn Fn(&mut Snapshots) + 'a>;
    let deeds: [Deed; 5] = [
        Box::new(|snapshots| put(snapshots, InstanceId(21), 0, &chunks[0])),
        Box::new(|snapshots| put(snapshots, instance, 0, &chunks[1])),
        Box::new(|snapshots| put(snapshots, instance, chunks.len(), &chunks[0])),
        Box::new(|snapshots| snapshots.transfer(Transfer::Install { instance, root }).unwrap()),
        Box::new(|snapshots| {
            let root = Digest([1; 32]);
            snapshots.transfer(Transfer::Install { instance, root }).unwrap();
        }),
    ];
    for deed in deeds {
        let (mut snapshots, mut poll) = start(&disk);
        snapshots.transfer(Transfer::Begin(manifest.clone())).unwrap();
        next(&mut snapshots, &mut poll).unwrap();
        deed(&mut snapshots);
        assert_eq!(next(&mut snapshots, &mut poll).unwrap_err().code(), ErrorCode::Invariant);
    }
}

#[test]
fn a_disk_that_fails_ends_the_replica_and_a_full_one_is_waited_for() {
    let disk = FaultyDisk::seeded(5);
    let (manifest, _) = of_another(20, &noise(1 << 20, 1));
    let (mut snapshots, mut poll) = start(&disk);
    disk.set_free_bytes(Some(1000));
    snapshots.transfer(Transfer::Begin(manifest.clone())).unwrap();
    let until = Instant::now() + WAIT;
    while snapshots.obstacle() != Some(Obstacle::Full) {
        assert!(Instant::now() < until, "nobody has noticed");
        std::thread::yield_now();
    }
    disk.set_free_bytes(None);
    assert!(matches!(next(&mut snapshots, &mut poll).unwrap(), Done::Begun { .. }));
    assert_eq!(snapshots.obstacle(), None);
    disk.inject(Fault::SyncError, 0);
    snapshots.transfer(Transfer::Begin(manifest)).unwrap();
    assert_eq!(next(&mut snapshots, &mut poll).unwrap_err().code(), ErrorCode::DiskFailed);
}

#[test]
fn an_own_snapshot_waits_for_room_and_so_does_what_repairs_it_while_the_replica_goes_on() {
    let disk = FaultyDisk::seeded(8);
    let (mut snapshots, mut poll) = start(&disk);
    disk.set_free_bytes(Some(1000));
    let state = noise(1 << 20, 1);
    snapshots.write(Box::new(head(10)), Frozen::image(state.clone()), InstanceId(0)).unwrap();
    let is_done = |snapshots: &mut Snapshots| {
        std::thread::sleep(ROOM_PERIOD * 2);
        snapshots.next_done().unwrap().is_some()
    };
    assert!(!is_done(&mut snapshots));
    assert_eq!(snapshots.obstacle(), None);
    disk.set_free_bytes(None);
    let written = next(&mut snapshots, &mut poll).unwrap();
    assert!(matches!(written, Done::Written { instance: InstanceId(10), .. }));
    let reader = SnapshotReader::find(&disk, &IDENTITY, InstanceId(10)).unwrap().unwrap();
    disk.set_free_bytes(Some(1000));
    snapshots.repair(Arc::new(reader.manifest().clone())).unwrap();
    assert!(!is_done(&mut snapshots));
    assert_eq!(snapshots.obstacle(), None);
    disk.set_free_bytes(None);
    assert!(matches!(next(&mut snapshots, &mut poll).unwrap(), Done::Begun { .. }));
}

#[test]
fn a_service_that_panics_while_its_state_is_written_ends_the_replica() {
    struct Panics;
    impl Snapshot for Panics {
        fn write(self: Box<Self>, _sink: &mut dyn std::io::Write) -> std::io::Result<()> {
            panic!("a defect of the service")
        }
    }
    let (mut snapshots, mut poll) = start(&FaultyDisk::seeded(9));
    snapshots.write(Box::new(head(10)), Box::new(Panics), InstanceId(0)).unwrap();
    assert_eq!(next(&mut snapshots, &mut poll).unwrap_err().code(), ErrorCode::Invariant);
}

#[test]
fn a_state_that_was_not_signed_leaves_no_snapshot() {
    let disk = FaultyDisk::seeded(6);
    let (mut snapshots, mut poll) = start(&disk);
    for instance in [10, 20, 30] {
        let image = Frozen::image(instance.to_string().into_bytes());
        snapshots.write(Box::new(head(instance)), image, InstanceId(0)).unwrap();
        next(&mut snapshots, &mut poll).unwrap();
    }
    snapshots.discard(InstanceId(20)).unwrap();
    assert_eq!(next(&mut snapshots, &mut poll).unwrap(), Done::Discarded);
    drop(snapshots);
    let store = SnapshotStore::open(Box::new(disk), IDENTITY).unwrap();
    assert_eq!(store.newest().map(|manifest| manifest.instance), Some(InstanceId(10)));
}

#[test]
fn a_snapshot_that_the_service_refuses_is_told_from_one_that_cannot_be_read() {
    let disk = FaultyDisk::seeded(7);
    let (mut snapshots, mut poll) = start(&disk);
    snapshots.write(Box::new(head(10)), Frozen::image(*b"state"), InstanceId(0)).unwrap();
    next(&mut snapshots, &mut poll).unwrap();
    let of = |instance| snapshots.restore(InstanceId(instance), |_| Err(RestoreError::UnknownFormat)).err();
    assert!(of(10).is_some_and(|error| !error.is_of_disk()));
    assert!(of(11).is_some_and(|error| error.is_of_disk()));
}
