//! How long the oldest pending request may take: a multiple of what a round of votes takes here [STOP-1].
//!
//! A round is as long as the round trips to a quorum make it, which every replica measures itself: so nobody tunes the
//! timeout, and neither a slow leader nor any `f` liars can stretch it (decision 0019).

use std::time::Duration;

use crate::ids::Digest;
use crate::limits::Settings;
use crate::mutants::{Mutant, is_active};
use crate::time::Timestamp;

/// Rounds, at the slow end of what is usual, that a request may take before the leader is suspected.
const ROUNDS: u32 = 8;
/// Doublings that are counted; the cap makes more of them meaningless.
const BACKOFF_MAX: u32 = 20;

/// A smoothed round trip and its deviation, as TCP keeps them (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    mean: Duration,
    deviation: Duration,
}

impl RoundTrip {
    /// Takes one round trip into account.
    pub(crate) fn observe(&mut self, trip: Duration) {
        if self.mean.is_zero() {
            self.mean = trip;
            self.deviation = half(trip);
            return;
        }
        let off = self.mean.abs_diff(trip);
        self.deviation = weighted(self.deviation, 3, off, 2);
        self.mean = weighted(self.mean, 7, trip, 3);
    }

    /// What it takes, on its bad days; zero as long as nothing was measured.
    pub(crate) fn bound(&self) -> Duration {
        self.mean.saturating_add(self.deviation.saturating_mul(4))
    }
}

/// What the own service takes for a delivery: a request waits for that, too, and no leader is to blame.
#[derive(Debug, Default)]
pub(crate) struct ServicePace {
    usual: RoundTrip,
    /// Since when it is at the first delivery that it has.
    busy_since: Option<Timestamp>,
}

impl ServicePace {
    /// There is something to execute, if there was nothing before.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.busy_since.get_or_insert(now);
    }

    /// A delivery is executed; `is_idle` if it was the only one.
    pub(crate) fn done(&mut self, now: Timestamp, is_idle: bool) {
        if let Some(since) = self.busy_since {
            self.usual.observe(now.since(since));
        }
        self.busy_since = (!is_idle).then_some(now);
    }

    /// Nothing is executed any more.
    pub(crate) fn stop(&mut self) {
        self.busy_since = None;
    }

    /// For how long it has been at the first delivery that it has.
    pub(crate) fn busy_for(&self, now: Timestamp) -> Duration {
        self.busy_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// What a delivery takes, on its bad days; at least as long as the one of now has taken.
    pub(crate) fn bound(&self, now: Timestamp) -> Duration {
        self.usual.bound().max(self.busy_for(now))
    }
}

/// The timer of the oldest pending request, and its backoff.
#[derive(Debug, Default)]
pub(crate) struct RequestTimer {
    /// What a round takes, on its bad days.
    round: Duration,
    /// How often the timeout has doubled.
    backoff: u32,
    /// The request that was oldest at install: its execution is progress.
    watched: Option<Digest>,
    /// No request's time began before this: when the regency began, or the replica caught up.
    began: Timestamp,
    /// When the pool is looked at next.
    due: Option<Timestamp>,
}

impl RequestTimer {
    /// Takes the round trip to a quorum: a round is two of them, at most.
    pub(crate) fn set_round_trip(&mut self, trip: Duration) {
        self.round = trip.saturating_mul(2);
    }

    /// What a round takes, on its bad days.
    pub(crate) fn round(&self) -> Duration {
        self.round
    }

    /// How long a request may wait with nothing before it.
    pub(crate) fn timeout(&self, settings: &Settings) -> Duration {
        self.timeout_in_queue(self.round, 0, settings)
    }

    /// How long a request may wait with so many batches before it, of which each takes `pace`.
    pub(crate) fn timeout_in_queue(&self, pace: Duration, batches: u32, settings: &Settings) -> Duration {
        let rounds = ROUNDS.saturating_mul(batches.saturating_add(1));
        let usual = pace.saturating_mul(rounds).max(settings.request_timeout_min);
        self.backed_off(usual, settings)
    }

    /// `duration`, doubled as often as regencies passed without progress, up to the cap.
    pub(crate) fn backed_off(&self, duration: Duration, settings: &Settings) -> Duration {
        let factor = 1_u32.checked_shl(self.backoff).unwrap_or(u32::MAX);
        duration.saturating_mul(factor).min(settings.request_timeout_max)
    }

    /// A regency was installed while `oldest` was the oldest pending request; `is_pending` tells whether the one
    /// of the install before still is, `had_begun` whether the SYNC of the regency before has come.
    pub(crate) fn install(
        &mut self,
        oldest: Option<Digest>,
        had_begun: bool,
        is_pending: impl Fn(&Digest) -> bool,
    ) {
        match &self.watched {
            Some(watched) if !is_pending(watched) => self.backoff = 0,
            // What does not count yet is not watched, but who is too impatient for any SYNC never gets one.
            None if had_begun => {}
            Some(_) | None if is_active(Mutant::BackoffNever) => {}
            Some(_) | None => self.backoff = self.backoff.saturating_add(1).min(BACKOFF_MAX),
        }
        self.watched = oldest;
    }

    /// Ends the backoff once the request that was oldest at install is pending no more.
    pub(crate) fn note_progress(&mut self, is_pending: impl Fn(&Digest) -> bool) {
        if self.watched.as_ref().is_some_and(|watched| !is_pending(watched)) {
            self.watched = None;
            self.backoff = 0;
        }
    }

    /// Nobody's time began before `now`.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.began = now;
    }

    /// When the time of a request that came at `since` began.
    pub(crate) fn began(&self, since: Timestamp) -> Timestamp {
        self.began.max(since)
    }

    /// Sees to it that the pool is looked at within a quarter of `timeout`.
    pub(crate) fn arm(&mut self, now: Timestamp, timeout: Duration) {
        let soon = now.plus(half(half(timeout)));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Whether the pool is to be looked at now; if so, it has to be armed again.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
        }
        is_due
    }

    /// When the pool is looked at next.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Forgets when the pool is to be looked at: nothing is pending.
    pub(crate) fn disarm(&mut self) {
        self.due = None;
    }

    /// How often the timeout has doubled.
    pub(crate) fn backoff(&self) -> u32 {
        self.backoff
    }
}

fn half(duration: Duration) -> Duration {
    duration.checked_div(2).unwrap_or_default()
}

/// `(old * parts + new) / 2^shift`, where `parts + 1 = 2^shift`.
fn weighted(old: Duration, parts: u32, new: Duration, shift: u32) -> Duration {
    let sum = old.saturating_mul(parts).saturating_add(new);
    sum.checked_div(1_u32.checked_shl(shift).unwrap_or(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);

    fn settings() -> Settings {
        Settings {
            request_timeout_min: Duration::from_millis(200),
            request_timeout_max: Duration::from_secs(4),
            ..Settings::default()
        }
    }

    #[test]
    fn the_timeout_follows_the_rounds_and_the_backlog() {
        let mut timer = RequestTimer::default();
        assert_eq!(timer.timeout(&settings()), Duration::from_millis(200));
        let mut trip = RoundTrip::default();
        (0..100).for_each(|_| trip.observe(Duration::from_millis(25)));
        timer.set_round_trip(trip.bound());
        let alone = timer.timeout(&settings());
        assert!(alone >= Duration::from_millis(400) && alone < Duration::from_millis(450), "{alone:?}");
        let queue = |batches| timer.timeout_in_queue(timer.round(), batches, &settings());
        assert!(queue(3) >= alone * 3);
        assert_eq!(queue(1000), Duration::from_secs(4));
    }

    #[test]
    fn the_pace_of_a_service_is_what_it_takes_and_has_taken() {
        let mut pace = ServicePace::default();
        let at = |millis: u64| Timestamp(millis * 1000);
        assert_eq!(pace.bound(at(7)), Duration::ZERO);
        pace.begin(at(10));
        pace.begin(at(12));
        assert_eq!(pace.busy_for(at(14)), Duration::from_millis(4));
        pace.done(at(20), false);
        assert!(pace.bound(at(20)) >= Duration::from_millis(10));
        assert_eq!(pace.bound(at(2020)), Duration::from_secs(2), "it is slower than it ever was");
        pace.done(at(2020), true);
        assert_eq!(pace.busy_for(at(9000)), Duration::ZERO);
    }

    #[test]
    fn the_timeout_doubles_with_regencies_without_progress_and_falls_with_it() {
        let mut timer = RequestTimer::default();
        timer.install(Some(A), true, |_| true);
        assert_eq!(timer.backoff(), 0, "the first change is not the second failure");
        timer.install(Some(A), true, |_| true);
        timer.install(Some(A), true, |_| true);
        assert_eq!(timer.timeout(&settings()), Duration::from_millis(800));
        timer.note_progress(|_| true);
        assert_eq!(timer.backoff(), 2);
        timer.note_progress(|_| false);
        assert_eq!(timer.backoff(), 0);
    }

    #[test]
    fn with_nothing_pending_at_install_the_timeout_stays() {
        let mut timer = RequestTimer::default();
        timer.install(Some(A), true, |_| true);
        timer.install(None, true, |_| true);
        assert_eq!(timer.backoff(), 1);
        timer.install(None, true, |_| true);
        assert_eq!(timer.backoff(), 1);
    }

    #[test]
    fn without_a_sync_the_timeout_doubles_whatever_is_pending() {
        let mut timer = RequestTimer::default();
        timer.install(None, true, |_| true);
        timer.install(None, false, |_| true);
        timer.install(None, false, |_| true);
        assert_eq!(timer.backoff(), 2);
    }
}
