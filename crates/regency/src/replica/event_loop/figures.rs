//! What the loop tells about its replica: the report, the metrics, whether it takes part, how far a transfer is.

use std::time::Instant;

use regency_protocol::event::{Damage, Event};
use regency_storage::scrub::Defect;
use tracing::{error, info, warn};

use super::super::journal::Obstacle;
use super::super::progress::TransferReport;
use super::super::status::{Readiness, StatusReport, readiness};
use super::EventLoop;
use crate::failure::{ErrorCode, Failure};

impl EventLoop {
    pub(super) fn report(&mut self) -> StatusReport {
        self.network.tally();
        let status = self.core.status();
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.decided.set(gauge(status.decided.0));
        metrics.executed.set(gauge(status.executed.0));
        metrics.certified.set(gauge(status.certified.0));
        let known = u64::try_from(metrics.regency.set(gauge(status.regency.0))).unwrap_or(0);
        metrics.leader_changes.inc_by(status.regency.0.saturating_sub(known));
        metrics.wanted_regency.set(gauge(status.wanted_regency.0));
        metrics.timeout_doublings.set(status.backoff.into());
        metrics.announced_requests.set(gauge(status.announced_requests as u64));
        metrics.round_seconds.set(status.round.as_secs_f64());
        metrics.pending_requests.set(gauge(status.pending_requests as u64));
        metrics.sessions.set(gauge(status.sessions as u64));
        metrics.retained_bytes.set(gauge(status.retained_bytes as u64));
        metrics.stable_checkpoint.set(gauge(status.stable_checkpoint.0));
        let transfer = self.progress.observe(Instant::now(), status.transfer.as_ref());
        let of = |figure: fn(&TransferReport) -> u64| gauge(transfer.as_ref().map_or(0, figure));
        metrics.transfer_target.set(of(|transfer| transfer.target));
        metrics.transfer_done.set(of(|transfer| transfer.done));
        metrics.transfer_total.set(of(|transfer| transfer.total));
        metrics.transfer_donors.set(of(|transfer| transfer.donors));
        metrics.transfer_rate.set(transfer.as_ref().map_or(0.0, |transfer| transfer.per_second));
        let left = transfer.as_ref().and_then(|transfer| transfer.seconds_left);
        metrics.transfer_seconds_left.set(left.unwrap_or(f64::NAN));
        for (phase, gauge) in &metrics.transfer_phases {
            gauge.set(transfer.as_ref().is_some_and(|transfer| transfer.phase == *phase).into());
        }
        metrics.held_messages.set(gauge(self.held.len() as u64));
        let readiness = self.readiness();
        let report = StatusReport {
            peers_connected: self.network.peer_channels() as u64,
            clients_connected: self.network.client_connections() as u64,
            transfer,
            damage: self.damage.told.iter().map(Defect::to_string).collect(),
            ..StatusReport::new(&self.identity, &self.view, &status, self.started, readiness)
        };
        metrics.resident_bytes.set(gauge(report.resident_bytes));
        metrics.cpu_seconds.set(report.cpu_seconds);
        report
    }

    /// Takes what the reading of the disk has found since.
    pub(super) fn hear_scrubber(&mut self) -> Result<(), Failure> {
        let Some(findings) = self.scrubber.look(self.journal.written()) else { return Ok(()) };
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.damaged_parts.set(gauge(findings.count));
        for defect in findings.told.iter().filter(|defect| !self.damage.told.contains(defect)) {
            error!("{} DAMAGE ON DISK: {defect}. {}", ErrorCode::LogDamaged, what_then(defect));
            if let Defect::Log(_) = defect {
                // A segment goes as a whole, and the newest one stays.
                self.journal.begin_segment()?;
            }
        }
        if findings.count == 0 && self.damage.count > 0 {
            info!("nothing on the disk is damaged any more");
        }
        for defect in &findings.told {
            self.handle(Event::Damaged(match defect {
                Defect::Snapshot { instance, .. } => Damage::Snapshot(*instance),
                Defect::Log(damage) => Damage::Log(damage.first),
            }));
        }
        self.damage = findings;
        self.finish_turn()
    }

    fn readiness(&self) -> Readiness {
        let obstacle = self.obstacle.map(|obstacle| match obstacle {
            Obstacle::Full => disk_full(self.disk_reserve_bytes).to_string(),
            Obstacle::Behind => "the disk is too slow: records wait to be written".to_owned(),
        });
        match obstacle {
            Some(reason) => Readiness { ready: false, reason: Some(reason) },
            None => readiness(&self.core.status(), &self.view),
        }
    }

    /// Tells whoever waits, and the log, when the replica begins or ceases to take part.
    pub(super) fn tell_readiness(&mut self) {
        let now = self.readiness();
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let was_ready = self.told.as_ref().is_some_and(|told| told.ready);
        match &now.reason {
            None => info!("ready"),
            Some(reason) if was_ready => warn!("not ready any more: {reason}"),
            Some(reason) => {
                if let Some(left_out) = self.quieter.admits("not ready", Instant::now()) {
                    info!(left_out, "not ready: {reason}");
                }
            }
        }
        self.metrics.ready.set(now.ready.into());
        self.metrics.disk_full.set((self.obstacle == Some(Obstacle::Full)).into());
        self.shared.set(now.clone());
        self.told = Some(now);
    }
}

/// What becomes of damage, for a person.
fn what_then(defect: &Defect) -> &'static str {
    match defect {
        Defect::Snapshot { .. } => {
            "The replica goes on and has what is damaged from the others, unless its next snapshot comes before. Check the \
             disk"
        }
        Defect::Log(_) => {
            "The replica goes on, and the damage goes when a checkpoint lies behind it; a restart before that costs its \
             votes, and it counts in f for a while. Check the disk"
        }
    }
}

fn disk_full(reserve_bytes: u64) -> Failure {
    Failure::new(
        ErrorCode::DiskFull,
        format!(
            "less than {reserve_bytes} bytes are free on the disk of the data directory: this replica does not vote"
        ),
        "make room, and it goes on by itself",
    )
}
