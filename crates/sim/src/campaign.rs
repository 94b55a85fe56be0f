//! Runs seeds one after the other until one breaks an invariant.

use std::io::Write;
use std::time::Instant;

use regency_protocol::mutants::Mutant;

use crate::invariants::Violation;
use crate::plan::Plan;
use crate::report::{Failure, Options, Report, SimError};
use crate::shrink::{self, Reduction};
use crate::trace::Trace;
use crate::world::{Outcome, World};

/// One seed in this many runs twice, and both runs must have the same hash.
const TWICE_EVERY: u64 = 100;

/// Runs a campaign; it ends with the first failure.
///
/// # Errors
///
/// If a mutant is asked for that this build does not have.
pub fn run(options: &Options) -> Result<Report, SimError> {
    activate(options.mutant)?;
    let began = Instant::now();
    let mut report = Report::empty();
    for seed in (options.from..).take(usize::try_from(options.seeds).unwrap_or(usize::MAX)) {
        if options.time_limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
        report.seeds += 1;
        run_seed(options, seed, &mut report);
        if report.failure.is_some() {
            break;
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    activate(None)?;
    Ok(report)
}

/// Runs the first seed of `options` once and writes down everything that happens.
///
/// # Errors
///
/// Like [`run`].
pub fn replay(options: &Options, log: &mut dyn Write) -> Result<Report, SimError> {
    replay_reduced(options, &Reduction::default(), Some(log))
}

/// Runs what `reduction` leaves of the first seed of `options` once, and writes everything that happens to `log`.
///
/// # Errors
///
/// Like [`run`]; or if the reduction is not one of this schedule.
pub fn replay_reduced(
    options: &Options,
    reduction: &Reduction,
    log: Option<&mut dyn Write>,
) -> Result<Report, SimError> {
    let began = Instant::now();
    let (scenario, plan) = shrink::plan(options, reduction, None).ok_or(SimError::Unfit)?;
    activate(options.mutant)?;
    let trace = match log {
        None => Trace::Off,
        Some(log) => {
            let described = writeln!(log, "seed {}, scenario {}: {plan:#?}", options.from, scenario.name());
            described.map_err(|error| SimError::Trace(error.to_string()))?;
            Trace::Lines(log)
        }
    };
    let outcome = World::new(plan, trace).run_guarded();
    let mut report = Report { seeds: 1, ..Report::empty() };
    count(options, options.from, outcome, &mut report);
    if let Some(failure) = &mut report.failure {
        failure.replay = shrink::command(options, reduction);
    }
    report.seconds = began.elapsed().as_secs_f64();
    activate(None)?;
    Ok(report)
}

fn run_seed(options: &Options, seed: u64, report: &mut Report) {
    let schedule = |trace| {
        let (_, plan) = Plan::new(seed, options.scenario);
        World::new(plan, trace).run_guarded()
    };
    if !seed.is_multiple_of(TWICE_EVERY) {
        return count(options, seed, schedule(Trace::Off), report);
    }
    let first = schedule(Trace::hash());
    let mut second = schedule(Trace::hash());
    if first.hash != second.hash && second.violation.is_none() {
        let detail = "two runs of one seed differ";
        second.violation = Some(Violation::new("determinism", detail));
    }
    count(options, seed, first, report);
    if report.failure.is_none() {
        count(options, seed, second, report);
    }
}

/// Adds one schedule to the report.
fn count(options: &Options, seed: u64, outcome: Outcome, report: &mut Report) {
    report.schedules += 1;
    report.byzantine += u64::from(outcome.is_byzantine);
    report.events += outcome.events;
    report.points.extend(outcome.points);
    report.failure = outcome.violation.map(|violation| Failure {
        seed,
        scenario: Plan::new(seed, options.scenario).0,
        invariant: violation.invariant.to_owned(),
        detail: violation.detail,
        events: outcome.events,
        replay: Failure::command(options, seed),
    });
}

#[cfg(feature = "mutants")]
pub(crate) fn activate(mutant: Option<Mutant>) -> Result<(), SimError> {
    regency_protocol::mutants::activate(mutant);
    Ok(())
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn activate(mutant: Option<Mutant>) -> Result<(), SimError> {
    match mutant {
        None => Ok(()),
        Some(_) => Err(SimError::NoMutants),
    }
}
