//! How much work it may be to shrink a schedule, how much it was so far, and who is told.

use std::io::Write;
use std::time::{Duration, Instant};

/// How often somebody who waits is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How much work shrinking may be; the schedules that it begins and ends with are always run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Nothing more is tried after this time.
    pub time: Duration,
    /// All schedules together have at most so many events.
    pub events: u64,
}

impl Default for Effort {
    /// A minute, or what a fast machine does in a few.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), events: 300_000_000 }
    }
}

/// The work of one shrinking.
pub(super) struct Work<'a> {
    effort: Effort,
    began: Instant,
    told: Instant,
    runs: u64,
    events: u64,
    progress: &'a mut dyn Write,
}

impl<'a> Work<'a> {
    /// None was done.
    pub(super) fn new(effort: Effort, progress: &'a mut dyn Write) -> Self {
        let began = Instant::now();
        Self { effort, began, told: began, runs: 0, events: 0, progress }
    }

    /// A schedule with so many events was run.
    pub(super) fn count(&mut self, events: u64) {
        self.runs += 1;
        self.events += events;
    }

    /// How many events the next schedule may have; 0 if there may be none.
    pub(super) fn left(&self) -> u64 {
        if self.began.elapsed() >= self.effort.time {
            return 0;
        }
        self.effort.events.saturating_sub(self.events)
    }

    /// Whether nothing more may be tried.
    pub(super) fn is_over(&self) -> bool {
        self.left() == 0
    }

    /// How many schedules were run.
    pub(super) fn runs(&self) -> u64 {
        self.runs
    }

    /// How many events they had.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// How long it took.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Tells how far it is.
    pub(super) fn tell(&mut self, what: &str) {
        self.told = Instant::now();
        let (seconds, runs, events) = (self.seconds(), self.runs, self.events);
        // A reader that does not read misses it.
        let _ = writeln!(self.progress, "{seconds:6.1} s, {runs} schedules, {events} events: {what}");
    }

    /// Tells it if nobody was told for a while.
    pub(super) fn tell_again(&mut self, what: impl FnOnce() -> String) {
        if self.told.elapsed() >= TELL_EVERY {
            self.tell(&what());
        }
    }
}
