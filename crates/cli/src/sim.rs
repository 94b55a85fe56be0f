//! `regency sim`: attacks the core with schedules of faults, each decided by a seed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use regency::protocol::mutants::Mutant;
use regency_sim::{Effort, Options, Reduction, Report, Scenario, Shrunk, SimError};
use serde::Serialize;

use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};
use crate::{duration, output};

/// Attack the protocol in a simulator
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 and names the seed when an invariant breaks; with --mutant, 0 means that it \
    survived and 1 that it was caught.\n\nExample:\n  regency sim --seeds 20000\n  regency sim --seed 4711 --log events.txt\n  regency sim --seed 4711 --shrink"
)]
pub(crate) struct Arguments {
    /// One schedule
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many schedules
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// What all schedules attack; without it each seed chooses
    #[arg(long, value_parser = PossibleValuesParser::new(Scenario::ALL.iter().map(|one| one.name())))]
    scenario: Option<String>,
    /// Break one rule on purpose (in a build with the feature mutants)
    #[arg(long, value_parser = PossibleValuesParser::new(Mutant::ALL.iter().map(|one| one.name())))]
    mutant: Option<String>,
    /// Stop after this time
    #[arg(long, value_parser = duration::parse)]
    time_limit: Option<Duration>,
    /// Write every event of the schedule to this file
    #[arg(long, value_name = "FILE", requires = "seed")]
    log: Option<PathBuf>,
    /// Leave out of a broken schedule whatever its failure does not need, and list the rest
    #[arg(long, conflicts_with_all = ["log", "reduction"])]
    shrink: bool,
    /// Shrink for at most this time
    #[arg(long, value_parser = duration::parse, default_value = "60s", value_name = "TIME")]
    shrink_time: Duration,
    /// Run only what this text of an earlier --shrink leaves of the schedule
    #[arg(long, value_name = "TEXT", requires = "seed")]
    reduction: Option<Reduction>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Printed {
    seeds: u64,
    schedules: u64,
    byzantine: u64,
    events: u64,
    seconds: f64,
    points_reached: usize,
    points_total: usize,
    points_missing: Vec<&'static str>,
    failure: Option<PrintedFailure>,
}

#[derive(Serialize)]
struct PrintedFailure {
    seed: u64,
    scenario: &'static str,
    invariant: String,
    detail: String,
    events: u64,
    replay: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shrunk: Option<PrintedShrunk>,
}

#[derive(Serialize)]
struct PrintedShrunk {
    reduction: String,
    setting: Vec<String>,
    events: Vec<String>,
    schedules: u64,
    seconds: f64,
    minimal: bool,
}

/// Runs the schedules and prints what they found.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let options = Options {
        from: arguments.seed.unwrap_or(arguments.from),
        seeds: if arguments.seed.is_some() { 1 } else { arguments.seeds },
        scenario: named(arguments.scenario.as_deref(), Scenario::ALL, Scenario::name),
        mutant: named(arguments.mutant.as_deref(), Mutant::ALL, Mutant::name),
        time_limit: arguments.time_limit,
    };
    let report = run_schedules(arguments, &options)?;
    let shrunk = shrink(arguments, &options, &report)?;
    if arguments.json {
        output::json(&printed(&report, shrunk.as_ref()))?;
    } else {
        output::line(&summary(&report))?;
        for line in shrunk.iter().flat_map(story) {
            output::line(&line)?;
        }
    }
    let Some(mut found) = report.failure else { return Ok(ExitStatus::Done) };
    if let Some(shrunk) = shrunk {
        found.replay = shrunk.replay;
    }
    let cause = format!(
        "seed {} breaks {} after {} events: {}",
        found.seed, found.invariant, found.events, found.detail
    );
    Err(Failure::new(ErrorCode::InvariantBroken, cause, format!("replay it with `{}`", found.replay)))
}

fn run_schedules(arguments: &Arguments, options: &Options) -> Result<Report, Failure> {
    let reduction = arguments.reduction.clone().unwrap_or_default();
    match &arguments.log {
        Some(path) => {
            let failed = |error| failure::system(&format!("writing {}", path.display()), &error);
            let mut log = BufWriter::new(File::create(path).map_err(failed)?);
            let report = regency_sim::replay_reduced(options, &reduction, Some(&mut log))
                .map_err(|error| unable(&error))?;
            log.flush().map_err(failed)?;
            Ok(report)
        }
        None if arguments.reduction.is_some() => {
            regency_sim::replay_reduced(options, &reduction, None).map_err(|error| unable(&error))
        }
        None => regency_sim::run(options).map_err(|error| unable(&error)),
    }
}

/// Shrinks what was found, if that is wanted; progress goes to stderr.
fn shrink(arguments: &Arguments, options: &Options, report: &Report) -> Result<Option<Shrunk>, Failure> {
    if !arguments.shrink {
        return Ok(None);
    }
    let seed = match (&report.failure, arguments.seed) {
        (Some(failure), _) => failure.seed,
        // It says that there is nothing to shrink.
        (None, Some(seed)) => seed,
        (None, None) => return Ok(None),
    };
    let options = Options { from: seed, seeds: 1, ..*options };
    let effort = Effort { time: arguments.shrink_time, ..Effort::default() };
    let shrunk = regency_sim::shrink(&options, effort, &mut std::io::stderr());
    shrunk.map(Some).map_err(|error| unable(&error))
}

/// What is left, line by line.
fn story(shrunk: &Shrunk) -> Vec<String> {
    let end = if shrunk.is_minimal { "nothing more can be left out" } else { "more would be too much work" };
    let (count, runs, seconds) = (shrunk.events.len(), shrunk.runs, shrunk.seconds);
    let mut lines = vec![format!("{count} events are left after {runs} schedules in {seconds:.1} s: {end}")];
    lines.extend(shrunk.setting.iter().chain(&shrunk.events).map(|line| format!("  {line}")));
    lines
}

/// The value of this name; clap has refused all others.
fn named<T: Copy>(name: Option<&str>, all: &[T], name_of: fn(T) -> &'static str) -> Option<T> {
    name.and_then(|name| all.iter().copied().find(|one| name_of(*one) == name))
}

fn unable(error: &SimError) -> Failure {
    match error {
        SimError::NoMutants => Failure::new(
            ErrorCode::NotOffered,
            "this build has no mutants",
            "build one with `cargo build --release --features mutants`",
        ),
        SimError::NothingBroken(_) => Failure::new(
            ErrorCode::Usage,
            error.to_string(),
            "give the seed, the scenario and the mutant of a campaign that broke an invariant",
        ),
        SimError::Unfit => Failure::new(
            ErrorCode::Usage,
            error.to_string(),
            "give it with the seed, the scenario and the mutant that it was printed with",
        ),
        SimError::Trace(_) => Failure::new(ErrorCode::Disk, error.to_string(), "check the path and the disk"),
    }
}

fn printed(report: &Report, shrunk: Option<&Shrunk>) -> Printed {
    let printed_shrunk = |shrunk: &Shrunk| PrintedShrunk {
        reduction: shrunk.reduction.to_string(),
        setting: shrunk.setting.clone(),
        events: shrunk.events.clone(),
        schedules: shrunk.runs,
        seconds: shrunk.seconds,
        minimal: shrunk.is_minimal,
    };
    let failure = report.failure.as_ref().map(|found| PrintedFailure {
        seed: found.seed,
        scenario: found.scenario.name(),
        invariant: found.invariant.clone(),
        detail: found.detail.clone(),
        events: found.events,
        replay: found.replay.clone(),
        shrunk: shrunk.map(printed_shrunk),
    });
    Printed {
        seeds: report.seeds,
        schedules: report.schedules,
        byzantine: report.byzantine,
        events: report.events,
        seconds: report.seconds,
        points_reached: report.points_reached(),
        points_total: report.points_total(),
        points_missing: report.points_missing(),
        failure,
    }
}

fn summary(report: &Report) -> String {
    let rate = report.schedules as f64 / report.seconds.max(f64::MIN_POSITIVE);
    let missing = report.points_missing();
    let missing =
        if missing.is_empty() { String::new() } else { format!(" (not reached: {})", missing.join(", ")) };
    format!(
        "{} seeds, {} schedules ({} with liars), {} events in {:.1} s ({rate:.0} schedules/s), {} of {} points reached{missing}",
        report.seeds,
        report.schedules,
        report.byzantine,
        report.events,
        report.seconds,
        report.points_reached(),
        report.points_total(),
    )
}
