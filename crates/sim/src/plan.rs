//! A schedule before it runs: everything that the seed decides in advance.

pub(crate) mod cluster;
mod directed;
mod disk;
mod faults;
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

const MILLI: Moment = 1_000;
const SECOND: Moment = 1_000_000;

/// Of 100 seeds that choose for themselves, so many are about state transfer: they take longer than others.
const TRANSFER_SHARE: u64 = 1;

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
        let chosen = stream.pick(Scenario::SHORT);
        // From a stream of its own: the other seeds keep what they had planned before there was state transfer.
        let is_of_transfer = Stream::new(seed, "is transfer").percent(TRANSFER_SHARE);
        let chosen = if is_of_transfer { Scenario::Transfer } else { chosen };
        let scenario = scenario.unwrap_or(chosen);
        (scenario, Self::of(seed, scenario, &mut stream))
    }

    fn of(seed: u64, scenario: Scenario, stream: &mut Stream) -> Self {
        if scenario == Scenario::Transfer {
            return transfer::plan(seed, stream);
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
        let (strategy, byzantine) = conspiracy(scenario, &view, leader, stream);
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
            vices: vices(seed, scenario, strategy),
            clients: cluster::clients(scenario, heal_at, &settings, stream),
            rogue_acts: if allowed.rogue { 15 } else { 0 },
            is_half_heard: false,
            sessions_stay: false,
            regency_max: None,
            disk: Disk::new(scenario, &mut Stream::new(seed, "disks")),
            choices: Choices::default(),
            view,
            settings,
        };
        plan.add_disk_faults(scenario);
        if allowed.deposed {
            let mut stream = Stream::new(seed, "depositions");
            let mut faults = Faults::new(&plan.view, leader, heal_at, &mut stream);
            faults.depositions(&plan.view);
            plan.faults.extend(faults.sorted());
            plan.faults.sort_by_key(|(at, _)| *at);
        }
        if allowed.partitions {
            // From a stream of its own: seeds planned before this was thought of keep their other faults.
            let mut stream = Stream::new(seed, "client partitions");
            let mut faults = Faults::new(&plan.view, leader, heal_at, &mut stream);
            faults.client_partitions(plan.clients.len());
            plan.faults.extend(faults.sorted());
            plan.faults.sort_by_key(|(at, _)| *at);
        }
        plan
    }

    /// What goes wrong because there are disks, from a stream of its own.
    fn add_disk_faults(&mut self, scenario: Scenario) {
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
            stream: &mut stream,
            list: Vec::new(),
        };
        self.faults.extend(disk::crashes(scenario, &mut crashes, &lost));
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

/// `f` replicas, among them the leader of one of the first regencies.
fn usurpers(view: &View, stream: &mut Stream) -> BTreeSet<ReplicaId> {
    let f = view.faults();
    let mut owned: BTreeSet<ReplicaId> =
        std::iter::once(view.leader_of(Regency(stream.pick(&[0, 1, 1, 2])))).collect();
    let mut members: Vec<ReplicaId> = view.members().iter().map(|member| member.id).collect();
    stream.shuffle(&mut members);
    while owned.len() < f {
        owned.extend(members.pop());
    }
    owned
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
            | Scenario::Transfer => Self::default(),
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

/// In which ways the owned replicas are bad.
fn vices(seed: u64, scenario: Scenario, strategy: Strategy) -> BTreeSet<Vice> {
    let mut stream = Stream::new(seed, "vices");
    match strategy {
        Strategy::None | Strategy::Twins | Strategy::Rounds | Strategy::StopStorm | Strategy::Censor => {
            BTreeSet::new()
        }
        Strategy::Equivocate => BTreeSet::from([Vice::Equivocate]),
        Strategy::Distort => {
            let of_change = matches!(scenario, Scenario::Usurpers | Scenario::BeyondFaults);
            if !of_change && stream.percent(40) {
                return BTreeSet::from([Vice::Alter]);
            }
            Vice::choose(of_change, &mut stream)
        }
    }
}

/// Who is owned by the adversary, and what it makes of them.
fn conspiracy(
    scenario: Scenario,
    view: &View,
    leader: ReplicaId,
    stream: &mut Stream,
) -> (Strategy, BTreeSet<ReplicaId>) {
    let mut followers: Vec<ReplicaId> =
        view.members().iter().map(|member| member.id).filter(|id| *id != leader).collect();
    stream.shuffle(&mut followers);
    let f = view.faults();
    let led = |mut followers: Vec<ReplicaId>| {
        followers.truncate(f.saturating_sub(1));
        followers.push(leader);
        followers.truncate(f);
        followers.into_iter().collect()
    };
    match scenario {
        Scenario::Equivocation => (Strategy::Equivocate, led(followers)),
        Scenario::LyingLeader => (Strategy::Distort, led(followers)),
        Scenario::Twins => (Strategy::Twins, led(followers)),
        Scenario::Liars => (Strategy::Distort, followers.into_iter().take(f).collect()),
        Scenario::BeyondFaults => {
            let most = (view.n() - 1) as u64;
            let owned = usize::try_from(stream.between(f as u64 + 1, most)).unwrap_or(1);
            let mut members = followers;
            members.push(leader);
            stream.shuffle(&mut members);
            let strategy = stream.pick(&[Strategy::Equivocate, Strategy::Distort, Strategy::Distort]);
            (strategy, members.into_iter().take(owned).collect())
        }
        Scenario::Usurpers => (Strategy::Distort, usurpers(view, stream)),
        Scenario::Mixed if stream.percent(60) => {
            let owned = stream.between(1, f as u64);
            (Strategy::Distort, followers.into_iter().take(usize::try_from(owned).unwrap_or(1)).collect())
        }
        Scenario::Calm
        | Scenario::Lossy
        | Scenario::Partitions
        | Scenario::Pauses
        | Scenario::Crashes
        | Scenario::LeaderCrash
        | Scenario::Depositions
        | Scenario::RogueClients
        | Scenario::Edges
        | Scenario::CrashOnly
        | Scenario::Mixed
        | Scenario::Long
        | Scenario::Rounds
        | Scenario::CrashRounds
        | Scenario::SlowNetwork
        | Scenario::OldLocks
        | Scenario::StopStorm
        | Scenario::Censor
        | Scenario::HalfHeard
        | Scenario::Overwritten
        | Scenario::DurableCrash
        | Scenario::WholeCluster
        | Scenario::DiskFaults
        | Scenario::Transfer => (Strategy::None, BTreeSet::new()),
    }
}
