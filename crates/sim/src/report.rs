//! What a campaign is asked for, and what it found.

use std::collections::BTreeSet;
use std::time::Duration;

use regency_protocol::mutants::Mutant;
use thiserror::Error;

use crate::coverage::Point;
use crate::scenario::Scenario;

/// Which schedules to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// What all of them attack; `None` lets each seed choose.
    pub scenario: Option<Scenario>,
    /// The rule to break on purpose; needs the feature `mutants`.
    pub mutant: Option<Mutant>,
    /// Stops after this time, whatever is left.
    pub time_limit: Option<Duration>,
}

impl Default for Options {
    /// A thousand seeds that choose for themselves.
    fn default() -> Self {
        Self { from: 1, seeds: 1000, scenario: None, mutant: None, time_limit: None }
    }
}

/// Why a campaign cannot run.
#[derive(Clone, Debug, Error)]
pub enum SimError {
    /// A mutant was asked for, but this build has none.
    #[error("this build has no mutants: build it with --features mutants")]
    NoMutants,
    /// There is nothing to shrink.
    #[error("seed {0} breaks nothing: there is nothing to shrink")]
    NothingBroken(u64),
    /// A reduction that belongs to another schedule.
    #[error("this reduction is not one of this schedule")]
    Unfit,
    /// The event log could not be written.
    #[error("the event log cannot be written: {0}")]
    Trace(String),
}

/// What a campaign found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many schedules: some seeds run twice, to compare their hashes.
    pub schedules: u64,
    /// In how many of those replicas lied.
    pub byzantine: u64,
    /// How many events all schedules had.
    pub events: u64,
    /// How long it took.
    pub seconds: f64,
    /// The points that were reached.
    pub points: BTreeSet<Point>,
    /// The first invariant that broke; the campaign ends there.
    pub failure: Option<Failure>,
}

impl Report {
    /// Nothing has been run.
    pub(crate) fn empty() -> Self {
        Self {
            seeds: 0,
            schedules: 0,
            byzantine: 0,
            events: 0,
            seconds: 0.0,
            points: BTreeSet::new(),
            failure: None,
        }
    }

    /// How many points were reached.
    #[must_use]
    pub fn points_reached(&self) -> usize {
        Point::ALL.iter().filter(|point| self.points.contains(point)).count()
    }

    /// How many there are.
    #[must_use]
    pub fn points_total(&self) -> usize {
        Point::ALL.len()
    }

    /// The names of those that were not reached.
    #[must_use]
    pub fn points_missing(&self) -> Vec<&'static str> {
        Point::ALL.iter().filter(|point| !self.points.contains(point)).map(|point| point.name()).collect()
    }
}

/// A schedule that broke an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What it attacked.
    pub scenario: Scenario,
    /// The invariant's name.
    pub invariant: String,
    /// Who did what.
    pub detail: String,
    /// After how many events.
    pub events: u64,
    /// The command that runs it again.
    pub replay: String,
}

impl Failure {
    /// The command that replays `seed`; with the scenario, if the seed did not choose it.
    pub(crate) fn command(options: &Options, seed: u64) -> String {
        let scenario = options.scenario.map(|scenario| format!(" --scenario {}", scenario.name()));
        let mutant = options.mutant.map(|mutant| format!(" --mutant {}", mutant.name()));
        format!("regency sim --seed {seed}{}{}", scenario.unwrap_or_default(), mutant.unwrap_or_default())
    }
}
