//! The faulty disk does what its faults say, and nothing to what was synced.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use regency_storage::{Disk, DiskFile, Fault, FaultyDisk};

/// A disk with one durable file of two blocks of ones.
fn disk(seed: u64) -> (FaultyDisk, Box<dyn DiskFile>) {
    let disk = FaultyDisk::seeded(seed);
    let mut file = disk.create("x").unwrap();
    file.write_at(0, &[1; 8192]).unwrap();
    file.sync().unwrap();
    disk.sync_directory().unwrap();
    (disk, file)
}

/// All that `outcome` gives over many seeds.
fn outcomes<T: Ord>(outcome: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..200).map(outcome).collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..50 {
        let (disk, _) = disk(seed);
        disk.crash();
        assert_eq!(disk.content("x"), Some(vec![1; 8192]));
    }
}

#[test]
fn unsynced_blocks_survive_are_lost_or_torn_each_for_itself() {
    let forms = outcomes(|seed| {
        let (disk, mut file) = disk(seed);
        file.write_at(0, &[2; 8192]).unwrap();
        disk.crash();
        let bytes = disk.content("x").unwrap();
        assert!(bytes.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
        let form = |block: &[u8]| match block.iter().filter(|byte| **byte == 2).count() {
            0 => "lost",
            4096 => "kept",
            _ => "torn",
        };
        (form(&bytes[..4096]), form(&bytes[4096..]))
    });
    assert_eq!(forms.len(), 9, "{forms:?}");
}

#[test]
fn several_writes_of_one_block_may_each_be_the_last_that_survives() {
    let survivors = outcomes(|seed| {
        let (disk, mut file) = disk(seed);
        file.write_at(0, &[2; 10]).unwrap();
        file.write_at(0, &[3; 10]).unwrap();
        disk.crash();
        disk.content("x").unwrap()[0]
    });
    assert_eq!(survivors, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_length_that_was_not_synced_may_be_lost() {
    let lengths = outcomes(|seed| {
        let (disk, mut file) = disk(seed);
        file.allocate(20_000).unwrap();
        disk.crash();
        disk.content("x").unwrap().len()
    });
    assert_eq!(lengths, BTreeSet::from([8192, 20_000]));
}

#[test]
fn unsynced_names_survive_or_not_each_for_itself() {
    let names = outcomes(|seed| {
        let (disk, _) = disk(seed);
        disk.create("y").unwrap();
        disk.rename("x", "z").unwrap();
        disk.crash();
        disk.names()
    });
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn a_failed_sync_loses_what_a_later_one_does_not_bring_back() {
    let contents = outcomes(|seed| {
        let (disk, mut file) = disk(seed);
        file.write_at(0, &[2; 4096]).unwrap();
        disk.inject(Fault::SyncError, 0);
        assert!(file.sync().is_err());
        assert!(disk.is_faultless());
        file.sync().unwrap();
        assert_eq!(disk.content("x").unwrap()[0], 2, "the cache still has it");
        disk.crash();
        disk.content("x").unwrap()[0]
    });
    assert_eq!(contents, BTreeSet::from([1, 2]));
}

#[test]
fn the_fault_comes_at_its_turn_only() {
    let (disk, mut file) = disk(1);
    disk.inject(Fault::WriteError, 2);
    disk.inject(Fault::ReadError, 1);
    let writes: Vec<bool> = (0..4).map(|_| file.write_at(0, &[3]).is_ok()).collect();
    assert_eq!(writes, [true, true, false, true]);
    let reads: Vec<bool> = (0..3).map(|_| file.read_at(0, &mut [0]).is_ok()).collect();
    assert_eq!(reads, [true, false, true]);
}

#[test]
fn lost_and_misdirected_writes_show_only_after_the_cache_is_gone() {
    let (disk, mut file) = disk(1);
    disk.inject(Fault::LostWrite, 0);
    file.write_at(0, &[2; 100]).unwrap();
    disk.inject(Fault::MisdirectedWrite { offset: 5000 }, 0);
    file.write_at(200, &[3; 100]).unwrap();
    file.sync().unwrap();
    let seen = disk.content("x").unwrap();
    assert_eq!((seen[0], seen[200], seen[5000]), (2, 3, 1));
    disk.crash();
    let left = disk.content("x").unwrap();
    assert_eq!((left[0], left[200], left[5000], left[5100]), (1, 1, 3, 1));
}

#[test]
fn a_disk_has_as_much_room_as_it_was_given() {
    let (disk, mut file) = disk(1);
    disk.set_free_bytes(Some(1000));
    assert_eq!(disk.free_bytes().unwrap(), 1000);
    assert_eq!(file.allocate(9193).unwrap_err().kind(), ErrorKind::StorageFull);
    file.allocate(9192).unwrap();
    assert_eq!(file.write_at(9192, &[1]).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(0, &[1]).unwrap();
    disk.remove("x").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 9192);
}

#[test]
fn an_older_image_brings_back_all_of_it() {
    let (disk, mut file) = disk(1);
    let image = disk.save();
    file.write_at(0, &[2; 10]).unwrap();
    file.sync().unwrap();
    disk.create("y").unwrap();
    disk.sync_directory().unwrap();
    disk.restore(&image);
    assert_eq!(disk.names(), ["x"]);
    assert_eq!(disk.content("x"), Some(vec![1; 8192]));
    assert!(file.write_at(0, &[3]).is_err(), "opened in another life");
}

#[test]
fn a_large_file_of_holes_costs_nothing() {
    let disk = FaultyDisk::seeded(1);
    let mut file = disk.create("x").unwrap();
    file.allocate(1 << 50).unwrap();
    file.write_at(1 << 49, b"here").unwrap();
    file.sync().unwrap();
    disk.sync_directory().unwrap();
    disk.crash();
    let mut bytes = [9; 6];
    assert_eq!(disk.open("x").unwrap().read_at(1 << 49, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes, b"here\0\0");
}

#[test]
fn one_seed_is_one_fate() {
    let fate = |seed| {
        let (disk, mut file) = disk(seed);
        file.write_at(100, &[2; 8000]).unwrap();
        disk.create("y").unwrap();
        disk.crash();
        (disk.names(), disk.content("x"))
    };
    assert_eq!(fate(7), fate(7));
}
