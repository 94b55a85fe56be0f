//! A state that comes from others takes the place of this replica's own: because that is behind, or wrong [CKPT-2, ST-3].

use super::Replica;
use crate::action::Action;
use crate::decided::DecidedLog;
use crate::ids::InstanceId;
use crate::message::RequestKind;
use crate::mutants::{Mutant, is_active};
use crate::record::Record;
use crate::sessions::Known;
use crate::snapshot::SnapshotHead;
use crate::state_transfer::requester::Phase;
use crate::time::Timestamp;

impl Replica {
    /// The service has the state of the snapshot: this replica stands where that was taken.
    pub(super) fn on_restored(&mut self, now: Timestamp, head: SnapshotHead, actions: &mut Vec<Action>) {
        let Phase::Snapshot(fetch) = &self.transfer.phase else { return };
        let certificate = fetch.certificate().clone();
        let SnapshotHead { instance, chain, timestamp, checkpoint, sessions, .. } = head;
        let is_that = (instance, chain) == (certificate.instance, certificate.chain);
        if !is_that && !is_active(Mutant::RootUnbound) {
            // Only a quorum that signs nonsense brings this about: whatever the state is, it is not served.
            self.transfer.diverged = Some(self.log.prefix());
            self.set_phase(now, Phase::Idle);
            return;
        }
        let before = self.log.prefix();
        self.log = DecidedLog::after(instance, chain, timestamp);
        self.sessions = sessions;
        self.executed = (instance, chain);
        self.executing.clear();
        self.service.stop();
        self.window.forget_up_to(instance);
        self.checkpoints.adopt(&certificate, checkpoint);
        self.journal.skip_to(instance);
        if let Some(certificate) = self.checkpoints.take_unrecorded() {
            self.journal.append(Record::Checkpoint(certificate), None, actions);
        }
        self.transfer.diverged = None;
        self.transfer.note_success();
        self.set_phase(now, Phase::Idle);
        self.drop_past_requests();
        let requests = &self.requests;
        self.timer.note_progress(|request| requests.contains(request));
        self.cut_log(instance, actions);
        self.on_prefix(now, before.max(instance), actions);
        self.advance(now, actions);
    }

    /// Drops the pending requests that the new state has answered, or knows no session for.
    fn drop_past_requests(&mut self) {
        let prefix = self.log.prefix();
        for request in self.requests.all() {
            let is_past = match self.sessions.lookup(&request) {
                Known::New => false,
                Known::NoSession => {
                    request.kind() != RequestKind::Open && request.session().instance() <= prefix
                }
                Known::Executing | Known::Answered(_) | Known::Reused | Known::BelowFloor => true,
            };
            if is_past {
                self.requests.remove(&request.digest());
                self.announcements.forget(&request.digest());
            }
        }
    }

    /// This replica's state is not the one that a quorum has signed: it serves nobody until it has that one [CKPT-2].
    pub(super) fn on_diverged(&mut self, instance: InstanceId, actions: &mut Vec<Action>) {
        self.transfer.diverged = Some(instance);
        self.checkpoints.disown();
        self.leave_phase();
        actions.push(Action::Diverged(instance));
    }
}
