//! A part of a log, read while the log is written and cut: what was durable comes as it was written, or not at all.

mod scene;

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use regency_protocol::ids::ClusterId;
use regency_storage::log::{DamageCause, Ending, FrameKind, Log, LogReader};
use regency_storage::{Disk, FaultyDisk, Identity, LogPosition, StorageError};
use scene::busy::BusyDisk;
use scene::{IDENTITY, grow, log_of, record};

/// Reads on up to `last`, and returns the first and the last record that came. Every record is checked.
fn read_range(disk: impl Disk + 'static, position: u64, last: u64) -> Result<(u64, u64), StorageError> {
    let mut reader = LogReader::open_at(Box::new(disk), IDENTITY, LogPosition(position))?;
    let mut range: Option<(u64, u64)> = None;
    while range.is_none_or(|(_, end)| end < last) {
        let Some(entry) = reader.next_entry()? else { break };
        if entry.kind == FrameKind::Record {
            let number = entry.position.0;
            assert!(range.is_none_or(|(_, end)| end + 1 == number), "dense");
            assert_eq!(entry.payload, record(number));
            range = Some((range.map_or(number, |(first, _)| first), number));
        }
    }
    Ok(range.unwrap_or((0, 0)))
}

/// The first record of each segment.
fn firsts(disk: &FaultyDisk) -> Vec<u64> {
    let mut reader = LogReader::open(Box::new(disk.clone()), IDENTITY).unwrap();
    let mut firsts: Vec<(u64, u64)> = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if firsts.last().is_none_or(|(segment, _)| *segment != entry.segment) {
            firsts.push((entry.segment, entry.position.0));
        }
    }
    firsts.into_iter().map(|(_, first)| first).collect()
}

#[test]
fn reading_begins_with_the_segment_that_holds_the_position() {
    let (disk, log) = log_of(200, 7);
    let firsts = firsts(&disk);
    assert!(firsts.len() > 5);
    for position in 0..=201 {
        let expected = *firsts.iter().rfind(|first| **first <= position.max(1)).unwrap();
        assert_eq!(read_range(disk.clone(), position, 200).unwrap(), (expected, 200), "{position}");
    }
    log.close().unwrap();
    assert_eq!(read_range(disk, 1000, 200).unwrap().1, 200);
}

#[test]
fn a_log_without_records_or_none_at_all_is_read_to_its_end() {
    let disk = FaultyDisk::seeded(1);
    assert_eq!(read_range(disk.clone(), 5, 9).unwrap(), (0, 0));
    scene::open(disk.clone()).unwrap();
    assert_eq!(read_range(disk, 5, 9).unwrap(), (0, 0));
}

#[test]
fn damage_before_the_segment_is_not_met_and_damage_in_it_is() {
    let (disk, log) = log_of(200, 7);
    drop(log);
    let firsts = firsts(&disk);
    disk.rot("log-000000000001", 100, 1);
    disk.rot("log-000000000002", 4096 + 100, 1);
    assert_eq!(read_range(disk.clone(), firsts[3], 200).unwrap(), (firsts[3], 200));
    let mut reader = LogReader::open_at(Box::new(disk.clone()), IDENTITY, LogPosition(firsts[1])).unwrap();
    assert!(reader.next_entry().unwrap().is_none());
    let Some(Ending::Damaged(damage)) = reader.ending() else { panic!("{:?}", reader.ending()) };
    assert_eq!((damage.cause, damage.first), (DamageCause::Record, LogPosition(firsts[1])));
    // Whose head is bad may hold anything: reading comes to it from the segment before.
    disk.rot("log-000000000005", 100, 1);
    let (first, last) = read_range(disk, firsts[4] + 1, 200).unwrap();
    assert_eq!((first, last), (firsts[3], firsts[4] - 1));
}

#[test]
fn the_head_of_the_segment_is_where_the_chain_begins() {
    let (disk, log) = log_of(200, 7);
    drop(log);
    let firsts = firsts(&disk);
    // A segment of another time has heads of its own, and does not follow.
    let (other, log) = log_of(200, 11);
    drop(log);
    let bytes = other.content("log-000000000004").unwrap();
    let mut file = disk.open("log-000000000004").unwrap();
    file.write_at(0, &bytes).unwrap();
    let (_, last) = read_range(disk, firsts[2], 200).unwrap();
    assert_eq!(last, firsts[3] - 1);
}

#[test]
fn what_was_cut_is_refused_and_what_is_left_is_read() {
    let (disk, mut log) = log_of(200, 7);
    log.cut(LogPosition(100)).unwrap();
    let first = log.first().0;
    for position in 0..first {
        let refused = read_range(disk.clone(), position, 200).unwrap_err();
        assert_eq!(refused, StorageError::Cut { position: LogPosition(position.max(1)) });
    }
    assert_eq!(read_range(disk, first, 200).unwrap(), (first, 200));
}

#[test]
fn a_cut_under_the_reader_ends_it() {
    let (disk, mut log) = log_of(200, 7);
    let mut reader = LogReader::open_at(Box::new(disk), IDENTITY, LogPosition(50)).unwrap();
    let mut last = reader.next_entry().unwrap().unwrap().position;
    log.cut(LogPosition(201)).unwrap();
    let refused = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                assert_eq!((entry.position, entry.payload), (last.next(), record(last.next().0).as_slice()));
                last = entry.position;
            }
            Ok(None) => panic!("{:?}", reader.ending()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StorageError::Cut { position: last.next() });
}

#[test]
fn a_log_of_another_cluster_is_refused() {
    let (disk, log) = log_of(3, 1);
    drop(log);
    let other = Identity { cluster: ClusterId([8; 32]), ..IDENTITY };
    let refused = LogReader::open_at(Box::new(disk), other, LogPosition(1)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StorageError::WrongCluster { .. }));
}

/// What the writer does between two looks of the reader.
#[derive(Clone, Debug)]
enum Meanwhile {
    Nothing,
    Append(u8),
    /// Leaves so many records, or more.
    Cut(u8),
    /// Begins new segments, and leaves none of the old ones.
    Renew,
}

fn meanwhile() -> impl Strategy<Value = Vec<Meanwhile>> {
    let step = prop_oneof![
        3 => Just(Meanwhile::Nothing),
        3 => (1u8..40).prop_map(Meanwhile::Append),
        1 => (0u8..200).prop_map(Meanwhile::Cut),
        1 => Just(Meanwhile::Renew),
    ];
    proptest::collection::vec(step, 1..30)
}

fn work(log: &mut Log, step: &Meanwhile) {
    match step {
        Meanwhile::Nothing => {}
        Meanwhile::Append(count) => {
            let last = log.last().0 + u64::from(*count);
            grow(log, last).unwrap();
        }
        Meanwhile::Cut(left) => {
            let below = log.last().0.saturating_sub(u64::from(*left));
            log.cut(LogPosition(below)).unwrap();
        }
        Meanwhile::Renew => {
            let last = log.last().0;
            grow(log, last + 40).unwrap();
            log.cut(LogPosition(last + 30)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_and_cut_meanwhile_the_durable_records_come_or_are_cut(
        steps in meanwhile(),
        position in 1u64..120,
    ) {
        let (disk, log) = log_of(100, 7);
        let log = Arc::new(Mutex::new(log));
        let writer = log.clone();
        let mut steps = steps.into_iter().cycle();
        let busy = BusyDisk::new(disk, move || work(&mut writer.lock().unwrap(), &steps.next().unwrap()));
        match read_range(busy, position, 100) {
            Ok((first, last)) => {
                prop_assert!(first <= position, "{first} for {position}");
                // More may have been read where the position is behind what was durable then.
                prop_assert!(last >= 100, "{last}");
            }
            Err(StorageError::Cut { position: cut }) => {
                prop_assert!(cut < log.lock().unwrap().first());
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
