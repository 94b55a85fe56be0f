//! Calls to other members: lookup, connection, HELLO.

use std::time::Instant;

use mio::net::TcpStream;
use regency_protocol::ids::ReplicaId;
use tracing::debug;

use super::super::connection::Stage;
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
                Ok(address) if self.peers.is_looked_up(id) => self.call(Call { id, address }, now),
                Ok(_) => {}
                Err(cause) => self.on_call_failed(id, &cause, now),
            }
        }
        if self.is_stopping || self.peers.next_due().is_none_or(|due| due > now) {
            return;
        }
        for id in self.peers.take_due(now) {
            let Some(peer) = self.peers.peer(id) else { continue };
            if let Some(address) = self.resolver.ask(id, &peer.address) {
                self.call(Call { id, address }, now);
            }
        }
    }

    fn call(&mut self, call: Call, now: Instant) {
        let Some(peer) = self.peers.peer(call.id) else { return };
        let link = TcpStream::connect(call.address).map_err(|error| error.to_string()).and_then(|socket| {
            Link::connect(socket, &self.identity, &peer.key, PEER_LIMITS).map_err(|error| error.to_string())
        });
        let called = link
            .and_then(|link| self.insert(link, Stage::Calling(call.id)).map_err(|error| error.to_string()));
        match called {
            Ok(connection) => {
                self.peers.on_call(call.id, connection);
                let hello = Hello::new(&self.view, Role::Replica(self.me));
                self.queue(connection, &hello.encode());
            }
            Err(cause) => self.on_call_failed(call.id, &cause, now),
        }
    }

    fn on_call_failed(&mut self, id: ReplicaId, cause: &str, now: Instant) {
        self.peers.on_down(id, None, now);
        let end = End::Fault(Fault::Socket, cause.to_owned());
        debug!(peer = id.0, "call failed: {cause}");
        self.note_end(Stage::Calling(id), None, end, now);
    }
}
