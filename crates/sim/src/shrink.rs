//! Shrinks a schedule that breaks an invariant: leaves out whatever it can while the same invariant still breaks.
//!
//! This is delta debugging over one kind of thing after the other, first what the plan holds (who is owned, what
//! fails, who calls what), then the numbered decisions of a running schedule (frames lost, deeds of the adversary).

pub(crate) mod choices;
mod effort;
mod parts;
mod planned;
pub(crate) mod reduction;
mod story;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use crate::agenda::Moment;
use crate::campaign::activate;
use crate::invariants::Violation;
use crate::plan::Plan;
use crate::report::{Failure, Options, SimError};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::World;

use choices::{Choices, Decision};
pub use effort::Effort;
use effort::Work;
use parts::Tried;
use reduction::{Kind, NUMBERS_MAX};
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
    /// How many events those had.
    pub run_events: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether nothing more can be left out; otherwise it would have been too much work.
    pub is_minimal: bool,
    /// The command that runs what is left.
    pub replay: String,
}

/// Shrinks the first seed of `options` with limited effort; progress goes to `progress`, line by line.
///
/// # Errors
///
/// If that seed breaks nothing, or a mutant is asked for that this build does not have.
pub fn shrink(options: &Options, effort: Effort, progress: &mut dyn Write) -> Result<Shrunk, SimError> {
    activate(options.mutant)?;
    let shrunk = Shrinker::new(options, Work::new(effort, progress)).and_then(Shrinker::shrink);
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
    work: Work<'a>,
}

impl<'a> Shrinker<'a> {
    fn new(options: &'a Options, mut work: Work<'a>) -> Result<Self, SimError> {
        let best = Reduction::default();
        let (violation, events) = run(options, &best, u64::MAX);
        work.count(events);
        let invariant = violation.ok_or(SimError::NothingBroken(options.from))?.invariant;
        Ok(Self { options, invariant, best, work })
    }

    fn shrink(mut self) -> Result<Shrunk, SimError> {
        loop {
            let before = self.best.clone();
            for kind in Kind::ALL {
                self.leave_out(*kind);
            }
            self.heal_early();
            if self.work.is_over() || self.best == before {
                break;
            }
        }
        let is_minimal = !self.work.is_over();
        let (violation, decisions) = self.run_noted(u64::MAX);
        let detail = violation.map_or_else(String::new, |violation| violation.detail);
        let (scenario, plan) = plan(self.options, &self.best, None).ok_or(SimError::Unfit)?;
        Ok(Shrunk {
            seed: self.options.from,
            scenario,
            invariant: self.invariant.to_owned(),
            detail,
            setting: story::setting(&plan),
            events: story::events(&plan, &decisions),
            runs: self.work.runs(),
            run_events: self.work.events(),
            seconds: self.work.seconds(),
            is_minimal,
            replay: command(self.options, &self.best),
            reduction: self.best,
        })
    }

    /// Leaves out as many of one kind as it can.
    fn leave_out(&mut self, kind: Kind) {
        let Some((_, plan)) = plan(self.options, &self.best, None) else { return };
        if self.work.is_over() || !planned::is_possible(&plan, kind) || self.best.is_without(kind) {
            return;
        }
        // Without any at all is tried before it is asked how many there are.
        if !self.accepts(kind, &[]) {
            let all = planned::planned(&plan, kind).unwrap_or_else(|| self.decided(kind));
            let all: Vec<u64> = all.into_iter().collect();
            // Naming all that there is changes nothing; if it does, this kind is left alone.
            if self.accepts(kind, &all) {
                parts::leave_out(all, |rest| self.attempt(kind, rest));
            }
        }
        let left =
            self.best.kept.get(&kind).map_or_else(|| String::from("all"), |kept| kept.len().to_string());
        self.work.tell(&format!("{}: {left} left", kind.name()));
    }

    fn attempt(&mut self, kind: Kind, rest: &[u64]) -> Tried {
        if self.work.is_over() {
            return Tried::Over;
        }
        let is_enough = self.accepts(kind, rest);
        if is_enough { Tried::Enough } else { Tried::TooFew }
    }

    /// Lets the network heal as early as it can.
    fn heal_early(&mut self) {
        let Some((_, plan)) = plan(self.options, &self.best, None) else { return };
        let mut low: Moment = plan.faults.last().map_or(0, |(at, _)| *at);
        let mut high = plan.heal_at;
        while low < high && !self.work.is_over() {
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
        self.work.tell_again(|| format!("{}: trying {}", kind.name(), numbers.len()));
        if self.work.is_over() || numbers.len() as u64 > NUMBERS_MAX {
            return false;
        }
        let mut reduction = self.best.clone();
        reduction.kept.insert(kind, numbers.iter().copied().collect());
        let is_accepted = self.breaks(&reduction);
        if is_accepted {
            self.best = reduction;
        }
        is_accepted
    }

    fn breaks(&mut self, reduction: &Reduction) -> bool {
        let (violation, events) = run(self.options, reduction, self.work.left());
        self.work.count(events);
        violation.is_some_and(|violation| violation.invariant == self.invariant)
    }

    /// The numbers of what was decided in the best schedule.
    fn decided(&mut self, kind: Kind) -> BTreeSet<u64> {
        let (_, decisions) = self.run_noted(self.work.left());
        decisions.iter().filter(|decision| decision.kind == kind).map(|decision| decision.number).collect()
    }

    /// Runs the best schedule, up to so many events: the invariant that breaks, and what was decided on the way.
    fn run_noted(&mut self, events: u64) -> (Option<Violation>, Vec<Decision>) {
        let log = Rc::default();
        let Some((_, plan)) = plan(self.options, &self.best, Some(Rc::clone(&log))) else {
            return (None, Vec::new());
        };
        let outcome = World::new(plan, Trace::Off).up_to(events).run_guarded();
        self.work.count(outcome.events);
        (outcome.violation, log.take())
    }
}

/// Runs what a reduction leaves, up to so many events: the invariant that breaks, if one does, and how many it took.
fn run(options: &Options, reduction: &Reduction, events: u64) -> (Option<Violation>, u64) {
    let Some((_, plan)) = plan(options, reduction, None) else { return (None, 0) };
    let outcome = World::new(plan, Trace::Off).up_to(events).run_guarded();
    (outcome.violation, outcome.events)
}
