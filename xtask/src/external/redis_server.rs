//! A real Redis, in memory, to compare with.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::table::words;
use crate::process::{Process, free_port, wait_until};
use crate::resp::Connection;

/// A `redis-server` that ends with us.
pub(super) struct RedisServer {
    port: u16,
    _process: Process,
}

impl RedisServer {
    /// Starts it on a free port, without persistence.
    pub(super) fn start(scratch: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(port.to_string());
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
            "--dir",
        ]);
        command.arg(scratch).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start("redis-server", &mut command)?;
        let answers = || {
            let pong = Connection::open(port).and_then(|mut connection| connection.call(&words("PING")));
            Ok(pong.is_ok_and(|reply| reply == "+PONG"))
        };
        wait_until(Duration::from_secs(10), answers).context("redis-server does not answer")?;
        Ok(Self { port, _process: process })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}
