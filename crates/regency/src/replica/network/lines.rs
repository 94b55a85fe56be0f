//! Calls to other members: lookup, connection, HELLO. The line for bulk follows the one for ordering.

use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use regency_protocol::ids::ReplicaId;
use tracing::debug;

use super::super::connection::{Lane, Stage};
use super::super::peers::Call;
use super::{End, Network, PEER_LIMITS};
use crate::metrics::Fault;
use crate::transport::{Hello, Link, Role};

impl Network {
    /// Makes the calls that are due.
    pub(super) fn call_due(&mut self, now: Instant) {
        while let Some(resolved) = self.resolver.answer() {
            let id = resolved.replica;
            match resolved.address {
                Ok(address) if self.peers.is_looked_up(id) => {
                    self.call(Call { id, address }, Lane::Order, now);
                }
                Ok(_) => {}
                Err(cause) => self.on_call_failed(id, Lane::Order, &cause, now),
            }
        }
        let due = [self.peers.next_due(), self.bulk.next_due()].into_iter().flatten().min();
        if self.is_stopping || due.is_none_or(|due| due > now) {
            return;
        }
        for id in self.peers.take_due(now) {
            let Some(peer) = self.peers.peer(id) else { continue };
            if let Some(address) = self.resolver.ask(id, &peer.address) {
                self.call(Call { id, address }, Lane::Order, now);
            }
        }
        for id in self.bulk.take_due(now) {
            match self.address_of(id) {
                Some(address) => self.call(Call { id, address }, Lane::Bulk, now),
                None => _ = self.bulk.on_down(id, None, now),
            }
        }
    }

    /// Where a member was reached.
    fn address_of(&mut self, id: ReplicaId) -> Option<SocketAddr> {
        let channel = self.peers.channel(id)?;
        self.get_mut(channel)?.link.socket().peer_addr().ok()
    }

    fn call(&mut self, call: Call, lane: Lane, now: Instant) {
        let Some(peer) = self.peers.peer(call.id) else { return };
        let link = TcpStream::connect(call.address).map_err(|error| error.to_string()).and_then(|socket| {
            Link::connect(socket, &self.identity, &peer.key, PEER_LIMITS).map_err(|error| error.to_string())
        });
        let called = link.and_then(|link| {
            self.insert(link, Stage::Calling(call.id, lane)).map_err(|error| error.to_string())
        });
        match called {
            Ok(connection) => {
                self.lines(lane).on_call(call.id, connection);
                let role = match lane {
                    Lane::Order => Role::Replica(self.me),
                    Lane::Bulk => Role::Bulk(self.me),
                };
                let hello = Hello::new(&self.view, role);
                self.queue(connection, &hello.encode());
            }
            Err(cause) => self.on_call_failed(call.id, lane, &cause, now),
        }
    }

    fn on_call_failed(&mut self, id: ReplicaId, lane: Lane, cause: &str, now: Instant) {
        self.lines(lane).on_down(id, None, now);
        let end = End::Fault(Fault::Socket, cause.to_owned());
        debug!(peer = id.0, "call failed: {cause}");
        self.note_end(Stage::Calling(id, lane), None, end, now);
    }
}
