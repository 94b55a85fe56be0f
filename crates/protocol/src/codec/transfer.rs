//! Questions to donors, and what they send [ST-3].

use super::peer::{put_checkpoint, put_digests, take_checkpoint};
use super::reader::Reader;
use super::record::{put_recorded, take_recorded};
use super::{DecodeError, put_count, put_u64};
use crate::ids::{Digest, InstanceId, ViewId};
use crate::limits::{DIGESTS_MAX, RANGE_MAX};
use crate::manifest::{CHUNK_BYTES_MAX, Chunk, ManifestHead, PAGE_CHUNKS, PAGES_MAX};
use crate::message::{Supply, Wanted};

const DIGESTS: u8 = 1;
const BATCHES: u8 = 2;
const SNAPSHOT: u8 = 3;
const PAGE: u8 = 4;
const CHUNK: u8 = 5;
const NOTHING: u8 = 6;

/// The fewest bytes of a batch: view, instance, timestamp and a count.
const BATCH_BYTES_MIN: usize = 8 + 8 + 8 + 4;

pub(super) fn put_wanted(out: &mut Vec<u8>, wanted: &Wanted) {
    match wanted {
        Wanted::Digests { view, from, last } => put_range(out, DIGESTS, *view, *from, *last),
        Wanted::Batches { view, from, last } => put_range(out, BATCHES, *view, *from, *last),
        Wanted::Snapshot { view, above } => {
            out.push(SNAPSHOT);
            put_u64(out, view.0);
            put_u64(out, above.0);
        }
        Wanted::Page { instance, root, page } => put_part(out, PAGE, *instance, root, *page),
        Wanted::Chunk { instance, root, index } => put_part(out, CHUNK, *instance, root, *index),
    }
}

pub(super) fn take_wanted(reader: &mut Reader) -> Result<Wanted, DecodeError> {
    Ok(match reader.u8()? {
        DIGESTS => {
            let (view, from, last) = take_range(reader)?;
            Wanted::Digests { view, from, last }
        }
        BATCHES => {
            let (view, from, last) = take_range(reader)?;
            Wanted::Batches { view, from, last }
        }
        SNAPSHOT => Wanted::Snapshot { view: ViewId(reader.u64()?), above: InstanceId(reader.u64()?) },
        PAGE => {
            let (instance, root, page) = take_part(reader)?;
            Wanted::Page { instance, root, page }
        }
        CHUNK => {
            let (instance, root, index) = take_part(reader)?;
            Wanted::Chunk { instance, root, index }
        }
        other => return Err(DecodeError::UnknownKind(other)),
    })
}

pub(super) fn put_supply(out: &mut Vec<u8>, supply: &Supply) {
    match supply {
        Supply::Digests { from, digests } => {
            out.push(DIGESTS);
            put_u64(out, from.0);
            put_digests(out, digests);
        }
        Supply::Batches(batches) => {
            out.push(BATCHES);
            put_count(out, batches.len());
            batches.iter().for_each(|recorded| put_recorded(out, recorded));
        }
        Supply::Snapshot { certificate, head } => {
            out.push(SNAPSHOT);
            put_checkpoint(out, certificate);
            put_u64(out, head.chunks);
            put_u64(out, head.total_bytes);
            put_digests(out, &head.pages);
        }
        Supply::Page { instance, page, chunks } => {
            out.push(PAGE);
            put_u64(out, instance.0);
            out.extend_from_slice(&page.to_le_bytes());
            put_count(out, chunks.len());
            for chunk in chunks {
                out.extend_from_slice(&chunk.length.to_le_bytes());
                out.extend_from_slice(&chunk.hash.0);
            }
        }
        Supply::Chunk { instance, index, bytes } => {
            out.push(CHUNK);
            put_u64(out, instance.0);
            out.extend_from_slice(&index.to_le_bytes());
            put_count(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        Supply::Nothing(wanted) => {
            out.push(NOTHING);
            put_wanted(out, wanted);
        }
    }
}

pub(super) fn take_supply(reader: &mut Reader) -> Result<Supply, DecodeError> {
    Ok(match reader.u8()? {
        DIGESTS => Supply::Digests {
            from: InstanceId(reader.u64()?),
            digests: reader.digests("digests of batches", DIGESTS_MAX)?,
        },
        BATCHES => {
            let most = usize::try_from(RANGE_MAX).unwrap_or(usize::MAX);
            let count = reader.count("batches", most, BATCH_BYTES_MIN)?;
            Supply::Batches((0..count).map(|_| take_recorded(reader)).collect::<Result<_, _>>()?)
        }
        SNAPSHOT => Supply::Snapshot {
            certificate: take_checkpoint(reader)?,
            head: ManifestHead {
                chunks: reader.u64()?,
                total_bytes: reader.u64()?,
                pages: reader.digests("pages of a manifest", PAGES_MAX)?,
            },
        },
        PAGE => {
            let (instance, page) = (InstanceId(reader.u64()?), reader.u32()?);
            let count = reader.count("chunks of a page", PAGE_CHUNKS, 4 + 32)?;
            let chunks = (0..count).map(|_| Ok(Chunk { length: reader.u32()?, hash: reader.digest()? }));
            Supply::Page { instance, page, chunks: chunks.collect::<Result<_, DecodeError>>()? }
        }
        CHUNK => {
            let (instance, index) = (InstanceId(reader.u64()?), reader.u32()?);
            let length = reader.count("bytes of a chunk", CHUNK_BYTES_MAX, 1)?;
            let start = reader.position();
            reader.take(length)?;
            Supply::Chunk { instance, index, bytes: reader.since(start) }
        }
        NOTHING => Supply::Nothing(take_wanted(reader)?),
        other => return Err(DecodeError::UnknownKind(other)),
    })
}

fn put_range(out: &mut Vec<u8>, kind: u8, view: ViewId, from: InstanceId, last: InstanceId) {
    out.push(kind);
    put_u64(out, view.0);
    put_u64(out, from.0);
    put_u64(out, last.0);
}

fn take_range(reader: &mut Reader) -> Result<(ViewId, InstanceId, InstanceId), DecodeError> {
    Ok((ViewId(reader.u64()?), InstanceId(reader.u64()?), InstanceId(reader.u64()?)))
}

fn put_part(out: &mut Vec<u8>, kind: u8, instance: InstanceId, root: &Digest, number: u32) {
    out.push(kind);
    put_u64(out, instance.0);
    out.extend_from_slice(&root.0);
    out.extend_from_slice(&number.to_le_bytes());
}

fn take_part(reader: &mut Reader) -> Result<(InstanceId, Digest, u32), DecodeError> {
    Ok((InstanceId(reader.u64()?), reader.digest()?, reader.u32()?))
}
