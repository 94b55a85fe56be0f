//! Real replicas under load whose leader is killed, paused, slow or lying: how soon the clients are served again,
//! and whether everything that they were told is true.

pub(crate) mod history;
pub(crate) mod replicas;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::history::Operation;
use self::replicas::{Replicas, Setup, let_pass};
use crate::binary::Binary;
use crate::process::{Process, Scratch};
use crate::repository::Repository;

/// Clients of the load, each with one operation in flight.
const CLIENTS: u64 = 100;
/// How long the load runs before the first blow: the throughput before is that of the last part of it.
const LOAD_BEFORE: Duration = Duration::from_millis(2500);
/// What "before" and "after" are averages over.
const BEFORE_US: u64 = 2_000_000;
const AFTER_US: u64 = 500_000;
/// In such steps the first stretch is looked for in which the throughput is back.
const STEP_US: u64 = 50_000;
/// The share of the throughput before that counts as back.
const BACK: f64 = 0.8;
/// By then it must be back.
const BACK_LIMIT: Duration = Duration::from_secs(1);
/// How long the load runs on after a blow.
const LOAD_AFTER: Duration = Duration::from_secs(3);
/// A slow leader or a liar is under load for so long; what counts is the part after ten seconds.
const ADVERSE_LOAD: Duration = Duration::from_secs(14);
const ADVERSE_GRACE_STEPS: usize = 100;
/// Other work on the machine may slow one run down: so many are tried. What clients are told must be true in each.
const ATTEMPTS: usize = 3;

/// What is done to the leader of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT before the load ends.
    Pause,
}

/// One cluster and what happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    name: &'static str,
    replicas: u16,
    request_auth: &'static str,
    blows: &'static [Blow],
    /// What replica 0 is told to do wrong, in the words of the feature `adversity`.
    adversity: Option<&'static str>,
    /// Changes of the leader that it may take.
    changes_max: u64,
}

const KILL: Scenario = Scenario {
    name: "kill of the leader",
    replicas: 4,
    request_auth: "signature",
    blows: &[Blow::Kill],
    adversity: None,
    changes_max: 1,
};
const KILL_CHANNEL: Scenario =
    Scenario { name: "kill of the leader, authentic channels", request_auth: "channel", ..KILL };
const PAUSE: Scenario = Scenario { name: "pause of the leader", blows: &[Blow::Pause], ..KILL };
const KILL_TWICE: Scenario = Scenario {
    name: "kill of two leaders",
    replicas: 7,
    blows: &[Blow::Kill, Blow::Kill],
    changes_max: 2,
    ..KILL
};
const HONEST: Scenario = Scenario { name: "honest leader", blows: &[], changes_max: 0, ..KILL };
const SLOW: Scenario = Scenario {
    name: "leader that delays every proposal by 499 ms",
    adversity: Some("delay-proposals=499ms"),
    changes_max: 1,
    ..HONEST
};
const EQUIVOCATING: Scenario = Scenario {
    name: "leader that proposes different batches to different replicas",
    adversity: Some("equivocate"),
    ..SLOW
};

/// What one run has shown.
struct Outcome {
    /// Completed operations in each tenth of a second.
    timeline: Vec<u64>,
    /// The time after each blow until the throughput was back; `None` if it never was.
    back: Vec<Option<Duration>>,
    /// Operations a second before the first blow.
    before: f64,
    longest_gap_ms: f64,
    operations: usize,
}

/// Runs the scenarios: with `quick` those that a check before a commit has time for.
pub(crate) fn run(repository: &Repository, quick: bool) -> Result<()> {
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("failover")?;
    recover(&binary, scratch.path(), &KILL)?;
    recover(&binary, scratch.path(), &PAUSE)?;
    if !quick {
        recover(&binary, scratch.path(), &KILL_CHANNEL)?;
        recover(&binary, scratch.path(), &KILL_TWICE)?;
        let adverse = Binary::adversity(repository)?;
        compare(&binary, &adverse, scratch.path())?;
    }
    scratch.discard();
    Ok(())
}

/// A scenario with blows: after each the throughput must be back in time.
fn recover(binary: &Binary, scratch: &Path, scenario: &Scenario) -> Result<()> {
    let mut late = Vec::new();
    for _ in 0..ATTEMPTS {
        let outcome = observe(binary, None, scratch, scenario)?;
        let Outcome { back, before, longest_gap_ms, operations, .. } = &outcome;
        println!(
            "failover, {} of {}: back above 80% of {before:.0}/s after {back:?}, longest gap {longest_gap_ms:.0} ms, \
             {operations} replies checked",
            scenario.name, scenario.replicas
        );
        if back.iter().all(|back| back.is_some_and(|back| back <= BACK_LIMIT)) {
            return Ok(());
        }
        late.push(outcome.timeline);
    }
    bail!("{}: not back within {BACK_LIMIT:?} in {ATTEMPTS} attempts: {late:?}", scenario.name)
}

/// Leaders that do wrong without being gone: after ten seconds the cluster must do well with them, or without.
fn compare(binary: &Binary, adverse: &Binary, scratch: &Path) -> Result<()> {
    let after_grace = |outcome: &Outcome| -> f64 {
        let rest = outcome.timeline.get(ADVERSE_GRACE_STEPS..).unwrap_or_default();
        rest.iter().sum::<u64>() as f64 / rest.len().max(1) as f64 * 10.0
    };
    for scenario in [&SLOW, &EQUIVOCATING] {
        let mut shares = Vec::new();
        for _ in 0..ATTEMPTS {
            let honest = after_grace(&observe(binary, None, scratch, &HONEST)?);
            let outcome = observe(binary, Some(adverse), scratch, scenario)?;
            let share = after_grace(&outcome) / honest;
            println!(
                "failover, {}: {:.0}% of the honest {honest:.0}/s after 10 s, longest gap {:.0} ms, {} replies checked",
                scenario.name,
                share * 100.0,
                outcome.longest_gap_ms,
                outcome.operations
            );
            shares.push(share);
            if share >= BACK {
                break;
            }
        }
        ensure!(shares.last().is_some_and(|share| *share >= BACK), "{}: {shares:?}", scenario.name);
    }
    Ok(())
}

/// Runs a scenario once and checks everything but its speed.
fn observe(
    binary: &Binary,
    adverse: Option<&Binary>,
    scratch: &Path,
    scenario: &Scenario,
) -> Result<Outcome> {
    let setup = Setup {
        service: "counter",
        replicas: scenario.replicas,
        request_auth: scenario.request_auth,
        durability: "sync",
        settings: &[],
        adversity: adverse.zip(scenario.adversity),
    };
    let mut replicas = Replicas::start(binary, scratch, &setup)?;
    let record = scratch.join("record");
    let blows = u32::try_from(scenario.blows.len())?;
    let length = if blows == 0 { ADVERSE_LOAD } else { LOAD_BEFORE + LOAD_AFTER * blows };
    let mut load = begin_load(binary, &replicas, &record, length, CLIENTS)?;
    replicas.await_sessions(CLIENTS)?;
    let_pass(if blows == 0 { Duration::ZERO } else { LOAD_BEFORE });
    let mut struck = Vec::new();
    for blow in scenario.blows {
        let leader = replicas.leader()?;
        struck.push(microseconds_now());
        match blow {
            Blow::Kill => replicas.kill(leader)?,
            Blow::Pause => replicas.signal(leader, "STOP")?,
        }
        let_pass(LOAD_AFTER - Duration::from_secs(1));
        if *blow == Blow::Pause {
            replicas.signal(leader, "CONT")?;
        }
        let_pass(Duration::from_millis(500));
    }
    let measured = end_load(&mut load)?;
    let errors = measured["errors"].as_u64().context("errors is no count")?;
    ensure!(errors == 0, "{}: clients were told of {errors} errors", scenario.name);
    let dead = scenario.blows.iter().filter(|blow| **blow == Blow::Kill).count();
    replicas.await_agreement(usize::from(scenario.replicas) - dead)?;
    let regency = replicas.regency()?;
    ensure!(
        regency <= scenario.changes_max,
        "{}: {regency} changes of the leader, {} would do",
        scenario.name,
        scenario.changes_max
    );
    let operations = history::read(&record)?;
    history::check_since(0, operations.clone(), replicas.value()?).context(scenario.name)?;
    let rates = Rates::of(&operations);
    let timeline = measured["timeline"].as_array().context("no timeline")?;
    Ok(Outcome {
        timeline: timeline.iter().filter_map(Value::as_u64).collect(),
        back: struck.iter().map(|at| rates.back_after(*at)).collect(),
        before: struck.first().map_or(0.0, |at| rates.before(*at)),
        longest_gap_ms: measured["longest_gap_ms"].as_f64().context("no longest gap")?,
        operations: operations.len(),
    })
}

/// Starts clients that add 1 and read, each operation on record.
pub(crate) fn begin_load(
    binary: &Binary,
    replicas: &Replicas,
    record: &Path,
    length: Duration,
    clients: u64,
) -> Result<Process> {
    let (clients, length) = (clients.to_string(), format!("{}ms", length.as_millis()));
    let record = record.to_string_lossy().into_owned();
    let mut arguments = vec!["bench", replicas.directory(), "--workload", "counter", "--read-percent", "20"];
    arguments.extend(["--clients", &clients, "--warmup", "0s", "--duration", &length, "--deadline", "30s"]);
    arguments.extend(["--json", "--record", &record]);
    let mut command = binary.command(&arguments);
    Process::start("regency bench", command.stdout(Stdio::piped()).stderr(Stdio::null()))
}

/// Waits for the end of the load, and takes what it printed.
pub(crate) fn end_load(load: &mut Process) -> Result<Value> {
    let mut printed = String::new();
    load.child().stdout.take().context("stdout is not piped")?.read_to_string(&mut printed)?;
    let status = load.child().wait()?;
    ensure!(status.success(), "regency bench ended with {status}");
    serde_json::from_str(printed.trim()).context("regency bench printed no JSON")
}

fn microseconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// When operations ended, in order.
struct Rates(Vec<u64>);

impl Rates {
    fn of(operations: &[Operation]) -> Self {
        let mut ends: Vec<u64> = operations.iter().map(|operation| operation.end).collect();
        ends.sort_unstable();
        Self(ends)
    }

    /// Operations a second from `begin` on, for `length` microseconds.
    fn rate(&self, begin: u64, length: u64) -> f64 {
        let from = self.0.partition_point(|end| *end < begin);
        let to = self.0.partition_point(|end| *end < begin + length);
        (to - from) as f64 * 1e6 / length as f64
    }

    fn before(&self, at: u64) -> f64 {
        self.rate(at - BEFORE_US, BEFORE_US)
    }

    /// How long after `at` the first stretch begins in which the throughput is back.
    fn back_after(&self, at: u64) -> Option<Duration> {
        let wanted = self.before(at) * BACK;
        let last = *self.0.last()?;
        // The blow itself falls into a moment at which answers are still under way.
        (1..)
            .map(|step| step * STEP_US)
            .take_while(|after| at + after + AFTER_US <= last)
            .find(|after| self.rate(at + after, AFTER_US) >= wanted)
            .map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_the_throughput_is_back_is_measured() {
        let at = 10_000_000;
        let ends = |from: u64, to: u64| (from..to).step_by(1000);
        let gone = Rates(ends(at - 3_000_000, at).chain(ends(at + 400_000, at + 3_000_000)).collect());
        assert!((gone.before(at) - 1000.0).abs() < 10.0);
        // With 80 ms of silence and 420 ms of load a stretch of half a second has 84% of the throughput.
        assert_eq!(gone.back_after(at), Some(Duration::from_millis(300)));
        let half = Rates(ends(at - 3_000_000, at).chain((at..at + 3_000_000).step_by(2000)).collect());
        assert_eq!(half.back_after(at), None);
    }
}
