//! Short runs of `regency bench`: every field is there, nothing fails, and it is not slow beyond belief.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::cluster::{Cluster, Plan};
use crate::process::Scratch;
use crate::repository::Repository;
use crate::shape::{Kind, check};

/// What `regency bench --json` prints.
const FIELDS: [(&str, Kind); 23] = [
    ("workload", Kind::Text),
    ("connections", Kind::Text),
    ("clients", Kind::Integer),
    ("in_flight", Kind::Integer),
    ("request_bytes", Kind::Integer),
    ("reply_bytes", Kind::Integer),
    ("operations", Kind::Integer),
    ("errors", Kind::Integer),
    ("seconds", Kind::Number),
    ("throughput", Kind::Number),
    ("latency_us.mean", Kind::Number),
    ("latency_us.p50", Kind::Number),
    ("latency_us.p99", Kind::Number),
    ("latency_us.p999", Kind::Number),
    ("latency_us.max", Kind::Number),
    ("longest_gap_ms", Kind::Number),
    ("timeline", Kind::Numbers),
    ("cpu_seconds.replicas", Kind::Number),
    ("cpu_seconds.client", Kind::Number),
    ("replica_resident_bytes_max", Kind::Integer),
    ("replicas", Kind::Integer),
    ("durability", Kind::Text),
    ("request_auth", Kind::Text),
];

/// What `regency bench --floor --json` prints, for each of its two parts.
const FLOOR_FIELDS: [(&str, Kind); 6] = [
    ("echo.throughput", Kind::Number),
    ("echo.latency_us.p50", Kind::Number),
    ("echo.latency_us.p99", Kind::Number),
    ("pattern.throughput", Kind::Number),
    ("pattern.latency_us.p50", Kind::Number),
    ("pattern.latency_us.p99", Kind::Number),
];

/// A replica stays below this in every run.
const RESIDENT_BYTES_MAX: u64 = 200 << 20;

/// One short run.
struct Run {
    arguments: &'static [&'static str],
    /// Far below what the slowest machine that runs the checks reaches: this catches a stall, not a regression.
    throughput_min: f64,
}

const CHANNEL_RUNS: [Run; 3] = [
    Run {
        arguments: &["--clients", "50", "--in-flight", "16", "--connections", "shared"],
        throughput_min: 5_000.0,
    },
    Run {
        arguments: &["--clients", "20", "--request-bytes", "1024", "--reply-bytes", "1024"],
        throughput_min: 200.0,
    },
    Run { arguments: &["--clients", "20", "--connections", "per-client"], throughput_min: 200.0 },
];

const SIGNATURE_RUNS: [Run; 1] = [Run {
    arguments: &["--clients", "50", "--in-flight", "16", "--connections", "shared"],
    throughput_min: 1_000.0,
}];

/// Runs them all.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("bench-smoke")?;
    for (request_auth, runs) in [("channel", &CHANNEL_RUNS[..]), ("signature", &SIGNATURE_RUNS[..])] {
        let plan = Plan { service: "null", request_auth, durability: "none", redis: false };
        let cluster = Cluster::start(&binary, scratch.path(), plan)?;
        for run in runs {
            measure(&binary, &cluster, request_auth, run)?;
        }
        cluster.stop()?;
    }
    floor(&binary)?;
    scratch.discard();
    Ok(())
}

fn measure(binary: &Binary, cluster: &Cluster, request_auth: &str, run: &Run) -> Result<()> {
    let mut arguments = vec!["bench", cluster.directory(), "--warmup", "1s", "--duration", "2s", "--json"];
    arguments.extend(run.arguments);
    let result = json_line(binary, &arguments)?;
    check(&result, &FIELDS)?;
    let errors = result["errors"].as_u64().context("errors is no count")?;
    ensure!(errors == 0, "{errors} errors in {arguments:?}");
    let stated = result["request_auth"].as_str();
    ensure!(stated == Some(request_auth), "request_auth is {stated:?}, not {request_auth}");
    let throughput = result["throughput"].as_f64().context("throughput is no number")?;
    let least = run.throughput_min;
    ensure!(throughput >= least, "{throughput:.0} operations a second in {arguments:?}: below {least:.0}");
    let resident = result["replica_resident_bytes_max"].as_u64().context("resident bytes are no count")?;
    ensure!(resident <= RESIDENT_BYTES_MAX, "a replica had {resident} bytes resident in {arguments:?}");
    println!("bench {request_auth} {}: {throughput:.0} operations a second", run.arguments.join(" "));
    Ok(())
}

fn floor(binary: &Binary) -> Result<()> {
    let arguments = ["bench", "--floor", "--clients", "20", "--warmup", "1s", "--duration", "2s", "--json"];
    let result = json_line(binary, &arguments)?;
    check(&result, &FLOOR_FIELDS)?;
    println!(
        "bench floor: echo {:.0}, pattern {:.0} operations a second",
        result["echo"]["throughput"].as_f64().unwrap_or_default(),
        result["pattern"]["throughput"].as_f64().unwrap_or_default()
    );
    Ok(())
}

/// Runs a command that prints one JSON object on one line.
fn json_line(binary: &Binary, arguments: &[&str]) -> Result<Value> {
    let output = binary.output(arguments)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?} ended with {}: {stderr}", output.status);
    ensure!(stdout.trim_end().lines().count() == 1, "{arguments:?} printed more than one line: {stdout}");
    serde_json::from_str(stdout.trim_end())
        .with_context(|| format!("{arguments:?} printed no JSON: {stdout}"))
}
