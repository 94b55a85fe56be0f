//! Frames between replicas.

use std::sync::Arc;

use bytes::Bytes;

use super::leader_change::{put_stop_data, put_sync, take_stop_data, take_sync};
use super::reader::Reader;
use super::request::{put_bodies, take_bodies};
use super::transfer::{put_supply, put_wanted, take_supply, take_wanted};
use super::{DecodeError, Wire, put_count, put_header, put_u64};
use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
use crate::limits::{
    ANNOUNCE_MAX, BATCH_REQUESTS_LIMIT, FETCH_MAX, FORWARD_MAX, LONG_MESSAGE_BYTES_MAX, MEMBERS_MAX,
    PEER_FRAME_BYTES_MAX,
};
use crate::message::{
    Batch, BatchAnswer, ChainCertificate, ChainSignature, CheckpointCertificate, CheckpointSignature,
    Decided, FetchBatch, FetchBodies, Message, Propose, Recover, RecoverAnswer, Status, Stop, Vote,
};
use crate::time::Timestamp;

const PROPOSE: u8 = 1;
const WRITE: u8 = 2;
const ACCEPT: u8 = 3;
const DECIDED: u8 = 4;
const FETCH_BATCH: u8 = 5;
const BATCH_ANSWER: u8 = 6;
const FETCH_BODIES: u8 = 7;
const BODIES: u8 = 8;
const STATUS: u8 = 9;
const CHAIN_SIGNATURE: u8 = 10;
const CHAIN_CERTIFICATE: u8 = 11;
const STOP: u8 = 12;
const STOP_DATA: u8 = 13;
const SYNC: u8 = 14;
const FORWARD: u8 = 15;
const ANNOUNCE: u8 = 16;
const LACK: u8 = 17;
const ECHO: u8 = 18;
const CHECKPOINT_SIGNATURE: u8 = 20;
const CHECKPOINT_CERTIFICATE: u8 = 21;
const RECOVER: u8 = 22;
const RECOVER_ANSWER: u8 = 23;
const FETCH: u8 = 24;
const SUPPLY: u8 = 25;
/// No message: a piece of one.
pub(super) const PIECE: u8 = 19;

/// Whether messages of this kind may be longer than a frame; they travel in pieces then.
pub(super) fn is_long_kind(kind: u8) -> bool {
    matches!(kind, STOP_DATA | SYNC | SUPPLY)
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        put_header(out, kind(self));
        match self {
            Self::Propose(propose) => {
                put_u64(out, propose.regency.0);
                put_batch(out, &propose.batch);
                put_bodies(out, &propose.inline);
            }
            Self::Write(vote) | Self::Accept(vote) => put_vote(out, vote),
            Self::Decided(decided) => put_place(out, decided.view, decided.instance, &decided.digest),
            Self::FetchBatch(fetch) => put_place(out, fetch.view, fetch.instance, &fetch.digest),
            Self::BatchAnswer(answer) => {
                put_batch(out, &answer.batch);
                put_bodies(out, &answer.bodies);
            }
            Self::FetchBodies(fetch) => {
                put_u64(out, fetch.instance.0);
                put_digests(out, &fetch.requests);
            }
            Self::Bodies(bodies) => put_bodies(out, bodies),
            Self::Status(status) => put_status(out, status),
            Self::ChainSignature(signature) => {
                put_place(out, signature.view, signature.instance, &signature.chain);
                out.extend_from_slice(&signature.signature.0);
            }
            Self::ChainCertificate(certificate) => put_certificate(out, certificate),
            Self::CheckpointSignature(signed) => {
                put_place(out, signed.view, signed.instance, &signed.chain);
                out.extend_from_slice(&signed.root.0);
                out.extend_from_slice(&signed.signature.0);
            }
            Self::CheckpointCertificate(certificate) => put_checkpoint(out, certificate),
            Self::Recover(recover) => {
                put_u64(out, recover.view.0);
                put_u64(out, recover.nonce);
                out.push(u8::from(recover.is_relayed));
            }
            Self::RecoverAnswer(answer) => {
                put_u64(out, answer.view.0);
                put_u64(out, answer.nonce);
                put_u64(out, answer.highest.0);
                put_u64(out, answer.regency.0);
            }
            Self::Stop(stop) => {
                put_u64(out, stop.view.0);
                put_u64(out, stop.regency.0);
            }
            Self::StopData(stated) => put_stop_data(out, stated),
            Self::Sync(sync) => put_sync(out, sync),
            Self::Forward(bodies) => put_bodies(out, bodies),
            Self::Echo(sent) => put_u64(out, sent.0),
            Self::Announce(requests) | Self::Lack(requests) => put_digests(out, requests),
            Self::Fetch(wanted) => put_wanted(out, wanted),
            Self::Supply(supply) => put_supply(out, supply),
        }
    }

    fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let bytes_max = match frame.get(1) {
            Some(kind) if is_long_kind(*kind) => LONG_MESSAGE_BYTES_MAX,
            Some(_) | None => PEER_FRAME_BYTES_MAX,
        };
        let mut reader = Reader::open(frame, bytes_max)?;
        let message = match reader.u8()? {
            PROPOSE => Self::Propose(Propose {
                regency: Regency(reader.u64()?),
                batch: take_batch(&mut reader)?,
                inline: take_bodies(&mut reader, "inline bodies", BATCH_REQUESTS_LIMIT)?,
            }),
            WRITE => Self::Write(take_vote(&mut reader)?),
            ACCEPT => Self::Accept(take_vote(&mut reader)?),
            DECIDED => {
                let (view, instance, digest) = take_place(&mut reader)?;
                Self::Decided(Decided { view, instance, digest })
            }
            FETCH_BATCH => {
                let (view, instance, digest) = take_place(&mut reader)?;
                Self::FetchBatch(FetchBatch { view, instance, digest })
            }
            BATCH_ANSWER => Self::BatchAnswer(BatchAnswer {
                batch: take_batch(&mut reader)?,
                bodies: take_bodies(&mut reader, "bodies of a batch", BATCH_REQUESTS_LIMIT)?,
            }),
            FETCH_BODIES => Self::FetchBodies(FetchBodies {
                instance: InstanceId(reader.u64()?),
                requests: reader.digests("bodies asked for", FETCH_MAX)?,
            }),
            BODIES => Self::Bodies(take_bodies(&mut reader, "bodies", FETCH_MAX)?),
            STATUS => Self::Status(take_status(&mut reader)?),
            CHAIN_SIGNATURE => {
                let (view, instance, chain) = take_place(&mut reader)?;
                let signature = reader.signature()?;
                Self::ChainSignature(ChainSignature { view, instance, chain, signature })
            }
            CHAIN_CERTIFICATE => Self::ChainCertificate(take_certificate(&mut reader)?),
            CHECKPOINT_SIGNATURE => {
                let (view, instance, chain) = take_place(&mut reader)?;
                let (root, signature) = (reader.digest()?, reader.signature()?);
                Self::CheckpointSignature(CheckpointSignature { view, instance, chain, root, signature })
            }
            CHECKPOINT_CERTIFICATE => Self::CheckpointCertificate(take_checkpoint(&mut reader)?),
            RECOVER => Self::Recover(Recover {
                view: ViewId(reader.u64()?),
                nonce: reader.u64()?,
                is_relayed: reader.bool()?,
            }),
            RECOVER_ANSWER => Self::RecoverAnswer(RecoverAnswer {
                view: ViewId(reader.u64()?),
                nonce: reader.u64()?,
                highest: InstanceId(reader.u64()?),
                regency: Regency(reader.u64()?),
            }),
            STOP => Self::Stop(Stop { view: ViewId(reader.u64()?), regency: Regency(reader.u64()?) }),
            STOP_DATA => Self::StopData(take_stop_data(&mut reader)?),
            SYNC => Self::Sync(Arc::new(take_sync(&mut reader)?)),
            FORWARD => Self::Forward(take_bodies(&mut reader, "forwarded requests", FORWARD_MAX)?),
            ANNOUNCE => Self::Announce(reader.digests("announced requests", ANNOUNCE_MAX)?),
            ECHO => Self::Echo(Timestamp(reader.u64()?)),
            LACK => Self::Lack(reader.digests("lacked requests", ANNOUNCE_MAX)?),
            FETCH => Self::Fetch(take_wanted(&mut reader)?),
            SUPPLY => Self::Supply(take_supply(&mut reader)?),
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.close()?;
        Ok(message)
    }
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::Propose(_) => PROPOSE,
        Message::Write(_) => WRITE,
        Message::Accept(_) => ACCEPT,
        Message::Decided(_) => DECIDED,
        Message::FetchBatch(_) => FETCH_BATCH,
        Message::BatchAnswer(_) => BATCH_ANSWER,
        Message::FetchBodies(_) => FETCH_BODIES,
        Message::Bodies(_) => BODIES,
        Message::Status(_) => STATUS,
        Message::ChainSignature(_) => CHAIN_SIGNATURE,
        Message::ChainCertificate(_) => CHAIN_CERTIFICATE,
        Message::CheckpointSignature(_) => CHECKPOINT_SIGNATURE,
        Message::CheckpointCertificate(_) => CHECKPOINT_CERTIFICATE,
        Message::Recover(_) => RECOVER,
        Message::RecoverAnswer(_) => RECOVER_ANSWER,
        Message::Stop(_) => STOP,
        Message::StopData(_) => STOP_DATA,
        Message::Sync(_) => SYNC,
        Message::Forward(_) => FORWARD,
        Message::Announce(_) => ANNOUNCE,
        Message::Lack(_) => LACK,
        Message::Echo(_) => ECHO,
        Message::Fetch(_) => FETCH,
        Message::Supply(_) => SUPPLY,
    }
}

pub(super) fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) {
    put_count(out, digests.len());
    digests.iter().for_each(|digest| out.extend_from_slice(&digest.0));
}

pub(super) fn put_batch(out: &mut Vec<u8>, batch: &Batch) {
    put_u64(out, batch.view.0);
    put_u64(out, batch.instance.0);
    put_u64(out, batch.timestamp.0);
    put_digests(out, &batch.requests);
}

pub(super) fn take_batch(reader: &mut Reader) -> Result<Arc<Batch>, DecodeError> {
    Ok(Arc::new(Batch {
        view: ViewId(reader.u64()?),
        instance: InstanceId(reader.u64()?),
        timestamp: Timestamp(reader.u64()?),
        requests: reader.digests("requests of a batch", BATCH_REQUESTS_LIMIT)?,
    }))
}

pub(super) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    put_u64(out, vote.regency.0);
    put_place(out, vote.view, vote.instance, &vote.digest);
}

pub(super) fn take_vote(reader: &mut Reader) -> Result<Vote, DecodeError> {
    let regency = Regency(reader.u64()?);
    let (view, instance, digest) = take_place(reader)?;
    Ok(Vote { view, instance, regency, digest })
}

/// What a statement about one instance begins with.
fn put_place(out: &mut Vec<u8>, view: ViewId, instance: InstanceId, digest: &Digest) {
    put_u64(out, view.0);
    put_u64(out, instance.0);
    out.extend_from_slice(&digest.0);
}

fn take_place(reader: &mut Reader) -> Result<(ViewId, InstanceId, Digest), DecodeError> {
    Ok((ViewId(reader.u64()?), InstanceId(reader.u64()?), reader.digest()?))
}

fn put_status(out: &mut Vec<u8>, status: &Status) {
    put_u64(out, status.view.0);
    put_u64(out, status.regency.0);
    out.push(u8::from(status.is_live));
    put_u64(out, status.decided.0);
    put_u64(out, status.retained_from.0);
    put_u64(out, status.logged_from.0);
    put_u64(out, status.stable.0);
    put_u64(out, status.certified.0);
    put_u64(out, status.sent.0);
}

fn take_status(reader: &mut Reader) -> Result<Status, DecodeError> {
    Ok(Status {
        view: ViewId(reader.u64()?),
        regency: Regency(reader.u64()?),
        is_live: reader.bool()?,
        decided: InstanceId(reader.u64()?),
        retained_from: InstanceId(reader.u64()?),
        logged_from: InstanceId(reader.u64()?),
        stable: InstanceId(reader.u64()?),
        certified: InstanceId(reader.u64()?),
        sent: Timestamp(reader.u64()?),
    })
}

pub(super) fn put_certificate(out: &mut Vec<u8>, certificate: &ChainCertificate) {
    put_place(out, certificate.view, certificate.instance, &certificate.chain);
    put_signers(out, &certificate.signatures);
}

pub(super) fn put_checkpoint(out: &mut Vec<u8>, certificate: &CheckpointCertificate) {
    put_place(out, certificate.view, certificate.instance, &certificate.chain);
    out.extend_from_slice(&certificate.root.0);
    put_signers(out, &certificate.signatures);
}

fn put_signers(out: &mut Vec<u8>, signatures: &[(ReplicaId, Signature)]) {
    put_count(out, signatures.len());
    for (signer, signature) in signatures {
        out.extend_from_slice(&signer.0.to_le_bytes());
        out.extend_from_slice(&signature.0);
    }
}

pub(super) fn take_certificate(reader: &mut Reader) -> Result<ChainCertificate, DecodeError> {
    let (view, instance, chain) = take_place(reader)?;
    Ok(ChainCertificate { view, instance, chain, signatures: take_signers(reader)? })
}

pub(super) fn take_checkpoint(reader: &mut Reader) -> Result<CheckpointCertificate, DecodeError> {
    let (view, instance, chain) = take_place(reader)?;
    let root = reader.digest()?;
    Ok(CheckpointCertificate { view, instance, chain, root, signatures: take_signers(reader)? })
}

fn take_signers(reader: &mut Reader) -> Result<Vec<(ReplicaId, Signature)>, DecodeError> {
    let count = reader.count("signatures of a certificate", MEMBERS_MAX, 2 + 64)?;
    let mut signatures: Vec<(ReplicaId, Signature)> = Vec::with_capacity(count);
    for _ in 0..count {
        let signer = ReplicaId(reader.u16()?);
        if signatures.last().is_some_and(|(previous, _)| *previous >= signer) {
            return Err(DecodeError::NonCanonical("signers that are not sorted, or stand twice"));
        }
        signatures.push((signer, reader.signature()?));
    }
    Ok(signatures)
}
