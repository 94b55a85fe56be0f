//! The request walk: from a client's channel into the pool, or back with an answer.

use std::time::Duration;

use super::Replica;
use crate::action::{Action, Misbehaviour, Origin, Reason};
use crate::event::ClientRequest;
use crate::ids::ReplicaId;
use crate::limits::{Settings, WHOLE_RESULT_BYTES_MAX};
use crate::message::{Body, Outcome, Refusal, Reply, Request, RequestKind, RequestPlace};
use crate::mutants::{Mutant, is_active};
use crate::requests::{Full, Hold};
use crate::sessions::Known;
use crate::time::Timestamp;
use crate::view::{RequestAuth, View};

/// What a client over its bound is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl Replica {
    pub(super) fn on_request(&mut self, now: Timestamp, from: ClientRequest, actions: &mut Vec<Action>) {
        let ClientRequest { request, proof, whole_result } = from;
        if let Err((reason, refusal)) = check(&request, &self.view, &self.settings) {
            return self.refuse(&request, reason, refusal, actions);
        }
        if self.view.request_auth() == RequestAuth::Signature && proof.is_none() {
            return self.refuse(&request, Reason::Unsigned, Refusal::BadSignature, actions);
        }
        let body = Body { request, proof };
        self.admit(now, &body, whole_result, actions);
        self.on_authentic(now, &body, actions);
    }

    /// [REQ-7] Whatever became of a request here, it is authentic: a proposal may not be held up for want of that.
    pub(super) fn on_authentic(&mut self, now: Timestamp, body: &Body, actions: &mut Vec<Action>) {
        if self.window.wants(&body.request.digest()) {
            self.on_authentic_body(now, body, actions);
        }
    }

    /// Answers a request that is authentic, or takes it into the pool.
    fn admit(&mut self, now: Timestamp, body: &Body, whole_result: bool, actions: &mut Vec<Action>) {
        let request = &body.request;
        let is_early = match self.sessions.lookup(request) {
            Known::Answered(outcome) => return self.reply(&request.place(), outcome, whole_result, actions),
            Known::Reused => {
                return self.refuse(request, Reason::SequenceReused, Refusal::SequenceReused, actions);
            }
            Known::BelowFloor if is_active(Mutant::SequenceUnchecked) => false,
            // [REQ-4] The client itself said that it waits for nothing below its floor.
            Known::BelowFloor => return report(request, Reason::BelowFloor, actions),
            // It is answered when its result comes.
            Known::Executing => return,
            Known::New => false,
            Known::NoSession if request.kind() == RequestKind::Open => false,
            // [REQ-6] A session whose place is above the own prefix may yet be opened.
            Known::NoSession if is_active(Mutant::ExpiredTooEarly) => {
                return self.refuse(request, Reason::SessionExpired, Refusal::SessionExpired, actions);
            }
            Known::NoSession if request.session().instance() > self.log.prefix() => true,
            Known::NoSession => {
                return self.refuse(request, Reason::SessionExpired, Refusal::SessionExpired, actions);
            }
        };
        match self.pool(now, body, whole_result, is_early) {
            Ok(()) => {}
            Err(Full::Reused) => {
                self.refuse(request, Reason::SequenceReused, Refusal::SequenceReused, actions);
            }
            Err(Full::Busy) => {
                let busy = Refusal::Busy { retry_after: RETRY_AFTER };
                self.refuse(request, Reason::ClientBusy, busy, actions);
            }
        }
    }

    /// Takes an authentic request into the pool.
    pub(super) fn pool(
        &mut self,
        now: Timestamp,
        body: &Body,
        whole_result: bool,
        is_early: bool,
    ) -> Result<(), Full> {
        let hold = if is_early { Hold::Early } else { self.announcement_hold(&body.request) };
        self.requests.insert(body, whole_result, hold, now, &self.settings)
    }

    /// Sends an answer to the client of `place`: whole, or by digest if another replica sends it whole.
    pub(super) fn reply(
        &self,
        place: &RequestPlace,
        outcome: Outcome,
        is_whole: bool,
        actions: &mut Vec<Action>,
    ) {
        // [CKPT-2] What it would answer may be wrong.
        if self.transfer.diverged.is_some() {
            return;
        }
        let outcome = match outcome {
            Outcome::Result(result) if result.len() > WHOLE_RESULT_BYTES_MAX && !is_whole => {
                let outcome = Outcome::Result(result);
                match outcome.result_digest() {
                    Some(digest) if !sends_whole(&self.view, self.me, place) => Outcome::ResultDigest(digest),
                    Some(_) | None => outcome,
                }
            }
            other => other,
        };
        let reply = Reply { session: place.session, sequence: place.sequence, outcome };
        actions.push(Action::Reply { client: place.client, reply });
    }

    fn refuse(&self, request: &Request, reason: Reason, refusal: Refusal, actions: &mut Vec<Action>) {
        report(request, reason, actions);
        self.reply(&request.place(), Outcome::Refused(refusal), false, actions);
    }
}

/// Whether it is this replica's turn to send the result of `place` whole [CLI-1].
fn sends_whole(view: &View, me: ReplicaId, place: &RequestPlace) -> bool {
    let turn = place.sequence.0.checked_rem(view.n() as u64);
    view.position(me).map(|position| position as u64) == turn
}

fn report(request: &Request, reason: Reason, actions: &mut Vec<Action>) {
    actions.push(Action::Report(Misbehaviour { by: Origin::Client(request.client()), reason }));
}

/// What every correct replica judges alike, before ordering: a pure function of request and view [REQ-7].
pub(super) fn check(request: &Request, view: &View, settings: &Settings) -> Result<(), (Reason, Refusal)> {
    if !view.admits(&request.client()) {
        return Err((Reason::UnknownClient, Refusal::UnknownClient));
    }
    if request.payload_len() > settings.request_bytes_max {
        return Err((Reason::RequestTooLarge, Refusal::TooLarge));
    }
    match request.kind() {
        RequestKind::Open => match request.valid_until() {
            Some(_) => Ok(()),
            None => Err((Reason::OpenExpired, Refusal::OpenExpired)),
        },
        RequestKind::Ordered => {
            let (floor, sequence) = (request.floor(), request.sequence());
            if sequence >= floor && sequence < floor.plus(settings.session_window) {
                Ok(())
            } else {
                Err((Reason::SequenceOutsideWindow, Refusal::TooFarAhead))
            }
        }
    }
}
