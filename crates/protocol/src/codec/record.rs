//! Records of a replica's own log.

use std::sync::Arc;

use bytes::Bytes;

use super::peer::{
    put_batch, put_certificate, put_checkpoint, put_vote, take_batch, take_certificate, take_checkpoint,
    take_vote,
};
use super::reader::Reader;
use super::request::take_request;
use super::{DecodeError, Wire, put_header, put_u64};
use crate::ids::{InstanceId, Regency, ViewId};
use crate::limits::LONG_MESSAGE_BYTES_MAX;
use crate::record::{Bounds, Record, RecordedBatch};

const STOP: u8 = 1;
const REGENCY: u8 = 2;
const BATCH: u8 = 3;
const WRITE: u8 = 4;
const LOCK: u8 = 5;
const CONFIRM: u8 = 6;
const DECIDED: u8 = 7;
const CERTIFICATE: u8 = 8;
const CHECKPOINT: u8 = 9;
const BOUNDS: u8 = 10;

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stop { view, regency } => put_regency(out, STOP, *view, *regency),
            Self::Regency { view, regency } => put_regency(out, REGENCY, *view, *regency),
            Self::Batch(recorded) => {
                put_header(out, BATCH);
                put_recorded(out, recorded);
            }
            Self::Write(vote) => {
                put_header(out, WRITE);
                put_vote(out, vote);
            }
            Self::Lock(vote) => {
                put_header(out, LOCK);
                put_vote(out, vote);
            }
            Self::Confirm(vote) => {
                put_header(out, CONFIRM);
                put_vote(out, vote);
            }
            Self::Decided { instance, digest, chain } => {
                put_header(out, DECIDED);
                put_u64(out, instance.0);
                out.extend_from_slice(&digest.0);
                out.extend_from_slice(&chain.0);
            }
            Self::Certificate(certificate) => {
                put_header(out, CERTIFICATE);
                put_certificate(out, certificate);
            }
            Self::Checkpoint(certificate) => {
                put_header(out, CHECKPOINT);
                put_checkpoint(out, certificate);
            }
            Self::Bounds(bounds) => {
                put_header(out, BOUNDS);
                put_u64(out, bounds.instance.0);
                put_u64(out, bounds.regency.0);
            }
        }
    }

    fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(frame, LONG_MESSAGE_BYTES_MAX)?;
        let record = match reader.u8()? {
            STOP => Self::Stop { view: ViewId(reader.u64()?), regency: Regency(reader.u64()?) },
            REGENCY => Self::Regency { view: ViewId(reader.u64()?), regency: Regency(reader.u64()?) },
            BATCH => Self::Batch(take_recorded(&mut reader)?),
            WRITE => Self::Write(take_vote(&mut reader)?),
            LOCK => Self::Lock(take_vote(&mut reader)?),
            CONFIRM => Self::Confirm(take_vote(&mut reader)?),
            DECIDED => Self::Decided {
                instance: InstanceId(reader.u64()?),
                digest: reader.digest()?,
                chain: reader.digest()?,
            },
            CERTIFICATE => Self::Certificate(take_certificate(&mut reader)?),
            CHECKPOINT => Self::Checkpoint(take_checkpoint(&mut reader)?),
            BOUNDS => {
                Self::Bounds(Bounds { instance: InstanceId(reader.u64()?), regency: Regency(reader.u64()?) })
            }
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.close()?;
        Ok(record)
    }
}

fn put_regency(out: &mut Vec<u8>, kind: u8, view: ViewId, regency: Regency) {
    put_header(out, kind);
    put_u64(out, view.0);
    put_u64(out, regency.0);
}

pub(super) fn put_recorded(out: &mut Vec<u8>, recorded: &RecordedBatch) {
    put_batch(out, &recorded.batch);
    // There are as many as the batch names.
    recorded.requests.iter().for_each(|request| out.extend_from_slice(request.encoded()));
}

pub(super) fn take_recorded(reader: &mut Reader) -> Result<RecordedBatch, DecodeError> {
    let batch = take_batch(reader)?;
    let mut requests = Vec::with_capacity(batch.requests.len());
    for digest in &batch.requests {
        let request = Arc::new(take_request(reader)?);
        if request.digest() != *digest {
            return Err(DecodeError::NonCanonical("a request that its batch does not name"));
        }
        requests.push(request);
    }
    Ok(RecordedBatch { batch, requests })
}
