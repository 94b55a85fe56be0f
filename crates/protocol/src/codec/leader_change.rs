//! The long messages of a leader change, and the bytes that their signatures cover.

use std::sync::Arc;

use super::peer::{put_certificate, take_certificate};
use super::reader::Reader;
use super::{DecodeError, put_count, put_u64};
use crate::ids::{InstanceId, Regency, ReplicaId, ViewId};
use crate::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
use crate::leader_change::sync::Sync;
use crate::limits::{MEMBERS_MAX, SPAN_LIMIT, WRITE_SET_MAX};

/// Bytes of a claim about nothing: instance, kind of lock, count.
const CLAIM_BYTES_MIN: usize = 8 + 1 + 4;
/// Bytes of an epoch and a digest.
const VOTE_BYTES: usize = 8 + 32;
/// Bytes of a statement without base and claims: sender, view, regency, no base, count, signature.
const STOP_DATA_BYTES_MIN: usize = 2 + 8 + 8 + 1 + 4 + 64;
/// Members' statements in a SYNC: one each; the core refuses what stands twice.
const SET_MAX: usize = MEMBERS_MAX;

pub(super) fn put_stop_data(out: &mut Vec<u8>, stated: &SignedStopData) {
    out.extend_from_slice(&stated.sender.0.to_le_bytes());
    put_u64(out, stated.data.view.0);
    put_u64(out, stated.data.regency.0);
    put_content(out, &stated.data);
    out.extend_from_slice(&stated.signature.0);
}

pub(super) fn take_stop_data(reader: &mut Reader) -> Result<SignedStopData, DecodeError> {
    let sender = ReplicaId(reader.u16()?);
    let (view, regency) = (ViewId(reader.u64()?), Regency(reader.u64()?));
    let base = match reader.bool()? {
        true => Some(take_certificate(reader)?),
        false => None,
    };
    let claims_max = usize::try_from(SPAN_LIMIT).unwrap_or(usize::MAX);
    let count = reader.count("claims of a STOPDATA", claims_max, CLAIM_BYTES_MIN)?;
    let claims = (0..count).map(|_| take_claim(reader)).collect::<Result<_, _>>()?;
    let data = Arc::new(StopData { view, regency, base, claims });
    Ok(SignedStopData { sender, data, signature: reader.signature()? })
}

pub(super) fn put_sync(out: &mut Vec<u8>, sync: &Sync) {
    put_u64(out, sync.view.0);
    put_u64(out, sync.regency.0);
    put_sync_content(out, sync);
    out.extend_from_slice(&sync.signature.0);
}

pub(super) fn take_sync(reader: &mut Reader) -> Result<Sync, DecodeError> {
    let (view, regency) = (ViewId(reader.u64()?), Regency(reader.u64()?));
    let count = reader.count("statements of a SYNC", SET_MAX, STOP_DATA_BYTES_MIN)?;
    let set = (0..count).map(|_| take_stop_data(reader)).collect::<Result<_, _>>()?;
    let results_max = usize::try_from(SPAN_LIMIT).unwrap_or(usize::MAX);
    let count = reader.count("results of a SYNC", results_max, VOTE_BYTES)?;
    let mut results = Vec::with_capacity(count);
    for _ in 0..count {
        results.push((InstanceId(reader.u64()?), reader.digest()?));
    }
    Ok(Sync { view, regency, set, results, signature: reader.signature()? })
}

/// What the signature of a STOPDATA covers beside view and regency: base and claims.
pub(crate) fn stop_data_content(data: &StopData) -> Vec<u8> {
    let mut out = Vec::new();
    put_content(&mut out, data);
    out
}

/// What the signature of a SYNC covers beside view and regency: its set and results.
pub(crate) fn sync_content(sync: &Sync) -> Vec<u8> {
    let mut out = Vec::new();
    put_sync_content(&mut out, sync);
    out
}

fn put_content(out: &mut Vec<u8>, data: &StopData) {
    out.push(u8::from(data.base.is_some()));
    if let Some(base) = &data.base {
        put_certificate(out, base);
    }
    put_count(out, data.claims.len());
    data.claims.iter().for_each(|claim| put_claim(out, claim));
}

fn put_sync_content(out: &mut Vec<u8>, sync: &Sync) {
    put_count(out, sync.set.len());
    sync.set.iter().for_each(|stated| put_stop_data(out, stated));
    put_count(out, sync.results.len());
    for (instance, digest) in &sync.results {
        put_u64(out, instance.0);
        out.extend_from_slice(&digest.0);
    }
}

fn put_claim(out: &mut Vec<u8>, claim: &Claim) {
    put_u64(out, claim.instance.0);
    match claim.lock {
        Lock::None => out.push(0),
        Lock::At { epoch, digest } => {
            out.push(1);
            put_u64(out, epoch.0);
            out.extend_from_slice(&digest.0);
        }
    }
    put_count(out, claim.write_set.len());
    for (epoch, digest) in &claim.write_set {
        put_u64(out, epoch.0);
        out.extend_from_slice(&digest.0);
    }
}

fn take_claim(reader: &mut Reader) -> Result<Claim, DecodeError> {
    let instance = InstanceId(reader.u64()?);
    let lock = match reader.bool()? {
        true => Lock::At { epoch: Regency(reader.u64()?), digest: reader.digest()? },
        false => Lock::None,
    };
    let count = reader.count("a write set", WRITE_SET_MAX, VOTE_BYTES)?;
    let mut write_set = Vec::with_capacity(count);
    for _ in 0..count {
        write_set.push((Regency(reader.u64()?), reader.digest()?));
    }
    Ok(Claim { instance, lock, write_set })
}
