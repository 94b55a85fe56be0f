//! One call of a session, and the transmissions of one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{ClientAction, Replies, Retry, Verdict};
use crate::action::Recipients;
use crate::ids::ReplicaId;
use crate::message::{Outcome, Refusal, Request};
use crate::time::Timestamp;
use crate::view::View;

/// A call that has not ended.
#[derive(Debug)]
pub(super) struct Call {
    /// The operation, until it is in a request.
    pub(super) payload: Bytes,
    pub(super) began: Timestamp,
    pub(super) deadline: Timestamp,
    /// `None` while it waits for the session.
    pub(super) sent: Option<Sent>,
}

impl Call {
    pub(super) fn new(payload: Bytes, began: Timestamp, deadline: Timestamp) -> Self {
        Self { payload, began, deadline, sent: None }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) request: Arc<Request>,
    pub(super) replies: Replies,
    /// When it goes out again.
    pub(super) resend: Timestamp,
    attempt: u32,
    whole_results: bool,
}

/// Where a request stands after another answer.
#[derive(Debug)]
pub(super) enum Progress {
    /// More answers are needed; without them it is sent again at this time.
    Waiting { resend: Timestamp },
    /// This is the result.
    Result(Bytes),
    /// Enough replicas refused it, for a reason that waiting does not cure.
    Refused(Refusal),
}

impl Sent {
    pub(super) fn new(request: Arc<Request>, now: Timestamp, retry: &Retry, seed: u64) -> Self {
        let resend = now.plus(pause(retry, 0, mixed(seed, request.sequence().0)));
        Self { request, replies: Replies::default(), resend, attempt: 0, whole_results: false }
    }

    /// One transmission of it.
    pub(super) fn transmission(&self, to: Recipients) -> ClientAction {
        ClientAction::Send { to, request: self.request.clone(), whole_results: self.whole_results }
    }

    /// Sends it to all again and sets the time of the next transmission.
    pub(super) fn retransmit(
        &mut self,
        now: Timestamp,
        retry: &Retry,
        seed: u64,
        actions: &mut Vec<ClientAction>,
    ) {
        self.attempt = self.attempt.saturating_add(1);
        let salt = mixed(seed, self.request.sequence().0).wrapping_add(u64::from(self.attempt));
        self.resend = now.plus(pause(retry, self.attempt, salt));
        self.replies.forget_refusals();
        actions.push(self.transmission(Recipients::All));
    }

    /// Counts an answer.
    pub(super) fn on_reply(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        outcome: Outcome,
        view: &View,
        retry: &Retry,
    ) -> Progress {
        match self.replies.add(from, outcome, view.weak()) {
            Verdict::Open => {}
            Verdict::Result(result) => return Progress::Result(result),
            Verdict::DigestOnly => {
                // [CLI-1] The one that should send it whole is slow, down or lying: all shall.
                if !self.whole_results {
                    self.whole_results = true;
                    self.resend = self.resend.min(now.plus(retry.whole));
                }
            }
            Verdict::Refused(Refusal::Busy { retry_after }) => {
                self.resend = now.plus(retry_after.clamp(Duration::from_millis(1), retry.longest));
            }
            Verdict::Refused(refusal) => return Progress::Refused(refusal),
        }
        Progress::Waiting { resend: self.resend }
    }
}

/// The pause before transmission `attempt + 1`: doubling, bounded, three to five quarters of that by `salt`.
fn pause(retry: &Retry, attempt: u32, salt: u64) -> Duration {
    let doubled = retry.first.saturating_mul(2_u32.saturating_pow(attempt)).min(retry.longest);
    let part = |of: Duration| of.checked_div(4).unwrap_or_default();
    let quarter = part(doubled);
    let eighths = u32::try_from(mixed(salt, 0) % 9).unwrap_or(0);
    doubled.saturating_sub(quarter).saturating_add(part(quarter).saturating_mul(eighths))
}

/// Two numbers made into one that looks random (the finalizer of SplitMix64).
pub(super) fn mixed(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
