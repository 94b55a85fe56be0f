//! Frames between clients and replicas.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reader::Reader;
use super::request::take_request;
use super::{DecodeError, Wire, put_count, put_header, put_u64};
use crate::ids::{Sequence, SessionId, ViewId};
use crate::limits::{BUNDLE_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX, REPLIES_MAX};
use crate::message::{
    Bundle, ClientMessage, Outcome, REQUEST_HEADER_BYTES, Refusal, ReplicaMessage, Reply, Request,
};

/// Kinds in this direction, apart from those of other directions: a frame that strays is an unknown kind.
const BUNDLE: u8 = 64;
const REPLIES: u8 = 96;

/// A reply takes at least its session, its sequence and what came of it.
const REPLY_BYTES_MIN: usize = 8 + 8 + 1;

const OUTCOME_RESULT: u8 = 0;
const OUTCOME_RESULT_DIGEST: u8 = 1;
const OUTCOME_REFUSED: u8 = 2;

impl Wire for ClientMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bundle(bundle) => {
                put_header(out, BUNDLE);
                put_bundle(out, bundle);
            }
        }
    }

    fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(frame, CLIENT_FRAME_BYTES_MAX)?;
        let message = match reader.u8()? {
            BUNDLE => Self::Bundle(take_bundle(&mut reader)?),
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.close()?;
        Ok(message)
    }
}

impl Wire for ReplicaMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Replies { view, replies } => {
                put_header(out, REPLIES);
                put_u64(out, view.0);
                put_count(out, replies.len());
                replies.iter().for_each(|reply| put_reply(out, reply));
            }
        }
    }

    fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(frame, CLIENT_FRAME_BYTES_MAX)?;
        let message = match reader.u8()? {
            REPLIES => {
                let view = ViewId(reader.u64()?);
                let count = reader.count("replies", REPLIES_MAX, REPLY_BYTES_MIN)?;
                let replies = (0..count).map(|_| take_reply(&mut reader)).collect::<Result<_, _>>()?;
                Self::Replies { view, replies }
            }
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.close()?;
        Ok(message)
    }
}

fn put_bundle(out: &mut Vec<u8>, bundle: &Bundle) {
    out.push(u8::from(bundle.signature.is_some()));
    if let Some(signature) = &bundle.signature {
        out.extend_from_slice(&signature.0);
    }
    out.push(u8::from(bundle.whole_results));
    put_count(out, bundle.requests.len());
    bundle.requests.iter().for_each(|request| out.extend_from_slice(request.encoded()));
}

fn take_bundle(reader: &mut Reader) -> Result<Bundle, DecodeError> {
    let signature = if reader.bool()? { Some(reader.signature()?) } else { None };
    let whole_results = reader.bool()?;
    let count = reader.count("bundle requests", BUNDLE_REQUESTS_MAX, REQUEST_HEADER_BYTES)?;
    let requests: Vec<Arc<Request>> =
        (0..count).map(|_| take_request(reader).map(Arc::new)).collect::<Result<_, _>>()?;
    let Some(first) = requests.first() else {
        return Err(DecodeError::NonCanonical("an empty bundle"));
    };
    if requests.iter().any(|request| request.client() != first.client()) {
        return Err(DecodeError::NonCanonical("a bundle of several clients"));
    }
    Ok(Bundle { signature, whole_results, requests })
}

fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    put_u64(out, reply.session.0);
    put_u64(out, reply.sequence.0);
    put_outcome(out, &reply.outcome);
}

/// Appends an outcome, in a reply or in the session table.
pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Result(result) => {
            out.push(OUTCOME_RESULT);
            put_count(out, result.len());
            out.extend_from_slice(result);
        }
        Outcome::ResultDigest(digest) => {
            out.push(OUTCOME_RESULT_DIGEST);
            out.extend_from_slice(&digest.0);
        }
        Outcome::Refused(refusal) => {
            out.push(OUTCOME_REFUSED);
            put_refusal(out, *refusal);
        }
    }
}

fn take_reply(reader: &mut Reader) -> Result<Reply, DecodeError> {
    let session = SessionId(reader.u64()?);
    let sequence = Sequence(reader.u64()?);
    Ok(Reply { session, sequence, outcome: take_outcome(reader)? })
}

/// Reads an outcome.
pub(crate) fn take_outcome(reader: &mut Reader) -> Result<Outcome, DecodeError> {
    Ok(match reader.u8()? {
        OUTCOME_RESULT => {
            let length = reader.count("result", CLIENT_FRAME_BYTES_MAX, 1)?;
            let start = reader.position();
            reader.take(length)?;
            Outcome::Result(reader.since(start))
        }
        OUTCOME_RESULT_DIGEST => Outcome::ResultDigest(reader.digest()?),
        OUTCOME_REFUSED => Outcome::Refused(take_refusal(reader)?),
        _ => return Err(DecodeError::NonCanonical("unknown outcome")),
    })
}

/// A wait travels in whole microseconds, like every time.
fn put_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    out.push(match refusal {
        Refusal::Busy { .. } => 0,
        Refusal::TooFarAhead => 1,
        Refusal::SessionExpired => 2,
        Refusal::TooLarge => 3,
        Refusal::UnknownClient => 4,
        Refusal::OpenExpired => 5,
        Refusal::SessionsExhausted => 6,
        Refusal::BadSignature => 7,
        Refusal::Rejected => 8,
        Refusal::ResultTooLarge => 9,
        Refusal::SequenceReused => 10,
        Refusal::ResultDiscarded => 11,
    });
    if let Refusal::Busy { retry_after } = refusal {
        put_u64(out, u64::try_from(retry_after.as_micros()).unwrap_or(u64::MAX));
    }
}

fn take_refusal(reader: &mut Reader) -> Result<Refusal, DecodeError> {
    Ok(match reader.u8()? {
        0 => Refusal::Busy { retry_after: Duration::from_micros(reader.u64()?) },
        1 => Refusal::TooFarAhead,
        2 => Refusal::SessionExpired,
        3 => Refusal::TooLarge,
        4 => Refusal::UnknownClient,
        5 => Refusal::OpenExpired,
        6 => Refusal::SessionsExhausted,
        7 => Refusal::BadSignature,
        8 => Refusal::Rejected,
        9 => Refusal::ResultTooLarge,
        10 => Refusal::SequenceReused,
        11 => Refusal::ResultDiscarded,
        _ => return Err(DecodeError::NonCanonical("unknown refusal")),
    })
}
