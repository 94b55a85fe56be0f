//! The honest client of a schedule: the real sans-IO client with a list of calls to make.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regency_protocol::client::{CallError, ClientAction, ClientEvent, ClientSession, Retry};
use regency_protocol::digest::client_id;
use regency_protocol::ids::{ClientId, Sequence};

use crate::agenda::Moment;
use crate::history::{End, History};
use crate::invariants::liveness;
use crate::node::{clock, moment};
use crate::plan::{ClientPlan, Plan};
use crate::random::Stream;
use crate::service;
use crate::signatures::Keyring;
use crate::world::AFTERMATH;

/// A client.
pub(crate) struct Client {
    number: usize,
    id: ClientId,
    session: ClientSession,
    plan: ClientPlan,
    stream: Stream,
    calls_left: usize,
    /// When it may begin its next call.
    next_call: Moment,
    /// After this it begins no call: the schedule's end would leave it no time for an answer.
    last_call: Moment,
    /// When its turn on the agenda comes.
    pub(crate) turn_at: Option<Moment>,
    payloads: BTreeMap<Sequence, Bytes>,
}

impl Client {
    /// The client with this number, before its first call.
    pub(crate) fn new(plan: &Plan, number: usize) -> Self {
        let mut stream = Stream::new(plan.seed, &format!("client {number}"));
        let id = client_id(&Keyring::client_key(number));
        let retry = Retry {
            first: Duration::from_millis(stream.between(30, 300)),
            longest: Duration::from_millis(stream.between(300, 1000)),
            whole: Duration::from_millis(stream.between(5, 100)),
        };
        let (view, settings) = (Arc::clone(&plan.view), Arc::clone(&plan.settings));
        let session = ClientSession::new(view, settings, id, stream.number(), retry);
        let client_plan = plan.clients[number];
        Self {
            number,
            id,
            session,
            calls_left: client_plan.calls,
            plan: client_plan,
            next_call: stream.below(3000),
            last_call: plan.heal_at + AFTERMATH - 2 * liveness::GRACE,
            turn_at: None,
            payloads: BTreeMap::new(),
            stream,
        }
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    /// Whether it has made all its calls, and all have ended.
    pub(crate) fn is_done(&self) -> bool {
        self.calls_left == 0 && self.payloads.is_empty()
    }

    /// Its turn: begins calls, and lets time pass for the session. What ended goes into the history.
    pub(crate) fn turn(&mut self, now: Moment, history: &mut History) -> Vec<ClientAction> {
        let mut actions = Vec::new();
        if now > self.last_call {
            self.calls_left = 0;
        }
        while self.calls_left > 0 && self.next_call <= now && self.payloads.len() < self.plan.in_flight {
            if self.session.room() == 0 {
                break;
            }
            self.begin_call(now, history, &mut actions);
        }
        if self.session.next_deadline().is_some_and(|deadline| moment(deadline) <= now) {
            self.session.handle(clock(now, 0), ClientEvent::Tick, &mut actions);
        }
        self.take_ends(now, &actions, history);
        actions
    }

    /// Takes an event of the session.
    pub(crate) fn handle(
        &mut self,
        now: Moment,
        event: ClientEvent,
        history: &mut History,
    ) -> Vec<ClientAction> {
        let mut actions = Vec::new();
        self.session.handle(clock(now, 0), event, &mut actions);
        self.take_ends(now, &actions, history);
        actions
    }

    /// When its next turn is due.
    pub(crate) fn next_turn(&self, now: Moment) -> Option<Moment> {
        let has_room = self.payloads.len() < self.plan.in_flight && self.session.room() > 0;
        let call = (self.calls_left > 0 && has_room).then_some(self.next_call);
        let session = self.session.next_deadline().map(moment);
        [call, session].into_iter().flatten().min().map(|at| at.max(now))
    }

    fn begin_call(&mut self, now: Moment, history: &mut History, actions: &mut Vec<ClientAction>) {
        // [Style 24] every value is unique, so that a result tells which history it belongs to.
        let value = ((self.number as u64) << 32) | self.calls_left as u64;
        let key = u8::try_from(self.stream.below(2)).unwrap_or(0);
        let payload = Bytes::from(service::append(key, value, self.plan.result_bytes));
        let deadline = now + self.plan.patience;
        let submitted = self.session.submit(clock(now, 0), payload.clone(), clock(deadline, 0), actions);
        let Ok(sequence) = submitted else { return };
        self.calls_left -= 1;
        self.payloads.insert(sequence, payload.clone());
        history.begin(payload, self.number, now, deadline);
        self.next_call = now + self.stream.below(self.plan.pause_max);
    }

    fn take_ends(&mut self, now: Moment, actions: &[ClientAction], history: &mut History) {
        for action in actions {
            let ClientAction::Completed { sequence, outcome, .. } = action else { continue };
            let Some(payload) = self.payloads.remove(sequence) else { continue };
            let end = match outcome {
                Ok(result) => End::Result(result.clone()),
                Err(CallError::Refused(refusal)) => End::Refused(*refusal),
                Err(CallError::ResultUnavailable(refusal)) => End::Executed(*refusal),
                Err(CallError::SessionExpired) => End::Expired,
                Err(CallError::NoQuorum { sent, .. }) => End::GaveUp { sent: *sent },
            };
            history.end(&payload, now, end);
            self.next_call = self.next_call.max(now + self.stream.below(self.plan.pause_max));
        }
    }
}
