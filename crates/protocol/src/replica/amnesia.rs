//! The amnesia walk: asking what one's own lost votes may have been, answering others, and filling up for them
//! [RECOVER-2].

use super::{Replica, broadcast, report, send, send_after};
use crate::action::{Action, Reason};
use crate::amnesia::{Asking, RECOVER_PERIOD};
use crate::ids::{InstanceId, Regency, ReplicaId};
use crate::journal::Held;
use crate::message::{Message, Recover, RecoverAnswer};
use crate::mutants::{Mutant, is_active};
use crate::record::Record;
use crate::time::Timestamp;

impl Replica {
    /// Asks all others, again and again until the lost votes are past.
    pub(super) fn ask_about_votes(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.record.is_recovering(self.chain.certified()) {
            self.asking = None;
            return;
        }
        let period = if self.record.may_vote() { RECOVER_PERIOD } else { self.settings.status_period };
        let asking = self.asking.get_or_insert_with(|| Asking::new(now));
        if asking.due() <= now {
            asking.asked(now.plus(period));
            let recover = Recover { view: self.view.id(), nonce: asking.nonce(), is_relayed: false };
            broadcast(Message::Recover(recover), actions);
        }
    }

    /// When to ask next.
    pub(super) fn asking_due(&self) -> Option<Timestamp> {
        self.asking.as_ref().map(Asking::due)
    }

    /// Somebody has lost its votes.
    pub(super) fn on_recover(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        recover: Recover,
        actions: &mut Vec<Action>,
    ) {
        if recover.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if recover.is_relayed {
            return self.on_relayed_recover(now, from, actions);
        }
        let is_amnesic = self.record.is_recovering(self.chain.certified());
        self.amnesiacs.insert(from);
        if is_amnesic && !is_active(Mutant::AmnesiacAnswers) {
            return;
        }
        if !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        let highest = self.highest_touched();
        // What this replica has of the asker's earlier lives is worth nothing any more, and tells how far they went.
        let change = &mut self.change;
        let earlier = self.fill.earlier_lives(from, recover.nonce, || {
            let stated = change.received.remove(&from).map_or(Regency(0), |stated| stated.data.regency);
            change.stops.forget(from).max(stated)
        });
        let own = self.change.stops.of(self.me).max(self.change.regency).max(self.record.regency_bound());
        let regency = own.max(earlier);
        let answer = RecoverAnswer { view: recover.view, nonce: recover.nonce, highest, regency };
        send_after(self.journal.gate(), from, Message::RecoverAnswer(answer), actions);
        // Others may be a little ahead of the leader: they wait for what it must come to in any case.
        let target = if self.leader() == self.me { highest } else { self.log.prefix() };
        self.fill.ask(from, now, self.log.prefix(), target.plus(self.settings.span));
    }

    /// Others wait for what this replica should order, if it leads.
    fn on_relayed_recover(&mut self, now: Timestamp, from: ReplicaId, actions: &mut Vec<Action>) {
        if !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        if self.leader() == self.me {
            let target = self.highest_touched().plus(self.settings.span);
            self.fill.ask(from, now, self.log.prefix(), target);
        }
    }

    pub(super) fn on_recover_answer(
        &mut self,
        from: ReplicaId,
        answer: &RecoverAnswer,
        actions: &mut Vec<Action>,
    ) {
        if answer.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        let (quorum, span) = (self.view.quorum(), self.settings.span);
        let Some(asking) = &mut self.asking else { return };
        let Some(bounds) = asking.add(from, answer, quorum, span) else { return };
        if self.record.bounds() == Some(bounds) {
            return;
        }
        self.record.bound(bounds);
        // With them the log tells all that a later life must know; the regency was not recorded while this one did not
        // vote [STOP-3].
        let (view, regency) = (self.view.id(), self.change.regency);
        self.journal.append(Record::Regency { view, regency }, None, actions);
        self.journal.append(Record::Stop { view, regency: self.change.stops.of(self.me) }, None, actions);
        self.journal.append(Record::Bounds(bounds), None, actions);
        if self.journal.hold(Held::Bounds).is_some() {
            self.on_bounds_kept(actions);
        }
    }

    /// What the lost votes cannot have been for is on record.
    pub(super) fn on_bounds_kept(&self, actions: &mut Vec<Action>) {
        if self.journal.is_kept() {
            actions.push(Action::Remembered);
        }
    }

    /// The highest instance that this replica ever locked, or knows to be decided.
    fn highest_touched(&self) -> InstanceId {
        let certified = self.chain.certified().max(self.checkpoints.stable());
        self.record.highest_locked().max(certified).max(self.log.prefix())
    }

    /// Whether there is something to order for those who have lost their votes, at the least nothing.
    pub(super) fn has_to_fill(&self) -> bool {
        let proposed = self.record.proposed().max(self.log.prefix());
        self.fill.target() > proposed
    }

    /// Tells the leader that there is something to fill up, as whoever lost its votes may not have; asks for another
    /// leader than one that was told [STOP-1].
    pub(super) fn check_fill(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.fill_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.fill.go_on(now, self.log.prefix()) {
            return;
        }
        if self.leader() == self.me {
            // Whether it takes too long is for the others to say.
            return self.fill.restart(now);
        }
        if self.fill.relay(now) {
            let recover = Recover { view: self.view.id(), nonce: 0, is_relayed: true };
            send(self.leader(), Message::Recover(recover), actions);
        } else {
            self.fill.restart(now);
            self.stop(now, self.change.regency.next(), actions);
        }
    }

    /// When an unfinished fill is not waited for any more.
    pub(super) fn fill_deadline(&self) -> Option<Timestamp> {
        let since = self.fill.since(self.log.prefix())?;
        let timeout = self.timer.timeout(&self.settings);
        // As for a request: it may expire twice. A fill is longer than a request by as many rounds as it has windows.
        let windows = self.settings.span.checked_div(self.settings.window).unwrap_or(1).saturating_add(2);
        let windows = u32::try_from(windows).unwrap_or(u32::MAX);
        self.change.is_live().then(|| since.plus(timeout.saturating_mul(windows)))
    }
}
