//! Real replicas of a key-value store whose state is large, for recipes that measure what they do with it.

pub(crate) mod in_a_file;
pub(crate) mod namespaces;
pub(crate) mod partitions;
pub(crate) mod recovery;
pub(crate) mod transfers;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::failover::replicas::{Replicas, Setup, is_normal};
use crate::process::wait_until;

/// Replicas of the cluster.
const REPLICAS: usize = 4;
/// Bytes of a value.
const VALUE_BYTES: u64 = 1024;
/// What the load works on besides: few records, so that it is soon prepared.
const LOAD_RECORDS: &str = "1000";
/// How long anything may take that needs no figure of its own.
const LIMIT: Duration = Duration::from_secs(600);

/// What a replica writes when it has taken a state over, instead of executing again what led to it.
const TAKEN_OVER: &str = "the service has the state of the other replicas";

/// Clients of the load beside a transfer, and the part of what the cluster can do that it is.
const CLIENTS: &str = "100";
/// Each load opens sessions of its own, all of one client, and they stay for an hour.
const MANY_SESSIONS: &str = "client_sessions_max=4096";
const RATE: f64 = 0.3;

/// A cluster and the way to use it.
struct Subject {
    binary: Binary,
    replicas: Replicas,
}

impl Subject {
    /// A cluster that serves, with `mib` MiB of values.
    fn start(binary: &Binary, scratch: &Path, settings: &[&str], mib: u64) -> Result<Self> {
        let settings = [settings, &[MANY_SESSIONS]].concat();
        let replicas = Replicas::start(binary, scratch, &setup("kv", &settings))?;
        Self::filled(binary.clone(), replicas, mib)
    }

    /// These replicas, with `mib` MiB of values.
    fn filled(binary: Binary, replicas: Replicas, mib: u64) -> Result<Self> {
        let subject = Self { binary, replicas };
        subject.fill(mib)?;
        Ok(subject)
    }

    /// Writes `mib` MiB of values, those that are there already too.
    fn fill(&self, mib: u64) -> Result<()> {
        let begun = Instant::now();
        let records = (mib * 1024 * 1024 / VALUE_BYTES).to_string();
        let bytes = VALUE_BYTES.to_string();
        self.bench(&[
            "--workload",
            "ycsb-c",
            "--records",
            &records,
            "--request-bytes",
            &bytes,
            "--clients",
            "1",
            "--warmup",
            "0s",
            "--duration",
            "1s",
        ])?;
        println!("large state: {mib} MiB written in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Runs `regency bench --json` with these arguments to its end.
    fn bench(&self, arguments: &[&str]) -> Result<Value> {
        bench(&self.binary, self.replicas.directory(), arguments)
    }

    /// As [`load`], at this cluster and without a rate.
    fn load(&self, clients: &str, seconds: u64) -> Result<f64> {
        load(&self.binary, self.replicas.directory(), clients, seconds, None)
    }

    /// What a replica says of itself.
    fn row(&self, replica: usize) -> Result<Value> {
        self.replicas.rows()?.into_iter().nth(replica).context("no such replica")
    }

    fn figure(&self, replica: usize, key: &str) -> Result<u64> {
        self.row(replica)?[key].as_u64().with_context(|| format!("replica {replica} tells no {key}"))
    }

    /// Waits until a replica takes part and has executed what the first one had executed by now.
    fn await_level(&self, replica: usize, limit: Duration) -> Result<()> {
        let executed = self.figure(usize::from(replica == 0), "executed")?;
        wait_until(limit, || {
            let row = self.row(replica)?;
            Ok(is_normal(&row) && row["executed"].as_u64() >= Some(executed))
        })
        .with_context(|| {
            format!("replica {replica} does not come back: {}", self.row(replica).unwrap_or_default())
        })
    }

    /// Kills a replica, removes its data, and starts it again; the moment of that.
    fn wipe(&mut self, replica: usize) -> Result<Instant> {
        self.replicas.kill(replica)?;
        fs::remove_dir_all(self.replicas.home(replica).join("data"))?;
        fs::remove_file(self.replicas.log(replica))?;
        let begun = Instant::now();
        self.replicas.restart(replica)?;
        Ok(begun)
    }

    /// Whether a replica has taken a state over since it was wiped.
    fn has_taken_over(&self, replica: usize) -> Result<bool> {
        Ok(fs::read_to_string(self.replicas.log(replica))?.contains(TAKEN_OVER))
    }

    /// The memory of a replica's process.
    fn memory(&self, replica: usize) -> Result<Memory> {
        Ok(Memory { pid: u32::try_from(self.figure(replica, "pid")?)? })
    }
}

/// A durable cluster.
fn setup<'a>(service: &'a str, settings: &'a [&'a str]) -> Setup<'a> {
    Setup { replicas: 4, service, request_auth: "channel", durability: "sync", settings, adversity: None }
}

/// Runs `act` while the load runs, at a rate if one is given; the operations a second that the load reached.
fn under_load<T>(
    subject: &mut Subject,
    seconds: u64,
    rate: Option<f64>,
    act: impl FnOnce(&mut Subject) -> Result<T>,
) -> Result<(T, f64)> {
    let (directory, binary) = (subject.replicas.directory().to_owned(), subject.binary.clone());
    let before = subject.figure(0, "sessions")?;
    let load = thread::spawn(move || load(&binary, &directory, CLIENTS, seconds, rate));
    let open = before + CLIENTS.parse::<u64>()?;
    let is_open = || Ok(load.is_finished() || subject.figure(0, "sessions")? >= open);
    // If it does not come to that, the load says why.
    let outcome = wait_until(LIMIT, is_open).and_then(|()| act(subject));
    let reached = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
    Ok((outcome?, reached?))
}

fn bench(binary: &Binary, directory: &str, arguments: &[&str]) -> Result<Value> {
    let mut all = vec!["bench", directory, "--json"];
    all.extend(arguments);
    let output = binary.output(&all)?;
    ensure!(output.status.success(), "bench failed: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("bench prints no JSON")?;
    ensure!(report["errors"] == 0, "clients were told of errors: {report}");
    Ok(report)
}

/// Updates and reads of few records, for so many seconds, at a rate if one is given; operations a second.
fn load(binary: &Binary, directory: &str, clients: &str, seconds: u64, rate: Option<f64>) -> Result<f64> {
    let duration = format!("{seconds}s");
    let rate = rate.map(|rate| format!("{rate:.0}"));
    let mut arguments = vec!["--workload", "ycsb-a", "--records", LOAD_RECORDS, "--request-bytes", "1024"];
    arguments.extend([
        "--clients",
        clients,
        "--connections",
        "shared",
        "--warmup",
        "0s",
        "--duration",
        &duration,
    ]);
    if let Some(rate) = &rate {
        arguments.extend(["--rate", rate]);
    }
    bench(binary, directory, &arguments)?["throughput"].as_f64().context("bench tells no throughput")
}

/// The memory of a process, as the system tells it.
#[derive(Clone, Copy)]
struct Memory {
    pid: u32,
}

impl Memory {
    /// Resident bytes.
    fn resident(self) -> Result<u64> {
        self.line("VmRSS:")
    }

    /// The most resident bytes since the start, or since [`forget_peak`](Self::forget_peak).
    fn peak(self) -> Result<u64> {
        self.line("VmHWM:")
    }

    fn forget_peak(self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    fn line(self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        kibibytes(&status, name).with_context(|| format!("process {} has no {name}", self.pid))
    }
}

/// A line of `/proc/…/status`, which has it in KiB.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The number after `flag` among the arguments, or another.
fn number(arguments: &[&str], flag: &str, otherwise: u64) -> Result<u64> {
    match arguments.iter().position(|argument| *argument == flag) {
        None => Ok(otherwise),
        Some(at) => {
            let value = arguments.get(at + 1).with_context(|| format!("{flag} wants a number"))?;
            value.parse().with_context(|| format!("{value} is no number"))
        }
    }
}

/// Only these flags, each with a number.
fn check_flags(arguments: &[&str], known: &[&str]) -> Result<()> {
    match arguments.iter().step_by(2).find(|flag| !known.contains(flag)) {
        Some(flag) => bail!("no such flag: {flag}; there is {}", known.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_flags_are_read() {
        assert_eq!(kibibytes("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n", "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes("VmPeak:\t 9 kB\n", "VmHWM:"), None);
        let arguments = ["--mib", "7", "--cycles", "x"];
        assert_eq!(number(&arguments, "--mib", 1).unwrap(), 7);
        assert_eq!(number(&arguments, "--records", 3).unwrap(), 3);
        number(&arguments, "--cycles", 1).unwrap_err();
        check_flags(&arguments, &["--mib", "--cycles"]).unwrap();
        check_flags(&arguments, &["--mib"]).unwrap_err();
    }
}
