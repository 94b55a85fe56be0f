//! Real `regency replica` processes, one of which may be led astray, and signals to them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Scenario;
use crate::binary::Binary;
use crate::process::{Process, free_base_port, signal, wait_until};

/// How long the cluster may take to serve, or to agree again.
const SERVE_LIMIT: Duration = Duration::from_secs(30);
/// By this a replica is told what to do wrong.
const ADVERSITY: &str = "REGENCY_ADVERSITY";

/// A cluster of processes of our own.
#[derive(Debug)]
pub(crate) struct Replicas {
    binary: Binary,
    directory: PathBuf,
    processes: Vec<Process>,
}

impl Replicas {
    /// Makes a counter cluster below `scratch` and starts its replicas; replica 0, which leads, with the scenario's
    /// adversity, from the program `adverse`.
    pub(crate) fn start(
        binary: &Binary,
        adverse: Option<&Binary>,
        scratch: &Path,
        scenario: &Scenario,
    ) -> Result<Self> {
        let directory = scratch.join("cluster");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let name = directory.to_string_lossy().into_owned();
        let base_port = free_base_port(scenario.replicas)?.to_string();
        let replicas = scenario.replicas.to_string();
        let mut arguments = vec!["init", name.as_str(), "--replicas", &replicas, "--base-port", &base_port];
        arguments.extend(["--durability", "none"]);
        arguments.extend(["--service", "counter", "--request-auth", scenario.request_auth]);
        let output = binary.output(&arguments)?;
        ensure!(output.status.success(), "init failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut cluster = Self { binary: binary.clone(), directory, processes: Vec::new() };
        for replica in 0..scenario.replicas {
            let home = cluster.directory.join(format!("replica-{replica}"));
            let log = File::create(scratch.join(format!("replica-{replica}.log")))?;
            let mut command = match (adverse, scenario.adversity, replica) {
                (Some(adverse), Some(adversity), 0) => {
                    let mut command = adverse.command(&["replica"]);
                    command.env(ADVERSITY, adversity);
                    command
                }
                _ => binary.command(&["replica"]),
            };
            command.arg(&home).stdout(Stdio::null()).stderr(log);
            cluster.processes.push(Process::start(&format!("replica {replica}"), &mut command)?);
        }
        wait_until(SERVE_LIMIT, || Ok(cluster.rows()?.iter().all(is_normal))).context("it never serves")?;
        Ok(cluster)
    }

    /// The cluster's directory, as commands want it.
    pub(crate) fn directory(&self) -> &str {
        self.directory.to_str().unwrap_or_default()
    }

    /// Waits until so many sessions are open at every replica.
    pub(crate) fn await_sessions(&self, sessions: u64) -> Result<()> {
        let are_open = |row: &Value| row["sessions"].as_u64() >= Some(sessions);
        wait_until(SERVE_LIMIT, || Ok(self.rows()?.iter().all(are_open))).context("sessions do not open")
    }

    /// The leader of the newest regency that anyone has installed.
    pub(crate) fn leader(&self) -> Result<usize> {
        let rows = self.rows()?;
        let newest = rows.iter().max_by_key(|row| row["regency"].as_u64()).context("no replica answers")?;
        let leader = newest["leader"].as_u64().context("a status without a leader")?;
        Ok(usize::try_from(leader)?)
    }

    /// The newest regency that anyone has installed.
    pub(crate) fn regency(&self) -> Result<u64> {
        let rows = self.rows()?;
        rows.iter().filter_map(|row| row["regency"].as_u64()).max().context("no replica answers")
    }

    /// Kills a replica without a warning.
    pub(crate) fn kill(&mut self, replica: usize) -> Result<()> {
        self.processes.get_mut(replica).context("no such replica")?.kill()
    }

    /// Stops a replica's process in its tracks, or lets it go on.
    pub(crate) fn signal(&mut self, replica: usize, name: &str) -> Result<()> {
        let process = self.processes.get_mut(replica).context("no such replica")?;
        signal(process.child().id(), name)
    }

    /// Waits until `alive` replicas are in one regency, take part and have decided the same.
    pub(crate) fn await_agreement(&self, alive: usize) -> Result<()> {
        let mut seen = Vec::new();
        let agree = wait_until(SERVE_LIMIT, || {
            seen = self.rows()?;
            let answering: Vec<&Value> = seen.iter().filter(|row| row["reachable"] == true).collect();
            let is_same = |key: &str| answering.windows(2).all(|pair| pair[0][key] == pair[1][key]);
            Ok(answering.len() == alive
                && answering.iter().all(|row| is_normal(row))
                && ["regency", "executed", "chain"].iter().all(|key| is_same(key)))
        });
        agree.with_context(|| format!("the replicas do not agree: {}", Value::from(seen.clone())))
    }

    /// What the counter is.
    pub(crate) fn value(&self) -> Result<u64> {
        let output = self.binary.output(&["counter", self.directory(), "get"])?;
        ensure!(output.status.success(), "get failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    fn rows(&self) -> Result<Vec<Value>> {
        // A replica that is stopped holds the whole answer up for as long as it is waited for.
        let output = self.binary.output(&["status", self.directory(), "--json"])?;
        ensure!(output.status.success(), "status failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut status: Value = serde_json::from_slice(&output.stdout).context("status prints no JSON")?;
        match status["replicas"].take() {
            Value::Array(rows) => Ok(rows),
            other => anyhow::bail!("status has no replicas: {other}"),
        }
    }
}

fn is_normal(row: &Value) -> bool {
    row["state"] == "normal"
}

/// Lets the load go on as it is for a while.
pub(crate) fn let_pass(time: Duration) {
    thread::sleep(time);
}
