//! What goes wrong in a schedule, and when.

use std::collections::BTreeSet;

use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::view::View;

use super::{Fault, MILLI};
use crate::agenda::Moment;
use crate::network::Place;
use crate::random::Stream;

/// Gathers the faults of one schedule.
pub(super) struct Faults<'a> {
    leader: ReplicaId,
    heal_at: Moment,
    faults_max: usize,
    replicas: Vec<ReplicaId>,
    stream: &'a mut Stream,
    list: Vec<(Moment, Fault)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(view: &View, leader: ReplicaId, heal_at: Moment, stream: &'a mut Stream) -> Self {
        let replicas = view.members().iter().map(|member| member.id).collect();
        Self { leader, heal_at, faults_max: view.faults(), replicas, stream, list: Vec::new() }
    }

    /// By time.
    pub(super) fn sorted(mut self) -> Vec<(Moment, Fault)> {
        self.list.sort_by_key(|(at, _)| *at);
        self.list
    }

    /// A few partitions, and now and then a channel that breaks.
    pub(super) fn partitions(&mut self) {
        for _ in 0..self.stream.between(1, 3) {
            let mut sides = self.replicas.clone();
            self.stream.shuffle(&mut sides);
            let far = self.stream.between(1, (sides.len() / 2) as u64);
            let near = sides.split_off(usize::try_from(far).unwrap_or(1));
            let mut links: Vec<(Place, Place)> = Vec::new();
            for (a, b) in sides.iter().flat_map(|a| near.iter().map(move |b| (*a, *b))) {
                links.push((Place::Replica(a), Place::Replica(b)));
            }
            match self.stream.below(4) {
                0 => {}
                1 => links = links.into_iter().map(|(a, b)| (b, a)).collect(),
                _ => links.extend(links.clone().into_iter().map(|(a, b)| (b, a))),
            }
            let times = if self.stream.percent(30) { self.stream.between(3, 8) } else { 1 };
            self.toggle(&links, times);
        }
        for _ in 0..self.stream.below(4) {
            let mut pair = self.replicas.clone();
            self.stream.shuffle(&mut pair);
            if let [a, b, ..] = pair[..] {
                let at = self.stream.below(self.heal_at);
                self.list.push((at, Fault::Reset(a, b)));
            }
        }
    }

    /// Leaders of the first regencies lose all others, or most, one after the other: as if their machines were cut
    /// off just then.
    pub(super) fn depositions(&mut self, view: &View) {
        let mut at = self.stream.below(self.heal_at / 2);
        for regency in 0..self.stream.between(1, 5) {
            let leader = view.leader_of(Regency(regency));
            let spared = if self.stream.percent(40) { self.stream.below(3) } else { 0 };
            let mut others: Vec<ReplicaId> =
                self.replicas.iter().copied().filter(|id| *id != leader).collect();
            self.stream.shuffle(&mut others);
            others.truncate(others.len().saturating_sub(usize::try_from(spared).unwrap_or(0)));
            let until = (at + self.stream.between(30 * MILLI, 400 * MILLI)).min(self.heal_at.max(at));
            for other in others {
                // One after the other: what is under way reaches some of them.
                let begin = at + self.stream.below(2 * MILLI);
                self.list.push((begin, Fault::Sever(leader, other)));
                self.list.push((until.max(begin), Fault::Mend(leader, other)));
            }
            at += self.stream.between(5 * MILLI, 150 * MILLI);
            if at >= self.heal_at {
                break;
            }
        }
    }

    /// Clients lose replicas from sight, one way or both; some replicas do not even get what they send.
    pub(super) fn client_partitions(&mut self, clients: usize) {
        for _ in 0..self.stream.between(1, 2) {
            let client = Place::Client(self.stream.index(clients));
            let mut far = self.replicas.clone();
            self.stream.shuffle(&mut far);
            far.truncate(1 + self.stream.index(far.len()));
            let (out, back) = self.stream.pick(&[(true, true), (true, false), (false, true)]);
            let mut links = Vec::new();
            for replica in far.into_iter().map(Place::Replica) {
                if out {
                    links.push((client, replica));
                }
                if back {
                    links.push((replica, client));
                }
            }
            self.toggle(&links, 1);
        }
    }

    /// Cuts and joins `links` this many times, between two random moments.
    fn toggle(&mut self, links: &[(Place, Place)], times: u64) {
        let from = self.stream.below(self.heal_at);
        let until = self.stream.between(from, self.heal_at);
        let period = (until - from) / times;
        for turn in 0..times {
            let start = from + turn * period;
            let end = if times == 1 { until } else { start + period / 2 };
            for (a, b) in links {
                self.list.push((start, Fault::Cut(*a, *b)));
                self.list.push((end, Fault::Join(*a, *b)));
            }
        }
    }

    /// Up to `f` replicas at a time stand still; the leader may be one of them.
    pub(super) fn pauses(&mut self) {
        let mut from = 0;
        for _ in 0..self.stream.between(1, 3) {
            let mut victims = self.replicas.clone();
            self.stream.shuffle(&mut victims);
            let count = self.stream.between(1, self.faults_max.max(1) as u64);
            victims.truncate(usize::try_from(count).unwrap_or(1).min(self.faults_max));
            let start = self.stream.between(from, self.heal_at.max(from));
            let end = self.stream.between(start, self.heal_at.max(start));
            for victim in victims {
                self.list.push((start, Fault::Pause(victim)));
                self.list.push((end, Fault::Resume(victim)));
            }
            from = end + MILLI;
        }
    }

    /// As many crashes as owned replicas leave of `f`; most of the crashed start again.
    pub(super) fn crashes(&mut self, owned: &BTreeSet<ReplicaId>, of_leader: bool) {
        let mut victims: Vec<ReplicaId> =
            self.replicas.iter().copied().filter(|id| !owned.contains(id) && *id != self.leader).collect();
        self.stream.shuffle(&mut victims);
        if of_leader {
            victims.insert(0, self.leader);
        }
        let most = self.faults_max.saturating_sub(owned.len());
        let least = most.min(1);
        let count = self.stream.between(least as u64, most as u64);
        victims.truncate(usize::try_from(count).unwrap_or(0));
        for victim in victims {
            let at = self.stream.below(self.heal_at);
            self.list.push((at, Fault::Crash(victim)));
            if self.stream.percent(70) {
                let again = self.stream.between(at + MILLI, self.heal_at.max(at + MILLI));
                self.list.push((again, Fault::Restart(victim)));
            }
        }
    }
}

/// Two replicas do not hear each other for some time.
pub(super) fn apart(
    list: &mut Vec<(Moment, Fault)>,
    a: ReplicaId,
    b: ReplicaId,
    from: Moment,
    until: Moment,
) {
    let (a, b) = (Place::Replica(a), Place::Replica(b));
    list.extend([(from, Fault::Cut(a, b)), (from, Fault::Cut(b, a))]);
    list.extend([(until, Fault::Join(a, b)), (until, Fault::Join(b, a))]);
}
