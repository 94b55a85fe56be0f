//! Replica processes of one cluster in a directory of its own, that tests kill, pause and start again.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many replicas a cluster has.
pub(crate) const REPLICAS: u16 = 4;

/// The processes, by replica.
pub(crate) struct Cluster {
    pub(crate) root: PathBuf,
    replicas: Vec<Child>,
}

/// A call of the program that says nothing.
pub(crate) fn regency(arguments: &[&str], root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regency"));
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Looks until something is to be seen.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
    /// A counter cluster with these flags of `init`, in which everybody serves.
    pub(crate) fn start(name: &str, base_port: u16, flags: &[&str]) -> Self {
        let root = std::env::temp_dir().join(format!("regency-kills-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let port = base_port.to_string();
        let init = [&["init", "demo", "--service", "counter", "--base-port", &port], flags].concat();
        assert!(regency(&init, &root).status().unwrap().success());
        let replicas = (0..REPLICAS).map(|id| spawn(&root, id)).collect();
        let cluster = Self { replicas, root };
        eventually("all replicas serve", || cluster.is_whole(usize::from(REPLICAS)).then_some(()));
        cluster
    }

    /// What a command prints.
    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        let output = regency(arguments, &self.root).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the status says of each.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.output(&["status", "demo", "--json"])).unwrap();
        status["replicas"].as_array().unwrap().clone()
    }

    /// Whether so many replicas take part, in one regency and with one history.
    pub(crate) fn is_whole(&self, alive: usize) -> bool {
        let rows = self.rows();
        let rows: Vec<_> = rows.iter().filter(|row| row["reachable"] == true).collect();
        let is_same = |key: &str| rows.windows(2).all(|pair| pair[0][key] == pair[1][key]);
        rows.len() == alive
            && rows.iter().all(|row| row["state"] == "normal")
            && ["regency", "executed", "chain"].iter().all(|key| is_same(key))
    }

    /// The newest regency that anyone has installed.
    pub(crate) fn regency(&self) -> u64 {
        self.rows().iter().filter_map(|row| row["regency"].as_u64()).max().unwrap()
    }

    /// Sends a signal to a replica's process.
    pub(crate) fn signal(&self, replica: u16, name: &str) {
        let pid = self.replicas[usize::from(replica)].id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Kills these replicas at once, without a warning.
    pub(crate) fn kill(&mut self, ids: &[u16]) {
        for id in ids {
            self.replicas[usize::from(*id)].kill().unwrap();
        }
        for id in ids {
            self.replicas[usize::from(*id)].wait().unwrap();
        }
    }

    /// Starts a replica again.
    pub(crate) fn restart(&mut self, id: u16) {
        self.replicas[usize::from(id)] = spawn(&self.root, id);
    }
}

fn spawn(root: &Path, id: u16) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(root.join(format!("log-{id}"))).unwrap();
    regency(&["replica", &format!("demo/replica-{id}")], root).stderr(log).spawn().unwrap()
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

/// A base port whose replica and admin ports are free; the tests look in different places.
pub(crate) fn free_base_port(first: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = first + u16::try_from(std::process::id() % 5).unwrap() * 200;
    let mut candidates = (begin..first + 1000).step_by(200).chain((first..begin).step_by(200));
    candidates.find(|base| (0..REPLICAS).all(|n| is_free(base + n) && is_free(base + 100 + n))).unwrap()
}
