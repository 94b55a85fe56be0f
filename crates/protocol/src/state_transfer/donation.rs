//! What the shell is to do for a transfer: as a donor, read something and send it; as a requester, keep what was
//! verified, and give it to the service when all of it is there.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Digest, InstanceId, LogPosition};
use crate::manifest::Manifest;
use crate::message::CheckpointCertificate;

/// Something to be read from this replica's disk for another one, off the ordering path and at a limited rate; what
/// is not there any more, or is damaged, is answered with [`Supply::Nothing`](super::wanted::Supply::Nothing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Donation {
    /// What the snapshot of a stable checkpoint comes to, to be sent with the certificate.
    Snapshot {
        /// The certificate.
        certificate: CheckpointCertificate,
        /// The instance above which it was asked for.
        above: InstanceId,
    },
    /// A page of a snapshot's table of contents.
    Page {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root: a snapshot of another root is not the one asked for.
        root: Digest,
        /// Which page.
        page: u32,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root.
        root: Digest,
        /// Which chunk.
        index: u32,
    },
    /// Decided batches from the log, as many of them as one answer takes.
    Batches {
        /// The first instance.
        from: InstanceId,
        /// The last one.
        last: InstanceId,
        /// No record about these instances stands before this one.
        position: LogPosition,
    },
}

/// What happens to a snapshot that comes from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Make room for a snapshot with this table of contents, and look which of its chunks are here already: from
    /// a transfer that was interrupted, or in an older snapshot. Answered by
    /// [`Event::TransferBegun`](crate::event::Event::TransferBegun). Replaces one that was begun before.
    Begin(Arc<Manifest>),
    /// Keep a chunk, which is verified. Answered by [`Event::ChunkKept`](crate::event::Event::ChunkKept).
    Put {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Which chunk.
        index: u32,
        /// Its bytes.
        bytes: Bytes,
    },
    /// All chunks are kept: put the snapshot in place of a damaged one of this replica's own, durably. Answered by
    /// [`Event::Repaired`](crate::event::Event::Repaired).
    Replace {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root.
        root: Digest,
    },
    /// All chunks are kept: make the snapshot one of this replica's own, durably, and give the service its state.
    /// Nothing is executed until [`Event::Restored`](crate::event::Event::Restored) answers.
    Install {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root.
        root: Digest,
    },
}
