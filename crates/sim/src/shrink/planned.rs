//! What a reduction leaves of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regency_protocol::limits::Settings;

use super::reduction::{Kind, Reduction};
use crate::adversary::Vice;
use crate::plan::{Fault, Plan, Strategy};

/// Calls of one client have numbers below this.
const CALLS_PER_CLIENT: u64 = 1000;

macro_rules! settings {
    ($($name:ident,)*) => {
        /// All settings by name.
        const SETTINGS: &[&str] = &[$(stringify!($name),)*];

        /// The places of those that differ.
        fn differing(one: &Settings, other: &Settings) -> BTreeSet<u64> {
            let differs = [$(one.$name != other.$name,)*];
            (0..).zip(differs).filter(|(_, differs)| *differs).map(|(place, _)| place).collect()
        }

        /// `settings` where `kept` says so, `default` elsewhere.
        fn mixed(settings: &Settings, default: &Settings, kept: &BTreeSet<u64>) -> Settings {
            let mut places = 0..;
            let mut is_kept = || places.next().is_some_and(|place| kept.contains(&place));
            Settings { $($name: (if is_kept() { settings } else { default }).$name.clone(),)* }
        }
    };
}

settings! {
    window, span, chain_interval, chain_period, status_period, max_clock_skew, batch_requests_max,
    batch_bytes_max, request_bytes_max, result_bytes_max, session_window, session_result_bytes_max, sessions_max,
    client_sessions_max, pending_requests_max, client_pending_bytes_max, session_idle, open_horizon,
    checkpoint_interval, checkpoint_bytes, retained_instances, retained_bytes, fetch_delay, request_timeout_min, request_timeout_max, proposal_delay_min,
    standing_period,
}

/// Leaves out of `plan` what `reduction` leaves out; `None` if the rest makes no schedule.
pub(super) fn reduced(mut plan: Plan, reduction: &Reduction) -> Option<Plan> {
    for (kind, kept) in &reduction.kept {
        leave(&mut plan, *kind, kept)?;
    }
    if let Some(heal_at) = reduction.heal_at {
        let last = plan.faults.last().map_or(0, |(at, _)| *at);
        if heal_at > plan.heal_at || heal_at < last {
            return None;
        }
        plan.heal_at = heal_at;
    }
    Some(plan)
}

/// What of this kind is in a plan; `None` for what is decided only as the schedule runs.
pub(super) fn planned(plan: &Plan, kind: Kind) -> Option<BTreeSet<u64>> {
    let one_if = |is_so: bool| (0..u64::from(is_so)).collect();
    Some(match kind {
        Kind::Owned => plan.byzantine.iter().map(|id| u64::from(id.0)).collect(),
        Kind::Rushing => one_if(plan.is_rushing),
        Kind::Vices => (0..)
            .zip(Vice::ALL)
            .filter(|(_, vice)| plan.vices.contains(vice))
            .map(|(place, _)| place)
            .collect(),
        Kind::Settings => differing(&plan.settings, &Settings::default()),
        Kind::Clocks => {
            let ahead = plan.clock_offsets.iter().filter(|(_, offset)| **offset > 0);
            ahead.map(|(id, _)| u64::from(id.0)).collect()
        }
        Kind::Jitter => one_if(true),
        Kind::Faults => numbers(&plan.faults).into_iter().collect(),
        Kind::Calls => {
            let calls = (0..).zip(&plan.clients);
            let of_client = |(client, plan): (u64, &crate::plan::ClientPlan)| {
                (0..plan.calls as u64).map(move |call| client * CALLS_PER_CLIENT + call)
            };
            calls.flat_map(of_client).collect()
        }
        Kind::Lost | Kind::Late | Kind::Twice | Kind::Again | Kind::Rounds | Kind::Rogue | Kind::Deeds => {
            return None;
        }
    })
}

/// Whether a plan leaves any room for such decisions.
pub(super) fn is_possible(plan: &Plan, kind: Kind) -> bool {
    match kind {
        Kind::Lost => plan.weather.lost > 0,
        Kind::Late => plan.weather.late > 0,
        Kind::Twice => plan.weather.twice > 0,
        Kind::Again => plan.weather.again > 0,
        Kind::Rounds => plan.rounds.is_some(),
        Kind::Rogue => plan.rogue_acts > 0,
        Kind::Deeds => !plan.byzantine.is_empty(),
        planned_before => planned(plan, planned_before).is_some_and(|numbers| !numbers.is_empty()),
    }
}

/// The settings of a plan that are not the default ones.
pub(super) fn unusual_settings(plan: &Plan) -> Vec<&'static str> {
    let differing = differing(&plan.settings, &Settings::default());
    (0..).zip(SETTINGS).filter(|(place, _)| differing.contains(place)).map(|(_, name)| *name).collect()
}

fn leave(plan: &mut Plan, kind: Kind, kept: &BTreeSet<u64>) -> Option<()> {
    match kind {
        Kind::Owned => {
            plan.byzantine.retain(|id| kept.contains(&u64::from(id.0)));
            if plan.byzantine.is_empty() {
                plan.strategy = Strategy::None;
                plan.vices.clear();
                plan.is_rushing = false;
            }
            // This strategy speaks in the name of the leader.
            if plan.strategy == Strategy::Equivocate && !plan.byzantine.contains(&plan.leader()) {
                return None;
            }
        }
        Kind::Rushing => plan.is_rushing &= kept.contains(&0),
        Kind::Vices => {
            let all = (0..).zip(Vice::ALL);
            for (_, vice) in all.filter(|(place, _)| !kept.contains(place)) {
                plan.vices.remove(vice);
            }
        }
        Kind::Settings => {
            let settings = mixed(&plan.settings, &Settings::default(), kept);
            settings.check().ok()?;
            plan.eager_instances = plan.eager_instances.min(settings.window);
            plan.settings = Arc::new(settings);
        }
        Kind::Clocks => {
            for (_, offset) in plan.clock_offsets.iter_mut().filter(|(id, _)| !kept.contains(&id.0.into())) {
                *offset = 0;
            }
        }
        Kind::Faults => {
            let numbers = numbers(&plan.faults);
            let mut numbers = numbers.iter();
            plan.faults.retain(|_| numbers.next().is_some_and(|number| kept.contains(number)));
        }
        Kind::Calls => {
            for (client, plan) in (0..).zip(&mut plan.clients) {
                let first = client * CALLS_PER_CLIENT;
                plan.calls = plan.calls.min(kept.range(first..first + CALLS_PER_CLIENT).count());
            }
        }
        Kind::Jitter
        | Kind::Lost
        | Kind::Late
        | Kind::Twice
        | Kind::Again
        | Kind::Rounds
        | Kind::Rogue
        | Kind::Deeds => {}
    }
    Some(())
}

/// A number for each fault: that of the fault that it ends, or its own place.
fn numbers(faults: &[(u64, Fault)]) -> Vec<u64> {
    let mut open: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut numbers = Vec::new();
    for (place, (_, fault)) in (0..).zip(faults) {
        let begun = match fault {
            Fault::Join(a, b) => Fault::Cut(*a, *b),
            Fault::Mend(a, b) => Fault::Sever(*a, *b),
            Fault::Resume(replica) => Fault::Pause(*replica),
            Fault::Restart(replica) => Fault::Crash(*replica),
            Fault::DiskRoom(replica) => Fault::DiskFull(*replica),
            Fault::RollBack(replica) => Fault::CopyDisk(*replica),
            Fault::Cut(..)
            | Fault::Reset(..)
            | Fault::Sever(..)
            | Fault::Pause(_)
            | Fault::Crash(_)
            | Fault::CrashAfter(..)
            | Fault::PowerCut(_)
            | Fault::DiskFails(_)
            | Fault::DiskFull(_)
            | Fault::Rot(_)
            | Fault::WriteLost(_)
            | Fault::WriteMisdirected(_)
            | Fault::Wipe(_)
            | Fault::FindDamage(_)
            | Fault::CopyDisk(_) => {
                // Whatever ends a replica, it starts again in one way.
                let begun = fault.ended().map_or(*fault, Fault::Crash);
                open.entry(format!("{begun:?}")).or_default().push(place);
                numbers.push(place);
                continue;
            }
        };
        let first = open.get_mut(&format!("{begun:?}")).filter(|places| !places.is_empty());
        numbers.push(first.map_or(place, |places| places.remove(0)));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::ReplicaId;

    use super::*;

    #[test]
    fn an_end_has_the_number_of_what_it_ends() {
        let (a, b) = (ReplicaId(0), ReplicaId(1));
        let faults = [
            (1, Fault::Sever(a, b)),
            (2, Fault::Crash(a)),
            (3, Fault::Mend(a, b)),
            (4, Fault::Reset(a, b)),
            (5, Fault::Restart(a)),
        ];
        assert_eq!(numbers(&faults), [0, 1, 0, 3, 1]);
    }

    #[test]
    fn a_plan_without_anything_is_still_a_plan() {
        for seed in 1..50 {
            let (scenario, plan) = Plan::new(seed, None);
            let kept = Kind::ALL.iter().map(|kind| (*kind, BTreeSet::new())).collect();
            let reduction = Reduction { kept, heal_at: Some(0) };
            let plan = reduced(plan, &reduction).unwrap_or_else(|| panic!("{}", scenario.name()));
            assert!(plan.faults.is_empty() && plan.byzantine.is_empty() && plan.vices.is_empty());
            assert_eq!(*plan.settings, Settings::default());
            assert!(plan.clients.iter().all(|client| client.calls == 0));
        }
    }
}
