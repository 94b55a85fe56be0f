//! How fast a transfer gets on, from what is here of it at different times.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use regency_protocol::ids::InstanceId;
use regency_protocol::replica::{TransferPhase, TransferStatus};
use serde::{Deserialize, Serialize};

/// How often a line is written while a transfer runs.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// How often it is noted how much is here.
const NOTE_PERIOD: Duration = Duration::from_millis(900);
/// Over how long a rate is measured: with little a second, several seconds pass between two chunks.
const WINDOW: Duration = Duration::from_secs(10);
const MIB: f64 = (1 << 20) as f64;
const BYTES: &str = "bytes";
const INSTANCES: &str = "instances";
/// Of how many signs the bar of a transfer is made.
const BAR_WIDTH: u64 = 24;

/// How far a transfer is, and how fast it gets on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferReport {
    /// The instance that it leads to.
    pub target: u64,
    /// What it does: `snapshot`, `log`, and what comes before and after.
    pub phase: Cow<'static, str>,
    /// What `done`, `total` and `per_second` count: `bytes` of a snapshot, `instances` of the log.
    pub unit: Cow<'static, str>,
    /// So much is here.
    pub done: u64,
    /// All of it; 0 while that is not known.
    pub total: u64,
    /// Replicas that give.
    pub donors: u64,
    /// So much came in a second of late.
    pub per_second: f64,
    /// At that rate; nothing if nothing comes.
    pub seconds_left: Option<f64>,
}

impl TransferReport {
    /// A bar that shows how much of it is here; nothing while that is not known.
    #[must_use]
    pub fn bar(&self) -> Option<String> {
        let full = self.done.min(self.total).saturating_mul(BAR_WIDTH).checked_div(self.total)?;
        let signs = (0..BAR_WIDTH).map(|place| if place < full { '█' } else { '░' });
        Some(signs.collect())
    }

    /// The bar and what is to be told beside it; nothing while there is no bar.
    #[must_use]
    pub fn line_with_bar(&self) -> Option<String> {
        Some(format!("{} {self}", self.bar()?))
    }
}

impl fmt::Display for TransferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.phase)?;
        if self.total == 0 {
            return write!(f, ", towards instance {}", self.target);
        }
        let percent = 100.0 * self.done as f64 / self.total as f64;
        match self.unit.as_ref() {
            BYTES => {
                let (total, rate) = (self.total as f64 / MIB, self.per_second / MIB);
                write!(f, " {percent:.0}% of {total:.1} MiB, {rate:.1} MiB/s")?;
            }
            unit => write!(f, " {percent:.0}% of {} {unit}, {:.0} a second", self.total, self.per_second)?,
        }
        write!(f, " from {} {}", self.donors, if self.donors == 1 { "donor" } else { "donors" })?;
        match self.seconds_left {
            Some(seconds) => write!(f, ", {seconds:.0} s left"),
            None => Ok(()),
        }
    }
}

/// What was seen of the transfer that runs, if one does.
#[derive(Debug)]
pub(super) struct Progress {
    seen: Option<Seen>,
    next_line: Instant,
}

#[derive(Debug)]
struct Seen {
    target: InstanceId,
    phase: TransferPhase,
    /// When how much was here, the newest last.
    notes: VecDeque<(Instant, u64)>,
}

impl Seen {
    fn new(status: &TransferStatus) -> Self {
        Self { target: status.target, phase: status.phase, notes: VecDeque::new() }
    }

    fn is_of(&self, status: &TransferStatus) -> bool {
        (self.target, self.phase) == (status.target, status.phase)
    }

    fn note(&mut self, now: Instant, done: u64) {
        let is_due = |(last, _): &(Instant, u64)| now.duration_since(*last) >= NOTE_PERIOD;
        if self.notes.back().is_none_or(is_due) {
            self.notes.push_back((now, done));
            // Two are needed, however old.
            while self.notes.len() > 2
                && self.notes.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
            {
                self.notes.pop_front();
            }
        }
    }

    /// What came in a second, between the first note and the last.
    fn rate(&self) -> f64 {
        let (Some((begin, before)), Some((end, done))) = (self.notes.front(), self.notes.back()) else {
            return 0.0;
        };
        let seconds = end.duration_since(*begin).as_secs_f64();
        if seconds > 0.0 { done.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

impl Progress {
    /// No transfer runs.
    pub(super) fn new(now: Instant) -> Self {
        Self { seen: None, next_line: now + TELL_PERIOD }
    }

    /// Takes the chance to look again and to write a line, if it is there.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_line;
        if is_due {
            self.next_line = now + TELL_PERIOD;
        }
        is_due
    }

    /// What is to be told of a transfer that is so far.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        status: Option<&TransferStatus>,
    ) -> Option<TransferReport> {
        let Some(status) = status else {
            self.seen = None;
            return None;
        };
        let mut seen =
            self.seen.take().filter(|seen| seen.is_of(status)).unwrap_or_else(|| Seen::new(status));
        seen.note(now, status.done);
        let rate = seen.rate();
        self.seen = Some(seen);
        let TransferStatus { phase, target, done, total, donors } = *status;
        let left = total.saturating_sub(done) as f64;
        Some(TransferReport {
            target: target.0,
            phase: Cow::Borrowed(phase.label()),
            unit: Cow::Borrowed(if phase == TransferPhase::Log { INSTANCES } else { BYTES }),
            done,
            total,
            donors: donors as u64,
            per_second: rate,
            seconds_left: (rate > 0.0).then(|| left / rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: TransferPhase, done: u64, total: u64) -> TransferStatus {
        TransferStatus { phase, target: InstanceId(9), done, total, donors: 2 }
    }

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        let snapshot = |mib: u64| status(TransferPhase::Snapshot, mib << 20, 400 << 20);
        let first = progress.observe(at(0), Some(&snapshot(100))).unwrap();
        assert_eq!((first.per_second, first.seconds_left), (0.0, None));
        assert_eq!(first.to_string(), "snapshot 25% of 400.0 MiB, 0.0 MiB/s from 2 donors");
        let later = progress.observe(at(2), Some(&snapshot(200))).unwrap();
        assert_eq!(later.to_string(), "snapshot 50% of 400.0 MiB, 50.0 MiB/s from 2 donors, 4 s left");
        let again = progress.observe(at(2), Some(&snapshot(200))).unwrap();
        assert_eq!(again.per_second, later.per_second, "asked twice at once");
        assert_eq!(progress.observe(at(3), None), None);
        progress.observe(at(3), Some(&snapshot(0)));
        assert_eq!(progress.observe(at(4), Some(&snapshot(0))).unwrap().per_second, 0.0);
    }

    #[test]
    fn a_chunk_every_few_seconds_is_a_rate_and_what_came_long_ago_is_none() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let mut rates: Vec<f64> = (0..60)
            .filter_map(|second| {
                let done = u64::min(second / 4, 5);
                let status = status(TransferPhase::Snapshot, done << 20, 400 << 20);
                progress.observe(begin + Duration::from_secs(second), Some(&status))
            })
            .map(|report| report.per_second / MIB)
            .collect();
        assert_eq!(rates.split_off(32), [0.0; 28], "nothing since the twentieth second");
        assert!(rates[4..20].iter().all(|rate| (0.1..=0.3).contains(rate)), "{rates:?}");
    }

    #[test]
    fn a_bar_shows_how_much_is_here() {
        let bar = |done, total| {
            let status = status(TransferPhase::Snapshot, done, total);
            Progress::new(Instant::now()).observe(Instant::now(), Some(&status)).unwrap().bar()
        };
        assert_eq!(bar(1, 4).unwrap(), "██████░░░░░░░░░░░░░░░░░░");
        assert_eq!(bar(9, 4).unwrap(), "█".repeat(24));
        assert_eq!(bar(0, 0), None);
    }

    #[test]
    fn a_log_is_counted_in_instances_and_a_search_not_at_all() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        progress.observe(begin, Some(&status(TransferPhase::Log, 0, 1000)));
        let report = progress
            .observe(begin + Duration::from_secs(1), Some(&status(TransferPhase::Log, 200, 1000)))
            .unwrap();
        assert_eq!(report.to_string(), "log 20% of 1000 instances, 200 a second from 2 donors, 4 s left");
        let report = progress.observe(begin, Some(&status(TransferPhase::Offers, 0, 0))).unwrap();
        assert_eq!(report.to_string(), "offers, towards instance 9");
    }

    #[test]
    fn a_line_is_due_every_two_seconds() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        assert!(!progress.take_due(begin + Duration::from_secs(1)));
        assert!(progress.take_due(begin + Duration::from_secs(2)));
        assert!(!progress.take_due(begin + Duration::from_secs(3)));
    }
}
