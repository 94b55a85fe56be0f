//! Shrinks a schedule that breaks an invariant: leaves out whatever it can while the same invariant still breaks.
//!
//! This is delta debugging over one kind of thing after the other, first what the plan holds (who is owned, what
//! fails, who calls what), then the numbered decisions of a running schedule (frames lost, deeds of the adversary).

pub(crate) mod choices;
mod planned;
pub(crate) mod reduction;
mod story;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agenda::Moment;
use crate::campaign::activate;
use crate::invariants::Violation;
use crate::plan::Plan;
use crate::report::{Failure, Options, SimError};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::World;

use choices::{Choices, Decision};
use reduction::Kind;
pub use reduction::{Reduction, ReductionError};

/// A schedule without anything that its failure does not need.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Its seed.
    pub seed: u64,
    /// What it attacks.
    pub scenario: Scenario,
    /// The invariant that it breaks, before and after.
    pub invariant: String,
    /// Who does what, in the end.
    pub detail: String,
    /// What is left of it.
    pub reduction: Reduction,
    /// The cluster, its clients, and what else is unusual, one thing a line.
    pub setting: Vec<String>,
    /// What still goes wrong, in order, one event a line.
    pub events: Vec<String>,
    /// How many schedules it took.
    pub runs: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether nothing more can be left out; otherwise the time was up.
    pub is_minimal: bool,
    /// The command that runs what is left.
    pub replay: String,
}

/// Shrinks the first seed of `options` for at most `limit`; progress goes to `progress`, line by line.
///
/// # Errors
///
/// If that seed breaks nothing, or a mutant is asked for that this build does not have.
pub fn shrink(options: &Options, limit: Duration, progress: &mut dyn Write) -> Result<Shrunk, SimError> {
    activate(options.mutant)?;
    let shrunk = Shrinker::new(options, limit, progress).and_then(Shrinker::shrink);
    activate(None)?;
    shrunk
}

/// What `reduction` leaves of the plan for the first seed of `options`.
pub(crate) fn plan(
    options: &Options,
    reduction: &Reduction,
    log: Option<Rc<RefCell<Vec<Decision>>>>,
) -> Option<(Scenario, Plan)> {
    let (scenario, plan) = Plan::new(options.from, options.scenario);
    let mut plan = planned::reduced(plan, reduction)?;
    plan.choices = Choices::new(Arc::new(reduction.clone()), log);
    Some((scenario, plan))
}

/// The command that runs what `reduction` leaves of the first seed of `options`.
pub(crate) fn command(options: &Options, reduction: &Reduction) -> String {
    let command = Failure::command(options, options.from);
    if *reduction == Reduction::default() { command } else { format!("{command} --reduction {reduction}") }
}

struct Shrinker<'a> {
    options: &'a Options,
    /// The invariant that must still break.
    invariant: &'static str,
    best: Reduction,
    began: Instant,
    limit: Duration,
    runs: u64,
    progress: &'a mut dyn Write,
}

impl<'a> Shrinker<'a> {
    fn new(options: &'a Options, limit: Duration, progress: &'a mut dyn Write) -> Result<Self, SimError> {
        let best = Reduction::default();
        let invariant = run(options, &best).ok_or(SimError::NothingBroken(options.from))?.invariant;
        Ok(Self { options, invariant, best, began: Instant::now(), limit, runs: 1, progress })
    }

    fn shrink(mut self) -> Result<Shrunk, SimError> {
        loop {
            let before = self.best.clone();
            for kind in Kind::ALL {
                self.leave_out(*kind);
            }
            self.heal_early();
            if self.is_late() || self.best == before {
                break;
            }
        }
        let (violation, decisions) = run_noted(self.options, &self.best);
        let detail = violation.map_or_else(String::new, |violation| violation.detail);
        let (scenario, plan) = plan(self.options, &self.best, None).ok_or(SimError::Unfit)?;
        Ok(Shrunk {
            seed: self.options.from,
            scenario,
            invariant: self.invariant.to_owned(),
            detail,
            setting: story::setting(&plan),
            events: story::events(&plan, &decisions),
            runs: self.runs,
            seconds: self.began.elapsed().as_secs_f64(),
            is_minimal: !self.is_late(),
            replay: command(self.options, &self.best),
            reduction: self.best,
        })
    }

    fn is_late(&self) -> bool {
        self.began.elapsed() >= self.limit
    }

    /// Leaves out as many of one kind as it can.
    fn leave_out(&mut self, kind: Kind) {
        let Some((_, plan)) = plan(self.options, &self.best, None) else { return };
        if self.is_late() || !planned::is_possible(&plan, kind) || self.best.is_without(kind) {
            return;
        }
        let all = planned::planned(&plan, kind).unwrap_or_else(|| self.decided(kind));
        let all: Vec<u64> = all.into_iter().collect();
        // Naming all that there is changes nothing; if it does, this kind is left alone.
        if !self.accepts(kind, &[]) && self.accepts(kind, &all) {
            self.leave_out_parts(kind, all);
        }
        let left =
            self.best.kept.get(&kind).map_or_else(|| String::from("all"), |kept| kept.len().to_string());
        let seconds = self.began.elapsed().as_secs_f64();
        let (name, runs) = (kind.name(), self.runs);
        // A reader that does not read misses it.
        let _ = writeln!(self.progress, "{seconds:6.1} s, {runs} schedules: {name}: {left} left");
    }

    /// Tries to do without ever smaller parts, the last ones first: what comes later depends on what was before.
    fn leave_out_parts(&mut self, kind: Kind, mut numbers: Vec<u64>) {
        let mut part = numbers.len().div_ceil(2);
        while part > 0 {
            let mut end = numbers.len();
            while end > 0 {
                let begin = end.saturating_sub(part);
                let rest = [&numbers[..begin], &numbers[end..]].concat();
                if self.accepts(kind, &rest) {
                    numbers = rest;
                }
                end = begin;
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
    }

    /// Lets the network heal as early as it can.
    fn heal_early(&mut self) {
        let Some((_, plan)) = plan(self.options, &self.best, None) else { return };
        let mut low: Moment = plan.faults.last().map_or(0, |(at, _)| *at);
        let mut high = plan.heal_at;
        while low < high && !self.is_late() {
            let middle = low + (high - low) / 2;
            let reduction = Reduction { heal_at: Some(middle), ..self.best.clone() };
            if self.breaks(&reduction) {
                self.best = reduction;
                high = middle;
            } else {
                low = middle + 1;
            }
        }
    }

    /// Whether the invariant still breaks with only these left; if so, they are.
    fn accepts(&mut self, kind: Kind, numbers: &[u64]) -> bool {
        let mut reduction = self.best.clone();
        reduction.kept.insert(kind, numbers.iter().copied().collect());
        let is_accepted = !self.is_late() && self.breaks(&reduction);
        if is_accepted {
            self.best = reduction;
        }
        is_accepted
    }

    fn breaks(&mut self, reduction: &Reduction) -> bool {
        self.runs += 1;
        run(self.options, reduction).is_some_and(|violation| violation.invariant == self.invariant)
    }

    /// The numbers of what was decided in the best schedule.
    fn decided(&mut self, kind: Kind) -> BTreeSet<u64> {
        self.runs += 1;
        let (_, decisions) = run_noted(self.options, &self.best);
        decisions.iter().filter(|decision| decision.kind == kind).map(|decision| decision.number).collect()
    }
}

/// Runs what a reduction leaves: the invariant that breaks, if one does.
fn run(options: &Options, reduction: &Reduction) -> Option<Violation> {
    let (_, plan) = plan(options, reduction, None)?;
    World::new(plan, Trace::Off).run_guarded().violation
}

/// The same, with what was decided on the way.
fn run_noted(options: &Options, reduction: &Reduction) -> (Option<Violation>, Vec<Decision>) {
    let log = Rc::default();
    let Some((_, plan)) = plan(options, reduction, Some(Rc::clone(&log))) else { return (None, Vec::new()) };
    let violation = World::new(plan, Trace::Off).run_guarded().violation;
    (violation, log.take())
}
