//! Measurements that are compared with each other: one after the other on a machine that is quiet, and what comes of many.

mod quiet;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binary::Binary;
use crate::cluster::Cluster;

/// How long one measurement takes, and what comes before it.
pub(crate) const DURATION: Duration = Duration::from_secs(4);
pub(crate) const WARMUP: Duration = Duration::from_secs(1);

/// Lets what came before come to its end.
pub(crate) fn settle() -> Result<()> {
    if !quiet::await_quiet()? {
        eprintln!("others use the processors: the figures will be worth little");
    }
    Ok(())
}

/// Runs `regency bench --json` with more arguments to its end; no client may be told of an error.
pub(crate) fn bench(binary: &Binary, cluster: &Cluster, more: &[&str]) -> Result<Value> {
    settle()?;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let (warmup, duration) = (seconds(WARMUP), seconds(DURATION));
    let mut arguments =
        vec!["bench", cluster.directory(), "--json", "--warmup", &warmup, "--duration", &duration];
    arguments.extend(more);
    let output = binary.output(&arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).context("regency bench printed no JSON")?;
    ensure!(measured["errors"] == 0, "errors in {arguments:?}: {}", measured["errors"]);
    Ok(measured)
}

/// Operations a second.
pub(crate) fn rate(measured: &Value) -> Result<f64> {
    measured["throughput"].as_f64().context("throughput is no number")
}

/// The median latency, in microseconds.
pub(crate) fn p50_us(measured: &Value) -> Result<f64> {
    measured["latency_us"]["p50"].as_f64().context("p50 is no number")
}

/// The ratio in each round.
pub(crate) fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// The median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The median, and between what it lies.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_a_value_that_was_measured() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert_eq!(ratios(&[4.0, 3.0], &[2.0, 1.0]), [2.0, 3.0]);
        assert_eq!(spread(&[3.0, 1.0, 2.0], 0), "2 (1 to 3)");
    }
}
