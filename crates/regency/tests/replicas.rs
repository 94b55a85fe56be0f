//! Four real replicas in one process: they order, answer, heal their lines, and know when they lost their votes.

mod harness;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use harness::channel::Channel;
use harness::cluster::{Counter, Plan, TestCluster, client_key, replica_key};
use harness::session::Session;
use harness::{PATIENCE, eventually};
use regency::client::{ClientConfig, ClientError, blocking};
use regency::protocol::ids::ReplicaId;
use regency::protocol::view::{Member, RequestAuth, View, ViewParts};
use regency::replica::Life;
use regency::transport::Role;
use regency::{Bytes, Context, ErrorCode, Replica, RestoreError, Service, Snapshot};

fn client(cluster: &TestCluster, number: u8) -> blocking::Client {
    blocking::Client::connect(&client_config(cluster, number)).unwrap()
}

fn client_config(cluster: &TestCluster, number: u8) -> ClientConfig {
    let settings = cluster.cluster.settings().clone();
    ClientConfig::new(cluster.cluster.view().clone(), settings, client_key(number))
}

fn add(client: &blocking::Client, delta: u64) -> u64 {
    let sum = client.invoke(delta.to_le_bytes().to_vec()).unwrap();
    u64::from_le_bytes(sum.as_ref().try_into().unwrap())
}

/// Waits until the replicas have executed the same instance with the same chain.
fn agree(cluster: &TestCluster, replicas: &[u16]) {
    eventually("the replicas agree", || {
        let chains: Vec<_> =
            replicas.iter().map(|id| cluster.status(*id)).map(|s| (s.executed, s.chain)).collect();
        chains.windows(2).all(|pair| pair[0] == pair[1])
    });
}

#[test]
fn four_replicas_order_requests_and_agree() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let cluster = TestCluster::start(Plan { request_auth, ..Plan::default() });
        let mut session = Session::open(&cluster, client_key(0), 1);
        for number in 1..=20 {
            assert_eq!(session.add(1), number);
        }
        agree(&cluster, &[0, 1, 2, 3]);
        for id in 0..4 {
            assert!(cluster.replicas[&id].wait_ready(PATIENCE).ready);
        }
    }
}

#[test]
fn an_open_cluster_serves_any_key_with_both_kinds_of_authentication() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let plan = Plan { clients_are_listed: false, request_auth, ..Plan::default() };
        let cluster = TestCluster::start(plan);
        let mut session = Session::open(&cluster, harness::cluster::stranger_key(), 1);
        for number in 1..=5 {
            assert_eq!(session.add(4), 4 * number);
        }
        agree(&cluster, &[0, 1, 2, 3]);
    }
}

/// Behaviour 5: a replica that answers in another's place is not taken for it, so it makes no quorum alone.
#[test]
fn one_replica_cannot_answer_under_several_ids() {
    let cluster = TestCluster::start(Plan::default());
    let view = cluster.view();
    let real = cluster.address(1).to_string();
    // Every address of the view leads to replica 1, by way of relays: addresses must differ.
    let relays: Vec<std::net::TcpListener> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut addresses: Vec<String> =
        relays.iter().map(|relay| relay.local_addr().unwrap().to_string()).collect();
    addresses.insert(1, real.clone());
    for relay in relays {
        let real = real.clone();
        std::thread::spawn(move || {
            for socket in relay.incoming().map_while(Result::ok) {
                let Ok(onward) = std::net::TcpStream::connect(&real) else { return };
                let (mut a, mut b) = (socket.try_clone().unwrap(), onward.try_clone().unwrap());
                let (mut c, mut d) = (onward, socket);
                std::thread::spawn(move || std::io::copy(&mut a, &mut b));
                std::thread::spawn(move || std::io::copy(&mut c, &mut d));
            }
        });
    }
    let members = view
        .members()
        .iter()
        .zip(addresses)
        .map(|(member, address)| Member { address, ..member.clone() })
        .collect();
    let detour = View::new(ViewParts {
        cluster: view.cluster(),
        id: view.id(),
        mode: view.mode(),
        faults: view.faults(),
        members,
        clients: view.clients().clone(),
        request_auth: view.request_auth(),
    });
    let settings = cluster.cluster.settings().clone();
    let mut config = ClientConfig::new(Arc::new(detour.unwrap()), settings, client_key(0));
    config.deadline = Duration::from_secs(5);
    let outcome =
        blocking::Client::connect(&config).and_then(|client| client.invoke(1_u64.to_le_bytes().to_vec()));
    assert!(outcome.is_err(), "one replica alone made a quorum: {outcome:?}");
    assert_eq!(add(&client(&cluster, 1), 2), 2, "nothing was executed but this");
}

/// Behaviour 15.
#[test]
fn connections_reset_in_mid_instance_heal_at_once() {
    let cluster = TestCluster::start(Plan::default());
    let load = client(&cluster, 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| {
            let (mut sum, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(add(&load, 1), sum + 1);
                slowest = slowest.max(begun.elapsed());
                sum += 1;
            }
            (sum, slowest)
        });
        for round in 0..40_u16 {
            // Whoever holds a member's key displaces its line; when it goes, the member calls again.
            let (victim, at) = (1 + round % 3, round % (1 + round % 3));
            let line = Channel::open(&cluster, at, &replica_key(victim), Role::Replica(ReplicaId(victim)));
            drop(line.unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        let (sum, slowest) = loader.join().unwrap();
        assert!(sum > 20, "only {sum} operations");
        assert!(slowest < Duration::from_secs(3), "an operation took {slowest:?}");
    });
    cluster.wait_connected();
    add(&load, 0);
    agree(&cluster, &[0, 1, 2, 3]);
}

/// Behaviour 17, first part.
#[test]
fn a_client_that_starts_before_its_replicas_is_served_when_they_are_there() {
    let mut cluster = TestCluster::new(Plan::default());
    let config = ClientConfig { deadline: PATIENCE, ..client_config(&cluster, 0) };
    std::thread::scope(|scope| {
        let early = scope.spawn(|| add(&blocking::Client::connect(&config).unwrap(), 3));
        // The replicas come one by one, in an odd order; the first three make a quorum.
        for id in [3, 0, 2, 1] {
            cluster.start_replica(id);
        }
        assert_eq!(early.join().unwrap(), 3);
    });
}

/// Behaviour 17, second part.
#[test]
fn one_key_used_twice_at_once_and_a_restarted_client_are_served() {
    let cluster = TestCluster::start(Plan::default());
    let (first, second) = (client(&cluster, 0), client(&cluster, 0));
    std::thread::scope(|scope| {
        for client in [&first, &second] {
            scope.spawn(move || (0..50).for_each(|_| assert!(add(client, 1) > 0)));
        }
    });
    assert_eq!(add(&first, 0), 100);
    drop(first);
    let restarted = client(&cluster, 0);
    assert_eq!(add(&restarted, 1), 101);
    assert_eq!(add(&second, 1), 102);
}

#[test]
fn three_of_four_serve_and_a_replica_that_lost_its_votes_says_so() {
    let mut cluster = TestCluster::start(Plan::default());
    let load = client(&cluster, 0);
    assert_eq!(add(&load, 1), 1);
    cluster.stop_replica(3);
    assert_eq!(add(&load, 1), 2, "f replicas may be down");
    cluster.start_replica(3);
    let again = &cluster.replicas[&3];
    assert_eq!(again.life(), Life::VotesLost);
    cluster.wait_connected();
    assert_eq!(add(&load, 1), 3);
    assert_eq!(cluster.status(3).state, "state-lost");
    let readiness = again.wait_ready(Duration::from_millis(100));
    assert!(!readiness.ready && readiness.reason.unwrap().contains("state-lost"));
    // It follows all the same, from the first instance on.
    agree(&cluster, &[0, 1, 2, 3]);
}

#[test]
fn without_a_quorum_calls_end_at_their_deadline_and_readiness_says_why() {
    let mut cluster = TestCluster::start(Plan::default());
    let load = client(&cluster, 0);
    assert_eq!(add(&load, 1), 1);
    cluster.stop_replica(2);
    cluster.stop_replica(3);
    let call = load.invoke_with_deadline(1_u64.to_le_bytes().to_vec(), Duration::from_millis(500));
    assert!(matches!(&call, Err(error) if ClientError::may_be_executed(error)), "{call:?}");
    eventually("replica 0 is not ready", || !cluster.status(0).readiness.ready);
    let reason = cluster.status(0).readiness.reason.unwrap();
    assert_eq!(reason, "connected to 1 other replicas, 2 are needed for a quorum");
}

#[test]
fn a_port_or_directory_in_use_is_an_error_that_names_the_process() {
    let mut cluster = TestCluster::start(Plan::default());
    let start = |config| Replica::builder(config).service(Counter::default()).start().err().unwrap();
    let same = start(cluster.config(0));
    assert_eq!(same.code(), ErrorCode::DirectoryInUse);
    let mut elsewhere = cluster.config(0);
    elsewhere.data = elsewhere.data.join("other");
    let port = start(elsewhere);
    assert_eq!(port.code(), ErrorCode::AddressInUse);
    assert!(port.to_string().contains(&format!("process {}", std::process::id())), "{port}");
    cluster.stop_replica(0);
    let mut foreign = cluster.config(1);
    foreign.data = cluster.config(0).data;
    assert_eq!(start(foreign).code(), ErrorCode::WrongReplica);
}

/// A counter whose replica can be made to stand still.
struct Gated(Counter, Arc<(Mutex<bool>, Condvar)>);

impl Service for Gated {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        let (is_closed, opened) = &*self.1;
        let held = is_closed.lock().unwrap();
        drop(opened.wait_while(held, |is_closed| *is_closed).unwrap());
        self.0.execute(context, operation)
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0.restore(source)
    }
}

#[test]
fn a_replica_that_stands_still_costs_the_others_bounded_memory() {
    let mut cluster = TestCluster::new(Plan::default());
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    (0..3).for_each(|id| cluster.start_replica(id));
    cluster.start_replica_with(3, Gated(Counter::default(), gate.clone()));
    cluster.wait_connected();
    let load = client(&cluster, 0);
    add(&load, 1);
    *gate.0.lock().unwrap() = true;
    let resident = |cluster: &TestCluster| cluster.status(0).resident_bytes;
    let payload = vec![0; 60_000];
    let push = |count: usize| {
        let calls: Vec<_> = (0..count).map(|_| load.start(payload.clone())).collect();
        calls.into_iter().for_each(|call| drop(call.wait().unwrap()));
    };
    // What three replicas retain for stragglers is full after the first 48 MiB.
    (0..40).for_each(|_| push(20));
    let before = resident(&cluster);
    (0..80).for_each(|_| push(20));
    let grown = resident(&cluster).saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB more after 96 MB of requests", grown >> 20);
    *gate.0.lock().unwrap() = false;
    gate.1.notify_all();
    eventually("it answers again", || cluster.replicas[&3].status(PATIENCE).is_ok());
}

#[test]
fn the_admin_port_tells_status_metrics_and_readiness() {
    let cluster = TestCluster::start(Plan::default());
    add(&client(&cluster, 0), 1);
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(cluster.replicas[&0].admin_address().unwrap()).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let status = get("/status");
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    for field in ["\"state\":\"normal\"", "\"leader\":0", "\"chain\":\"", "\"pid\":", "\"resident_bytes\":"] {
        assert!(status.contains(field), "{field}: {status}");
    }
    assert!(get("/healthz").contains("{\"alive\":true}"));
    assert!(get("/readyz").contains("{\"ready\":true,\"reason\":null}"));
    let metrics = get("/metrics");
    assert!(metrics.contains("regency_operations_total{replica=\"0\"} 1"), "{metrics}");
    assert!(metrics.contains("regency_peer_connections{replica=\"0\"} 3"), "{metrics}");
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
}
