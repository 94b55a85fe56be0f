//! The full campaign: many seeds over all cores, kept in docs/campaigns.md.
//!
//! It works through a range of seeds in chunks, one process a core, and writes the table anew after every chunk: what
//! is interrupted goes on with `--from`. Runs of the same core (the same tree of crates/protocol/src) add up.

mod table;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::repository::Repository;
use crate::sim_smoke;
use table::{Row, Table};

/// Schedules of a full campaign.
const SHORT: u64 = 1_000_000;
const LONG: u64 = 10_000;
/// To so many short seeds that choose for themselves comes one of the scenario `rounds`, which few choose.
const ROUNDS_SHARE: u64 = 10;
/// Seeds that one process runs.
const SHORT_CHUNK: u64 = 5_000;
const LONG_CHUNK: u64 = 100;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    from: u64,
    short: u64,
    long: u64,
    mutants: bool,
}

/// What chunks of one kind have come to.
#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    schedules: u64,
    byzantine: u64,
    events: u64,
    missing: Option<BTreeSet<String>>,
    failure: Option<String>,
}

/// Runs what the arguments ask for.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    let wanted = Wanted::parse(arguments)?;
    let binary = Binary::release(repository)?;
    let mut missing: Option<BTreeSet<String>> = None;
    let kinds = [
        ("short", wanted.short, SHORT_CHUNK),
        ("rounds", wanted.short / ROUNDS_SHARE, SHORT_CHUNK),
        ("long", wanted.long, LONG_CHUNK),
    ];
    for (kind, seeds, chunk) in kinds {
        if seeds == 0 {
            continue;
        }
        let sum = range(repository, &binary, kind, wanted.from, seeds, chunk)?;
        if let Some(failure) = sum.failure {
            bail!("{failure}");
        }
        missing = both(missing, sum.missing);
    }
    // Long seeds alone do not choose every scenario.
    if let Some(missing) = missing.filter(|_| wanted.short > 0) {
        ensure!(missing.is_empty(), "the campaign never reached {missing:?}");
    }
    if wanted.mutants {
        sim_smoke::search_mutants(repository)?;
    }
    Ok(())
}

impl Wanted {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut wanted = Self { from: 1, short: SHORT, long: LONG, mutants: true };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let place = match *argument {
                "--from" => &mut wanted.from,
                "--short" => &mut wanted.short,
                "--long" => &mut wanted.long,
                "--no-mutants" => {
                    wanted.mutants = false;
                    continue;
                }
                other => bail!("campaign does not know {other}"),
            };
            let number = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            *place = number.parse().with_context(|| format!("{number} is no number"))?;
        }
        Ok(wanted)
    }
}

/// Runs `seeds` seeds of one kind from `from` on, and keeps the table up to date.
fn range(
    repository: &Repository,
    binary: &Binary,
    kind: &str,
    from: u64,
    seeds: u64,
    chunk: u64,
) -> Result<Sum> {
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let chunks = seeds.div_ceil(chunk);
    let table = Mutex::new((Table::read(repository)?, vec![None; usize::try_from(chunks)?]));
    let row = Row::begin(repository, kind, from)?;
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= chunks {
                break;
            }
            let first = from + turn * chunk;
            let count = chunk.min(from + seeds - first);
            let report =
                sim(binary, kind, first, count).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            if !report["failure"].is_null() {
                stop.store(true, Ordering::Relaxed);
            }
            let mut guard = table.lock().expect("no worker panics while it holds the table");
            let (table, done) = &mut *guard;
            done[usize::try_from(turn)?] = Some(report);
            let sum = Sum::of(done);
            eprintln!(
                "campaign: {} of {seeds} {kind} seeds, {} events, {:.0} s",
                sum.seeds,
                sum.events,
                began.elapsed().as_secs_f64()
            );
            table.put(row.with(&sum, began.elapsed()));
            table.write(repository)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    let (_, done) = table.into_inner().expect("all workers have ended");
    Ok(Sum::of(&done))
}

/// One process's part.
fn sim(binary: &Binary, kind: &str, from: u64, seeds: u64) -> Result<Value> {
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let mut arguments = vec!["sim", "--from", &from, "--seeds", &seeds, "--json"];
    if kind != "short" {
        arguments.extend(["--scenario", kind]);
    }
    let output =
        binary.command(&arguments).stderr(Stdio::piped()).output().context("cannot run the simulator")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("regency sim printed no JSON: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Sum {
    /// Of the chunks up to the first that is not done, and of the failure if there is one.
    fn of(done: &[Option<Value>]) -> Self {
        let mut sum = Self::default();
        for report in done.iter().map_while(Option::as_ref) {
            sum.seeds += report["seeds"].as_u64().unwrap_or_default();
            sum.schedules += report["schedules"].as_u64().unwrap_or_default();
            sum.byzantine += report["byzantine"].as_u64().unwrap_or_default();
            sum.events += report["events"].as_u64().unwrap_or_default();
            let names = report["points_missing"].as_array().into_iter().flatten();
            let missing = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            sum.missing = both(sum.missing, Some(missing));
        }
        let failed =
            done.iter().flatten().map(|report| &report["failure"]).find(|failure| !failure.is_null());
        sum.failure = failed.map(|failure| {
            let text = |key: &str| failure[key].as_str().unwrap_or("?").to_owned();
            format!("seed {} breaks {}: `{}`", failure["seed"], text("invariant"), text("replay"))
        });
        sum
    }
}

/// What neither of the two has reached.
fn both(one: Option<BTreeSet<String>>, other: Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one & &other),
        (one, other) => one.or(other),
    }
}

/// What a program prints on one line.
fn line(repository: &Repository, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository.root())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(seeds: u64, missing: &[&str], failure: Value) -> Option<Value> {
        Some(
            json!({"seeds": seeds, "schedules": seeds, "events": 1, "points_missing": missing, "failure": failure}),
        )
    }

    #[test]
    fn only_chunks_without_a_gap_before_them_count() {
        let done = [report(5, &[], Value::Null), None, report(5, &[], Value::Null)];
        assert_eq!(Sum::of(&done).seeds, 5);
    }

    #[test]
    fn a_point_is_missing_if_no_chunk_reached_it() {
        let done = [report(5, &["a", "b"], Value::Null), report(5, &["b", "c"], Value::Null)];
        assert_eq!(Sum::of(&done).missing, Some(BTreeSet::from(["b".to_owned()])));
    }

    #[test]
    fn a_failure_counts_wherever_it_stands() {
        let failure = json!({"seed": 7, "invariant": "agreement", "replay": "regency sim --seed 7"});
        let done = [None, report(5, &[], failure)];
        assert_eq!(Sum::of(&done).failure.unwrap(), "seed 7 breaks agreement: `regency sim --seed 7`");
    }

    #[test]
    fn arguments_are_a_range_and_sizes() {
        let wanted = Wanted::parse(&["--from", "7", "--short", "20", "--no-mutants"]).unwrap();
        assert_eq!(wanted, Wanted { from: 7, short: 20, long: LONG, mutants: false });
        assert!(Wanted::parse(&["--short"]).is_err());
        assert!(Wanted::parse(&["--sort", "1"]).is_err());
    }
}
