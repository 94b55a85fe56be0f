//! Who is owned by the adversary, what it makes of them, and what befalls the correct ones meanwhile.

use std::collections::BTreeSet;

use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::view::View;

use super::Strategy;
use crate::adversary::Vice;
use crate::random::Stream;
use crate::scenario::Scenario;

/// Of 100 schedules in which everything happens at once, so many have liars.
const MIXED_SHARE: u64 = 90;
/// Of 100 long ones.
const LONG_SHARE: u64 = 80;
/// Of 100 schedules with a lying leader, in so many correct replicas stand still, links fail, and replicas start again:
/// each of the three by itself.
const COMPANY_SHARE: u64 = 25;
/// Of 100 schedules in which everything happens at once, in so many correct replicas start again for certain.
const RESTARTS_SHARE: u64 = 60;

/// What befalls correct replicas while `f` others lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Company {
    /// Some stand still.
    pub(super) pauses: bool,
    /// Links fail.
    pub(super) partitions: bool,
    /// Some end, and start again with what their disks have.
    pub(super) restarts: bool,
    /// A client breaks the rules for clients.
    pub(super) rogue: bool,
}

impl Company {
    pub(super) fn new(seed: u64, scenario: Scenario, owned: &BTreeSet<ReplicaId>) -> Self {
        // From a stream of its own: whoever has none keeps the rest of its schedule.
        let mut stream = Stream::new(seed, "company of liars");
        match scenario {
            Scenario::Equivocation
            | Scenario::LyingLeader
            | Scenario::Twins
            | Scenario::Usurpers
            | Scenario::Liars => Self {
                pauses: stream.percent(COMPANY_SHARE),
                partitions: stream.percent(COMPANY_SHARE),
                restarts: stream.percent(COMPANY_SHARE),
                rogue: false,
            },
            // These have pauses and partitions in any case.
            Scenario::Mixed | Scenario::Long => Self {
                restarts: !owned.is_empty() && stream.percent(RESTARTS_SHARE),
                rogue: scenario == Scenario::Long && stream.percent(COMPANY_SHARE),
                ..Self::default()
            },
            Scenario::Calm
            | Scenario::Lossy
            | Scenario::Partitions
            | Scenario::Pauses
            | Scenario::Crashes
            | Scenario::LeaderCrash
            | Scenario::Depositions
            | Scenario::BeyondFaults
            | Scenario::RogueClients
            | Scenario::Edges
            | Scenario::CrashOnly
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
            | Scenario::Transfer
            | Scenario::Forgotten => Self::default(),
        }
    }
}

/// Who is owned by the adversary, and what it makes of them.
pub(super) fn conspiracy(
    seed: u64,
    scenario: Scenario,
    view: &View,
    leader: ReplicaId,
    stream: &mut Stream,
) -> (Strategy, BTreeSet<ReplicaId>) {
    let mut followers: Vec<ReplicaId> =
        view.members().iter().map(|member| member.id).filter(|id| *id != leader).collect();
    stream.shuffle(&mut followers);
    let f = view.faults();
    let led = |followers: &[ReplicaId], count: usize| {
        let accomplices = followers.iter().copied().take(count.saturating_sub(1));
        accomplices.chain(std::iter::once(leader)).take(count).collect()
    };
    match scenario {
        Scenario::Equivocation => (Strategy::Equivocate, led(&followers, f)),
        Scenario::LyingLeader => (Strategy::Distort, led(&followers, f)),
        Scenario::Twins => (Strategy::Twins, led(&followers, f)),
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
        Scenario::Mixed | Scenario::Long => {
            // From a stream of its own: long schedules without liars stay what they are.
            let mut stream = Stream::new(seed, "liars among all");
            let is_long = scenario == Scenario::Long;
            if !stream.percent(if is_long { LONG_SHARE } else { MIXED_SHARE }) {
                return (Strategy::None, BTreeSet::new());
            }
            let count = if is_long || stream.percent(60) { f as u64 } else { stream.between(1, f as u64) };
            let count = usize::try_from(count).unwrap_or(1);
            if stream.percent(50) {
                let strategies =
                    [Strategy::Distort, Strategy::Distort, Strategy::Equivocate, Strategy::Twins];
                return (stream.pick(&strategies), led(&followers, count));
            }
            let strategy = stream.pick(&[Strategy::Distort, Strategy::Distort, Strategy::Twins]);
            (strategy, followers.into_iter().take(count).collect())
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
        | Scenario::Transfer
        | Scenario::Forgotten => (Strategy::None, BTreeSet::new()),
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

/// In which ways the owned replicas are bad.
pub(super) fn vices(seed: u64, scenario: Scenario, strategy: Strategy) -> BTreeSet<Vice> {
    let mut stream = Stream::new(seed, "vices");
    match strategy {
        Strategy::None | Strategy::Twins | Strategy::Rounds | Strategy::StopStorm | Strategy::Censor => {
            BTreeSet::new()
        }
        Strategy::Equivocate => BTreeSet::from([Vice::Equivocate]),
        Strategy::Distort => {
            let is_of_all = matches!(scenario, Scenario::Mixed | Scenario::Long);
            let of_change = matches!(scenario, Scenario::Usurpers | Scenario::BeyondFaults)
                || (is_of_all && stream.percent(50));
            if !of_change && stream.percent(40) {
                return BTreeSet::from([Vice::Alter]);
            }
            Vice::choose(of_change, &mut stream)
        }
    }
}
