//! The cluster of a schedule: its size, its settings, its weather, its clients.

use std::time::Duration;

use regency_protocol::digest;
use regency_protocol::ids::{ClusterId, ReplicaId, ViewId};
use regency_protocol::limits::Settings;
use regency_protocol::message::REQUEST_HEADER_BYTES;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

use super::{CLIENTS_MAX, ClientPlan, MILLI, SECOND};
use crate::agenda::Moment;
use crate::network::Weather;
use crate::random::Stream;
use crate::scenario::Scenario;
use crate::signatures::Keyring;

/// Calls that the honest clients of a schedule make in all.
const CALLS: usize = 12;
/// As many in a long one.
const LONG_CALLS: usize = 200;

/// Sizes to choose from, the usual one more often.
const BFT_SIZES: [u16; 12] = [4, 4, 4, 4, 4, 4, 4, 5, 6, 7, 10, 13];
const CFT_SIZES: [u16; 6] = [3, 3, 3, 4, 5, 7];
/// From this size on a schedule takes ten times as long as at the usual one: of 100 that drew such a size, so many
/// get the usual one after all.
const LARGE: u16 = 10;
const LARGE_GIVEN_UP: u64 = 85;

pub(crate) fn view(seed: u64, mode: Mode, stream: &mut Stream) -> View {
    let n = match mode {
        Mode::Bft => stream.pick(&BFT_SIZES),
        Mode::Cft => stream.pick(&CFT_SIZES),
    };
    let is_given_up = n >= LARGE && Stream::new(seed, "large").percent(LARGE_GIVEN_UP);
    let n = if is_given_up { BFT_SIZES[0] } else { n };
    // Identifiers need not be positions.
    let (first, step) = if stream.percent(70) { (0, 1) } else { (3, 7) };
    let members = (0..n).map(|position| {
        let id = ReplicaId(first + step * position);
        Member { id, address: format!("replica-{id}:7000"), key: Keyring::replica_key(id) }
    });
    let keys = (0..=CLIENTS_MAX).map(Keyring::client_key);
    let listed = Clients::Listed(keys.map(|key| (digest::client_id(&key), key)).collect());
    let parts = ViewParts {
        cluster: ClusterId(*blake3::hash(&seed.to_le_bytes()).as_bytes()),
        // Any member may be the first leader.
        id: ViewId(stream.below(u64::from(n))),
        mode,
        faults: View::faults_max(mode, usize::from(n)),
        members: members.collect(),
        clients: if stream.percent(50) { listed } else { Clients::Open },
        request_auth: if stream.percent(50) { RequestAuth::Signature } else { RequestAuth::Channel },
    };
    View::new(parts).expect("the sizes to choose from tolerate their faults")
}

/// The settings of a schedule; with `hasty` such as let regencies follow each other quickly.
pub(super) fn settings(edges: bool, hasty: bool, stream: &mut Stream) -> Settings {
    let mut settings = Settings {
        chain_period: Duration::from_millis(stream.between(100, 1000)),
        status_period: Duration::from_millis(stream.between(60, 150)),
        ..Settings::default()
    };
    if hasty {
        settings.status_period = Duration::from_millis(stream.between(16, 40));
    }
    // Everything open is sent again in every period: what a wide window adds to that is more of the same.
    settings.window = stream.pick(&[2, 4, 8, 32]);
    settings.request_timeout_min = settings.status_period * 2 + Duration::from_millis(stream.between(1, 200));
    settings.request_timeout_max = Duration::from_secs(stream.between(3, 8));
    if edges {
        settings.window = stream.pick(&[1, 1, 2, 3, 8]);
        settings.chain_interval = stream.between(1, 6);
        settings.span = settings.chain_interval + 2 * settings.window + stream.below(4);
        settings.retained_instances = settings.span + 2 * settings.window + stream.below(4);
        settings.retained_bytes = stream.pick(&[0, 2000]);
        settings.batch_requests_max = stream.pick(&[1, 2, 5]);
        settings.request_bytes_max = 64;
        settings.batch_bytes_max = settings.request_bytes_max + REQUEST_HEADER_BYTES + stream.index(200);
        settings.result_bytes_max = stream.pick(&[300, 1 << 20]);
        settings.session_window = stream.pick(&[1, 2, 8]);
        settings.sessions_max = stream.pick(&[6, 16]);
        settings.client_sessions_max = stream.pick(&[2, 4]);
        let window = usize::try_from(settings.session_window).unwrap_or(1);
        settings.pending_requests_max = settings.sessions_max * window;
        settings.client_pending_bytes_max = 2 * window * (64 + REQUEST_HEADER_BYTES);
        settings.max_clock_skew = Duration::from_secs(5);
        settings.session_idle = Duration::from_secs(stream.pick(&[10, 60]));
        settings.fetch_delay = Duration::from_millis(stream.between(1, 30));
    }
    settings.check().expect("the settings to choose from fit together");
    settings
}

pub(super) fn weather(lossy: bool, stream: &mut Stream) -> Weather {
    let delay_min = stream.pick(&[50, 200]);
    let delay_max = delay_min + stream.pick(&[100, 1000, 5 * MILLI, 20 * MILLI]);
    let in_order = stream.percent(50);
    if !lossy {
        return Weather { delay_min, delay_max, in_order, ..Weather::FAIR };
    }
    Weather {
        delay_min,
        delay_max,
        per_byte: 0,
        free_bytes: 0,
        late: stream.pick(&[0, 10, 50]),
        lost: stream.pick(&[0, 10, 50, 200]),
        twice: stream.pick(&[0, 10, 100]),
        again: stream.pick(&[0, 10, 50]),
        in_order: stream.percent(30),
    }
}

pub(super) fn clients(
    scenario: Scenario,
    heal_at: Moment,
    settings: &Settings,
    stream: &mut Stream,
) -> Vec<ClientPlan> {
    let count = usize::try_from(stream.between(1, CLIENTS_MAX as u64)).unwrap_or(1);
    let calls = if scenario == Scenario::Long { LONG_CALLS / count } else { CALLS / count };
    // Calls are spread over the time in which things go wrong.
    let pause_max = (heal_at / calls as u64).max(MILLI);
    let impatient = stream.percent(20);
    // A pause that is longer than sessions may idle.
    let long_pause = settings.session_idle < Duration::from_secs(20) && stream.percent(30);
    let in_flight_max = settings.session_window.min(8);
    (0..count)
        .map(|_| ClientPlan {
            calls,
            in_flight: usize::try_from(stream.between(1, in_flight_max)).unwrap_or(1),
            pause_max: if long_pause { 15 * SECOND } else { pause_max },
            patience: if impatient { 300 * MILLI } else { 60 * SECOND },
            result_bytes: stream.pick(&[0, 0, 0, 300, 5000]),
        })
        .collect()
}
