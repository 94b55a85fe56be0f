//! The simulator's fixed seeds, and the mutants that it must catch.

mod mutants;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::repository::Repository;
use crate::shape::{Kind, check};

/// Seeds of the smoke run: always the same, so that a change that breaks one is to blame.
const SEEDS: u64 = 50_000;
/// Short schedules a second and core that the simulator must reach.
const SCHEDULES_PER_SECOND_MIN: f64 = 300.0;
/// What `regency sim --json` prints.
const FIELDS: [(&str, Kind); 8] = [
    ("seeds", Kind::Integer),
    ("schedules", Kind::Integer),
    ("byzantine", Kind::Integer),
    ("events", Kind::Integer),
    ("seconds", Kind::Number),
    ("points_reached", Kind::Integer),
    ("points_total", Kind::Integer),
    ("points_missing", Kind::Texts),
];

/// The seeds first, then each mutant.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let mutants = Binary::mutants(repository)?;
    let binary = Binary::release(repository)?;
    seeds(&binary)?;
    mutants::kill_all(repository, &mutants, mutants::AT_ONCE)?;
    refuses_to_serve(&mutants)
}

/// Looks for what kills each mutant from the first seed on, as if no such seed were known.
pub(crate) fn search_mutants(repository: &Repository) -> Result<()> {
    let mutants = Binary::mutants(repository)?;
    mutants::kill_all(repository, &mutants, mutants::FROM_THE_START)
}

/// All seeds, shared out among the cores.
fn seeds(binary: &Binary) -> Result<()> {
    let begun = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = SEEDS.div_ceil(cores);
    let reports = std::thread::scope(|scope| {
        let ranges = (0..cores).map(|core| (1 + core * share, share.min(SEEDS - core * share)));
        let workers: Vec<_> =
            ranges.map(|(from, count)| scope.spawn(move || range(binary, from, count))).collect();
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(report) => report,
            Err(_) => bail!("a worker panicked"),
        });
        ended.collect::<Result<Vec<Value>>>()
    })?;
    let sum = |key: &str| reports.iter().filter_map(|report| report[key].as_u64()).sum::<u64>();
    ensure!(sum("seeds") == SEEDS, "it ran {} seeds instead of {SEEDS}", sum("seeds"));
    // Some seeds run twice, and their traces must be equal: so there are more schedules than seeds.
    let schedules = sum("schedules");
    ensure!(schedules >= SEEDS + SEEDS / 100, "{schedules} schedules: 1% of the seeds must run twice");
    let byzantine = sum("byzantine");
    ensure!(byzantine * 4 >= schedules * 3, "only {byzantine} of {schedules} schedules have liars");
    let missing = reports.iter().map(|report| {
        let names = report["points_missing"].as_array().into_iter().flatten();
        names.map(ToString::to_string).collect::<BTreeSet<String>>()
    });
    let missing = missing.reduce(|one, other| &one & &other).unwrap_or_default();
    ensure!(missing.is_empty(), "the seeds never reached {missing:?}");
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "sim: {SEEDS} seeds, {schedules} schedules, {byzantine} with liars, {} events in {seconds:.0} s ({:.0} schedules a second)",
        sum("events"),
        as_float(schedules) / seconds
    );
    speed(schedules, seconds)
}

/// One process's part of the seeds.
fn range(binary: &Binary, from: u64, seeds: u64) -> Result<Value> {
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let output = binary.output(&["sim", "--from", &from, "--seeds", &seeds, "--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("regency sim printed no JSON: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    let failure = &report["failure"];
    ensure!(failure.is_null() && output.status.success(), "the simulator found: {failure}");
    check(&report, &FIELDS)?;
    Ok(report)
}

/// On a machine that others use too, a slow run says little: a tenth of the target is what fails.
fn speed(schedules: u64, seconds: f64) -> Result<()> {
    let reached = as_float(schedules) / seconds;
    if reached < SCHEDULES_PER_SECOND_MIN {
        println!("sim: below the target of {SCHEDULES_PER_SECOND_MIN} schedules a second");
    }
    ensure!(reached >= SCHEDULES_PER_SECOND_MIN / 10.0, "{reached:.0} schedules a second");
    Ok(())
}

/// A build with mutants in it must never serve anybody.
fn refuses_to_serve(binary: &Binary) -> Result<()> {
    let output = binary.output(&["replica", "nowhere/replica-0"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "a build with mutants runs a replica");
    ensure!(stderr.contains("mutants"), "a build with mutants does not say why it refuses: {stderr}");
    println!("mutants build: refuses to run a replica");
    Ok(())
}

/// A count as a float, for rates.
fn as_float(count: u64) -> f64 {
    count as f64
}
