//! All sockets of a replica: the listener, the lines to other members, the clients' channels.
//!
//! The loop calls it in turns: [`Network::wait`], then [`Network::read`], which takes what the sockets hold within
//! a budget and hands over decoded messages, then any number of sends and replies, then [`Network::flush`], which
//! writes once per connection that has something to say. Nothing here blocks but `wait`, and everything that
//! others can make grow has a bound. Who breaks the rules is counted, named in the log now and then, and closed.

mod admission;
mod lines;
mod output;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Source;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use regency_protocol::codec::{DecodeError, Wire, pieces};
use regency_protocol::ids::{ClientId, ReplicaId};
use regency_protocol::limits::{
    CLIENT_FRAME_BYTES_MAX, FETCH_ANSWER_BYTES_PER_PERIOD_MAX, PEER_FRAME_BYTES_MAX,
};
use regency_protocol::message::{ClientMessage, Message};
use regency_protocol::view::View;
use slab::Slab;
use tracing::{debug, warn};

use super::connection::{Connection, ConnectionId, Lane, Patience, Stage, Stall};
use super::inbound::Inbound;
use super::peers::Peers;
use super::resolver::Resolver;
use crate::failure::Failure;
use crate::logging::Quieter;
use crate::metrics::{Fault, Metrics};
use crate::transport::{FrameError, Link, LinkError, LinkLimits, ReadOutcome, TlsIdentity};

/// Connections of clients, at most.
const CLIENT_CONNECTIONS_MAX: usize = 8192;
/// Connections of one client key, at most.
const CLIENT_CONNECTIONS_PER_KEY_MAX: usize = 2048;
/// Connections that have not said yet who they are; beyond it the oldest of them goes.
const ANSWERING_MAX: usize = 512;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN_MAX: usize = 64;
/// How long to wait before accepting again when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read from one socket before the next one's turn.
const SOCKET_BYTES_PER_TURN: usize = 256 << 10;
/// Bytes read from all clients in one turn.
const CLIENT_BYTES_PER_TURN: u64 = 4 << 20;
/// Bytes read in one turn from the lines for bulk, after everything else.
const BULK_BYTES_PER_TURN: u64 = 1 << 20;
/// Bytes that may wait for a peer that does not read; then the line is cut, and heals by LINK-1 and LINK-2. More than
/// what one that fell behind is answered in a period.
const PEER_OUTBOUND_BYTES_MAX: usize = 2 * FETCH_ANSWER_BYTES_PER_PERIOD_MAX;
/// Bytes that may wait for a client that does not read; then it is disconnected.
const CLIENT_OUTBOUND_BYTES_MAX: usize = 4 << 20;
/// Bytes that may wait for all clients together.
const CLIENTS_OUTBOUND_BYTES_MAX: usize = 64 << 20;
/// How often connections are looked at for stalls.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);
/// Readiness events taken from the system at once.
const EVENTS_PER_WAIT: usize = 1024;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// The token of the connection in slot 0.
const FIRST_CONNECTION: usize = 2;

const PEER_LIMITS: LinkLimits =
    LinkLimits { frame_bytes_max: PEER_FRAME_BYTES_MAX, outbound_bytes_max: PEER_OUTBOUND_BYTES_MAX };
const CLIENT_LIMITS: LinkLimits =
    LinkLimits { frame_bytes_max: CLIENT_FRAME_BYTES_MAX, outbound_bytes_max: CLIENT_OUTBOUND_BYTES_MAX };

/// All sockets of a replica.
pub(super) struct Network {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    identity: TlsIdentity,
    view: Arc<View>,
    me: ReplicaId,
    connections: Slab<Connection>,
    next_serial: u64,
    /// The lines for ordering.
    peers: Peers,
    /// Those for what is fetched and given.
    bulk: Peers,
    resolver: Resolver,
    /// Open connections of each client.
    clients: HashMap<ClientId, usize>,
    client_connections: usize,
    client_outbound: usize,
    /// Connections that have not said who they are, oldest first; may name some that have, or are gone.
    answering: VecDeque<ConnectionId>,
    readable: Readable,
    dirty: Vec<usize>,
    /// What has happened to lines since the last read.
    notices: Vec<Inbound>,
    is_accepting: bool,
    accept_after: Option<Instant>,
    next_sweep: Instant,
    is_stopping: bool,
    patience: Patience,
    frames: Vec<Bytes>,
    scratch: Vec<u8>,
    metrics: Arc<Metrics>,
    quieter: Quieter,
}

/// The slots of connections that may hold unread bytes, by whose turn it is.
#[derive(Default)]
struct Readable {
    peers: VecDeque<usize>,
    clients: VecDeque<usize>,
    bulk: VecDeque<usize>,
}

impl Readable {
    fn push(&mut self, stage: Stage, slot: usize) {
        let queue = match stage {
            Stage::Peer(_, Lane::Order) | Stage::Calling(..) => &mut self.peers,
            Stage::Client(_) | Stage::Answering | Stage::Refused => &mut self.clients,
            Stage::Peer(_, Lane::Bulk) => &mut self.bulk,
        };
        queue.push_back(slot);
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.clients.is_empty() && self.bulk.is_empty()
    }
}

/// Why a connection ends.
enum End {
    /// The other side closed it.
    Closed,
    /// It broke a rule, or failed.
    Fault(Fault, String),
    /// A newer one of the same member takes its place.
    Replaced,
    /// It was refused, and knows why.
    Refused,
    /// The replica stops.
    Stopping,
}

impl Network {
    /// Sockets of the member `me`, which listens on `listener`; returns the waker of [`Network::wait`] too.
    pub(super) fn new(
        mut listener: TcpListener,
        identity: TlsIdentity,
        view: Arc<View>,
        me: ReplicaId,
        metrics: Arc<Metrics>,
        patience: Patience,
    ) -> Result<(Self, Arc<Waker>), Failure> {
        let poll = Poll::new().map_err(super::no_system)?;
        listener.register(poll.registry(), LISTENER, Interest::READABLE).map_err(super::no_system)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(super::no_system)?);
        let now = Instant::now();
        let network = Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            listener,
            identity,
            peers: Peers::new(&view, me, now),
            bulk: Peers::new(&view, me, now),
            view,
            me,
            connections: Slab::new(),
            next_serial: 0,
            resolver: Resolver::start(waker.clone())?,
            clients: HashMap::new(),
            client_connections: 0,
            client_outbound: 0,
            answering: VecDeque::new(),
            readable: Readable::default(),
            dirty: Vec::new(),
            notices: Vec::new(),
            is_accepting: true,
            accept_after: None,
            next_sweep: now + SWEEP_PERIOD,
            is_stopping: false,
            patience,
            frames: Vec::new(),
            scratch: Vec::new(),
            metrics,
            quieter: Quieter::default(),
        };
        Ok((network, waker))
    }

    fn lines(&mut self, lane: Lane) -> &mut Peers {
        match lane {
            Lane::Order => &mut self.peers,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// To how many other members there is a channel.
    pub(super) fn peer_channels(&self) -> usize {
        self.peers.channels()
    }

    /// How many connections clients have.
    pub(super) fn client_connections(&self) -> usize {
        self.client_connections
    }

    /// Waits until a socket has something, somebody wakes the loop, or `timeout` is over.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.has_unread() { Some(Duration::ZERO) } else { self.until_due(timeout) };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            match event.token() {
                LISTENER => self.is_accepting = true,
                WAKER => {}
                Token(token) => {
                    let slot = token - FIRST_CONNECTION;
                    let Some(connection) = self.connections.get_mut(slot) else { continue };
                    if event.is_read_closed() || event.is_error() {
                        connection.link.note_ending();
                    }
                    if (event.is_readable() || event.is_read_closed() || event.is_error())
                        && !connection.is_readable
                    {
                        connection.is_readable = true;
                        self.readable.push(connection.stage, slot);
                    }
                    if event.is_writable() && connection.link.has_outbound() && !connection.is_dirty {
                        connection.is_dirty = true;
                        self.dirty.push(slot);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends what has arrived: all from peers, and from clients up to a budget, one after the other; then what others
    /// give, up to a budget too.
    pub(super) fn read(&mut self, inbox: &mut Vec<Inbound>) {
        let now = Instant::now();
        self.accept(now);
        self.call_due(now);
        if now >= self.next_sweep {
            self.sweep(now);
        }
        inbox.append(&mut self.notices);
        self.read_all(|readable| &mut readable.peers, u64::MAX, inbox);
        self.read_all(|readable| &mut readable.clients, CLIENT_BYTES_PER_TURN, inbox);
        self.read_all(|readable| &mut readable.bulk, BULK_BYTES_PER_TURN, inbox);
        inbox.append(&mut self.notices);
    }

    /// Reads each connection of a queue once, as far as `budget` goes.
    fn read_all(
        &mut self,
        queue: impl Fn(&mut Readable) -> &mut VecDeque<usize>,
        budget: u64,
        inbox: &mut Vec<Inbound>,
    ) {
        let mut taken = 0;
        for _ in 0..queue(&mut self.readable).len() {
            if taken >= budget {
                break;
            }
            if let Some(slot) = queue(&mut self.readable).pop_front() {
                taken += self.read_from(slot, inbox);
            }
        }
    }

    /// Whether there is something to be read without waiting.
    fn has_unread(&self) -> bool {
        !self.readable.is_empty()
            || !self.notices.is_empty()
            || !self.dirty.is_empty()
            || (self.is_accepting && self.accept_after.is_none())
    }

    /// The earlier of `timeout` and the time until the network itself has something to do.
    fn until_due(&self, timeout: Option<Duration>) -> Option<Duration> {
        let due = [Some(self.next_sweep), self.peers.next_due(), self.bulk.next_due(), self.accept_after];
        let now = Instant::now();
        let own = due.into_iter().flatten().min().map(|due| {
            // Rounded up to what the system can wait, or the loop would spin for the rest of a millisecond.
            due.saturating_duration_since(now) + Duration::from_millis(1)
        });
        [timeout, own].into_iter().flatten().min()
    }

    /// Reads one connection within its budget; returns how many bytes came.
    fn read_from(&mut self, slot: usize, inbox: &mut Vec<Inbound>) -> u64 {
        let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.is_readable)
        else {
            return 0;
        };
        let before = connection.link.counters().bytes_in;
        let mut frames = std::mem::take(&mut self.frames);
        let outcome = connection.link.read(SOCKET_BYTES_PER_TURN, &mut frames);
        let taken = connection.link.counters().bytes_in - before;
        connection.is_readable = matches!(outcome, Ok(ReadOutcome::More));
        let serial = connection.serial;
        let mut end = None;
        for frame in frames.drain(..) {
            if let Err(fault) = self.on_frame(ConnectionId { slot, serial }, frame, inbox) {
                end = Some(fault);
                break;
            }
        }
        frames.clear();
        self.frames = frames;
        let end = end.or_else(|| outcome.err().map(|error| end_of(&error)));
        if let Some(end) = end {
            self.end(ConnectionId { slot, serial }, end);
            return taken;
        }
        let Some(connection) = self.connections.get_mut(slot) else { return taken };
        if connection.is_readable {
            self.readable.push(connection.stage, slot);
        }
        // What came may have moved the TLS handshake on.
        if connection.link.has_outbound() && !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
        taken
    }

    fn on_frame(&mut self, id: ConnectionId, frame: Bytes, inbox: &mut Vec<Inbound>) -> Result<(), End> {
        let Some(stage) = self.get_mut(id).map(|connection| connection.stage) else { return Ok(()) };
        match stage {
            Stage::Peer(from, lane) => {
                let frame = if pieces::is_piece(&frame) {
                    match self.on_piece(id, &frame)? {
                        Some(whole) => whole,
                        None => return Ok(()),
                    }
                } else {
                    frame
                };
                let message = Message::decode(frame).map_err(|error| undecodable(&error))?;
                if lane == Lane::Bulk && Lane::of(&message) != lane {
                    let cause = "on the line for what is fetched and given came something else";
                    return Err(End::Fault(Fault::WrongLane, cause.to_owned()));
                }
                inbox.push(Inbound::Peer { from, message });
                Ok(())
            }
            Stage::Client(client) => {
                let ClientMessage::Bundle(bundle) =
                    ClientMessage::decode(frame).map_err(|error| undecodable(&error))?;
                if bundle.requests.iter().any(|request| request.client() != client) {
                    let cause = format!("client {client} sent a request in another's name");
                    return Err(End::Fault(Fault::ForeignRequest, cause));
                }
                let key = self.get_mut(id).and_then(|connection| connection.link.peer_key());
                if let Some(key) = key {
                    inbox.push(Inbound::Client { connection: id, client, key, bundle });
                }
                Ok(())
            }
            Stage::Answering => self.on_hello(id, &frame),
            Stage::Calling(peer, lane) => self.on_answer(id, peer, lane, &frame),
            Stage::Refused => Ok(()),
        }
    }

    /// The next piece of a long message; returns what it completes.
    fn on_piece(&mut self, id: ConnectionId, frame: &[u8]) -> Result<Option<Bytes>, End> {
        let Some(connection) = self.get_mut(id) else { return Ok(None) };
        connection.long_inbound.take(frame).map_err(|error| End::Fault(Fault::BadPiece, error.to_string()))
    }

    /// Closes what has stalled, and brings the metrics up to date.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP_PERIOD;
        let mut stalled = Vec::new();
        for (slot, connection) in &mut self.connections {
            if let Some(stall) = connection.stall(now, &self.patience) {
                stalled.push((ConnectionId { slot, serial: connection.serial }, stall));
            }
        }
        for (id, stall) in stalled {
            let (fault, cause) = match stall {
                Stall::Handshake => (Fault::HandshakeTimeout, "the handshake took too long"),
                Stall::Frame => (Fault::FrameTimeout, "a frame took too long to arrive"),
                Stall::Write => (Fault::WriteTimeout, "the other side does not read"),
            };
            self.end(id, End::Fault(fault, cause.into()));
        }
        self.tally();
    }

    /// Brings the metrics up to date with what went over the connections.
    pub(super) fn tally(&mut self) {
        for (_, connection) in &mut self.connections {
            tally(&self.metrics, connection);
        }
        self.metrics.client_connections.set(i64::try_from(self.client_connections).unwrap_or(i64::MAX));
        self.metrics.peer_connections.set(i64::try_from(self.peers.channels()).unwrap_or(i64::MAX));
    }

    /// Takes a link into the table and watches its socket.
    fn insert(&mut self, mut link: Link, stage: Stage) -> Result<ConnectionId, io::Error> {
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        let interests = Interest::READABLE | Interest::WRITABLE;
        link.register(self.poll.registry(), Token(FIRST_CONNECTION + slot), interests)?;
        let serial = self.next_serial;
        self.next_serial += 1;
        entry.insert(Connection::new(link, serial, stage, Instant::now()));
        Ok(ConnectionId { slot, serial })
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.slot).filter(|connection| connection.serial == id.serial)
    }

    /// Ends a connection, and with it what it was: a line, a client's channel, a call.
    fn end(&mut self, id: ConnectionId, end: End) {
        if self.get_mut(id).is_none() {
            return;
        }
        let mut connection = self.connections.remove(id.slot);
        tally(&self.metrics, &mut connection);
        let address = connection.link.socket().peer_addr().ok();
        let stage = connection.stage;
        self.client_outbound -= connection.outbound_noted;
        // The socket closes in any case.
        let _ = connection.link.deregister(self.poll.registry());
        connection.link.close();
        let now = Instant::now();
        match stage {
            Stage::Peer(peer, lane) | Stage::Calling(peer, lane) => {
                if self.lines(lane).on_down(peer, Some(id), now) && lane == Lane::Order {
                    self.notices.push(Inbound::Disconnected(peer));
                    self.end_bulk(peer);
                }
            }
            Stage::Client(client) => {
                self.client_connections -= 1;
                if let Some(count) = self.clients.get_mut(&client) {
                    *count -= 1;
                    if *count == 0 {
                        self.clients.remove(&client);
                    }
                }
            }
            Stage::Answering | Stage::Refused => {}
        }
        self.note_end(stage, address, end, now);
    }

    /// The line for bulk goes with the one for ordering: of a member that is gone neither is any use, and what was on
    /// its way answers questions that do not count any more.
    fn end_bulk(&mut self, peer: ReplicaId) {
        if let Some(line) = self.bulk.channel(peer) {
            self.end(line, End::Replaced);
        }
    }

    fn note_end(&mut self, stage: Stage, address: Option<SocketAddr>, end: End, now: Instant) {
        let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
        let whose = match stage {
            Stage::Peer(peer, _) | Stage::Calling(peer, _) => format!("replica {peer}"),
            Stage::Client(client) => format!("client {client}"),
            Stage::Answering | Stage::Refused => "somebody".to_owned(),
        };
        match end {
            End::Closed | End::Replaced | End::Refused | End::Stopping => {
                debug!(%whose, %address, "connection closed");
            }
            // A member that is not up yet: said once in a while, counted always.
            End::Fault(fault, cause) => {
                self.metrics.count_fault(fault);
                if let Some(left_out) = self.quieter.admits(fault.label(), now) {
                    warn!(%whose, %address, reason = fault.label(), left_out, "connection lost: {cause}");
                }
            }
        }
    }

    /// Closes everything, after a last attempt to send what waits.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        let ids: Vec<ConnectionId> = self
            .connections
            .iter()
            .map(|(slot, connection)| ConnectionId { slot, serial: connection.serial })
            .collect();
        for id in ids {
            self.end(id, End::Stopping);
        }
    }
}

/// Adds what went over a connection since the last time to the metrics.
fn tally(metrics: &Metrics, connection: &mut Connection) {
    let now = connection.link.counters();
    let before = std::mem::replace(&mut connection.tallied, now);
    metrics.bytes_in.inc_by(now.bytes_in - before.bytes_in);
    metrics.bytes_out.inc_by(now.bytes_out - before.bytes_out);
    if matches!(connection.stage, Stage::Peer(_, Lane::Bulk)) {
        metrics.bulk_bytes_in.inc_by(now.bytes_in - before.bytes_in);
        metrics.bulk_bytes_out.inc_by(now.bytes_out - before.bytes_out);
    }
    metrics.frames_in.inc_by(now.frames_in - before.frames_in);
    metrics.frames_out.inc_by(now.frames_out - before.frames_out);
}

fn undecodable(error: &DecodeError) -> End {
    let fault = match error {
        DecodeError::UnknownVersion(_) => Fault::UnknownVersion,
        DecodeError::UnknownKind(_) => Fault::UnknownKind,
        DecodeError::Truncated { .. }
        | DecodeError::TrailingBytes(_)
        | DecodeError::OverLimit { .. }
        | DecodeError::NonCanonical(_)
        | DecodeError::RequestNotInProof => Fault::Undecodable,
    };
    End::Fault(fault, error.to_string())
}

fn end_of(error: &LinkError) -> End {
    let fault = match error {
        LinkError::Closed => return End::Closed,
        LinkError::Io(_) => Fault::Socket,
        LinkError::WrongPeerKey => Fault::WrongPeerKey,
        LinkError::Tls(_) => Fault::Tls,
        LinkError::Frame(FrameError::TooLong { .. }) => Fault::FrameTooLong,
        LinkError::Frame(FrameError::Empty) => Fault::FrameEmpty,
    };
    End::Fault(fault, error.to_string())
}
