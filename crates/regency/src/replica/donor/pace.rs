//! How fast donations may leave: so many bytes a second, or a share of them [ST-4].

use std::time::Duration;

use super::super::load::Share;

/// What may leave at once after a pause, in time at the full rate.
const BURST: Duration = Duration::from_millis(50);
/// The rate of which a share is taken where none is configured.
const UNLIMITED_SHARE_BYTES: u64 = 1 << 30;

/// A bucket that is filled at the allowed rate. Times are those since any one moment.
#[derive(Debug)]
pub(super) struct Pace {
    /// `None`: as fast as it goes, unless only a share is allowed.
    bytes_per_second: Option<u64>,
    /// When what has left is paid for.
    paid_at: Duration,
}

impl Pace {
    /// A full bucket for so many bytes a second; 0: no limit.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: (bytes_per_second > 0).then_some(bytes_per_second), paid_at: Duration::ZERO }
    }

    /// How long nothing may leave.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.paid_at.saturating_sub(now + BURST)
    }

    /// Notes that so many bytes leave.
    pub(super) fn spend(&mut self, now: Duration, bytes: u64, share: Share) {
        let rate = match self.bytes_per_second {
            None if share == Share::FULL => return,
            None => UNLIMITED_SHARE_BYTES,
            Some(rate) => rate,
        };
        let price = bytes as f64 / share.of(rate).max(1) as f64;
        self.paid_at = self.paid_at.max(now) + Duration::from_secs_f64(price);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Bytes that leave in a second of a clock that only this test moves, a MiB at a time.
    fn in_a_second(pace: &mut Pace, share: Share) -> u64 {
        let begin = pace.paid_at;
        let mut now = begin;
        let mut left = 0;
        while now < begin + Duration::from_secs(1) {
            pace.spend(now, MIB, share);
            left += MIB;
            now += pace.wait(now).max(Duration::from_micros(10));
        }
        left
    }

    #[test]
    fn no_more_leaves_than_the_rate_and_a_burst() {
        let mut pace = Pace::new(100 * MIB);
        let left = in_a_second(&mut pace, Share::FULL);
        assert!((100 * MIB..=107 * MIB).contains(&left), "{left}");
    }

    #[test]
    fn a_share_slows_it_down_and_a_pause_saves_no_more_than_a_burst() {
        let mut pace = Pace::new(100 * MIB);
        let left = in_a_second(&mut pace, Share::LEAST);
        assert!((10 * MIB..=12 * MIB).contains(&left), "{left}");
        pace.paid_at = Duration::ZERO;
        let now = Duration::from_secs(1000);
        pace.spend(now, 100 * MIB, Share::FULL);
        assert_eq!(pace.wait(now), Duration::from_secs(1) - BURST);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(0);
        pace.spend(Duration::ZERO, u64::MAX, Share::FULL);
        assert_eq!(pace.wait(Duration::ZERO), Duration::ZERO);
    }
}
