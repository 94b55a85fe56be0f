//! One connection of a client to one replica: found, opened, introduced, used, lost, and opened again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use regency_protocol::ids::{PublicKey, ReplicaId};
use regency_protocol::limits::CLIENT_FRAME_BYTES_MAX;
use regency_protocol::time::Timestamp;
use regency_protocol::view::Member;

use crate::transport::{
    Answer, Hello, Link, LinkCounters, LinkError, LinkLimits, ReadOutcome, RefusalCode, TlsIdentity,
};

/// The pause after the first failed attempt; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
/// How long one address may take to let us in.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes read from one connection before the others have their turn.
const READ_BUDGET: usize = 256 << 10;
/// Bytes that may wait for a replica that does not read.
const OUTBOUND_BYTES_MAX: usize = 8 << 20;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

const LIMITS: LinkLimits =
    LinkLimits { frame_bytes_max: CLIENT_FRAME_BYTES_MAX, outbound_bytes_max: OUTBOUND_BYTES_MAX };

/// What every connection of a client needs.
pub(super) struct Surroundings {
    pub(super) registry: Registry,
    pub(super) identity: TlsIdentity,
    pub(super) hello: Hello,
}

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Nobody answers, or not in our language, or the connection broke.
    Unreachable,
    /// Somebody with another key is there.
    WrongKey,
    /// The replica does not let us in.
    Refused { code: RefusalCode, text: String },
}

/// A connection to one replica.
pub(super) struct Connection {
    replica: ReplicaId,
    address: String,
    key: PublicKey,
    token: Token,
    state: State,
    failures: u32,
    problem: Option<Problem>,
    /// What earlier links of this connection have carried.
    past: LinkCounters,
}

enum State {
    /// Until it is time for the next attempt.
    Waiting { until: Timestamp },
    /// Until its name has been turned into addresses.
    Resolving,
    /// Until the replica lets us in.
    Entering { link: Link, until: Timestamp, untried: Vec<SocketAddr> },
    /// In use.
    Up { link: Link },
}

/// What the event loop has to do for a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Ask for the addresses of its name.
    Addresses,
}

/// What became of a connection that the socket had something for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// As before; all that came has been read.
    Drained,
    /// As before; there may be more to read.
    More,
    /// The replica has just let us in; there may be more to read.
    Entered,
    /// It is lost, or was not let in.
    Failed,
}

impl Connection {
    pub(super) fn new(member: &Member, token: Token) -> Self {
        Self {
            replica: member.id,
            address: member.address.clone(),
            key: member.key,
            token,
            state: State::Waiting { until: Timestamp(0) },
            failures: 0,
            problem: None,
            past: LinkCounters::default(),
        }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Why the last attempt failed; `None` while there was none, or it is up.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// When [`Connection::on_time`] is due.
    pub(super) fn due(&self) -> Timestamp {
        match &self.state {
            State::Waiting { until } | State::Entering { until, .. } => *until,
            State::Resolving | State::Up { .. } => Timestamp::NEVER,
        }
    }

    /// What it has carried, over all its links.
    pub(super) fn counters(&self) -> LinkCounters {
        match &self.state {
            State::Waiting { .. } | State::Resolving => self.past,
            State::Entering { link, .. } | State::Up { link } => self.past.plus(link.counters()),
        }
    }

    /// The time that [`Connection::due`] named has come.
    pub(super) fn on_time(&mut self, now: Timestamp, around: &Surroundings) -> Need {
        match &mut self.state {
            State::Waiting { .. } => match self.address.parse() {
                Ok(address) => {
                    self.enter(now, around, vec![address]);
                    Need::Nothing
                }
                Err(_) => {
                    self.state = State::Resolving;
                    Need::Addresses
                }
            },
            State::Entering { untried, .. } => {
                let untried = std::mem::take(untried);
                self.leave(now, around, Problem::Unreachable, untried);
                Need::Nothing
            }
            State::Resolving | State::Up { .. } => Need::Nothing,
        }
    }

    /// Its name has these addresses; none if it could not be resolved.
    pub(super) fn on_addresses(
        &mut self,
        now: Timestamp,
        around: &Surroundings,
        mut addresses: Vec<SocketAddr>,
    ) {
        if matches!(self.state, State::Resolving) {
            addresses.truncate(ADDRESSES_MAX);
            // They are tried from the end.
            addresses.reverse();
            self.enter(now, around, addresses);
        }
    }

    /// Notes that the socket has announced its end.
    pub(super) fn note_ending(&mut self) {
        match &mut self.state {
            State::Waiting { .. } | State::Resolving => {}
            State::Entering { link, .. } | State::Up { link } => link.note_ending(),
        }
    }

    /// Reads what the socket has; appends the frames after the handshake to `frames`.
    pub(super) fn on_ready(
        &mut self,
        now: Timestamp,
        around: &Surroundings,
        frames: &mut Vec<Bytes>,
    ) -> Progress {
        let (link, is_entering) = match &mut self.state {
            State::Waiting { .. } | State::Resolving => return Progress::Drained,
            State::Entering { link, .. } => (link, true),
            State::Up { link } => (link, false),
        };
        let read = link.read(READ_BUDGET, frames);
        if is_entering {
            return self.on_entering(now, around, frames, read);
        }
        let flushed = read.and_then(|outcome| {
            if link.has_outbound() {
                link.flush()?;
            }
            Ok(outcome)
        });
        match flushed {
            Ok(ReadOutcome::Drained) => Progress::Drained,
            Ok(ReadOutcome::More) => Progress::More,
            Err(_) => self.fail(now, around, Problem::Unreachable, vec![]),
        }
    }

    /// Queues a frame; one that does not fit is dropped: the session sends it again [CLI-2].
    pub(super) fn queue(&mut self, frame: &[u8]) {
        if let State::Up { link } = &mut self.state {
            let _ = link.queue(frame);
        }
    }

    /// Sends what is queued; false if the connection is lost.
    pub(super) fn flush(&mut self, now: Timestamp, around: &Surroundings) -> bool {
        let State::Up { link } = &mut self.state else { return true };
        if !link.has_outbound() || link.flush().is_ok() {
            return true;
        }
        self.fail(now, around, Problem::Unreachable, vec![]);
        false
    }

    /// Closes it for good.
    pub(super) fn close(&mut self, around: &Surroundings) {
        let state = std::mem::replace(&mut self.state, State::Waiting { until: Timestamp::NEVER });
        if let State::Entering { mut link, .. } | State::Up { mut link } = state {
            let _ = around.registry.deregister(&mut link);
            link.close();
        }
    }

    fn on_entering(
        &mut self,
        now: Timestamp,
        around: &Surroundings,
        frames: &mut Vec<Bytes>,
        read: Result<ReadOutcome, LinkError>,
    ) -> Progress {
        let State::Entering { link, untried, .. } = &mut self.state else { return Progress::Drained };
        let untried = std::mem::take(untried);
        if !frames.is_empty() {
            return match Answer::decode(&frames.remove(0)) {
                Ok(Answer::Welcome { .. }) => self.on_welcome(),
                Ok(Answer::Refused { code, text }) => {
                    self.fail(now, around, Problem::Refused { code, text }, vec![])
                }
                Err(_) => self.fail(now, around, Problem::Unreachable, untried),
            };
        }
        match read.and_then(|_| link.flush()) {
            Ok(_) => {
                if let State::Entering { untried: kept, .. } = &mut self.state {
                    *kept = untried;
                }
                Progress::Drained
            }
            Err(LinkError::WrongPeerKey) => self.fail(now, around, Problem::WrongKey, untried),
            Err(_) => self.fail(now, around, Problem::Unreachable, untried),
        }
    }

    fn on_welcome(&mut self) -> Progress {
        let state = std::mem::replace(&mut self.state, State::Resolving);
        if let State::Entering { link, .. } = state {
            self.state = State::Up { link };
            self.failures = 0;
            self.problem = None;
        }
        Progress::Entered
    }

    fn fail(
        &mut self,
        now: Timestamp,
        around: &Surroundings,
        problem: Problem,
        untried: Vec<SocketAddr>,
    ) -> Progress {
        self.leave(now, around, problem, untried);
        Progress::Failed
    }

    /// Drops the link and goes on with the next address, or waits.
    fn leave(&mut self, now: Timestamp, around: &Surroundings, problem: Problem, untried: Vec<SocketAddr>) {
        self.past = self.counters();
        self.close(around);
        self.problem = Some(problem);
        self.enter(now, around, untried);
    }

    /// Opens a link to the last of `addresses` that lets itself be tried; without any, waits.
    fn enter(&mut self, now: Timestamp, around: &Surroundings, mut addresses: Vec<SocketAddr>) {
        while let Some(address) = addresses.pop() {
            if let Ok(link) = self.open(address, around) {
                self.state = State::Entering { link, until: now.plus(HANDSHAKE_TIMEOUT), untried: addresses };
                return;
            }
        }
        if self.problem.is_none() {
            self.problem = Some(Problem::Unreachable);
        }
        let doubled = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_LONGEST);
        self.failures = self.failures.saturating_add(1);
        // A quarter of jitter, so that clients do not come back all at once.
        let pause = doubled.mul_f64(0.75 + 0.5 * rand::random::<f64>());
        self.state = State::Waiting { until: now.plus(pause) };
    }

    fn open(&self, address: SocketAddr, around: &Surroundings) -> Result<Link, LinkError> {
        let socket = TcpStream::connect(address)?;
        let mut link = Link::connect(socket, &around.identity, &self.key, LIMITS)?;
        // The queue is empty and the frame small: it fits.
        let _ = link.queue(&around.hello.encode());
        around.registry.register(&mut link, self.token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(link)
    }
}
