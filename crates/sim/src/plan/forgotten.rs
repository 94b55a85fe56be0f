//! More replicas than `f` lose their votes: the cluster may stand still, but what was decided stays [RECOVER-2].

use std::sync::Arc;

use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::view::{Mode, View};

use super::faults::apart;
use super::{ClientPlan, Disk, Fault, MILLI, Plan, SECOND, cluster, directed};
use crate::agenda::Moment;
use crate::random::Stream;
use crate::rounds::Rounds;

/// Calls of all clients where many instances are to come about.
const CALLS: usize = 60;
/// The size at which a quorum of the others can be had without one that knows.
const TELLING: usize = 6;
/// Larger clusters only take longer.
const SIZE_MAX: usize = 7;

/// What `seed` plans.
pub(super) fn plan(seed: u64, stream: &mut Stream) -> Plan {
    let is_telling = stream.percent(60);
    let mut view = cluster::view(seed, Mode::Bft, stream);
    while view.n() > SIZE_MAX || (is_telling && view.n() != TELLING) {
        view = cluster::view(seed, Mode::Bft, stream);
    }
    let view = Arc::new(view);
    let mut members: Vec<ReplicaId> = view.members().iter().map(|member| member.id).collect();
    stream.shuffle(&mut members);
    let is_late = stream.percent(50);
    let settings = settings(is_late, stream);
    let calm = directed::calm(seed, Arc::clone(&view), settings, stream);
    let disk = Disk::sync(stream);
    if is_late {
        let (faults, heal_at) = late(&view, &members, stream);
        return Plan { faults, heal_at, disk, clients: clients(stream), ..calm };
    }
    let faults = soon(&view, &members, stream);
    Plan {
        faults,
        heal_at: stream.between(2, 4) * SECOND,
        disk,
        rounds: Some(Rounds::new(seed, stream)),
        ..calm
    }
}

fn settings(is_late: bool, stream: &mut Stream) -> Settings {
    let mut settings = directed::settings(stream);
    if is_late {
        settings.chain_interval = stream.pick(&[1, 2, 4]);
        settings.span = settings.chain_interval + 2 * settings.window;
        settings.retained_instances = settings.span + 2 * settings.window;
        settings.batch_requests_max = 1;
    }
    settings.checkpoint_interval = stream.pick(&[3, 10, 1000]);
    settings.check().expect("the settings to choose from fit together");
    settings
}

/// As few requests to an instance as may be: many instances.
fn clients(stream: &mut Stream) -> Vec<ClientPlan> {
    let count = usize::try_from(stream.between(2, 4)).unwrap_or(2);
    let client = ClientPlan {
        calls: CALLS / count,
        in_flight: usize::try_from(stream.between(1, 4)).unwrap_or(1),
        pause_max: stream.pick(&[2, 10, 20]) * MILLI,
        patience: 60 * SECOND,
        result_bytes: 0,
    };
    vec![client; count]
}

/// A quorum goes on without the others, and all of it but one forget; that one is heard for a short time only.
fn late(view: &View, members: &[ReplicaId], stream: &mut Stream) -> (Vec<(Moment, Fault)>, Moment) {
    let (group, far) = members.split_at(view.quorum());
    let mut list = Vec::new();
    let begin = stream.between(0, 50) * MILLI;
    let forget = begin + stream.between(100, 600) * MILLI;
    for (a, b) in group.iter().flat_map(|a| far.iter().map(move |b| (*a, *b))) {
        apart(&mut list, a, b, begin, forget);
    }
    let Some((keeper, rest)) = group.split_first() else { return (list, forget) };
    for victim in rest {
        lose(&mut list, *victim, forget + stream.below(2 * MILLI), stream);
    }
    let heard = forget + stream.between(50, 400) * MILLI;
    let gone = heard + stream.between(10, 300) * MILLI;
    let heal_at = gone + stream.between(1000, 2000) * MILLI;
    for other in members.iter().filter(|other| *other != keeper) {
        apart(&mut list, *keeper, *other, forget, heard);
        apart(&mut list, *keeper, *other, gone, heal_at);
    }
    list.sort_by_key(|(at, _)| *at);
    (list, heal_at)
}

/// Some more than `f` forget, one soon after the other, while a leader is on its way out.
fn soon(view: &View, members: &[ReplicaId], stream: &mut Stream) -> Vec<(Moment, Fault)> {
    let mut list = Vec::new();
    let count = view.faults() + 1 + stream.index(2);
    let begin = stream.between(5, 300) * MILLI;
    for victim in members.iter().take(count) {
        lose(&mut list, *victim, begin + stream.below(200 * MILLI), stream);
    }
    let leader = view.leader_of(Regency(0));
    let until = begin + stream.between(300, 600) * MILLI;
    for other in members.iter().filter(|other| **other != leader) {
        let at = begin + stream.below(100 * MILLI);
        list.push((at, Fault::Sever(leader, *other)));
        list.push((until, Fault::Mend(leader, *other)));
    }
    list.sort_by_key(|(at, _)| *at);
    list
}

/// A replica gets an empty disk, and starts again.
fn lose(list: &mut Vec<(Moment, Fault)>, victim: ReplicaId, at: Moment, stream: &mut Stream) {
    list.push((at, Fault::Wipe(victim)));
    list.push((at + stream.between(1, 20) * MILLI, Fault::Restart(victim)));
}
