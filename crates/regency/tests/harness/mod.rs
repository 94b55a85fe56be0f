//! Four replicas in one process on free ports, and channels that speak to them byte by byte.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod channel;
pub mod cluster;
pub mod proxy;
pub mod session;

use std::time::{Duration, Instant};

/// How long anything may take that should take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds`, looking again and again; panics with `what` if it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
