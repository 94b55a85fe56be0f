//! Clients of a real cluster: four replicas in this process that agree on every call.

use std::io::Read;
use std::time::Duration;

use regency::client::{Client, ClientError, Connections, blocking};
use regency::crypto::SigningKey;
use regency::protocol::ids::{ClusterId, ReplicaId};
use regency::protocol::view::{RequestAuth, View, ViewParts};
use regency::transport::RefusalCode;
use regency::{Bytes, Context, Frozen, LocalCluster, LocalPlan, RestoreError, Service, Snapshot};

/// Adds what it is given; answers with the sum.
struct Counter(u64);

impl Service for Counter {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        self.0 += operation.try_into().map_or(0, u64::from_le_bytes);
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Frozen::image(self.0.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0 = u64::from_le_bytes(Frozen::read(source)?);
        Ok(())
    }
}

fn counters(request_auth: RequestAuth) -> LocalCluster {
    let plan = LocalPlan { request_auth, ..LocalPlan::default() };
    LocalCluster::start_as(plan, || Counter(0)).unwrap()
}

fn one() -> Vec<u8> {
    1_u64.to_le_bytes().to_vec()
}

fn number(result: Result<Bytes, ClientError>) -> u64 {
    u64::from_le_bytes(result.unwrap()[..].try_into().unwrap())
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_thousand_calls_in_flight_are_each_executed_once() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let cluster = counters(request_auth);
        run(async {
            let client = Client::connect(cluster.client()).await.unwrap();
            let calls: Vec<_> = (0..1000).map(|_| client.start(one())).collect();
            let mut sums = vec![];
            for call in calls {
                sums.push(number(call.await));
            }
            sums.sort_unstable();
            assert!(sums.into_iter().eq(1..=1000), "each sum is seen once");
            client.close().await;
        });
        let client = blocking::Client::connect(&cluster.client()).unwrap();
        let calls: Vec<_> = (0..1000).map(|_| client.start(one())).collect();
        let mut sums: Vec<_> = calls.into_iter().map(|call| number(call.wait())).collect();
        sums.sort_unstable();
        assert!(sums.into_iter().eq(1001..=2000));
    }
}

#[test]
fn sessions_with_connections_of_their_own_work_on_one_state() {
    let cluster = counters(RequestAuth::Channel);
    let mut config = cluster.client();
    config.connections = Connections::PerSession;
    config.sessions = 8;
    let client = blocking::Client::connect(&config).unwrap();
    let calls: Vec<_> = (0..200).map(|_| client.start(one())).collect();
    let highest = calls.into_iter().map(|call| number(call.wait())).max();
    assert_eq!(highest, Some(200));
}

#[test]
fn a_client_that_starts_first_is_served_when_the_replicas_come() {
    let mut cluster = LocalCluster::new(LocalPlan::default()).unwrap();
    let client = Client::start_unconnected(&cluster.client()).unwrap();
    let call = client.start_with_deadline(one(), Duration::from_secs(30));
    for id in cluster.replicas() {
        cluster.run(id, Counter(0)).unwrap();
    }
    assert_eq!(number(run(call)), 1);
}

#[test]
fn a_replica_that_stops_under_load_is_not_missed() {
    let mut cluster = counters(RequestAuth::Signature);
    let client = blocking::Client::connect(&cluster.client()).unwrap();
    let before: Vec<_> = (0..300).map(|_| client.start(one())).collect();
    cluster.stop(ReplicaId(3)).unwrap();
    let after: Vec<_> = (0..300).map(|_| client.start(one())).collect();
    let mut sums: Vec<_> = before.into_iter().chain(after).map(|call| number(call.wait())).collect();
    sums.sort_unstable();
    assert!(sums.into_iter().eq(1..=600));
}

#[test]
fn a_large_operation_goes_through() {
    let cluster = counters(RequestAuth::Signature);
    let client = blocking::Client::connect(&cluster.client()).unwrap();
    assert_eq!(number(client.invoke(vec![0; 200_000])), 0);
}

#[test]
fn a_stranger_and_a_client_of_another_cluster_are_told_before_the_deadline() {
    let cluster = counters(RequestAuth::Signature);
    let mut stranger = cluster.client();
    stranger.key = SigningKey::from_seed([250; 32]);
    let error = blocking::Client::connect(&stranger).err().unwrap();
    assert!(matches!(error, ClientError::NotAdmitted { code: RefusalCode::UnknownClient, .. }), "{error}");

    let mut lost = cluster.client();
    let view = &lost.view;
    let parts = ViewParts {
        cluster: ClusterId([1; 32]),
        id: view.id(),
        mode: view.mode(),
        faults: view.faults(),
        members: view.members().to_vec(),
        clients: view.clients().clone(),
        request_auth: view.request_auth(),
    };
    lost.view = std::sync::Arc::new(View::new(parts).unwrap());
    let error = blocking::Client::connect(&lost).err().unwrap();
    assert!(matches!(error, ClientError::NotAdmitted { code: RefusalCode::WrongCluster, .. }), "{error}");
}
