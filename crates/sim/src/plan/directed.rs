//! Scenarios that go for one weakness each: whole rounds that fail, a network too thin for the timers, old locks, a
//! storm of STOPs, a leader that censors while it seems to work, a client that only some hear.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::view::{Clients, Mode, RequestAuth, View};

use super::{ClientPlan, Disk, Fault, MILLI, Plan, SECOND, Strategy, cluster};
use crate::agenda::Moment;
use crate::network::{Place, Weather};
use crate::random::Stream;
use crate::rounds::Rounds;
use crate::scenario::Scenario;
use crate::shrink::choices::Choices;

/// Changes of leader that a client may cost by speaking to some replicas only, in one standing period [REQ-3].
const REGENCIES_FOR_A_CLIENT: u64 = 1;

/// Changes of leader that a slow network may cost before the timeouts have grown to it [STOP-1].
const REGENCIES_ON_A_SLOW_NETWORK: u64 = 4;

/// Votes, STATUS and echoes are no larger.
const SMALL_FRAME: usize = 70;

/// What `seed` plans for `scenario`, if that is one of these.
pub(super) fn plan(seed: u64, scenario: Scenario, stream: &mut Stream) -> Option<Plan> {
    let mode = if scenario == Scenario::CrashRounds { Mode::Cft } else { Mode::Bft };
    let view = |stream: &mut Stream| Arc::new(cluster::view(seed, mode, stream));
    let plan = match scenario {
        Scenario::Rounds | Scenario::CrashRounds => {
            let view = view(stream);
            // It leads soon.
            let liar = view.leader_of(Regency(stream.pick(&[0, 1, 1, 1, 2, 2, 3])));
            let byzantine = if mode == Mode::Bft { BTreeSet::from([liar]) } else { BTreeSet::new() };
            let rounds = Some(Rounds::new(seed, stream));
            let strategy = if mode == Mode::Bft { Strategy::Rounds } else { Strategy::None };
            let heal_at = stream.between(SECOND, 4 * SECOND);
            Plan { byzantine, strategy, rounds, heal_at, ..calm(seed, view, settings(stream), stream) }
        }
        Scenario::Overwritten => {
            let view = view(stream);
            let byzantine = BTreeSet::from([view.leader_of(Regency(stream.pick(&[0, 1, 1, 2, 3])))]);
            let rounds = Some(Rounds::overwritten(seed, stream));
            let heal_at = stream.between(SECOND, 4 * SECOND);
            let strategy = Strategy::Rounds;
            Plan { byzantine, strategy, rounds, heal_at, ..calm(seed, view, settings(stream), stream) }
        }
        Scenario::SlowNetwork => {
            // What measures the network is small; what begins a regency is not.
            let slowest = stream.between(1, 100) * MILLI;
            let per_byte = stream.between(1, 4) * MILLI;
            let plan = calm(seed, view(stream), settings(stream), stream);
            // [STOP-1] Timeouts grow to a cap: a SYNC, which holds a statement of most, must arrive in that time.
            let per_byte = per_byte * 4 / plan.view.n() as u64;
            let weather = Weather { delay_min: slowest / 2, delay_max: slowest, per_byte, ..Weather::FAIR };
            if Stream::new(seed, "thin network").percent(50) {
                return Some(thin(plan));
            }
            Plan { weather, healed: weather, regency_max: Some(REGENCIES_ON_A_SLOW_NETWORK), ..plan }
        }
        Scenario::OldLocks => {
            let heal_at = 6 * SECOND;
            let view = view(stream);
            let mut settings = settings(stream);
            settings.max_clock_skew = Duration::from_secs(2);
            let mut plan = calm(seed, view, settings, stream);
            let cut_at = stream.between(20 * MILLI, 500 * MILLI);
            plan.faults = apart(&plan.view, cut_at);
            Plan { rounds: Some(Rounds::no_accepts(seed)), heal_at, ..plan }
        }
        Scenario::StopStorm => {
            let view = view(stream);
            let stormer = view.members()[stream.index(view.n())].id;
            let byzantine = BTreeSet::from([stormer]);
            let strategy = Strategy::StopStorm;
            Plan { byzantine, strategy, ..calm(seed, view, settings(stream), stream) }
        }
        Scenario::Censor => {
            let view = view(stream);
            let byzantine = BTreeSet::from([view.leader_of(Regency(0))]);
            Plan { byzantine, strategy: Strategy::Censor, ..calm(seed, view, settings(stream), stream) }
        }
        Scenario::HalfHeard => {
            let mut view = view(stream);
            while view.request_auth() != RequestAuth::Channel || matches!(view.clients(), Clients::Open) {
                view = Arc::new(cluster::view(seed, mode, stream));
            }
            let plan = calm(seed, view, settings(stream), stream);
            Plan { rogue_acts: 40, is_half_heard: true, regency_max: Some(REGENCIES_FOR_A_CLIENT), ..plan }
        }
        _ => return None,
    };
    Some(plan)
}

/// Small limits and quick timers: much happens in little time.
pub(super) fn settings(stream: &mut Stream) -> Settings {
    let mut settings = Settings {
        chain_period: Duration::from_millis(stream.between(100, 1000)),
        status_period: Duration::from_millis(30),
        request_timeout_min: Duration::from_millis(stream.between(61, 120)),
        request_timeout_max: Duration::from_secs(8),
        window: stream.pick(&[1, 2, 4]),
        chain_interval: stream.pick(&[1, 2, 4, 16]),
        fetch_delay: Duration::from_millis(stream.between(1, 10)),
        ..Settings::default()
    };
    settings.span = settings.chain_interval + 2 * settings.window + stream.below(4);
    settings.retained_instances = settings.span + 2 * settings.window + 100;
    settings.check().expect("the settings to choose from fit together");
    settings
}

/// A schedule in which nothing goes wrong.
pub(super) fn calm(seed: u64, view: Arc<View>, settings: Settings, stream: &mut Stream) -> Plan {
    let count = usize::try_from(stream.between(1, 3)).unwrap_or(1);
    let client = || ClientPlan {
        calls: 6 / count,
        in_flight: 1,
        pause_max: 300 * MILLI,
        patience: 60 * SECOND,
        result_bytes: 0,
    };
    Plan {
        seed,
        eager_instances: stream.between(1, settings.window),
        clock_offsets: view.members().iter().map(|member| (member.id, stream.below(SECOND))).collect(),
        weather: Weather { delay_min: 100, delay_max: stream.pick(&[500, 5 * MILLI]), ..Weather::FAIR },
        healed: Weather::FAIR,
        rounds: None,
        faults: Vec::new(),
        heal_at: 0,
        byzantine: BTreeSet::new(),
        strategy: Strategy::None,
        vices: BTreeSet::new(),
        clients: (0..count).map(|_| client()).collect(),
        rogue_acts: 0,
        is_half_heard: false,
        is_rushing: false,
        sessions_stay: true,
        regency_max: None,
        disk: Disk::NONE,
        choices: Choices::default(),
        settings: Arc::new(settings),
        view,
    }
}

/// The network is quick but for what begins a regency: what it measures of itself tells nothing about that, and only
/// doubled timeouts wait for it. The first leader has to go.
fn thin(plan: Plan) -> Plan {
    let weather = Weather { per_byte: MILLI / 2, free_bytes: SMALL_FRAME, in_order: false, ..Weather::FAIR };
    let byzantine = BTreeSet::from([plan.leader()]);
    Plan { weather, healed: weather, byzantine, strategy: Strategy::Censor, ..plan }
}

/// Every replica loses all others from sight until the network heals.
fn apart(view: &View, at: Moment) -> Vec<(Moment, Fault)> {
    let ids: Vec<ReplicaId> = view.members().iter().map(|member| member.id).collect();
    let pairs = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
    pairs.map(|(a, b)| (at, Fault::Cut(Place::Replica(a), Place::Replica(b)))).collect()
}
