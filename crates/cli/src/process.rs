//! What processes cost, as the operating system counts it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Clock ticks a second in /proc/PID/stat: fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time of another process so far, if it exists.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_seconds_of(&stat)
}

fn cpu_seconds_of(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses and may hold anything; the 14th and 15th are user
    // and system time.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds_of(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_used_some_time() {
        let before = own_cpu();
        assert!((0..200_000_u64).map(std::hint::black_box).sum::<u64>() > 0);
        assert!(own_cpu() > before);
        assert!(cpu_seconds(std::process::id()).is_some());
    }
}
