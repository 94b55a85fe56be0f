//! The first half of the ordering walk: proposing as the leader, judging proposals as everybody.

use std::sync::Arc;

use super::{Replica, broadcast_after, report, requests};
use crate::action::{Action, Reason};
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::message::{Batch, Body, Message, Propose, Request, RequestKind};
use crate::mutants::{Mutant, is_active};
use crate::ordering::candidate::{Candidate, Source};
use crate::ordering::instance::Proposal;
use crate::ordering::window::Window;
use crate::sessions::Known;
use crate::time::Timestamp;
use crate::view::RequestAuth;

impl Replica {
    /// Proposes what has gathered, if this replica leads and the window has room [PROPOSE-1].
    pub(super) fn propose(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.leader() != self.me || !self.record.may_lead() || !self.change.is_live() {
            return;
        }
        while (self.requests.has_unproposed() || self.has_to_fill()) && !self.executor_is_full() {
            let prefix = self.log.prefix();
            let instance = self.record.proposed().max(prefix).next();
            let in_flight = instance.0.saturating_sub(prefix.0).saturating_sub(1);
            let is_full_batch = self.requests.unproposed() >= self.settings.batch_requests_max;
            let is_filling = !self.requests.has_unproposed();
            if instance > self.vote_limit()
                || (in_flight >= self.eager_instances && !is_full_batch && !is_filling)
            {
                return;
            }
            if !self.record.propose(instance) {
                return;
            }
            let bodies = self.requests.take_batch(&self.settings);
            let batch = Arc::new(Batch {
                view: self.view.id(),
                instance,
                timestamp: now,
                requests: bodies.iter().map(|body| body.request.digest()).collect(),
            });
            let propose =
                Propose { regency: self.change.regency, batch: Arc::clone(&batch), inline: Vec::new() };
            broadcast_after(self.journal.regency_gate(), Message::Propose(propose), actions);
            let digest = batch.digest();
            let mut candidate = Candidate::new(batch);
            for (position, body) in bodies.iter().enumerate() {
                candidate.put(position, body, Source::Pool);
            }
            self.window.add_candidate(instance, digest, candidate, now);
            self.window.open(instance, now).proposal = Proposal::Accepted(digest);
            self.evaluate(now, instance, actions);
        }
    }

    /// The highest instance that this replica proposes or votes for: inside its window, and at most `span`
    /// above its certificate [PROPOSE-1, CHAIN-1].
    pub(super) fn vote_limit(&self) -> InstanceId {
        let in_window = self.log.prefix().plus(self.settings.window);
        in_window.min(self.chain.certified().plus(self.settings.span))
    }

    pub(super) fn on_propose(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        propose: Propose,
        actions: &mut Vec<Action>,
    ) {
        let id = propose.batch.instance;
        if propose.batch.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if from != self.view.leader_of(propose.regency) {
            return report(from, Reason::NotTheLeader, actions);
        }
        if propose.regency < self.change.regency || id <= self.log.prefix() {
            return;
        }
        if id > Window::horizon(self.log.prefix(), &self.settings) {
            return report(from, Reason::TooFarAhead, actions);
        }
        if propose.regency > self.change.regency {
            return self.keep_for_next(now, from, propose, actions);
        }
        // [SYNC-3] What SYNC has proposed is not proposed again.
        if self.change.is_live() && id <= self.change.last_bound() {
            return report(from, Reason::BelowSync, actions);
        }
        let limit = self.vote_limit();
        let skew = self.settings.max_clock_skew;
        let is_live = self.change.is_live();
        let instance = self.window.open(id, now);
        let (is_known, is_same) = match &instance.proposal {
            Proposal::None => (false, false),
            Proposal::Early(kept) => (true, kept.batch == propose.batch),
            Proposal::Accepted(digest) | Proposal::Invalid(digest) => {
                (true, *digest == propose.batch.digest())
            }
        };
        if is_known {
            // [PROPOSE-3] The first one counts.
            if !is_same {
                report(from, Reason::SecondProposal, actions);
            }
            return;
        }
        if let Some(reason) = unfit(&propose.batch, self.settings.batch_requests_max) {
            // [PROPOSE-3] Judged before it is kept: what is kept is bounded by what a batch may be.
            instance.proposal = Proposal::Invalid(propose.batch.digest());
            return report(from, reason, actions);
        }
        let timestamp = propose.batch.timestamp;
        if is_live && timestamp < now && now.since(timestamp) > skew {
            return report(from, Reason::TimestampSkewed, actions);
        }
        let is_ahead_of_clock = timestamp > now && timestamp.since(now) > skew;
        if id > limit || is_ahead_of_clock || !is_live {
            if is_active(Mutant::EarlyDropped) {
                return;
            }
            // [PROPOSE-3] Early: kept, one per instance, and tried again. Bodies are fetched then: they would make
            // it as large as a frame.
            let (regency, batch) = (propose.regency, propose.batch);
            instance.proposal = Proposal::Early(Box::new(Propose { regency, batch, inline: Vec::new() }));
            self.window.mark_early(id, true);
            return;
        }
        self.accept_proposal(now, from, propose, actions);
    }

    /// Keeps a proposal of the next regency, one per instance, until that is installed [PROPOSE-3].
    fn keep_for_next(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        propose: Propose,
        actions: &mut Vec<Action>,
    ) {
        if propose.regency > self.change.regency.next() {
            // Of later regencies nothing is kept: their leaders send again [LINK-1].
            return report(from, Reason::WrongRegency, actions);
        }
        if is_active(Mutant::EarlyDropped) {
            return;
        }
        if let Some(reason) = unfit(&propose.batch, self.settings.batch_requests_max) {
            return report(from, reason, actions);
        }
        let instance = self.window.open(propose.batch.instance, now);
        if instance.next.is_none() {
            instance.next = Some(Box::new(Propose { inline: Vec::new(), ..propose }));
        }
    }

    /// Judges again the proposals that were kept because they came early.
    pub(super) fn retry_early(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.change.is_live() {
            return;
        }
        for id in self.window.early_up_to(self.vote_limit()) {
            self.window.mark_early(id, false);
            let Some(instance) = self.window.get_mut(id) else { continue };
            if let Proposal::Early(propose) = std::mem::take(&mut instance.proposal) {
                self.on_propose(now, self.leader(), *propose, actions);
            }
        }
    }

    /// The proposal is the leader's first, in the window and in time: checks it, and gathers its bodies.
    fn accept_proposal(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        propose: Propose,
        actions: &mut Vec<Action>,
    ) {
        let Propose { batch, inline, .. } = propose;
        let id = batch.instance;
        let digest = batch.digest();
        // A batch that others vouched for may have been fetched before the proposal came.
        let is_here = self.window.get(id).is_some_and(|instance| instance.candidates.contains_key(&digest));
        if !is_here {
            let mut candidate = Candidate::new(Arc::clone(&batch));
            for (position, request) in batch.requests.iter().enumerate() {
                if let Some(body) = self.requests.body(request) {
                    candidate.put(position, &body, Source::Pool);
                }
            }
            self.window.add_candidate(id, digest, candidate, now);
        }
        let is_slow = self.mark_proposed(now, &batch);
        self.window.open(id, now).proposal = Proposal::Accepted(digest);
        for body in &inline {
            self.put_body(now, from, body, actions);
        }
        self.judge_bodies(id, from, actions);
        self.evaluate(now, id, actions);
        if is_slow {
            self.leave_slow_leader(now, actions);
        }
    }

    /// Once all bodies of an accepted proposal are here: whether the batch keeps the rules that need them.
    pub(super) fn judge_bodies(&mut self, id: InstanceId, leader: ReplicaId, actions: &mut Vec<Action>) {
        let Some(instance) = self.window.get_mut(id) else { return };
        let Proposal::Accepted(digest) = instance.proposal else { return };
        let Some(candidate) = instance.candidates.get(&digest) else { return };
        if !candidate.is_complete() {
            return;
        }
        let reason = if candidate.bytes() > self.settings.batch_bytes_max {
            // Wherever they came from: whoever lacks such a batch could never fetch it.
            Reason::BatchTooLarge
        } else if !candidate.has_foreign() {
            // What this replica's pool takes is checked, and of one place there is one.
            return;
        } else if candidate.has_place_twice() && !is_active(Mutant::RequestTwiceExecuted) {
            Reason::RequestTwice
        } else if candidate.requests().any(|r| requests::check(r, &self.view, &self.settings).is_err()) {
            Reason::InvalidRequest
        } else {
            return;
        };
        instance.proposal = Proposal::Invalid(digest);
        report(leader, reason, actions);
    }

    /// Puts a body from another replica where it is needed, if it may serve there.
    pub(super) fn put_body(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        body: &Body,
        actions: &mut Vec<Action>,
    ) {
        if !self.window.wants(&body.request.digest()) {
            return report(from, Reason::UnexpectedBody, actions);
        }
        // [REQ-3] A signature convinces here too; without one the body waits for the client's own channel.
        let is_proven = body.proof.is_some() || self.is_vouched(&body.request.digest());
        let is_authentic = is_proven && self.view.admits(&body.request.client());
        if !is_authentic && self.view.request_auth() == RequestAuth::Signature {
            return report(from, Reason::Unsigned, actions);
        }
        let source = if is_authentic {
            Source::Proven
        } else if self.is_void(&body.request) {
            Source::Void
        } else {
            Source::Unproven
        };
        let filled = self.window.fill(body, source);
        if source == Source::Unproven {
            // LACKs travel one way, a body there and back: only now is it known whose request is lacked.
            self.on_lacked(now, body.request.digest(), actions);
        }
        self.on_filled(now, &filled, actions);
    }

    /// Whether executing this request after the decided prefix is certain to change nothing: it was executed
    /// before, its session's floor has passed it, or its session is gone for good [REQ-4, REQ-6]. It may have
    /// left the pool for that reason while its proposal was under way.
    fn is_void(&self, request: &Request) -> bool {
        if request.kind() == RequestKind::Open {
            return false;
        }
        match self.sessions.lookup(request) {
            Known::Executing | Known::Answered(_) | Known::BelowFloor => true,
            Known::NoSession => request.session().instance() <= self.log.prefix(),
            Known::New | Known::Reused => false,
        }
    }
}

/// Why a batch cannot be voted for, whatever its bodies are.
fn unfit(batch: &Batch, requests_max: usize) -> Option<Reason> {
    if batch.requests.len() > requests_max {
        Some(Reason::BatchTooLarge)
    } else if has_twice(batch) && !is_active(Mutant::RequestTwiceExecuted) {
        Some(Reason::RequestTwice)
    } else {
        None
    }
}

/// Whether a digest stands twice in a batch.
fn has_twice(batch: &Batch) -> bool {
    let mut digests: Vec<&Digest> = batch.requests.iter().collect();
    digests.sort_unstable();
    digests.windows(2).any(|pair| matches!(pair, [first, second] if first == second))
}
