//! The server: sockets, timeouts and the thread that they live on.
//!
//! One thread with one runtime serves all connections; what a connection means is [`Session`]'s.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::cluster::Cluster;
use super::limits::{READ_BYTES, STOP_GRACE};
use super::session::{Session, Turn};
use super::shared::{Options, Shared, Stats, count};

/// Why a front could not be started.
#[derive(Debug, Error)]
pub enum FrontError {
    /// Whoever reaches the address could change everything.
    #[error("{0} is reachable from other machines: set a password, or listen on a loopback address")]
    PasswordNeeded(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("cannot start the front's thread: {0}")]
    Thread(io::Error),
}

/// A running front; it stops when dropped.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
///
/// use regency::Bytes;
/// use regency_services::redis::{Cluster, Front, Options, Unanswered};
///
/// /// A cluster that is out of reach.
/// #[derive(Clone)]
/// struct Nobody;
///
/// impl Cluster for Nobody {
///     async fn invoke(&self, _request: Bytes) -> Result<Bytes, Unanswered> {
///         Err(Unanswered::NotExecuted { cause: "no replica is reachable".to_owned() })
///     }
/// }
///
/// let front = Front::bind("127.0.0.1:0".parse().unwrap(), Nobody, Options::default())?;
/// let mut client = TcpStream::connect(front.local_addr()).unwrap();
/// client.write_all(b"PING\r\nGET k\r\nQUIT\r\n").unwrap();
/// let mut replies = String::new();
/// client.read_to_string(&mut replies).unwrap();
/// assert_eq!(replies, "+PONG\r\n-ERR no replica is reachable (the command was not executed)\r\n+OK\r\n");
/// front.stop();
/// # Ok::<(), regency_services::redis::FrontError>(())
/// ```
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    /// Listens on `address` and serves its connections as a client of `cluster`. Port 0 takes a free port.
    pub fn bind(address: SocketAddr, cluster: impl Cluster, options: Options) -> Result<Self, FrontError> {
        if !address.ip().is_loopback() && options.password.is_none() {
            return Err(FrontError::PasswordNeeded(address));
        }
        let listen = |source| FrontError::Listen { address, source };
        let listener = StdListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared::new(options, address.port(), first_cursor()));
        let (stop, stopped) = watch::channel(false);
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(FrontError::Thread)?;
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("redis".to_owned()).spawn(move || {
            runtime.block_on(serve(listener, cluster, served, stopped));
            runtime.shutdown_background();
        });
        Ok(Self { address, shared, stop, thread: Some(thread.map_err(FrontError::Thread)?) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its counters; commands a second are the difference of two looks at them.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Takes no more connections or commands, lets requests that are open be answered for a moment, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the Redis front's thread has panicked");
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(
    listener: StdListener,
    cluster: impl Cluster,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the Redis front cannot accept connections");
            return;
        }
    };
    // Every connection holds an end of this; when all are gone, all connections are.
    let (alive, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let mut id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                id += 1;
                accept(stream, peer, id, &cluster, &shared, &stopped, alive.clone());
            }
            Err(error) => {
                // Most likely too many open files: the ones that are open must end first.
                tracing::warn!(%error, "the Redis front could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listener, alive));
    // A connection that takes longer is cut off when the runtime ends.
    let _ = timeout(STOP_GRACE, gone.recv()).await;
}

/// How long to wait after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

fn accept(
    mut stream: TcpStream,
    peer: SocketAddr,
    id: u64,
    cluster: &impl Cluster,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    alive: tokio::sync::mpsc::Sender<()>,
) {
    let counters = &shared.counters;
    let open = counters.connections.load(Ordering::Relaxed);
    if usize::try_from(open).unwrap_or(usize::MAX) >= shared.options().connections_max {
        count(&counters.connections_refused);
        // The socket's buffer is empty and does not block: who does not get these bytes is gone.
        let _ = stream
            .into_std()
            .and_then(|mut stream| stream.write_all(b"-ERR max number of clients reached\r\n"));
        return;
    }
    count(&counters.connections);
    count(&counters.connections_accepted);
    let (cluster, shared, mut stopped) = (cluster.clone(), Arc::clone(shared), stopped.clone());
    tokio::spawn(async move {
        let mut session = Session::new(id, peer, &shared);
        // An error is a connection that has ended; who had it knows.
        let _ = converse(&mut stream, &mut session, &cluster, &shared, &mut stopped).await;
        shared.clients().remove(&id);
        shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
        drop(alive);
    });
}

/// Serves one connection until it ends.
async fn converse(
    stream: &mut TcpStream,
    session: &mut Session,
    cluster: &impl Cluster,
    shared: &Shared,
    stopped: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    let mut command_begun = None;
    loop {
        match session.take(&mut input, &mut out, shared) {
            Turn::Waiting if session.is_closing || *stopped.borrow() => return Ok(()),
            Turn::Waiting => {
                let now = Instant::now();
                command_begun = session.is_inside_command().then(|| command_begun.unwrap_or(now));
                let until = command_begun.map(|begun| begun + shared.options().command_timeout);
                tokio::select! {
                    more = read(stream, until, &mut input, shared) => if !more? { return Ok(()) },
                    _ = stopped.changed() => return Ok(()),
                }
            }
            Turn::Reply => write(stream, &mut out, shared).await?,
            Turn::Ask(request) => {
                let mut next = Some(request);
                while let Some(request) = next {
                    count(&shared.counters.requests);
                    let reply = cluster.invoke(request).await;
                    if reply.is_err() {
                        count(&shared.counters.requests_failed);
                    }
                    let reply = reply.as_ref().map(|reply| &reply[..]).map_err(Clone::clone);
                    next = session.on_reply(reply, &mut out, shared);
                    write(stream, &mut out, shared).await?;
                }
            }
        }
    }
}

/// Reads what has come; `false` at the end of the input, and if nothing comes `until` then.
///
/// The buffer stays bounded: the parser refuses a command that is longer than it may be before it has all come.
async fn read(
    stream: &mut TcpStream,
    until: Option<Instant>,
    input: &mut BytesMut,
    shared: &Shared,
) -> io::Result<bool> {
    if input.is_empty() && input.capacity() > 4 * READ_BYTES {
        // A large command has gone through: its memory is not kept for the small ones that follow.
        *input = BytesMut::new();
    }
    input.reserve(READ_BYTES / 4);
    let reading = stream.read_buf(input);
    let Some(until) = until else { return Ok(reading.await? > 0) };
    match timeout_at(until, reading).await {
        Ok(read) => Ok(read? > 0),
        Err(_) => {
            count(&shared.counters.slow_writers);
            Ok(false)
        }
    }
}

async fn write(stream: &mut TcpStream, out: &mut Vec<u8>, shared: &Shared) -> io::Result<()> {
    match timeout(shared.options().write_timeout, stream.write_all(out)).await {
        Ok(written) => written?,
        Err(_) => {
            count(&shared.counters.slow_readers);
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    if out.capacity() > 4 * READ_BYTES {
        *out = Vec::new();
    }
    out.clear();
    Ok(())
}

/// A number that is another one at each start, below what clients read exactly as a floating point number.
fn first_cursor() -> u64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (seconds & u64::from(u32::MAX)) << 20
}
