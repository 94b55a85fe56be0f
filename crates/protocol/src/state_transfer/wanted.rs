//! What a replica asks of its donors, and what they send [ST-3].

use bytes::Bytes;

use crate::ids::{Digest, InstanceId, ViewId};
use crate::manifest::{Chunk, ManifestHead};
use crate::message::CheckpointCertificate;
use crate::record::RecordedBatch;

/// A question to a donor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The digests of the batches decided from one instance to another.
    Digests {
        /// The view.
        view: ViewId,
        /// The first instance.
        from: InstanceId,
        /// The last one.
        last: InstanceId,
    },
    /// Those batches with all their bodies, or the first few of them.
    Batches {
        /// The view.
        view: ViewId,
        /// The first instance.
        from: InstanceId,
        /// The last one.
        last: InstanceId,
    },
    /// The newest stable checkpoint above an instance whose snapshot the donor has.
    Snapshot {
        /// The view.
        view: ViewId,
        /// The instance.
        above: InstanceId,
    },
    /// A page of a snapshot's table of contents.
    Page {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root.
        root: Digest,
        /// Which page, from 0.
        page: u32,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Its root.
        root: Digest,
        /// Which chunk, from 0.
        index: u32,
    },
}

/// An answer to [`Wanted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// The digests from an instance on, all that were asked for.
    Digests {
        /// The first instance.
        from: InstanceId,
        /// One for each instance.
        digests: Vec<Digest>,
    },
    /// Batches of instances that follow each other, at least one.
    Batches(Vec<RecordedBatch>),
    /// A stable checkpoint, and what its snapshot comes to.
    Snapshot {
        /// The proof.
        certificate: CheckpointCertificate,
        /// What the manifest comes to.
        head: ManifestHead,
    },
    /// A page of a table of contents.
    Page {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Which page.
        page: u32,
        /// Its chunks.
        chunks: Vec<Chunk>,
    },
    /// A chunk.
    Chunk {
        /// The instance of the snapshot.
        instance: InstanceId,
        /// Which chunk.
        index: u32,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The donor does not have what was asked for, or not any more.
    Nothing(Wanted),
}
