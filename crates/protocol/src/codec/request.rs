//! Requests and the proofs that travel with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::Reader;
use super::{DecodeError, put_count};
use crate::ids::{ClientId, Digest, PublicKey, Sequence, SessionId, Signature};
use crate::limits::{BUNDLE_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX};
use crate::message::{Body, BundleProof, REQUEST_HEADER_BYTES, Request, RequestKind};

/// The bytes of an OPEN's payload: `valid_until`.
const OPEN_PAYLOAD_BYTES: usize = 8;

/// Reads a request; its digest is computed over the bytes received.
pub(super) fn take_request(reader: &mut Reader) -> Result<Request, DecodeError> {
    let start = reader.position();
    let client = ClientId(reader.array()?);
    let session = SessionId(reader.u64()?);
    let sequence = Sequence(reader.u64()?);
    let floor = Sequence(reader.u64()?);
    let kind = match reader.u8()? {
        0 => RequestKind::Open,
        1 => RequestKind::Ordered,
        _ => return Err(DecodeError::NonCanonical("unknown kind of request")),
    };
    let payload = reader.count("request payload", CLIENT_FRAME_BYTES_MAX, 1)?;
    if kind == RequestKind::Open && (session != SessionId::NONE || floor != Sequence(0)) {
        return Err(DecodeError::NonCanonical("OPEN with a session or a floor"));
    }
    if kind == RequestKind::Open && payload != OPEN_PAYLOAD_BYTES {
        return Err(DecodeError::NonCanonical("OPEN whose payload is not its valid_until"));
    }
    reader.take(payload)?;
    Ok(Request::from_parts(client, session, sequence, floor, kind, reader.since(start)))
}

/// How the proof of a body is written: not at all, in full, or as the place of one written before.
const PROOF_NONE: u8 = 0;
const PROOF_NEW: u8 = 1;
const PROOF_AGAIN: u8 = 2;

/// A proof by its content, whoever holds it.
type ProofKey<'a> = (PublicKey, Signature, &'a [Digest]);

fn key(proof: &BundleProof) -> ProofKey<'_> {
    (proof.key, proof.signature, &proof.requests)
}

/// Appends bodies; a proof that covers several of them is written once.
pub(super) fn put_bodies(out: &mut Vec<u8>, bodies: &[Body]) {
    put_count(out, bodies.len());
    let mut written: BTreeMap<ProofKey<'_>, usize> = BTreeMap::new();
    for body in bodies {
        out.extend_from_slice(body.request.encoded());
        let Some(proof) = &body.proof else {
            out.push(PROOF_NONE);
            continue;
        };
        let next = written.len();
        match written.get(&key(proof)) {
            Some(earlier) => {
                out.push(PROOF_AGAIN);
                put_count(out, *earlier);
            }
            None => {
                written.insert(key(proof), next);
                out.push(PROOF_NEW);
                out.extend_from_slice(&proof.key.0);
                put_count(out, proof.requests.len());
                proof.requests.iter().for_each(|digest| out.extend_from_slice(&digest.0));
                out.extend_from_slice(&proof.signature.0);
            }
        }
    }
}

/// Reads bodies; those under one proof share it, so that it is verified once.
pub(super) fn take_bodies(
    reader: &mut Reader,
    what: &'static str,
    limit: usize,
) -> Result<Vec<Body>, DecodeError> {
    let count = reader.count(what, limit, REQUEST_HEADER_BYTES + 1)?;
    let mut proofs = ProofsRead::default();
    let mut bodies = Vec::with_capacity(count);
    for _ in 0..count {
        let request = Arc::new(take_request(reader)?);
        let proof = match reader.u8()? {
            PROOF_NONE => None,
            PROOF_NEW => Some(proofs.add(take_proof(reader)?)),
            PROOF_AGAIN => Some(proofs.again(reader.count("proof", limit, 0)?)?),
            _ => return Err(DecodeError::NonCanonical("unknown kind of proof")),
        };
        if let Some(proof) = &proof {
            proofs.check_covers(proof, &request.digest())?;
        }
        bodies.push(Body { request, proof });
    }
    proofs.check_distinct()?;
    Ok(bodies)
}

fn take_proof(reader: &mut Reader) -> Result<BundleProof, DecodeError> {
    let key = PublicKey(reader.array()?);
    let requests = reader.digests("proof requests", BUNDLE_REQUESTS_MAX)?;
    let signature = reader.signature()?;
    Ok(BundleProof { key, requests, signature })
}

/// The proofs of one message, in the order in which they were written.
#[derive(Default)]
struct ProofsRead {
    proofs: Vec<Arc<BundleProof>>,
    /// After which place of the proof used last the next request is looked for first: bundles stay in order.
    hint: usize,
}

impl ProofsRead {
    fn add(&mut self, proof: BundleProof) -> Arc<BundleProof> {
        let proof = Arc::new(proof);
        self.proofs.push(Arc::clone(&proof));
        self.hint = 0;
        proof
    }

    fn again(&self, place: usize) -> Result<Arc<BundleProof>, DecodeError> {
        self.proofs
            .get(place)
            .cloned()
            .ok_or(DecodeError::NonCanonical("a proof that was not written before"))
    }

    fn check_covers(&mut self, proof: &BundleProof, request: &Digest) -> Result<(), DecodeError> {
        let expected = proof.requests.get(self.hint) == Some(request);
        let place = if expected { Some(self.hint) } else { proof.requests.iter().position(|d| d == request) };
        self.hint = place.ok_or(DecodeError::RequestNotInProof)?.saturating_add(1);
        Ok(())
    }

    fn check_distinct(&self) -> Result<(), DecodeError> {
        let mut keys: Vec<ProofKey<'_>> = self.proofs.iter().map(|proof| key(proof)).collect();
        keys.sort_unstable();
        match keys.windows(2).any(|pair| pair.first() == pair.last()) {
            true => Err(DecodeError::NonCanonical("one proof written twice")),
            false => Ok(()),
        }
    }
}
