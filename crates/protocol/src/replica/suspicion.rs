//! What time brings to requests that wait: they are forwarded, then the leader is asked to go [STOP-1]; and what
//! shows before, that it is gone, or slow.

use std::time::Duration;

use super::ordering::truncate;
use super::{Replica, broadcast, report};
use crate::action::{Action, Reason};
use crate::ids::ReplicaId;
use crate::message::{Batch, Message};
use crate::requests::Waiting;
use crate::time::Timestamp;

impl Replica {
    pub(super) fn on_disconnected(&mut self, now: Timestamp, peer: ReplicaId) {
        self.links.set_connected(peer, false);
        self.transfer.donors.leave(peer, now);
        if peer == self.leader() {
            self.change.leader_lost.get_or_insert(now);
        }
    }

    /// When a leader without a channel is not waited for any more: it has crashed, or the network has.
    pub(super) fn leader_lost_deadline(&self) -> Option<Timestamp> {
        let lost = self.change.leader_lost?;
        let is_awaited = self.requests.len() > 0
            && self.change.is_live()
            && !self.has_given_up()
            && self.record.may_vote();
        is_awaited.then(|| lost.plus(self.timer.backed_off(self.settings.status_period, &self.settings)))
    }

    /// Whether this replica has asked for the next regency already; after the very last one there is none to ask for.
    fn has_given_up(&self) -> bool {
        self.change.stops.of(self.me) >= self.change.regency.next()
    }

    /// Looks after the requests that wait, and after the leader.
    pub(super) fn check_patience(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.leader_lost_deadline().is_some_and(|deadline| deadline <= now) {
            self.stop(now, self.change.regency.next(), actions);
        }
        self.give_up_sync(now, actions);
        self.check_fill(now, actions);
        if !self.timer.take_due(now) {
            return;
        }
        self.clear_suspects(now);
        let timeout = self.timer.timeout_in_queue(self.pace(now), self.queue(), &self.settings);
        self.timer.arm(now, timeout);
        if self.is_paused(now) {
            return self.timer.restart(now);
        }
        if !self.change.is_live() || !self.record.may_vote() {
            return;
        }
        if self.timer.began(Timestamp(0)).plus(timeout) <= now {
            self.forward(now, now.before(timeout), actions);
        }
        let oldest = self.requests.oldest(|request| self.counts(request));
        if oldest.is_some_and(|oldest| self.has_expired_twice(&oldest, now, timeout)) {
            self.stop(now, self.change.regency.next(), actions);
        }
    }

    /// Forwards, and so announces, the requests that came until `since` [STOP-1].
    fn forward(&mut self, now: Timestamp, since: Timestamp, actions: &mut Vec<Action>) {
        // What was forwarded before the time began anew has to be forwarded again, or it would never expire twice; and
        // what does not count yet, because somebody may have missed it.
        let began = self.timer.began(Timestamp(0));
        let mut bodies = self
            .requests
            .unforwarded(since, |request, at| at >= began && (at > since || self.counts(request)));
        if bodies.is_empty() {
            return;
        }
        truncate(&mut bodies);
        for body in &bodies {
            let request = body.request.digest();
            self.requests.mark_forwarded(&request, now, began);
            self.note_own_announcement(request);
        }
        broadcast(Message::Forward(bodies), actions);
    }

    fn has_expired_twice(&self, oldest: &Waiting, now: Timestamp, timeout: Duration) -> bool {
        let forwarded = oldest.forwarded.filter(|at| *at >= self.timer.began(oldest.since));
        forwarded.is_some_and(|at| at.plus(timeout) <= now)
    }

    /// What a batch takes, on its bad days: to be ordered, or to be executed.
    fn pace(&self, now: Timestamp) -> Duration {
        self.timer.round().max(self.service.bound(now))
    }

    /// Batches that a request may have before it: those that are pending, and those that the service has.
    fn queue(&self) -> u32 {
        let executing = u32::try_from(self.executing.len()).unwrap_or(u32::MAX);
        self.requests.backlog(&self.settings).saturating_add(executing)
    }

    /// Whether what is missing is this replica's own fault: it is far behind, takes a state over, or its service does
    /// not answer at all. One that is slow gives more time, and no more than that: what it has to do is up to the leader.
    fn is_paused(&self, now: Timestamp) -> bool {
        let far = self.log.prefix().plus(self.settings.window);
        self.links.ahead(far).count() >= self.view.certifying()
            || self.transfer.holds_execution()
            || self.service.busy_for(now) >= self.settings.request_timeout_max
    }

    /// Marks the requests of an accepted proposal; says whether the leader has let too many of them wait too long.
    pub(super) fn mark_proposed(&mut self, now: Timestamp, batch: &Batch) -> bool {
        let patience = self.monitor.patience(self.pace(now), self.queue(), &self.settings);
        let (mut known, mut late) = (0_usize, 0_usize);
        for request in &batch.requests {
            let Some(since) = self.requests.mark_proposed(request) else { continue };
            known = known.saturating_add(1);
            if now.since(self.timer.began(since)) > patience {
                late = late.saturating_add(1);
            }
        }
        self.monitor.judge(now, known, late) && !self.is_paused(now)
    }

    /// Asks for another leader than one that proposes much later than it could.
    pub(super) fn leave_slow_leader(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        report(self.leader(), Reason::SlowLeader, actions);
        self.stop(now, self.change.regency.next(), actions);
    }
}
