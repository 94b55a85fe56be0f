//! `regency bench`: closed- and open-loop load on a running cluster, and the floor of the machine.

mod cluster;
pub(crate) mod floor;
mod latency;
mod measure;
mod workload;
mod zipfian;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::failure::{self, ExitStatus, Failure, Outcome};
use crate::{duration, output};
use workload::WorkloadName;

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConnectionsName {
    /// Each client has connections of its own, one to each replica
    PerClient,
    /// All clients share one connection to each replica
    Shared,
}

/// What a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignaturesName {
    /// All requests that leave together
    Bundle,
    /// One request
    Request,
}

/// Measure a running cluster, or with --floor what this machine allows
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  regency bench demo --clients 100 --in-flight 16 --connections shared --json\n  \
    regency bench --floor --clients 100"
)]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR", required_unless_present = "floor", conflicts_with = "floor")]
    directory: Option<PathBuf>,
    /// Clients, each a session of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Requests that each client keeps in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Bytes of a request; of a record in the ycsb workloads (there 0 means 100)
    #[arg(long, default_value_t = 0)]
    request_bytes: u32,
    /// Bytes of a reply (workload null)
    #[arg(long, default_value_t = 0)]
    reply_bytes: u32,
    /// Percent of reads (workload counter)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    read_percent: u32,
    /// What the clients ask for
    #[arg(long, value_enum, default_value_t = WorkloadName::Null)]
    workload: WorkloadName,
    /// Records of the ycsb workloads
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    records: u64,
    /// Connections of the clients
    #[arg(long, value_enum, default_value_t = ConnectionsName::PerClient)]
    connections: ConnectionsName,
    /// What a signature covers, where requests are signed
    #[arg(long, value_enum, default_value_t = SignaturesName::Bundle)]
    signatures: SignaturesName,
    /// Open loop: operations a second, whether earlier ones are answered or not
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// Time before counting starts
    #[arg(long, default_value = "3s", value_parser = duration::parse)]
    warmup: Duration,
    /// Time that is counted
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// How long one operation may take
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    deadline: Duration,
    /// Write every acknowledged operation to this file, a JSON object a line
    #[arg(long, value_name = "FILE", conflicts_with = "floor")]
    record: Option<PathBuf>,
    /// Measure this machine with bare sockets; needs no cluster
    #[arg(long)]
    floor: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if arguments.duration.is_zero() {
        return Err(failure::usage("--duration is zero", "count for some seconds"));
    }
    match &arguments.directory {
        Some(directory) => run_cluster(arguments, directory.clone())?,
        None => run_floor(arguments)?,
    }
    Ok(ExitStatus::Done)
}

fn run_cluster(arguments: &Arguments, directory: PathBuf) -> Result<(), Failure> {
    if arguments.read_percent > 0 && !arguments.workload.has_reads() {
        return Err(failure::usage(
            format!("--read-percent means nothing for the workload {}", arguments.workload.name()),
            "leave it out, or use --workload counter",
        ));
    }
    if arguments.reply_bytes > 0 && arguments.workload != WorkloadName::Null {
        return Err(failure::usage(
            format!("--reply-bytes means nothing for the workload {}", arguments.workload.name()),
            "leave it out, or use --workload null",
        ));
    }
    let report = cluster::Bench {
        directory: &directory,
        workload: arguments.workload,
        read_percent: arguments.read_percent,
        clients: arguments.clients as usize,
        request_bytes: arguments.request_bytes as usize,
        reply_bytes: arguments.reply_bytes as usize,
        records: arguments.records,
        is_shared: arguments.connections == ConnectionsName::Shared,
        is_bundled: arguments.signatures == SignaturesName::Bundle,
        record: arguments.record.as_deref(),
        plan: measure::Plan {
            in_flight: arguments.in_flight as usize,
            rate: arguments.rate,
            warmup: arguments.warmup,
            duration: arguments.duration,
            deadline: arguments.deadline,
        },
    }
    .run()?;
    if arguments.json { output::json(&report) } else { output::line(&report.table()) }
}

fn run_floor(arguments: &Arguments) -> Result<(), Failure> {
    let floor = floor::Floor {
        replicas: 4,
        faults: 1,
        clients: arguments.clients as usize,
        in_flight: arguments.in_flight as usize,
        request_bytes: arguments.request_bytes as usize,
        reply_bytes: arguments.reply_bytes as usize,
        is_shared: arguments.connections == ConnectionsName::Shared,
        warmup: arguments.warmup,
        duration: arguments.duration,
    };
    let measured = floor.measure()?;
    if arguments.json {
        return output::json(&measured);
    }
    for (name, line) in [("echo", &measured.echo), ("pattern", &measured.pattern)] {
        let latency = &line.latency_us;
        output::line(&format!(
            "{name:<8} {:>10.0} operations/s   p50 {:>8.1} µs   p99 {:>8.1} µs   max {:>9.1} µs",
            line.throughput, latency.p50, latency.p99, latency.max
        ))?;
    }
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("a rate is a number above 0".to_owned()),
    }
}
