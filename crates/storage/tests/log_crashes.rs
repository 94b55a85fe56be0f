//! The log under power failures: what was committed is there, what is there is a prefix, a second failure is harmless.

mod scene;

use proptest::prelude::*;
use regency_storage::log::{Log, Spare, Tail};
use regency_storage::{Fault, FaultyDisk, LogPosition, StorageError};
use scene::{grow, log_of, open, record, settings};

/// The ends of the groups that the workload commits; it cuts, closes and prepares spare segments on the way.
const GROUPS: [u64; 12] = [1, 2, 9, 10, 11, 40, 41, 60, 75, 76, 90, 91];

/// What a workload had reached when the power failed.
struct Reached {
    /// The last record whose commit returned.
    committed: u64,
    /// The last record that was appended.
    appended: u64,
    /// The lowest record that may have been cut.
    cut: u64,
}

/// Runs the workload from where the log is; returns at the first failure.
fn work(disk: &FaultyDisk, reached: &mut Reached) -> Result<(), StorageError> {
    let (mut log, _, _) = open(disk.clone())?;
    let done = reached.committed;
    for end in GROUPS.into_iter().filter(|end| *end > done) {
        while log.last().0 < end {
            let number = log.last().0 + 1;
            log.append(&record(number))?;
            reached.appended = reached.appended.max(number);
        }
        reached.committed = log.commit()?.0;
        if [2, 11, 60].contains(&end) && !log.has_spare() {
            let mut spare = Spare::begin(disk, settings().segment_bytes)?;
            while !spare.fill(10_000)? {}
            log.keep_spare(spare);
        }
        if end == 41 || end == 76 {
            reached.cut = end - 5;
            log.cut(LogPosition(end - 5))?;
        }
        if end == 60 {
            log.close()?;
            log = open(disk.clone())?.0;
        }
    }
    log.close().map(|_| ())
}

fn operations_of_the_workload() -> u64 {
    let disk = FaultyDisk::seeded(0);
    work(&disk, &mut Reached { committed: 0, appended: 0, cut: 0 }).unwrap();
    disk.operations()
}

/// Checks what a crash left, and returns the last record.
fn check(disk: &FaultyDisk, reached: &Reached, what: &str) -> u64 {
    let (log, _, last) = open(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(last >= reached.committed, "{what}: {last} of {} committed", reached.committed);
    assert!(last <= reached.appended, "{what}: {last} of {} appended", reached.appended);
    assert!(log.first().0 <= reached.cut.max(1), "{what}: {} was cut", log.first());
    last
}

#[test]
fn a_power_failure_at_any_operation_loses_nothing_that_was_committed() {
    let operations = operations_of_the_workload();
    assert!(operations > 60, "{operations}");
    for after in 0..operations {
        for seed in 0..12 {
            let what = format!("power failure in operation {after}, seed {seed}");
            let disk = FaultyDisk::seeded(seed * 1000 + after);
            let mut reached = Reached { committed: 0, appended: 0, cut: 0 };
            disk.cut_power_after(after);
            assert!(work(&disk, &mut reached).is_err(), "{what}");
            disk.crash();
            let last = check(&disk, &reached, &what);
            // A second life goes on from there, to the end.
            reached.committed = last;
            reached.appended = last;
            work(&disk, &mut reached).unwrap_or_else(|error| panic!("{what}: {error}"));
            disk.crash();
            assert_eq!(check(&disk, &reached, &what), 91);
        }
    }
}

#[test]
fn a_second_power_failure_at_any_operation_of_recovery_is_harmless() {
    for seed in 0..200 {
        let (image, _) = log_of(20, 3);
        let disk = FaultyDisk::seeded(seed);
        disk.restore(&image.save());
        let (mut log, _, _) = open(disk.clone()).unwrap();
        for number in 21..=30 {
            log.append(&record(number)).unwrap();
        }
        disk.cut_power_after(1 + seed % 2 * 5);
        let _ = log.commit();
        disk.crash();
        let (mut committed, mut after) = (20, 0);
        loop {
            disk.cut_power_after(after);
            let outcome = open(disk.clone()).map(|(_, _, last)| last);
            disk.crash();
            let (_, _, last) = open(disk.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!((committed..=30).contains(&last), "seed {seed}");
            // What one recovery has returned, every later one returns.
            committed = last;
            after += 1;
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn torn_tails_of_all_forms_occur_and_are_cut() {
    let (mut torn, mut partial, mut whole) = (0, 0, 0);
    for seed in 0..300 {
        let disk = FaultyDisk::seeded(seed);
        let (mut log, _, _) = open(disk.clone()).unwrap();
        grow(&mut log, 2).unwrap();
        for number in 3..=9 {
            log.append(&record(number)).unwrap();
        }
        disk.cut_power_after(1);
        log.commit().unwrap_err();
        disk.crash();
        let (mut log, tail, last) = open(disk.clone()).unwrap();
        assert!((2..=9).contains(&last));
        torn += u64::from(matches!(tail, Tail::Torn { .. }));
        partial += u64::from(last > 2 && last < 9);
        whole += u64::from(last == 9);
        grow(&mut log, 12).unwrap();
        drop(log);
        disk.crash();
        assert_eq!(open(disk).unwrap().2, 12);
    }
    assert!(torn > 30 && partial > 30 && whole > 10, "{torn} {partial} {whole}");
}

#[test]
fn after_a_failed_write_or_sync_the_log_is_dead() {
    for fault in [Fault::WriteError, Fault::SyncError] {
        let (disk, mut log) = log_of(5, 1);
        log.append(&record(6)).unwrap();
        disk.inject(fault, 0);
        let first = log.commit().unwrap_err();
        let before = disk.operations();
        assert_eq!(log.commit().unwrap_err(), first);
        assert_eq!(log.append(&record(7)).unwrap_err(), first);
        assert_eq!(log.cut(LogPosition(3)).unwrap_err(), first);
        assert_eq!(disk.operations(), before, "nothing is tried again");
        assert_eq!(log.durable(), LogPosition(5));
        disk.crash();
        assert!(open(disk).unwrap().2 >= 5);
    }
}

#[test]
fn the_end_of_the_process_alone_loses_nothing_that_was_written() {
    let (disk, log) = log_of(30, 4);
    disk.kill();
    drop(log);
    assert_eq!(open(disk).unwrap().2, 30);
}

#[test]
fn what_a_restart_has_found_survives_a_power_failure_after_it() {
    let mut found_unsynced = 0;
    for seed in 0..100 {
        let disk = FaultyDisk::seeded(seed);
        let (mut log, _, _) = open(disk.clone()).unwrap();
        grow(&mut log, 2).unwrap();
        for number in 3..=6 {
            log.append(&record(number)).unwrap();
        }
        // The process ends between write and sync; the machine goes on, and fails later.
        disk.cut_power_after(1);
        log.commit().unwrap_err();
        disk.kill();
        let (log, _, found) = open(disk.clone()).unwrap();
        drop(log);
        found_unsynced += u64::from(found > 2);
        disk.crash();
        assert_eq!(open(disk).unwrap().2, found, "seed {seed}");
    }
    assert!(found_unsynced > 10, "{found_unsynced}");
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again() {
    let mut found_unsynced = 0;
    for seed in 0..100 {
        let disk = FaultyDisk::seeded(seed);
        let (mut log, _, _) = open(disk.clone()).unwrap();
        grow(&mut log, 2).unwrap();
        log.append(&record(3)).unwrap();
        disk.inject(Fault::SyncError, 0);
        log.commit().unwrap_err();
        disk.kill();
        let (log, _, found) = open(disk.clone()).unwrap();
        drop(log);
        found_unsynced += u64::from(found > 2);
        disk.crash();
        assert_eq!(open(disk).unwrap().2, found, "seed {seed}");
    }
    assert!(found_unsynced > 10, "{found_unsynced}");
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Commit,
    Cut(u8),
    Close,
    Kill,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u8..30).prop_map(Step::Append),
        4 => Just(Step::Commit),
        1 => (0u8..255).prop_map(Step::Cut),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_work_and_crashes_keeps_what_was_committed(seed: u64, steps in steps()) {
        let disk = FaultyDisk::seeded(seed);
        let reopen = |disk: &FaultyDisk| -> Log { open(disk.clone()).unwrap().0 };
        let mut log = reopen(&disk);
        for step in steps {
            let (committed, appended) = (log.durable(), log.last());
            match step {
                Step::Append(count) => {
                    for _ in 0..count {
                        let number = log.last().0 + 1;
                        log.append(&record(number)).unwrap();
                    }
                }
                Step::Commit => prop_assert_eq!(log.commit().unwrap(), appended),
                Step::Cut(share) => {
                    let kept = log.durable().0 - log.first().previous().0;
                    log.cut(log.first().plus(kept * u64::from(share) / 255)).unwrap();
                }
                Step::Close => {
                    prop_assert_eq!(log.close().unwrap(), appended);
                    log = reopen(&disk);
                    prop_assert_eq!(log.last(), appended);
                }
                Step::Kill => {
                    disk.kill();
                    log = reopen(&disk);
                    prop_assert_eq!(log.last(), committed);
                }
                Step::Crash => {
                    disk.crash();
                    log = reopen(&disk);
                    prop_assert_eq!(log.last(), committed);
                }
            }
        }
    }
}
