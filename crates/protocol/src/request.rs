//! A client's request: its canonical bytes, its digest, and what proves that the client sent it.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::digest::{self, Domain};
use crate::ids::{ClientId, Digest, PublicKey, Sequence, SessionId, Signature};
use crate::time::Timestamp;

/// Bytes of a request's canonical form before its payload.
pub const REQUEST_HEADER_BYTES: usize = 32 + 8 + 8 + 8 + 1 + 4;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// To open a session [REQ-6]: `session` is [`SessionId::NONE`], `sequence` the nonce.
    Open,
    /// To be ordered and executed by the service.
    Ordered,
}

/// A request as it was received: parsed once, hashed once, shared by all who refer to it.
#[derive(PartialEq, Eq)]
pub struct Request {
    client: ClientId,
    session: SessionId,
    sequence: Sequence,
    floor: Sequence,
    kind: RequestKind,
    encoded: Bytes,
    digest: Digest,
}

impl Request {
    /// An operation for the service.
    #[must_use]
    pub fn ordered(
        client: ClientId,
        session: SessionId,
        sequence: Sequence,
        floor: Sequence,
        payload: &[u8],
    ) -> Self {
        Self::encode(client, session, sequence, floor, RequestKind::Ordered, payload)
    }

    /// An OPEN with `nonce`, to be executed no later than `valid_until` in ordered time.
    #[must_use]
    pub fn open(client: ClientId, nonce: u64, valid_until: Timestamp) -> Self {
        let payload = valid_until.0.to_le_bytes();
        Self::encode(client, SessionId::NONE, Sequence(nonce), Sequence(0), RequestKind::Open, &payload)
    }

    fn encode(
        client: ClientId,
        session: SessionId,
        sequence: Sequence,
        floor: Sequence,
        kind: RequestKind,
        payload: &[u8],
    ) -> Self {
        let mut out = BytesMut::with_capacity(REQUEST_HEADER_BYTES.saturating_add(payload.len()));
        out.put_slice(&client.0);
        out.put_u64_le(session.0);
        out.put_u64_le(sequence.0);
        out.put_u64_le(floor.0);
        out.put_u8(match kind {
            RequestKind::Open => 0,
            RequestKind::Ordered => 1,
        });
        // A payload is bounded far below 4 GiB by the settings; one that is not decodes nowhere.
        out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        out.put_slice(payload);
        let encoded = out.freeze();
        let digest = digest::digest(Domain::Request, &encoded);
        Self { client, session, sequence, floor, kind, encoded, digest }
    }

    /// The parsed form of canonical bytes; used by the codec, which has checked them.
    pub(crate) fn from_parts(
        client: ClientId,
        session: SessionId,
        sequence: Sequence,
        floor: Sequence,
        kind: RequestKind,
        encoded: Bytes,
    ) -> Self {
        let digest = digest::digest(Domain::Request, &encoded);
        Self { client, session, sequence, floor, kind, encoded, digest }
    }

    /// Who sent it.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// In which session; [`SessionId::NONE`] for an OPEN.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Its number in the session; the nonce of an OPEN.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The client's lowest unanswered sequence [REQ-4].
    #[must_use]
    pub fn floor(&self) -> Sequence {
        self.floor
    }

    /// What it asks for.
    #[must_use]
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// The operation for the service; `valid_until` of an OPEN.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.encoded.slice(REQUEST_HEADER_BYTES.min(self.encoded.len())..)
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.encoded.len().saturating_sub(REQUEST_HEADER_BYTES)
    }

    /// Until when an OPEN may be executed; `None` for another kind or a payload of another length.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        if self.kind != RequestKind::Open {
            return None;
        }
        let payload: [u8; 8] = self.encoded.get(REQUEST_HEADER_BYTES..)?.try_into().ok()?;
        Some(Timestamp(u64::from_le_bytes(payload)))
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The digest of the canonical bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What exactly-once is counted by.
    #[must_use]
    pub fn place(&self) -> RequestPlace {
        RequestPlace { client: self.client, session: self.session, sequence: self.sequence }
    }
}

impl fmt::Debug for Request {
    /// What names it; payloads are long, and may be nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("client", &self.client)
            .field("session", &self.session)
            .field("sequence", &self.sequence)
            .field("floor", &self.floor)
            .field("kind", &self.kind)
            .field("bytes", &self.encoded.len())
            .field("digest", &self.digest)
            .finish()
    }
}

/// (client, session, sequence): two requests with one place are one request to exactly-once [REQ-4].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestPlace {
    /// Who.
    pub client: ClientId,
    /// In which session.
    pub session: SessionId,
    /// With which number.
    pub sequence: Sequence,
}

/// A client's signature over a bundle of requests, kept with each of them so that it convinces others [REQ-3].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleProof {
    /// The client's key: its id is derived from it, so that whoever never met the client can check too [REQ-1].
    pub key: PublicKey,
    /// The digests of the bundle's requests, in order.
    pub requests: Vec<Digest>,
    /// The client's signature over [`digest::bundle_digest`] of them.
    pub signature: Signature,
}

impl BundleProof {
    /// Bytes that it takes, in a message and about as many in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let signed = size_of::<PublicKey>().saturating_add(size_of::<Signature>());
        self.requests.len().saturating_mul(size_of::<Digest>()).saturating_add(signed)
    }
}

/// A request with whatever proof travels along; between replicas and in storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The request.
    pub request: Arc<Request>,
    /// The client's signature, where it has one that covers this request.
    pub proof: Option<Arc<BundleProof>>,
}
