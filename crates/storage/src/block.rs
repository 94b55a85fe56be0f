//! The frame that every small file and every file header shares: magic, format version, content, checksum.
//!
//! Its first twelve bytes and its last sixteen mean the same in every format version, so that an older program can
//! tell a newer file from a damaged one.

use std::io;

use bytes::{Buf, BufMut};
use regency_protocol::ids::{ClusterId, ReplicaId};

use crate::Identity;
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};

/// The format version of all files that this program writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;
const CHECKSUM_KEY: &[u8; 32] = b"regency 1 file checksum.........";

/// A block of `length` bytes: `magic`, version, identity, `content`, zeros, checksum.
pub(crate) fn seal(magic: &[u8; 8], identity: &Identity, content: &[u8], length: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(length);
    block.put_slice(magic);
    block.put_u32_le(FORMAT_VERSION);
    block.put_slice(&identity.cluster.0);
    block.put_u16_le(identity.replica.0);
    block.put_slice(content);
    let body = length.saturating_sub(CHECKSUM_BYTES);
    assert!(block.len() <= body, "a block's content fits its length");
    block.resize(body, 0);
    let checksum = checksum(&block);
    block.put_slice(&checksum);
    block
}

/// Why a block was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not what was written.
    Damaged,
    /// Well written, but not for this reader.
    Foreign(StorageError),
}

/// The content of a block that `seal` made for this identity, with the zeros behind it.
pub(crate) fn open<'a>(
    magic: &[u8; 8],
    identity: &Identity,
    block: &'a [u8],
    file: &str,
) -> Result<&'a [u8], Refusal> {
    let (mut body, found) = block.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Refusal::Damaged)?;
    if checksum(body) != *found {
        return Err(Refusal::Damaged);
    }
    body = body.strip_prefix(magic.as_slice()).ok_or(Refusal::Damaged)?;
    let version = body.try_get_u32_le().map_err(|_| Refusal::Damaged)?;
    if version != FORMAT_VERSION {
        let file = file.to_owned();
        return Err(Refusal::Foreign(StorageError::Version { file, found: version, known: FORMAT_VERSION }));
    }
    let (cluster, mut body) = body.split_first_chunk::<32>().ok_or(Refusal::Damaged)?;
    let replica = ReplicaId(body.try_get_u16_le().map_err(|_| Refusal::Damaged)?);
    let (cluster, file) = (ClusterId(*cluster), file.to_owned());
    if cluster != identity.cluster {
        return Err(Refusal::Foreign(StorageError::WrongCluster { file, found: cluster }));
    }
    if replica != identity.replica {
        return Err(Refusal::Foreign(StorageError::WrongReplica { file, found: replica }));
    }
    Ok(body)
}

/// Writes a small file so that after a crash it is there in full, or the one before is.
pub(crate) fn replace_file(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let draft = format!("{name}.draft");
    let mut file = disk.create(&draft).on(DiskOperation::Create, &draft)?;
    file.write_at(0, bytes).on(DiskOperation::Write, &draft)?;
    file.sync().on(DiskOperation::Sync, &draft)?;
    disk.rename(&draft, name).on(DiskOperation::Rename, &draft)?;
    disk.sync_directory().on(DiskOperation::SyncDirectory, name)
}

/// Reads a small file; nothing if there is none, and at most `limit` bytes.
pub(crate) fn read_file(disk: &dyn Disk, name: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.on(DiskOperation::Open, name)?,
    };
    let mut bytes = vec![0; limit];
    let count = file.read_at(0, &mut bytes).on(DiskOperation::Read, name)?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    truncated(blake3::keyed_hash(CHECKSUM_KEY, bytes))
}

/// The first bytes of a hash.
pub(crate) fn truncated<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    let mut short = [0; N];
    for (to, from) in short.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"rgntest1";

    fn identity() -> Identity {
        Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(3) }
    }

    #[test]
    fn what_was_sealed_opens_for_its_owner_only() {
        let block = seal(MAGIC, &identity(), b"content", 128);
        assert_eq!(block.len(), 128);
        assert!(open(MAGIC, &identity(), &block, "x").unwrap().starts_with(b"content\0"));
        assert_eq!(open(b"rgntest2", &identity(), &block, "x"), Err(Refusal::Damaged));
        let other = Identity { cluster: ClusterId([8; 32]), ..identity() };
        assert!(matches!(
            open(MAGIC, &other, &block, "x"),
            Err(Refusal::Foreign(StorageError::WrongCluster { .. }))
        ));
        let other = Identity { replica: ReplicaId(4), ..identity() };
        assert!(matches!(
            open(MAGIC, &other, &block, "x"),
            Err(Refusal::Foreign(StorageError::WrongReplica { .. }))
        ));
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_noticed() {
        let block = seal(MAGIC, &identity(), b"content", 128);
        for bit in 0..block.len() * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(MAGIC, &identity(), &bad, "x"), Err(Refusal::Damaged));
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut block = seal(MAGIC, &identity(), b"content", 128);
        block[8] = 2;
        let body = block.len() - CHECKSUM_BYTES;
        let sum = checksum(&block[..body]);
        block[body..].copy_from_slice(&sum);
        let refused = open(MAGIC, &identity(), &block, "x");
        assert_eq!(
            refused,
            Err(Refusal::Foreign(StorageError::Version { file: "x".into(), found: 2, known: 1 }))
        );
    }
}
