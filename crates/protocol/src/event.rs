//! Everything that goes into the core.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Digest, InstanceId, LogPosition, ReplicaId, Signature};
use crate::message::{BundleProof, Message, Request, Statement};
use crate::snapshot::SnapshotHead;

/// Something whose signatures the shell has checked: the core relies on it.
///
/// Of a [`Message`]: every client signature in its bodies and every replica signature in it verifies, under the
/// key that the view has for the signer; a message with one that does not is dropped and counted by the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Declares that all signatures in `checked` verify. Only the shell's verifier calls this.
    #[must_use]
    pub fn vouch(checked: T) -> Self {
        Self(checked)
    }

    /// What was verified.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A request that came from its client: over the client's own authenticated channel, and, where it has a proof,
/// under the client's signature too.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// The request; its client is the channel's.
    pub request: Arc<Request>,
    /// The verified signature over its bundle; `None` if there was none.
    pub proof: Option<Arc<BundleProof>>,
    /// Whether the client wants the result whole.
    pub whole_result: bool,
}

/// What the shell tells the core.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came over the authenticated channel of another member.
    Message {
        /// The member.
        from: ReplicaId,
        /// What it sent.
        message: Verified<Message>,
    },
    /// A request came from its client.
    Request(Verified<ClientRequest>),
    /// There is a channel to this member (again).
    Connected(ReplicaId),
    /// There is no channel to this member any more.
    Disconnected(ReplicaId),
    /// The service has executed the operations of a delivery: one result for each, in order.
    Executed {
        /// The delivery's instance.
        instance: InstanceId,
        /// The results.
        results: Vec<Bytes>,
    },
    /// The statement of an [`Action::Sign`](crate::action::Action::Sign) has been signed with this replica's key.
    Signed {
        /// The statement.
        statement: Statement,
        /// The signature.
        signature: Signature,
    },
    /// This record of the log, and all before it, are on disk.
    Durable(LogPosition),
    /// The snapshot of an [`Action::Snapshot`](crate::action::Action::Snapshot) is on disk in full.
    Snapshotted {
        /// Its instance.
        instance: InstanceId,
        /// The root of its chunks.
        root: Digest,
    },
    /// A snapshot that comes from others can be written: answers
    /// [`Transfer::Begin`](crate::state_transfer::donation::Transfer::Begin).
    TransferBegun {
        /// Its instance.
        instance: InstanceId,
        /// For each chunk whether it is here already, verified.
        held: Vec<bool>,
    },
    /// A chunk of it is written.
    ChunkKept {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Which chunk.
        index: u32,
    },
    /// It is one of this replica's own now, on disk, and the service has its state.
    Restored(Box<SnapshotHead>),
    /// It is one of this replica's own now, on disk, in place of a damaged one; the service keeps its state.
    Repaired(InstanceId),
    /// Something of this replica's own is damaged on the disk.
    Damaged(Damage),
    /// Nothing else is at hand just now: time to propose what has gathered. Must follow any other event, at
    /// the latest after a bounded batch of them.
    InputDrained,
    /// The time that `next_deadline` named has come.
    Tick,
}

/// What was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A part of the snapshot of this instance.
    Snapshot(InstanceId),
    /// This record of the log, and perhaps others behind it.
    Log(LogPosition),
}
