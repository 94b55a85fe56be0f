//! Replicas that miss more than others keep in memory: away for long, cut off, stopped, or with an empty disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::Settings;
use regency_protocol::record::Durability;
use regency_protocol::view::{Mode, View};

use super::faults::apart;
use super::{ClientPlan, Disk, Fault, MILLI, Plan, SECOND, Strategy, cluster, directed};
use crate::adversary::Vice;
use crate::agenda::Moment;
use crate::network::{Place, Weather};
use crate::random::Stream;

/// Calls of all clients.
const CALLS: usize = 90;

/// What `seed` plans.
pub(super) fn plan(seed: u64, stream: &mut Stream) -> Plan {
    let mode = if stream.percent(15) { Mode::Cft } else { Mode::Bft };
    let view = Arc::new(cluster::view(seed, mode, stream));
    let settings = settings(stream);
    let heal_at = stream.between(SECOND, 3 * SECOND);
    let disk = Disk {
        durability: if stream.percent(85) { Durability::Sync } else { Durability::Async },
        ..Disk::sync(stream)
    };
    let byzantine = liars(&view, mode, stream);
    let strategy = if byzantine.is_empty() { Strategy::None } else { Strategy::Distort };
    let weather = Weather {
        delay_min: 100,
        delay_max: stream.pick(&[500, 5 * MILLI, 20 * MILLI]),
        lost: stream.pick(&[0, 0, 0, 20, 100]),
        ..Weather::FAIR
    };
    let faults = faults(seed, &view, &byzantine, mode, heal_at, stream);
    let clients = clients(stream);
    let vices = if byzantine.is_empty() { BTreeSet::new() } else { Vice::of_donors(stream) };
    Plan {
        weather,
        faults,
        heal_at,
        byzantine,
        strategy,
        vices,
        clients,
        disk,
        ..directed::calm(seed, view, settings, stream)
    }
}

fn settings(stream: &mut Stream) -> Settings {
    let mut settings = directed::settings(stream);
    settings.chain_interval = stream.pick(&[1, 2, 4]);
    settings.span = settings.chain_interval + 2 * settings.window;
    settings.retained_instances = settings.span + 2 * settings.window;
    settings.retained_bytes = 0;
    settings.checkpoint_interval = stream.pick(&[2, 3, 5, 10, 30]);
    settings.checkpoint_bytes = stream.pick(&[400, 256 << 20]);
    settings.batch_requests_max = stream.pick(&[1, 1, 2]);
    settings.check().expect("the settings to choose from fit together");
    settings
}

fn liars(view: &View, mode: Mode, stream: &mut Stream) -> BTreeSet<ReplicaId> {
    if mode == Mode::Cft || stream.percent(40) {
        return BTreeSet::new();
    }
    let mut members: Vec<ReplicaId> = view.members().iter().map(|member| member.id).collect();
    stream.shuffle(&mut members);
    members.truncate(view.faults());
    members.into_iter().collect()
}

/// As few requests to an instance as may be: many instances.
fn clients(stream: &mut Stream) -> Vec<ClientPlan> {
    let count = usize::try_from(stream.between(1, 3)).unwrap_or(1);
    let client = ClientPlan {
        calls: CALLS / count,
        in_flight: usize::try_from(stream.between(1, 4)).unwrap_or(1),
        pause_max: stream.pick(&[2, 20, 40]) * MILLI,
        patience: 60 * SECOND,
        result_bytes: stream.pick(&[0, 0, 300]),
    };
    vec![client; count]
}

fn faults(
    seed: u64,
    view: &View,
    byzantine: &BTreeSet<ReplicaId>,
    mode: Mode,
    heal_at: Moment,
    stream: &mut Stream,
) -> Vec<(Moment, Fault)> {
    let mut correct: Vec<ReplicaId> =
        view.members().iter().map(|member| member.id).filter(|id| !byzantine.contains(id)).collect();
    stream.shuffle(&mut correct);
    // Who loses its disk counts in `f`, and only where liars are tolerated it is known what that means.
    let mut may_lose = if mode == Mode::Bft { view.faults().saturating_sub(byzantine.len()) } else { 0 };
    let away = usize::try_from(stream.between(1, 2)).unwrap_or(1);
    let mut list = Vec::new();
    for victim in correct.iter().copied().take(away) {
        let at = stream.between(5 * MILLI, heal_at / 4);
        let back = stream.between(heal_at / 2, heal_at);
        match stream.below(4) {
            0 => {
                for other in view.members().iter().map(|member| member.id).filter(|id| *id != victim) {
                    apart(&mut list, victim, other, at, back);
                }
            }
            1 => list.extend([(at, Fault::Pause(victim)), (back, Fault::Resume(victim))]),
            _ => {
                if may_lose > 0 && stream.percent(50) {
                    may_lose -= 1;
                    list.push((stream.between(at, back), Fault::Wipe(victim)));
                } else {
                    list.push((at, Fault::Crash(victim)));
                }
                list.push((back, Fault::Restart(victim)));
            }
        }
        // It, or one that may give, ends while the transfer is under way.
        if stream.percent(50) {
            let ending = if stream.percent(60) { victim } else { stream.pick(&correct) };
            let at = back + stream.between(0, 60 * MILLI);
            let effects = stream.pick(&[0, 1, 3, 8, 20, 40]);
            list.push((at, Fault::CrashAfter(ending, effects)));
            list.push((at + stream.between(10, 300) * MILLI, Fault::Restart(ending)));
        }
    }
    // Of those who saw it all one ends for good just before the first one is back: in the smallest crash-only cluster
    // a single donor is left.
    let last = correct.iter().copied().nth(away);
    if let (Mode::Cft, Some(lost)) = (mode, last) {
        let mut stream = Stream::new(seed, "single donor");
        let back = list.iter().filter(|(_, fault)| is_back(*fault, correct[0])).map(|(at, _)| *at).min();
        if let Some(back) = back.filter(|_| away == 1 && stream.percent(50)) {
            list.retain(|(_, fault)| {
                *fault != Fault::Restart(lost) && !matches!(fault, Fault::CrashAfter(..))
            });
            list.push((back - stream.between(1, 20) * MILLI, Fault::Crash(lost)));
        }
    }
    list.sort_by_key(|(at, _)| *at);
    list
}

/// Whether `fault` is the end of what kept `victim` away.
fn is_back(fault: Fault, victim: ReplicaId) -> bool {
    let place = Place::Replica(victim);
    fault == Fault::Restart(victim)
        || fault == Fault::Resume(victim)
        || matches!(fault, Fault::Join(from, _) if from == place)
}
