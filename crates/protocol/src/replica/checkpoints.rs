//! The checkpoint walk: snapshots that become stable, and the log that is cut behind them [CKPT-1, CKPT-2].

use super::{Replica, broadcast, report, send};
use crate::action::{Action, Reason};
use crate::checkpoint::has_quorum;
use crate::ids::{Digest, InstanceId, ReplicaId, Signature};
use crate::message::{CheckpointCertificate, CheckpointSignature, Message, Statement};
use crate::mutants::{Mutant, is_active};
use crate::record::Record;
use crate::snapshot::SnapshotHead;

impl Replica {
    /// Has a snapshot taken if `instance`, which was executed last, is a checkpoint.
    pub(super) fn take_snapshot(&mut self, instance: InstanceId, chain: Digest, actions: &mut Vec<Action>) {
        // A log that is being read leads past checkpoints that others have long made.
        let is_wanted = !self.journal.is_replaying() && !self.transfer.leads_on();
        if self.checkpoints.on_executed(instance, chain, is_wanted) {
            // It takes the place of a damaged one.
            if self.transfer.is_repair {
                self.leave_phase();
            }
            let mut sessions = self.sessions.clone();
            if is_active(Mutant::ResultsNotInSnapshot) {
                sessions.forget_results();
            }
            let (view, timestamp) = (self.view.id(), self.log.timestamp());
            let checkpoint = self.checkpoints.number();
            let head = SnapshotHead { view, instance, chain, timestamp, checkpoint, sessions };
            actions.push(Action::Snapshot { head: Box::new(head), after: self.journal.gate() });
        }
    }

    /// A snapshot is on disk: only now may its signature be given.
    pub(super) fn on_snapshotted(&mut self, instance: InstanceId, root: Digest, actions: &mut Vec<Action>) {
        let Some(chain) = self.checkpoints.on_written(instance, root) else { return };
        if is_active(Mutant::CutBelowUnstable) {
            self.cut_log(instance, actions);
        }
        if self.checkpoints.stable() >= instance {
            return self.on_stable(actions);
        }
        if self.record.may_vote() {
            let view = self.view.id();
            actions.push(Action::Sign(Statement::Checkpoint { view, instance, chain, root }));
        }
    }

    pub(super) fn on_checkpoint_signed(
        &mut self,
        instance: InstanceId,
        state: (Digest, Digest),
        signature: Signature,
        actions: &mut Vec<Action>,
    ) {
        let own = self.checkpoints.signed(instance, state, signature);
        broadcast(Message::CheckpointSignature(own), actions);
        if self.checkpoints.add(self.me, &own, &self.view) {
            self.on_stable(actions);
        }
    }

    pub(super) fn on_checkpoint_signature(
        &mut self,
        from: ReplicaId,
        signed: CheckpointSignature,
        actions: &mut Vec<Action>,
    ) {
        if signed.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if signed.instance <= self.checkpoints.stable() {
            // Whoever still asks for it has not seen that it is stable.
            if let Some(certificate) = self.checkpoints.certificate().cloned()
                && self.links.may_answer(from)
            {
                send(from, Message::CheckpointCertificate(certificate), actions);
            }
            return;
        }
        let reach = self.settings.span.saturating_add(self.settings.checkpoint_interval);
        if signed.instance > self.log.prefix().max(self.chain.certified()).plus(reach) {
            return report(from, Reason::TooFarAhead, actions);
        }
        if self.log.chain_at(signed.instance).is_some_and(|own| own != signed.chain) {
            return report(from, Reason::ConflictingChain, actions);
        }
        if self.checkpoints.add(from, &signed, &self.view) {
            self.on_stable(actions);
        }
    }

    pub(super) fn on_checkpoint_certificate(
        &mut self,
        from: ReplicaId,
        certificate: CheckpointCertificate,
        actions: &mut Vec<Action>,
    ) {
        if certificate.view != self.view.id() {
            return report(from, Reason::WrongView, actions);
        }
        if !has_quorum(&certificate, &self.view) {
            return report(from, Reason::BadCertificate, actions);
        }
        if self.log.chain_at(certificate.instance).is_some_and(|own| own != certificate.chain) {
            return report(from, Reason::ConflictingChain, actions);
        }
        if self.checkpoints.install(certificate) {
            self.on_stable(actions);
        }
    }

    /// A checkpoint is stable, or this replica's own snapshot has caught up with one that is.
    pub(super) fn on_stable(&mut self, actions: &mut Vec<Action>) {
        if let Some(certificate) = self.checkpoints.take_unrecorded() {
            self.journal.append(Record::Checkpoint(certificate), None, actions);
        }
        if self.checkpoints.differs() {
            return self.on_diverged(self.checkpoints.stable(), actions);
        }
        let stable = self.checkpoints.stable();
        // The log is needed until this replica's own snapshot covers it.
        if self.checkpoints.own() >= stable {
            self.cut_log(stable, actions);
        }
    }

    /// Cuts the log below `instance`, but for what stragglers may ask for [CKPT-2].
    pub(super) fn cut_log(&mut self, instance: InstanceId, actions: &mut Vec<Action>) {
        // [VOTE-1] Votes above the certificate must be stated, whatever a checkpoint covers.
        let closed = self.chain.certified().next();
        let needed = instance.next().min(closed);
        // What is damaged goes, and with it what is kept for stragglers only.
        let is_damaged = self.journal.is_damaged_below(needed);
        let needed = if is_damaged { needed } else { needed.min(self.log.retained_from()) };
        let Some(below) = self.journal.cut(needed) else { return };
        // What is not about an instance is written again: its only record may be cut off.
        let view = self.view.id();
        self.journal.append(Record::Regency { view, regency: self.change.regency }, None, actions);
        let wanted = self.change.stops.of(self.me);
        self.journal.append(Record::Stop { view, regency: wanted }, None, actions);
        if let Some(bounds) = self.record.bounds() {
            self.journal.append(Record::Bounds(bounds), None, actions);
        }
        if let Some(certificate) = self.chain.certificate().cloned() {
            self.journal.append(Record::Certificate(certificate), None, actions);
        }
        if let Some(certificate) = self.checkpoints.certificate().cloned() {
            self.journal.append(Record::Checkpoint(certificate), None, actions);
        }
        actions.push(Action::Cut(below));
    }
}
