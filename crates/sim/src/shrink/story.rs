//! What is left of a schedule, for people to read.

use std::collections::{BTreeMap, BTreeSet};

use super::choices::Decision;
use super::planned;
use super::reduction::Kind;
use crate::agenda::Moment;
use crate::network::Place;
use crate::plan::{Fault, Plan};

/// More events than these nobody reads.
const EVENTS_TOLD_MAX: usize = 500;

/// The cluster, its clients, and what is unusual about them.
pub(super) fn setting(plan: &Plan) -> Vec<String> {
    let view = &plan.view;
    let (n, f) = (view.n(), view.faults());
    let members: Vec<String> = view.members().iter().map(|member| member.id.to_string()).collect();
    let mut lines = vec![
        format!("{n} replicas ({}), f = {f}, the first leader is {}", members.join(", "), plan.leader()),
        format!("nothing goes wrong from {} on", time(plan.heal_at)),
    ];
    let owned: Vec<String> = plan.byzantine.iter().map(ToString::to_string).collect();
    if !owned.is_empty() {
        let vices: Vec<&str> = plan.vices.iter().map(|vice| vice.label()).collect();
        let rushing = if plan.is_rushing { ", rushing" } else { "" };
        lines.push(format!(
            "owned: {}{rushing} ({:?}) {}",
            owned.join(", "),
            plan.strategy,
            vices.join(", ")
        ));
    }
    for (number, client) in plan.clients.iter().enumerate().filter(|(_, client)| client.calls > 0) {
        lines.push(format!("client {number}: {} calls, {} at once", client.calls, client.in_flight));
    }
    let settings = planned::unusual_settings(plan);
    if !settings.is_empty() {
        lines.push(format!("unusual settings: {}", settings.join(", ")));
    }
    lines
}

/// What goes wrong, in order: what happens at one moment to one sender's frames is one event.
pub(super) fn events(plan: &Plan, decisions: &[Decision]) -> Vec<String> {
    let mut events: Vec<(Moment, String)> =
        plan.faults.iter().map(|(at, fault)| (*at, fault_in_words(fault))).collect();
    let mut merged: BTreeMap<_, (&Decision, BTreeSet<Place>)> = BTreeMap::new();
    for decision in decisions {
        let (_, places) = merged.entry(event_of(decision)).or_insert((decision, BTreeSet::new()));
        places.extend(decision.to);
    }
    events.extend(merged.values().map(|(first, places)| (first.at, decision_in_words(first, places))));
    events.sort_by_key(|(at, _)| *at);
    let more = events.len().saturating_sub(EVENTS_TOLD_MAX);
    events.truncate(EVENTS_TOLD_MAX);
    let mut lines: Vec<String> =
        events.into_iter().map(|(at, event)| format!("{} {event}", time(at))).collect();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

/// What the decisions that make one event have in common. A rule about rounds is one as long as they last.
fn event_of(decision: &Decision) -> (Option<Moment>, Kind, Place, &str) {
    let at = (decision.kind != Kind::Rounds).then_some(decision.at);
    (at, decision.kind, decision.from, &decision.what)
}

fn decision_in_words(decision: &Decision, places: &BTreeSet<Place>) -> String {
    let Decision { kind, from, what, .. } = decision;
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    let way = format!("{what} from {from} to {}", places.join(", "));
    match kind {
        Kind::Lost => format!("lost: {way}"),
        Kind::Late => format!("late: {way}"),
        Kind::Twice => format!("twice: {way}"),
        Kind::Again => format!("an old frame comes again with {way}"),
        Kind::Rounds => format!("lost, whenever it is sent: {way}"),
        Kind::Deeds => format!("the adversary sends {way}"),
        Kind::Rogue => format!("the dishonest client ({from}) sends: {what}"),
        Kind::Owned
        | Kind::Rushing
        | Kind::Vices
        | Kind::Settings
        | Kind::Clocks
        | Kind::Jitter
        | Kind::Faults
        | Kind::Calls => way,
    }
}

fn fault_in_words(fault: &Fault) -> String {
    match fault {
        Fault::Cut(from, to) => format!("the link from {from} to {to} fails"),
        Fault::Join(from, to) => format!("the link from {from} to {to} works again"),
        Fault::Reset(a, b) => format!("the channel between {a} and {b} breaks and comes back"),
        Fault::Sever(a, b) => format!("replicas {a} and {b} lose each other"),
        Fault::Mend(a, b) => format!("replicas {a} and {b} find each other again"),
        Fault::Pause(replica) => format!("replica {replica} stands still"),
        Fault::Resume(replica) => format!("replica {replica} goes on"),
        Fault::Crash(replica) => format!("replica {replica} crashes"),
        Fault::CrashAfter(replica, effects) => format!("replica {replica} crashes {effects} effects later"),
        Fault::PowerCut(replica) => format!("replica {replica} loses its power"),
        Fault::Restart(replica) => format!("replica {replica} starts again"),
        Fault::DiskFails(replica) => format!("the disk of {replica} fails"),
        Fault::DiskFull(replica) => format!("the disk of {replica} is full"),
        Fault::DiskRoom(replica) => format!("there is room again on the disk of {replica}"),
        Fault::WriteLost(replica) => format!("the disk of replica {replica} loses its next write"),
        Fault::WriteMisdirected(replica) => format!("the disk of replica {replica} misplaces its next write"),
        Fault::Rot(replica) => format!("replica {replica} crashes, and a bit on its disk turns"),
        Fault::Wipe(replica) => format!("replica {replica} crashes, and gets an empty disk"),
        Fault::FindDamage(replica) => format!("replica {replica} finds damage on its disk"),
        Fault::CopyDisk(replica) => format!("the disk of {replica} is copied"),
        Fault::RollBack(replica) => format!("replica {replica} crashes, and gets back the copy of its disk"),
    }
}

fn time(at: Moment) -> String {
    format!("{}.{:06}", at / 1_000_000, at % 1_000_000)
}
