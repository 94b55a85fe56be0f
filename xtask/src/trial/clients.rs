//! Whose operations a trial checks: clients of a counter, each with one operation in flight, be it the bundled counter
//! or a key that clients of the Redis front count up.

use std::path::PathBuf;
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::binary::Binary;
use crate::cluster::await_ready;
use crate::failover::history::{self, Operation};
use crate::failover::replicas::{Replicas, Setup};
use crate::failover::{begin_load, end_load};
use crate::process::{Process, free_port};
use crate::resp::Connection;

/// How many there are.
const CLIENTS: u64 = 20;
/// One operation in so many is a read.
const READ_ONE_IN: usize = 5;
/// The key that the Redis clients count up.
const KEY: &str = "count";

/// The clients of one cluster.
pub(crate) trait Clients {
    /// What they count has come to.
    fn value(&self, replicas: &Replicas) -> Result<u64>;

    /// Lets them work for so long.
    fn begin(&mut self, replicas: &Replicas, length: Duration) -> Result<()>;

    /// Waits until they have done; everything that they were told. An error is a failure.
    fn end(&mut self) -> Result<Vec<Operation>>;
}

/// Those of `regency bench --record`, at the service `counter`.
pub(crate) struct Bench {
    binary: Binary,
    record: PathBuf,
    load: Option<Process>,
}

impl Bench {
    /// None yet; what they are told goes to `record`.
    pub(crate) fn new(binary: Binary, record: PathBuf) -> Self {
        Self { binary, record, load: None }
    }

    /// Lets them work, whether every replica takes part or not.
    pub(crate) fn start(&mut self, replicas: &Replicas, length: Duration) -> Result<()> {
        self.load = Some(begin_load(&self.binary, replicas, &self.record, length, CLIENTS)?);
        Ok(())
    }
}

impl Clients for Bench {
    fn value(&self, replicas: &Replicas) -> Result<u64> {
        replicas.value()
    }

    fn begin(&mut self, replicas: &Replicas, length: Duration) -> Result<()> {
        self.start(replicas, length)?;
        replicas.await_sessions(CLIENTS)
    }

    fn end(&mut self) -> Result<Vec<Operation>> {
        let measured = end_load(&mut self.load.take().context("no load")?)?;
        let errors = measured["errors"].as_u64().context("errors is no count")?;
        ensure!(errors == 0, "clients were told of {errors} errors");
        history::read(&self.record)
    }
}

/// Those of `regency redis`, at the service `kv`: a connection each.
pub(crate) struct Redis {
    port: u16,
    /// Ends with the clients.
    _front: Process,
    threads: Vec<JoinHandle<Result<Vec<Operation>>>>,
}

impl Redis {
    /// What a trial's cluster is with such clients.
    pub(crate) const SETUP: Setup<'static> = Setup { service: "kv", ..super::SETUP };

    /// Starts the front.
    pub(crate) fn new(binary: &Binary, replicas: &Replicas) -> Result<Self> {
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let mut command = binary.command(&["redis", replicas.directory(), "--listen", &listen]);
        let mut front = Process::start("regency redis", command.stdout(Stdio::piped()))?;
        await_ready(&mut front)?;
        Ok(Self { port, _front: front, threads: Vec::new() })
    }
}

impl Clients for Redis {
    fn value(&self, _replicas: &Replicas) -> Result<u64> {
        read(&mut Connection::open(self.port)?)
    }

    fn begin(&mut self, _replicas: &Replicas, length: Duration) -> Result<()> {
        let (port, begun) = (self.port, Instant::now());
        let clients = (0..usize::try_from(CLIENTS)?).map(|client| {
            let connection = Connection::open(port)?;
            Ok(thread::spawn(move || count(connection, client, begun, length)))
        });
        self.threads = clients.collect::<Result<_>>()?;
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<Operation>> {
        let ended = self.threads.drain(..).map(|thread| {
            thread.join().map_err(|_| anyhow!("a client panicked"))?.context("a client of the Redis front")
        });
        Ok(ended.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// Adds and reads until `length` after `begun`.
fn count(
    mut connection: Connection,
    client: usize,
    begun: Instant,
    length: Duration,
) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    let now = || u64::try_from(begun.elapsed().as_micros());
    while begun.elapsed() < length {
        let is_addition = !(client + operations.len()).is_multiple_of(READ_ONE_IN);
        let begin = now()?;
        let value = if is_addition { add(&mut connection) } else { read(&mut connection) }?;
        operations.push(Operation { begin, end: now()?, is_addition, value });
    }
    Ok(operations)
}

fn add(connection: &mut Connection) -> Result<u64> {
    counted(&connection.call(&["INCR", KEY].map(|word| word.as_bytes().to_vec()))?)
}

fn read(connection: &mut Connection) -> Result<u64> {
    counted(&connection.call(&["GET", KEY].map(|word| word.as_bytes().to_vec()))?)
}

/// The number in a reply; what was never counted is 0.
fn counted(reply: &str) -> Result<u64> {
    if reply == "$nil" {
        return Ok(0);
    }
    match reply.strip_prefix(':').or_else(|| reply.strip_prefix("$\"")?.strip_suffix('"')) {
        Some(number) => number.parse().with_context(|| format!("{reply:?} is no number")),
        None => bail!("the front answers {reply:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_the_front_are_numbers_or_errors() {
        assert_eq!(counted("$nil").unwrap(), 0);
        assert_eq!(counted("$\"12\"").unwrap(), 12);
        assert_eq!(counted(":7").unwrap(), 7);
        assert!(counted("-ERR outcome unknown").is_err());
    }
}
