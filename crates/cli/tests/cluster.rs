//! Real processes: a cluster started, called, measured, hurt and stopped through the command line alone.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// A replica's admin port is this far above its own.
const ADMIN_DISTANCE: u16 = 100;

fn regency() -> Command {
    Command::new(env!("CARGO_BIN_EXE_regency"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Ports of one cluster: its replicas' from the first one, their admin ports 100 above, and some more.
const PORTS_PER_CLUSTER: u16 = 200;
/// The lowest port that is used. All are below the range that connections get, so that none of these is in the way.
const PORT_FIRST: u16 = 10_000;
/// So many clusters have ports.
const CLUSTERS_MAX: u16 = 100;

/// A base port whose replica and admin ports are all free; no other test of this process gets the same.
fn free_base_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Other processes begin elsewhere.
    let start = u16::try_from(std::process::id() % u32::from(CLUSTERS_MAX)).unwrap();
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < CLUSTERS_MAX, "no ports are free");
        let base = PORT_FIRST + (start + taken) % CLUSTERS_MAX * PORTS_PER_CLUSTER;
        if (0..8).all(|n| is_free(base + n) && is_free(base + n + ADMIN_DISTANCE)) {
            return base;
        }
    }
}

/// A running `regency cluster` in a directory of its own.
struct Cluster {
    root: PathBuf,
    process: Child,
    ready: String,
}

/// A directory for one test.
fn scratch(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("regency-run-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    root
}

impl Cluster {
    fn start(name: &str, flags: &[&str]) -> Self {
        // Ports are looked for and bound by different processes: somebody may have taken one meanwhile.
        for attempt in 0..5 {
            let root = scratch(&format!("{name}-{attempt}"));
            if let Some(cluster) = Self::try_start(root, free_base_port(), flags) {
                return cluster;
            }
        }
        panic!("the cluster does not start");
    }

    fn try_start(root: PathBuf, base_port: u16, flags: &[&str]) -> Option<Self> {
        let mut process = regency()
            .args(["cluster", "demo", "--no-ui", "--base-port", &base_port.to_string()])
            .args(flags)
            .current_dir(&root)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(root.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if !ready.starts_with("ready ") {
            let _ = process.wait();
            return None;
        }
        Some(Self { root, process, ready })
    }

    fn directory(&self) -> PathBuf {
        self.root.join("demo")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        regency().args(arguments).current_dir(&self.root).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        stdout(&output)
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "demo", "--json"])).unwrap()
    }

    /// Waits until the status is as it should be.
    fn wait_until(&self, is_as_expected: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_as_expected(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{status}");
        }
    }

    fn pids(&self) -> Vec<String> {
        let status = self.status();
        let replicas = status["replicas"].as_array().unwrap();
        replicas.iter().map(|row| row["pid"].as_u64().unwrap().to_string()).collect()
    }

    /// Asks it to stop and waits for its end; the directory stays, for a next one.
    fn stop(mut self) -> (PathBuf, i32) {
        signal("-TERM", &self.process.id().to_string());
        let status = self.process.wait().unwrap();
        (std::mem::take(&mut self.root), status.code().unwrap())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The children end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

fn is_running(pid: &str) -> bool {
    // A zombie has ended, whoever has not waited for it yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn wait_for_end(pids: &[String]) {
    let until = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| is_running(pid)) {
        assert!(Instant::now() < until, "{pids:?} outlive their parent");
        std::thread::yield_now();
    }
}

fn bench(cluster: &Cluster, flags: &[&str]) -> Value {
    let mut arguments =
        vec!["bench", "demo", "--clients", "4", "--warmup", "100ms", "--duration", "500ms", "--json"];
    arguments.extend(flags);
    serde_json::from_str(&cluster.ok(&arguments)).unwrap()
}

#[test]
fn a_counter_cluster_counts_and_stops_with_all_its_children() {
    let cluster = Cluster::start("counter", &["--service", "counter", "--durability", "none"]);
    assert_eq!(cluster.ready, "ready replicas=4\n");
    assert_eq!(cluster.ok(&["counter", "demo", "add", "5"]), "5\n");
    assert_eq!(cluster.ok(&["counter", "demo", "add", "-7"]), "-2\n");
    assert_eq!(cluster.ok(&["counter", "demo", "get"]), "-2\n");
    let wrong = cluster.run(&["kv", "demo", "get", "k"]);
    assert_eq!(wrong.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&wrong.stderr).starts_with("E125 "), "{wrong:?}");
    let measured = bench(&cluster, &["--workload", "counter", "--read-percent", "50"]);
    assert!(measured["operations"].as_u64().unwrap() > 0, "{measured}");
    let pids = cluster.pids();
    let (root, status) = cluster.stop();
    assert_eq!(status, 0);
    wait_for_end(&pids);

    // Everything was in memory: to go on as if nothing had happened would be unsafe.
    let again = regency().args(["cluster", "demo", "--no-ui"]).current_dir(&root).output().unwrap();
    assert_eq!(again.status.code(), Some(7), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--fresh"), "{again:?}");
    let key = fs::read(root.join("demo/replica-2/key")).unwrap();
    let base_port = base_port_of(&root);
    let fresh = Cluster::try_start(root.clone(), base_port, &["--fresh"]).unwrap();
    assert_eq!(fresh.ok(&["counter", "demo", "get"]), "0\n");
    assert_eq!(fs::read(fresh.directory().join("replica-2/key")).unwrap(), key);
}

/// The base port that a directory was made with.
fn base_port_of(root: &Path) -> u16 {
    let text = fs::read_to_string(root.join("demo/cluster.toml")).unwrap();
    let (_, rest) = text.split_once("address = \"127.0.0.1:").unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn the_key_value_service_answers_the_command_line_and_redis() {
    let redis = free_base_port() + 7;
    let address = format!("127.0.0.1:{redis}");
    let cluster = Cluster::start("kv", &["--redis", &address]);
    assert_eq!(cluster.ready, format!("ready replicas=4 redis={address}\n"));
    let next = fs::read_to_string(cluster.root.join("stderr")).unwrap();
    assert!(next.contains("redis-cli") && next.contains("kv demo get greeting"), "{next}");

    cluster.ok(&["kv", "demo", "put", "greeting", "hello"]);
    assert_eq!(cluster.ok(&["kv", "demo", "get", "greeting"]), "hello\n");
    let absent = cluster.run(&["kv", "demo", "get", "nobody"]);
    assert_eq!((absent.status.code(), absent.stdout.len(), absent.stderr.len()), (Some(1), 0, 0));
    assert_eq!(cluster.ok(&["kv", "demo", "increment", "visits"]), "1\n");
    assert_eq!(cluster.ok(&["kv", "demo", "increment", "visits", "41"]), "42\n");
    cluster.ok(&["kv", "demo", "cas", "greeting", "hello", "goodbye"]);
    assert_eq!(cluster.run(&["kv", "demo", "cas", "greeting", "hello", "again"]).status.code(), Some(1));
    assert_eq!(cluster.ok(&["kv", "demo", "scan"]), "greeting\tgoodbye\nvisits\t42\n");
    assert_eq!(cluster.ok(&["kv", "demo", "scan", "vis"]), "visits\t42\n");
    cluster.ok(&["kv", "demo", "delete", "visits"]);
    assert_eq!(cluster.ok(&["kv", "demo", "count"]), "1\n");

    let users: String = (0..3000).map(|n| format!("user:{n:04}\tname {n}\n")).collect();
    fs::write(cluster.root.join("users.tsv"), &users).unwrap();
    cluster.ok(&["kv", "demo", "load", "users.tsv"]);
    assert_eq!(cluster.ok(&["kv", "demo", "scan", "user:"]), users);

    let mut interactive = regency()
        .args(["kv", "demo"])
        .current_dir(&cluster.root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "put \"two words\" 'a b'\nget \"two words\"\nget nobody\nquit\n";
    interactive.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = interactive.wait_with_output().unwrap();
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("a b\n", Some(1)));

    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"SET via redis\r\nGET via\r\nQUIT\r\n").unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "+OK\r\n$5\r\nredis\r\n+OK\r\n");
    assert_eq!(cluster.ok(&["kv", "demo", "get", "via"]), "redis\n");

    let measured = bench(&cluster, &["--workload", "ycsb-a", "--records", "100"]);
    assert!(measured["operations"].as_u64().unwrap() > 0, "{measured}");
    let unfit = cluster.run(&["bench", "demo", "--duration", "1s"]);
    assert_eq!(unfit.status.code(), Some(6), "{unfit:?}");
}

#[test]
fn a_cluster_serves_with_one_replica_killed_and_knows_it() {
    let cluster = Cluster::start("killed", &["--service", "counter"]);
    cluster.ok(&["status", "demo", "--check"]);
    let pids = cluster.pids();
    signal("-KILL", &pids[3]);
    let status = cluster.wait_until(|status| status["replicas"][3]["reachable"] == false);
    for field in ["state", "view", "decided", "chain", "pid", "resident_bytes"] {
        assert_eq!(status["replicas"][3][field], Value::Null, "{status}");
    }
    let checked = cluster.run(&["status", "demo", "--check"]);
    assert_eq!(checked.status.code(), Some(4), "{checked:?}");
    assert_eq!(cluster.ok(&["counter", "demo", "add", "1"]), "1\n");

    let mut again = regency()
        .args(["replica", "demo/replica-3"])
        .current_dir(&cluster.root)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    cluster.wait_until(|status| status["replicas"][3]["state"] == "normal");
    assert_eq!(cluster.ok(&["counter", "demo", "add", "1"]), "2\n");
    cluster.ok(&["status", "demo", "--check"]);
    signal("-TERM", &again.id().to_string());
    assert_eq!(again.wait().unwrap().code(), Some(0));
    let told = fs::read_to_string(cluster.root.join("stderr")).unwrap();
    assert!(told.contains("E127 replica 3 ended by itself"), "{told}");
}

#[test]
fn children_end_with_a_parent_that_is_killed() {
    let mut cluster = Cluster::start("orphans", &["--service", "null"]);
    let pids = cluster.pids();
    assert_eq!(pids.len(), 4);
    cluster.process.kill().unwrap();
    cluster.process.wait().unwrap();
    wait_for_end(&pids);
}

#[test]
fn a_client_may_come_before_the_replicas_and_never_hangs() {
    let root = scratch("early");
    let base_port = free_base_port();
    let flags = ["--service", "counter", "--base-port", &base_port.to_string()];
    assert!(
        regency().args(["init", "demo"]).args(flags).current_dir(&root).output().unwrap().status.success()
    );

    let alone = regency().args(["counter", "demo", "get"]).current_dir(&root).output().unwrap();
    assert_eq!(alone.status.code(), Some(3), "{alone:?}");
    assert!(String::from_utf8_lossy(&alone.stderr).starts_with("E112 no quorum"), "{alone:?}");

    let early = regency()
        .args(["counter", "demo", "add", "3"])
        .current_dir(&root)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let cluster = Cluster::try_start(root, base_port, &[]).expect("the cluster starts");
    let output = early.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "3\n", "{output:?}");
    drop(cluster);
}

#[test]
fn the_benchmark_prints_its_figures() {
    let cluster = Cluster::start("bench", &["--service", "null", "--request-auth", "channel"]);
    let record = cluster.root.join("record");
    let flags =
        ["--connections", "shared", "--in-flight", "4", "--request-bytes", "10", "--reply-bytes", "20"];
    let measured = bench(&cluster, &[&flags[..], &["--record", record.to_str().unwrap()]].concat());
    let expected = [
        ("workload", Value::from("null")),
        ("connections", Value::from("shared")),
        ("clients", Value::from(4)),
        ("in_flight", Value::from(4)),
        ("request_bytes", Value::from(10)),
        ("reply_bytes", Value::from(20)),
        ("errors", Value::from(0)),
        ("replicas", Value::from(4)),
        ("durability", Value::from("sync")),
        ("request_auth", Value::from("channel")),
    ];
    for (field, value) in expected {
        assert_eq!(measured[field], value, "{field}: {measured}");
    }
    for field in ["seconds", "throughput", "longest_gap_ms", "replica_resident_bytes_max"] {
        assert!(measured[field].as_f64().unwrap() > 0.0, "{field}: {measured}");
    }
    for field in ["mean", "p50", "p99", "p999", "max"] {
        assert!(measured["latency_us"][field].as_f64().unwrap() > 0.0, "{field}: {measured}");
    }
    assert!(measured["cpu_seconds"]["replicas"].is_number() && measured["cpu_seconds"]["client"].is_number());
    let operations = measured["operations"].as_u64().unwrap();
    let timeline: u64 = measured["timeline"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    assert!(operations > 0 && timeline <= operations && timeline * 10 > operations * 9, "{measured}");
    let recorded = fs::read_to_string(record).unwrap();
    assert!(recorded.lines().count() as u64 >= operations);
    let first: Value = serde_json::from_str(recorded.lines().next().unwrap()).unwrap();
    assert!(first["end_us"].as_u64() >= first["begin_us"].as_u64(), "{first}");

    let paced = bench(&cluster, &["--rate", "200"]);
    let rate = paced["throughput"].as_f64().unwrap();
    assert!((rate - 200.0).abs() < 40.0, "{paced}");
    let single = bench(&cluster, &["--connections", "per-client"]);
    assert_eq!((&single["errors"], &single["connections"]), (&Value::from(0), &Value::from("per-client")));
    let over = cluster.run(&["bench", "demo", "--in-flight", "4096"]);
    assert_eq!(over.status.code(), Some(2), "{over:?}");
}

#[test]
fn a_replica_whose_port_is_taken_says_by_whom() {
    let root = scratch("port");
    let base_port = free_base_port();
    let taken = TcpListener::bind(("127.0.0.1", base_port)).unwrap();
    let output = regency()
        .args(["cluster", "demo", "--no-ui", "--base-port", &base_port.to_string()])
        .current_dir(&root)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{told}");
    let expected = format!("E105 address 127.0.0.1:{base_port} is in use by process {}", std::process::id());
    assert!(told.contains(&expected), "{told}");
    drop(taken);
    fs::remove_dir_all(&root).unwrap();
}
