//! Whether anybody else uses the processors.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The share of idle time that counts as quiet.
const IDLE_MIN: f64 = 0.9;
/// What it is an average over; the disk has come to rest by then as well.
const LOOK: Duration = Duration::from_millis(700);
/// After that a measurement begins in any case.
const LIMIT: Duration = Duration::from_secs(5);

/// Waits until the processors are idle; false if others keep them busy.
pub(super) fn await_quiet() -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let (idle, all) = ticks()?;
        thread::sleep(LOOK);
        let (idle_now, all_now) = ticks()?;
        if (idle_now - idle) as f64 >= IDLE_MIN * (all_now - all) as f64 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ticks of all processors since the start, those without work and all.
fn ticks() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse(&stat).context("/proc/stat has no line of all processors")
}

fn parse(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // User, nice, system, idle, waiting for the disk, interrupts.
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((idle, ticks.iter().take(8).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_idle() {
        let stat = "cpu  10 1 5 100 20 0 2 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse(stat), Some((120, 138)));
        assert_eq!(parse(""), None);
    }
}
