//! The yardstick of a machine: the processes, connections and bytes of a cluster under load, over bare sockets.
//!
//! *Echo* is a request to every replica process and a reply from each, complete at `weak` of them; *pattern* adds
//! the PROPOSE, WRITE and ACCEPT of one ordering round, batched as the leader batches. No TLS, no cryptography, no
//! service: what is slower than this is our own code.

mod frame;
mod load;
pub(crate) mod replica;
mod round;
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use super::latency::LatencyMicros;
use crate::child;
use crate::failure::{self, ErrorCode, Failure};
use crate::process;
use load::Load;
use replica::Exchange;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// Replica processes.
    pub(crate) replicas: usize,
    /// Faults that they would tolerate.
    pub(crate) faults: usize,
    /// Clients.
    pub(crate) clients: usize,
    /// Requests that each client keeps in flight.
    pub(crate) in_flight: usize,
    /// Bytes of a request's payload.
    pub(crate) request_bytes: usize,
    /// Bytes of a reply's result.
    pub(crate) reply_bytes: usize,
    /// Whether all clients use the same connections.
    pub(crate) is_shared: bool,
    /// Time before counting starts.
    pub(crate) warmup: Duration,
    /// Time that is counted.
    pub(crate) duration: Duration,
}

/// What came out, for `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Requests and replies.
    pub(crate) echo: Line,
    /// With an ordering round.
    pub(crate) pattern: Line,
}

/// One of the two.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    connections: &'static str,
    clients: usize,
    in_flight: usize,
    request_bytes: usize,
    reply_bytes: usize,
    operations: u64,
    seconds: f64,
    /// Operations a second.
    pub(crate) throughput: f64,
    /// How long each took.
    pub(crate) latency_us: LatencyMicros,
    /// What it cost.
    pub(crate) cpu_seconds: CpuSeconds,
}

/// Processor time of one run, warm-up included.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CpuSeconds {
    /// Of all replica processes.
    pub(crate) replicas: f64,
    /// Of the clients.
    pub(crate) client: f64,
}

impl Floor {
    /// Measures both, one after the other.
    pub(crate) fn measure(&self) -> Result<Measured, Failure> {
        Ok(Measured { echo: self.line(Exchange::Echo)?, pattern: self.line(Exchange::Pattern)? })
    }

    fn line(&self, exchange: Exchange) -> Result<Line, Failure> {
        let processes = Processes::start(self, exchange)?;
        let load = Load {
            clients: self.clients,
            in_flight: self.in_flight,
            request_bytes: self.request_bytes,
            is_shared: self.is_shared,
            weak: u32::try_from(self.faults + 1).unwrap_or(u32::MAX),
            warmup: self.warmup,
            duration: self.duration,
        };
        let client_before = process::own_cpu();
        let counted = load::run(&load, &processes.addresses).map_err(|error| {
            Failure::new(
                ErrorCode::System,
                format!("a connection of the floor: {error}"),
                "use fewer --clients, or raise the limit of open files (ulimit -n)",
            )
        })?;
        let client = process::own_cpu().saturating_sub(client_before).as_secs_f64();
        let operations = counted.latency.count();
        let seconds = counted.elapsed.as_secs_f64();
        Ok(Line {
            connections: if self.is_shared { "shared" } else { "per-client" },
            clients: self.clients,
            in_flight: self.in_flight,
            request_bytes: self.request_bytes,
            reply_bytes: self.reply_bytes,
            operations,
            seconds,
            throughput: operations as f64 / seconds,
            latency_us: counted.latency.micros(),
            cpu_seconds: CpuSeconds { replicas: processes.cpu_seconds(), client },
        })
    }
}

/// The replica processes; they end when this is dropped.
struct Processes {
    children: Vec<(Child, ChildStdin)>,
    addresses: Vec<SocketAddr>,
}

impl Processes {
    fn start(floor: &Floor, exchange: Exchange) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| failure::system("starting a floor process", &error);
        let binary = child::own_binary()?;
        let quorum = (floor.replicas + floor.faults + 1).div_ceil(2);
        let mut processes = Self { children: Vec::new(), addresses: Vec::new() };
        let mut outputs = Vec::new();
        for id in 0..floor.replicas {
            let mut child = Command::new(&binary)
                .args(["floor-replica", "--id", &id.to_string(), "--quorum", &quorum.to_string()])
                .args(["--reply-bytes", &floor.reply_bytes.to_string(), "--exchange"])
                .arg(match exchange {
                    Exchange::Echo => "echo",
                    Exchange::Pattern => "pattern",
                })
                .env(child::PARENT, std::process::id().to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(failed)?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(replica::unexpected(""));
            };
            processes.children.push((child, input));
            outputs.push(BufReader::new(output));
        }
        let line_of = |output: &mut BufReader<_>| {
            let mut line = String::new();
            output.read_line(&mut line).map_err(failed)?;
            Ok::<_, Failure>(line.trim().to_owned())
        };
        let mut ports = Vec::new();
        for output in &mut outputs {
            let line = line_of(output)?;
            let port = line.parse::<u16>().map_err(|_| replica::unexpected(&line))?;
            processes.addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            ports.push(line);
        }
        for (_, input) in &mut processes.children {
            writeln!(input, "{}", ports.join(" ")).map_err(failed)?;
        }
        for output in &mut outputs {
            let line = line_of(output)?;
            if line != "ready" {
                return Err(replica::unexpected(&line));
            }
        }
        Ok(processes)
    }

    fn cpu_seconds(&self) -> f64 {
        self.children.iter().filter_map(|(child, _)| process::cpu_seconds(child.id())).sum()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (mut child, input) in self.children.drain(..) {
            drop(input);
            // It ends by itself when its stdin closes; waiting only collects it.
            if let Err(error) = child.wait() {
                eprintln!("a floor process could not be waited for: {error}");
            }
        }
    }
}
