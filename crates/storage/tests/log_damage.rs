//! The log on a disk that breaks what was durable: reported with its place, never replayed, never cut.

mod scene;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;
use regency_storage::log::{Damage, DamageCause, Ending, Log, Recovered, Recovery, Tail};
use regency_storage::{Disk, Fault, FaultyDisk, LogPosition, RealDisk, StorageError};
use scene::{IDENTITY, grow, log_of, open, read, record, scratch, settings};

fn segment(number: u64) -> String {
    format!("log-{number:012}")
}

fn damage(disk: &FaultyDisk) -> Damage {
    match read(disk.clone()).unwrap().1 {
        Ending::Damaged(damage) => damage,
        other => panic!("{other:?}"),
    }
}

/// What recovery says of the log, without a word of what it would do.
fn refusal(disk: &FaultyDisk) -> Damage {
    match open(disk.clone()).map(|_| ()) {
        Err(StorageError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

/// Writes a log of some groups to real files; the last group begins after the record that is returned.
fn small_log(path: &Path, is_sealed: bool) -> u64 {
    let (mut log, _, _) = open(RealDisk::new(path)).unwrap();
    for end in [1, 3, 20, 24] {
        grow(&mut log, end).unwrap();
    }
    if is_sealed {
        log.close().unwrap();
    }
    20
}

/// Flips bits of every byte that was ever written, and of some that were not.
fn flip_every_byte(is_sealed: bool, name: &str) -> (u64, u64, u64) {
    let path = scratch(name);
    let before_last = small_log(&path, is_sealed);
    let whole = read(RealDisk::new(&path)).unwrap();
    assert_eq!(whole.0, 24);
    let (mut same, mut torn, mut damaged) = (0, 0, 0);
    for entry in fs::read_dir(&*path).unwrap() {
        let file = entry.unwrap().path();
        let bytes = fs::read(&file).unwrap();
        let open_file = fs::OpenOptions::new().write(true).open(&file).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 64;
        for (index, byte) in bytes.iter().enumerate().take(written) {
            open_file.write_all_at(&[byte ^ 0x40], index as u64).unwrap();
            let (last, ending) = read(RealDisk::new(&path)).unwrap();
            let place = format!("{} byte {index}: {last} {ending:?}", file.display());
            match ending {
                Ending::Torn { .. } if last == 24 => {
                    // The seal alone, or what lies behind the end: no record is concerned.
                    same += 1;
                }
                Ending::Torn { .. } => {
                    assert!(!is_sealed && last >= before_last, "{place}");
                    torn += 1;
                }
                Ending::Damaged(damage) => {
                    assert_eq!(damage.first.0, last + 1, "{place}");
                    assert!(file.ends_with(&damage.file) && damage.offset <= index as u64, "{place}");
                    damaged += 1;
                }
                ending => {
                    assert_eq!((last, ending), whole, "{place}");
                    same += 1;
                }
            }
            open_file.write_all_at(&[*byte], index as u64).unwrap();
        }
    }
    assert_eq!(read(RealDisk::new(&path)).unwrap(), whole);
    (same, torn, damaged)
}

#[test]
fn a_flipped_byte_is_damage_or_tears_the_last_group_or_changes_nothing() {
    let (same, torn, damaged) = flip_every_byte(false, "flip");
    assert!(same > 0 && torn > 1000 && damaged > 10_000, "{same} {torn} {damaged}");
}

#[test]
fn after_an_orderly_stop_a_flipped_byte_never_passes_for_a_torn_tail() {
    let (same, torn, damaged) = flip_every_byte(true, "flip-sealed");
    assert!(same > 0 && torn == 0 && damaged > 10_000, "{same} {torn} {damaged}");
}

#[test]
fn a_damaged_log_is_not_opened_and_not_changed() {
    let (disk, log) = log_of(60, 5);
    drop(log);
    assert!(disk.rot(&segment(2), 5000, 1));
    let before: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    let found = refusal(&disk);
    assert_eq!((found.file.as_str(), found.cause), (segment(2).as_str(), DamageCause::Record));
    assert_eq!(damage(&disk), found);
    let after: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    assert!(before == after);
}

#[test]
fn a_record_of_an_earlier_group_is_damage_in_the_last_segment_too() {
    let (disk, log) = log_of(8, 1);
    drop(log);
    // The first record's payload.
    assert!(disk.rot(&segment(1), 4096 + 60, 1));
    let expected =
        Damage { file: segment(1), offset: 4096, first: LogPosition(1), cause: DamageCause::Record };
    assert_eq!(refusal(&disk), expected);
}

#[test]
fn segments_that_are_missing_swapped_or_of_another_time_are_damage() {
    let (disk, log) = log_of(60, 5);
    assert!(log.segments() >= 4);
    let old = disk.content(&segment(2)).unwrap();
    drop(log);
    let image = disk.save();
    let cases: [(&str, &dyn Fn()); 5] = [
        ("first", &|| disk.remove(&segment(1)).unwrap()),
        ("middle", &|| disk.remove(&segment(3)).unwrap()),
        ("begin", &|| disk.remove("log-begin").unwrap()),
        ("swapped", &|| {
            disk.rename(&segment(2), "x").unwrap();
            disk.rename(&segment(3), &segment(2)).unwrap();
            disk.rename("x", &segment(3)).unwrap();
        }),
        ("copied", &|| disk.create(&segment(3)).unwrap().write_at(0, &old).unwrap()),
    ];
    for (name, case) in cases {
        disk.restore(&image);
        case();
        let found = refusal(&disk);
        assert!(found.cause == DamageCause::Missing, "{name}: {found}");
    }
    // An older copy of one segment, put back while the others went on.
    let (fresh, mut log) = log_of(2, 2);
    let early = fresh.content(&segment(1)).unwrap();
    grow(&mut log, 60).unwrap();
    drop(log);
    fresh.open(&segment(1)).unwrap().write_at(0, &early).unwrap();
    assert_eq!(refusal(&fresh).first, LogPosition(3));
}

#[test]
fn a_log_that_was_cut_misses_nothing_but_what_was_cut() {
    let (disk, mut log) = log_of(60, 5);
    log.cut(LogPosition(30)).unwrap();
    let first = disk.names().into_iter().find(|name| name.starts_with("log-0")).unwrap();
    drop(log);
    assert_eq!(read(disk.clone()).unwrap(), (60, Ending::Open));
    disk.remove(&first).unwrap();
    assert_eq!(refusal(&disk).cause, DamageCause::Missing);
}

#[test]
fn a_segment_cut_short_is_damage() {
    let path = scratch("short");
    small_log(&path, false);
    let last =
        (1..9).map(|number| path.join(segment(number))).take_while(|path| path.exists()).last().unwrap();
    let length = fs::metadata(&last).unwrap().len();
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(length - 1).unwrap();
    let (_, ending) = read(RealDisk::new(&path)).unwrap();
    assert!(matches!(ending, Ending::Damaged(Damage { cause: DamageCause::Short, .. })), "{ending:?}");
}

#[test]
fn a_lost_write_under_later_groups_is_damage() {
    for later in [13, 60] {
        let (disk, mut log) = log_of(1, 1);
        disk.inject(Fault::LostWrite, 0);
        // Several pages, of which only the last is written again by the group behind.
        grow(&mut log, 12).unwrap();
        grow(&mut log, later).unwrap();
        drop(log);
        assert_eq!(read(disk.clone()).unwrap(), (later, Ending::Open), "the cache still has it");
        disk.crash();
        assert_eq!(refusal(&disk).first, LogPosition(2));
    }
}

#[test]
fn a_write_that_lands_elsewhere_is_damage_even_if_it_was_the_last() {
    let (disk, mut log) = log_of(4, 2);
    disk.inject(Fault::MisdirectedWrite { offset: 12_288 }, 0);
    grow(&mut log, 5).unwrap();
    drop(log);
    disk.crash();
    let found = refusal(&disk);
    assert_eq!((found.first, found.cause), (LogPosition(5), DamageCause::Record));
}

#[test]
fn what_the_disk_refuses_to_read_is_damage() {
    let (disk, log) = log_of(60, 5);
    drop(log);
    for after in 0..6 {
        disk.inject(Fault::ReadError, after);
        let found = match open(disk.clone()).map(|_| ()) {
            Err(StorageError::Damaged(damage)) => damage,
            other => panic!("{after}: {other:?}"),
        };
        assert_eq!(found.cause, DamageCause::Unreadable, "read {after}");
        disk.clear_faults();
    }
    assert_eq!(open(disk).unwrap().2, 60);
}

#[test]
fn a_whole_disk_put_back_is_an_older_log_and_goes_on() {
    // Nothing on the disk can tell: such a replica counts in f.
    let (disk, mut log) = log_of(10, 2);
    let image = disk.save();
    grow(&mut log, 20).unwrap();
    disk.restore(&image);
    let (mut log, tail, last) = open(disk.clone()).unwrap();
    assert_eq!((tail, last), (Tail::Open, 10));
    grow(&mut log, 12).unwrap();
    assert_eq!(open(disk).unwrap().2, 12);
}

#[test]
fn a_damaged_log_is_set_aside_and_a_new_one_begins_where_the_caller_says() {
    for seed in 0..40 {
        let disk = FaultyDisk::seeded(seed);
        let (mut log, _, _) = open(disk.clone()).unwrap();
        grow(&mut log, 30).unwrap();
        grow(&mut log, 60).unwrap();
        drop(log);
        assert!(disk.rot(&segment(2), 5000, 1));
        let begin_anew = || -> Result<Log, StorageError> {
            let recovery = Recovery::open(Box::new(disk.clone()), IDENTITY, settings())?;
            match recovery.finish()? {
                Recovered::Damaged(damaged) => damaged.begin_anew(LogPosition(100)),
                Recovered::Ready(log, _) => Ok(log),
            }
        };
        // Whenever the power fails in it, the log is either still the damaged one or the new one.
        disk.cut_power_after(seed % 12);
        let _ = begin_anew();
        disk.crash();
        let mut log = begin_anew().unwrap();
        assert_eq!(log.append(&record(100)).unwrap(), LogPosition(100));
        log.commit().unwrap();
        drop(log);
        disk.crash();
        let (mut log, _, last) = open(disk.clone()).unwrap();
        assert_eq!(last, 100);
        log.cut(LogPosition(100)).unwrap();
        assert!(!disk.names().iter().any(|name| name.starts_with("damaged-")));
        assert_eq!(open(disk).unwrap().2, 100);
    }
}

/// What may happen to whole blocks of a file.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Zero,
    Swap(u64),
    Cut,
    Noise(u8),
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        Just(Blow::Zero),
        (0u64..64).prop_map(Blow::Swap),
        Just(Blow::Cut),
        (1u8..=255).prop_map(Blow::Noise)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_blow_to_a_sealed_log_is_reported_or_hit_nothing(place in 0u64..64, sectors in 1usize..17, blow in blow()) {
        let (disk, log) = log_of(60, 7);
        log.close().unwrap();
        let names: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("log-0")).collect();
        // All but the newest segment, which holds the seal.
        let (_, older) = names.split_last().unwrap();
        let name = &older[place as usize % older.len()];
        let mut bytes = disk.content(name).unwrap();
        let at = |place: u64| (place * 1536 % bytes.len() as u64) as usize;
        let (from, length) = (at(place), sectors * 512);
        let to = (from + length).min(bytes.len());
        match blow {
            Blow::Zero => bytes[from..to].fill(0),
            Blow::Swap(other) => {
                let other = at(other).min(bytes.len() - (to - from));
                let (left, right) = (bytes[from..to].to_vec(), bytes[other..other + to - from].to_vec());
                bytes[from..to].copy_from_slice(&right);
                bytes[other..other + left.len()].copy_from_slice(&left);
            }
            Blow::Cut => bytes.truncate(from),
            Blow::Noise(mask) => bytes[from..to].iter_mut().for_each(|byte| *byte ^= mask),
        }
        disk.create(name).unwrap().write_at(0, &bytes).unwrap();
        // `read` compares every record with what was appended.
        let (last, ending) = read(disk).unwrap();
        match ending {
            Ending::Damaged(damage) => {
                prop_assert_eq!(&damage.file, name);
                prop_assert_eq!(damage.first.0, last + 1);
            }
            ending => prop_assert_eq!((last, ending), (60, Ending::Sealed)),
        }
    }
}
