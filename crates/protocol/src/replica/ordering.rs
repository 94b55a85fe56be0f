//! The second half of the ordering walk: votes, what follows from them, and fetching what is missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Replica, broadcast_after, report, send, send_after};
use crate::action::{Action, Reason};
use crate::ids::{Digest, InstanceId, Regency, ReplicaId};
use crate::journal::Held;
use crate::leader_change::sync::empty_batch;
use crate::limits::{FETCH_ANSWER_BYTES_MAX, FETCH_MAX};
use crate::message::{
    Batch, BatchAnswer, Body, BundleProof, Decided, FetchBatch, FetchBodies, Message, Propose, Request, Vote,
};
use crate::mutants::{Mutant, is_active};
use crate::ordering::candidate::{Candidate, Source};
use crate::ordering::instance::{Instance, Proposal, Situation, Step};
use crate::ordering::votes::Counted;
use crate::ordering::window::{Filled, Window};
use crate::time::Timestamp;

/// A question that was not answered is asked again, of the next holder, after this many `fetch_delay`s.
const FETCH_RETRY_DELAYS: u32 = 3;

impl Replica {
    pub(super) fn on_write(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        vote: Vote,
        actions: &mut Vec<Action>,
    ) {
        // [ACCEPT-1] Of the epochs below the installed one only ACCEPTs are of use.
        let is_of_use = vote.regency >= self.change.regency
            || is_active(Mutant::OlderWritesLock)
            || is_active(Mutant::OldEpochVotes);
        // [RECOVER-2] Who votes has learned what it may vote for.
        self.amnesiacs.remove(&from);
        if self.admits_vote(from, vote, actions) && is_of_use {
            let installed = self.change.regency;
            let writes = &mut self.window.open(vote.instance, now).writes;
            let counted = writes.add(from, vote.regency, vote.digest, installed);
            self.on_counted(now, from, vote.instance, counted, actions);
        }
    }

    pub(super) fn on_accept(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        vote: Vote,
        actions: &mut Vec<Action>,
    ) {
        if self.admits_vote(from, vote, actions) {
            let installed = self.change.regency;
            let accepts = &mut self.window.open(vote.instance, now).accepts;
            let counted = accepts.add(from, vote.regency, vote.digest, installed);
            self.on_counted(now, from, vote.instance, counted, actions);
        }
    }

    pub(super) fn on_decided(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        decided: Decided,
        actions: &mut Vec<Action>,
    ) {
        let Decided { view, instance, digest } = decided;
        if view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        let prefix = self.log.prefix();
        if instance <= prefix {
            if self.log.get(instance).is_some_and(|here| here.digest != digest) {
                report(from, Reason::ConflictingDecision, actions);
            }
            return;
        }
        match self.window.claim(from, instance, digest, prefix) {
            None => report(from, Reason::TooFarAhead, actions),
            Some(Counted::Conflicting) => report(from, Reason::ConflictingDecision, actions),
            Some(Counted::First | Counted::Again) => {
                self.on_claim(now, instance, actions);
            }
        }
    }

    /// Whether the statements about an instance make it decided, now that there is one more.
    pub(super) fn on_claim(&mut self, now: Timestamp, instance: InstanceId, actions: &mut Vec<Action>) {
        let prefix = self.log.prefix();
        let is_in_reach = instance > prefix && instance <= Window::horizon(prefix, &self.settings);
        if is_in_reach && self.window.claimed(instance, self.view.weak()).is_some() {
            self.window.open(instance, now);
            self.evaluate(now, instance, actions);
        }
    }

    fn admits_vote(&self, from: ReplicaId, vote: Vote, actions: &mut Vec<Action>) -> bool {
        if vote.view != self.view.id() {
            report(from, Reason::WrongView, actions);
            return false;
        }
        // [PROPOSE-3] A vote of the next regency is early; one of a later regency is sent again [LINK-1].
        let is_early = vote.regency > self.change.regency;
        if vote.regency > self.change.regency.next() {
            report(from, Reason::WrongRegency, actions);
            return false;
        }
        if is_early && is_active(Mutant::EarlyDropped) {
            return false;
        }
        if vote.instance <= self.log.prefix() {
            return false;
        }
        if vote.instance > Window::horizon(self.log.prefix(), &self.settings) {
            report(from, Reason::TooFarAhead, actions);
            return false;
        }
        true
    }

    fn on_counted(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        instance: InstanceId,
        counted: Counted,
        actions: &mut Vec<Action>,
    ) {
        match counted {
            Counted::First => self.evaluate(now, instance, actions),
            Counted::Again => {}
            Counted::Conflicting => report(from, Reason::SecondVote, actions),
        }
    }

    /// Does what the instance calls for until it calls for nothing, then delivers what is decided.
    pub(super) fn evaluate(&mut self, now: Timestamp, id: InstanceId, actions: &mut Vec<Action>) {
        self.step(now, id, actions);
        self.advance(now, actions);
    }

    /// [`Self::evaluate`] without the delivery.
    pub(super) fn step(&mut self, now: Timestamp, id: InstanceId, actions: &mut Vec<Action>) {
        loop {
            let Some(step) = self.next_step(id) else { return };
            match step {
                Step::Write(digest) => {
                    if is_active(Mutant::TimestampOnBound) && !self.is_in_time(now, id, &digest) {
                        return;
                    }
                    let epoch = self.voting_epoch();
                    let Some(message) = self.record.write(id, epoch, digest) else { return };
                    self.cast(now, message, Held::Write(id, epoch, digest), actions);
                }
                Step::Accept(digest) => {
                    let epoch = self.voting_epoch();
                    let Some(message) = self.record.accept(id, epoch, digest) else { return };
                    self.cast(now, message, Held::Accept(id, epoch, digest), actions);
                }
                Step::Decide(digest) => {
                    self.window.open(id, now).decided = Some(digest);
                    return;
                }
                Step::FetchBatch { is_urgent: true, .. } => return self.window.schedule_fetch(id, now),
                Step::FetchBatch { is_urgent: false, .. } | Step::FetchBodies(_) => {
                    return self.window.schedule_fetch(id, now.plus(self.settings.fetch_delay));
                }
                Step::Wait => return,
            }
        }
    }

    fn next_step(&self, id: InstanceId) -> Option<Step> {
        let instance = self.window.get(id)?;
        let bound = self.change.bound(id);
        // What the leader has selected is proposed once its SYNC is signed.
        let is_open = self.change.is_live() || bound.is_none();
        let is_in_reach = id <= self.vote_limit() && id > self.chain.certified();
        Some(instance.next_step(&Situation {
            instance: id,
            view: &self.view,
            regency: self.voting_epoch(),
            record: &self.record,
            bound,
            may_vote: self.record.may_vote() && is_open && is_in_reach,
            known_decided: self.window.claimed(id, self.view.weak()),
        }))
    }

    /// Whether a batch's timestamp is near the own clock.
    fn is_in_time(&self, now: Timestamp, id: InstanceId, digest: &Digest) -> bool {
        let candidate = self.window.get(id).and_then(|open| open.candidates.get(digest));
        let skew = self.settings.max_clock_skew;
        candidate.is_some_and(|candidate| candidate.batch().timestamp.distance(now) <= skew)
    }

    /// The epoch in which this replica votes: that of the installed regency, whether it has begun or not [STOP-3].
    fn voting_epoch(&self) -> Regency {
        if is_active(Mutant::OldEpochVotes) && !self.change.is_live() {
            return self.change.regency.previous();
        }
        self.change.regency
    }

    /// Opens an instance that the regency's SYNC has bound, and does what it calls for.
    pub(super) fn open_bound(&mut self, now: Timestamp, id: InstanceId, digest: Digest) {
        let is_here = self.window.open(id, now).candidates.contains_key(&digest);
        if !is_here {
            let empty = empty_batch(self.view.id(), id);
            if empty.digest() == digest {
                self.window.add_candidate(id, digest, Candidate::new(empty), now);
            }
        }
        if let Some(candidate) = self.window.get(id).and_then(|open| open.candidates.get(&digest)) {
            for request in &candidate.batch().requests {
                self.requests.mark_proposed(request);
            }
        }
    }

    /// Looks again at the instances that this replica may vote for since its prefix or certificate moved.
    pub(super) fn widen(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let limit = self.vote_limit();
        let mut next = self.vote_edge.max(self.log.prefix()).next();
        self.vote_edge = self.vote_edge.max(limit);
        while next <= limit {
            if let Some(digest) = self.change.bound(next) {
                self.open_bound(now, next, digest);
            }
            self.step(now, next, actions);
            next = next.next();
        }
        self.retry_early(now, actions);
    }

    /// A request that is authentic here has come: candidates may have waited for it.
    pub(super) fn on_authentic_body(&mut self, now: Timestamp, body: &Body, actions: &mut Vec<Action>) {
        let filled = self.window.fill(body, Source::Pool);
        if filled.iter().any(|filled| self.is_proposed(filled)) {
            self.requests.mark_proposed(&body.request.digest());
        }
        self.on_filled(now, &filled, actions);
    }

    /// Whether a candidate is proposed in this regency: one that is kept for an older vote's sake need never be.
    fn is_proposed(&self, filled: &Filled) -> bool {
        let open = self.window.get(filled.instance);
        let is_accepted = |open: &Instance| {
            matches!(open.proposal, Proposal::Accepted(digest) if digest == filled.digest)
                || open.decided == Some(filled.digest)
        };
        open.is_some_and(is_accepted) || self.change.bound(filled.instance) == Some(filled.digest)
    }

    /// Candidates got a body. All are judged before any is looked at: one that is decided moves the others on.
    pub(super) fn on_filled(&mut self, now: Timestamp, filled: &[Filled], actions: &mut Vec<Action>) {
        for filled in filled {
            self.judge_bodies(filled.instance, self.leader(), actions);
        }
        for filled in filled {
            let open = self.window.get(filled.instance);
            if open.and_then(|open| open.candidates.get(&filled.digest)).is_some_and(Candidate::is_complete) {
                self.evaluate(now, filled.instance, actions);
            }
        }
    }

    /// Asks for what instances lack whose question is due, each time of another holder.
    pub(super) fn fetch_due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for id in self.window.due_fetches(now) {
            let Some(step) = self.next_step(id) else { continue };
            match step {
                Step::FetchBatch { digest, .. } => self.ask_for_batch(id, digest, actions),
                Step::FetchBodies(digest) => {
                    self.ask_for_bodies(id, digest, actions);
                    self.tell_lack(now, id, digest, actions);
                }
                Step::Write(_) | Step::Accept(_) | Step::Decide(_) | Step::Wait => continue,
            }
            let retry = self.settings.fetch_delay.saturating_mul(FETCH_RETRY_DELAYS);
            self.window.schedule_fetch(id, now.plus(retry));
        }
    }

    fn ask_for_batch(&mut self, id: InstanceId, digest: Digest, actions: &mut Vec<Action>) {
        let mut claimants = self.window.claimants(id, &digest);
        claimants.extend(self.change.holders(id, &digest));
        let fetch = FetchBatch { view: self.view.id(), instance: id, digest };
        if let Some(holder) = self.next_holder(id, &digest, claimants) {
            send(holder, Message::FetchBatch(fetch), actions);
        }
    }

    fn ask_for_bodies(&mut self, id: InstanceId, digest: Digest, actions: &mut Vec<Action>) {
        let Some(candidate) = self.window.get(id).and_then(|open| open.candidates.get(&digest)) else {
            return;
        };
        let requests: Vec<_> = candidate.missing().take(FETCH_MAX).collect();
        if requests.is_empty() {
            return;
        }
        if let Some(holder) = self.next_holder(id, &digest, Vec::new()) {
            send(holder, Message::FetchBodies(FetchBodies { instance: id, requests }), actions);
        }
    }

    /// Who is asked next for the batch of `digest`; counts the attempt.
    fn next_holder(
        &mut self,
        id: InstanceId,
        digest: &Digest,
        mut holders: Vec<ReplicaId>,
    ) -> Option<ReplicaId> {
        let (leader, me) = (self.leader(), self.me);
        let instance = self.window.get_mut(id)?;
        for holder in instance.holders(digest, leader) {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        holders.retain(|holder| *holder != me);
        let turn = instance.fetch.attempts.checked_rem(holders.len())?;
        instance.fetch.attempts = instance.fetch.attempts.wrapping_add(1);
        holders.get(turn).copied()
    }

    pub(super) fn on_fetch_batch(&mut self, from: ReplicaId, fetch: FetchBatch, actions: &mut Vec<Action>) {
        let FetchBatch { view, instance, digest } = fetch;
        if view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        if let Some(answer) = self.batch_answer(instance, &digest) {
            self.links.note_answer(from, weight(&answer.bodies));
            send(from, Message::BatchAnswer(answer), actions);
        }
    }

    fn batch_answer(&self, instance: InstanceId, digest: &Digest) -> Option<BatchAnswer> {
        let bodies = |requests: &mut dyn Iterator<Item = &Arc<Request>>| {
            requests.map(|request| Body { request: Arc::clone(request), proof: None }).collect()
        };
        if let Some(decided) = self.log.get(instance) {
            if decided.digest != *digest {
                return None;
            }
            let bodies = bodies(&mut decided.requests.iter());
            return Some(BatchAnswer { batch: Arc::clone(&decided.batch), bodies });
        }
        let candidate = self.window.get(instance)?.candidates.get(digest)?;
        if !candidate.is_complete() {
            return None;
        }
        let bodies = bodies(&mut candidate.requests());
        Some(BatchAnswer { batch: Arc::clone(candidate.batch()), bodies })
    }

    pub(super) fn on_batch(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        answer: BatchAnswer,
        actions: &mut Vec<Action>,
    ) {
        let BatchAnswer { batch, bodies } = answer;
        let (id, digest) = (batch.instance, batch.digest());
        if id <= self.log.prefix() {
            return;
        }
        let is_asked_for = match self.next_step(id) {
            Some(Step::FetchBatch { digest: wanted, .. }) => wanted == digest,
            Some(_) | None => false,
        };
        if !is_asked_for || !has_bodies(&batch, &bodies) {
            return report(from, Reason::UnexpectedBatch, actions);
        }
        let is_here = self.window.get(id).is_some_and(|instance| instance.candidates.contains_key(&digest));
        if !is_here {
            self.window.add_candidate(id, digest, Candidate::new(Arc::clone(&batch)), now);
        }
        if let Some(candidate) = self.window.get_mut(id).and_then(|open| open.candidates.get_mut(&digest)) {
            for (position, body) in bodies.iter().enumerate() {
                // What others vouch for needs no proof of its own; what is authentic here stays so.
                candidate.put(position, body, Source::Unproven);
            }
        }
        for body in &bodies {
            self.requests.mark_proposed(&body.request.digest());
        }
        self.judge_bodies(id, self.leader(), actions);
        self.evaluate(now, id, actions);
    }

    pub(super) fn on_fetch_bodies(&mut self, from: ReplicaId, fetch: FetchBodies, actions: &mut Vec<Action>) {
        if fetch.requests.len() > FETCH_MAX || !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        let mut bodies = Vec::new();
        let mut left = BTreeSet::new();
        for request in &fetch.requests {
            match self.requests.body(request) {
                Some(body) => bodies.push(body),
                None => {
                    left.insert(*request);
                }
            }
        }
        // What was executed, or lies below a floor, has left the pool, yet others need it to vote.
        if !left.is_empty()
            && let Some(instance) = self.window.get(fetch.instance)
        {
            let held = instance.candidates.values().flat_map(Candidate::authentic);
            bodies.extend(held.filter(|body| left.remove(&body.request.digest())).cloned());
        }
        truncate(&mut bodies);
        if !bodies.is_empty() {
            self.links.note_answer(from, weight(&bodies));
            send(from, Message::Bodies(bodies), actions);
        }
    }

    pub(super) fn on_bodies(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        bodies: Vec<Body>,
        actions: &mut Vec<Action>,
    ) {
        for body in &bodies {
            self.put_body(now, from, body, actions);
        }
    }

    /// Sends again, to one peer or to all, what is open here [LINK-1].
    pub(super) fn resend_open(&self, now: Timestamp, to: Option<ReplicaId>, actions: &mut Vec<Action>) {
        let mut messages = Vec::new();
        for (id, instance) in self.window.iter() {
            let is_recent = now.since(instance.opened) < self.settings.status_period;
            if instance.decided.is_some() || (to.is_none() && is_recent) {
                continue;
            }
            if self.leader() == self.me
                && let Proposal::Accepted(digest) = instance.proposal
                && let Some(candidate) = instance.candidates.get(&digest)
            {
                let batch = Arc::clone(candidate.batch());
                let regency = self.change.regency;
                let propose = Message::Propose(Propose { regency, batch, inline: Vec::new() });
                messages.push((self.journal.regency_gate(), propose));
            }
            let gate = self.journal.gate();
            messages.extend(self.record.resend(id).map(|vote| (gate, vote)));
        }
        for (after, message) in messages {
            match to {
                Some(peer) => send_after(after, peer, message, actions),
                None => broadcast_after(after, message, actions),
            }
        }
    }
}

/// Bytes of the requests in `bodies`.
fn weight(bodies: &[Body]) -> usize {
    bodies.iter().fold(0, |sum, body| sum.saturating_add(body.request.encoded().len()))
}

/// Keeps as many bodies as fit into one answer, proofs included; one always does.
pub(super) fn truncate(bodies: &mut Vec<Body>) {
    let mut bytes = 0_usize;
    let mut last: Option<&Arc<BundleProof>> = None;
    let count = bodies.iter().take_while(|body| {
        let proof = body.proof.as_ref().filter(|proof| !last.is_some_and(|last| Arc::ptr_eq(last, proof)));
        let weight = body.request.encoded().len().saturating_add(proof.map_or(0, |proof| proof.bytes()));
        last = body.proof.as_ref();
        bytes = bytes.saturating_add(weight);
        bytes <= FETCH_ANSWER_BYTES_MAX
    });
    let count = count.count().max(1);
    bodies.truncate(count);
}

/// Whether `bodies` are exactly the requests of `batch`, in order.
fn has_bodies(batch: &Batch, bodies: &[Body]) -> bool {
    batch.requests.len() == bodies.len()
        && batch.requests.iter().zip(bodies).all(|(digest, body)| body.request.digest() == *digest)
}
