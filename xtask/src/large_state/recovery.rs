//! How long a replica needs to come back from a large snapshot and a long log, and how much memory that takes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{LIMIT, Subject, check_flags, mib, number};
use crate::binary::Binary;
use crate::process::{Scratch, wait_until};
use crate::repository::Repository;

/// The replica that is watched and killed.
const WATCHED: usize = 1;
/// Instances between two checkpoints: more than the log is to hold.
const INTERVAL: u64 = 60_000;
/// Records that an instance leaves at least.
const RECORDS_PER_INSTANCE: u64 = 3;
/// By then it must be back, with a state of 1 GiB and 100,000 records.
const BACK_LIMIT: Duration = Duration::from_secs(10);
/// Resident memory must not grow by more than this part of what it was.
const GROWTH_MAX: f64 = 0.15;

/// Measures and checks.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    check_flags(arguments, &["--mib", "--records"])?;
    let (size, records) = (number(arguments, "--mib", 1024)?, number(arguments, "--records", 100_000)?);
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("recovery")?;
    let interval = format!("checkpoint_interval={INTERVAL}");
    let settings = [interval.as_str(), "checkpoint_bytes=1099511627776"];
    let mut subject = Subject::start(&binary, scratch.path(), &settings, size)?;

    let near = INTERVAL - 500;
    while subject.figure(WATCHED, "executed")? < near {
        subject.load("16", 3)?;
    }
    let memory = subject.memory(WATCHED)?;
    let resident = memory.resident()?;
    memory.forget_peak()?;
    while subject.figure(WATCHED, "executed")? < INTERVAL {
        subject.load("16", 1)?;
    }
    wait_until(LIMIT, || Ok(subject.figure(WATCHED, "stable_checkpoint")? >= INTERVAL))?;
    let growth = part(memory.peak()?, resident);
    println!(
        "recovery: a snapshot of {size} MiB: {:.0} MiB resident before, {:.1}% more at most",
        mib(resident),
        growth * 100.0
    );

    let until = INTERVAL + records.div_ceil(RECORDS_PER_INSTANCE) + 1000;
    ensure!(until < 2 * INTERVAL, "so many records do not fit between two checkpoints");
    while subject.figure(WATCHED, "executed")? < until {
        subject.load("16", 3)?;
    }
    let before = memory.resident()?;
    subject.replicas.kill(WATCHED)?;
    let begun = Instant::now();
    subject.replicas.restart(WATCHED)?;
    subject.await_level(WATCHED, LIMIT)?;
    let time = begun.elapsed();
    let log = fs::read_to_string(subject.replicas.log(WATCHED))?;
    let replayed =
        log.lines().rev().find_map(|line| line.split("records=").nth(1)).context("no word of a recovery")?;
    let replayed: u64 = replayed.split_whitespace().next().unwrap_or_default().parse()?;
    ensure!(replayed >= records, "only {replayed} records were on disk");
    let back = part(subject.memory(WATCHED)?.peak()?, before);
    println!(
        "recovery: {size} MiB and {replayed} records in {:.1} s; {:.0} MiB resident before, {:.1}% more at most",
        time.as_secs_f64(),
        mib(before),
        back * 100.0
    );
    ensure!(time <= BACK_LIMIT, "it took longer than {BACK_LIMIT:?}");
    ensure!(growth <= GROWTH_MAX && back <= GROWTH_MAX, "more memory than {:.0}%", GROWTH_MAX * 100.0);
    scratch.discard();
    Ok(())
}

/// By which part `peak` is above `before`.
fn part(peak: u64, before: u64) -> f64 {
    peak as f64 / before.max(1) as f64 - 1.0
}
