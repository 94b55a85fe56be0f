//! Processes that die: a backup, which the cluster outlives, and the parent, which its children do not.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::table::words;
use crate::binary::Binary;
use crate::cluster::{Cluster, Plan};
use crate::process::{Process, signal, wait_until};
use crate::resp::Connection;

/// The backup that dies: not the leader of regency 0.
const VICTIM: usize = 3;
/// How long a change of state may take to show.
const SHOW_LIMIT: Duration = Duration::from_secs(15);

/// A backup is killed, the cluster serves on; restarted, it takes part again.
pub(super) fn backup(bench: &Bench<'_>) -> Result<()> {
    let mut connection = Connection::open(bench.cluster.redis_port()?)?;
    connection.call(&words("SET before 1"))?;
    let pid = bench.cluster.replica_pids()?[VICTIM].context("the backup is not reachable")?;
    signal(pid, "KILL")?;
    wait_until(SHOW_LIMIT, || Ok(!bench.cluster.is_whole()?))
        .context("status --check sees no dead replica")?;
    let written = connection.call(&words("SET after 2"))?;
    ensure!(written == "+OK", "with one replica dead, SET said {written}");
    let read = connection.call(&words("MGET before after"))?;
    ensure!(read == "*[$\"1\", $\"2\"]", "with one replica dead, MGET said {read}");

    let directory = format!("{}/replica-{VICTIM}", bench.cluster.directory());
    let mut command = bench.binary.command(&["replica", &directory]);
    let mut restarted =
        Process::start("the restarted replica", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_until(SHOW_LIMIT, || bench.cluster.is_whole()).context("the restarted replica takes no part")?;
    let written = connection.call(&words("SET again 3"))?;
    ensure!(written == "+OK", "with one replica that came back, SET said {written}");
    restarted.stop(SHOW_LIMIT)?;
    Ok(())
}

/// The parent is killed without a warning: its children end by themselves.
pub(super) fn parent(binary: &Binary, scratch: &Path) -> Result<()> {
    let plan = Plan { service: "counter", request_auth: "channel", durability: "sync", redis: false };
    let cluster = Cluster::start(binary, scratch, plan)?;
    for (words, expected) in [(&["add", "5"][..], "5\n"), (&["add", "-2"], "3\n"), (&["get"], "3\n")] {
        let mut arguments = vec!["counter", cluster.directory()];
        arguments.extend(words);
        let output = binary.output(&arguments)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(stdout == expected, "counter {words:?} printed {stdout:?}, not {expected:?}: {stderr}");
    }
    cluster.kill_parent()
}
