//! A real cluster for the recipes: `regency cluster` in a folder of its own, on free ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::process::{Process, free_base_port, free_port, is_running, wait_until};

/// How long a cluster may take to serve.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How many lines of output may wait to be read.
const LINES_MAX: usize = 1024;

/// Four replica processes under one parent.
#[derive(Debug)]
pub(crate) struct Cluster {
    binary: Binary,
    directory: PathBuf,
    redis_port: Option<u16>,
    process: Process,
}

/// What a cluster is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// `kv`, `counter` or `null`.
    pub(crate) service: &'a str,
    /// `signature` or `channel`.
    pub(crate) request_auth: &'a str,
    /// `sync`, `async` or `none`.
    pub(crate) durability: &'a str,
    /// Whether there is a Redis front.
    pub(crate) redis: bool,
}

impl Cluster {
    /// Creates the directory, starts everything and waits until it serves.
    pub(crate) fn start(binary: &Binary, scratch: &Path, plan: Plan<'_>) -> Result<Self> {
        let directory = scratch.join(format!("{}-{}", plan.service, plan.request_auth));
        let base_port = free_base_port(4)?.to_string();
        let name = directory.to_string_lossy().into_owned();
        let mut arguments = vec!["cluster", name.as_str(), "--no-ui", "--base-port", base_port.as_str()];
        arguments.extend(["--service", plan.service, "--request-auth", plan.request_auth]);
        arguments.extend(["--durability", plan.durability]);
        let redis_port = if plan.redis { Some(free_port()?) } else { None };
        let redis = redis_port.map(|port| format!("127.0.0.1:{port}"));
        if let Some(redis) = &redis {
            arguments.extend(["--redis", redis.as_str()]);
        }
        let log = std::fs::File::create(directory.with_extension("log"))?;
        let mut command = binary.command(&arguments);
        let mut process =
            Process::start("regency cluster", command.stdout(Stdio::piped()).stderr(Stdio::from(log)))?;
        await_ready(&mut process).with_context(|| {
            let log = std::fs::read_to_string(directory.with_extension("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        })?;
        Ok(Self { binary: binary.clone(), directory, redis_port, process })
    }

    /// The cluster's directory, as commands want it.
    pub(crate) fn directory(&self) -> &str {
        self.directory.to_str().unwrap_or_default()
    }

    /// Where the Redis front listens.
    pub(crate) fn redis_port(&self) -> Result<u16> {
        self.redis_port.context("this cluster has no Redis front")
    }

    /// What `regency status --json` says.
    pub(crate) fn status(&self) -> Result<Value> {
        let output = self.binary.output(&["status", self.directory(), "--json"])?;
        ensure!(output.status.success(), "status failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("status prints no JSON")
    }

    /// Whether `regency status --check` finds nothing wrong.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        let output = self.binary.output(&["status", self.directory(), "--check"])?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(4) => Ok(false),
            other => bail!("status --check ended with {other:?} instead of 0 or 4"),
        }
    }

    /// The process ids of the replicas, by position; `None` for one that cannot be reached.
    pub(crate) fn replica_pids(&self) -> Result<Vec<Option<u32>>> {
        let status = self.status()?;
        let replicas = status["replicas"].as_array().context("status has no replicas")?;
        Ok(replicas
            .iter()
            .map(|replica| replica["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
            .collect())
    }

    /// Asks the parent to stop; all must end, and successfully.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pids = self.replica_pids()?;
        let status = self.process.stop(STOP_LIMIT)?;
        ensure!(status.success(), "regency cluster ended with {status} on SIGTERM");
        await_end(&pids)
    }

    /// Kills the parent without a warning; the children must end by themselves.
    pub(crate) fn kill_parent(mut self) -> Result<()> {
        let pids = self.replica_pids()?;
        self.process.kill()?;
        await_end(&pids)
    }
}

fn await_end(pids: &[Option<u32>]) -> Result<()> {
    wait_until(STOP_LIMIT, || Ok(!pids.iter().flatten().any(|pid| is_running(*pid))))
        .context("a replica process outlives its parent")
}

/// Waits for the line `ready …`, and goes on reading so that the process never blocks on its output.
pub(crate) fn await_ready(process: &mut Process) -> Result<()> {
    let stdout = process.child().stdout.take().context("stdout is not piped")?;
    let (sender, lines) = mpsc::sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens after the first line that says ready: what comes then is dropped.
            let _ = sender.try_send(line);
        }
    });
    loop {
        let line = lines.recv_timeout(READY_LIMIT).context("no line `ready …` on stdout")?;
        if line.starts_with("ready ") {
            return Ok(());
        }
    }
}
