//! Snapshots that come chunk by chunk: what was kept is kept through crashes, and nothing else counts as kept.

mod scene;

use std::io::Write;

use proptest::prelude::*;
use regency_protocol::ids::{ClusterId, InstanceId};
use regency_storage::manifest::{Chunk, Manifest};
use regency_storage::snapshots::{SnapshotReader, SnapshotStore, TransferDraft};
use regency_storage::{
    Disk, Fault, FaultyDisk, Identity, RealDisk, StorageError, TransferRefusal as Refusal,
};
use scene::{IDENTITY, scratch};

/// A donor's snapshot: chunks of some KiB, each told by a word, so that equal words are equal chunks.
#[derive(Clone)]
struct Donor {
    manifest: Manifest,
    chunks: Vec<Vec<u8>>,
}

fn donor(instance: u64, words: &[u64]) -> Donor {
    let chunk = |word: &u64| {
        let length = 1000 + (*word as usize * 1237) % 9000;
        word.to_le_bytes().into_iter().cycle().take(length).collect::<Vec<u8>>()
    };
    let chunks: Vec<Vec<u8>> = words.iter().map(chunk).collect();
    let entries = chunks.iter().map(|bytes| Chunk::of(bytes).unwrap()).collect();
    Donor { manifest: Manifest { instance: InstanceId(instance), chunks: entries }, chunks }
}

fn open(disk: &(impl Disk + Clone + 'static)) -> SnapshotStore {
    SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap()
}

/// Puts what is missing, the last chunk first, and returns how many were put.
fn fill(draft: &mut TransferDraft, donor: &Donor) -> Result<usize, StorageError> {
    let missing: Vec<usize> = (0..draft.held().len()).rev().filter(|index| !draft.held()[*index]).collect();
    missing.iter().try_for_each(|index| draft.put(*index, &donor.chunks[*index]))?;
    Ok(missing.len())
}

/// Transfers all that is missing, and installs it.
fn transfer(store: &mut SnapshotStore, donor: &Donor) -> Result<usize, StorageError> {
    let mut draft = store.begin_transfer(donor.manifest.clone())?;
    let count = fill(&mut draft, donor)?;
    store.install(draft.finish()?)?;
    Ok(count)
}

/// Whether the newest snapshot is the donor's, byte by byte.
fn has(disk: &FaultyDisk, donor: &Donor) -> bool {
    let store = open(disk);
    store.newest() == Some(&donor.manifest)
        && store.read(donor.manifest.instance).unwrap().is_some_and(|reader| {
            (0..).zip(&donor.chunks).all(|(index, bytes)| reader.chunk(index).unwrap().unwrap() == *bytes)
        })
}

fn drafts(disk: &FaultyDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("transfer-")).collect()
}

#[test]
fn chunks_in_any_order_become_a_snapshot_in_real_files() {
    let path = scratch("transfer");
    let disk = RealDisk::new(&path);
    let donor = donor(10, &[1, 2, 3, 4, 5]);
    let mut store = open(&disk);
    assert_eq!(transfer(&mut store, &donor).unwrap(), 5);
    let store = open(&disk);
    assert_eq!(store.newest(), Some(&donor.manifest));
    store.read(InstanceId(10)).unwrap().unwrap().verify().unwrap();
    let names = disk.list().unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn the_data_file_is_the_one_that_a_writer_would_have_written() {
    let disk = FaultyDisk::seeded(1);
    let bytes = [7; 1500];
    let mut store = open(&disk);
    let mut writer = store.begin(InstanceId(10)).unwrap();
    writer.write_all(&bytes).unwrap();
    let finished = writer.finish().unwrap();
    let manifest = finished.manifest().clone();
    store.install(finished).unwrap();
    let other = FaultyDisk::seeded(2);
    let mut store = open(&other);
    transfer(&mut store, &Donor { manifest, chunks: vec![bytes.to_vec()] }).unwrap();
    assert_eq!(other.names(), disk.names());
    assert!(disk.names().iter().all(|name| disk.content(name) == other.content(name)));
}

#[test]
fn an_empty_snapshot_needs_no_chunk() {
    let disk = FaultyDisk::seeded(1);
    assert_eq!(transfer(&mut open(&disk), &donor(3, &[])).unwrap(), 0);
    assert!(has(&disk, &donor(3, &[])));
}

#[test]
fn wrong_bytes_a_wrong_index_and_an_early_end_are_refused_and_harm_nothing() {
    let disk = FaultyDisk::seeded(1);
    let donor = donor(10, &[1, 2, 3]);
    let mut store = open(&disk);
    let mut draft = store.begin_transfer(donor.manifest.clone()).unwrap();
    let refused = |refusal| Err(StorageError::Transfer(refusal));
    assert_eq!(draft.put(1, &donor.chunks[0]), refused(Refusal::WrongChunk { index: 1 }));
    assert_eq!(draft.put(1, b""), refused(Refusal::WrongChunk { index: 1 }));
    assert_eq!(draft.put(1, &vec![0; 2 << 20]), refused(Refusal::WrongChunk { index: 1 }));
    assert_eq!(draft.put(3, &donor.chunks[0]), refused(Refusal::NoSuchChunk { index: 3, chunks: 3 }));
    assert_eq!(draft.held(), [false; 3]);
    draft.put(1, &donor.chunks[1]).unwrap();
    draft.put(1, &donor.chunks[1]).unwrap();
    assert_eq!(draft.put(1, &donor.chunks[0]), refused(Refusal::WrongChunk { index: 1 }));
    assert_eq!(draft.held(), [false, true, false]);
    let early = draft.finish().map(|_| ());
    assert_eq!(early, refused(Refusal::Incomplete { missing: 2 }));
    assert_eq!(transfer(&mut store, &donor).unwrap(), 2, "what was put is still there");
    assert!(has(&disk, &donor));
}

#[test]
fn a_restart_finds_what_was_put() {
    let disk = FaultyDisk::seeded(1);
    let donor = donor(10, &[1, 2, 3, 4]);
    let mut draft = open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
    draft.put(2, &donor.chunks[2]).unwrap();
    drop(draft);
    disk.kill();
    let draft = open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
    assert_eq!(draft.held(), [false, false, true, false]);
    // What was only in the page cache has become durable by having been found.
    disk.crash();
    let draft = open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
    assert_eq!(draft.held(), [false, false, true, false]);
}

#[test]
fn what_was_synced_survives_every_power_failure() {
    // Chunks of 1 MiB: the draft syncs after each eighth.
    let chunks: Vec<Vec<u8>> = (0..12u8).map(|byte| vec![byte; 1 << 20]).collect();
    let entries = chunks.iter().map(|bytes| Chunk::of(bytes).unwrap()).collect();
    let manifest = Manifest { instance: InstanceId(4), chunks: entries };
    for seed in 0..5 {
        let disk = FaultyDisk::seeded(seed);
        let mut draft = open(&disk).begin_transfer(manifest.clone()).unwrap();
        for index in [11, 0, 10, 1, 9, 2, 8, 3, 7, 4] {
            draft.put(index, &chunks[index]).unwrap();
        }
        disk.crash();
        let draft = open(&disk).begin_transfer(manifest.clone()).unwrap();
        assert!([11, 0, 10, 1, 9, 2, 8, 3].iter().all(|index| draft.held()[*index]), "seed {seed}");
        assert!([5, 6].iter().all(|index| !draft.held()[*index]));
    }
}

#[test]
fn a_newer_manifest_takes_over_what_is_equal_in_the_old_draft() {
    let disk = FaultyDisk::seeded(1);
    let (old, new) = (donor(10, &[1, 2, 3, 4, 5, 2]), donor(20, &[9, 5, 2, 4, 2, 8]));
    let mut draft = open(&disk).begin_transfer(old.manifest.clone()).unwrap();
    for index in [1, 4] {
        draft.put(index, &old.chunks[index]).unwrap();
    }
    disk.kill();
    let mut store = open(&disk);
    let draft = store.begin_transfer(new.manifest.clone()).unwrap();
    assert_eq!(draft.held(), [false, true, true, false, true, false]);
    assert_eq!(drafts(&disk).len(), 2, "the old draft is gone");
    drop(draft);
    assert_eq!(transfer(&mut store, &new).unwrap(), 3);
    assert!(has(&disk, &new));
}

#[test]
fn another_manifest_of_the_same_instance_has_a_draft_of_its_own() {
    let disk = FaultyDisk::seeded(1);
    let (one, other) = (donor(10, &[1, 2, 3]), donor(10, &[1, 3]));
    let mut store = open(&disk);
    let mut draft = store.begin_transfer(one.manifest.clone()).unwrap();
    draft.put(2, &one.chunks[2]).unwrap();
    drop(draft);
    assert_eq!(transfer(&mut store, &other).unwrap(), 1);
    assert!(has(&disk, &other));
}

#[test]
fn complete_snapshots_lend_their_chunks_and_stay() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    let (first, second) = (donor(10, &[1, 2, 3]), donor(20, &[3, 4, 5]));
    transfer(&mut store, &first).unwrap();
    assert_eq!(transfer(&mut store, &second).unwrap(), 2);
    assert_eq!(transfer(&mut store, &donor(30, &[5, 1, 6, 4])).unwrap(), 1);
    assert_eq!(store.manifests().count(), 3);
    for instance in [10, 20, 30] {
        store.read(InstanceId(instance)).unwrap().unwrap().verify().unwrap();
    }
}

#[test]
fn a_damaged_snapshot_is_repaired_with_the_bad_chunks_alone() {
    let donor = donor(10, &[1, 2, 3, 4, 5]);
    let data = "snapshot-0000000000000010.data";
    // In the head; in the second chunk; in the last one.
    let total = donor.manifest.total_bytes();
    for (offset, missing) in [(20, 0), (4096 + donor.chunks[0].len() as u64, 1), (4096 + total - 1, 1)] {
        let disk = FaultyDisk::seeded(1);
        transfer(&mut open(&disk), &donor).unwrap();
        assert!(disk.rot(data, offset, 4));
        let mut store = open(&disk);
        let draft = store.begin_transfer(donor.manifest.clone()).unwrap();
        assert_eq!(draft.held().iter().filter(|is_held| !**is_held).count(), missing);
        // The damaged one is not touched before the whole one takes its place.
        assert_eq!(store.newest(), Some(&donor.manifest));
        drop(draft);
        assert_eq!(transfer(&mut store, &donor).unwrap(), missing);
        assert!(has(&disk, &donor));
        assert_eq!(drafts(&disk), [""; 0]);
    }
}

#[test]
fn bits_that_rot_in_a_draft_are_not_taken_over() {
    let donor = donor(10, &[1, 2, 3]);
    let disk = FaultyDisk::seeded(1);
    let mut draft = open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
    fill(&mut draft, &donor).unwrap();
    let data = drafts(&disk).into_iter().find(|name| name.ends_with(".data")).unwrap();
    assert!(disk.rot(&data, 4096 + 5, 1));
    let refused = draft.finish().unwrap_err();
    assert_eq!(refused, StorageError::FileDamaged { file: data.clone(), offset: 4096 });
    let mut store = open(&disk);
    let draft = store.begin_transfer(donor.manifest.clone()).unwrap();
    assert_eq!(draft.held(), [false, true, true]);
    drop(draft);
    // A damaged manifest costs nothing where the caller has the same one.
    let manifest = drafts(&disk).into_iter().find(|name| name.ends_with(".manifest")).unwrap();
    assert!(disk.rot(&manifest, 100, 1));
    assert_eq!(transfer(&mut store, &donor).unwrap(), 1);
    assert!(has(&disk, &donor));
}

#[test]
fn a_draft_of_another_cluster_is_refused_and_left_alone() {
    let disk = FaultyDisk::seeded(1);
    let donor = donor(10, &[1, 2]);
    open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
    let before = drafts(&disk);
    let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
    let store = SnapshotStore::open(Box::new(disk.clone()), other).unwrap();
    for manifest in [donor.manifest, crate::donor(20, &[1]).manifest] {
        let refused = store.begin_transfer(manifest).map(|_| ()).unwrap_err();
        assert!(matches!(refused, StorageError::WrongCluster { .. }), "{refused}");
    }
    assert_eq!(drafts(&disk), before);
}

#[test]
fn what_the_disk_does_not_read_is_not_held() {
    let disk = FaultyDisk::seeded(1);
    let donor = donor(10, &[1, 2, 3]);
    let mut store = open(&disk);
    transfer(&mut store, &donor).unwrap();
    // The first read is the draft's manifest, which is not there; the chunks follow.
    disk.inject(Fault::ReadError, 1);
    assert_eq!(transfer(&mut store, &donor).unwrap(), 1);
}

#[test]
fn drafts_outlive_writers_and_older_snapshots_and_go_with_newer_ones() {
    let disk = FaultyDisk::seeded(1);
    let mut store = open(&disk);
    let donor = donor(20, &[1, 2, 3]);
    let mut draft = store.begin_transfer(donor.manifest.clone()).unwrap();
    fill(&mut draft, &donor).unwrap();
    let write = |store: &mut SnapshotStore, instance| {
        let mut writer = store.begin(InstanceId(instance)).unwrap();
        writer.write_all(&[instance as u8; 5000]).unwrap();
        store.install(writer.finish().unwrap()).unwrap();
        store.retain(InstanceId(instance)).unwrap();
    };
    write(&mut store, 15);
    assert_eq!(drafts(&disk).len(), 2);
    let mut store = open(&disk);
    assert_eq!(drafts(&disk).len(), 2);
    write(&mut store, 20);
    assert_eq!(drafts(&disk), [""; 0]);
}

#[test]
fn a_failed_write_or_sync_ends_the_transfer_and_the_next_one_goes_on() {
    for fault in [Fault::WriteError, Fault::SyncError] {
        let disk = FaultyDisk::seeded(3);
        let donor = donor(10, &[1, 2, 3]);
        let mut store = open(&disk);
        let mut draft = store.begin_transfer(donor.manifest.clone()).unwrap();
        draft.put(0, &donor.chunks[0]).unwrap();
        disk.inject(fault, 0);
        let failed = fill(&mut draft, &donor).and_then(|_| draft.finish().map(|_| ())).unwrap_err();
        assert!(matches!(failed, StorageError::Disk { .. }), "{failed}");
        transfer(&mut store, &donor).unwrap();
        disk.crash();
        assert!(has(&disk, &donor), "{fault:?}");
    }
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again() {
    for seed in 0..20 {
        let disk = FaultyDisk::seeded(seed);
        let donor = donor(10, &[1, 2, 3, 4, 5, 6]);
        let mut draft = open(&disk).begin_transfer(donor.manifest.clone()).unwrap();
        fill(&mut draft, &donor).unwrap();
        disk.inject(Fault::SyncError, 0);
        draft.finish().unwrap_err();
        disk.kill();
        assert_eq!(transfer(&mut open(&disk), &donor).unwrap(), 0);
        disk.crash();
        assert!(has(&disk, &donor), "seed {seed}");
    }
}

#[test]
fn a_disk_without_room_says_so_at_the_beginning_and_gives_old_drafts_up_first() {
    let disk = FaultyDisk::seeded(1);
    let (old, new) = (donor(10, &[1, 2, 3, 4, 5, 6]), donor(20, &[1, 7, 8]));
    let store = open(&disk);
    let mut draft = store.begin_transfer(old.manifest.clone()).unwrap();
    fill(&mut draft, &old).unwrap();
    let before = disk.names();
    disk.set_free_bytes(Some(4000));
    let mut draft = store.begin_transfer(new.manifest.clone()).unwrap();
    assert_eq!(draft.held(), [false; 3]);
    assert!(!disk.names().iter().any(|name| before.contains(name)));
    draft.put(0, &new.chunks[0]).unwrap();
    disk.set_free_bytes(Some(4000));
    let refused = store.begin_transfer(donor(30, &[1; 30]).manifest).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StorageError::Full { .. }), "{refused}");
    assert_eq!(disk.names(), [""; 0], "no draft is left");
}

/// Transfers the old snapshot halfway, then the new one; what was done when the power failed.
fn work(disk: &FaultyDisk, old: &Donor, new: &Donor) -> Result<(), StorageError> {
    let mut store = SnapshotStore::open(Box::new(disk.clone()), IDENTITY)?;
    let mut draft = store.begin_transfer(old.manifest.clone())?;
    for index in [3, 0] {
        draft.put(index, &old.chunks[index])?;
    }
    drop(draft);
    transfer(&mut store, new)?;
    store.retain(new.manifest.instance)
}

#[test]
fn a_power_failure_at_any_operation_costs_no_more_than_what_was_not_synced() {
    let (old, new) = (donor(10, &[1, 2, 3, 4, 5]), donor(20, &[5, 4, 9, 8, 1, 3]));
    let before = donor(5, &[8, 6]);
    for seed in 0..10 {
        for after in 0.. {
            let disk = FaultyDisk::seeded(seed * 1000 + after);
            transfer(&mut open(&disk), &before).unwrap();
            disk.cut_power_after(after);
            let outcome = work(&disk, &old, &new);
            disk.crash();
            assert!(has(&disk, &before) || has(&disk, &new), "seed {seed} after {after}");
            if outcome.is_ok() {
                assert!(has(&disk, &new));
                assert!(after > 20, "{after}");
                break;
            }
            // Beginning once more makes what it holds durable, whatever happens next.
            let draft = open(&disk).begin_transfer(new.manifest.clone()).unwrap();
            let held = draft.held().to_vec();
            assert!(held[3], "the older snapshot has it");
            drop(draft);
            disk.crash();
            let draft = open(&disk).begin_transfer(new.manifest.clone()).unwrap();
            assert_eq!(draft.held(), held, "seed {seed} after {after}");
            drop(draft);
            transfer(&mut open(&disk), &new).unwrap();
            disk.crash();
            assert!(has(&disk, &new), "seed {seed} after {after}");
            assert_eq!(drafts(&disk), [""; 0]);
        }
    }
}

#[test]
fn a_power_failure_in_an_installation_costs_no_chunk() {
    let donor = donor(10, &[1, 2, 3, 4]);
    // Into an empty store, and in place of the same snapshot, damaged.
    for is_repair in [false, true] {
        for seed in 0..20 {
            for after in 0.. {
                let disk = FaultyDisk::seeded(seed * 1000 + after);
                if is_repair {
                    transfer(&mut open(&disk), &donor).unwrap();
                    disk.rot("snapshot-0000000000000010.data", 5000, 1);
                }
                let mut store = open(&disk);
                let mut draft = store.begin_transfer(donor.manifest.clone()).unwrap();
                fill(&mut draft, &donor).unwrap();
                let finished = draft.finish().unwrap();
                disk.cut_power_after(after);
                let outcome = store.install(finished);
                disk.crash();
                let count = transfer(&mut open(&disk), &donor).unwrap();
                assert_eq!(count, 0, "seed {seed} after {after} repair {is_repair}");
                assert!(has(&disk, &donor));
                assert_eq!(disk.names().len(), 2, "{:?}", disk.names());
                if outcome.is_ok() {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_an_interrupted_installation_left_goes_with_a_newer_snapshot() {
    let (old, new) = (donor(10, &[1, 2, 3]), donor(20, &[4]));
    for after in 0..8 {
        let disk = FaultyDisk::seeded(after);
        let mut store = open(&disk);
        let mut draft = store.begin_transfer(old.manifest.clone()).unwrap();
        fill(&mut draft, &old).unwrap();
        let finished = draft.finish().unwrap();
        disk.cut_power_after(after);
        let _ = store.install(finished);
        disk.crash();
        let mut store = open(&disk);
        let complete = store.manifests().count();
        let mut writer = store.begin(InstanceId(20)).unwrap();
        writer.write_all(&new.chunks[0]).unwrap();
        store.install(writer.finish().unwrap()).unwrap();
        assert_eq!(disk.names().len(), 2 * (complete + 1), "{:?}", disk.names());
    }
}

#[test]
fn a_reader_finds_complete_snapshots_alone_and_touches_nothing() {
    let disk = FaultyDisk::seeded(1);
    let find = |instance| SnapshotReader::find(&disk, &IDENTITY, InstanceId(instance));
    assert!(find(10).unwrap().is_none());
    let mut store = open(&disk);
    let donor = donor(10, &[1, 2, 3]);
    transfer(&mut store, &donor).unwrap();
    let mut draft = store.begin_transfer(crate::donor(20, &[1, 4]).manifest).unwrap();
    let mut writer = store.begin(InstanceId(30)).unwrap();
    writer.write_all(&[1; 100]).unwrap();
    let (names, operations) = (disk.names(), disk.operations());
    let reader = find(10).unwrap().unwrap();
    assert!(find(20).unwrap().is_none() && find(30).unwrap().is_none());
    assert_eq!((disk.names(), disk.operations()), (names, operations));
    draft.put(1, &crate::donor(20, &[1, 4]).chunks[1]).unwrap();
    store.install(draft.finish().unwrap()).unwrap();
    assert_eq!(find(20).unwrap().unwrap().manifest().instance, InstanceId(20));
    // What is open stays readable.
    store.discard(InstanceId(10)).unwrap();
    assert!(find(10).unwrap().is_none());
    assert_eq!(reader.chunk(2).unwrap().unwrap(), donor.chunks[2]);
}

#[test]
fn a_damaged_chunk_spoils_no_other() {
    let disk = FaultyDisk::seeded(1);
    let donor = donor(10, &[1, 2, 3]);
    transfer(&mut open(&disk), &donor).unwrap();
    let offset = 4096 + donor.chunks[0].len() as u64;
    disk.rot("snapshot-0000000000000010.data", offset, 1);
    let reader = SnapshotReader::find(&disk, &IDENTITY, InstanceId(10)).unwrap().unwrap();
    assert_eq!(reader.chunk(0).unwrap().unwrap(), donor.chunks[0]);
    assert!(matches!(reader.chunk(1), Err(StorageError::FileDamaged { offset: bad, .. }) if bad == offset));
    assert_eq!(reader.chunk(2).unwrap().unwrap(), donor.chunks[2]);
    assert_eq!(reader.chunk(3).unwrap(), None);
}

#[derive(Clone, Debug)]
enum Step {
    /// Begins the transfer of these words.
    Begin(Vec<u64>),
    Put(usize),
    Install,
    Kill,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => proptest::collection::vec(0u64..12, 0..8).prop_map(Step::Begin),
        9 => (0usize..8).prop_map(Step::Put),
        2 => Just(Step::Install),
        1 => Just(Step::Kill),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_holds_what_it_says_and_nothing_that_was_held_is_asked_for_again(seed: u64, steps in steps()) {
        let disk = FaultyDisk::seeded(seed);
        let mut store = open(&disk);
        let mut instance = 0;
        let mut current: Option<(TransferDraft, Donor)> = None;
        let mut installed: Option<Donor> = None;
        for step in steps {
            match step {
                Step::Begin(words) => {
                    let before = current.take();
                    instance += 1;
                    let donor = donor(instance, &words);
                    let draft = store.begin_transfer(donor.manifest.clone()).unwrap();
                    for (index, chunk) in donor.manifest.chunks.iter().enumerate() {
                        let is_in_draft = before.as_ref().is_some_and(|(draft, older)| {
                            older.manifest.chunks.iter().zip(draft.held()).any(|(older, held)| older == chunk && *held)
                        });
                        let is_in_snapshot = installed.as_ref().is_some_and(|older| older.manifest.chunks.contains(chunk));
                        prop_assert!(draft.held()[index] || !(is_in_draft || is_in_snapshot));
                    }
                    current = Some((draft, donor));
                }
                Step::Put(index) => if let Some((draft, donor)) = current.as_mut().filter(|(_, donor)| index < donor.chunks.len()) {
                    draft.put(index, &donor.chunks[index]).unwrap();
                    prop_assert!(draft.held()[index]);
                },
                Step::Install => if let Some((draft, donor)) = current.take() {
                    if draft.held().iter().all(|is_held| *is_held) {
                        store.install(draft.finish().unwrap()).unwrap();
                        prop_assert!(has(&disk, &donor));
                        installed = Some(donor);
                    } else {
                        let refused = draft.finish().map(|_| ());
                        let is_typed = matches!(refused, Err(StorageError::Transfer(Refusal::Incomplete { .. })));
                        prop_assert!(is_typed);
                    }
                },
                Step::Kill | Step::Crash => {
                    current = None;
                    if matches!(step, Step::Crash) { disk.crash() } else { disk.kill() }
                    store = open(&disk);
                    if let Some(donor) = &installed {
                        prop_assert!(has(&disk, donor));
                    }
                }
            }
        }
    }
}
