//! What a running replica tells about itself: figures of the core, of the process, and whether it is ready.

use std::fs;
use std::time::{Duration, Instant};

use regency_protocol::replica::{ReplicaState, ReplicaStatus, TransferPhase};
use regency_protocol::view::View;
use serde::Serialize;

use super::Identity;
use super::progress::TransferReport;
use crate::failure::{ErrorCode, Failure};

/// Clock ticks per second in `/proc`: fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// The state of a replica that reads what it has, or misses what nobody keeps any more.
const RECOVERING: &str = "recovering";

/// Whether a replica takes part, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// Why not; nothing when it does.
    pub reason: Option<String>,
}

/// One row of `regency status --json`, with some more fields; `reachable` is added by whoever asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusReport {
    /// The cluster's identity.
    pub cluster: String,
    /// The replica.
    pub id: u16,
    /// Where it listens for replicas and clients.
    pub address: String,
    /// Where it answers about itself.
    pub admin: Option<String>,
    /// How it takes part: `normal`, `leader-change`, `transfer`, `state-lost`, `recovering`.
    pub state: &'static str,
    /// Its view.
    pub view: u64,
    /// Its regency.
    pub regency: u64,
    /// That regency's leader.
    pub leader: u16,
    /// The decided prefix.
    pub decided: u64,
    /// The last instance whose results are there.
    pub executed: u64,
    /// The chain at `executed`.
    pub chain: String,
    /// The instance of the last stable checkpoint; 0 while there are none.
    pub stable_checkpoint: u64,
    /// The instance of the highest chain certificate.
    pub certified: u64,
    /// Requests that wait to be ordered.
    pub pending_requests: u64,
    /// Open sessions.
    pub sessions: u64,
    /// The lowest decided instance that is kept for replicas that fell behind.
    pub retained_from: u64,
    /// Bytes of what is kept for them.
    pub retained_bytes: u64,
    /// Members to which there is a channel.
    pub peers_connected: u64,
    /// Connections of clients.
    pub clients_connected: u64,
    /// The service.
    pub service: String,
    /// The process.
    pub pid: u32,
    /// Its resident memory.
    pub resident_bytes: u64,
    /// Its CPU time.
    pub cpu_seconds: f64,
    /// For how long the replica has been running.
    pub uptime_seconds: f64,
    /// The transfer of what it misses; nothing while none runs.
    pub transfer: Option<TransferReport>,
    /// What was found damaged on its disk when that was read last; the first 16 things.
    pub damage: Vec<String>,
    /// Whether it takes part.
    pub readiness: Readiness,
}

impl StatusReport {
    /// What the core of a replica tells, and its process; `readiness` is the only word about what is around them.
    pub(super) fn new(
        identity: &Identity,
        view: &View,
        status: &ReplicaStatus,
        started: Instant,
        readiness: Readiness,
    ) -> Self {
        let figures = ProcessFigures::read();
        Self {
            cluster: view.cluster().to_string(),
            id: identity.id.0,
            address: identity.address.clone(),
            admin: identity.admin.clone(),
            state: state_name(status.state),
            view: status.view.0,
            regency: status.regency.0,
            leader: status.leader.0,
            decided: status.decided.0,
            executed: status.executed.0,
            chain: status.chain.to_string(),
            stable_checkpoint: status.stable_checkpoint.0,
            certified: status.certified.0,
            pending_requests: status.pending_requests as u64,
            sessions: status.sessions as u64,
            retained_from: status.retained_from.0,
            retained_bytes: status.retained_bytes as u64,
            peers_connected: 0,
            clients_connected: 0,
            service: identity.service.clone(),
            pid: std::process::id(),
            resident_bytes: figures.resident_bytes,
            cpu_seconds: figures.cpu.as_secs_f64(),
            uptime_seconds: started.elapsed().as_secs_f64(),
            transfer: None,
            damage: Vec::new(),
            readiness,
        }
    }

    /// That of a replica which reads its log, and has come to `status`.
    pub(super) fn reading(
        identity: &Identity,
        view: &View,
        status: &ReplicaStatus,
        started: Instant,
    ) -> Self {
        let reason = format!("recovering: it reads its log, and has come to instance {}", status.executed);
        let readiness = Readiness { ready: false, reason: Some(reason) };
        Self { state: RECOVERING, ..Self::new(identity, view, status, started, readiness) }
    }
}

/// What the report calls a state of the core.
fn state_name(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Normal => "normal",
        ReplicaState::LeaderChange => "leader-change",
        ReplicaState::StateLost => "state-lost",
        ReplicaState::Transfer => "transfer",
        ReplicaState::Behind => RECOVERING,
    }
}

/// Whether a replica in this state, with channels to so many others, takes part in what `view` is.
pub(super) fn readiness(status: &ReplicaStatus, view: &View) -> Readiness {
    let quorum = view.quorum();
    let reason = match status.state {
        ReplicaState::StateLost if status.amnesiacs > view.faults() => {
            Some(too_many_amnesiacs(status.amnesiacs, view).to_string())
        }
        ReplicaState::StateLost => Some(
            "state-lost: votes of an earlier life are lost, so it must not vote; it counts in f until what they can \
             have been for is past"
                .to_owned(),
        ),
        ReplicaState::Transfer => {
            let phase = status.transfer.map_or(TransferPhase::Waiting, |transfer| transfer.phase).label();
            Some(format!("transfer: it gets what it misses from the other replicas ({phase})"))
        }
        ReplicaState::Behind => {
            Some("behind: the other replicas do not keep any more what it misses".to_owned())
        }
        ReplicaState::LeaderChange => Some(format!(
            "leader change: regency {} of replica {} has not begun yet",
            status.regency, status.leader
        )),
        ReplicaState::Normal if status.connected_peers + 1 < quorum => Some(format!(
            "connected to {} other replicas, {} are needed for a quorum",
            status.connected_peers,
            quorum - 1
        )),
        ReplicaState::Normal => None,
    };
    Readiness { ready: reason.is_none(), reason }
}

/// So many replicas have lost their votes that nobody can tell any more what they were for [RECOVER-2].
fn too_many_amnesiacs(amnesiacs: usize, view: &View) -> Failure {
    Failure::new(
        ErrorCode::VotesLost,
        format!(
            "state-lost: {amnesiacs} of {} replicas have lost their votes, more than f = {}: no quorum is left that \
             knows what was decided",
            view.n(),
            view.faults()
        ),
        "bring disks back that were put aside, if there are any; else begin anew with `regency cluster DIR --fresh`, or \
         with `regency init --force` where the replicas are on several machines",
    )
}

/// Memory and CPU time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ProcessFigures {
    /// Resident memory.
    resident_bytes: u64,
    /// User and system time.
    cpu: Duration,
}

impl ProcessFigures {
    /// Of this process, now; zero where the system does not tell.
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self { resident_bytes: resident_of(&status).unwrap_or(0), cpu: cpu_of(&stat).unwrap_or_default() }
    }
}

/// `VmRSS` of `/proc/self/status`, which has it in KiB.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// `utime + stime` of `/proc/self/stat`: the 12th and 13th field after the name, which may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_process_are_read_from_the_kernels_text() {
        let stat = "17 (a) b c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 1 0 100";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(4)));
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(cpu_of("nonsense"), None);
        assert!(ProcessFigures::read().resident_bytes > 0);
    }
}
