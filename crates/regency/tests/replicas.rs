//! Four real replicas in one process: they order, answer, reconnect, and know when they lost their votes.

mod harness;

use harness::cluster::{Plan, TestCluster, client_key};
use harness::session::Session;
use harness::{PATIENCE, eventually};
use regency::protocol::view::RequestAuth;

#[test]
fn four_replicas_order_requests_and_agree() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let cluster = TestCluster::start(Plan { request_auth, ..Plan::default() });
        let mut session = Session::open(&cluster, client_key(0), 1);
        for number in 1..=20 {
            assert_eq!(session.add(1), number);
        }
        let ahead = cluster.status(0).executed.max(cluster.status(1).executed);
        for id in 0..4 {
            eventually("every replica executes everything", || cluster.status(id).executed >= ahead);
            assert!(cluster.replicas[&id].wait_ready(PATIENCE).ready);
        }
        let chains: Vec<_> = (0..4).map(|id| cluster.status(id)).map(|s| (s.executed, s.chain)).collect();
        assert!(chains.windows(2).all(|pair| pair[0] == pair[1]), "{chains:?}");
    }
}
