//! How fast a transfer gets on, from what is here of it at different times.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// How often a line is written while a transfer runs.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// The least time over which a rate is measured.
const MEASURE_PERIOD: Duration = Duration::from_millis(900);
const MIB: f64 = (1 << 20) as f64;

/// What the core tells of a transfer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferFigures {
    /// The instance that it leads to.
    pub target: u64,
    /// What is being fetched.
    pub phase: &'static str,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes when it is done; 0 while that is not known.
    pub total_bytes: u64,
    /// Replicas that give.
    pub donors: u64,
}

/// The same, with how fast it gets on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferReport {
    /// The instance that it leads to.
    pub target: u64,
    /// What is being fetched.
    pub phase: &'static str,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes when it is done; 0 while that is not known.
    pub total_bytes: u64,
    /// Replicas that give.
    pub donors: u64,
    /// Bytes that came in a second of late.
    pub bytes_per_second: f64,
    /// At that rate; nothing if nothing comes.
    pub seconds_left: Option<f64>,
}

impl fmt::Display for TransferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / MIB;
        write!(f, "{}", self.phase)?;
        if self.total_bytes > 0 {
            let percent = 100.0 * self.bytes as f64 / self.total_bytes as f64;
            write!(f, " {percent:.0}% of {:.1} MiB", mib(self.total_bytes))?;
        }
        let donors = if self.donors == 1 { "donor" } else { "donors" };
        write!(f, ", {:.1} MiB/s from {} {donors}", self.bytes_per_second / MIB, self.donors)?;
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
    bytes: u64,
    /// Bytes in a second, between this sample and the one before.
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
        figures: Option<TransferFigures>,
    ) -> Option<TransferReport> {
        let Some(figures) = figures else {
            self.sample = None;
            return None;
        };
        let TransferFigures { target, phase, bytes, total_bytes, donors } = figures;
        let same = self.sample.filter(|sample| (sample.target, sample.phase) == (target, phase));
        let sample = match same {
            None => Sample { at: now, target, phase, bytes, rate: 0.0 },
            Some(sample) if now.duration_since(sample.at) < MEASURE_PERIOD => sample,
            Some(sample) => {
                let come = bytes.saturating_sub(sample.bytes) as f64;
                let rate = come / now.duration_since(sample.at).as_secs_f64();
                Sample { at: now, bytes, rate, ..sample }
            }
        };
        self.sample = Some(sample);
        let left = total_bytes.saturating_sub(bytes) as f64;
        Some(TransferReport {
            target,
            phase,
            bytes,
            total_bytes,
            donors,
            bytes_per_second: sample.rate,
            seconds_left: (sample.rate > 0.0).then(|| left / sample.rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(bytes: u64) -> Option<TransferFigures> {
        Some(TransferFigures { target: 9, phase: "snapshot", bytes, total_bytes: 400 << 20, donors: 2 })
    }

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        let first = progress.observe(at(0), figures(100 << 20)).unwrap();
        assert_eq!((first.bytes_per_second, first.seconds_left), (0.0, None));
        assert_eq!(first.to_string(), "snapshot 25% of 400.0 MiB, 0.0 MiB/s from 2 donors");
        let later = progress.observe(at(2), figures(200 << 20)).unwrap();
        assert_eq!(later.to_string(), "snapshot 50% of 400.0 MiB, 50.0 MiB/s from 2 donors, 4 s left");
        let again = progress.observe(at(2), figures(200 << 20)).unwrap();
        assert_eq!(again.bytes_per_second, later.bytes_per_second, "asked twice at once");
        assert_eq!(progress.observe(at(3), None), None);
        assert_eq!(progress.observe(at(4), figures(0)).unwrap().bytes_per_second, 0.0);
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
