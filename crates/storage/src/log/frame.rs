//! One record on disk: a header that proves itself, and a chain hash that proves the record and all before it.
//!
//! The header's check tells whether a header was ever written by this replica for this segment; it is how recovery
//! finds out, behind a bad record, that a later commit group had begun. Its key holds the segment's salt, so that
//! no client can put bytes into a request that pass for a header. The chain hash covers header and payload and the
//! record before: checksum and order in one.

use bytes::{Buf, BufMut};
use regency_protocol::ids::LogPosition;

use super::segment::SegmentKey;
use crate::block::truncated;

/// Bytes before a payload.
pub(crate) const HEADER_BYTES: usize = 56;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// Bytes of a header that its check covers.
const CHECKED_BYTES: usize = 48;
const CHAIN_KEY: &[u8; 32] = b"regency 1 log chain.............";

/// The hash of a record and of all records before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 16]);

impl std::fmt::Display for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A record of the caller.
    Record,
    /// The log was closed in order: all before it is durable.
    Seal,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the payload.
    pub(crate) length: u32,
    pub(crate) kind: FrameKind,
    /// Whether its commit group ends here.
    pub(crate) is_last: bool,
    /// The record's number; a seal has the number of the record before it.
    pub(crate) position: LogPosition,
    /// The number of its commit group.
    pub(crate) commit: u64,
    /// Where in the segment it begins.
    pub(crate) offset: u64,
}

impl FrameHeader {
    /// The chain hash of this frame behind `previous`.
    pub(crate) fn chain(&self, previous: ChainHash, payload: &[u8]) -> ChainHash {
        let mut hasher = blake3::Hasher::new_keyed(CHAIN_KEY);
        hasher.update(&previous.0);
        hasher.update(&self.fields());
        hasher.update(payload);
        ChainHash(truncated(hasher.finalize()))
    }

    /// The header's bytes.
    pub(crate) fn encode(&self, chain: ChainHash, key: &SegmentKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(&self.fields());
        out.put_slice(&chain.0);
        let check = key.check(&out);
        out.put_slice(&check);
        out
    }

    /// The header and the chain hash at the beginning of `bytes`, if this segment's writer wrote one.
    pub(crate) fn decode(bytes: &[u8], key: &SegmentKey) -> Option<(Self, ChainHash)> {
        let (checked, rest) = bytes.split_first_chunk::<CHECKED_BYTES>()?;
        let (check, _) = rest.split_first_chunk::<8>()?;
        let mut fields = checked.as_slice();
        let length = fields.try_get_u32_le().ok()?;
        let kind = match fields.try_get_u8().ok()? {
            1 => FrameKind::Record,
            2 => FrameKind::Seal,
            _ => return None,
        };
        let is_last = match fields.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let reserved = fields.try_get_u16_le().ok()?;
        if reserved != 0 || key.check(checked) != *check {
            return None;
        }
        let position = LogPosition(fields.try_get_u64_le().ok()?);
        let commit = fields.try_get_u64_le().ok()?;
        let offset = fields.try_get_u64_le().ok()?;
        let (chain, _) = fields.split_first_chunk::<16>()?;
        Some((Self { length, kind, is_last, position, commit, offset }, ChainHash(*chain)))
    }

    /// Bytes from this header to the next one.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.length))
    }

    fn fields(&self) -> [u8; 32] {
        let mut fields = [0; 32];
        let mut out = fields.as_mut_slice();
        out.put_u32_le(self.length);
        out.put_u8(match self.kind {
            FrameKind::Record => 1,
            FrameKind::Seal => 2,
        });
        out.put_u8(u8::from(self.is_last));
        out.put_u16_le(0);
        out.put_u64_le(self.position.0);
        out.put_u64_le(self.commit);
        out.put_u64_le(self.offset);
        fields
    }
}

/// Bytes of a frame with a payload of `length`.
pub(crate) fn frame_bytes(length: u64) -> u64 {
    length.saturating_add(HEADER_BYTES as u64).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClusterId, ReplicaId};

    use super::*;
    use crate::Identity;

    fn key(segment: u64) -> SegmentKey {
        let identity = Identity { cluster: ClusterId([1; 32]), replica: ReplicaId(2) };
        SegmentKey::new(&identity, segment, &[3; 16])
    }

    fn header() -> FrameHeader {
        FrameHeader {
            length: 5,
            kind: FrameKind::Record,
            is_last: true,
            position: LogPosition(7),
            commit: 3,
            offset: 4096,
        }
    }

    #[test]
    fn a_header_is_read_back_in_its_own_segment_only() {
        let bytes = header().encode(ChainHash([9; 16]), &key(1));
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(FrameHeader::decode(&bytes, &key(1)), Some((header(), ChainHash([9; 16]))));
        assert_eq!(FrameHeader::decode(&bytes, &key(2)), None);
        assert_eq!(FrameHeader::decode(&bytes[..HEADER_BYTES - 1], &key(1)), None);
    }

    #[test]
    fn no_bit_of_a_header_can_change_unseen() {
        let bytes = header().encode(ChainHash([9; 16]), &key(1));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad, &key(1)), None, "bit {bit}");
        }
    }

    #[test]
    fn the_chain_depends_on_header_payload_and_what_was_before() {
        let chain = header().chain(ChainHash::default(), b"hello");
        assert_ne!(chain, header().chain(ChainHash([1; 16]), b"hello"));
        assert_ne!(chain, header().chain(ChainHash::default(), b"hellp"));
        let other = FrameHeader { commit: 4, ..header() };
        assert_ne!(chain, other.chain(ChainHash::default(), b"hello"));
    }
}
