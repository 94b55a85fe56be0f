//! Whether ordering suffers while this replica gives to others, and how much of the allowed rate is left to them [ST-4].
//!
//! The loop tells how long instances wait for votes. What that takes while nothing is given is the measure; when it
//! takes much longer while something is, the share is halved, and comes back step by step.

use std::time::{Duration, Instant};

/// How often the share is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// How many times its usual time a phase may take before the share is halved.
const SLOWER_MAX: f64 = 2.0;
/// What it may take more in any case.
const ALLOWANCE: Duration = Duration::from_millis(2);
/// Periods over which the usual time is averaged.
const PERIODS: f64 = 8.0;

/// A part of the allowed rate, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share(u32);

impl Share {
    /// All of it.
    pub(super) const FULL: Self = Self(1000);
    /// The least that is left.
    pub(super) const LEAST: Self = Self(100);

    /// This part of so many bytes.
    pub(super) fn of(self, bytes: u64) -> u64 {
        let part = u128::from(bytes) * u128::from(self.0) / u128::from(Self::FULL.0);
        // No more than `bytes`.
        u64::try_from(part).unwrap_or(bytes)
    }

    /// In thousandths.
    pub(super) fn thousandths(self) -> u32 {
        self.0
    }

    fn halved(self) -> Self {
        Self(self.0 / 2).max(Self::LEAST)
    }

    fn recovered(self) -> Self {
        Self(self.0 + self.0 / 4).min(Self::FULL)
    }
}

/// What is known of how long phases take.
#[derive(Debug)]
pub(super) struct Load {
    /// What was observed since the last look.
    sum: Duration,
    count: u32,
    /// Seconds that a phase takes while nothing is given.
    usual: Option<f64>,
    share: Share,
    next_look: Instant,
}

impl Load {
    /// Nothing is known yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { sum: Duration::ZERO, count: 0, usual: None, share: Share::FULL, next_look: now + LOOK_PERIOD }
    }

    /// An instance has waited so long for votes.
    pub(super) fn observe(&mut self, time: Duration) {
        self.sum += time;
        self.count += 1;
    }

    /// Looks at the share if it is time to; tells it if it is another than before.
    pub(super) fn look(&mut self, now: Instant, is_giving: bool) -> Option<Share> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_PERIOD;
        let recent = (self.count > 0).then(|| self.sum.as_secs_f64() / f64::from(self.count));
        (self.sum, self.count) = (Duration::ZERO, 0);
        let is_slow = match (recent, self.usual) {
            (Some(recent), Some(usual)) => recent > usual * SLOWER_MAX + ALLOWANCE.as_secs_f64(),
            (Some(_) | None, _) => false,
        };
        match (recent, self.usual) {
            (Some(recent), None) => self.usual = Some(recent),
            // While something is given, only what is quicker than usual says anything about the usual.
            (Some(recent), Some(usual)) if !is_giving || recent < usual => {
                self.usual = Some(usual + (recent - usual) / PERIODS);
            }
            (Some(_) | None, _) => {}
        }
        let share = if is_giving && is_slow { self.share.halved() } else { self.share.recovered() };
        let before = std::mem::replace(&mut self.share, share);
        (before != share).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a period with phases of so many milliseconds does to the share.
    fn period(load: &mut Load, now: &mut Instant, millis: u64, is_giving: bool) -> u32 {
        *now += LOOK_PERIOD;
        (0..10).for_each(|_| load.observe(Duration::from_millis(millis)));
        load.look(*now, is_giving);
        load.share.thousandths()
    }

    #[test]
    fn the_share_is_halved_while_ordering_is_slow_and_comes_back() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        (0..5).for_each(|_| assert_eq!(period(&mut load, &mut now, 2, false), 1000));
        assert_eq!(period(&mut load, &mut now, 5, true), 1000, "not much slower");
        let falling: Vec<u32> = (0..5).map(|_| period(&mut load, &mut now, 20, true)).collect();
        assert_eq!(falling, [500, 250, 125, 100, 100]);
        assert_eq!(period(&mut load, &mut now, 2, true), 125);
        for _ in 0..20 {
            period(&mut load, &mut now, 2, true);
        }
        assert_eq!(load.share, Share::FULL);
    }

    #[test]
    fn what_is_slow_while_nothing_is_given_becomes_usual() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        period(&mut load, &mut now, 2, false);
        (0..40).for_each(|_| assert_eq!(period(&mut load, &mut now, 20, false), 1000));
        assert_eq!(period(&mut load, &mut now, 20, true), 1000);
    }

    #[test]
    fn an_idle_replica_gives_at_the_full_rate() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        period(&mut load, &mut now, 2, false);
        period(&mut load, &mut now, 50, true);
        for _ in 0..5 {
            now += LOOK_PERIOD;
            load.look(now, true);
        }
        assert_eq!(load.share, Share::FULL);
        assert_eq!(load.share.of(u64::MAX), u64::MAX);
    }
}
