//! The reckoning at the end of a schedule.

use regency_protocol::ids::{InstanceId, ReplicaId};
use regency_protocol::replica::{ReplicaState, ReplicaStatus};

use super::{SHORT_AFTERMATH, World};
use crate::coverage::Point;
use crate::invariants::{Violation, linearizability, liveness, sessions};
use crate::node::Node;

/// How often, in events, it is looked whether a schedule is over.
const LOOK_EVERY: u64 = 32;

impl World<'_> {
    /// Whether nothing is left to come about: all has healed, and all calls ended and everybody is at one point,
    /// or nobody is owed anything.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.events.is_multiple_of(LOOK_EVERY) || self.now <= self.plan.heal_at {
            return false;
        }
        if self.now > self.plan.heal_at + SHORT_AFTERMATH && !self.is_progress_owed() {
            return true;
        }
        self.are_clients_done() && self.stragglers().is_empty()
    }

    /// The checks that only the end allows.
    pub(super) fn verdict(&mut self) -> Result<(), Violation> {
        self.note_ends();
        if self.plan.sessions_stay {
            sessions::check(&self.history)?;
        }
        linearizability::check(&self.history, self.ledger.entries())?;
        if !self.is_progress_owed() {
            return Ok(());
        }
        liveness::check(&self.history, self.plan.heal_at)?;
        let regency = self.nodes.values().map(|node| node.status().regency.0).max().unwrap_or_default();
        if let Some(most) = self.plan.regency_max.filter(|most| regency > *most) {
            let detail = format!("{regency} changes of leader where {most} would do");
            return Err(Violation::new("stability", detail));
        }
        let stragglers = self.stragglers();
        if stragglers.is_empty() {
            self.points.insert(Point::CaughtUp);
            return Ok(());
        }
        let last = self.ledger.entries().len();
        let detail = format!("replicas {stragglers:?} have not come to {last}, where others are");
        Err(Violation::new("liveness", detail))
    }

    /// Whether the leader is correct and alive, enough others are, and no request can be stuck without it.
    fn is_progress_owed(&mut self) -> bool {
        let out = self.plan.view.members().iter().filter(|member| self.is_out(member.id)).count();
        let is_behind = |node: &crate::node::Node| node.status().state == ReplicaState::Behind;
        if self.nodes.values().any(|node| node.is_up() && is_behind(node)) {
            self.points.insert(Point::FellBehind);
        }
        out <= self.plan.view.faults()
    }

    /// Whether those who run cannot bring a replica to where they are, one after the other. It may not know: what a
    /// peer said before it went away can mislead it, and one that helps may be far behind itself.
    pub(super) fn is_cut_off(&self, replica: ReplicaId) -> bool {
        let Some(own) = self.nodes.get(&replica).map(Node::status) else { return false };
        let others: Vec<_> = self.nodes.values().filter(|node| node.is_up()).map(Node::status).collect();
        let last = others.iter().map(|other| other.decided).max().unwrap_or_default();
        let mut reached = own.decided;
        while let Some(farther) = others
            .iter()
            .filter(|other| other.decided > reached && self.keeps(other, reached))
            .map(|other| other.decided)
            .max()
        {
            reached = farther;
        }
        reached < last
    }

    /// Whether a replica has what comes after `reached`: in memory, or on disk, where there is one [ST-1].
    fn keeps(&self, other: &ReplicaStatus, reached: InstanceId) -> bool {
        self.plan.disk.is_kept() || other.retained_from <= reached.next()
    }

    /// Correct replicas that run, could catch up, and have not executed all that others have.
    fn stragglers(&self) -> Vec<ReplicaId> {
        let last = InstanceId(self.ledger.entries().len() as u64);
        let running = self.nodes.values().filter(|node| node.is_up());
        let statuses: Vec<_> = running.map(|node| (node.id(), node.status())).collect();
        let could_catch_up = |own: &ReplicaStatus| {
            let helps = |other: &ReplicaStatus| other.decided > own.decided && self.keeps(other, own.decided);
            statuses.iter().filter(|(_, other)| helps(other)).count() >= self.plan.view.weak()
        };
        let is_straggler =
            |own: &ReplicaStatus| own.executed < own.decided || (own.executed < last && could_catch_up(own));
        statuses.iter().filter(|(_, own)| is_straggler(own)).map(|(id, _)| *id).collect()
    }
}
