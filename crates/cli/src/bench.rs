//! `regency bench`: closed- and open-loop load on a running cluster, and the floor of the machine.

pub(crate) mod floor;
pub(crate) mod latency;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::duration;
use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Connections {
    /// Each client has connections of its own, one to each replica.
    PerClient,
    /// All clients share one connection to each replica.
    Shared,
}

/// Measure a running cluster, or with --floor what this machine allows
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  regency bench demo --clients 100 --in-flight 16 --json\n  regency bench --floor --connections per-client"
)]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR", required_unless_present = "floor")]
    directory: Option<PathBuf>,
    /// Clients, each a session of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Requests that each client keeps in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Bytes of a request
    #[arg(long, default_value_t = 0)]
    request_bytes: u32,
    /// Bytes of a reply
    #[arg(long, default_value_t = 0)]
    reply_bytes: u32,
    /// Connections of the clients
    #[arg(long, value_enum, default_value_t = Connections::Shared)]
    connections: Connections,
    /// Time before counting starts
    #[arg(long, default_value = "3s", value_parser = duration::parse)]
    warmup: Duration,
    /// Time that is counted
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// Measure this machine with bare sockets; needs no cluster
    #[arg(long)]
    floor: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if !arguments.floor {
        return Err(Failure::new(ErrorCode::NotOffered, "bench of a cluster", "use --floor"));
    }
    let floor = floor::Floor {
        replicas: 4,
        faults: 1,
        clients: arguments.clients as usize,
        in_flight: arguments.in_flight as usize,
        request_bytes: arguments.request_bytes as usize,
        reply_bytes: arguments.reply_bytes as usize,
        is_shared: arguments.connections == Connections::Shared,
        warmup: arguments.warmup,
        duration: arguments.duration,
    };
    let measured = floor.measure()?;
    if arguments.json {
        output::json(&measured)?;
        return Ok(ExitStatus::Done);
    }
    for (name, line) in [("echo", &measured.echo), ("pattern", &measured.pattern)] {
        let latency = &line.latency_us;
        output::line(&format!(
            "{name:<8} {:>10.0} operations/s   p50 {:>8.1} µs   p99 {:>8.1} µs   max {:>9.1} µs",
            line.throughput, latency.p50, latency.p99, latency.max
        ))?;
    }
    Ok(ExitStatus::Done)
}
