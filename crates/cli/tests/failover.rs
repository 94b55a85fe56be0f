//! A real leader killed, and one paused and resumed, under load: no client sees an error, and every reply is true.

#[path = "../../../xtask/src/failover/history.rs"]
mod history;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const REPLICAS: u16 = 4;
const CLIENTS: u64 = 20;

/// Replica processes in a directory of their own.
struct Cluster {
    root: PathBuf,
    replicas: Vec<Child>,
}

fn regency(arguments: &[&str], root: &PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regency"));
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Cluster {
    fn start(name: &str, base_port: u16) -> Self {
        let root = std::env::temp_dir().join(format!("regency-failover-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let port = base_port.to_string();
        let flags = ["init", "demo", "--service", "counter", "--base-port", &port];
        assert!(regency(&flags, &root).status().unwrap().success());
        let start = |id: u16| regency(&["replica", &format!("demo/replica-{id}")], &root).spawn().unwrap();
        let cluster = Self { replicas: (0..REPLICAS).map(start).collect(), root };
        eventually("all replicas serve", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
        cluster
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = regency(arguments, &self.root).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn rows(&self) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.output(&["status", "demo", "--json"])).unwrap();
        status["replicas"].as_array().unwrap().clone()
    }

    /// Whether so many replicas take part, in one regency and with one history.
    fn is_whole(&self, alive: usize) -> bool {
        let rows = self.rows();
        let rows: Vec<_> = rows.iter().filter(|row| row["reachable"] == true).collect();
        let is_same = |key: &str| rows.windows(2).all(|pair| pair[0][key] == pair[1][key]);
        rows.len() == alive
            && rows.iter().all(|row| row["state"] == "normal")
            && ["regency", "executed", "chain"].iter().all(|key| is_same(key))
    }

    fn regency(&self) -> u64 {
        self.rows().iter().filter_map(|row| row["regency"].as_u64()).max().unwrap()
    }

    fn signal(&self, replica: usize, name: &str) {
        let pid = self.replicas[replica].id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Runs clients, does something to the leader under their load, and checks what they were told.
    fn strike(&self, strike: impl FnOnce(&Self), alive: usize) {
        let clients = CLIENTS.to_string();
        let mut flags = vec!["bench", "demo", "--clients", &clients, "--workload", "counter", "--json"];
        flags.extend(["--read-percent", "20", "--warmup", "0s", "--duration", "4s", "--record", "record"]);
        let load = regency(&flags, &self.root).stdout(Stdio::piped()).spawn().unwrap();
        let is_loaded =
            |row: &Value| row["sessions"].as_u64() >= Some(CLIENTS) && row["executed"].as_u64() > Some(50);
        eventually("clients are served", || self.rows().iter().all(is_loaded).then_some(()));
        strike(self);
        let output = load.wait_with_output().unwrap();
        let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(measured["errors"].as_u64(), Some(0), "{measured}");
        let timeline: Vec<u64> =
            measured["timeline"].as_array().unwrap().iter().flat_map(Value::as_u64).collect();
        assert!(timeline[timeline.len() - 10..].iter().sum::<u64>() > 0, "nobody is served: {timeline:?}");
        eventually("the replicas agree", || self.is_whole(alive).then_some(()));
        assert!(self.regency() > 0, "the leader was changed");
        let last = self.output(&["counter", "demo", "get"]).trim().parse().unwrap();
        let record = fs::read_to_string(self.root.join("record")).unwrap();
        history::check(&history::parse(&record).unwrap(), last).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            let _ = replica.kill();
            let _ = replica.wait();
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A base port whose replica and admin ports are free; the two tests look in different places.
fn free_base_port(first: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = first + u16::try_from(std::process::id() % 10).unwrap() * 200;
    let mut candidates = (begin..first + 2000).step_by(200).chain((first..begin).step_by(200));
    candidates.find(|base| (0..REPLICAS).all(|n| is_free(base + n) && is_free(base + 100 + n))).unwrap()
}

#[test]
fn a_killed_leader_is_replaced_under_load_and_every_reply_is_true() {
    let cluster = Cluster::start("kill", free_base_port(5_000));
    cluster.strike(|cluster| cluster.signal(0, "-KILL"), 3);
}

#[test]
fn a_paused_leader_is_replaced_under_load_and_rejoins() {
    let cluster = Cluster::start("pause", free_base_port(7_200));
    let pause = |cluster: &Cluster| {
        cluster.signal(0, "-STOP");
        eventually("another leads", || (cluster.regency() > 0).then_some(()));
        cluster.signal(0, "-CONT");
    };
    cluster.strike(pause, 4);
}
