//! Real processes killed and paused: what the others do, and with what the killed come back.

mod durability;
mod failover;
#[expect(dead_code, reason = "recipes alone read records from files")]
#[path = "../../../../xtask/src/failover/history.rs"]
mod history;
mod processes;
