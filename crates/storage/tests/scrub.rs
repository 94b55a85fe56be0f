//! Scrubbing: all damage at rest is found, bit by bit of work, and nothing that goes on meanwhile is taken for it.

mod scene;

use std::io::Write;

use regency_protocol::ids::{ClusterId, InstanceId};
use regency_storage::log::{Damage, DamageCause};
use regency_storage::scrub::{Defect, Progress, Scrub};
use regency_storage::snapshots::{SnapshotPart, SnapshotStore};
use regency_storage::{Disk, Fault, FaultyDisk, Identity, LogPosition, StorageError};
use scene::busy::BusyDisk;
use scene::{IDENTITY, grow, log_of};

const STEP_BYTES: u64 = 10_000;

/// All that a scrub finds, and how many steps it took.
fn scrub(
    disk: impl Disk + 'static,
    durable: u64,
    step_bytes: u64,
) -> Result<(Vec<Defect>, u64), StorageError> {
    let mut scrub = Scrub::new(Box::new(disk), IDENTITY, LogPosition(durable))?;
    let (mut defects, mut steps) = (Vec::new(), 1);
    loop {
        match scrub.step(step_bytes)? {
            Progress::More => {}
            Progress::Damaged(defect) => defects.push(defect),
            Progress::Done => break,
        }
        steps += 1;
    }
    assert_eq!(scrub.step(step_bytes)?, Progress::Done);
    Ok((defects, steps))
}

fn found(disk: &FaultyDisk, durable: u64) -> Vec<Defect> {
    scrub(disk.clone(), durable, STEP_BYTES).unwrap().0
}

/// The damage of the log, where there is no other.
fn log_damage(disk: &FaultyDisk, durable: u64) -> Damage {
    match found(disk, durable).as_slice() {
        [Defect::Log(damage)] => damage.clone(),
        other => panic!("{other:?}"),
    }
}

fn take(store: &mut SnapshotStore, instance: u64) {
    let mut writer = store.begin(InstanceId(instance)).unwrap();
    let mut word = instance;
    for _ in 0..40_000 {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        writer.write_all(&(word >> 7).to_le_bytes()).unwrap();
    }
    store.install(writer.finish().unwrap()).unwrap();
}

/// Two snapshots of some chunks each, and a log of 200 records.
fn replica() -> (FaultyDisk, SnapshotStore) {
    let (disk, log) = log_of(200, 7);
    drop(log);
    let mut store = SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap();
    take(&mut store, 10);
    take(&mut store, 20);
    assert!(store.manifests().all(|manifest| manifest.chunks.len() > 1));
    (disk, store)
}

fn snapshot(instance: u64, part: SnapshotPart) -> Defect {
    Defect::Snapshot { instance: InstanceId(instance), part }
}

#[test]
fn what_is_whole_takes_steps_in_proportion_and_changes_nothing() {
    let (disk, _) = replica();
    let (operations, bytes) = (disk.operations(), 2 * 320_000 + 200_000);
    let (defects, steps) = scrub(disk.clone(), 200, STEP_BYTES).unwrap();
    assert_eq!(defects, []);
    // A chunk is a step for itself.
    assert!((20..2 * bytes / STEP_BYTES).contains(&steps), "{steps}");
    assert_eq!(scrub(disk.clone(), 200, u64::MAX).unwrap(), (Vec::new(), 1));
    assert!(scrub(disk.clone(), 200, 0).unwrap().1 > 200);
    assert_eq!(disk.operations(), operations);
}

#[test]
fn an_empty_directory_has_nothing_to_read() {
    assert_eq!(found(&FaultyDisk::seeded(1), 0), []);
}

#[test]
fn every_bad_part_of_a_snapshot_is_told_and_the_rest_is_read_on() {
    let (disk, store) = replica();
    let chunks = store.newest().unwrap().chunks.clone();
    let last = chunks.len() - 1;
    let data = "snapshot-0000000000000020.data";
    disk.rot(data, 4096, 1);
    disk.rot(data, 4096 + store.newest().unwrap().total_bytes() - 1, 1);
    disk.rot("snapshot-0000000000000010.data", 17, 1);
    let expected = [SnapshotPart::Chunk(0), SnapshotPart::Chunk(last)].map(|part| snapshot(20, part));
    assert_eq!(found(&disk, 200), [&expected[..], &[snapshot(10, SnapshotPart::Header)]].concat());
    disk.rot("snapshot-0000000000000010.manifest", 90, 1);
    assert_eq!(found(&disk, 200)[2], snapshot(10, SnapshotPart::Manifest));
}

#[test]
fn damage_of_the_log_is_told_as_far_as_it_was_durable() {
    let (disk, _) = replica();
    disk.rot("log-000000000003", 5000, 1);
    let damage = log_damage(&disk, 200);
    assert_eq!((damage.file.as_str(), damage.cause), ("log-000000000003", DamageCause::Record));
    assert_eq!(found(&disk, damage.first.0 - 1), []);
    assert_eq!(found(&disk, damage.first.0), [Defect::Log(damage)]);
}

#[test]
fn a_last_group_that_looks_torn_is_damage_where_it_was_durable() {
    let (disk, log) = log_of(8, 4);
    drop(log);
    let bytes = disk.content("log-000000000001").unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    disk.rot("log-000000000001", end, 1);
    let damage = log_damage(&disk, 8);
    assert_eq!((damage.first, damage.cause), (LogPosition(8), DamageCause::Record));
    assert_eq!(found(&disk, 7), []);
    // As is a log that is gone.
    let damage = log_damage(&FaultyDisk::seeded(1), 8);
    assert_eq!((damage.first, damage.cause), (LogPosition(1), DamageCause::Missing));
}

#[test]
fn a_sector_that_cannot_be_read_is_damage_and_one_failure_that_passes_is_not() {
    let (disk, _) = replica();
    // Reads: manifest and head of the newer snapshot, then its first chunk.
    disk.inject(Fault::ReadError, 2);
    assert_eq!(found(&disk, 200), []);
    assert!(disk.is_faultless());
    // Each look again reads manifest and head before the chunk.
    disk.inject(Fault::ReadError, 2);
    disk.inject(Fault::ReadError, 5);
    assert_eq!(found(&disk, 200), [snapshot(20, SnapshotPart::Chunk(0))]);
    assert!(disk.is_faultless());
}

#[test]
fn what_another_cluster_wrote_is_refused() {
    let (disk, _) = replica();
    let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
    let mut scrub = Scrub::new(Box::new(disk), other, LogPosition(200)).unwrap();
    assert!(matches!(scrub.step(1), Err(StorageError::WrongCluster { .. })));
    assert_eq!(scrub.step(1), Ok(Progress::Done));
}

#[test]
fn what_is_written_cut_replaced_and_removed_meanwhile_is_no_damage() {
    for (pace, shift) in (1..20).flat_map(|pace| (0..5).map(move |shift| (pace, shift))) {
        let (disk, mut log) = log_of(150, 7);
        let mut store = SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap();
        take(&mut store, 10);
        take(&mut store, 20);
        let mut looks = 0u64;
        let meanwhile = move || {
            looks += 1;
            if !looks.is_multiple_of(pace) {
                return;
            }
            let turn = looks / pace + shift;
            let last = log.last().0;
            match turn % 5 {
                0 => grow(&mut log, last + 25).map(|_| ()).unwrap(),
                1 => log.cut(LogPosition(last.saturating_sub(130 - turn % 100))).unwrap(),
                2 => {
                    // Segments that were not there before, and none of those that were.
                    grow(&mut log, last + 40).unwrap();
                    log.cut(LogPosition(last + 30)).unwrap();
                }
                3 => {
                    // Other bytes under the same instance.
                    store.discard(InstanceId(20)).unwrap();
                    let mut writer = store.begin(InstanceId(20)).unwrap();
                    writer.write_all(&turn.to_le_bytes().repeat(30_000)).unwrap();
                    store.install(writer.finish().unwrap()).unwrap();
                }
                _ => {
                    take(&mut store, 30 + turn);
                    store.retain(InstanceId(30 + turn)).unwrap();
                }
            }
        };
        let (defects, _) = scrub(BusyDisk::new(disk, meanwhile), 150, STEP_BYTES).unwrap();
        assert_eq!(defects, [], "pace {pace} shift {shift}");
    }
}
