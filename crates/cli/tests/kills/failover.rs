//! A real leader killed, and one paused and resumed, under load: no client sees an error, and every reply is true.

use std::process::Stdio;

use serde_json::Value;

use crate::history;
use crate::processes::{Cluster, eventually, free_base_port, regency};

const CLIENTS: u64 = 20;

/// Runs clients, does something to the leader under their load, and checks what they were told.
fn strike(cluster: &mut Cluster, strike: impl FnOnce(&mut Cluster), alive: usize) {
    let clients = CLIENTS.to_string();
    let mut flags = vec!["bench", "demo", "--clients", &clients, "--workload", "counter", "--json"];
    flags.extend(["--read-percent", "20", "--warmup", "0s", "--duration", "4s", "--record", "record"]);
    let load = regency(&flags, &cluster.root).stdout(Stdio::piped()).spawn().unwrap();
    let is_loaded =
        |row: &Value| row["sessions"].as_u64() >= Some(CLIENTS) && row["executed"].as_u64() > Some(50);
    eventually("clients are served", || cluster.rows().iter().all(is_loaded).then_some(()));
    strike(cluster);
    let output = load.wait_with_output().unwrap();
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["errors"].as_u64(), Some(0), "{measured}");
    let timeline: Vec<u64> =
        measured["timeline"].as_array().unwrap().iter().flat_map(Value::as_u64).collect();
    assert!(timeline[timeline.len() - 10..].iter().sum::<u64>() > 0, "nobody is served: {timeline:?}");
    eventually("the replicas agree", || cluster.is_whole(alive).then_some(()));
    assert!(cluster.regency() > 0, "the leader was changed");
    let last = cluster.output(&["counter", "demo", "get"]).trim().parse().unwrap();
    let told = history::read(&cluster.root.join("record")).unwrap();
    history::check_since(0, told, last).unwrap();
}

#[test]
fn a_killed_leader_is_replaced_under_load_and_every_reply_is_true() {
    let mut cluster = Cluster::start("kill", free_base_port(5_000), &["--durability", "none"]);
    strike(&mut cluster, |cluster| cluster.kill(&[0]), 3);
}

#[test]
fn a_paused_leader_is_replaced_under_load_and_rejoins() {
    let mut cluster = Cluster::start("pause", free_base_port(6_000), &[]);
    let pause = |cluster: &mut Cluster| {
        cluster.signal(0, "-STOP");
        eventually("another leads", || (cluster.regency() > 0).then_some(()));
        cluster.signal(0, "-CONT");
    };
    strike(&mut cluster, pause, 4);
}
