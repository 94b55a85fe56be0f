//! The link walk: status, catching up, chain signatures, and everything that time brings [LINK-1, LINK-2].

use std::time::Duration;

use super::{Replica, broadcast, report, send, send_after};
use crate::action::{Action, Reason};
use crate::chain::has_signers;
use crate::digest::chain_next;
use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature};
use crate::journal::Held;
use crate::limits::DECIDED_PER_STATUS_MAX;
use crate::message::{ChainCertificate, ChainSignature, Decided, Message, Statement, Status, Vote};
use crate::mutants::{Mutant, is_active};
use crate::ordering::window::Window;
use crate::record::Record;
use crate::time::Timestamp;
use crate::view::Mode;

/// A peer that is behind is helped, and one that is ahead told so, at most this many times per `status_period`.
const EXCHANGES_PER_PERIOD: u32 = 8;

impl Replica {
    pub(super) fn on_connected(&mut self, now: Timestamp, peer: ReplicaId, actions: &mut Vec<Action>) {
        self.links.set_connected(peer, true);
        if peer == self.leader() {
            self.change.leader_lost = None;
        }
        send(peer, Message::Status(self.own_status(now)), actions);
        self.resend_change(Some(peer), actions);
        self.resend_open(now, Some(peer), actions);
        if let Some(signed) = self.checkpoints.resend() {
            send(peer, Message::CheckpointSignature(signed), actions);
        }
        if let Some(signature) = self.chain.own_uncertified() {
            send(peer, Message::ChainSignature(signature), actions);
        }
    }

    pub(super) fn on_status(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        status: Status,
        actions: &mut Vec<Action>,
    ) {
        if status.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        self.links.note(from, status);
        let spacing = self.exchange_spacing();
        if self.links.may_echo(from, now, spacing) {
            send(from, Message::Echo(status.sent), actions);
        }
        let is_behind = status.decided < self.log.prefix();
        let is_uncertified = status.certified < self.chain.certified();
        let is_regency_behind = self.is_regency_ahead_of(&status);
        if (is_behind || is_uncertified || is_regency_behind) && self.links.may_help(from, now, spacing) {
            if is_regency_behind {
                self.help_regency(now, from, &status, actions);
            }
            if is_behind {
                self.help(now, from, status, actions);
            } else if is_uncertified {
                self.send_certificate(from, actions);
            }
        }
        let is_ahead = status.decided > self.log.prefix()
            || (status.regency, status.is_live) > (self.change.regency, self.change.is_live());
        if is_ahead && self.links.may_tell(from, now, spacing) {
            send(from, Message::Status(self.own_status(now)), actions);
        }
    }

    pub(super) fn on_echo(&mut self, now: Timestamp, from: ReplicaId, sent: Timestamp) {
        self.links.note_echo(from, sent, now);
        let others = self.view.quorum().saturating_sub(1);
        self.timer.set_round_trip(self.links.round_trip_to(others));
    }

    fn exchange_spacing(&self) -> Duration {
        self.settings.status_period.checked_div(EXCHANGES_PER_PERIOD).unwrap_or_default()
    }

    /// Sends a peer that is behind the certificate, what is decided, and the own votes for it.
    fn help(&mut self, now: Timestamp, peer: ReplicaId, status: Status, actions: &mut Vec<Action>) {
        if status.certified < self.chain.certified() {
            self.send_certificate(peer, actions);
        }
        if status.decided.next() < self.log.retained_from() {
            // What it needs first is not here any more: it must know that, and nothing else helps.
            return send(peer, Message::Status(self.own_status(now)), actions);
        }
        let last = self.log.prefix().min(status.decided.plus(DECIDED_PER_STATUS_MAX));
        let mut instance = status.decided.next();
        while instance <= last {
            if let Some(digest) = self.log.get(instance).map(|decided| decided.digest) {
                let decided = Decided { view: self.view.id(), instance, digest };
                send(peer, Message::Decided(decided), actions);
                self.vote_late(instance, digest, actions);
            }
            // One DECIDED convinces nobody: the peer may need this very vote for its quorum.
            for vote in self.record.resend(instance) {
                send_after(self.journal.gate(), peer, vote, actions);
            }
            instance = instance.next();
        }
    }

    /// Votes for what was decided here before this replica's own vote was needed. Others may need it, when one
    /// that voted then has gone since; for what is decided, a vote is always safe [LINK-2].
    pub(super) fn vote_late(&mut self, instance: InstanceId, digest: Digest, actions: &mut Vec<Action>) {
        if is_active(Mutant::ExecutedNotRevoted) && self.change.regency > Regency(0) {
            return;
        }
        // [CHAIN-1] What a leader change must carry stays bounded, late or not.
        let is_in_span = instance <= self.chain.certified().plus(self.settings.span);
        match self.view.mode() {
            Mode::Bft if is_in_span => {
                let regency = self.change.regency;
                if let Some(write) = self.record.write(instance, regency, digest) {
                    self.record_vote(&write, actions);
                }
                if self.record.confirm(instance, regency, digest) {
                    let vote = Vote { view: self.view.id(), instance, regency, digest };
                    self.journal.append(Record::Confirm(vote), Some(instance), actions);
                }
            }
            // In crash-only mode one DECIDED is enough.
            Mode::Bft | Mode::Cft => {}
        }
    }

    fn send_certificate(&self, peer: ReplicaId, actions: &mut Vec<Action>) {
        if let Some(certificate) = self.chain.certificate() {
            send(peer, Message::ChainCertificate(certificate.clone()), actions);
        }
    }

    pub(super) fn own_status(&self, now: Timestamp) -> Status {
        Status {
            view: self.view.id(),
            regency: self.change.regency,
            is_live: self.change.is_live(),
            decided: self.log.prefix(),
            retained_from: self.log.retained_from(),
            logged_from: self.journal.logged_from(),
            stable: self.checkpoints.stable().min(self.checkpoints.own()),
            certified: self.chain.certified(),
            sent: now,
        }
    }

    pub(super) fn on_tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.fetch_due(now, actions);
        self.check_patience(now, actions);
        if self.chain_due.is_some_and(|due| due <= now) {
            self.chain_due = None;
            self.sign(self.log.prefix(), self.log.chain(), actions);
        }
        if self.status_due.is_some_and(|due| due <= now) {
            self.status_due = None;
            self.links.renew_answers();
            if self.has_open_work() {
                self.links.note_sent(now);
                let prefix = self.log.prefix();
                let (at, rounds) = self.status_rounds;
                self.status_rounds = (prefix, if at == prefix { rounds.saturating_add(1) } else { 1 });
                broadcast(Message::Status(self.own_status(now)), actions);
                self.resend_change(None, actions);
                self.announce_again(now, actions);
                self.yield_to_lacks(now, actions);
                self.resend_open(now, None, actions);
                if let Some(signed) = self.checkpoints.resend() {
                    broadcast(Message::CheckpointSignature(signed), actions);
                }
                if let Some(signature) = self.chain.own_uncertified() {
                    broadcast(Message::ChainSignature(signature), actions);
                }
                self.retry_early(now, actions);
                self.trust_certified_claims(now, actions);
            }
        }
    }

    /// What follows from a longer prefix: signatures due by number, instances now in reach.
    pub(super) fn on_prefix(&mut self, now: Timestamp, before: InstanceId, actions: &mut Vec<Action>) {
        let interval = self.settings.chain_interval;
        let mut due = before.0.checked_div(interval).unwrap_or(0).saturating_add(1).saturating_mul(interval);
        while due <= self.log.prefix().0 {
            if let Some(chain) = self.log.chain_at(InstanceId(due)) {
                self.sign(InstanceId(due), chain, actions);
            }
            due = due.saturating_add(interval);
        }
        self.close_votes();
        let horizon = Window::horizon(self.log.prefix(), &self.settings);
        let mut reached = Window::horizon(before, &self.settings).next();
        while reached <= horizon {
            self.on_claim(now, reached, actions);
            reached = reached.next();
        }
        self.widen(now, actions);
        self.on_caught_up(now, actions);
    }

    /// Asks peers that are ahead for more, when nothing that they said is left to work on.
    fn on_caught_up(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.window.has_work() {
            return;
        }
        let spacing = self.exchange_spacing();
        let ahead: Vec<ReplicaId> = self.links.ahead(self.log.prefix()).map(|(peer, _)| peer).collect();
        for peer in ahead {
            if self.links.may_tell(peer, now, spacing) {
                send(peer, Message::Status(self.own_status(now)), actions);
            }
        }
    }

    fn sign(&mut self, instance: InstanceId, chain: Digest, actions: &mut Vec<Action>) {
        if self.record.may_vote() && self.chain.request(instance) {
            let view = self.view.id();
            actions.push(Action::Sign(Statement::Chain { view, instance, chain }));
        }
    }

    pub(super) fn on_signed(
        &mut self,
        now: Timestamp,
        instance: InstanceId,
        chain: Digest,
        signature: Signature,
        actions: &mut Vec<Action>,
    ) {
        // [VOTE-1] All batches up to it must be durable here first.
        let held = Held::Chain(instance, chain, signature);
        if is_active(Mutant::ChainBeforeBatches) || self.journal.hold(held).is_some() {
            self.on_chain_signed(now, instance, chain, signature, actions);
        }
    }

    /// Sends and counts this replica's signature over the chain.
    pub(super) fn on_chain_signed(
        &mut self,
        now: Timestamp,
        instance: InstanceId,
        chain: Digest,
        signature: Signature,
        actions: &mut Vec<Action>,
    ) {
        let own = self.chain.signed(instance, chain, signature);
        broadcast(Message::ChainSignature(own), actions);
        if self.chain.add(self.me, &own, &self.view) {
            self.on_certified(now, actions);
        }
    }

    pub(super) fn on_chain_signature(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        signature: ChainSignature,
        actions: &mut Vec<Action>,
    ) {
        let ChainSignature { view, instance, chain, .. } = signature;
        if view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        let prefix = self.log.prefix();
        if instance > prefix.max(self.chain.certified()).plus(self.settings.span) {
            return report(from, Reason::TooFarAhead, actions);
        }
        if instance <= self.chain.certified() {
            return;
        }
        if instance <= prefix {
            let own = self.log.chain_at(instance);
            if own.is_some_and(|own| own != chain) {
                return report(from, Reason::ConflictingChain, actions);
            }
            let period = self.settings.chain_period;
            if own.is_some() && self.record.may_vote() && self.chain.follow(instance, self.me, now, period) {
                actions.push(Action::Sign(Statement::Chain { view, instance, chain }));
            }
        }
        if self.chain.add(from, &signature, &self.view) {
            self.on_certified(now, actions);
        }
    }

    pub(super) fn on_chain_certificate(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        certificate: ChainCertificate,
        actions: &mut Vec<Action>,
    ) {
        if certificate.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if !has_signers(&certificate, &self.view) {
            return report(from, Reason::BadCertificate, actions);
        }
        if self.log.chain_at(certificate.instance).is_some_and(|own| own != certificate.chain) {
            return report(from, Reason::ConflictingChain, actions);
        }
        if self.chain.install(certificate) {
            self.on_certified(now, actions);
        }
    }

    pub(super) fn on_certified(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Some(certificate) = self.chain.certificate().cloned() {
            self.journal.append(Record::Certificate(certificate), None, actions);
        }
        self.chain_due = None;
        self.close_votes();
        self.widen(now, actions);
        self.advance(now, actions);
    }

    /// [VOTE-1] Votes go only when a certificate covers them and their batches are here.
    pub(super) fn close_votes(&mut self) {
        self.record.close(self.chain.certified().min(self.log.prefix()));
    }

    /// A single peer's DECIDED statements are as good as the certificate that their chain ends in [ACCEPT-1].
    fn trust_certified_claims(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let Some((end, chain)) = self.chain.certificate().map(|c| (c.instance, c.chain)) else { return };
        let start = self.log.prefix().next();
        if end < start || end > self.log.prefix().plus(DECIDED_PER_STATUS_MAX) {
            return;
        }
        let peers: Vec<ReplicaId> = self.links.ids().collect();
        for peer in peers {
            let Some(digests) = self.claims_up_to(peer, start, end) else { continue };
            if digests.iter().fold(self.log.chain(), |chain, (_, digest)| chain_next(&chain, digest)) != chain
            {
                continue;
            }
            for (instance, digest) in &digests {
                self.window.certify_claim(*instance, *digest);
            }
            // Only now: the first of them may bring on the delivery of several.
            for (instance, _) in digests {
                self.on_claim(now, instance, actions);
            }
            return;
        }
    }

    fn claims_up_to(
        &self,
        peer: ReplicaId,
        start: InstanceId,
        end: InstanceId,
    ) -> Option<Vec<(InstanceId, Digest)>> {
        let instances = (start.0..=end.0).map(InstanceId);
        instances.map(|id| self.window.claim_of(peer, id).map(|digest| (id, digest))).collect()
    }
}
