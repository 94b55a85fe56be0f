//! The leader-change walk: STOP, install, STOPDATA, selection, SYNC, and the beginning of a regency.

use std::sync::Arc;

use super::{Replica, broadcast_after, report, send_after};
use crate::action::{Action, Reason};
use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature};
use crate::leader_change::state::{Gathering, Phase};
use crate::leader_change::stop_data::{SignedStopData, StopData};
use crate::leader_change::sync::{Outcome, Sync};
use crate::message::{ChainCertificate, Message, Statement, Status, Stop};
use crate::mutants::{Mutant, is_active};
use crate::record::Record;
use crate::time::Timestamp;

impl Replica {
    /// Asks all to leave every regency below `regency`; asking again costs nothing.
    pub(super) fn stop(&mut self, now: Timestamp, regency: Regency, actions: &mut Vec<Action>) {
        // [RECOVER-2] Who lost its votes counts in `f`, and wants nothing.
        if self.record.may_vote() && self.change.stops.note(self.me, regency) {
            self.journal.append(Record::Stop { view: self.view.id(), regency }, None, actions);
            broadcast_after(
                self.journal.gate(),
                Message::Stop(Stop { view: self.view.id(), regency }),
                actions,
            );
            self.consider_stops(now, actions);
        }
    }

    pub(super) fn on_stop(&mut self, now: Timestamp, from: ReplicaId, stop: Stop, actions: &mut Vec<Action>) {
        let Stop { view, regency } = stop;
        if view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if regency == Regency(0) {
            return report(from, Reason::WrongRegency, actions);
        }
        if !self.change.stops.note(from, regency) {
            return;
        }
        // [STOP-2] A leader that gives its term away is believed at once.
        let current = self.change.regency;
        if from == self.leader() && regency == current.next() {
            self.stop(now, regency, actions);
        }
        self.consider_stops(now, actions);
    }

    /// Joins and installs what enough members want [STOP-2, STOP-3].
    fn consider_stops(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let joining = if is_active(Mutant::SingleStop) { 1 } else { self.view.certifying() };
        let joined = self.change.stops.reached(joining);
        if joined > self.change.regency && joined > self.change.stops.of(self.me) {
            // It comes back here, with this replica's own STOP counted.
            self.stop(now, joined, actions);
        }
        let wanted = self.change.stops.reached(self.view.quorum());
        if wanted > self.change.regency {
            self.install(now, wanted, actions);
        }
    }

    /// Ends all earlier epochs and states what was voted for in them [STOP-3].
    fn install(&mut self, now: Timestamp, regency: Regency, actions: &mut Vec<Action>) {
        assert!(regency > self.change.regency, "regencies grow");
        let oldest = self.requests.oldest(|request| self.counts(request)).map(|waiting| waiting.request);
        let requests = &self.requests;
        self.timer.install(oldest, self.change.is_live(), |request| requests.contains(request));
        self.record.install(regency);
        self.change.install(regency);
        self.change.leader_lost = None;
        let is_reachable = self.leader() == self.me || self.links.is_connected(self.leader());
        let patience = if is_reachable {
            self.timer.timeout(&self.settings)
        } else {
            self.timer.backed_off(self.settings.status_period, &self.settings)
        };
        self.change.phase =
            Phase::Syncing(Gathering { deadline: now.plus(patience), ..Gathering::default() });
        let record = &self.record;
        self.window.install(regency, |id, digest| record.stands_for(id, digest));
        self.requests.requeue();
        self.monitor.begin();
        if self.record.may_vote() {
            self.journal.append(Record::Regency { view: self.view.id(), regency }, None, actions);
            if self.change.stops.note(self.me, regency) {
                self.journal.append(Record::Stop { view: self.view.id(), regency }, None, actions);
                broadcast_after(
                    self.journal.gate(),
                    Message::Stop(Stop { view: self.view.id(), regency }),
                    actions,
                );
            }
            // [RECOVER-2] Whoever has lost votes that may still count states nothing.
            let may_state = self.record.may_state(self.chain.certified(), regency);
            self.change.unsigned = may_state.then(|| self.statement(regency));
            actions.extend(self.change.unsigned.as_ref().map(|data| Action::Sign(data.statement())));
        }
        self.fill.restart(now);
        self.status_due = None;
        // Votes of this epoch may have come early.
        let open: Vec<InstanceId> = self.window.iter().map(|(id, _)| id).collect();
        open.into_iter().for_each(|id| self.step(now, id, actions));
        self.gather(now, actions);
        self.advance(now, actions);
    }

    /// This replica's votes above its certificate, as they stand when `regency` is installed [STOPDATA-1].
    pub(super) fn statement(&self, regency: Regency) -> Arc<StopData> {
        let claims = self.record.claims(self.chain.certified());
        let base = self.chain.certificate().cloned();
        Arc::new(StopData { view: self.view.id(), regency, base, claims })
    }

    pub(super) fn on_change_signed(
        &mut self,
        now: Timestamp,
        statement: &Statement,
        signature: Signature,
        actions: &mut Vec<Action>,
    ) {
        if let Some(data) = self.change.unsigned.take_if(|data| data.statement() == *statement) {
            let stated = SignedStopData { sender: self.me, data, signature };
            self.change.stated = Some(stated.clone());
            // Regency and votes are durable before anybody builds on them.
            broadcast_after(self.journal.gate(), Message::StopData(stated.clone()), actions);
            return self.take_stop_data(now, stated, actions);
        }
        let Phase::Syncing(gathering) = &mut self.change.phase else { return };
        if let Some(sync) = gathering.unsigned.take_if(|sync| sync.statement() == *statement) {
            let sync = Arc::new(Sync { signature, ..sync });
            broadcast_after(self.journal.gate(), Message::Sync(Arc::clone(&sync)), actions);
            // It was selected from this very set.
            if let Some(outcome) = gathering.selected.clone() {
                self.begin(now, sync, outcome, actions);
            }
        }
    }

    pub(super) fn on_stop_data(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        stated: SignedStopData,
        actions: &mut Vec<Action>,
    ) {
        let regency = stated.data.regency;
        if stated.data.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        let is_own = stated.sender == from || is_active(Mutant::StopDataUnsigned);
        if !is_own || stated.check(regency, &self.view, &self.settings).is_err() {
            return report(from, Reason::BadStopData, actions);
        }
        if regency < self.change.regency {
            return;
        }
        // Whoever states its votes for a regency wants it.
        if self.change.stops.note(from, regency) {
            self.consider_stops(now, actions);
        }
        self.take_stop_data(now, stated, actions);
    }

    /// Keeps a statement for a regency that this replica leads, now or soon: the latest of each member.
    fn take_stop_data(&mut self, now: Timestamp, stated: SignedStopData, actions: &mut Vec<Action>) {
        if self.view.leader_of(stated.data.regency) == self.me && self.change.keep(stated, &self.view) {
            self.gather(now, actions);
        }
    }

    /// As the new leader: selects as soon as the statements suffice, and gathers the bound batches [SYNC-1].
    fn gather(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let regency = self.change.regency;
        if self.leader() != self.me || !self.record.may_lead() {
            return;
        }
        let Phase::Syncing(gathering) = &mut self.change.phase else { return };
        if gathering.selected.is_some() {
            return;
        }
        let current = self.change.received.iter().filter(|(_, stated)| stated.data.regency == regency);
        gathering.set = current.map(|(sender, stated)| (*sender, stated.clone())).collect();
        let data: Vec<&StopData> = gathering.set.values().map(|stated| &*stated.data).collect();
        let Some(outcome) = Outcome::select(&data, &self.view) else { return };
        gathering.selected = Some(outcome.clone());
        self.take_base(now, self.me, outcome.base, actions);
        for (id, digest) in outcome.bound.range(self.log.prefix().next()..) {
            self.open_bound(now, *id, *digest);
            self.step(now, *id, actions);
        }
    }

    /// As the new leader: has SYNC signed once every bound batch is at hand [SYNC-4].
    pub(super) fn begin_regency(&mut self, actions: &mut Vec<Action>) {
        let prefix = self.log.prefix();
        let window = &self.window;
        let Phase::Syncing(gathering) = &mut self.change.phase else { return };
        let Some(outcome) = &gathering.selected else { return };
        if gathering.unsigned.is_some() {
            return;
        }
        let is_here = |id: InstanceId, digest: &Digest| {
            let candidate = window.get(id).and_then(|open| open.candidates.get(digest));
            candidate.is_some_and(|candidate| candidate.is_complete())
        };
        if !outcome.bound.range(prefix.next()..).all(|(id, digest)| is_here(*id, digest)) {
            return;
        }
        let sync = Sync {
            view: self.view.id(),
            regency: self.change.regency,
            set: gathering.set.values().cloned().collect(),
            results: outcome.bound.iter().map(|(id, digest)| (*id, *digest)).collect(),
            signature: Signature([0; 64]),
        };
        actions.push(Action::Sign(sync.statement()));
        gathering.unsigned = Some(sync);
    }

    pub(super) fn on_sync(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        sync: Arc<Sync>,
        actions: &mut Vec<Action>,
    ) {
        if sync.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        let regency = self.change.regency;
        let is_begun = sync.regency == regency && self.change.is_live();
        if is_begun && let Some(own) = self.change.sync() {
            if **own != *sync {
                report(self.leader(), Reason::SecondSync, actions);
            }
            return;
        }
        let Ok(outcome) = sync.outcome(&self.view, &self.settings) else {
            report(from, Reason::BadSync, actions);
            // [SYNC-5] Its leader signed what begins nothing: there is no use in waiting.
            if sync.regency == regency && !is_begun {
                self.stop(now, regency.next(), actions);
            }
            return;
        };
        if sync.regency < regency {
            // It comes late, or from one that is behind: that is nobody's fault.
            return;
        }
        if outcome.bound.iter().ne(sync.results.iter().map(|(id, digest)| (id, digest))) {
            report(self.view.leader_of(sync.regency), Reason::WrongSelection, actions);
        }
        if sync.regency > regency {
            // A quorum of statements for it: a quorum has installed it.
            self.install(now, sync.regency, actions);
        }
        self.begin(now, sync, outcome, actions);
    }

    /// Begins the installed regency: votes for what is bound, as if the leader had proposed it [SYNC-3].
    fn begin(&mut self, now: Timestamp, sync: Arc<Sync>, outcome: Outcome, actions: &mut Vec<Action>) {
        self.record.begin(self.change.regency, outcome.last());
        self.change.unsigned = None;
        self.change.received.retain(|_, stated| stated.data.regency > sync.regency);
        self.take_base(now, self.leader(), outcome.base.clone(), actions);
        self.change.phase = Phase::Live { sync, outcome: outcome.clone() };
        self.timer.restart(now);
        self.monitor.begin();
        if self.leader() != self.me && !self.links.is_connected(self.leader()) {
            self.change.leader_lost = Some(now);
        }
        self.vote_edge = self.vote_edge.min(self.log.prefix());
        for (id, digest) in &outcome.bound {
            if *id <= self.log.prefix() {
                self.vote_again(*id, *digest, actions);
            } else {
                self.open_bound(now, *id, *digest);
                self.step(now, *id, actions);
            }
        }
        self.widen(now, actions);
        self.advance(now, actions);
    }

    /// Takes the certificate that a regency begins above.
    fn take_base(
        &mut self,
        now: Timestamp,
        by: ReplicaId,
        base: Option<ChainCertificate>,
        actions: &mut Vec<Action>,
    ) {
        let Some(base) = base else { return };
        if self.log.chain_at(base.instance).is_some_and(|own| own != base.chain) {
            return report(by, Reason::ConflictingChain, actions);
        }
        if self.chain.install(base) {
            self.on_certified(now, actions);
        }
    }

    /// Votes in the new epoch for what was executed here: others may need it [SYNC-3].
    fn vote_again(&mut self, id: InstanceId, digest: Digest, actions: &mut Vec<Action>) {
        match self.log.get(id) {
            Some(decided) if decided.digest == digest => {
                self.vote_late(id, digest, actions);
                for vote in self.record.resend(id) {
                    broadcast_after(self.journal.gate(), vote, actions);
                }
            }
            Some(_) => report(self.leader(), Reason::ConflictingDecision, actions),
            None => {}
        }
    }

    /// When the beginning of the installed regency is not waited for any more.
    pub(super) fn sync_deadline(&self) -> Option<Timestamp> {
        match &self.change.phase {
            Phase::Syncing(gathering) if self.record.may_vote() => Some(gathering.deadline),
            Phase::Syncing(_) | Phase::First | Phase::Live { .. } => None,
        }
    }

    /// Gives up a regency that does not begin [SYNC-5].
    pub(super) fn give_up_sync(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let patience = self.timer.timeout(&self.settings);
        let Phase::Syncing(gathering) = &mut self.change.phase else { return };
        if now < gathering.deadline || !self.record.may_vote() {
            return;
        }
        gathering.deadline = now.plus(patience);
        self.stop(now, self.change.regency.next(), actions);
    }

    /// Sends again what leader change still needs, to one peer or to all [LINK-1].
    pub(super) fn resend_change(&self, to: Option<ReplicaId>, actions: &mut Vec<Action>) {
        let mut messages = Vec::new();
        let wanted = self.change.stops.of(self.me);
        if wanted > self.change.regency || (wanted > Regency(0) && !self.change.is_live()) {
            messages.push(Message::Stop(Stop { view: self.view.id(), regency: wanted }));
        }
        if !self.change.is_live() {
            messages.extend(self.change.stated.clone().map(Message::StopData));
        }
        for message in messages {
            match to {
                Some(peer) => send_after(self.journal.gate(), peer, message, actions),
                None => broadcast_after(self.journal.gate(), message, actions),
            }
        }
    }

    /// Brings a peer to this replica's regency [LINK-2].
    pub(super) fn help_regency(
        &mut self,
        now: Timestamp,
        peer: ReplicaId,
        status: &Status,
        actions: &mut Vec<Action>,
    ) {
        let regency = self.change.regency;
        if status.regency < regency {
            let regency = self.change.stops.of(self.me).max(regency);
            let stop = Stop { view: self.view.id(), regency };
            send_after(self.journal.gate(), peer, Message::Stop(stop), actions);
        }
        if let Some(sync) = self.change.sync()
            && self.links.may_sync(peer, now, self.settings.status_period)
        {
            send_after(self.journal.regency_gate(), peer, Message::Sync(Arc::clone(sync)), actions);
        }
    }

    /// Whether a peer has not begun the regency that this replica is in.
    pub(super) fn is_regency_ahead_of(&self, status: &Status) -> bool {
        let regency = self.change.regency;
        status.regency < regency || (status.regency == regency && !status.is_live && self.change.is_live())
    }
}
