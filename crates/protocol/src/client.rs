//! One session of a client, without sockets or clocks: what to send to whom, and when an answer counts.
//!
//! Whoever owns connections drives it: the client driver of crate `regency`, and the simulator. It keeps the rules
//! CLI-1 (an answer counts when `weak` replicas of one view gave the same one), CLI-2 (retries until the deadline,
//! then an error that says whether the request may still be executed), and the client's side of REQ-4 and REQ-6
//! (window, floor, opening a session and losing it).

mod call;
mod replies;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use self::call::{Call, Progress, Sent};
use self::replies::{Replies, Verdict};
use crate::action::Recipients;
use crate::ids::{ClientId, ReplicaId, Sequence, SessionId, ViewId};
use crate::limits::Settings;
use crate::message::{Outcome, Refusal, Reply, Request};
use crate::time::Timestamp;
use crate::view::View;

/// When a client sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The pause before the first retransmission; each further one is twice as long.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How long to wait for the whole result once enough replicas have sent its digest [CLI-1].
    pub whole: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(4),
            whole: Duration::from_millis(100),
        }
    }
}

/// What a session is told.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// An answer came over the replica's own authenticated channel.
    Reply {
        /// The replica.
        from: ReplicaId,
        /// The view under which it answers.
        view: ViewId,
        /// The answer.
        reply: Reply,
    },
    /// There is a channel to this replica (again): what is outstanding goes there.
    Connected(ReplicaId),
    /// The time that [`ClientSession::next_deadline`] named has come.
    Tick,
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Send a request.
    Send {
        /// To whom.
        to: Recipients,
        /// The request; its bytes never change from one transmission to the next.
        request: Arc<Request>,
        /// Whether every replica shall answer with the whole result.
        whole_results: bool,
    },
    /// The session is open under this id.
    Opened(SessionId),
    /// A call has ended.
    Completed {
        /// Which.
        sequence: Sequence,
        /// When it was submitted.
        began: Timestamp,
        /// How.
        outcome: Result<Bytes, CallError>,
    },
}

/// Why a call has no result.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The deadline passed before enough replicas said the same.
    #[error("no quorum: {replies} of {needed} replies ({refused} refused)")]
    NoQuorum {
        /// How many replicas sent a result, or for a call that was never sent answered the session's opening.
        replies: usize,
        /// How many equal ones are needed.
        needed: usize,
        /// How many refused.
        refused: usize,
        /// Whether the request was sent at all.
        sent: bool,
    },
    /// Enough replicas refused it: it has not been executed and will not be.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// It was executed, but the replicas do not hand out the result.
    #[error("executed, but the result is not available: {0:?}")]
    ResultUnavailable(Refusal),
    /// The session ended while the request was under way.
    #[error("the session expired: outcome unknown")]
    SessionExpired,
}

impl CallError {
    /// Whether the operation has been, or may yet be, executed.
    #[must_use]
    pub fn may_be_executed(&self) -> bool {
        match self {
            Self::NoQuorum { sent, .. } => *sent,
            Self::Refused(_) => false,
            Self::ResultUnavailable(_) | Self::SessionExpired => true,
        }
    }
}

/// Why a call does not begin.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// As many calls are outstanding as the session may have: wait for one to end.
    #[error("{0} calls are outstanding, more are not allowed")]
    WindowFull(u64),
    /// The payload is over the limit.
    #[error("{bytes} bytes are over the limit of {limit} (request_bytes_max)")]
    TooLarge {
        /// The payload's size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// One session of a client.
#[derive(Debug)]
pub struct ClientSession {
    view: Arc<View>,
    settings: Arc<Settings>,
    client: ClientId,
    retry: Retry,
    /// Seeds nonces and jitter.
    seed: u64,
    openings: u64,
    phase: Phase,
    /// The calls from the lowest unanswered one on; `None` is answered [REQ-4].
    calls: VecDeque<Option<Call>>,
    floor: Sequence,
    /// No later than the earliest time at which something is due.
    wake: Timestamp,
}

#[derive(Debug)]
enum Phase {
    /// Nothing has happened yet.
    New,
    /// An OPEN is under way.
    Opening(Sent),
    /// Requests can be sent.
    Open(SessionId),
}

impl ClientSession {
    /// A session of `client` that opens itself with the first event; `nonce` must never have been used by this
    /// client before.
    #[must_use]
    pub fn new(view: Arc<View>, settings: Arc<Settings>, client: ClientId, nonce: u64, retry: Retry) -> Self {
        Self {
            view,
            settings,
            client,
            retry,
            seed: nonce,
            openings: 0,
            phase: Phase::New,
            calls: VecDeque::new(),
            floor: Sequence(0),
            wake: Timestamp(0),
        }
    }

    /// Whether requests can be sent at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The session's id, while it is open.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open(session) => Some(session),
            Phase::New | Phase::Opening(_) => None,
        }
    }

    /// How many more calls may begin now.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.settings.session_window.saturating_sub(self.calls.len() as u64)
    }

    /// How many calls have not ended.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.calls.iter().flatten().count()
    }

    /// The nonce of the OPEN that is under way: what answers to it carry instead of a session.
    #[must_use]
    pub fn opening(&self) -> Option<Sequence> {
        match &self.phase {
            Phase::Opening(open) => Some(open.request.sequence()),
            Phase::New | Phase::Open(_) => None,
        }
    }

    /// No later than when [`ClientEvent::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        (self.wake < Timestamp::NEVER).then_some(self.wake)
    }

    /// Begins a call; it ends with [`ClientAction::Completed`] at `deadline` at the latest.
    pub fn submit(
        &mut self,
        now: Timestamp,
        payload: Bytes,
        deadline: Timestamp,
        actions: &mut Vec<ClientAction>,
    ) -> Result<Sequence, SubmitError> {
        if payload.len() > self.settings.request_bytes_max {
            let limit = self.settings.request_bytes_max;
            return Err(SubmitError::TooLarge { bytes: payload.len(), limit });
        }
        if self.room() == 0 {
            return Err(SubmitError::WindowFull(self.settings.session_window));
        }
        let sequence = self.floor.plus(self.calls.len() as u64);
        self.calls.push_back(Some(Call::new(payload, now, deadline)));
        self.wake = self.wake.min(deadline);
        match self.phase {
            Phase::New => self.open(now, actions),
            Phase::Opening(_) => {}
            Phase::Open(session) => {
                self.send_queued(now, session, self.calls.len().saturating_sub(1), actions)
            }
        }
        Ok(sequence)
    }

    /// Gives a call up: it ends without [`ClientAction::Completed`] and may be executed all the same. False if it
    /// has ended before.
    pub fn cancel(&mut self, sequence: Sequence) -> bool {
        self.forget(sequence).is_some()
    }

    /// Gives all calls up, as [`ClientSession::cancel`] does one; for each: when it began, and whether it was sent.
    pub fn cancel_all(&mut self) -> Vec<(Sequence, Timestamp, bool)> {
        let mut given_up = Vec::new();
        for (offset, slot) in (0..).zip(&mut self.calls) {
            if let Some(call) = slot.take() {
                given_up.push((self.floor.plus(offset), call.began, call.sent.is_some()));
            }
        }
        self.raise_floor();
        given_up
    }

    /// Takes one event at the time `now`, which never goes back, and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: ClientEvent, actions: &mut Vec<ClientAction>) {
        if matches!(self.phase, Phase::New) {
            self.open(now, actions);
        }
        match event {
            ClientEvent::Reply { from, view, reply } => self.on_reply(now, from, view, reply, actions),
            ClientEvent::Connected(replica) => self.on_connected(replica, actions),
            ClientEvent::Tick => self.on_tick(now, actions),
        }
    }

    fn on_reply(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        view: ViewId,
        reply: Reply,
        actions: &mut Vec<ClientAction>,
    ) {
        // [CLI-1] Only members of one view count, each for itself.
        if view != self.view.id() || self.view.member(from).is_none() {
            return;
        }
        match &mut self.phase {
            Phase::Opening(open)
                if reply.session == SessionId::NONE && reply.sequence == open.request.sequence() =>
            {
                let progress = open.on_reply(now, from, reply.outcome, &self.view, &self.retry);
                self.on_opening(now, progress, actions);
            }
            Phase::Open(session) if *session == reply.session => {
                self.on_answer(now, from, reply.sequence, reply.outcome, actions);
            }
            Phase::New | Phase::Opening(_) | Phase::Open(_) => {}
        }
    }

    fn on_opening(&mut self, now: Timestamp, progress: Progress, actions: &mut Vec<ClientAction>) {
        match progress {
            Progress::Waiting { resend } => self.wake = self.wake.min(resend),
            Progress::Result(id) => {
                let Ok(id) = <[u8; 8]>::try_from(&id[..]) else { return };
                let session = SessionId(u64::from_le_bytes(id));
                self.phase = Phase::Open(session);
                actions.push(ClientAction::Opened(session));
                self.send_queued(now, session, 0, actions);
            }
            Progress::Refused(Refusal::OpenExpired) => {
                // It was under way for too long, or our clock is wrong: not at once, or that would be a storm.
                let open = self.opening_at(now);
                self.rest(open, now.plus(self.retry.first));
            }
            Progress::Refused(refusal) => {
                // The calls that wait cannot be sent; later ones find out anew whether that has changed.
                self.end_all(|call| call.sent.is_none().then_some(CallError::Refused(refusal)), actions);
                let open = self.opening_at(now);
                self.rest(open, now.plus(self.retry.longest));
            }
        }
    }

    fn on_answer(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        sequence: Sequence,
        outcome: Outcome,
        actions: &mut Vec<ClientAction>,
    ) {
        let (view, retry) = (self.view.clone(), self.retry);
        let Some(sent) = self.call(sequence).and_then(|call| call.sent.as_mut()) else { return };
        match sent.on_reply(now, from, outcome, &view, &retry) {
            Progress::Waiting { resend } => self.wake = self.wake.min(resend),
            Progress::Result(result) => self.end(sequence, Ok(result), actions),
            Progress::Refused(Refusal::SessionExpired) => {
                // [REQ-6] "Not from now on": what was sent may have been executed.
                self.end_all(|call| call.sent.is_some().then_some(CallError::SessionExpired), actions);
                self.open(now, actions);
            }
            Progress::Refused(refusal @ (Refusal::ResultTooLarge | Refusal::ResultDiscarded)) => {
                self.end(sequence, Err(CallError::ResultUnavailable(refusal)), actions);
            }
            Progress::Refused(refusal) => self.end(sequence, Err(CallError::Refused(refusal)), actions),
        }
    }

    fn on_connected(&mut self, replica: ReplicaId, actions: &mut Vec<ClientAction>) {
        let to = Recipients::One(replica);
        match &self.phase {
            Phase::Opening(open) => actions.push(open.transmission(to)),
            Phase::New | Phase::Open(_) => {
                let sent = self.calls.iter().flatten().filter_map(|call| call.sent.as_ref());
                actions.extend(sent.map(|sent| sent.transmission(to)));
            }
        }
    }

    fn on_tick(&mut self, now: Timestamp, actions: &mut Vec<ClientAction>) {
        let opening = match &self.phase {
            Phase::Opening(open) => Some((open.replies.results(), open.replies.refusals())),
            Phase::New | Phase::Open(_) => None,
        };
        let needed = self.view.weak();
        let expired = |call: &Call| {
            let (replies, refused) = match (&call.sent, opening) {
                (Some(sent), _) => (sent.replies.results(), sent.replies.refusals()),
                (None, counts) => counts.unwrap_or_default(),
            };
            let sent = call.sent.is_some();
            (call.deadline <= now).then_some(CallError::NoQuorum { replies, needed, refused, sent })
        };
        self.end_all(expired, actions);
        let retry = self.retry;
        if let Phase::Opening(open) = &mut self.phase {
            // The replicas' clocks differ from ours: an OPEN that may be valid somewhere is not given up.
            let valid_until = open.request.valid_until().unwrap_or_default();
            if valid_until.plus(self.settings.max_clock_skew) < now {
                self.open(now, actions);
            } else if open.resend <= now {
                open.retransmit(now, &retry, self.seed, actions);
            }
        }
        for call in self.calls.iter_mut().flatten() {
            if let Some(sent) = call.sent.as_mut().filter(|sent| sent.resend <= now) {
                sent.retransmit(now, &retry, self.seed, actions);
            }
        }
        self.wake = self.earliest();
    }

    /// The exact time at which something is due; `wake` may be earlier, never later.
    fn earliest(&self) -> Timestamp {
        let opening = match &self.phase {
            Phase::New => Timestamp(0),
            Phase::Opening(open) => open.resend,
            Phase::Open(_) => Timestamp::NEVER,
        };
        let due =
            |call: &Call| call.sent.as_ref().map_or(Timestamp::NEVER, |sent| sent.resend).min(call.deadline);
        self.calls.iter().flatten().map(due).fold(opening, Timestamp::min)
    }

    /// Sends an OPEN with a fresh nonce [REQ-6].
    fn open(&mut self, now: Timestamp, actions: &mut Vec<ClientAction>) {
        let open = self.opening_at(now);
        actions.push(open.transmission(Recipients::All));
        let resend = open.resend;
        self.rest(open, resend);
    }

    /// An OPEN with a fresh nonce.
    fn opening_at(&mut self, now: Timestamp) -> Sent {
        self.openings = self.openings.wrapping_add(1);
        let nonce = match self.openings {
            1 => self.seed,
            later => call::mixed(self.seed, later),
        };
        // Half of what is allowed: the rest is for the difference between our clock and ordered time.
        let valid_until = now.plus(self.settings.open_horizon.checked_div(2).unwrap_or_default());
        let request = Arc::new(Request::open(self.client, nonce, valid_until));
        Sent::new(request, now, &self.retry, self.seed)
    }

    /// Makes `open` the one under way, sent (again) at `resend`.
    fn rest(&mut self, mut open: Sent, resend: Timestamp) {
        open.resend = resend;
        self.wake = self.wake.min(resend);
        self.phase = Phase::Opening(open);
    }

    /// Sends the calls that wait, from the one at `first` on.
    fn send_queued(
        &mut self,
        now: Timestamp,
        session: SessionId,
        first: usize,
        actions: &mut Vec<ClientAction>,
    ) {
        let (floor, client) = (self.floor, self.client);
        for (offset, call) in (first as u64..).zip(self.calls.iter_mut().skip(first)) {
            let Some(call) = call.as_mut().filter(|call| call.sent.is_none()) else { continue };
            let payload = std::mem::take(&mut call.payload);
            let request = Request::ordered(client, session, floor.plus(offset), floor, &payload);
            let sent = Sent::new(Arc::new(request), now, &self.retry, self.seed);
            self.wake = self.wake.min(sent.resend);
            actions.push(sent.transmission(Recipients::All));
            call.sent = Some(sent);
        }
    }

    fn call(&mut self, sequence: Sequence) -> Option<&mut Call> {
        let offset = usize::try_from(sequence.0.checked_sub(self.floor.0)?).ok()?;
        self.calls.get_mut(offset)?.as_mut()
    }

    fn end(
        &mut self,
        sequence: Sequence,
        outcome: Result<Bytes, CallError>,
        actions: &mut Vec<ClientAction>,
    ) {
        if let Some(call) = self.forget(sequence) {
            actions.push(ClientAction::Completed { sequence, began: call.began, outcome });
        }
    }

    /// Ends every call for which `error` names one.
    fn end_all(&mut self, error: impl Fn(&Call) -> Option<CallError>, actions: &mut Vec<ClientAction>) {
        for (offset, slot) in (0..).zip(&mut self.calls) {
            let Some(call) = slot else { continue };
            if let Some(error) = error(call) {
                let (sequence, began) = (self.floor.plus(offset), call.began);
                *slot = None;
                actions.push(ClientAction::Completed { sequence, began, outcome: Err(error) });
            }
        }
        self.raise_floor();
    }

    /// An answered call, or one given up, counts as answered [REQ-4].
    fn forget(&mut self, sequence: Sequence) -> Option<Call> {
        let offset = usize::try_from(sequence.0.checked_sub(self.floor.0)?).ok()?;
        let call = self.calls.get_mut(offset)?.take();
        self.raise_floor();
        call
    }

    fn raise_floor(&mut self) {
        while let Some(None) = self.calls.front() {
            self.calls.pop_front();
            self.floor = self.floor.next();
        }
    }
}
