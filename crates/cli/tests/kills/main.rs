//! Real processes killed and paused: what the others do, and with what the killed come back.

mod durability;
mod failover;
#[path = "../../../../xtask/src/failover/history.rs"]
mod history;
mod processes;
