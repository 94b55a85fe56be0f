//! Damage on this replica's own disk, found while it runs: what is damaged is fetched from others, or cut off; the state
//! in memory stays as it is [CKPT-2, ST-3].

use super::Replica;
use crate::action::Action;
use crate::event::Damage;
use crate::ids::InstanceId;
use crate::state_transfer::requester::{Offers, Phase};
use crate::time::Timestamp;

impl Replica {
    /// Something of its own is damaged on the disk.
    pub(super) fn on_damaged(&mut self, damage: Damage, actions: &mut Vec<Action>) {
        match damage {
            Damage::Snapshot(instance) => {
                // One that is not stable cannot be had from others; the next one takes its place.
                let is_stable = self.checkpoints.stable() == instance && self.checkpoints.own() == instance;
                if is_stable && self.transfer.diverged.is_none() {
                    self.transfer.damaged = Some(instance);
                }
            }
            Damage::Log(position) => {
                self.journal.note_damage(position);
                let stable = self.checkpoints.stable();
                if stable > InstanceId(0) && self.checkpoints.own() >= stable {
                    self.cut_log(stable, actions);
                }
            }
        }
    }

    /// The damaged snapshot, or a later one, is on disk as a quorum signed it.
    pub(super) fn on_repaired(&mut self, now: Timestamp, instance: InstanceId, actions: &mut Vec<Action>) {
        let Phase::Snapshot(fetch) = &self.transfer.phase else { return };
        if !self.transfer.is_repair || fetch.instance() != instance {
            return;
        }
        let certificate = fetch.certificate().clone();
        self.transfer.damaged = None;
        self.transfer.note_success();
        self.set_phase(now, Phase::Idle);
        self.checkpoints.repaired(certificate);
        self.on_stable(actions);
    }

    /// Begins or ends the repair of a snapshot, as nothing more urgent is fetched, or is.
    pub(super) fn drive_repair(&mut self, now: Timestamp) {
        let Some(damaged) = self.transfer.damaged else { return };
        let is_past = self.checkpoints.own() != damaged || self.transfer.diverged.is_some();
        if is_past {
            // A snapshot that is whole has taken its place, or the state itself is to go.
            self.transfer.damaged = None;
            if self.transfer.is_repair {
                self.set_phase(now, Phase::Idle);
            }
            return;
        }
        let is_free = matches!(self.transfer.phase, Phase::Idle) && !self.checkpoints.is_writing();
        if is_free && now >= self.transfer.no_snapshot_until {
            let due = self.offers_due(now);
            let above = InstanceId(damaged.0.saturating_sub(1));
            self.set_phase(now, Phase::Offers(Offers::new(above, due)));
            self.transfer.is_repair = true;
        }
    }
}
