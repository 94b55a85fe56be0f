//! What the loop does for state transfer: it passes on between the core and the threads that read and write [ST-3].

use std::time::Instant;

use regency_protocol::action::Recipients;
use regency_protocol::event::Event;
use regency_protocol::ids::{InstanceId, ReplicaId};
use regency_protocol::message::{Message, Supply};
use regency_protocol::replica::{ReplicaState, TransferPhase};
use regency_protocol::state_transfer::donation::{Donation, Transfer};
use tracing::{error, info};

use super::super::journal::disk_failed;
use super::super::snapshots::{Done, Unusable};
use super::EventLoop;
use crate::failure::{ErrorCode, Failure};

impl EventLoop {
    /// Has something read for another replica.
    pub(super) fn give(&mut self, to: ReplicaId, donation: Donation) -> Result<(), Failure> {
        self.donor.give(to, donation, self.view.id())
    }

    /// Gives another replica what the core has in memory, when its turn comes.
    pub(super) fn pass(&mut self, to: ReplicaId, supply: Supply) -> Result<(), Failure> {
        if let Some(supply) = self.donor.pass(to, supply)? {
            self.send_supply(to, supply);
        }
        Ok(())
    }

    /// Sends what was read for others since.
    pub(super) fn send_donations(&mut self) {
        while let Some((to, supply)) = self.donor.next() {
            self.send_supply(to, supply);
        }
    }

    fn send_supply(&mut self, to: ReplicaId, supply: Supply) {
        let network = &mut self.network;
        let message = Message::Supply(supply);
        self.conduct.on_send(self.now, Recipients::One(to), message, |to, message| {
            network.send_to(to, message);
        });
    }

    /// Has the next step of a transfer done. One that begins while the replica takes part repairs what it has on disk.
    pub(super) fn take_step(&mut self, step: Transfer) -> Result<(), Failure> {
        let Transfer::Begin(manifest) = step else { return self.snapshots.transfer(step) };
        match self.core.status().state {
            ReplicaState::Normal | ReplicaState::LeaderChange => self.snapshots.repair(manifest),
            ReplicaState::StateLost | ReplicaState::Transfer | ReplicaState::Behind => {
                self.snapshots.transfer(Transfer::Begin(manifest))
            }
        }
    }

    /// Tells the core what has become of snapshots since.
    pub(super) fn hear_snapshots(&mut self) -> Result<(), Failure> {
        while let Some(done) = self.snapshots.next_done()? {
            match done {
                Done::Written { instance, root } => self.handle(Event::Snapshotted { instance, root }),
                Done::Begun { instance, held } => self.handle(Event::TransferBegun { instance, held }),
                Done::Kept { instance, index } => self.handle(Event::ChunkKept { instance, index }),
                Done::Installed { instance } => self.take_over(instance)?,
                Done::Replaced { instance } => self.handle(Event::Repaired(instance)),
                Done::Discarded => {}
            }
        }
        Ok(())
    }

    /// Gives the service the state of a snapshot that came from others, in place of its own.
    fn take_over(&mut self, instance: InstanceId) -> Result<(), Failure> {
        let begun = Instant::now();
        let executor = &mut self.executor;
        let restored = self.snapshots.restore(instance, |source| executor.restore(source));
        let restored = match restored {
            // The own state turned out to be another one than the signed one meanwhile, and what lay on the disk went.
            Err(Unusable::Absent) if !self.is_awaited(instance) => return Ok(()),
            restored => restored.map_err(|error| not_taken(instance, &error))?,
        };
        info!(
            %instance,
            bytes = restored.bytes,
            seconds = begun.elapsed().as_secs_f64(),
            "the service has the state of the other replicas"
        );
        self.handle(Event::Restored(Box::new(restored.head)));
        Ok(())
    }

    /// Whether the core waits until the service has the state of this instance.
    fn is_awaited(&self, instance: InstanceId) -> bool {
        let transfer = self.core.status().transfer;
        transfer
            .is_some_and(|transfer| (transfer.phase, transfer.target) == (TransferPhase::Install, instance))
    }

    /// The own state is not the one that a quorum signed: what stands in the own snapshots from there on is wrong.
    pub(super) fn on_diverged(&mut self, instance: InstanceId) -> Result<(), Failure> {
        self.metrics.divergences.inc();
        error!(
            %instance,
            "{} THE STATE OF THIS REPLICA IS NOT THAT OF THE OTHERS: a quorum has signed another one. It does not serve \
             until it has theirs. The service is not deterministic, or memory or disk are bad",
            ErrorCode::Diverged
        );
        // What is frozen is of the same state.
        self.frozen = None;
        self.snapshots.discard(instance)
    }

    /// Looks now and then whether ordering suffers from what is given, and how far what is taken is.
    pub(super) fn look_at_transfers(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(share) = self.load.look(now, self.donor.is_giving()) {
            self.donor.limit(share);
        }
        if self.progress.take_due(now) {
            self.hear_scrubber()?;
            let transfer = self.core.status().transfer;
            if let Some(report) = self.progress.observe(now, transfer.as_ref()) {
                info!("transfer: {report}");
            }
        }
        Ok(())
    }
}

/// A state that a quorum signed did not become this replica's.
fn not_taken(instance: InstanceId, error: &Unusable) -> Failure {
    if error.is_of_disk() {
        return disk_failed(error);
    }
    Failure::new(
        ErrorCode::StateRefused,
        format!(
            "the state after instance {instance}, which a quorum has signed, cannot be taken over ({error}), and the \
             replica stopped: it has none"
        ),
        "run the same version of the service on all replicas, or report this",
    )
}
