//! Behaviours of the whole: real replicas, real clients, and what goes wrong between them.

mod harness;

use std::time::{Duration, Instant};

use harness::cluster::{Plan, TestCluster, client_key};
use harness::session::Session;
use regency::client::blocking::Client;
use regency::client::{Client as AsyncClient, ClientConfig, ClientError};
use regency::protocol::limits::Settings;
use regency::protocol::message::{Outcome, Refusal};
use regency::protocol::view::RequestAuth;

/// How long a call may take while connections are cut: a reconnect and a retry, on a busy machine.
const HEALED_WITHIN: Duration = Duration::from_secs(5);

fn config(cluster: &TestCluster, key: u8) -> ClientConfig {
    let (view, settings) = (cluster.cluster.view().clone(), cluster.cluster.settings().clone());
    ClientConfig { deadline: Duration::from_secs(20), ..ClientConfig::new(view, settings, client_key(key)) }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn one() -> Vec<u8> {
    1_u64.to_le_bytes().to_vec()
}

fn number(result: &[u8]) -> u64 {
    u64::from_le_bytes(result.try_into().unwrap())
}

#[test]
fn connections_reset_in_mid_instance_heal_at_once() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let cluster = TestCluster::start(Plan { request_auth, behind_proxies: true, ..Plan::default() });
        let client = Client::connect(&config(&cluster, 0)).unwrap();
        let mut sums = Vec::new();
        for _ in 0..10 {
            let calls: Vec<_> = (0..50).map(|_| client.start(one())).collect();
            cluster.cut_connections();
            let begin = Instant::now();
            sums.extend(calls.into_iter().map(|call| number(&call.wait().unwrap())));
            assert!(begin.elapsed() < HEALED_WITHIN, "{:?} after a reset", begin.elapsed());
        }
        sums.sort_unstable();
        assert!(sums.iter().copied().eq(1..=500), "each call counts exactly once");
    }
}

#[test]
fn a_client_that_starts_before_its_replicas_is_served_when_they_come() {
    let mut cluster = TestCluster::new(Plan::default());
    let client = AsyncClient::start_unconnected(&config(&cluster, 0)).unwrap();
    let call = client.start(one());
    (0..4).rev().for_each(|id| cluster.start_replica(id));
    assert_eq!(number(&run(call).unwrap()), 1);
}

#[test]
fn a_restarted_client_goes_on_with_the_same_key() {
    let cluster = TestCluster::start(Plan::default());
    for life in 1..=5 {
        let client = Client::connect(&config(&cluster, 0)).unwrap();
        assert_eq!(number(&client.invoke(one()).unwrap()), 2 * life - 1);
        // It ends with a call under way, whose outcome it never learns; the call runs all the same, once.
        let last = client.start(one());
        harness::eventually("the last call is executed", || operations(&cluster) >= 2 * life);
        drop(last);
    }
}

/// Operations that replica 0 has executed.
fn operations(cluster: &TestCluster) -> u64 {
    cluster.replicas[&0].metrics().operations.get()
}

#[test]
fn one_key_used_twice_at_once_is_two_sessions() {
    let cluster = TestCluster::start(Plan::default());
    let clients = [(); 2].map(|()| Client::connect(&config(&cluster, 0)).unwrap());
    let mut sums: Vec<u64> = std::thread::scope(|scope| {
        let work = |client: &Client| -> Vec<u64> {
            (0..100).map(|_| number(&client.invoke(one()).unwrap())).collect()
        };
        let threads = clients.each_ref().map(|client| scope.spawn(move || work(client)));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    sums.sort_unstable();
    assert!(sums.into_iter().eq(1..=200), "each call of each client counts exactly once");
}

#[test]
fn under_overload_every_call_is_answered_and_the_session_survives() {
    // Room for few requests of one client: most of what follows is answered with Busy and comes again.
    let settings = Settings { client_pending_bytes_max: 512 << 10, ..Settings::default() };
    let cluster = TestCluster::start(Plan { settings, ..Plan::default() });
    let client = Client::connect(&config(&cluster, 0)).unwrap();
    let mut large = vec![0; 100 << 10];
    large[0] = 1;
    let calls: Vec<_> = (0..100).map(|_| client.start(large.clone())).collect();
    for call in calls {
        // The counter takes operations of eight bytes for numbers, others for zero.
        assert_eq!(number(&call.wait().unwrap()), 0);
    }
    assert_eq!(number(&client.invoke(one()).unwrap()), 1);
}

#[test]
fn an_oversized_request_is_refused_and_everybody_lives() {
    let cluster = TestCluster::start(Plan::default());
    let bytes_max = cluster.cluster.settings().request_bytes_max;
    // The client knows the limit and does not send.
    let client = Client::connect(&config(&cluster, 0)).unwrap();
    let refused = client.invoke(vec![0; bytes_max + 1]).unwrap_err();
    assert!(matches!(refused, ClientError::TooLarge { .. }), "{refused}");
    // One that sends all the same is told, and its session goes on.
    let mut session = Session::open(&cluster, client_key(1), 1);
    let outcome = session.invoke(1, &vec![0; bytes_max + 1]);
    assert_eq!(outcome, Outcome::Refused(Refusal::TooLarge));
    session.next = 1;
    assert_eq!(session.add(1), 1);
    assert_eq!(number(&client.invoke(one()).unwrap()), 2);
    (0..4).for_each(|id| assert_eq!(cluster.status(id).state, "normal"));
}

#[test]
fn an_asynchronous_client_is_served_alike() {
    let cluster = TestCluster::start(Plan::default());
    run(async {
        let client = AsyncClient::connect(config(&cluster, 0)).await.unwrap();
        let calls: Vec<_> = (0..100).map(|_| client.start(one())).collect();
        let mut sums = Vec::new();
        for call in calls {
            sums.push(number(&call.await.unwrap()));
        }
        sums.sort_unstable();
        assert!(sums.into_iter().eq(1..=100));
    });
}
