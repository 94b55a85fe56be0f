//! Everything that travels: between replicas ([`Message`]) and between clients and replicas
//! ([`ClientMessage`], [`ReplicaMessage`]). The bytes are the codec's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::digest::{self, Domain, Hasher};
use crate::ids::{ClientId, Digest, InstanceId, Regency, ReplicaId, Sequence, SessionId, Signature, ViewId};
pub use crate::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
pub use crate::leader_change::sync::Sync;
use crate::mutants::{Mutant, is_active};
pub use crate::request::{Body, BundleProof, REQUEST_HEADER_BYTES, Request, RequestKind, RequestPlace};
pub use crate::state_transfer::wanted::{Supply, Wanted};
use crate::time::Timestamp;
use crate::view::View;

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The leader's proposal of a batch for an instance.
    Propose(Propose),
    /// First phase vote.
    Write(Vote),
    /// Second phase vote.
    Accept(Vote),
    /// "This is decided here."
    Decided(Decided),
    /// Asks for a batch with all its bodies.
    FetchBatch(FetchBatch),
    /// Answers [`Message::FetchBatch`].
    BatchAnswer(BatchAnswer),
    /// Asks for request bodies.
    FetchBodies(FetchBodies),
    /// Answers [`Message::FetchBodies`].
    Bodies(Vec<Body>),
    /// Where the sender stands [LINK-2].
    Status(Status),
    /// One signature over a place in the chain.
    ChainSignature(ChainSignature),
    /// Enough of them.
    ChainCertificate(ChainCertificate),
    /// One signature over the state at a checkpoint [CKPT-2].
    CheckpointSignature(CheckpointSignature),
    /// A quorum of them.
    CheckpointCertificate(CheckpointCertificate),
    /// The sender has lost its votes and asks what they may have been [RECOVER-2].
    Recover(Recover),
    /// Answers [`Message::Recover`].
    RecoverAnswer(RecoverAnswer),
    /// The wish to leave a leader [STOP-1].
    Stop(Stop),
    /// What the sender voted for, for the next leader [STOPDATA-1].
    StopData(SignedStopData),
    /// The beginning of a regency [SYNC-1].
    Sync(Arc<Sync>),
    /// Requests that the leader may lack, with whatever proofs there are [STOP-1].
    Forward(Vec<Body>),
    /// The sender holds these requests as authentic [REQ-3].
    Announce(Vec<Digest>),
    /// The clock in a STATUS, sent back.
    Echo(Timestamp),
    /// The sender lacks proof that clients sent these proposed requests [REQ-3].
    Lack(Vec<Digest>),
    /// Asks a donor for a part of what the sender misses [ST-3].
    Fetch(Wanted),
    /// Answers [`Message::Fetch`].
    Supply(Supply),
}

impl Message {
    /// The request bodies in it: the shell verifies their proofs.
    #[must_use]
    pub fn bodies(&self) -> &[Body] {
        match self {
            Self::Propose(propose) => &propose.inline,
            Self::BatchAnswer(answer) => &answer.bodies,
            Self::Bodies(bodies) | Self::Forward(bodies) => bodies,
            // Batches from a log are checked by their certified digests: they carry no proofs.
            Self::Fetch(_)
            | Self::Supply(_)
            | Self::Write(_)
            | Self::Accept(_)
            | Self::Decided(_)
            | Self::FetchBatch(_)
            | Self::FetchBodies(_)
            | Self::Status(_)
            | Self::ChainSignature(_)
            | Self::ChainCertificate(_)
            | Self::CheckpointSignature(_)
            | Self::CheckpointCertificate(_)
            | Self::Recover(_)
            | Self::RecoverAnswer(_)
            | Self::Stop(_)
            | Self::StopData(_)
            | Self::Sync(_)
            | Self::Announce(_)
            | Self::Echo(_)
            | Self::Lack(_) => &[],
        }
    }

    /// The signatures of members in it, each once: all of them must verify before the core may see a message
    /// that came over the channel of `from`.
    #[must_use]
    pub fn member_signatures(&self, from: ReplicaId, view: &View) -> BTreeSet<MemberSignature> {
        let mut signatures = BTreeSet::new();
        match self {
            Self::ChainSignature(signed) => {
                let ChainSignature { view, instance, chain, signature } = *signed;
                let statement = Statement::Chain { view, instance, chain };
                signatures.insert(MemberSignature { signer: from, statement, signature });
            }
            Self::ChainCertificate(certificate) => signatures.extend(certificate.member_signatures()),
            Self::CheckpointSignature(signed) => {
                let CheckpointSignature { view, instance, chain, root, signature } = *signed;
                let statement = Statement::Checkpoint { view, instance, chain, root };
                signatures.insert(MemberSignature { signer: from, statement, signature });
            }
            Self::CheckpointCertificate(certificate) => signatures.extend(certificate.member_signatures()),
            Self::StopData(stated) => add_stop_data(stated, &mut signatures),
            Self::Supply(Supply::Snapshot { certificate, .. }) => {
                signatures.extend(certificate.member_signatures());
            }
            Self::Sync(sync) => {
                let signer = view.leader_of(sync.regency);
                let (statement, signature) = (sync.statement(), sync.signature);
                signatures.insert(MemberSignature { signer, statement, signature });
                sync.set.iter().for_each(|stated| add_stop_data(stated, &mut signatures));
            }
            Self::Propose(_)
            | Self::Write(_)
            | Self::Accept(_)
            | Self::Decided(_)
            | Self::FetchBatch(_)
            | Self::BatchAnswer(_)
            | Self::FetchBodies(_)
            | Self::Bodies(_)
            | Self::Status(_)
            | Self::Recover(_)
            | Self::RecoverAnswer(_)
            | Self::Stop(_)
            | Self::Forward(_)
            | Self::Announce(_)
            | Self::Echo(_)
            | Self::Lack(_)
            | Self::Fetch(_)
            | Self::Supply(
                Supply::Digests { .. }
                | Supply::Batches(_)
                | Supply::Page { .. }
                | Supply::Chunk { .. }
                | Supply::Nothing(_),
            ) => {}
        }
        signatures
    }
}

fn add_stop_data(stated: &SignedStopData, signatures: &mut BTreeSet<MemberSignature>) {
    if !is_active(Mutant::StopDataUnsigned) {
        let SignedStopData { sender, signature, .. } = *stated;
        signatures.insert(MemberSignature { signer: sender, statement: stated.data.statement(), signature });
    }
    if let Some(base) = &stated.data.base {
        signatures.extend(base.member_signatures());
    }
}

/// A signature that a message carries, with what it is said to be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberSignature {
    /// Whose key it is to be checked with.
    pub signer: ReplicaId,
    /// What it covers.
    pub statement: Statement,
    /// The signature.
    pub signature: Signature,
}

/// RECOVER: the sender has lost its votes, or waits for what the leader orders for somebody who has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// The view.
    pub view: ViewId,
    /// Tells the sender's lives apart.
    pub nonce: u64,
    /// Whether it is another one that asks, and perhaps not the leader: only that one has to do with it.
    pub is_relayed: bool,
}

/// What the sender knows that bounds what any replica may have voted for [RECOVER-2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverAnswer {
    /// The view.
    pub view: ViewId,
    /// Of the question.
    pub nonce: u64,
    /// The highest of every instance that the sender ever locked, and its base.
    pub highest: InstanceId,
    /// The highest regency of the view that the sender asked for.
    pub regency: Regency,
}

/// STOP: the sender wants every regency below this one to end. It is not signed and convinces nobody alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The view.
    pub view: ViewId,
    /// The regency to begin.
    pub regency: Regency,
}

/// PROPOSE: a batch by digests, with the bodies that backups may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propose {
    /// The regency in which it is proposed.
    pub regency: Regency,
    /// What is proposed.
    pub batch: Arc<Batch>,
    /// Bodies that came to the leader by another way than from the client.
    pub inline: Vec<Body>,
}

/// What one instance decides: requests by digest, in order, with a timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The view in which it was proposed.
    pub view: ViewId,
    /// The instance that it is for.
    pub instance: InstanceId,
    /// The leader's clock at the proposal.
    pub timestamp: Timestamp,
    /// The digests of its requests.
    pub requests: Vec<Digest>,
}

impl Batch {
    /// The digest that votes name; it covers the digests of the requests, not their bodies.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher =
            Hasher::new(Domain::Batch).number(self.view.0).number(self.instance.0).number(self.timestamp.0);
        for request in &self.requests {
            hasher = hasher.bytes(&request.0);
        }
        hasher.finish()
    }
}

/// WRITE or ACCEPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The view.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The epoch.
    pub regency: Regency,
    /// The batch's digest.
    pub digest: Digest,
}

/// The statement that an instance is decided at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The view in which it was decided.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The digest of the decided batch.
    pub digest: Digest,
}

/// A question for a batch by instance and digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchBatch {
    /// The view.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The digest of the batch.
    pub digest: Digest,
}

/// A batch with all its bodies, in the batch's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Its requests.
    pub bodies: Vec<Body>,
}

/// A question for request bodies by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchBodies {
    /// The instance that needs them.
    pub instance: InstanceId,
    /// Their digests.
    pub requests: Vec<Digest>,
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its view.
    pub view: ViewId,
    /// Its regency.
    pub regency: Regency,
    /// Whether that has begun there: its SYNC has come, or it is the first.
    pub is_live: bool,
    /// Its decided prefix.
    pub decided: InstanceId,
    /// The lowest decided instance whose batch it can still send.
    pub retained_from: InstanceId,
    /// The lowest instance of which it has the batch and all after it, in its log on disk.
    pub logged_from: InstanceId,
    /// The instance of its stable checkpoint, if it has that snapshot; 0 if not.
    pub stable: InstanceId,
    /// The instance of its highest chain certificate.
    pub certified: InstanceId,
    /// The sender's clock: it comes back in an echo, and tells the round trip.
    pub sent: Timestamp,
}

/// A replica's signature over `(cluster, view, instance, chain)` [CHAIN-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainSignature {
    /// The view of the instance.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The chain at the instance.
    pub chain: Digest,
    /// The sender's signature.
    pub signature: Signature,
}

/// `f+1` signatures over one place in the chain: proof that the prefix to it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainCertificate {
    /// The view of the instance.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The chain at the instance.
    pub chain: Digest,
    /// The signers, by increasing id, with their signatures.
    pub signatures: Vec<(ReplicaId, Signature)>,
}

impl ChainCertificate {
    /// Its signatures, one by one.
    fn member_signatures(&self) -> impl Iterator<Item = MemberSignature> + '_ {
        let Self { view, instance, chain, .. } = *self;
        let statement = Statement::Chain { view, instance, chain };
        let signatures = self.signatures.iter();
        signatures.map(move |(signer, signature)| MemberSignature {
            signer: *signer,
            statement,
            signature: *signature,
        })
    }
}

/// A replica's signature over `(cluster, view, instance, chain, root)` [CKPT-2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSignature {
    /// The view of the instance.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The chain at the instance.
    pub chain: Digest,
    /// The root of the snapshot of the state after the instance.
    pub root: Digest,
    /// The sender's signature.
    pub signature: Signature,
}

/// `quorum` signatures over one state: a stable checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointCertificate {
    /// The view of the instance.
    pub view: ViewId,
    /// The instance.
    pub instance: InstanceId,
    /// The chain at the instance.
    pub chain: Digest,
    /// The root of the snapshot.
    pub root: Digest,
    /// The signers, by increasing id, with their signatures.
    pub signatures: Vec<(ReplicaId, Signature)>,
}

impl CheckpointCertificate {
    /// Its signatures, one by one.
    fn member_signatures(&self) -> impl Iterator<Item = MemberSignature> + '_ {
        let Self { view, instance, chain, root, .. } = *self;
        let statement = Statement::Checkpoint { view, instance, chain, root };
        let signatures = self.signatures.iter();
        signatures.map(move |(signer, signature)| MemberSignature {
            signer: *signer,
            statement,
            signature: *signature,
        })
    }
}

/// What signatures are made over; the bytes are [`digest::signing_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statement {
    /// A replica's, over a place in the chain.
    Chain {
        /// The view of the instance.
        view: ViewId,
        /// The instance.
        instance: InstanceId,
        /// The chain at the instance.
        chain: Digest,
    },
    /// A replica's, over its state at a checkpoint [CKPT-2].
    Checkpoint {
        /// The view of the instance.
        view: ViewId,
        /// The instance.
        instance: InstanceId,
        /// The chain at the instance.
        chain: Digest,
        /// The root of the snapshot.
        root: Digest,
    },
    /// A replica's, over what it voted for until a regency begins [STOPDATA-1].
    StopData {
        /// The view.
        view: ViewId,
        /// The regency.
        regency: Regency,
        /// The digest of base and claims.
        content: Digest,
    },
    /// A leader's, over the beginning of its regency [SYNC-1].
    Sync {
        /// The view.
        view: ViewId,
        /// The regency.
        regency: Regency,
        /// The digest of the set and what follows from it.
        content: Digest,
    },
    /// A client's, over a bundle of its requests.
    Bundle {
        /// Whose requests they are.
        client: ClientId,
        /// [`digest::bundle_digest`] of their digests.
        requests: Digest,
    },
}

/// A message from a client to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// One or more requests of the client, under one signature or under the channel alone.
    Bundle(Bundle),
}

/// Requests of one client that travel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The client's signature over the digests of all `requests`, in order.
    pub signature: Option<Signature>,
    /// Whether every replica shall send whole results: set when answers by digest left a client without one.
    pub whole_results: bool,
    /// The requests.
    pub requests: Vec<Arc<Request>>,
}

impl Bundle {
    /// What the signature, if there is one, must cover; `None` for an empty bundle or one of several clients.
    #[must_use]
    pub fn statement(&self) -> Option<Statement> {
        let client = self.requests.first()?.client();
        if self.requests.iter().any(|request| request.client() != client) {
            return None;
        }
        let digests: Vec<Digest> = self.requests.iter().map(|request| request.digest()).collect();
        Some(Statement::Bundle { client, requests: digest::bundle_digest(&digests) })
    }
}

/// A message from a replica to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaMessage {
    /// Answers to requests.
    Replies {
        /// The view under which the replica answers.
        view: ViewId,
        /// The answers.
        replies: Vec<Reply>,
    },
}

/// A replica's answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's session; [`SessionId::NONE`] for an OPEN.
    pub session: SessionId,
    /// The request's sequence; the nonce of an OPEN.
    pub sequence: Sequence,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request at one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Executed, with this result. Of an OPEN: the session's id, eight bytes, little-endian.
    Result(Bytes),
    /// Executed; another replica sends the result whole, this is its digest [CLI-1].
    ResultDigest(Digest),
    /// Not executed.
    Refused(Refusal),
}

impl Outcome {
    /// The digest of an executed request's result; `None` for a refusal.
    #[must_use]
    pub fn result_digest(&self) -> Option<Digest> {
        match self {
            Self::Result(result) => Some(digest::digest(Domain::Result, result)),
            Self::ResultDigest(digest) => Some(*digest),
            Self::Refused(_) => None,
        }
    }
}

/// Why a request was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The client has as much pending as it may [REQ-5].
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The sequence lies outside `[floor, floor + W)` [REQ-4].
    TooFarAhead,
    /// No such session from now on; what was sent before may have been executed [REQ-6].
    SessionExpired,
    /// The payload is larger than `request_bytes_max`.
    TooLarge,
    /// The view does not list this client.
    UnknownClient,
    /// An OPEN came after its `valid_until`, or that is beyond the horizon.
    OpenExpired,
    /// No room for another session, of this client or at all.
    SessionsExhausted,
    /// The request's signature does not verify, or there is none where the view wants one.
    BadSignature,
    /// The service refused it before ordering.
    Rejected,
    /// The result is larger than `result_bytes_max`; the operation was executed.
    ResultTooLarge,
    /// The operation was executed; its result was dropped to make room for later ones of the session.
    ResultDiscarded,
    /// Another request was executed under the same client, session and sequence [REQ-4].
    SequenceReused,
}
