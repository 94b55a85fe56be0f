//! What the connections of one front have in common: options, counters, cursors, who is connected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cursors::Cursors;
use super::limits::{COMMAND_TIMEOUT, CONNECTIONS_MAX, WRITE_TIMEOUT};
use super::resp::Protocol;

/// How a front serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What clients must show by AUTH; without one, none may be shown. Needed beyond loopback.
    pub password: Option<Password>,
    /// Connections at once; more are told so and closed.
    pub connections_max: usize,
    /// Bytes of one request of the cluster.
    pub request_bytes_max: usize,
    /// How long a client may take to read its replies before it is dropped.
    pub write_timeout: Duration,
    /// How long a client may take to send a command that it has begun before it is dropped.
    pub command_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            password: None,
            connections_max: CONNECTIONS_MAX,
            request_bytes_max: regency::protocol::limits::Settings::default().request_bytes_max,
            write_timeout: WRITE_TIMEOUT,
            command_timeout: COMMAND_TIMEOUT,
        }
    }
}

/// A password, kept as its hash only.
#[derive(Clone)]
pub struct Password(blake3::Hash);

impl Password {
    /// Keeps `password`.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self(blake3::hash(password))
    }

    /// Whether `shown` is the password; takes the same time wherever they differ.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        // Hashes are compared in constant time; hashing depends on what was shown, not on the password.
        self.0 == blake3::hash(shown)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Counters of a front: totals since it started, but for `connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open now.
    pub connections: u64,
    /// Connections that were served.
    pub connections_accepted: u64,
    /// Connections closed at once because there were too many.
    pub connections_refused: u64,
    /// Connections dropped because the client did not read its replies.
    pub slow_readers: u64,
    /// Connections dropped because the client did not end a command.
    pub slow_writers: u64,
    /// Connections closed because their bytes were no commands.
    pub protocol_errors: u64,
    /// Commands, refused ones included.
    pub commands: u64,
    /// Commands refused by the front.
    pub commands_refused: u64,
    /// Wrong passwords.
    pub wrong_passwords: u64,
    /// Requests to the cluster, each with the commands that one connection had sent.
    pub requests: u64,
    /// Requests that the cluster did not answer.
    pub requests_failed: u64,
}

/// [`Stats`] as they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) connections_accepted: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) slow_readers: AtomicU64,
    pub(super) slow_writers: AtomicU64,
    pub(super) protocol_errors: AtomicU64,
    pub(super) commands: AtomicU64,
    pub(super) commands_refused: AtomicU64,
    pub(super) wrong_passwords: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) requests_failed: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What CLIENT LIST tells of a connection.
#[derive(Clone, Debug)]
pub(super) struct ClientRecord {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) connected: Instant,
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) protocol: Protocol,
}

impl ClientRecord {
    pub(super) fn line(&self) -> String {
        let Self { id, address, connected, name, library, library_version, protocol } = self;
        format!(
            "id={id} addr={address} name={name} age={} db=0 lib-name={library} lib-ver={library_version} resp={}\n",
            connected.elapsed().as_secs(),
            protocol.number(),
        )
    }
}

/// One front's common state.
#[derive(Debug)]
pub(super) struct Shared {
    options: Options,
    port: u16,
    started: Instant,
    pub(super) counters: Counters,
    cursors: Mutex<Cursors>,
    clients: Mutex<BTreeMap<u64, ClientRecord>>,
}

impl Shared {
    /// `first_cursor` differs from start to start.
    pub(super) fn new(options: Options, port: u16, first_cursor: u64) -> Self {
        Self {
            options,
            port,
            started: Instant::now(),
            counters: Counters::default(),
            cursors: Mutex::new(Cursors::new(first_cursor)),
            clients: Mutex::default(),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn cursors(&self) -> MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who are connected, by id; as many as there may be connections.
    pub(super) fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, ClientRecord>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            connections: read(&counters.connections),
            connections_accepted: read(&counters.connections_accepted),
            connections_refused: read(&counters.connections_refused),
            slow_readers: read(&counters.slow_readers),
            slow_writers: read(&counters.slow_writers),
            protocol_errors: read(&counters.protocol_errors),
            commands: read(&counters.commands),
            commands_refused: read(&counters.commands_refused),
            wrong_passwords: read(&counters.wrong_passwords),
            requests: read(&counters.requests),
            requests_failed: read(&counters.requests_failed),
        }
    }
}
