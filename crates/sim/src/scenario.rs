//! What a schedule attacks.

/// A family of schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Nothing goes wrong.
    Calm,
    /// Frames are lost, late, out of order, repeated, and old ones come again.
    Lossy,
    /// Links fail: both ways, one way, on and off.
    Partitions,
    /// Replicas stand still and go on.
    Pauses,
    /// Up to `f` followers crash; some start again without their votes.
    Crashes,
    /// The leader crashes: safety only, until there is leader change.
    LeaderCrash,
    /// The leader proposes different batches to different replicas, and `f` colluding voters vote for all.
    Equivocation,
    /// Up to `f` followers lie in every message they send; the correct leader goes on.
    Liars,
    /// The leader and its accomplices follow the protocol, but alter what they send.
    LyingLeader,
    /// Two copies of one replica's core run under one key, each in touch with some of the others.
    Twins,
    /// Leaders lose their channels one after the other: several regencies in a second.
    Depositions,
    /// The same, with liars that lead some of those regencies, or lie in what they state about their votes.
    Usurpers,
    /// More than `f` liars: nothing is promised, but nobody panics, and memory stays bounded.
    BeyondFaults,
    /// Clients break every rule there is for clients.
    RogueClients,
    /// Tiny windows, intervals and limits.
    Edges,
    /// Crash faults only, in a crash-only cluster.
    CrashOnly,
    /// Everything at once, most often with liars, who may lead.
    Mixed,
    /// Ten times as many calls under small limits, with every benign fault and most often `f` liars; no seed chooses it by
    /// itself.
    Long,
    /// Whole rounds of messages reach some replicas only, and one replica lies in every round.
    Rounds,
    /// The same without a liar, in a crash-only cluster.
    CrashRounds,
    /// Large frames take longer than the first timeouts, for good.
    SlowNetwork,
    /// Locks are older than clocks may differ before anybody can propose them again.
    OldLocks,
    /// One replica asks for other leaders all the time.
    StopStorm,
    /// The first leader proposes empty batches, and no request.
    Censor,
    /// A client sends good requests to the leader only, or to a few: one change of leader may be the price.
    HalfHeard,
    /// One replica has a lock, the others wrote for it and have since written something else, and the liar is silent.
    Overwritten,
    /// Replicas end in the middle of what they do and come back with what their disks have, round after round.
    DurableCrash,
    /// All end at once, and come back one after the other.
    WholeCluster,
    /// Disks are slow, fail, fill up, rot, or are exchanged for an older copy.
    DiskFaults,
    /// Replicas are away for longer than others keep in memory what they miss, or lose their disks; liars give.
    Transfer,
    /// More replicas than `f` lose their disks: nothing is promised but that what was decided stays.
    Forgotten,
}

impl Scenario {
    /// Every scenario there is.
    pub const ALL: &'static [Self] = &[
        Self::Calm,
        Self::Lossy,
        Self::Partitions,
        Self::Pauses,
        Self::Crashes,
        Self::LeaderCrash,
        Self::Equivocation,
        Self::Liars,
        Self::LyingLeader,
        Self::Twins,
        Self::Depositions,
        Self::Usurpers,
        Self::BeyondFaults,
        Self::RogueClients,
        Self::Edges,
        Self::CrashOnly,
        Self::Mixed,
        Self::Long,
        Self::Rounds,
        Self::CrashRounds,
        Self::SlowNetwork,
        Self::OldLocks,
        Self::StopStorm,
        Self::Censor,
        Self::HalfHeard,
        Self::Overwritten,
        Self::DurableCrash,
        Self::WholeCluster,
        Self::DiskFaults,
        Self::Transfer,
        Self::Forgotten,
    ];

    /// What seeds choose for themselves, of a thousand: three in four have liars.
    pub(crate) const SHARES: &'static [(Self, u64)] = &[
        (Self::Calm, 10),
        (Self::Lossy, 15),
        (Self::Partitions, 20),
        (Self::Pauses, 15),
        (Self::Crashes, 20),
        (Self::LeaderCrash, 20),
        (Self::Depositions, 20),
        (Self::RogueClients, 20),
        (Self::Edges, 10),
        (Self::CrashOnly, 20),
        (Self::DurableCrash, 10),
        (Self::WholeCluster, 5),
        (Self::DiskFaults, 5),
        (Self::CrashRounds, 5),
        (Self::OldLocks, 4),
        (Self::HalfHeard, 6),
        (Self::Equivocation, 95),
        (Self::Liars, 105),
        (Self::LyingLeader, 105),
        (Self::Twins, 95),
        (Self::Usurpers, 130),
        (Self::BeyondFaults, 35),
        (Self::Mixed, 180),
        (Self::Rounds, 18),
        (Self::Overwritten, 6),
        (Self::StopStorm, 6),
        (Self::Censor, 6),
        (Self::SlowNetwork, 4),
        (Self::Transfer, 8),
        (Self::Forgotten, 2),
    ];

    /// The scenario at this place of a thousand.
    pub(crate) fn at(place: u64) -> Self {
        let mut end = 0;
        let is_there = |(_, share): &&(Self, u64)| {
            end += share;
            place < end
        };
        Self::SHARES.iter().find(is_there).map_or(Self::Mixed, |(scenario, _)| *scenario)
    }

    /// Those that are about disks.
    pub(crate) const OF_DISKS: &'static [Self] = &[Self::DurableCrash, Self::WholeCluster, Self::DiskFaults];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Lossy => "lossy",
            Self::Partitions => "partitions",
            Self::Pauses => "pauses",
            Self::Crashes => "crashes",
            Self::LeaderCrash => "leader-crash",
            Self::Equivocation => "equivocation",
            Self::Liars => "liars",
            Self::LyingLeader => "lying-leader",
            Self::Twins => "twins",
            Self::Depositions => "depositions",
            Self::Usurpers => "usurpers",
            Self::BeyondFaults => "beyond-f",
            Self::RogueClients => "rogue-clients",
            Self::Edges => "edges",
            Self::CrashOnly => "crash-only",
            Self::Mixed => "mixed",
            Self::Long => "long",
            Self::Rounds => "rounds",
            Self::CrashRounds => "crash-rounds",
            Self::SlowNetwork => "slow-network",
            Self::OldLocks => "old-locks",
            Self::StopStorm => "stop-storm",
            Self::Censor => "censor",
            Self::HalfHeard => "half-heard",
            Self::Overwritten => "overwritten",
            Self::DurableCrash => "durable-crash",
            Self::WholeCluster => "whole-cluster",
            Self::DiskFaults => "disk-faults",
            Self::Transfer => "transfer",
            Self::Forgotten => "forgotten",
        }
    }

    /// The scenario of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_long_schedules_are_never_chosen() {
        let total: u64 = Scenario::SHARES.iter().map(|(_, share)| share).sum();
        assert_eq!(total, 1000);
        let chosen: BTreeSet<Scenario> = (0..1000).map(Scenario::at).collect();
        let never: Vec<_> = Scenario::ALL.iter().filter(|one| !chosen.contains(one)).collect();
        assert_eq!(never, [&Scenario::Long]);
    }

    #[test]
    fn names_are_unique_and_found_again() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::from_name(scenario.name()), Some(*scenario));
        }
        assert_eq!(Scenario::from_name("nothing"), None);
    }
}
