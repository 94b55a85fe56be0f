//! Every bound by name. Those that must be equal at all replicas are in [`Settings`]; the rest is fixed.

use std::time::Duration;

use thiserror::Error;

/// Replicas in a view.
pub const MEMBERS_MAX: usize = 127;
/// Bytes of one frame between replicas, its length field left out.
pub const PEER_FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of one frame from or to a client, its length field left out.
pub const CLIENT_FRAME_BYTES_MAX: usize = 2 << 20;
/// Requests in one batch, whatever the settings say: a request's place in it has 16 bits [REQ-6].
pub const BATCH_REQUESTS_LIMIT: usize = u16::MAX as usize;
/// Instances in flight, whatever the settings say: three windows are kept in memory.
pub const WINDOW_LIMIT: u64 = 4096;
/// Instances above the certificate that may be voted on, whatever the settings say: a STOPDATA states them all.
pub const SPAN_LIMIT: u64 = 4 * WINDOW_LIMIT;
/// Digests in one write set: the oldest go first. Safety does not need them; that selection goes on needs those that a
/// correct replica may have locked.
pub const WRITE_SET_MAX: usize = 64;
/// From this many on nothing new is proposed where something old may be [SYNC-2]: so write sets end far below their limit.
pub const WRITE_SET_LONG: usize = 16;
/// Bytes of what a STOPDATA states of one instance: its number, a lock and a full write set.
pub const CLAIM_BYTES_MAX: usize = 64 + WRITE_SET_MAX * 40;
/// Bytes of a STOPDATA, a SYNC, or an answer of a donor, which travel in pieces.
pub const LONG_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of such a message in one frame: votes pass between two of them.
pub const PIECE_BYTES: usize = 256 << 10;
/// Requests forwarded at a time because the leader seems to lack them [STOP-1].
pub const FORWARD_MAX: usize = 64;
/// Requests that one peer may forward within one `status_period`.
pub const FORWARDS_PER_PERIOD_MAX: usize = 4 * FORWARD_MAX;
/// Bytes of requests that are kept of one peer that forwarded them, until somebody else announces them [REQ-3].
pub const FORWARDED_BYTES_PER_PEER_MAX: usize = 16 << 20;
/// Digests in one ANNOUNCE or LACK.
pub const ANNOUNCE_MAX: usize = 4096;
/// Announcements that are remembered of one peer.
pub const ANNOUNCED_PER_PEER_MAX: usize = 1 << 16;
/// Requests in one bundle of a client.
pub const BUNDLE_REQUESTS_MAX: usize = 256;
/// Replies in one frame to a client.
pub const REPLIES_MAX: usize = 4096;
/// Digests asked for, or bodies answered, in one message.
pub const FETCH_MAX: usize = 1024;
/// DECIDED statements that one STATUS may draw, and that are kept of one peer.
pub const DECIDED_PER_STATUS_MAX: u64 = 512;
/// Fetches of one peer that are answered within one `status_period`.
pub const FETCH_ANSWERS_PER_PERIOD_MAX: usize = 1024;
/// Bytes of requests sent to one peer as answers within one `status_period`, the last answer apart.
pub const FETCH_ANSWER_BYTES_PER_PERIOD_MAX: usize = 16 << 20;
/// Bytes of requests and proofs in one answer that is made of bodies.
pub const FETCH_ANSWER_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX / 4 * 3;
/// Instances whose batches a replica names at a time to one that misses them, and that a gap may have that is closed
/// from logs alone [ST-3].
pub const DIGESTS_MAX: usize = 1 << 16;
/// Instances whose batches are asked for at a time.
pub const RANGE_MAX: u64 = 64;
/// Bytes of batches in one answer from a log, the last one apart.
pub const RANGE_BYTES_MAX: usize = 1 << 20;
/// Questions that one donor has to answer at a time.
pub const DONOR_QUESTIONS_MAX: usize = 4;
/// Results up to this size are sent whole by every replica.
pub const WHOLE_RESULT_BYTES_MAX: usize = 4 << 10;
/// Requests for sessions that are not open here yet, kept until they are [REQ-6].
pub const EARLY_REQUESTS_MAX: usize = 4096;

/// What must be equal at all replicas of a view; part of the cluster's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Instances above the decided prefix that may be in flight.
    pub window: u64,
    /// Instances above the highest certificate that may be voted on [CHAIN-1].
    pub span: u64,
    /// Chain signatures are due at multiples of this.
    pub chain_interval: u64,
    /// Chain signatures are due after this time when idle.
    pub chain_period: Duration,
    /// Peers exchange their state this often while work is open [LINK-2].
    pub status_period: Duration,
    /// How far a proposal's timestamp may be from the own clock [PROPOSE-3].
    pub max_clock_skew: Duration,
    /// Requests in one batch.
    pub batch_requests_max: usize,
    /// Bytes of one batch's canonical requests.
    pub batch_bytes_max: usize,
    /// Bytes of one request's payload.
    pub request_bytes_max: usize,
    /// Bytes of one result; a larger one is replaced by a refusal.
    pub result_bytes_max: usize,
    /// Sequences above the floor that a session may use: `W` of REQ-4.
    pub session_window: u64,
    /// Bytes of results kept for one session; beyond it the lowest sequences lose theirs.
    pub session_result_bytes_max: usize,
    /// Open sessions, of all clients.
    pub sessions_max: usize,
    /// Open sessions of one client.
    pub client_sessions_max: usize,
    /// Requests that wait to be ordered, of all clients.
    pub pending_requests_max: usize,
    /// Bytes of requests that wait to be ordered, of one client.
    pub client_pending_bytes_max: usize,
    /// Ordered time after which an unused session may be evicted [REQ-6].
    pub session_idle: Duration,
    /// How far ahead in ordered time an OPEN may be valid [REQ-6].
    pub open_horizon: Duration,
    /// A checkpoint is due after so many instances [CKPT-1].
    pub checkpoint_interval: u64,
    /// Or after so many canonical bytes of ordered requests.
    pub checkpoint_bytes: usize,
    /// Decided instances kept for stragglers, at least.
    pub retained_instances: u64,
    /// Bytes of decided batches kept for stragglers beyond `retained_instances`.
    pub retained_bytes: usize,
    /// How long a missing body is waited for before it is fetched [PROPOSE-2].
    pub fetch_delay: Duration,
    /// The request timer expires after no less than this, however fast rounds are [STOP-1].
    pub request_timeout_min: Duration,
    /// The request timer expires after no more than this, however often it has doubled.
    pub request_timeout_max: Duration,
    /// A leader may let a request wait this long for its proposal, however fast rounds are.
    pub proposal_delay_min: Duration,
    /// How long a client stays suspect [REQ-3].
    pub standing_period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 32,
            span: 128,
            chain_interval: 64,
            chain_period: Duration::from_secs(1),
            status_period: Duration::from_millis(100),
            max_clock_skew: Duration::from_secs(60),
            batch_requests_max: 1024,
            batch_bytes_max: 512 << 10,
            request_bytes_max: 256 << 10,
            result_bytes_max: 1 << 20,
            session_window: 64,
            session_result_bytes_max: 4 << 20,
            sessions_max: 4096,
            client_sessions_max: 1024,
            pending_requests_max: 4096 * 64,
            client_pending_bytes_max: 64 << 20,
            session_idle: Duration::from_secs(3600),
            open_horizon: Duration::from_secs(600),
            checkpoint_interval: 20_000,
            checkpoint_bytes: 256 << 20,
            retained_instances: 192,
            retained_bytes: 64 << 20,
            fetch_delay: Duration::from_millis(20),
            request_timeout_min: Duration::from_millis(250),
            request_timeout_max: Duration::from_secs(20),
            proposal_delay_min: Duration::from_millis(20),
            standing_period: Duration::from_secs(60),
        }
    }
}

/// Which settings contradict each other (section 11 of the rules).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{key} = {value} does not fit: {rule}")]
pub struct SettingsError {
    /// The setting to change.
    pub key: &'static str,
    /// What it is.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

impl Settings {
    /// Refuses settings that contradict each other.
    #[expect(clippy::arithmetic_side_effects, reason = "128 bits hold any sum and product of two settings")]
    pub fn check(&self) -> Result<(), SettingsError> {
        let at_least = |key: &'static str, value: u128, least: u128, rule: &str| {
            if value >= least {
                return Ok(());
            }
            Err(SettingsError {
                key,
                value: value.to_string(),
                rule: format!("it must be at least {least} ({rule})"),
            })
        };
        let micros = |duration: Duration| duration.as_micros();
        at_least("window", self.window.into(), 1, "one instance in flight")?;
        if self.window > WINDOW_LIMIT {
            return Err(SettingsError {
                key: "window",
                value: self.window.to_string(),
                rule: format!("it must be at most {WINDOW_LIMIT}"),
            });
        }
        for (key, period) in [
            ("chain_period", self.chain_period),
            ("status_period", self.status_period),
            ("fetch_delay", self.fetch_delay),
            ("proposal_delay_min", self.proposal_delay_min),
            ("standing_period", self.standing_period),
        ] {
            at_least(key, micros(period), 1_000, "a timer that is always due stops everything, in µs")?;
        }
        at_least("chain_interval", self.chain_interval.into(), 1, "one instance")?;
        let span_least = u128::from(self.chain_interval) + 2 * u128::from(self.window);
        at_least("span", self.span.into(), span_least, "chain_interval + 2 * window")?;
        if self.span > SPAN_LIMIT {
            return Err(SettingsError {
                key: "span",
                value: self.span.to_string(),
                rule: format!("it must be at most {SPAN_LIMIT}"),
            });
        }
        let timeout_least = micros(self.status_period).saturating_mul(2).saturating_add(1);
        at_least(
            "request_timeout_min",
            micros(self.request_timeout_min),
            timeout_least,
            "more than 2 * status_period, in µs",
        )?;
        at_least(
            "request_timeout_max",
            micros(self.request_timeout_max),
            micros(self.request_timeout_min),
            "request_timeout_min, in µs",
        )?;
        let retained_least = u128::from(self.span) + 2 * u128::from(self.window);
        at_least("retained_instances", self.retained_instances.into(), retained_least, "span + 2 * window")?;
        at_least("checkpoint_interval", self.checkpoint_interval.into(), 1, "one instance")?;
        at_least("checkpoint_bytes", self.checkpoint_bytes as u128, 1, "one byte")?;
        at_least("batch_requests_max", self.batch_requests_max as u128, 1, "one request")?;
        let batch_least = self.request_bytes_max as u128 + crate::message::REQUEST_HEADER_BYTES as u128;
        at_least(
            "batch_bytes_max",
            self.batch_bytes_max as u128,
            batch_least,
            "request_bytes_max + the header",
        )?;
        let frame_spare = (PEER_FRAME_BYTES_MAX / 2).saturating_sub(self.batch_bytes_max);
        at_least("batch_bytes_max", frame_spare as u128, 1, "below half of a frame").map_err(|_| {
            SettingsError {
                key: "batch_bytes_max",
                value: self.batch_bytes_max.to_string(),
                rule: format!("it must be below {} (half of a frame)", PEER_FRAME_BYTES_MAX / 2),
            }
        })?;
        if self.batch_requests_max > BATCH_REQUESTS_LIMIT {
            return Err(SettingsError {
                key: "batch_requests_max",
                value: self.batch_requests_max.to_string(),
                rule: format!("it must be at most {BATCH_REQUESTS_LIMIT}"),
            });
        }
        if self.result_bytes_max > CLIENT_FRAME_BYTES_MAX / 2 {
            return Err(SettingsError {
                key: "result_bytes_max",
                value: self.result_bytes_max.to_string(),
                rule: format!("it must be at most {} (half of a frame)", CLIENT_FRAME_BYTES_MAX / 2),
            });
        }
        if self.session_result_bytes_max < self.result_bytes_max {
            return Err(SettingsError {
                key: "session_result_bytes_max",
                value: self.session_result_bytes_max.to_string(),
                rule: format!("it must be at least {} (result_bytes_max)", self.result_bytes_max),
            });
        }
        at_least("session_window", self.session_window.into(), 1, "one request")?;
        let pending_least = self.sessions_max as u128 * u128::from(self.session_window);
        at_least(
            "pending_requests_max",
            self.pending_requests_max as u128,
            pending_least,
            "sessions_max * session_window",
        )?;
        let skew_least = micros(self.status_period).saturating_mul(2);
        at_least("max_clock_skew", micros(self.max_clock_skew), skew_least, "2 * status_period, in µs")?;
        let idle_least = 2 * micros(self.max_clock_skew);
        at_least("session_idle", micros(self.session_idle), idle_least, "2 * max_clock_skew, in µs")?;
        at_least("open_horizon", micros(self.open_horizon), idle_least, "2 * max_clock_skew, in µs")
    }

    /// Whether they suit a cluster of so many members: what all of them may state of `span` instances fits into a SYNC.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_members(&self, members: usize) -> Result<(), SettingsError> {
        let room = LONG_MESSAGE_BYTES_MAX.checked_div(members.saturating_mul(CLAIM_BYTES_MAX));
        match room.map(|most| most as u64).filter(|most| self.span > *most) {
            None => Ok(()),
            Some(most) => Err(SettingsError {
                key: "span",
                value: self.span.to_string(),
                rule: format!("with {members} replicas it must be at most {most}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn what_all_members_state_fits_into_one_message() {
        let settings = Settings { span: 5_000, ..Settings::default() };
        assert_eq!(settings.check_members(4), Ok(()));
        assert_eq!(settings.check_members(7).unwrap_err().key, "span");
        assert_eq!(Settings::default().check_members(MEMBERS_MAX), Ok(()));
    }

    #[test]
    fn a_contradiction_names_its_key() {
        let refused = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().key
        };
        assert_eq!(refused(|s| s.span = s.window), "span");
        assert_eq!(refused(|s| s.window = 0), "window");
        assert_eq!(refused(|s| s.retained_instances = s.span), "retained_instances");
        assert_eq!(refused(|s| s.pending_requests_max = 10), "pending_requests_max");
        assert_eq!(refused(|s| s.batch_bytes_max = s.request_bytes_max), "batch_bytes_max");
        assert_eq!(refused(|s| s.batch_bytes_max = 100 << 20), "batch_bytes_max");
        assert_eq!(refused(|s| s.open_horizon = Duration::ZERO), "open_horizon");
        assert_eq!(refused(|s| s.window = u64::MAX), "window");
        assert_eq!(refused(|s| s.fetch_delay = Duration::ZERO), "fetch_delay");
        assert_eq!(refused(|s| s.status_period = Duration::ZERO), "status_period");
    }
}
