//! An etcd cluster of three on this machine, as it comes, and puts in a closed loop.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::grpc::Connection;
use super::settle;
use crate::process::{Process, free_port, wait_until};

const MEMBERS: usize = 3;
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Connections over which the operations in flight are tried.
const CONNECTIONS: [usize; 3] = [8, 16, 100];

/// Fails with what is missing, if anything is.
pub(super) fn check_means() -> Result<()> {
    for (program, package) in [("etcd", "etcd-server"), ("etcdctl", "etcd-client")] {
        let call =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(call.is_ok(), "{program} is missing: install the package {package}");
    }
    Ok(())
}

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    connections: usize,
    /// Operations in flight on each.
    in_flight: usize,
    /// All to the leader, or to the members in turn.
    is_to_leader: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.is_to_leader { "the leader" } else { "all members" };
        write!(f, "{} connections x {} to {to}", self.connections, self.in_flight)
    }
}

/// A running cluster.
pub(super) struct Etcd {
    clients: Vec<SocketAddr>,
    _processes: Vec<Process>,
}

impl Etcd {
    /// Starts it below `scratch`, and waits until it serves.
    pub(super) fn start(scratch: &Path) -> Result<Self> {
        let ports = (0..2 * MEMBERS).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(member, port)| format!("etcd-{member}={}", url(port))).collect();
        let cluster = cluster.join(",");
        let mut processes = Vec::new();
        for (member, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let name = format!("etcd-{member}");
            let log = File::create(scratch.join(format!("{name}.log")))?;
            let (client, peer) = (url(client), url(peer));
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--data-dir"]).arg(scratch.join(&name));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            processes.push(Process::start(&name, &mut command)?);
        }
        let clients = clients.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let etcd = Self { clients, _processes: processes };
        wait_until(READY_LIMIT, || Ok(etcd.leader().is_ok())).context("etcd does not serve")?;
        Ok(etcd)
    }

    /// The shape in which so many operations in flight get the most out of it.
    pub(super) fn best_shape(
        &self,
        operations: usize,
        warmup: Duration,
        duration: Duration,
    ) -> Result<Shape> {
        let mut best: Option<(Shape, f64)> = None;
        for connections in CONNECTIONS {
            for is_to_leader in [true, false] {
                let shape = Shape { connections, in_flight: operations / connections, is_to_leader };
                settle()?;
                let throughput = self.throughput(shape, warmup, duration)?;
                eprintln!("durability: etcd, {shape}: {throughput:.0} puts a second");
                if best.is_none_or(|(_, highest)| throughput > highest) {
                    best = Some((shape, throughput));
                }
            }
        }
        best.map(|(shape, _)| shape).context("no shape")
    }

    /// Puts of empty values a second.
    pub(super) fn throughput(&self, shape: Shape, warmup: Duration, duration: Duration) -> Result<f64> {
        let leader = self.leader()?;
        let begin = Instant::now() + warmup;
        let end = begin + duration;
        let drive = |connection: usize| {
            let to = if shape.is_to_leader { leader } else { self.clients[connection % MEMBERS] };
            thread::Builder::new()
                .spawn(move || Connection::open(to)?.put(connection, shape.in_flight, begin, end))
        };
        let threads = (0..shape.connections).map(drive).collect::<Result<Vec<_>, _>>()?;
        let mut puts = 0;
        for thread in threads {
            puts += thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(puts as f64 / duration.as_secs_f64())
    }

    /// Where the leader serves its clients.
    fn leader(&self) -> Result<SocketAddr> {
        let endpoints: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        let output = command.args(["endpoint", "status", "--write-out=json"]).output()?;
        ensure!(output.status.success(), "etcdctl: {}", String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).context("etcdctl printed no JSON")?;
        let rows = rows.as_array().context("etcdctl printed no list")?;
        ensure!(rows.len() == MEMBERS, "{} members of {MEMBERS} answer", rows.len());
        let is_leader = |row: &&Value| row["Status"]["leader"] == row["Status"]["header"]["member_id"];
        let leader = rows.iter().find(is_leader).context("etcd has no leader")?;
        Ok(leader["Endpoint"].as_str().context("a member without an endpoint")?.parse()?)
    }
}
