//! Who is let in: accepted connections up to the first frame each way.

use std::io;
use std::time::Instant;

use regency_protocol::digest;
use regency_protocol::ids::ReplicaId;
use tracing::{info, warn};

use super::super::connection::{ConnectionId, Lane, Stage};
use super::super::inbound::Inbound;
use super::{
    ACCEPT_PAUSE, ACCEPTS_PER_TURN_MAX, ANSWERING_MAX, CLIENT_CONNECTIONS_MAX,
    CLIENT_CONNECTIONS_PER_KEY_MAX, CLIENT_LIMITS, End, Network, PEER_LIMITS,
};
use crate::metrics::Fault;
use crate::transport::{Answer, Hello, Link, RefusalCode, Role};

impl Network {
    /// Accepts what waits at the listener, up to the turn's budget.
    pub(super) fn accept(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|after| now < after) || !self.is_accepting || self.is_stopping {
            return;
        }
        self.accept_after = None;
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let link = Link::accept(socket, &self.identity, CLIENT_LIMITS);
                    let entered = link.map_err(|error| error.to_string()).and_then(|link| {
                        self.insert(link, Stage::Answering).map_err(|error| error.to_string())
                    });
                    match entered {
                        Ok(id) => self.answering.push_back(id),
                        Err(cause) => {
                            self.metrics.count_fault(Fault::Socket);
                            warn!("a connection could not be taken in: {cause}");
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_accepting = false;
                    break;
                }
                // The one who called is gone again.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.metrics.count_fault(Fault::Socket);
                    if let Some(left_out) = self.quieter.admits("accept", now) {
                        warn!(left_out, "no more connections can be accepted for now: {error}");
                    }
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    break;
                }
            }
        }
        self.bound_answering();
    }

    /// Lets the oldest of those go that have not said who they are, if there are too many.
    ///
    /// An honest caller says it within milliseconds; so a flood of silent ones does not keep it out.
    fn bound_answering(&mut self) {
        while self.answering.len() > ANSWERING_MAX {
            let Some(oldest) = self.answering.pop_front() else { return };
            if self.get_mut(oldest).is_some_and(|connection| connection.stage == Stage::Answering) {
                self.metrics.count_refusal(RefusalCode::TooManyConnections);
                self.end(oldest, End::Refused);
            }
        }
    }

    /// The first frame of somebody who called.
    pub(super) fn on_hello(&mut self, id: ConnectionId, frame: &[u8]) -> Result<(), End> {
        let hello =
            Hello::decode(frame).map_err(|error| End::Fault(Fault::BadHandshake, error.to_string()))?;
        let Some(key) = self.get_mut(id).and_then(|connection| connection.link.peer_key()) else {
            return Err(End::Fault(Fault::BadHandshake, "a frame before TLS".into()));
        };
        let client = digest::client_id(&key);
        let verdict = hello.check(&key, &self.view, self.me).and_then(|()| match hello.role {
            _ if self.is_stopping => Err(RefusalCode::Stopping),
            Role::Replica(_) | Role::Bulk(_) => Ok(()),
            Role::Client => {
                let of_client = self.clients.get(&client).copied().unwrap_or(0);
                if self.client_connections >= CLIENT_CONNECTIONS_MAX
                    || of_client >= CLIENT_CONNECTIONS_PER_KEY_MAX
                {
                    return Err(RefusalCode::TooManyConnections);
                }
                Ok(())
            }
        });
        if let Err(code) = verdict {
            self.refuse(id, code, &hello);
            return Ok(());
        }
        let welcome = Answer::Welcome { view: self.view.id() };
        self.queue(id, &welcome.encode());
        match hello.role {
            Role::Replica(peer) => self.on_channel(id, peer, Lane::Order),
            Role::Bulk(peer) => self.on_channel(id, peer, Lane::Bulk),
            Role::Client => {
                if let Some(connection) = self.get_mut(id) {
                    connection.stage = Stage::Client(client);
                    connection.link.set_limits(CLIENT_LIMITS);
                    self.client_connections += 1;
                    *self.clients.entry(client).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, id: ConnectionId, code: RefusalCode, hello: &Hello) {
        self.metrics.count_refusal(code);
        let Some(connection) = self.get_mut(id) else { return };
        connection.stage = Stage::Refused;
        let address = connection.link.socket().peer_addr().ok();
        if let Some(left_out) = self.quieter.admits(code.label(), Instant::now()) {
            warn!(?address, role = ?hello.role, left_out, "connection refused: {code}");
        }
        self.queue(id, &Answer::refused(code).encode());
    }

    /// The answer of a member that this replica called.
    pub(super) fn on_answer(
        &mut self,
        id: ConnectionId,
        peer: ReplicaId,
        lane: Lane,
        frame: &[u8],
    ) -> Result<(), End> {
        let answer =
            Answer::decode(frame).map_err(|error| End::Fault(Fault::BadHandshake, error.to_string()))?;
        match answer {
            Answer::Welcome { .. } => {
                self.on_channel(id, peer, lane);
                Ok(())
            }
            Answer::Refused { code, text } => {
                if !code.is_temporary() {
                    self.lines(lane).on_refused(peer);
                }
                Err(End::Fault(Fault::RefusedByPeer, format!("replica {peer} refuses this one: {text}")))
            }
        }
    }

    /// A connection has become the channel to a member.
    fn on_channel(&mut self, id: ConnectionId, peer: ReplicaId, lane: Lane) {
        let Some(connection) = self.get_mut(id) else { return };
        connection.stage = Stage::Peer(peer, lane);
        connection.link.set_limits(PEER_LIMITS);
        let was_up = self.lines(lane).channel(peer).is_some();
        if let Some(old) = self.lines(lane).on_up(peer, id) {
            self.end(old, End::Replaced);
        }
        if lane == Lane::Bulk {
            return;
        }
        if was_up {
            self.notices.push(Inbound::Disconnected(peer));
            self.end_bulk(peer);
        }
        self.bulk.on_reachable(peer, Instant::now());
        self.notices.push(Inbound::Connected(peer));
        info!(peer = peer.0, "connected");
    }
}
