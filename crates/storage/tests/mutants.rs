//! Every broken rule of storage is noticed: what holds without it does not hold with it.

#![cfg(feature = "mutants")]

mod scene;

use regency_protocol::mutants::{Mutant, activate};
use regency_storage::{Fault, FaultyDisk, StorageError};
use scene::{grow, log_of, open};

/// What `check` says with the rule broken.
fn with(mutant: Mutant, check: fn() -> bool) -> bool {
    activate(Some(mutant));
    let holds = check();
    activate(None);
    holds
}

/// A record of an earlier group goes bad: the log must not be opened.
fn is_damage_refused() -> bool {
    let (disk, log) = log_of(8, 1);
    drop(log);
    disk.rot("log-000000000001", 4096 + 60, 1);
    matches!(open(disk), Err(StorageError::Damaged(_)))
}

/// What was committed is there after a power failure, although a sync had failed.
fn is_committed_what_is_durable() -> bool {
    (0..20).all(|seed| {
        let disk = FaultyDisk::seeded(seed);
        let (mut log, _, _) = open(disk.clone()).unwrap();
        grow(&mut log, 1).unwrap();
        disk.inject(Fault::SyncError, 0);
        let committed = grow(&mut log, 8).map_or(1, |last| last.0);
        disk.crash();
        open(disk).is_ok_and(|(_, _, last)| last >= committed)
    })
}

#[test]
fn a_log_cut_at_damage_is_noticed() {
    assert!(is_damage_refused());
    assert!(!with(Mutant::LogCutAtDamage, is_damage_refused));
}

#[test]
fn a_failed_sync_that_is_retried_is_noticed() {
    assert!(is_committed_what_is_durable());
    assert!(!with(Mutant::FailedSyncRetried, is_committed_what_is_durable));
}
