//! What goes out: queued during a turn, written once per connection at its end.

use bytes::Bytes;
use regency_protocol::action::Recipients;
use regency_protocol::codec::Wire;
use regency_protocol::codec::pieces::{self, Pieces};
use regency_protocol::ids::{ReplicaId, ViewId};
use regency_protocol::limits::{CLIENT_FRAME_BYTES_MAX, DONOR_QUESTIONS_MAX, REPLIES_MAX};
use regency_protocol::message::{Message, Outcome, ReplicaMessage, Reply};

use super::super::connection::{ConnectionId, Lane, Stage};
use super::{CLIENTS_OUTBOUND_BYTES_MAX, End, Network, end_of};
use crate::metrics::Fault;
use crate::transport::FlushOutcome;

/// Bytes of a reply beside its result, at most.
const REPLY_BYTES: usize = 8 + 8 + 1 + 4 + 32;
/// Long messages that wait for one peer: of each kind what was sent last, what is being sent, and what it may ask for
/// as one that misses something.
const LONG_OUTBOUND_MAX: usize = 4 + DONOR_QUESTIONS_MAX;

impl Network {
    /// Sends to one member, or to all others.
    pub(in super::super) fn send_to(&mut self, to: Recipients, message: &Message) {
        match to {
            Recipients::All => self.broadcast(message),
            Recipients::One(peer) => self.send(peer, message),
        }
    }

    /// Sends to one member; without a channel to it the message is dropped [LINK-1]. What belongs on a line of its own
    /// shares the other one as long as that is not there.
    fn send(&mut self, to: ReplicaId, message: &Message) {
        let own = self.lines(Lane::of(message)).channel(to);
        if let Some(channel) = own.or_else(|| self.peers.channel(to)) {
            self.encode_message(message);
            match self.long_message() {
                Some(long) => self.queue_long(channel, &long),
                None => {
                    self.queue_scratch(channel);
                }
            }
        }
    }

    /// Sends to all other members; encoded once.
    fn broadcast(&mut self, message: &Message) {
        self.encode_message(message);
        let long = self.long_message();
        for rank in 0..self.peers.len() {
            let Some(channel) = self.peers.channel_at(rank) else { continue };
            match &long {
                Some(long) => self.queue_long(channel, long),
                None => {
                    self.queue_scratch(channel);
                }
            }
        }
    }

    /// What was encoded last, if it travels in pieces.
    fn long_message(&self) -> Option<Bytes> {
        pieces::is_long(&self.scratch).then(|| Bytes::copy_from_slice(&self.scratch))
    }

    /// Lets a long message wait for its turn; for too many, or one too long, there is no room [LINK-1].
    fn queue_long(&mut self, id: ConnectionId, message: &Bytes) {
        let Some(connection) = self.get_mut(id) else { return };
        if connection.long_outbound.iter().any(|waiting| waiting.message() == message) {
            return;
        }
        match Pieces::new(message.clone()) {
            Some(pieces) if connection.long_outbound.len() < LONG_OUTBOUND_MAX => {
                connection.long_outbound.push_back(pieces);
                self.mark_dirty(id);
            }
            Some(_) | None => self.metrics.count_fault(Fault::OutboundFull),
        }
    }

    /// Queues the next piece of a long message once nothing else waits; tells whether there was one.
    fn queue_piece(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id.slot) else { return false };
        let Some(pieces) = connection.long_outbound.front_mut() else { return false };
        self.scratch.clear();
        pieces.put_next(&mut self.scratch);
        if pieces.is_over() {
            connection.long_outbound.pop_front();
        }
        self.queue_scratch(id)
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        let Some(connection) = self.get_mut(id) else { return };
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id.slot);
        }
    }

    fn encode_message(&mut self, message: &Message) {
        self.scratch.clear();
        message.encode(&mut self.scratch);
    }

    /// Adds a reply to the connection's frame of this turn; tells whether the connection is still there.
    pub(in super::super) fn reply(&mut self, to: ConnectionId, reply: Reply) -> bool {
        let Some(connection) = self.connections.get_mut(to.slot) else { return false };
        if connection.serial != to.serial || !matches!(connection.stage, Stage::Client(_)) {
            return false;
        }
        connection.replies.push(reply);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(to.slot);
        }
        true
    }

    /// Writes what waits, once per connection.
    pub(in super::super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.flush_one(slot);
        }
        // Ends of connections may have made others dirty: they wait for the next flush.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn flush_one(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.is_dirty) else {
            return;
        };
        connection.is_dirty = false;
        let id = ConnectionId { slot, serial: connection.serial };
        if !connection.replies.is_empty() && !self.queue_replies(id) {
            return;
        }
        let Some(connection) = self.get_mut(id) else { return };
        let outcome = connection.link.flush();
        let waiting = connection.link.outbound_bytes();
        match (outcome, connection.stage) {
            (Ok(_), Stage::Client(_)) => {
                let noted = std::mem::replace(&mut connection.outbound_noted, waiting);
                self.client_outbound = self.client_outbound - noted + waiting;
                let share = self.client_outbound / self.client_connections.max(1);
                if self.client_outbound > CLIENTS_OUTBOUND_BYTES_MAX && waiting > share {
                    self.end_full(id);
                }
            }
            (Ok(FlushOutcome::Done), Stage::Refused) => self.end(id, End::Refused),
            // The piece is written in the next turn, after the votes of that turn.
            (Ok(FlushOutcome::Done), Stage::Peer(..)) => {
                self.queue_piece(id);
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.end(id, end_of(&error)),
        }
    }

    /// Turns the replies of the turn into frames; tells whether the connection took them.
    fn queue_replies(&mut self, id: ConnectionId) -> bool {
        let view = self.view.id();
        let Some(connection) = self.get_mut(id) else { return false };
        let mut waiting = std::mem::take(&mut connection.replies);
        let mut rest = waiting.split_off(first_frame(&waiting));
        loop {
            self.scratch.clear();
            let message = replies(view, waiting);
            message.encode(&mut self.scratch);
            let ReplicaMessage::Replies { replies: mut sent, .. } = message;
            if !self.queue_scratch(id) {
                return false;
            }
            if rest.is_empty() {
                // Its memory serves the next turn.
                sent.clear();
                if let Some(connection) = self.get_mut(id) {
                    connection.replies = sent;
                }
                return true;
            }
            let after = rest.split_off(first_frame(&rest));
            waiting = std::mem::replace(&mut rest, after);
        }
    }

    /// Queues a frame to be flushed at the end of the turn.
    pub(super) fn queue(&mut self, id: ConnectionId, frame: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(frame);
        self.queue_scratch(id);
    }

    /// Queues the scratch buffer as a frame; a connection for which too much waits is ended.
    fn queue_scratch(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id.slot) else { return false };
        if connection.serial != id.serial {
            return false;
        }
        if connection.link.queue(&self.scratch).is_err() {
            self.end_full(id);
            return false;
        }
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id.slot);
        }
        true
    }

    fn end_full(&mut self, id: ConnectionId) {
        self.end(id, End::Fault(Fault::OutboundFull, "too much waits for the other side to read".into()));
    }
}

fn replies(view: ViewId, replies: Vec<Reply>) -> ReplicaMessage {
    ReplicaMessage::Replies { view, replies }
}

/// How many of `replies` fit into one frame; at least one, and settings see to it that one does.
fn first_frame(replies: &[Reply]) -> usize {
    let mut bytes = 64;
    let fitting = replies.iter().take(REPLIES_MAX).take_while(|reply| {
        bytes += REPLY_BYTES
            + match &reply.outcome {
                Outcome::Result(result) => result.len(),
                Outcome::ResultDigest(_) | Outcome::Refused(_) => 0,
            };
        bytes <= CLIENT_FRAME_BYTES_MAX
    });
    fitting.count().max(1).min(replies.len())
}
