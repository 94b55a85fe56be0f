//! The time that the core is told: the wall clock, made to never go back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use regency_protocol::time::Timestamp;

/// Follows the wall clock; while that stands behind what was told already, runs at half its speed.
///
/// So a clock that was set back delays timers at most twofold and is caught up with, and one that was set forward
/// is followed at once.
#[derive(Debug)]
pub(super) struct Clock {
    told: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that begins at the wall clock's time.
    pub(super) fn start() -> Self {
        Self { told: wall(), at: Instant::now() }
    }

    /// The time now.
    pub(super) fn now(&mut self) -> Timestamp {
        let at = Instant::now();
        self.told = advance(self.told, at.duration_since(self.at), wall());
        self.at = at;
        self.told
    }
}

fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since_epoch)
}

fn advance(told: Timestamp, elapsed: Duration, wall: Timestamp) -> Timestamp {
    wall.max(told.plus(elapsed / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_caught_up_with() {
        let second = Duration::from_secs(1);
        let ahead = Timestamp(10_000_000);
        let told = advance(ahead, second, Timestamp(4_000_000));
        assert_eq!(told, Timestamp(10_500_000));
        assert_eq!(advance(told, second, Timestamp(10_900_000)), Timestamp(11_000_000));
        assert_eq!(advance(told, second, Timestamp(11_500_000)), Timestamp(11_500_000));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::start();
        let mut last = clock.now();
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
