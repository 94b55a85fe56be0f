//! The disks of a schedule: how durable the cluster is, how slow they are, and what goes wrong with them.

use std::collections::BTreeSet;

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::Settings;
use regency_protocol::record::Durability;

use super::{Fault, MILLI};
use crate::agenda::Moment;
use crate::random::Stream;
use crate::scenario::Scenario;

/// Within what time the power fails everywhere.
const SPREAD: Moment = MILLI / 2;

/// Of 100 schedules with disks, so many have some in which damage is found.
const DAMAGE_SHARE: u64 = 15;

/// The disks of all replicas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// What is on disk before anything leaves that rests on it.
    pub(crate) durability: Durability,
    /// Whether the log is a real one, in the files of a simulated disk.
    pub(crate) is_real: bool,
    /// What a commit takes at most.
    pub(crate) commit_max: Moment,
    /// How many commits of a thousand take much longer.
    pub(crate) stalls: u64,
    /// What a snapshot takes at most.
    pub(crate) snapshot_max: Moment,
}

impl Disk {
    /// No disk: a replica that ends has lost everything.
    pub(crate) const NONE: Self =
        Self { durability: Durability::None, is_real: false, commit_max: 0, stalls: 0, snapshot_max: 0 };

    /// The disks of a scenario.
    pub(super) fn new(scenario: Scenario, stream: &mut Stream) -> Self {
        if Scenario::OF_DISKS.contains(&scenario) {
            let disk = Self::sync(stream);
            let is_real = disk.is_real || (scenario == Scenario::DiskFaults && stream.percent(50));
            return Self { is_real, ..disk };
        }
        match stream.below(100) {
            0..50 => Self::sync(stream),
            50..60 => Self { durability: Durability::Async, ..Self::sync(stream) },
            _ => Self::NONE,
        }
    }

    /// Disks that are waited for.
    pub(super) fn sync(stream: &mut Stream) -> Self {
        Self {
            durability: Durability::Sync,
            is_real: stream.percent(20),
            commit_max: stream.pick(&[50, 200, 2 * MILLI, 20 * MILLI]),
            stalls: stream.pick(&[0, 0, 5, 50]),
            snapshot_max: stream.pick(&[MILLI, 20 * MILLI, 300 * MILLI]),
        }
    }

    /// Whether there is a log.
    pub(crate) fn is_kept(&self) -> bool {
        self.durability != Durability::None
    }
}

/// Lets checkpoints come often enough to be seen.
pub(super) fn checkpoints(scenario: Scenario, settings: &mut Settings, stream: &mut Stream) {
    settings.checkpoint_interval = if Scenario::OF_DISKS.contains(&scenario) {
        stream.pick(&[1, 1, 2, 3, 5, 10, 40])
    } else {
        stream.pick(&[1, 3, 5, 10, 10, 40, 20_000])
    };
    settings.checkpoint_bytes = stream.pick(&[400, 256 << 20, 256 << 20]);
}

/// Gathers what goes wrong with machines that keep what they know.
pub(super) struct Crashes<'a> {
    pub(super) disk: Disk,
    pub(super) heal_at: Moment,
    /// Those that may end, and come back as they were.
    pub(super) correct: Vec<ReplicaId>,
    /// How many of them may forget something, and count as faulty.
    pub(super) faulty_max: usize,
    /// Whether they may forget without knowing.
    pub(super) may_forget: bool,
    /// Whether some end and start again in any case.
    pub(super) must_restart: bool,
    pub(super) stream: &'a mut Stream,
    pub(super) list: Vec<(Moment, Fault)>,
}

impl Crashes<'_> {
    /// Some replicas end, once or more, between two events or in the middle of one; all start again.
    pub(super) fn single(&mut self) {
        for _ in 0..self.stream.between(1, 4) {
            let victim = self.stream.pick(&self.correct);
            let at = self.stream.below(self.heal_at);
            self.end(victim, at);
            let again = self.stream.between(at + MILLI, (at + 400 * MILLI).min(self.heal_at).max(at + MILLI));
            self.list.push((again, Fault::Restart(victim)));
        }
    }

    /// All end at once, and start again one after the other.
    pub(super) fn whole_cluster(&mut self) {
        for _ in 0..self.stream.between(1, 2) {
            let at = self.stream.below(self.heal_at);
            let until = (at + self.stream.pick(&[10, 50, 300]) * MILLI).min(self.heal_at).max(at + MILLI);
            for victim in self.correct.clone() {
                let at = at + self.stream.below(SPREAD);
                self.end(victim, at);
                let again = self.stream.between(at + MILLI, until.max(at + MILLI));
                self.list.push((again, Fault::Restart(victim)));
            }
        }
    }

    /// Disks fail, fill up, rot, or are exchanged for an older copy.
    pub(super) fn faults(&mut self) {
        for _ in 0..self.stream.between(1, 3) {
            let victim = self.stream.pick(&self.correct);
            let at = self.stream.below(self.heal_at);
            let later = self.stream.between(at + MILLI, self.heal_at.max(at + MILLI));
            if self.stream.percent(50) {
                self.list.push((at, Fault::DiskFails(victim)));
                // What was not told of that ends later, and must not have been believed.
                self.list.push((self.stream.between(at, later), Fault::Crash(victim)));
                self.list.push((later, Fault::Restart(victim)));
            } else {
                self.list.push((at, Fault::DiskFull(victim)));
                self.list.push((later, Fault::DiskRoom(victim)));
            }
        }
        let mut victims = self.correct.clone();
        self.stream.shuffle(&mut victims);
        victims.truncate(self.faulty_max);
        for victim in victims {
            let at = self.stream.below(self.heal_at);
            let later = self.stream.between(at + MILLI, self.heal_at.max(at + MILLI));
            if !self.may_forget && self.disk.is_real {
                continue;
            }
            if !self.may_forget || self.stream.percent(50) {
                self.harm(victim, at, later);
            } else {
                self.list.push((self.stream.below(at.max(1)), Fault::CopyDisk(victim)));
                self.list.push((at, Fault::RollBack(victim)));
            }
            self.list.push((later, Fault::Restart(victim)));
        }
    }

    /// A disk turns a bit, or loses or misplaces a write that it said was done. Which of them needs no number of the
    /// stream's: seeds keep what comes after.
    fn harm(&mut self, victim: ReplicaId, at: Moment, later: Moment) {
        let astray = match later % 4 {
            0 if self.disk.is_real => Fault::WriteLost(victim),
            1 if self.disk.is_real => Fault::WriteMisdirected(victim),
            _ => return self.list.push((at, Fault::Rot(victim))),
        };
        self.list.extend([(at / 2, astray), (at, Fault::Crash(victim))]);
    }

    fn end(&mut self, victim: ReplicaId, at: Moment) {
        if self.stream.percent(50) {
            let effects = self.stream.pick(&[0, 1, 2, 3, 5, 8, 20]);
            self.list.push((at, Fault::CrashAfter(victim, effects)));
        } else {
            self.list.push((at, Fault::Crash(victim)));
        }
    }
}

/// When running replicas find damage on their disks.
pub(super) fn damage(correct: &[ReplicaId], heal_at: Moment, stream: &mut Stream) -> Vec<(Moment, Fault)> {
    if heal_at == 0 || correct.is_empty() || !stream.percent(DAMAGE_SHARE) {
        return Vec::new();
    }
    let times = stream.between(1, 3);
    (0..times).map(|_| (stream.below(heal_at), Fault::FindDamage(stream.pick(correct)))).collect()
}

/// What goes wrong with the disks of a scenario.
pub(super) fn crashes(
    scenario: Scenario,
    crashes: &mut Crashes<'_>,
    lost: &BTreeSet<ReplicaId>,
) -> Vec<(Moment, Fault)> {
    crashes.correct.retain(|replica| !lost.contains(replica));
    if !crashes.disk.is_kept() || crashes.heal_at == 0 || crashes.correct.is_empty() {
        return Vec::new();
    }
    let (single, whole, faults) = match scenario {
        Scenario::DurableCrash => (100, 20, 0),
        Scenario::WholeCluster => (30, 100, 0),
        Scenario::DiskFaults => (50, 20, 100),
        Scenario::Crashes | Scenario::CrashOnly | Scenario::LeaderCrash => (60, 30, 15),
        Scenario::Mixed | Scenario::Long => (50, 20, 20),
        Scenario::Partitions | Scenario::Depositions | Scenario::Edges => (40, 15, 10),
        Scenario::Lossy | Scenario::Usurpers | Scenario::Liars | Scenario::Twins => (30, 10, 5),
        _ => (10, 5, 2),
    };
    if crashes.stream.percent(if crashes.must_restart { 100 } else { single }) {
        crashes.single();
    }
    if crashes.stream.percent(whole) {
        crashes.whole_cluster();
    }
    if crashes.disk.durability == Durability::Sync && crashes.stream.percent(faults) {
        crashes.faults();
    }
    std::mem::take(&mut crashes.list)
}
