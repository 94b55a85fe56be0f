//! Latencies of one run and the five figures that are printed of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart; longer ones count as this one.
const LATENCY_MAX: Duration = Duration::from_secs(120);
/// Significant decimal digits of a recorded latency.
const PRECISION_DIGITS: u8 = 3;

/// A histogram of latencies, nanoseconds inside.
#[derive(Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

/// What is printed of a [`Latency`], in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencyMicros {
    /// The arithmetic mean.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) p50: f64,
    /// 99 of 100 are at most this.
    pub(crate) p99: f64,
    /// 999 of 1000 are at most this.
    pub(crate) p999: f64,
    /// The longest one.
    pub(crate) max: f64,
}

impl Latency {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let histogram = Histogram::new_with_bounds(1000, max, PRECISION_DIGITS)
            .expect("the bounds are constants that fit together");
        Self { histogram }
    }

    /// Counts one operation.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many operations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The figures.
    pub(crate) fn micros(&self) -> LatencyMicros {
        // One decimal is what the histogram's precision supports.
        let rounded = |nanos: f64| (nanos / 100.0).round() / 10.0;
        let quantile = |quantile: f64| rounded(self.histogram.value_at_quantile(quantile) as f64);
        LatencyMicros {
            mean: rounded(self.histogram.mean()),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: rounded(self.histogram.max() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::new();
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let figures = latency.micros();
        assert_eq!(latency.count(), 1000);
        assert!((figures.p50 - 500.0).abs() < 1.0, "{figures:?}");
        assert!((figures.p99 - 990.0).abs() < 1.0, "{figures:?}");
        assert!((figures.max - 1000.0).abs() < 1.0, "{figures:?}");
        assert!((figures.mean - 500.5).abs() < 1.0, "{figures:?}");
    }
}
