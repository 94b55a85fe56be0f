//! A schedule before it runs: everything that the seed decides in advance.

pub(crate) mod cluster;
mod directed;
mod disk;
mod faults;
mod forgotten;
mod liars;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regency_protocol::digest;
use regency_protocol::ids::{ClientId, Regency, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::record::Durability;
use regency_protocol::view::{Mode, View};

use crate::adversary::Vice;
use crate::agenda::Moment;
use crate::network::{Place, Weather};
use crate::random::Stream;
use crate::rounds::Rounds;
use crate::scenario::Scenario;
use crate::shrink::choices::Choices;
use crate::signatures::Keyring;

pub(crate) use disk::Disk;
use faults::Faults;
use liars::Company;

pub(crate) const MILLI: Moment = 1_000;
const SECOND: Moment = 1_000_000;

/// Honest clients, at most; the next key is the dishonest one's.
pub(crate) const CLIENTS_MAX: usize = 4;

/// A schedule before it runs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The seed that made it.
    pub(crate) seed: u64,
    /// The membership.
    pub(crate) view: Arc<View>,
    /// What is equal at all replicas.
    pub(crate) settings: Arc<Settings>,
    /// How many instances a leader keeps in flight with whatever is there.
    pub(crate) eager_instances: u64,
    /// By how much each replica's clock is ahead.
    pub(crate) clock_offsets: BTreeMap<ReplicaId, Moment>,
    /// How the network treats frames until it heals.
    pub(crate) weather: Weather,
    /// And how from then on.
    pub(crate) healed: Weather,
    /// Which rounds fail on which links until then.
    pub(crate) rounds: Option<Rounds>,
    /// What goes wrong when.
    pub(crate) faults: Vec<(Moment, Fault)>,
    /// From when on nothing goes wrong any more.
    pub(crate) heal_at: Moment,
    /// Who is not what it seems.
    pub(crate) byzantine: BTreeSet<ReplicaId>,
    /// What those do.
    pub(crate) strategy: Strategy,
    /// Whether frames from and to them take no time.
    pub(crate) is_rushing: bool,
    /// In which ways they are bad.
    pub(crate) vices: BTreeSet<Vice>,
    /// The honest clients.
    pub(crate) clients: Vec<ClientPlan>,
    /// How often a dishonest client does something.
    pub(crate) rogue_acts: usize,
    /// Whether all that it does is to send good requests to the leader, or to a few.
    pub(crate) is_half_heard: bool,
    /// Whether no session of an honest client may end.
    pub(crate) sessions_stay: bool,
    /// The highest regency that this schedule may come to.
    pub(crate) regency_max: Option<u64>,
    /// What replicas keep when they end.
    pub(crate) disk: Disk,
    /// Who has the last word on what goes wrong.
    pub(crate) choices: Choices,
}

/// Something goes wrong, or well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One direction of a link is cut.
    Cut(Place, Place),
    /// It works again.
    Join(Place, Place),
    /// The channel between two replicas breaks and comes back at once.
    Reset(ReplicaId, ReplicaId),
    /// Two replicas lose each other, and notice.
    Sever(ReplicaId, ReplicaId),
    /// They find each other again.
    Mend(ReplicaId, ReplicaId),
    /// A replica stands still.
    Pause(ReplicaId),
    /// It goes on.
    Resume(ReplicaId),
    /// A replica ends, and with it everything that is not on its disk.
    Crash(ReplicaId),
    /// The same after so many more effects, in the middle of what one event brings about.
    CrashAfter(ReplicaId, u64),
    /// A replica ends, and with it what its machine has not made durable.
    PowerCut(ReplicaId),
    /// It starts again, with what its disk has; without its votes if it has none.
    Restart(ReplicaId),
    /// The next write of a replica's disk fails.
    DiskFails(ReplicaId),
    /// There is no room on it.
    DiskFull(ReplicaId),
    /// There is again.
    DiskRoom(ReplicaId),
    /// A replica ends, and a bit on its disk turns.
    Rot(ReplicaId),
    /// The next write of a replica's disk is reported as done, and never is.
    WriteLost(ReplicaId),
    /// It is done, but elsewhere in the file.
    WriteMisdirected(ReplicaId),
    /// A running replica reads its disk and finds damage.
    FindDamage(ReplicaId),
    /// A copy of its disk is made.
    CopyDisk(ReplicaId),
    /// A replica ends, and its disk is exchanged for the copy.
    RollBack(ReplicaId),
    /// A replica ends, and its disk is exchanged for an empty one.
    Wipe(ReplicaId),
}

impl Fault {
    /// The replica that it ends.
    pub(crate) fn ended(&self) -> Option<ReplicaId> {
        match self {
            Self::Crash(replica)
            | Self::CrashAfter(replica, _)
            | Self::PowerCut(replica)
            | Self::DiskFails(replica)
            | Self::Rot(replica)
            | Self::RollBack(replica)
            | Self::Wipe(replica) => Some(*replica),
            Self::Cut(..)
            | Self::Join(..)
            | Self::Reset(..)
            | Self::Sever(..)
            | Self::Mend(..)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Restart(_)
            | Self::DiskFull(_)
            | Self::DiskRoom(_)
            | Self::WriteLost(_)
            | Self::WriteMisdirected(_)
            | Self::FindDamage(_)
            | Self::CopyDisk(_) => None,
        }
    }
}

/// What the owned replicas do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// There are none.
    None,
    /// The leader proposes two batches for each instance, and all vote for both.
    Equivocate,
    /// Each follows the protocol, but alters what it sends.
    Distort,
    /// Each runs twice.
    Twins,
    /// One lies in every round of the protocol.
    Rounds,
    /// One asks for other leaders all the time.
    StopStorm,
    /// The leader proposes empty batches only.
    Censor,
}

/// One honest client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPlan {
    /// How many calls it makes.
    pub(crate) calls: usize,
    /// How many of them at once.
    pub(crate) in_flight: usize,
    /// The longest pause between a call's end and the next one's begin.
    pub(crate) pause_max: Moment,
    /// How long it waits for each.
    pub(crate) patience: Moment,
    /// How large it wants results to be.
    pub(crate) result_bytes: u16,
}

/// What a scenario allows to happen.
#[derive(Clone, Copy, Default)]
struct Allowed {
    lossy: bool,
    partitions: bool,
    pauses: bool,
    crashes: bool,
    leader_crash: bool,
    edges: bool,
    rogue: bool,
    /// Leaders lose everybody, one after the other.
    deposed: bool,
}

impl Plan {
    /// What `seed` plans for `scenario`, or for one of its own choice.
    pub(crate) fn new(seed: u64, scenario: Option<Scenario>) -> (Scenario, Self) {
        let mut stream = Stream::new(seed, "plan");
        // The scenario was once the first that this stream decided; without that number every known seed would mean
        // another schedule.
        stream.number();
        let scenario =
            scenario.unwrap_or_else(|| Scenario::at(Stream::new(seed, "which scenario").below(1000)));
        (scenario, Self::of(seed, scenario, &mut stream))
    }

    fn of(seed: u64, scenario: Scenario, stream: &mut Stream) -> Self {
        match scenario {
            Scenario::Transfer => return transfer::plan(seed, stream),
            Scenario::Forgotten => return forgotten::plan(seed, stream),
            _ => {}
        }
        if let Some(plan) = directed::plan(seed, scenario, stream) {
            return plan;
        }
        let allowed = Allowed::new(scenario, stream);
        let is_of_disks = Scenario::OF_DISKS.contains(&scenario);
        let is_crash_only =
            scenario == Scenario::CrashOnly || (is_of_disks && Stream::new(seed, "mode").percent(20));
        let mode = if is_crash_only { Mode::Cft } else { Mode::Bft };
        let view = Arc::new(cluster::view(seed, mode, stream));
        let settings = Arc::new(cluster::settings(allowed.edges, allowed.deposed, stream));
        let leader = view.leader_of(Regency(0));
        let (strategy, byzantine) = liars::conspiracy(seed, scenario, &view, leader, stream);
        let company = Company::new(seed, scenario, &byzantine);
        let heal_at = if scenario == Scenario::Calm { 0 } else { stream.between(200 * MILLI, 2 * SECOND) };
        let mut faults = Faults::new(&view, leader, heal_at, stream);
        if allowed.partitions {
            faults.partitions();
        }
        if allowed.pauses {
            faults.pauses();
        }
        if allowed.crashes || allowed.leader_crash {
            faults.crashes(&byzantine, allowed.leader_crash);
        }
        let faults = faults.sorted();
        let mut plan = Self {
            seed,
            eager_instances: stream.between(1, settings.window),
            clock_offsets: view.members().iter().map(|member| (member.id, stream.below(SECOND))).collect(),
            weather: cluster::weather(allowed.lossy, stream),
            healed: Weather::FAIR,
            rounds: (scenario == Scenario::DurableCrash && Stream::new(seed, "which rounds").percent(50))
                .then(|| Rounds::new(seed, &mut Stream::new(seed, "rounds"))),
            faults,
            heal_at,
            byzantine,
            strategy,
            is_rushing: strategy != Strategy::None && Stream::new(seed, "rushing").percent(40),
            vices: liars::vices(seed, scenario, strategy),
            clients: cluster::clients(scenario, heal_at, &settings, stream),
            rogue_acts: if allowed.rogue || company.rogue { 15 } else { 0 },
            is_half_heard: false,
            sessions_stay: false,
            // [STOP-1] Whoever has nothing against its leader keeps it.
            regency_max: (scenario == Scenario::Calm).then_some(0),
            disk: Disk::new(scenario, &mut Stream::new(seed, "disks")),
            choices: Choices::default(),
            view,
            settings,
        };
        if company.restarts && !plan.disk.is_kept() {
            // Who starts again without its votes would be one faulty replica too many.
            plan.disk = Disk::sync(&mut Stream::new(seed, "disks of liars' company"));
        }
        plan.add_disk_faults(scenario, company.restarts);
        // Each from a stream of its own: seeds without one of these keep their other faults.
        if allowed.deposed {
            plan.add_faults("depositions", |plan, faults| faults.depositions(&plan.view));
        }
        if allowed.partitions {
            plan.add_faults("client partitions", |plan, faults| faults.client_partitions(plan.clients.len()));
        }
        if company.partitions {
            plan.add_faults("partitions among liars", |_, faults| faults.partitions());
        }
        if company.pauses {
            plan.add_faults("pauses among liars", |_, faults| faults.pauses());
        }
        plan
    }

    /// Adds what `gather` gathers from the stream of this name.
    fn add_faults(&mut self, name: &str, gather: impl FnOnce(&Self, &mut Faults<'_>)) {
        let mut stream = Stream::new(self.seed, name);
        let mut faults = Faults::new(&self.view, self.leader(), self.heal_at, &mut stream);
        gather(self, &mut faults);
        let faults = faults.sorted();
        self.faults.extend(faults);
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// What goes wrong because there are disks, from a stream of its own.
    fn add_disk_faults(&mut self, scenario: Scenario, must_restart: bool) {
        if !self.disk.is_kept() {
            return;
        }
        let mut stream = Stream::new(self.seed, "disk faults");
        disk::checkpoints(scenario, Arc::make_mut(&mut self.settings), &mut stream);
        let mut lost = BTreeSet::new();
        for (_, fault) in &mut self.faults {
            // Of those that may crash in any case: without a sync they lose what they knew.
            if let (Durability::Async, Fault::Crash(replica)) = (self.disk.durability, *fault) {
                *fault = Fault::PowerCut(replica);
                lost.insert(replica);
            }
        }
        let ids = self.view.members().iter().map(|member| member.id);
        let faulty_max = self.view.faults().saturating_sub(self.byzantine.len());
        let mut crashes = disk::Crashes {
            disk: self.disk,
            heal_at: self.heal_at,
            correct: ids.filter(|id| !self.byzantine.contains(id)).collect(),
            faulty_max,
            // A crash-only cluster tolerates a disk that forgets only if the replica knows.
            may_forget: self.view.mode() == Mode::Bft,
            must_restart,
            stream: &mut stream,
            list: Vec::new(),
        };
        self.faults.extend(disk::crashes(scenario, &mut crashes, &lost));
        let ids = self.view.members().iter().map(|member| member.id);
        let correct: Vec<ReplicaId> = ids.filter(|id| !self.byzantine.contains(id)).collect();
        self.faults.extend(disk::damage(&correct, self.heal_at, &mut Stream::new(self.seed, "damage")));
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// The replica that leads as long as there is no leader change.
    pub(crate) fn leader(&self) -> ReplicaId {
        self.view.leader_of(Regency(0))
    }

    /// The client with this number; the one after the honest ones is the dishonest one.
    pub(crate) fn client_id(&self, number: usize) -> ClientId {
        let key = if number < self.clients.len() { number } else { CLIENTS_MAX };
        digest::client_id(&Keyring::client_key(key))
    }
}

impl Allowed {
    fn new(scenario: Scenario, stream: &mut Stream) -> Self {
        let base = Self { lossy: stream.percent(30), edges: stream.percent(20), ..Self::default() };
        match scenario {
            Scenario::Calm
            | Scenario::Rounds
            | Scenario::CrashRounds
            | Scenario::SlowNetwork
            | Scenario::OldLocks
            | Scenario::StopStorm
            | Scenario::Censor
            | Scenario::HalfHeard
            | Scenario::Overwritten
            | Scenario::Transfer
            | Scenario::Forgotten => Self::default(),
            Scenario::Lossy => Self { lossy: true, ..base },
            Scenario::Partitions => Self { partitions: true, ..base },
            Scenario::Pauses => Self { pauses: true, ..base },
            Scenario::Crashes => Self { crashes: true, ..base },
            Scenario::LeaderCrash => Self { leader_crash: true, ..base },
            Scenario::Equivocation | Scenario::LyingLeader | Scenario::Twins => {
                Self { rogue: stream.percent(30), ..base }
            }
            Scenario::Usurpers => {
                Self { deposed: true, rogue: stream.percent(10), edges: stream.percent(50), ..base }
            }
            Scenario::Depositions => {
                Self { deposed: true, crashes: stream.percent(40), pauses: stream.percent(20), ..base }
            }
            Scenario::BeyondFaults => Self { deposed: stream.percent(50), rogue: stream.percent(30), ..base },
            Scenario::Liars => Self {
                deposed: stream.percent(20),
                partitions: stream.percent(20),
                rogue: stream.percent(20),
                ..base
            },
            Scenario::RogueClients => Self { rogue: true, ..base },
            Scenario::Edges => Self { edges: true, ..base },
            Scenario::Long => {
                Self { lossy: true, partitions: true, pauses: true, crashes: true, edges: true, ..base }
            }
            Scenario::DurableCrash => {
                Self { deposed: stream.percent(40), partitions: stream.percent(30), ..base }
            }
            Scenario::WholeCluster => {
                Self { deposed: stream.percent(20), partitions: stream.percent(50), ..base }
            }
            Scenario::DiskFaults => Self { pauses: stream.percent(20), edges: true, ..base },
            Scenario::CrashOnly => Self { partitions: true, pauses: true, crashes: true, ..base },
            Scenario::Mixed => {
                Self { lossy: true, partitions: true, pauses: true, crashes: true, rogue: true, ..base }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the first `seeds` have liars, and how many of those as many as the cluster tolerates.
    fn liars(seeds: u64, scenario: Option<Scenario>) -> (usize, usize) {
        let plans: Vec<Plan> = (1..=seeds).map(|seed| Plan::new(seed, scenario).1).collect();
        let full = plans.iter().filter(|plan| plan.byzantine.len() == plan.view.faults());
        (plans.iter().filter(|plan| !plan.byzantine.is_empty()).count(), full.count())
    }

    #[test]
    fn three_schedules_in_four_have_liars() {
        let (some, full) = liars(2000, None);
        assert!(some >= 1500 && full >= 1200, "{some} {full}");
    }

    #[test]
    fn most_long_schedules_have_as_many_liars_as_are_tolerated() {
        let (some, full) = liars(500, Some(Scenario::Long));
        assert!((380..=420).contains(&some) && full == some, "{some} {full}");
    }
}
