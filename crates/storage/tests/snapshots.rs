//! Snapshots: what is complete stays complete through crashes, and no byte comes back that was not written.

mod scene;

use std::io::{Read, Write};

use regency_protocol::ids::InstanceId;
use regency_storage::snapshots::SnapshotStore;
use regency_storage::{Disk, Fault, FaultyDisk, RealDisk, StorageError};
use scene::{IDENTITY, scratch};

/// The state after an instance: some hundred KiB that do not repeat.
fn state(instance: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut word = instance;
    while bytes.len() < length {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&(word >> 7).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn open(disk: &(impl Disk + Clone + 'static)) -> SnapshotStore {
    SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap()
}

fn take(store: &mut SnapshotStore, instance: u64, bytes: &[u8]) -> Result<(), StorageError> {
    let mut writer = store.begin(InstanceId(instance))?;
    for piece in bytes.chunks(50_000) {
        // The writer keeps its first error and returns it at the end.
        if writer.write_all(piece).is_err() {
            break;
        }
    }
    store.install(writer.finish()?)
}

fn read(store: &SnapshotStore, instance: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.read(InstanceId(instance)).map_err(std::io::Error::other)?.unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn instances(store: &SnapshotStore) -> Vec<u64> {
    store.manifests().map(|manifest| manifest.instance.0).collect()
}

#[test]
fn what_was_written_is_read_back_after_a_restart() {
    let path = scratch("snapshot");
    let disk = RealDisk::new(&path);
    for (instance, length) in [(10, 3_000_000), (20, 1), (30, 0)] {
        let mut store = open(&disk);
        take(&mut store, instance, &state(instance, length)).unwrap();
        let root = store.newest().unwrap().root();
        let store = open(&disk);
        assert_eq!(store.newest().unwrap().root(), root);
        assert_eq!(store.newest().unwrap().total_bytes(), length as u64);
        assert!(read(&store, instance).unwrap() == state(instance, length));
        store.read(InstanceId(instance)).unwrap().unwrap().verify().unwrap();
    }
    assert_eq!(instances(&open(&disk)), [10, 20, 30]);
}

#[test]
fn equal_states_have_equal_roots_and_mostly_equal_chunks_after_an_insertion() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    let mut bytes = state(1, 5_000_000);
    take(&mut store, 1, &bytes).unwrap();
    take(&mut store, 2, &bytes).unwrap();
    bytes.insert(2_000_000, 7);
    take(&mut store, 3, &bytes).unwrap();
    let manifests: Vec<_> = store.manifests().collect();
    assert_eq!(manifests[0].root(), manifests[1].root());
    assert_ne!(manifests[0].root(), manifests[2].root());
    let same = manifests[2].chunks.iter().filter(|chunk| manifests[0].chunks.contains(chunk)).count();
    assert!(same + 2 >= manifests[2].chunks.len(), "{same} of {}", manifests[2].chunks.len());
}

#[test]
fn the_newest_two_and_all_from_the_stable_one_on_are_kept() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    for instance in 1..=5 {
        take(&mut store, instance, &state(instance, 1000)).unwrap();
    }
    store.retain(InstanceId(3)).unwrap();
    assert_eq!(instances(&store), [3, 4, 5]);
    store.retain(InstanceId(5)).unwrap();
    assert_eq!(instances(&store), [4, 5]);
    disk.crash();
    assert_eq!(instances(&open(&disk)), [4, 5]);
    assert_eq!(disk.names().len(), 4);
}

/// Takes a second snapshot with the power failing at every operation: one of both must always be whole.
fn survives_power_failures() -> bool {
    let (old, new) = (state(1, 400_000), state(2, 500_000));
    (0..6).all(|seed| {
        (0..)
            .map_while(|after| {
                let disk = FaultyDisk::seeded(seed * 100 + after);
                let mut store = open(&disk);
                take(&mut store, 1, &old).unwrap();
                disk.cut_power_after(after);
                let outcome = take(&mut store, 2, &new).and_then(|()| store.retain(InstanceId(2)));
                disk.crash();
                let store = open(&disk);
                let newest = store.newest().map_or(0, |manifest| manifest.instance.0);
                let expected = if newest == 2 { &new } else { &old };
                let is_whole = newest > 0 && read(&store, newest).is_ok_and(|bytes| bytes == *expected);
                let is_done = outcome.is_ok();
                assert!(!is_done || newest == 2 || !is_whole, "an installed snapshot is gone");
                (!is_done).then_some(is_whole)
            })
            .all(|is_whole| is_whole)
    })
}

#[test]
fn a_power_failure_leaves_the_old_snapshot_or_the_new_one() {
    assert!(survives_power_failures());
}

#[cfg(feature = "mutants")]
#[test]
fn a_snapshot_replaced_in_place_is_noticed() {
    use regency_protocol::mutants::{Mutant, activate};
    activate(Some(Mutant::SnapshotInPlace));
    let survives = survives_power_failures();
    activate(None);
    assert!(!survives);
}

#[test]
fn every_flipped_byte_is_noticed_before_it_is_handed_out() {
    let disk = FaultyDisk::seeded(1);
    let bytes = state(1, 300_000);
    take(&mut open(&disk), 1, &bytes).unwrap();
    let data = disk.names().into_iter().find(|name| name.ends_with(".data")).unwrap();
    let manifest = disk.names().into_iter().find(|name| name.ends_with(".manifest")).unwrap();
    for offset in (0..304_096).step_by(997) {
        disk.rot(&data, offset, 0x10);
        let store = open(&disk);
        let outcome = store.read(InstanceId(1)).and_then(|reader| reader.unwrap().verify());
        assert!(matches!(outcome, Err(StorageError::FileDamaged { .. })), "offset {offset}");
        assert!(read(&store, 1).is_err());
        disk.rot(&data, offset, 0x10);
    }
    for offset in 0..disk.content(&manifest).unwrap().len() as u64 {
        disk.rot(&manifest, offset, 0x10);
        assert_eq!(instances(&open(&disk)), [] as [u64; 0], "offset {offset}");
        disk.rot(&manifest, offset, 0x10);
    }
    assert!(read(&open(&disk), 1).unwrap() == bytes);
}

#[test]
fn a_snapshot_whose_write_or_sync_fails_is_none_and_the_older_one_stays() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    take(&mut store, 1, &state(1, 400_000)).unwrap();
    disk.inject(Fault::SyncError, 0);
    assert!(take(&mut store, 2, &state(2, 400_000)).is_err());
    disk.inject(Fault::WriteError, 2);
    assert!(take(&mut store, 3, &state(3, 400_000)).is_err());
    disk.crash();
    let store = open(&disk);
    assert_eq!(instances(&store), [1]);
    assert!(read(&store, 1).unwrap() == state(1, 400_000));
}

#[test]
fn a_full_disk_ends_the_snapshot_and_leaves_the_older_one() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    take(&mut store, 1, &state(1, 400_000)).unwrap();
    disk.set_free_bytes(Some(300_000));
    assert!(matches!(take(&mut store, 2, &state(2, 900_000)), Err(StorageError::Full { .. })));
    disk.set_free_bytes(None);
    take(&mut store, 3, &state(3, 900_000)).unwrap();
    assert_eq!(instances(&store), [1, 3]);
    assert_eq!(disk.names().len(), 4, "drafts are gone");
}

#[test]
fn a_snapshot_goes_on_when_a_full_disk_has_room_again() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk).with_reserve(1 << 20);
    let bytes = state(1, 900_000);
    let mut writer = store.begin(InstanceId(1)).unwrap();
    let mut refusals = 0;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        // A little room at a time, in the middle of chunks as well.
        disk.set_free_bytes(Some(100_000));
        assert!(!store.has_room(0).unwrap(), "the reserve is not for snapshots");
        match writer.write(&rest[..rest.len().min(50_000)]) {
            Ok(taken) => rest = &rest[taken..],
            Err(_) => {
                refusals += 1;
                disk.set_free_bytes(Some(2 << 20));
                assert!(store.has_room(1 << 20).unwrap());
                assert_eq!(writer.write(&rest[..1]).unwrap(), 1, "it goes on");
                rest = &rest[1..];
            }
        }
    }
    disk.set_free_bytes(Some(0));
    assert!(matches!(writer.end(), Err(StorageError::Full { .. })));
    disk.set_free_bytes(None);
    writer.end().unwrap();
    store.install(writer.finish().unwrap()).unwrap();
    assert!(refusals > 0);
    assert!(read(&store, 1).unwrap() == bytes);
}
