//! Replicas that are killed without a warning and start again: with durability `sync` and `async` they go on from
//! what they have recorded, with `none` they have lost their votes.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::history;
use crate::processes::{Cluster, REPLICAS, eventually, free_base_port, regency};

const CLIENTS: u64 = 10;

/// Clients that add and read for some seconds, each operation on record.
fn load(cluster: &Cluster) -> Child {
    let clients = CLIENTS.to_string();
    let mut flags = vec!["bench", "demo", "--clients", &clients, "--workload", "counter", "--json"];
    // A whole cluster may be away for a moment.
    flags.extend(["--deadline", "60s"]);
    flags.extend(["--read-percent", "20", "--warmup", "0s", "--duration", "5s", "--record", "record"]);
    let load = regency(&flags, &cluster.root).stdout(Stdio::piped()).spawn().unwrap();
    let is_loaded =
        |row: &Value| row["sessions"].as_u64() >= Some(CLIENTS) && row["executed"].as_u64() > Some(50);
    eventually("clients are served", || cluster.rows().iter().all(is_loaded).then_some(()));
    load
}

/// Waits for the clients, and checks that every acknowledged operation is there, once.
fn check(cluster: &Cluster, load: Child) {
    let output = load.wait_with_output().unwrap();
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["errors"].as_u64(), Some(0), "{measured}");
    eventually("the replicas agree", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
    let last = cluster.output(&["counter", "demo", "get"]).trim().parse().unwrap();
    let told = history::read(&cluster.root.join("record")).unwrap();
    history::check_since(0, told, last).unwrap();
}

#[test]
fn a_killed_replica_rejoins_by_itself() {
    let mut cluster = Cluster::start("one", free_base_port(7_200), &[]);
    let load = load(&cluster);
    for id in [3, 0] {
        cluster.kill(&[id]);
        cluster.restart(id);
        let is_back = |row: &Value| row["reachable"] == true && row["state"] == "normal";
        eventually("it is back", || cluster.rows().iter().all(is_back).then_some(()));
    }
    check(&cluster, load);
}

#[test]
fn a_cluster_that_was_killed_has_every_acknowledged_operation() {
    for (name, port, durability) in [("all", 8_200, "sync"), ("all-async", 9_200, "async")] {
        let mut cluster = Cluster::start(name, free_base_port(port), &["--durability", durability]);
        let load = load(&cluster);
        let everybody: Vec<u16> = (0..REPLICAS).collect();
        cluster.kill(&everybody);
        everybody.iter().for_each(|id| cluster.restart(*id));
        check(&cluster, load);
    }
}

#[test]
fn a_cold_start_without_f_replicas_serves_and_the_last_one_follows() {
    let mut cluster = Cluster::start("cold", free_base_port(3_000), &[]);
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "5\n");
    let everybody: Vec<u16> = (0..REPLICAS).collect();
    cluster.kill(&everybody);
    everybody[1..].iter().for_each(|id| cluster.restart(*id));
    eventually("three serve", || cluster.is_whole(3).then_some(()));
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "10\n");
    cluster.restart(0);
    eventually("all serve", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
}

#[test]
fn a_replica_without_room_on_its_disk_does_not_vote_and_says_so() {
    let mut cluster = Cluster::start("full", free_base_port(2_000), &[]);
    cluster.kill(&[3]);
    let file = cluster.root.join("demo/replica-3/replica.toml");
    let ample = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{ample}disk_reserve_bytes = {}\n", i64::MAX)).unwrap();
    cluster.restart(3);
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "5\n");
    let reason = |cluster: &Cluster| cluster.rows()[3]["readiness"]["reason"].as_str().map(str::to_owned);
    eventually("it says why", || reason(&cluster).filter(|reason| reason.starts_with("E135 ")));
    cluster.kill(&[3]);
    fs::write(&file, ample).unwrap();
    cluster.restart(3);
    eventually("all serve", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "10\n");
}

#[test]
fn without_durability_a_killed_replica_asks_what_it_voted_for_and_takes_part_again() {
    let mut cluster = Cluster::start("none", free_base_port(4_000), &["--durability", "none"]);
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "5\n");
    cluster.kill(&[2]);
    cluster.restart(2);
    eventually("all serve", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
    assert_eq!(cluster.output(&["counter", "demo", "add", "5"]), "10\n");
    let executed = |id: usize| cluster.rows()[id]["executed"].as_u64();
    eventually("it follows", || (executed(2) == executed(0)).then_some(()));
}
