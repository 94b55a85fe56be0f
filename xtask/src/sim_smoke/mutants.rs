//! Every mutant, and the seeds that are known to kill it: crates/sim/tests/kills.txt.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regency_protocol::mutants::Mutant;
use serde_json::Value;

use crate::binary::Binary;
use crate::repository::Repository;

/// The known seeds, one mutant a line: `name scenario seed`, `name equivalent record` or `name storage test`.
const KILLS: &str = "crates/sim/tests/kills.txt";

/// Where the search for a kill begins, and how many seeds and seconds it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    is_known: bool,
    seeds: u64,
    seconds: &'static str,
}

/// The known seed kills. After a change of the core it may be one soon after it: that one is to be written down.
pub(super) const AT_ONCE: Search = Search { is_known: true, seeds: 2_000, seconds: "60s" };
/// The known scenario kills, whatever seed.
pub(super) const FROM_THE_START: Search = Search { is_known: false, seeds: 1_000_000, seconds: "120s" };

/// One line.
struct Kill<'a> {
    mutant: &'a str,
    scenario: &'a str,
    seed: u64,
}

/// What a search has come to.
#[derive(Debug, Default)]
struct Found {
    survivors: Vec<String>,
    /// What kills instead of the known seed.
    moved: Vec<String>,
    slowest: Duration,
}

/// Kills all mutants that are not equivalent to the rule, on all cores.
pub(super) fn kill_all(repository: &Repository, binary: &Binary, search: Search) -> Result<()> {
    let text = repository.read(KILLS)?;
    let kills = parse(repository, &text)?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Found::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<()> {
        while let Some(kill) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let killer = kill.killer(binary, search)?;
            let mut found = found.lock().expect("no worker panics while it holds it");
            found.slowest = begin.elapsed().max(found.slowest);
            match killer {
                None => found.survivors.push(kill.mutant.to_owned()),
                Some(seed) if search.is_known && seed != kill.seed => {
                    found.moved.push(format!("{} {} {seed}", kill.mutant, kill.scenario));
                }
                Some(_) => {}
            }
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
    let Found { survivors, moved, slowest } = found.into_inner().expect("all workers have ended");
    ensure!(survivors.is_empty(), "mutants that survive: {survivors:?}");
    ensure!(moved.is_empty(), "seeds of {KILLS} kill no longer; these do: {moved:?}");
    let slowest = slowest.as_secs_f64();
    println!("mutants: {} killed in the simulator, each within {slowest:.1} s of one core", kills.len());
    Ok(())
}

/// The lines that name a kill; each mutant has a line.
fn parse<'a>(repository: &Repository, text: &'a str) -> Result<Vec<Kill<'a>>> {
    let mut kills = Vec::new();
    let mut named = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mutant, scenario, seed] = words[..] else { bail!("{KILLS}: cannot read {line:?}") };
        named.push(mutant);
        if scenario == "equivalent" {
            let record = format!("docs/decisions/{seed}");
            ensure!(repository.has(&record), "{KILLS}: {record} is not there");
            println!("mutant {mutant}: equivalent, argued in {record}");
            continue;
        }
        if scenario == "storage" {
            ensure!(repository.has(seed), "{KILLS}: {seed} is not there");
            println!("mutant {mutant}: killed by {seed}");
            continue;
        }
        let seed = seed.parse().with_context(|| format!("{KILLS}: {seed} is no seed"))?;
        kills.push(Kill { mutant, scenario, seed });
    }
    for mutant in Mutant::ALL {
        ensure!(named.contains(&mutant.name()), "{KILLS} does not name {}", mutant.name());
    }
    Ok(kills)
}

impl Kill<'_> {
    /// The first seed that fails with the mutant and holds without it.
    fn killer(&self, binary: &Binary, search: Search) -> Result<Option<u64>> {
        let Self { mutant, scenario, seed } = *self;
        let begin = Instant::now();
        let first = if search.is_known { seed } else { 1 };
        let mut from = first;
        let last = first + search.seeds;
        while from < last {
            let found = self.failure(binary, &["--mutant", mutant], from, last - from, search.seconds)?;
            if found.is_null() {
                break;
            }
            let seed = found["seed"].as_u64().context("a failure without a seed")?;
            if self.failure(binary, &[], seed, 1, search.seconds)?.is_null() {
                let seconds = begin.elapsed().as_secs_f64();
                let invariant = &found["invariant"];
                println!("mutant {mutant}: killed in {seconds:.1} s by {invariant}, {scenario} {seed}");
                return Ok(Some(seed));
            }
            println!("{scenario} {seed} fails without {mutant} too");
            from = seed + 1;
        }
        println!("mutant {mutant}: survives {scenario} from {first} to {last}");
        Ok(None)
    }

    fn failure(&self, binary: &Binary, more: &[&str], from: u64, seeds: u64, limit: &str) -> Result<Value> {
        let (from, seeds) = (from.to_string(), seeds.to_string());
        let range = ["sim", "--json", "--from", &from, "--seeds", &seeds, "--time-limit", limit];
        let arguments = [&range[..], &["--scenario", self.scenario], more].concat();
        let output = binary.output(&arguments)?;
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("regency {arguments:?} printed no JSON: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(report["failure"].clone())
    }
}
