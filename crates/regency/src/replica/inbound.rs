//! What the network hands to the loop: decoded, from somebody known, not verified yet.

use regency_protocol::ids::{ClientId, PublicKey, ReplicaId};
use regency_protocol::message::{Bundle, Message};

use super::connection::ConnectionId;

/// One thing that arrived.
#[derive(Debug)]
pub(super) enum Inbound {
    /// There is a channel to this member (again).
    Connected(ReplicaId),
    /// There is none any more.
    Disconnected(ReplicaId),
    /// A member's message, over its own channel.
    Peer {
        /// Whose.
        from: ReplicaId,
        /// What.
        message: Message,
    },
    /// A client's requests, over its own channel and in its own name.
    Client {
        /// The channel.
        connection: ConnectionId,
        /// Whose.
        client: ClientId,
        /// The key that the channel proved.
        key: PublicKey,
        /// What.
        bundle: Bundle,
    },
}
