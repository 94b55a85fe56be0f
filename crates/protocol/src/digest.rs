//! Hashing with domain separation, and the exact bytes that signatures cover.
//!
//! Every kind of thing that is hashed has a key of its own, so that the digest of one kind never passes for
//! another's. What is signed begins with a purpose label and the cluster, so that nothing replays elsewhere.

use crate::ids::{ClientId, ClusterId, Digest, InstanceId, PublicKey, Regency, ViewId};
use crate::message::Statement;
use crate::mutants::{Mutant, is_active};

/// What a digest is of; each has its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A request's canonical bytes.
    Request,
    /// A batch: view, instance, timestamp, request digests.
    Batch,
    /// The chain over batch digests.
    Chain,
    /// The digests of a bundle's requests.
    Bundle,
    /// A reply's result.
    Result,
    /// A client's public key, giving its id.
    Client,
    /// A genesis view, giving the cluster's id.
    Cluster,
    /// Randomness that is handed to the service.
    Randomness,
    /// Base and claims of a STOPDATA.
    StopData,
    /// Set and results of a SYNC.
    Sync,
    /// The bytes of a snapshot's chunk.
    Chunk,
    /// The length and hash of a snapshot's chunk.
    SnapshotLeaf,
    /// Two neighbours in the tree over a snapshot's chunks.
    SnapshotNode,
    /// The root over a snapshot's chunks, with their number and length.
    Snapshot,
}

impl Domain {
    const fn key(self) -> &'static [u8; 32] {
        match self {
            Self::Request => b"regency 1 request...............",
            Self::Batch => b"regency 1 batch.................",
            Self::Chain => b"regency 1 chain.................",
            Self::Bundle => b"regency 1 bundle................",
            Self::Result => b"regency 1 result................",
            Self::Client => b"regency 1 client................",
            Self::Cluster => b"regency 1 cluster...............",
            Self::Randomness => b"regency 1 randomness............",
            Self::StopData => b"regency 1 stopdata..............",
            Self::Sync => b"regency 1 sync..................",
            Self::Chunk => b"regency 1 chunk.................",
            Self::SnapshotLeaf => b"regency 1 snapshot leaf.........",
            Self::SnapshotNode => b"regency 1 snapshot node.........",
            Self::Snapshot => b"regency 1 snapshot..............",
        }
    }
}

/// Hashes `bytes` in `domain`.
#[must_use]
pub fn digest(domain: Domain, bytes: &[u8]) -> Digest {
    Digest(*blake3::keyed_hash(domain.key(), bytes).as_bytes())
}

/// Hashes a sequence of parts in `domain`; the caller fixes their lengths or writes them.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// An empty hash in `domain`.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self(blake3::Hasher::new_keyed(domain.key()))
    }

    /// Appends raw bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Appends a number, little-endian.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The digest of all that was appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// The id of the client that holds `key` [REQ-1].
#[must_use]
pub fn client_id(key: &PublicKey) -> ClientId {
    ClientId(digest(Domain::Client, &key.0).0)
}

/// `chain_i = H(chain_{i-1}, batch digest_i)`.
#[must_use]
pub fn chain_next(previous: &Digest, batch: &Digest) -> Digest {
    Hasher::new(Domain::Chain).bytes(&previous.0).bytes(&batch.0).finish()
}

/// The chain before the first instance: bound to the cluster.
#[must_use]
pub fn chain_genesis(cluster: &ClusterId) -> Digest {
    Hasher::new(Domain::Chain).bytes(&cluster.0).finish()
}

/// The bytes that a replica or client signs for `statement` in `cluster`.
#[must_use]
pub fn signing_bytes(cluster: &ClusterId, statement: &Statement) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    match statement {
        Statement::Chain { view, instance, chain } => {
            out.extend_from_slice(b"regency 1 sign chain............");
            out.extend_from_slice(&cluster.0);
            let instance = if is_active(Mutant::CertificateUnbound) { InstanceId(0) } else { *instance };
            out.extend_from_slice(&view.0.to_le_bytes());
            out.extend_from_slice(&instance.0.to_le_bytes());
            out.extend_from_slice(&chain.0);
        }
        Statement::Checkpoint { view, instance, chain, root } => {
            out.extend_from_slice(b"regency 1 sign checkpoint.......");
            out.extend_from_slice(&cluster.0);
            let instance = if is_active(Mutant::RootUnbound) { InstanceId(0) } else { *instance };
            out.extend_from_slice(&view.0.to_le_bytes());
            out.extend_from_slice(&instance.0.to_le_bytes());
            out.extend_from_slice(&chain.0);
            out.extend_from_slice(&root.0);
        }
        Statement::StopData { view, regency, content } => {
            out.extend_from_slice(b"regency 1 sign stopdata.........");
            out.extend_from_slice(&cluster.0);
            let regency = if is_active(Mutant::RegencyUnsigned) { Regency(0) } else { *regency };
            push_regency(&mut out, *view, regency);
            out.extend_from_slice(&content.0);
        }
        Statement::Sync { view, regency, content } => {
            out.extend_from_slice(b"regency 1 sign sync.............");
            out.extend_from_slice(&cluster.0);
            push_regency(&mut out, *view, *regency);
            out.extend_from_slice(&content.0);
        }
        Statement::Bundle { client, requests } => {
            out.extend_from_slice(b"regency 1 sign bundle...........");
            out.extend_from_slice(&cluster.0);
            out.extend_from_slice(&client.0);
            out.extend_from_slice(&requests.0);
        }
    }
    out
}

fn push_regency(out: &mut Vec<u8>, view: ViewId, regency: Regency) {
    out.extend_from_slice(&view.0.to_le_bytes());
    out.extend_from_slice(&regency.0.to_le_bytes());
}

/// What a client's signature over a bundle covers: the digests of its requests in order [REQ-3].
#[must_use]
pub fn bundle_digest(requests: &[Digest]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(Domain::Bundle.key());
    for request in requests {
        hasher.update(&request.0);
    }
    Digest(*hasher.finalize().as_bytes())
}
