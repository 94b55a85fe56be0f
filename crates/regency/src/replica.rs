//! A running replica: start it with a configuration and a service, ask it how it is, stop it.
//!
//! [`Replica::builder`] opens the data directory, binds the ports and starts one thread, on which everything
//! happens but what the disk does in the background; [`ReplicaHandle`] is what the starter keeps. Several replicas may run in one process.

#[cfg(feature = "adversity")]
#[path = "replica/adversity.rs"]
mod conduct;
#[cfg(not(feature = "adversity"))]
mod conduct;

mod clock;
mod connection;
mod data_directory;
mod disk_thread;
mod donor;
mod event_loop;
mod executor;
mod held;
mod inbound;
mod journal;
mod lazy_disk;
mod load;
mod network;
mod peers;
mod phases;
mod port_holder;
mod progress;
mod recovery;
mod resolver;
mod room;
mod routes;
mod scrubber;
mod snapshots;
mod spares;
mod status;
mod verifier;
mod written_log;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;
use regency_protocol::ids::ReplicaId;
use regency_protocol::replica::{Replica as Core, ReplicaConfig as CoreConfig, Start};
use regency_storage::Identity as Owner;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tracing::{info, warn};

#[cfg(feature = "adversity")]
#[doc(hidden)]
pub use conduct::Adversity;
pub use connection::Patience;
pub use data_directory::{IdleData, Life, prepare_data};
pub use progress::TransferReport;
pub use status::{Readiness, StatusReport};

use crate::admin::Admin;
use crate::config::{ReplicaConfig, durability_name};
use crate::crypto::SigningKey;
use crate::failure::{ErrorCode, Failure};
use crate::metrics::Metrics;
use crate::service::Service;
use crate::transport::TlsIdentity;
use clock::Clock;
use conduct::Conduct;
use data_directory::DataDirectory;
use event_loop::{EventLoop, Parts};
use executor::Executor;
use network::Network;
use port_holder::port_holder;
use recovery::Recovery;
use routes::Routes;
use scrubber::Pace;

/// Commands that wait for the loop.
const COMMANDS_MAX: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Routes of replies beside one for each session: OPENs that wait for their answers.
const ROUTES_SPARE: usize = 4096;
/// How long the disk is left alone between two readings.
const SCRUB_REST: Duration = Duration::from_secs(60);
/// Instances in flight up to which a leader proposes whatever is there.
const EAGER_INSTANCES: u64 = 4;

/// One replica of a cluster, in this process.
pub struct Replica;

impl Replica {
    /// Begins with what the configuration files say.
    #[must_use]
    pub fn builder(config: ReplicaConfig) -> ReplicaBuilder {
        ReplicaBuilder {
            config,
            service: None,
            listener: None,
            admin_listener: None,
            patience: Patience::default(),
            scrub_rest: SCRUB_REST,
            #[cfg(feature = "adversity")]
            adversity: None,
        }
    }
}

/// A replica that is about to start.
pub struct ReplicaBuilder {
    config: ReplicaConfig,
    service: Option<Box<dyn Service>>,
    listener: Option<TcpListener>,
    admin_listener: Option<TcpListener>,
    patience: Patience,
    scrub_rest: Duration,
    #[cfg(feature = "adversity")]
    adversity: Option<Adversity>,
}

/// What a replica is called.
#[derive(Clone, Debug)]
struct Identity {
    id: ReplicaId,
    service: String,
    address: String,
    admin: Option<String>,
}

/// What others ask of the loop.
enum Command {
    /// To tell its figures.
    Status(Box<dyn FnOnce(StatusReport) + Send>),
    /// To end.
    Stop,
}

/// Whether the replica takes part, for those who wait for it.
#[derive(Debug, Default)]
struct Shared {
    readiness: Mutex<Option<Readiness>>,
    changed: Condvar,
}

impl Shared {
    fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = Some(readiness);
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration) -> Readiness {
        let starting = || Readiness { ready: false, reason: Some("starting".into()) };
        let held = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = |now: &mut Option<Readiness>| !now.as_ref().is_some_and(|now| now.ready);
        let (held, _) =
            self.changed.wait_timeout_while(held, timeout, is_ready).unwrap_or_else(PoisonError::into_inner);
        held.clone().unwrap_or_else(starting)
    }
}

impl ReplicaBuilder {
    /// What the replica executes.
    #[must_use]
    pub fn service(mut self, service: impl Service) -> Self {
        self.service = Some(Box::new(service));
        self
    }

    /// What the replica executes, chosen at run time.
    #[must_use]
    pub fn boxed_service(mut self, service: Box<dyn Service>) -> Self {
        self.service = Some(service);
        self
    }

    /// A socket that listens already, instead of one bound to the configured address.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// A socket that listens already for the admin port, instead of one bound to the configured address.
    #[must_use]
    pub fn admin_listener(mut self, listener: TcpListener) -> Self {
        self.admin_listener = Some(listener);
        self
    }

    /// How long connections may keep the replica waiting.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// How long the disk is left alone between two readings of it; a minute otherwise.
    #[must_use]
    pub fn scrub_rest(mut self, rest: Duration) -> Self {
        self.scrub_rest = rest;
        self
    }

    /// What the replica does wrong, for tests.
    #[cfg(feature = "adversity")]
    #[doc(hidden)]
    #[must_use]
    pub fn adversity(mut self, adversity: Adversity) -> Self {
        self.adversity = Some(adversity);
        self
    }

    /// Opens the data directory, binds the ports, and starts the replica on a thread of its own.
    pub fn start(self) -> Result<ReplicaHandle, Failure> {
        #[cfg(feature = "adversity")]
        let adversity = self.adversity;
        let Self { config, service, listener, admin_listener, patience, scrub_rest, .. } = self;
        let service = service.ok_or_else(|| {
            Failure::new(ErrorCode::MissingKey, "the replica has no service", "call service() before start()")
        })?;
        let cluster = config.cluster.clone();
        let view = cluster.view().clone();
        let owner = Owner { cluster: cluster.id(), replica: config.id };
        let directory = DataDirectory::open(&config.data, owner, cluster.durability())?;
        let life = directory.life();
        tell_life(life, &config);
        let listener = match listener {
            Some(listener) => listener,
            None => bind(&config.listen)?,
        };
        let address = listener.local_addr().map_err(no_system)?;
        listener.set_nonblocking(true).map_err(no_system)?;
        let admin_listener = match (admin_listener, &config.admin) {
            (Some(listener), _) => Some(listener),
            (None, Some(address)) => Some(bind(address)?),
            (None, None) => None,
        };
        let admin_address =
            admin_listener.as_ref().map(TcpListener::local_addr).transpose().map_err(no_system)?;

        let key = SigningKey::from_seed(*config.seed.as_bytes());
        let metrics = Arc::new(Metrics::new(config.id));
        let tls = TlsIdentity::new(&key)
            .map_err(|error| Failure::new(ErrorCode::System, error.to_string(), "report this as a defect"))?;
        let listener = mio::net::TcpListener::from_std(listener);
        let (network, waker) =
            Network::new(listener, tls, view.clone(), config.id, metrics.clone(), patience)?;
        let (commands, received) = sync_channel(COMMANDS_MAX);
        let remote = Remote { commands, waker: waker.clone() };
        let admin = admin_listener
            .map(|listener| Admin::start(listener, remote.clone(), metrics.clone(), config.id))
            .transpose()?;
        let identity = Identity {
            id: config.id,
            service: cluster.service().to_owned(),
            address: address.to_string(),
            admin: admin_address.map(|address| address.to_string()),
        };
        let shared = Arc::new(Shared::default());
        #[cfg_attr(not(feature = "adversity"), expect(unused_mut))]
        let mut conduct = Conduct::new(&view, config.id);
        #[cfg(feature = "adversity")]
        if let Some(adversity) = adversity {
            conduct.suffer(adversity);
        }
        let parts = Parts {
            identity,
            conduct,
            key,
            network,
            core: CoreConfig {
                view: view.clone(),
                me: config.id,
                settings: cluster.settings().clone(),
                start: Start::Fresh,
                durability: cluster.durability(),
                eager_instances: EAGER_INSTANCES,
            },
            disk_reserve_bytes: config.disk_reserve_bytes,
            transfer_bytes_per_second: config.transfer_bytes_per_second,
            scrub: Pace { bytes_per_second: config.scrub_bytes_per_second, rest: scrub_rest },
            waker,
            view,
            validator: service.validator(),
            executor: Executor::new(service),
            routes: Routes::new(cluster.settings().sessions_max + ROUTES_SPARE),
            metrics: metrics.clone(),
            commands: received,
            shared: shared.clone(),
        };
        info!(replica = config.id.0, %address, admin = ?admin_address, "listening");
        let thread = spawn(config.id, parts, directory)?;
        Ok(ReplicaHandle {
            id: config.id,
            life,
            address,
            admin_address,
            remote,
            shared,
            metrics,
            thread,
            _admin: admin,
        })
    }
}

/// A running replica; dropping the handle stops it.
pub struct ReplicaHandle {
    id: ReplicaId,
    life: Life,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    remote: Remote,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
    _admin: Option<Admin>,
}

impl ReplicaHandle {
    /// Which replica it is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Whether it lived before and lost its votes.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Where it listens for replicas and clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers about itself.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Waits until the replica takes part, at most for `timeout`; says why if it does not.
    #[must_use]
    pub fn wait_ready(&self, timeout: Duration) -> Readiness {
        self.shared.wait(timeout)
    }

    /// Its figures; an error if it does not answer within `timeout`.
    pub fn status(&self, timeout: Duration) -> Result<StatusReport, Failure> {
        self.remote.status(timeout)
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Something that can stop the replica from another thread, a signal handler's for example.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.remote.clone())
    }

    /// Whether the replica has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the replica has ended, and tells why if that was not wanted.
    pub fn wait(mut self) -> Result<(), Failure> {
        self.join()
    }

    /// Sends what waits, closes all connections, and ends the replica.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.remote.stop();
        self.join()
    }

    fn join(&mut self) -> Result<(), Failure> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| {
            Err(Failure::new(
                ErrorCode::Invariant,
                format!("replica {} stopped because one of its invariants was broken", self.id),
                "keep its log and report this as a defect",
            ))
        })
    }
}

impl Drop for ReplicaHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.remote.stop();
            // Whoever drops the handle does not ask for the outcome.
            let _ = self.join();
        }
    }
}

/// Stops a replica from elsewhere.
#[derive(Clone)]
pub struct Stopper(Remote);

impl Stopper {
    /// Tells the replica to end; [`ReplicaHandle::wait`] returns when it has.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// A way to the loop from other threads.
#[derive(Clone)]
pub(crate) struct Remote {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
}

impl Remote {
    /// Asks for the figures; `answer` gets them on the loop's thread. Tells whether the question was taken.
    pub(crate) fn ask_status(&self, answer: Box<dyn FnOnce(StatusReport) + Send>) -> bool {
        self.commands.try_send(Command::Status(answer)).is_ok() && self.waker.wake().is_ok()
    }

    fn status(&self, timeout: Duration) -> Result<StatusReport, Failure> {
        let (sender, receiver) = sync_channel(1);
        // The asker may have given up: nobody misses the answer then.
        let is_asked = self.ask_status(Box::new(move |report| drop(sender.try_send(report))));
        let report = if is_asked { receiver.recv_timeout(timeout).ok() } else { None };
        report.ok_or_else(|| {
            Failure::new(
                ErrorCode::System,
                "the replica does not answer",
                "look whether it is overloaded or has ended",
            )
        })
    }

    fn stop(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        // A full queue is emptied by the next turn.
        while let Err(TrySendError::Full(_)) = self.commands.try_send(Command::Stop) {
            if self.waker.wake().is_err() || Instant::now() >= until {
                return;
            }
            thread::yield_now();
        }
        // A loop that has ended needs no waking.
        let _ = self.waker.wake();
    }
}

fn spawn(
    id: ReplicaId,
    parts: Parts,
    directory: DataDirectory,
) -> Result<Option<JoinHandle<Result<(), Failure>>>, Failure> {
    let run = move || live(parts, directory);
    thread::Builder::new().name(format!("replica-{id}")).spawn(run).map(Some).map_err(no_system)
}

/// A replica's life, from what is left of the one before to what is kept for the one after.
fn live(mut parts: Parts, mut directory: DataDirectory) -> Result<(), Failure> {
    let started = Instant::now();
    let (commands, identity, view) = (&parts.commands, &parts.identity, &parts.view);
    let mut heed = |core: &Core| {
        commands.try_iter().any(|command| match command {
            Command::Stop => true,
            Command::Status(answer) => {
                answer(StatusReport::reading(identity, view, &core.status(), started));
                false
            }
        })
    };
    let recovery = Recovery {
        directory: &mut directory,
        config: parts.core.clone(),
        executor: &mut parts.executor,
        now: Clock::start().now(),
        reserve_bytes: parts.disk_reserve_bytes,
        waker: parts.waker.clone(),
        metrics: parts.metrics.clone(),
        heed: &mut heed,
    };
    let Some(recovered) = recovery.run()? else { return Ok(()) };
    let (journal, directory) = EventLoop::new(parts, recovered, directory, started)?.run()?;
    match journal.close() {
        Some(last) => directory.stop(last),
        // Nothing is kept, or not all of it: the next start finds out which.
        None => Ok(()),
    }
}

fn tell_life(life: Life, config: &ReplicaConfig) {
    match life {
        Life::First | Life::Kept { .. } => {}
        Life::VotesLost => warn!(
            replica = config.id.0,
            data = %config.data.display(),
            "state-lost: this replica lived before, or its data directory is not that which init made, and with \
             durability {:?} its votes are gone. It gets what it misses from the others; until what its votes can have \
             been for is past, it does not vote, and counts in f",
            durability_name(config.cluster.durability())
        ),
    }
}

fn bind(address: &str) -> Result<TcpListener, Failure> {
    let bad = |cause: String| {
        Failure::new(
            ErrorCode::BadAddress,
            format!("address {address} cannot be used ({cause})"),
            "correct it, or set listen in replica.toml",
        )
    };
    let resolved = resolver::look_up(address).map_err(bad)?;
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(resolved), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(resolved))?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error| {
        if error.kind() != io::ErrorKind::AddrInUse {
            return bad(error.to_string());
        }
        let holder = match port_holder(resolved.port()) {
            Some(id) => format!("process {id}"),
            None => "another process".to_owned(),
        };
        Failure::new(
            ErrorCode::AddressInUse,
            format!("address {address} is in use by {holder}"),
            "stop it, or use another port",
        )
    })
}

/// The system did not give what every process needs.
fn no_system(error: io::Error) -> Failure {
    Failure::new(
        ErrorCode::System,
        format!("the system refuses sockets or threads ({error})"),
        "check the limits of this process (ulimit -n)",
    )
}
