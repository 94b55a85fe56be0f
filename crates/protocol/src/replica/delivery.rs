//! The delivery walk: from decided instances through exactly-once to the service, and its results to clients.

use std::sync::Arc;

use bytes::Bytes;

use super::{EXECUTING_MAX, Replica};
use crate::action::{Action, Delivery};
use crate::ids::{Digest, InstanceId};
use crate::leader_change::sync::empty_batch;
use crate::message::{Batch, Outcome, Refusal, Request, RequestPlace};
use crate::mutants::{Mutant, is_active};
use crate::record::{Record, RecordedBatch};
use crate::sessions::{Delivered, Known};
use crate::time::Timestamp;

/// A delivery that the service has not answered yet.
#[derive(Debug)]
pub(super) struct Executing {
    instance: InstanceId,
    chain: Digest,
    /// The places of its operations, with whether their clients want whole results.
    places: Vec<(RequestPlace, bool)>,
}

impl Replica {
    /// Whether so many deliveries wait for the service that ordering has to wait too [EXEC-1].
    pub(super) fn executor_is_full(&self) -> bool {
        // [CKPT-1] The state of a checkpoint is that after it, and of nothing later.
        self.executing.len() >= EXECUTING_MAX || self.checkpoints.is_due() || self.transfer.holds_execution()
    }

    /// Delivers the decided instances after the prefix, in order, and sees to what a longer prefix brings.
    pub(super) fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        loop {
            let before = self.log.prefix();
            while !self.executor_is_full() {
                let next = self.log.prefix().next();
                if let Some((digest, recorded)) = self.transfer.take_batch(next) {
                    self.window.forget_up_to(next);
                    self.deliver(recorded.batch, digest, recorded.requests, actions);
                    self.service.begin(now);
                    continue;
                }
                let Some((digest, mut instance)) = self.window.take_decided(next) else { break };
                let (batch, requests) = match instance.candidates.remove(&digest) {
                    Some(candidate) => {
                        (Arc::clone(candidate.batch()), candidate.requests().cloned().collect())
                    }
                    // Only a mutant decides without the batch at hand.
                    None => (empty_batch(self.view.id(), next), Vec::new()),
                };
                self.deliver(batch, digest, requests, actions);
                self.service.begin(now);
            }
            if self.log.prefix() == before {
                return;
            }
            let requests = &self.requests;
            self.timer.note_progress(|request| requests.contains(request));
            if is_active(Mutant::TimerResetByProgress) {
                self.timer.restart(now);
            }
            self.on_prefix(now, before, actions);
        }
    }

    pub(super) fn deliver(
        &mut self,
        batch: Arc<Batch>,
        digest: Digest,
        requests: Vec<Arc<Request>>,
        actions: &mut Vec<Action>,
    ) {
        let instance = batch.instance;
        if self.journal.is_kept() && !self.journal.note_batch(instance, digest) {
            let recorded = RecordedBatch { batch: Arc::clone(&batch), requests: requests.clone() };
            self.journal.append(Record::Batch(recorded), Some(instance), actions);
        }
        let canonical = requests.iter().map(|request| &**request);
        self.checkpoints.on_delivered(instance, canonical, &self.settings);
        let (chain, timestamp) = self.log.push(batch, digest, requests.clone(), &self.settings);
        self.journal.append(Record::Decided { instance, digest, chain }, Some(instance), actions);
        self.journal.note_decided(instance);
        let mut operations = Vec::with_capacity(requests.len());
        let mut places = Vec::with_capacity(requests.len());
        for (position, request) in requests.into_iter().enumerate() {
            let place = request.place();
            // Another request of the same place is void from here on, too.
            let removed =
                self.requests.remove(&request.digest()).or_else(|| self.requests.remove_place(&place));
            self.announcements.forget(&request.digest());
            let is_whole = removed.unwrap_or(false);
            let position = u16::try_from(position).unwrap_or(u16::MAX);
            match self.sessions.deliver(&request, instance, position, timestamp, &self.settings) {
                Delivered::Execute => {
                    places.push((place, is_whole));
                    operations.push(Arc::clone(&request));
                }
                Delivered::Answer(outcome) => self.reply(&place, outcome, is_whole, actions),
                Delivered::Nothing => {}
            }
            self.requests.remove_below(&RequestPlace { sequence: request.floor(), ..place });
        }
        for (client, session) in self.sessions.take_ended() {
            self.requests.remove_session(client, session);
        }
        self.executing.push_back(Executing { instance, chain, places });
        let view = self.view.id();
        let regency = self.change.regency;
        actions.push(Action::Execute(Delivery { instance, view, regency, timestamp, chain, operations }));
        self.wake_early(instance, actions);
    }

    pub(super) fn on_executed(
        &mut self,
        now: Timestamp,
        instance: InstanceId,
        results: Vec<Bytes>,
        actions: &mut Vec<Action>,
    ) {
        let Some(executing) = self.executing.pop_front() else { return };
        assert_eq!(executing.instance, instance, "results come in the order of the deliveries");
        assert_eq!(executing.places.len(), results.len(), "every operation has one result");
        self.service.done(now, self.executing.is_empty());
        for ((place, is_whole), result) in executing.places.into_iter().zip(results) {
            let stored = self.sessions.executed(place.session, place.sequence, result, &self.settings);
            if let Some(outcome) = stored {
                self.reply(&place, outcome, is_whole, actions);
            }
        }
        self.executed = (instance, executing.chain);
        self.take_snapshot(instance, executing.chain, actions);
        self.advance(now, actions);
    }

    /// Requests that came before their session: proposable now, or refused for good [REQ-6].
    fn wake_early(&mut self, prefix: InstanceId, actions: &mut Vec<Action>) {
        while let Some(session) = self.requests.first_early().filter(|first| first.instance() <= prefix) {
            for request in self.requests.take_early(session) {
                match self.sessions.lookup(&request) {
                    Known::New => self.queue_or_hold(&request),
                    Known::NoSession => {
                        self.requests.remove(&request.digest());
                        let expired = Outcome::Refused(Refusal::SessionExpired);
                        self.reply(&request.place(), expired, false, actions);
                    }
                    Known::Executing | Known::Answered(_) | Known::Reused | Known::BelowFloor => {
                        self.requests.remove(&request.digest());
                    }
                }
            }
        }
    }
}
