//! The log on a disk that does as it is told: numbers, groups, segments, cutting, closing.

mod scene;

use regency_protocol::ids::{ClusterId, ReplicaId};
use regency_storage::log::{Ending, Log, LogSettings, RECORD_BYTES_MAX, Spare, Tail};
use regency_storage::{Disk, FaultyDisk, Identity, LogPosition, RealDisk, StorageError};
use scene::{IDENTITY, grow, log_of, open, read, record, scratch, settings};

#[test]
fn records_come_back_in_order_from_real_files() {
    let path = scratch("order");
    let disk = RealDisk::new(&path);
    let (mut log, tail, last) = open(disk.clone()).unwrap();
    assert_eq!((tail, last), (Tail::New, 0));
    for end in [1, 2, 40, 41, 100] {
        assert_eq!(grow(&mut log, end).unwrap(), LogPosition(end));
    }
    assert!(log.segments() > 3);
    drop(log);
    let (mut log, tail, last) = open(disk.clone()).unwrap();
    assert_eq!((tail, last), (Tail::Open, 100));
    grow(&mut log, 120).unwrap();
    assert_eq!(log.close().unwrap(), LogPosition(120));
    let (mut log, tail, last) = open(disk.clone()).unwrap();
    assert_eq!((tail, last), (Tail::Sealed, 120));
    grow(&mut log, 121).unwrap();
    assert_eq!(read(disk).unwrap(), (121, Ending::Open));
}

#[test]
fn a_spare_becomes_the_next_segment_once_it_is_filled() {
    let (disk, mut log) = log_of(3, 1);
    let bytes = 2 * settings().segment_bytes;
    let mut spare = Spare::begin(&disk, bytes).unwrap();
    assert!(!spare.fill(bytes - 1).unwrap());
    log.keep_spare(spare);
    assert!(!log.has_spare(), "a part of it is only reserved");
    let mut spare = Spare::begin(&disk, bytes).unwrap();
    assert!(spare.fill(bytes).unwrap());
    log.keep_spare(spare);
    assert!(log.has_spare());
    let before = log.segments();
    let mut last = 3;
    while log.segments() == before {
        last += 1;
        grow(&mut log, last).unwrap();
    }
    assert!(!log.has_spare() && !disk.names().contains(&"log-spare.draft".to_owned()));
    let newest = disk.names().into_iter().filter(|name| name.starts_with("log-0")).max().unwrap();
    assert_eq!(disk.open(&newest).unwrap().length().unwrap(), bytes);
    grow(&mut log, last + 100).unwrap();
    assert_eq!(open(disk).unwrap().2, last + 100);
}

#[test]
fn a_spare_too_small_for_a_record_waits_for_another_segment_and_goes_with_the_next_start() {
    let (disk, mut log) = log_of(3, 1);
    let mut spare = Spare::begin(&disk, settings().segment_bytes).unwrap();
    assert!(spare.fill(u64::MAX).unwrap());
    log.keep_spare(spare);
    log.append(&vec![1; 1 << 20]).unwrap();
    log.commit().unwrap();
    assert!(log.has_spare() && log.segments() == 2);
    drop(log);
    let recovered = Log::open(Box::new(disk.clone()), IDENTITY, settings(), &mut |_, _| {}).unwrap();
    assert_eq!(recovered.0.last(), LogPosition(4));
    assert!(!disk.names().contains(&"log-spare.draft".to_owned()));
}

#[test]
fn a_segment_without_a_spare_is_small_and_filled_where_that_is_wanted() {
    let disk = FaultyDisk::seeded(1);
    let settings = LogSettings { segment_bytes: 1 << 20, filled_bytes: Some(20 << 10), salt: [5; 16] };
    let (mut log, _) = Log::open(Box::new(disk.clone()), IDENTITY, settings, &mut |_, _| {}).unwrap();
    grow(&mut log, 100).unwrap();
    assert!(log.segments() > 3);
    for name in disk.names().into_iter().filter(|name| name.starts_with("log-0")) {
        assert_eq!(disk.open(&name).unwrap().length().unwrap(), 20 << 10, "{name}");
    }
    drop(log);
    assert_eq!(open(disk).unwrap().2, 100);
}

#[test]
fn what_was_not_committed_is_not_there() {
    let (disk, mut log) = log_of(3, 1);
    log.append(&record(4)).unwrap();
    assert_eq!(log.durable(), LogPosition(3));
    drop(log);
    assert_eq!(open(disk).unwrap().2, 3);
}

#[test]
fn a_commit_of_nothing_touches_no_disk() {
    let (disk, mut log) = log_of(3, 3);
    let before = disk.operations();
    assert_eq!(log.commit().unwrap(), LogPosition(3));
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_group_costs_one_write_and_one_sync() {
    let (disk, mut log) = log_of(1, 1);
    let before = disk.operations();
    for number in 2..=5 {
        log.append(&record(number)).unwrap();
    }
    assert_eq!(log.segments(), 1);
    log.commit().unwrap();
    assert_eq!(disk.operations() - before, 2);
}

#[test]
fn a_record_of_the_largest_length_fits_and_a_longer_one_is_refused() {
    let disk = FaultyDisk::seeded(1);
    let (mut log, _) = Log::open(Box::new(disk.clone()), IDENTITY, settings(), &mut |_, _| {}).unwrap();
    let long = vec![3; RECORD_BYTES_MAX + 1];
    let refused = log.append(&long).unwrap_err();
    assert_eq!(refused, StorageError::TooLong { bytes: RECORD_BYTES_MAX + 1, bytes_max: RECORD_BYTES_MAX });
    log.append(&long[1..]).unwrap();
    log.append(b"next").unwrap();
    log.append(b"").unwrap();
    log.commit().unwrap();
    let mut lengths = Vec::new();
    Log::open(Box::new(disk), IDENTITY, settings(), &mut |_, payload| lengths.push(payload.len())).unwrap();
    assert_eq!(lengths, [RECORD_BYTES_MAX, 4, 0]);
}

#[test]
fn cutting_removes_whole_segments_only_and_what_is_left_recovers() {
    let (disk, mut log) = log_of(200, 7);
    let segments = log.segments();
    log.cut(LogPosition(100)).unwrap();
    assert!(log.segments() < segments);
    assert!(log.first() <= LogPosition(100) && log.first() > LogPosition(80));
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("log-0")).count(), log.segments());
    let first = log.first();
    drop(log);
    let (mut log, _, last) = open(disk.clone()).unwrap();
    assert_eq!((log.first(), last), (first, 200));
    log.cut(LogPosition(1000)).unwrap();
    assert_eq!(log.segments(), 1);
    grow(&mut log, 210).unwrap();
    assert_eq!(open(disk).unwrap().2, 210);
}

#[test]
fn numbers_go_on_although_nothing_is_kept() {
    let (disk, mut log) = log_of(100, 100);
    log.cut(LogPosition(101)).unwrap();
    drop(log);
    let (mut log, _, _) = open(disk).unwrap();
    assert_eq!(log.append(&record(101)).unwrap(), LogPosition(101));
}

#[test]
fn a_log_of_another_cluster_or_replica_is_refused() {
    let (disk, log) = log_of(3, 1);
    drop(log);
    let refused = |identity| {
        Log::open(Box::new(disk.clone()), identity, settings(), &mut |_, _| {}).map(|_| ()).unwrap_err()
    };
    let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
    assert!(matches!(refused(other), StorageError::WrongCluster { found, .. } if found == IDENTITY.cluster));
    let other = Identity { replica: ReplicaId(9), ..IDENTITY };
    assert!(matches!(refused(other), StorageError::WrongReplica { found, .. } if found == IDENTITY.replica));
}

#[test]
fn a_full_disk_loses_nothing_and_is_tried_again() {
    let (disk, mut log) = log_of(5, 1);
    disk.set_free_bytes(Some(1000));
    let refused = grow(&mut log, 60).unwrap_err();
    assert_eq!(refused, StorageError::Full { file: "log-000000000002".into() });
    assert!(log.durable() >= LogPosition(5));
    assert!(matches!(log.commit(), Err(StorageError::Full { .. })));
    disk.set_free_bytes(None);
    assert_eq!(grow(&mut log, 61).unwrap(), LogPosition(61));
    drop(log);
    assert_eq!(open(disk).unwrap().2, 61);
}

#[test]
fn free_bytes_of_a_real_disk_are_told() {
    let path = scratch("free");
    let disk = RealDisk::new(&path);
    assert!(disk.free_bytes().unwrap() > 0);
}
