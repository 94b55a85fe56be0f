//! What a replica counts: for Prometheus, for operators, for tests.
//!
//! Counters are atomics that the replica's thread increments and the admin thread reads. What is counted per
//! reason has all its series from the start, so that the hot path indexes and never looks labels up.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use regency_protocol::action::Reason;
use regency_protocol::ids::ReplicaId;
use regency_protocol::replica::TransferPhase;

use crate::transport::RefusalCode;

/// Why the shell dropped what somebody sent, or closed a connection; the core has reasons of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// TLS that is none, or is not accepted.
    Tls,
    /// A length field above the limit.
    FrameTooLong,
    /// A frame without content.
    FrameEmpty,
    /// A frame that is no message.
    Undecodable,
    /// A piece of a long message that is not the next one.
    BadPiece,
    /// A frame of a kind that does not exist here.
    UnknownKind,
    /// A frame of another protocol version.
    UnknownVersion,
    /// A first frame that is no handshake.
    BadHandshake,
    /// A handshake that took too long.
    HandshakeTimeout,
    /// A frame that took too long to arrive.
    FrameTimeout,
    /// A peer or client that takes too long to read what it is sent.
    WriteTimeout,
    /// A peer or client for which too much waits to be sent.
    OutboundFull,
    /// A message on the line for what is fetched and given that belongs elsewhere.
    WrongLane,
    /// A peer that holds another key than the view says.
    WrongPeerKey,
    /// A request in another client's name.
    ForeignRequest,
    /// A signature of a client that does not verify.
    BadClientSignature,
    /// A signature in a peer's message that does not verify.
    BadPeerSignature,
    /// A request that the service refuses before ordering.
    RejectedByService,
    /// A peer that refused this replica's handshake.
    RefusedByPeer,
    /// A socket error.
    Socket,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: &'static [Self] = &[
        Self::Tls,
        Self::FrameTooLong,
        Self::FrameEmpty,
        Self::Undecodable,
        Self::BadPiece,
        Self::UnknownKind,
        Self::UnknownVersion,
        Self::BadHandshake,
        Self::HandshakeTimeout,
        Self::FrameTimeout,
        Self::WriteTimeout,
        Self::OutboundFull,
        Self::WrongLane,
        Self::WrongPeerKey,
        Self::ForeignRequest,
        Self::BadClientSignature,
        Self::BadPeerSignature,
        Self::RejectedByService,
        Self::RefusedByPeer,
        Self::Socket,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::FrameTooLong => "frame_too_long",
            Self::FrameEmpty => "frame_empty",
            Self::Undecodable => "undecodable",
            Self::BadPiece => "bad_piece",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownVersion => "unknown_version",
            Self::BadHandshake => "bad_handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::FrameTimeout => "frame_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::OutboundFull => "outbound_full",
            Self::WrongLane => "wrong_lane",
            Self::WrongPeerKey => "wrong_peer_key",
            Self::ForeignRequest => "foreign_request",
            Self::BadClientSignature => "bad_client_signature",
            Self::BadPeerSignature => "bad_peer_signature",
            Self::RejectedByService => "rejected_by_service",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Socket => "socket",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// One phase of ordering, measured per instance at this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the proposal to the own WRITE.
    Propose,
    /// From the own WRITE to the own ACCEPT.
    Write,
    /// From the own ACCEPT to execution.
    Accept,
    /// The service's work.
    Execute,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Propose, Self::Write, Self::Accept, Self::Execute];

    fn label(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Write => "write",
            Self::Accept => "accept",
            Self::Execute => "execute",
        }
    }
}

/// All counters of one replica.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reasons: Vec<Counter>,
    faults: Vec<Counter>,
    refusals: Vec<Counter>,
    phases: Vec<Histogram>,
    /// Operations executed by the service.
    pub operations: Counter,
    /// Batches executed.
    pub batches: Counter,
    /// Operations per executed batch.
    pub batch_operations: Histogram,
    /// Bytes read from sockets.
    pub bytes_in: Counter,
    /// Bytes written to sockets.
    pub bytes_out: Counter,
    /// Of those, what came on the lines for what is fetched and given.
    pub bulk_bytes_in: Counter,
    /// Of those, what left on them.
    pub bulk_bytes_out: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Frames sent.
    pub frames_out: Counter,
    /// Turns of the event loop.
    pub turns: Counter,
    /// Signatures checked.
    pub signatures_checked: Counter,
    /// Replies for which there was no connection any more.
    pub replies_unroutable: Counter,
    /// Open connections of clients.
    pub client_connections: Gauge,
    /// Open connections to other replicas.
    pub peer_connections: Gauge,
    /// The decided prefix.
    pub decided: Gauge,
    /// The executed prefix.
    pub executed: Gauge,
    /// The instance of the highest chain certificate.
    pub certified: Gauge,
    /// Requests that wait to be ordered.
    pub pending_requests: Gauge,
    /// Open sessions.
    pub sessions: Gauge,
    /// Bytes of decided batches kept for replicas that fell behind.
    pub retained_bytes: Gauge,
    /// Bytes of records written into the log.
    pub log_bytes: Counter,
    /// Records written into the log.
    pub log_records: Counter,
    /// How long commits of the log took, each with one sync where the durability wants it.
    pub log_commit_seconds: Histogram,
    /// Messages that wait for the log.
    pub held_messages: Gauge,
    /// Snapshots written.
    pub snapshots: Counter,
    /// How long freezing the state kept the service from executing.
    pub snapshot_freeze_seconds: Histogram,
    /// How long writing snapshots took, in the background.
    pub snapshot_write_seconds: Histogram,
    /// Bytes of the newest snapshot.
    pub snapshot_bytes: Gauge,
    /// The instance of the stable checkpoint.
    pub stable_checkpoint: Gauge,
    /// Bytes given to replicas that missed something.
    pub donated_bytes: Counter,
    /// Chunks of snapshots given to them.
    pub donated_chunks: Counter,
    /// Questions of theirs that were answered with nothing, or dropped for want of room.
    pub donations_refused: Counter,
    /// Which part of the allowed rate may be given at present, in thousandths.
    pub donor_share: Gauge,
    /// Snapshots taken over from others.
    pub transfers: Counter,
    /// Damaged snapshots of its own that were put right from others.
    pub repairs: Counter,
    /// Chunks of others' snapshots that were kept.
    pub transferred_chunks: Counter,
    /// The instance that a transfer leads to; 0 while there is none.
    pub transfer_target: Gauge,
    /// Bytes of a snapshot, or instances of the log, that are here.
    pub transfer_done: Gauge,
    /// The same, of the whole.
    pub transfer_total: Gauge,
    /// Replicas that give to it.
    pub transfer_donors: Gauge,
    /// Bytes of a snapshot, or instances of the log, that came in a second of late.
    pub transfer_rate: Gauge<f64, AtomicU64>,
    /// Seconds until all is there at that rate; not a number while none can be told.
    pub transfer_seconds_left: Gauge<f64, AtomicU64>,
    /// By name: 1 for what a transfer does just now.
    pub(crate) transfer_phases: Vec<(&'static str, Gauge)>,
    /// Times that the own state was not the one that a quorum signed.
    pub divergences: Counter,
    /// 1 while the replica takes part, else 0.
    pub ready: Gauge,
    /// 1 while the disk has too little room to go on, else 0.
    pub disk_full: Gauge,
    /// What the last reading of the disk, or the one that is under way, found damaged.
    pub damaged_parts: Gauge,
    /// The installed regency.
    pub regency: Gauge,
    /// The highest regency that this replica asked for.
    pub wanted_regency: Gauge,
    /// How often the timeout has doubled for want of progress.
    pub timeout_doublings: Gauge,
    /// Requests that some replicas announce or lack.
    pub announced_requests: Gauge,
    /// Changes of the leader that this replica has seen.
    pub leader_changes: Counter,
    /// What rounds of votes take at present, on their bad days, in seconds.
    pub round_seconds: Gauge<f64, AtomicU64>,
    /// Resident bytes of the process.
    pub resident_bytes: Gauge,
    /// CPU time of the process, in seconds.
    pub cpu_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// All series at zero, labelled with the replica's id.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        let labels = [("replica".into(), replica.to_string().into())];
        let mut all = Registry::with_prefix_and_labels("regency", labels.into_iter());
        let registry = &mut all;
        let family: Family<ReasonLabel, Counter> = Family::default();
        registry.register("dropped_messages", "Messages that broke a rule, by reason", family.clone());
        let reasons = series(&family, Reason::ALL.iter().map(|reason| reason.label()));
        let family: Family<ReasonLabel, Counter> = Family::default();
        registry.register(
            "link_faults",
            "Frames and connections that were refused or lost, by reason",
            family.clone(),
        );
        let faults = series(&family, Fault::ALL.iter().map(|fault| fault.label()));
        let family: Family<ReasonLabel, Counter> = Family::default();
        registry.register("refused_connections", "Handshakes that were refused, by reason", family.clone());
        let refusals = series(&family, RefusalCode::ALL.iter().map(|code| code.label()));
        let latency: fn() -> Histogram = || Histogram::new(exponential_buckets(10e-6, 2.0, 20));
        let family = Family::<PhaseLabel, Histogram, _>::new_with_constructor(latency);
        registry.register("phase_seconds", "Time per instance and phase of ordering", family.clone());
        let phases =
            Phase::ALL.map(|phase| family.get_or_create_owned(&PhaseLabel { phase: phase.label() })).into();
        let batch_operations = Histogram::new(exponential_buckets(1.0, 2.0, 13));
        registry.register("batch_operations", "Operations per executed batch", batch_operations.clone());
        let mut timing = |name: &str, help: &str| {
            let histogram = latency();
            registry.register(name, help, histogram.clone());
            histogram
        };
        let log_commit_seconds = timing("log_commit_seconds", "Time per commit of the log");
        let snapshot_freeze_seconds =
            timing("snapshot_freeze_seconds", "Time that the service lost to a snapshot");
        let snapshot_write_seconds = timing("snapshot_write_seconds", "Time to write a snapshot");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let operations = counter("operations", "Operations executed by the service");
        let batches = counter("batches", "Batches executed");
        let bytes_in = counter("received_bytes", "Bytes read from sockets");
        let bytes_out = counter("sent_bytes", "Bytes written to sockets");
        let bulk_bytes_in = counter("bulk_received_bytes", "Bytes read from lines for state transfer");
        let bulk_bytes_out = counter("bulk_sent_bytes", "Bytes written to lines for state transfer");
        let frames_in = counter("received_frames", "Frames received");
        let frames_out = counter("sent_frames", "Frames sent");
        let turns = counter("turns", "Turns of the event loop");
        let signatures_checked = counter("signatures_checked", "Signatures checked");
        let replies_unroutable = counter("unroutable_replies", "Replies whose connection was gone");
        let log_bytes = counter("log_bytes", "Bytes of records written into the log");
        let log_records = counter("log_records", "Records written into the log");
        let snapshots = counter("snapshots", "Snapshots written");
        let donated_bytes = counter("donated_bytes", "Bytes given to replicas that missed something");
        let donated_chunks = counter("donated_chunks", "Chunks of snapshots given to other replicas");
        let donations_refused =
            counter("donations_refused", "Questions of other replicas that got nothing, or found no room");
        let transfers = counter("transfers", "Snapshots taken over from other replicas");
        let repairs = counter("repairs", "Damaged snapshots that were put right from other replicas");
        let transferred_chunks = counter("transferred_chunks", "Chunks of snapshots taken over");
        let divergences = counter("divergences", "Times that the state was not the signed one");
        let leader_changes = counter("leader_changes", "Changes of the leader seen");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let client_connections = gauge("client_connections", "Open connections of clients");
        let peer_connections = gauge("peer_connections", "Open connections to other replicas");
        let decided = gauge("decided_instance", "The decided prefix");
        let executed = gauge("executed_instance", "The executed prefix");
        let certified = gauge("certified_instance", "The highest chain certificate");
        let pending_requests = gauge("pending_requests", "Requests that wait to be ordered");
        let sessions = gauge("sessions", "Open sessions");
        let retained_bytes = gauge("retained_bytes", "Bytes of decided batches kept for stragglers");
        let held_messages = gauge("held_messages", "Messages that wait for the log");
        let snapshot_bytes = gauge("snapshot_bytes", "Bytes of the newest snapshot");
        let stable_checkpoint = gauge("stable_checkpoint_instance", "The highest stable checkpoint");
        let regency = gauge("regency", "The installed regency");
        let wanted_regency = gauge("wanted_regency", "The highest regency that this replica asked for");
        let timeout_doublings = gauge("timeout_doublings", "How often the timeout has doubled");
        let announced_requests = gauge("announced_requests", "Requests that some replicas announce or lack");
        let donor_share = gauge("donor_share_thousandths", "The part of the rate that may be given");
        let transfer_target = gauge("transfer_target_instance", "The instance that a transfer leads to");
        let transfer_done =
            gauge("transfer_done", "Bytes of a snapshot, or instances of the log, that are here");
        let transfer_total = gauge("transfer_total", "Bytes of the whole snapshot, or instances of the log");
        let ready = gauge("ready", "1 while the replica takes part");
        let disk_full = gauge("disk_full", "1 while the disk has too little room to go on");
        let damaged_parts = gauge("damaged_parts", "Damaged parts that lie on the disk");
        let transfer_donors = gauge("transfer_donors", "Replicas that give to a transfer");
        donor_share.set(1000);
        let resident_bytes = gauge("resident_bytes", "Resident bytes of the process");
        let transfer_rate = Gauge::default();
        let help = "Bytes of a snapshot, or instances of the log, that came in a second of late";
        registry.register("transfer_rate", help, transfer_rate.clone());
        let transfer_seconds_left = Gauge::default();
        transfer_seconds_left.set(f64::NAN);
        let help = "Seconds until a transfer has all, at its rate; NaN while none can be told";
        registry.register("transfer_seconds_left", help, transfer_seconds_left.clone());
        let family = Family::<PhaseLabel, Gauge>::default();
        registry.register("transfer_phase", "1 for what a transfer does just now", family.clone());
        let transfer_phases = TransferPhase::ALL.map(TransferPhase::label);
        let transfer_phases =
            transfer_phases.map(|phase| (phase, family.get_or_create_owned(&PhaseLabel { phase }))).into();
        let cpu_seconds = Gauge::default();
        let round_seconds = Gauge::default();
        registry.register("round_seconds", "What rounds of votes take, on bad days", round_seconds.clone());
        registry.register("cpu_seconds", "CPU time of the process", cpu_seconds.clone());
        Self {
            registry: all,
            reasons,
            faults,
            refusals,
            phases,
            operations,
            batches,
            batch_operations,
            bytes_in,
            bytes_out,
            bulk_bytes_in,
            bulk_bytes_out,
            frames_in,
            frames_out,
            turns,
            signatures_checked,
            replies_unroutable,
            client_connections,
            peer_connections,
            decided,
            executed,
            certified,
            pending_requests,
            sessions,
            retained_bytes,
            log_bytes,
            log_records,
            log_commit_seconds,
            held_messages,
            snapshots,
            snapshot_freeze_seconds,
            snapshot_write_seconds,
            snapshot_bytes,
            stable_checkpoint,
            donated_bytes,
            donated_chunks,
            donations_refused,
            donor_share,
            transfers,
            repairs,
            transferred_chunks,
            transfer_target,
            transfer_done,
            transfer_total,
            transfer_donors,
            transfer_rate,
            transfer_seconds_left,
            transfer_phases,
            divergences,
            ready,
            disk_full,
            damaged_parts,
            regency,
            wanted_regency,
            timeout_doublings,
            announced_requests,
            leader_changes,
            round_seconds,
            resident_bytes,
            cpu_seconds,
        }
    }

    /// Counts a broken rule that the core reported.
    pub fn count_reason(&self, reason: Reason) {
        count(&self.reasons, Reason::ALL.iter().position(|known| *known == reason));
    }

    /// Counts a fault that the shell found.
    pub fn count_fault(&self, fault: Fault) {
        count(&self.faults, Fault::ALL.iter().position(|known| *known == fault));
    }

    /// Counts a refused handshake.
    pub fn count_refusal(&self, code: RefusalCode) {
        count(&self.refusals, RefusalCode::ALL.iter().position(|known| *known == code));
    }

    /// Notes how long an instance spent in a phase.
    pub fn observe_phase(&self, phase: Phase, time: Duration) {
        let series = Phase::ALL.iter().position(|known| *known == phase);
        if let Some(histogram) = series.and_then(|index| self.phases.get(index)) {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// Notes a commit of the log.
    pub fn observe_commit(&self, bytes: usize, records: usize, time: Duration) {
        self.log_bytes.inc_by(bytes as u64);
        self.log_records.inc_by(records as u64);
        self.log_commit_seconds.observe(time.as_secs_f64());
    }

    /// Notes a snapshot that was written.
    pub fn observe_snapshot(&self, bytes: u64, time: Duration) {
        self.snapshots.inc();
        self.snapshot_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.snapshot_write_seconds.observe(time.as_secs_f64());
    }

    /// How often a fault was counted.
    #[must_use]
    pub fn fault_count(&self, fault: Fault) -> u64 {
        let index = Fault::ALL.iter().position(|known| *known == fault);
        index.and_then(|index| self.faults.get(index)).map_or(0, Counter::get)
    }

    /// How often handshakes were refused with this code.
    #[must_use]
    pub fn refusal_count(&self, code: RefusalCode) -> u64 {
        let index = RefusalCode::ALL.iter().position(|known| *known == code);
        index.and_then(|index| self.refusals.get(index)).map_or(0, Counter::get)
    }

    /// How often the core reported a broken rule.
    #[must_use]
    pub fn reason_count(&self, reason: Reason) -> u64 {
        let index = Reason::ALL.iter().position(|known| *known == reason);
        index.and_then(|index| self.reasons.get(index)).map_or(0, Counter::get)
    }

    /// All series in the text format of OpenMetrics.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

fn series(family: &Family<ReasonLabel, Counter>, labels: impl Iterator<Item = &'static str>) -> Vec<Counter> {
    labels.map(|reason| family.get_or_create_owned(&ReasonLabel { reason })).collect()
}

fn count(series: &[Counter], index: Option<usize>) {
    if let Some(counter) = index.and_then(|index| series.get(index)) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_series_from_the_start() {
        let metrics = Metrics::new(ReplicaId(3));
        let text = metrics.to_text();
        for label in
            Reason::ALL.iter().map(|reason| reason.label()).chain(Fault::ALL.iter().map(|f| f.label()))
        {
            assert!(text.contains(&format!("reason=\"{label}\"")), "{label}");
        }
        assert!(text.contains("regency_operations_total{replica=\"3\"} 0"), "{text}");
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new(ReplicaId(0));
        metrics.count_reason(Reason::SecondVote);
        metrics.count_fault(Fault::FrameTooLong);
        metrics.count_fault(Fault::FrameTooLong);
        metrics.observe_phase(Phase::Write, Duration::from_millis(3));
        assert_eq!(metrics.fault_count(Fault::FrameTooLong), 2);
        assert_eq!(metrics.reason_count(Reason::SecondVote), 1);
        assert!(
            metrics.to_text().contains("regency_phase_seconds_count{phase=\"write\",replica=\"0\"} 1")
                || metrics.to_text().contains("regency_phase_seconds_count{replica=\"0\",phase=\"write\"} 1")
        );
    }
}
