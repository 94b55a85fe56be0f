//! Real `regency replica` processes, one of which may be led astray, and signals to them.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::large_state::namespaces::Namespaces;
use crate::process::{Process, free_base_port, signal, wait_until};

/// How long the cluster may take to serve, or to agree again.
const SERVE_LIMIT: Duration = Duration::from_secs(30);
/// Where replicas listen that have a machine each.
const PORT: u16 = 7000;
/// By this a replica is told what to do wrong.
const ADVERSITY: &str = "REGENCY_ADVERSITY";

/// What a cluster is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) replicas: u16,
    /// `counter` or `kv`.
    pub(crate) service: &'a str,
    pub(crate) request_auth: &'a str,
    pub(crate) durability: &'a str,
    /// Settings other than the defaults, as `init --set` wants them.
    pub(crate) settings: &'a [&'a str],
    /// The program that replica 0 runs instead, and what it is told to do wrong.
    pub(crate) adversity: Option<(&'a Binary, &'a str)>,
}

/// A cluster of processes of our own.
#[derive(Debug)]
pub(crate) struct Replicas {
    binary: Binary,
    /// What each replica runs, if that differs.
    machines: Vec<Binary>,
    scratch: PathBuf,
    directory: PathBuf,
    size: usize,
    processes: Vec<Process>,
}

impl Replicas {
    /// Makes a cluster below `scratch` and starts its replicas; replica 0 leads.
    pub(crate) fn start(binary: &Binary, scratch: &Path, setup: &Setup<'_>) -> Result<Self> {
        let mut cluster = Self::init(binary, scratch, setup)?;
        cluster.launch(setup.adversity)?;
        cluster.await_service()?;
        Ok(cluster)
    }

    /// The same on machines of their own, each with its own key.
    pub(crate) fn start_on(
        binary: &Binary,
        scratch: &Path,
        setup: &Setup<'_>,
        machines: &Namespaces,
    ) -> Result<Self> {
        let keys: Vec<PathBuf> =
            (0..setup.replicas).map(|replica| scratch.join(format!("key-{replica}"))).collect();
        let mut where_from = Vec::new();
        for (replica, key) in keys.iter().enumerate() {
            let made = binary.output(&["keys".as_ref(), "generate".as_ref(), key.as_os_str()])?;
            ensure!(made.status.success(), "no key: {}", String::from_utf8_lossy(&made.stderr));
            let public = String::from_utf8(made.stdout)?;
            let member = format!("{replica}={}:{PORT},{}", machines.address(replica), public.trim());
            where_from.extend(["--member".to_owned(), member]);
        }
        let mut cluster = Self::make(binary, scratch, setup, &where_from)?;
        for (replica, key) in keys.iter().enumerate() {
            std::fs::rename(key, cluster.home(replica).join("key"))?;
            cluster.machines.push(binary.inside(&machines.name(replica)));
        }
        cluster.binary = binary.inside(&machines.hub());
        cluster.launch(None)?;
        cluster.await_service()?;
        Ok(cluster)
    }

    /// Makes a cluster whose replicas run another program, which takes the same arguments, and starts them.
    pub(crate) fn start_program(
        binary: &Binary,
        scratch: &Path,
        setup: &Setup<'_>,
        program: &Binary,
    ) -> Result<Self> {
        let mut cluster = Self::init(binary, scratch, setup)?;
        cluster.machines = vec![program.clone(); cluster.size];
        cluster.launch(None)?;
        cluster.await_service()?;
        Ok(cluster)
    }

    /// Makes the cluster; nothing runs yet.
    pub(crate) fn init(binary: &Binary, scratch: &Path, setup: &Setup<'_>) -> Result<Self> {
        let base_port = free_base_port(setup.replicas)?.to_string();
        let replicas = setup.replicas.to_string();
        let where_from = ["--replicas", &replicas, "--base-port", &base_port].map(str::to_owned);
        Self::make(binary, scratch, setup, &where_from)
    }

    fn make(binary: &Binary, scratch: &Path, setup: &Setup<'_>, where_from: &[String]) -> Result<Self> {
        let directory = scratch.join("cluster");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let name = directory.to_string_lossy().into_owned();
        let mut arguments = vec!["init", name.as_str()];
        arguments.extend(where_from.iter().map(String::as_str));
        arguments.extend(["--service", setup.service, "--request-auth", setup.request_auth]);
        arguments.extend(["--durability", setup.durability]);
        arguments.extend(setup.settings.iter().flat_map(|setting| ["--set", setting]));
        let output = binary.output(&arguments)?;
        ensure!(output.status.success(), "init failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self {
            binary: binary.clone(),
            machines: Vec::new(),
            scratch: scratch.to_owned(),
            directory,
            size: usize::from(setup.replicas),
            processes: Vec::new(),
        })
    }

    /// Starts every replica; those that ran before end.
    pub(crate) fn launch(&mut self, adversity: Option<(&Binary, &str)>) -> Result<()> {
        self.processes.clear();
        for replica in 0..self.size {
            let process = self.spawn(replica, adversity.filter(|_| replica == 0))?;
            self.processes.push(process);
        }
        Ok(())
    }

    /// Waits until every replica takes part.
    pub(crate) fn await_service(&self) -> Result<()> {
        wait_until(SERVE_LIMIT, || Ok(self.rows()?.iter().all(is_normal))).context("it never serves")
    }

    /// Starts a replica that was killed again.
    pub(crate) fn restart(&mut self, replica: usize) -> Result<()> {
        self.restart_with(replica, None)
    }

    /// The same, and it may do wrong from now on.
    pub(crate) fn restart_with(&mut self, replica: usize, adversity: Option<(&Binary, &str)>) -> Result<()> {
        let process = self.spawn(replica, adversity)?;
        *self.processes.get_mut(replica).context("no such replica")? = process;
        Ok(())
    }

    /// The lowest stable checkpoint of all replicas.
    pub(crate) fn stable_checkpoint(&self) -> Result<u64> {
        let rows = self.rows()?;
        let checkpoints = rows.iter().map(|row| row["stable_checkpoint"].as_u64().unwrap_or(0));
        checkpoints.min().context("no replica answers")
    }

    fn spawn(&self, replica: usize, adversity: Option<(&Binary, &str)>) -> Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(replica))?;
        let mut command = match adversity {
            Some((adverse, wrong)) => {
                let mut command = adverse.command(&["replica"]);
                command.env(ADVERSITY, wrong);
                command
            }
            None => self.machines.get(replica).unwrap_or(&self.binary).command(&["replica"]),
        };
        command.arg(self.home(replica)).stdout(Stdio::null()).stderr(log);
        Process::start(&format!("replica {replica}"), &mut command)
    }

    /// A replica's own directory.
    pub(crate) fn home(&self, replica: usize) -> PathBuf {
        self.directory.join(format!("replica-{replica}"))
    }

    /// Where a replica's standard error goes.
    pub(crate) fn log(&self, replica: usize) -> PathBuf {
        self.scratch.join(format!("replica-{replica}.log"))
    }

    /// Ends all replicas without a warning.
    pub(crate) fn end(&mut self) {
        self.processes.clear();
    }

    /// How a replica's process ended, if it has.
    pub(crate) fn ending(&mut self, replica: usize) -> Result<Option<ExitStatus>> {
        let process = self.processes.get_mut(replica).context("no such replica")?;
        Ok(process.child().try_wait()?)
    }

    /// Asks a replica to stop, and waits for that.
    pub(crate) fn stop(&mut self, replica: usize) -> Result<()> {
        let status = self.processes.get_mut(replica).context("no such replica")?.stop(SERVE_LIMIT)?;
        ensure!(status.success(), "replica {replica} ended with {status} on SIGTERM");
        Ok(())
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
            Ok(answering.len() == alive && are_level(&answering))
        });
        agree.with_context(|| format!("the replicas do not agree: {}", Value::from(seen.clone())))
    }

    /// What the counter is.
    pub(crate) fn value(&self) -> Result<u64> {
        let output = self.binary.output(&["counter", self.directory(), "get"])?;
        ensure!(output.status.success(), "get failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    /// Waits until these take part and have decided the same, whatever the others do.
    pub(crate) fn await_agreement_among(&self, replicas: &[usize]) -> Result<()> {
        let mut seen = Vec::new();
        let agree = wait_until(SERVE_LIMIT, || {
            seen = self.rows()?;
            let rows: Vec<&Value> = replicas.iter().filter_map(|replica| seen.get(*replica)).collect();
            Ok(rows.len() == replicas.len() && are_level(&rows))
        });
        agree.with_context(|| format!("replicas {replicas:?} do not agree: {}", Value::from(seen.clone())))
    }

    /// What every replica says of itself.
    pub(crate) fn rows(&self) -> Result<Vec<Value>> {
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

/// Whether a replica takes part.
pub(crate) fn is_normal(row: &Value) -> bool {
    row["state"] == "normal"
}

fn are_level(rows: &[&Value]) -> bool {
    let is_same = |key: &str| rows.windows(2).all(|pair| pair[0][key] == pair[1][key]);
    rows.iter().all(|row| is_normal(row)) && ["regency", "executed", "chain"].iter().all(|key| is_same(key))
}

/// Lets the load go on as it is for a while.
pub(crate) fn let_pass(time: Duration) {
    thread::sleep(time);
}
