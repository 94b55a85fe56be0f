//! One connection of a replica: its link, what it has become, and what the loop remembers about it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use regency_protocol::codec::pieces::{Assembler, Pieces};
use regency_protocol::ids::{ClientId, ReplicaId};
use regency_protocol::message::{Message, Reply};

use crate::transport::{Link, LinkCounters};

/// Names a connection for as long as it lives; a slot is used again, a serial is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId {
    /// Its place in the table.
    pub(super) slot: usize,
    /// Its number among all that ever were.
    pub(super) serial: u64,
}

/// What a line to another member is for [ST-4].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Ordering, and everything else that is small.
    Order,
    /// What is fetched and given: it fills its own buffers, and waits for its own lost packets.
    Bulk,
}

impl Lane {
    /// Where `message` goes.
    pub(super) fn of(message: &Message) -> Self {
        if matches!(message, Message::Fetch(_) | Message::Supply(_)) { Self::Bulk } else { Self::Order }
    }
}

/// What a connection has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// This replica called the other one and waits for TLS and the WELCOME.
    Calling(ReplicaId, Lane),
    /// Somebody called: TLS and the HELLO are due.
    Answering,
    /// A channel to another member.
    Peer(ReplicaId, Lane),
    /// A client's channel.
    Client(ClientId),
    /// Told why it is refused; closed when that is sent.
    Refused,
}

/// A connection with the loop's notes about it.
pub(super) struct Connection {
    /// The socket, TLS and frames.
    pub(super) link: Link,
    /// Its number among all that ever were.
    pub(super) serial: u64,
    /// What it has become.
    pub(super) stage: Stage,
    /// Whether its socket may hold unread bytes: it stands in a queue of those to be read.
    pub(super) is_readable: bool,
    /// Whether it stands in the list of those to be flushed.
    pub(super) is_dirty: bool,
    /// Replies of this turn: one frame when it is flushed.
    pub(super) replies: Vec<Reply>,
    /// Long messages that wait, the first of them perhaps sent in part.
    pub(super) long_outbound: VecDeque<Pieces>,
    /// The long message that is arriving.
    pub(super) long_inbound: Assembler,
    /// What of `link.outbound_bytes()` the sum over all clients contains.
    pub(super) outbound_noted: usize,
    /// What of `link.counters()` the metrics contain.
    pub(super) tallied: LinkCounters,
    opened: Instant,
    progress: Progress,
}

/// When the connection was last seen to get on.
#[derive(Clone, Copy, Debug)]
struct Progress {
    frames_in: u64,
    read_since: Instant,
    bytes_out: u64,
    write_since: Instant,
}

/// What a connection has been waiting for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// The handshake.
    Handshake,
    /// The rest of a frame.
    Frame,
    /// The other side to read.
    Write,
}

/// How long a connection may keep a replica waiting before it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For TLS and the first frame each way.
    pub handshake: Duration,
    /// For a frame that has begun.
    pub frame: Duration,
    /// For the other side to take anything of what waits to be sent.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let transfer = Duration::from_secs(30);
        Self { handshake: Duration::from_secs(5), frame: transfer, write: transfer }
    }
}

impl Connection {
    /// A connection that begins now.
    pub(super) fn new(link: Link, serial: u64, stage: Stage, now: Instant) -> Self {
        Self {
            link,
            serial,
            stage,
            is_readable: false,
            is_dirty: false,
            replies: Vec::new(),
            long_outbound: VecDeque::new(),
            long_inbound: Assembler::default(),
            outbound_noted: 0,
            tallied: LinkCounters::default(),
            opened: now,
            progress: Progress { frames_in: 0, read_since: now, bytes_out: 0, write_since: now },
        }
    }

    /// Looks whether the connection has got on since the last look; tells what it has waited for too long.
    pub(super) fn stall(&mut self, now: Instant, patience: &Patience) -> Option<Stall> {
        match self.stage {
            Stage::Calling(..) | Stage::Answering | Stage::Refused => {
                (now.duration_since(self.opened) >= patience.handshake).then_some(Stall::Handshake)
            }
            Stage::Peer(..) | Stage::Client(_) => self.stall_of_channel(now, patience),
        }
    }

    fn stall_of_channel(&mut self, now: Instant, patience: &Patience) -> Option<Stall> {
        let counters = self.link.counters();
        let progress = &mut self.progress;
        if !self.link.has_partial_frame() || counters.frames_in != progress.frames_in {
            progress.frames_in = counters.frames_in;
            progress.read_since = now;
        }
        if !self.link.has_outbound() || counters.bytes_out != progress.bytes_out {
            progress.bytes_out = counters.bytes_out;
            progress.write_since = now;
        }
        if now.duration_since(progress.read_since) >= patience.frame {
            return Some(Stall::Frame);
        }
        (now.duration_since(progress.write_since) >= patience.write).then_some(Stall::Write)
    }
}
