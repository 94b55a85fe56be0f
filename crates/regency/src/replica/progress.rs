//! How fast a transfer gets on, from what is here of it at different times.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use regency_protocol::replica::TransferStatus;
use serde::{Deserialize, Serialize};

/// How often a line is written while a transfer runs.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// The least time over which a rate is measured.
const MEASURE_PERIOD: Duration = Duration::from_millis(900);
const MIB: f64 = (1 << 20) as f64;
const BYTES: &str = "bytes";
const INSTANCES: &str = "instances";
/// The phase of a transfer that counts instances.
const LOG_PHASE: &str = "log";

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
    sample: Option<Sample>,
    next_line: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    target: u64,
    phase: &'static str,
    done: u64,
    /// What came in a second, between this sample and the one before.
    rate: f64,
}

impl Progress {
    /// No transfer runs.
    pub(super) fn new(now: Instant) -> Self {
        Self { sample: None, next_line: now + TELL_PERIOD }
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
        let Some(TransferStatus { phase, target, done, total, donors }) = status.copied() else {
            self.sample = None;
            return None;
        };
        let target = target.0;
        let same = self.sample.filter(|sample| (sample.target, sample.phase) == (target, phase));
        let sample = match same {
            None => Sample { at: now, target, phase, done, rate: 0.0 },
            Some(sample) if now.duration_since(sample.at) < MEASURE_PERIOD => sample,
            Some(sample) => {
                let come = done.saturating_sub(sample.done) as f64;
                let rate = come / now.duration_since(sample.at).as_secs_f64();
                Sample { at: now, done, rate, ..sample }
            }
        };
        self.sample = Some(sample);
        let left = total.saturating_sub(done) as f64;
        Some(TransferReport {
            target,
            phase: Cow::Borrowed(phase),
            unit: Cow::Borrowed(if phase == LOG_PHASE { INSTANCES } else { BYTES }),
            done,
            total,
            donors: donors as u64,
            per_second: sample.rate,
            seconds_left: (sample.rate > 0.0).then(|| left / sample.rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::InstanceId;

    use super::*;

    fn status(phase: &'static str, done: u64, total: u64) -> TransferStatus {
        TransferStatus { phase, target: InstanceId(9), done, total, donors: 2 }
    }

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        let snapshot = |mib: u64| status("snapshot", mib << 20, 400 << 20);
        let first = progress.observe(at(0), Some(&snapshot(100))).unwrap();
        assert_eq!((first.per_second, first.seconds_left), (0.0, None));
        assert_eq!(first.to_string(), "snapshot 25% of 400.0 MiB, 0.0 MiB/s from 2 donors");
        let later = progress.observe(at(2), Some(&snapshot(200))).unwrap();
        assert_eq!(later.to_string(), "snapshot 50% of 400.0 MiB, 50.0 MiB/s from 2 donors, 4 s left");
        let again = progress.observe(at(2), Some(&snapshot(200))).unwrap();
        assert_eq!(again.per_second, later.per_second, "asked twice at once");
        assert_eq!(progress.observe(at(3), None), None);
        assert_eq!(progress.observe(at(4), Some(&snapshot(0))).unwrap().per_second, 0.0);
    }

    #[test]
    fn a_log_is_counted_in_instances_and_a_search_not_at_all() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        progress.observe(begin, Some(&status("log", 0, 1000)));
        let report =
            progress.observe(begin + Duration::from_secs(1), Some(&status("log", 200, 1000))).unwrap();
        assert_eq!(report.to_string(), "log 20% of 1000 instances, 200 a second from 2 donors, 4 s left");
        let report = progress.observe(begin, Some(&status("offers", 0, 0))).unwrap();
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
