//! Whether the leader proposes what it has as soon as it could (after Prime, Aardvark and RBFT).
//!
//! Every replica sees requests arrive itself. An honest leader proposes all that is there whenever a round ends, so
//! a request waits about a round for its proposal, or as many as there are full batches before it. One that lets
//! most requests of most batches wait several times longer is asked to go, long before any timer expires.

use std::time::Duration;

use crate::limits::Settings;
use crate::time::Timestamp;

/// Rounds, at the slow end of what is usual, that a request may wait for its proposal.
const ROUNDS: u32 = 4;
/// A leader is judged by no fewer batches, over no less time.
const BATCHES_MIN: u32 = 4;
const PERIOD: Duration = Duration::from_secs(1);
/// Every change that this replica asked for makes it twice as patient, for as long: clients that send to the leader
/// last can bring such a change about, but no more often than this.
const LENIENCY_PERIOD: Duration = Duration::from_secs(600);
const LENIENCY_MAX: u32 = 10;

/// The leader's record in the current period.
#[derive(Debug, Default)]
pub(crate) struct LeaderMonitor {
    began: Option<Timestamp>,
    batches: u32,
    late: u32,
    leniency: u32,
    eased: Timestamp,
}

impl LeaderMonitor {
    /// A new leader begins with a clean record.
    pub(crate) fn begin(&mut self) {
        self.began = None;
        self.batches = 0;
        self.late = 0;
    }

    /// How long a request may wait for its proposal, with `backlog` full batches before it.
    pub(crate) fn patience(&self, round: Duration, backlog: u32, settings: &Settings) -> Duration {
        let rounds = ROUNDS.saturating_mul(backlog.saturating_add(1));
        let usual = round.saturating_mul(rounds).max(settings.proposal_delay_min);
        usual.saturating_mul(1_u32.checked_shl(self.leniency).unwrap_or(u32::MAX))
    }

    /// Takes a proposal into account of whose requests `late` of `known` waited longer than they may; returns
    /// whether the leader should go.
    pub(crate) fn judge(&mut self, now: Timestamp, known: usize, late: usize) -> bool {
        if known == 0 {
            return false;
        }
        if self.leniency > 0 && now.since(self.eased) >= LENIENCY_PERIOD {
            self.leniency = self.leniency.saturating_sub(1);
            self.eased = now;
        }
        let began = *self.began.get_or_insert(now);
        self.batches = self.batches.saturating_add(1);
        if late > known.saturating_sub(late) {
            self.late = self.late.saturating_add(1);
        }
        if self.batches < BATCHES_MIN || now.since(began) < PERIOD {
            return false;
        }
        let is_slow = self.late.saturating_mul(4) >= self.batches.saturating_mul(3);
        self.begin();
        if is_slow {
            self.leniency = self.leniency.saturating_add(1).min(LENIENCY_MAX);
            self.eased = now;
        }
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a batch of ten requests every `every` milliseconds; says after how many the leader should go.
    fn batches_until_change(every: u64, late: impl Fn(u64) -> usize) -> Option<u64> {
        let mut monitor = LeaderMonitor::default();
        (1..200).find(|batch| monitor.judge(Timestamp(batch * every * 1000), 10, late(*batch)))
    }

    #[test]
    fn a_leader_that_is_always_late_goes_within_seconds() {
        assert_eq!(batches_until_change(10, |_| 10), Some(101));
        assert_eq!(batches_until_change(490, |_| 8), Some(4));
    }

    #[test]
    fn a_leader_that_is_late_now_and_then_stays() {
        assert_eq!(batches_until_change(10, |batch| if batch % 2 == 0 { 10 } else { 0 }), None);
        assert_eq!(batches_until_change(100, |_| 5), None, "half of a batch is not most of it");
    }

    #[test]
    fn each_complaint_doubles_the_patience_and_time_halves_it() {
        let (mut monitor, settings) = (LeaderMonitor::default(), Settings::default());
        let patience = |monitor: &LeaderMonitor| monitor.patience(Duration::from_millis(50), 0, &settings);
        assert_eq!(patience(&monitor), Duration::from_millis(200));
        (0..5).for_each(|second| _ = monitor.judge(Timestamp(second * 1_000_000), 1, 1));
        assert_eq!(patience(&monitor), Duration::from_millis(400));
        monitor.judge(Timestamp(700_000_000), 1, 0);
        assert_eq!(patience(&monitor), Duration::from_millis(200));
    }
}
