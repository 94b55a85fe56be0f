//! Cuts a stream of bytes where its content says so, so that what is inserted or removed moves few boundaries.
//!
//! A rolling hash over the last 64 bytes decides (gear hashing): a boundary depends on what stands before it and on
//! nothing further back than the boundary before. Lengths, table and masks are part of the format: all replicas cut
//! the same bytes at the same places.

/// The shortest chunk, but for the last one of a snapshot.
pub const CHUNK_BYTES_MIN: usize = 64 << 10;
/// Where boundaries become more likely.
const CHUNK_BYTES_USUAL: usize = 256 << 10;
pub use regency_protocol::manifest::CHUNK_BYTES_MAX;
/// Bytes that the rolling hash remembers.
const WINDOW_BYTES: usize = 64;

/// One boundary in 2^20 bytes below the usual length, one in 2^16 above: most chunks end near it.
const MASK_BELOW: u64 = !(u64::MAX >> 20);
const MASK_ABOVE: u64 = !(u64::MAX >> 16);

/// A random number for each byte.
const GEAR: [u64; 256] = gear();

/// Finds the boundaries of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunker {
    /// Bytes of the chunk so far.
    length: usize,
    hash: u64,
}

impl Chunker {
    /// How many of the next bytes belong to this chunk, and whether it ends with them.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        // No boundary lies in the first bytes; the hash needs to see only the last of them.
        let blind = CHUNK_BYTES_MIN.saturating_sub(WINDOW_BYTES).saturating_sub(self.length).min(bytes.len());
        let mut length = self.length.saturating_add(blind);
        let mut hash = self.hash;
        for (index, byte) in bytes.iter().enumerate().skip(blind) {
            hash = (hash << 1).wrapping_add(GEAR.get(usize::from(*byte)).copied().unwrap_or(0));
            length = length.saturating_add(1);
            let mask = if length < CHUNK_BYTES_USUAL { MASK_BELOW } else { MASK_ABOVE };
            if length >= CHUNK_BYTES_MAX || (length >= CHUNK_BYTES_MIN && hash & mask == 0) {
                *self = Self::default();
                return (index.saturating_add(1), true);
            }
        }
        *self = Self { length, hash };
        (bytes.len(), false)
    }
}

/// SplitMix64 from zero on.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut rest: &mut [u64] = &mut table;
    let mut state = 0u64;
    while let [first, others @ ..] = rest {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *first = mixed ^ (mixed >> 31);
        rest = others;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Bytes that do not repeat.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// The chunks of `bytes`, which arrive in pieces of `piece`.
    fn chunks(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::default();
        let (mut all, mut chunk) = (Vec::new(), Vec::new());
        for mut rest in bytes.chunks(piece) {
            while !rest.is_empty() {
                let (count, is_end) = chunker.take(rest);
                chunk.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
                if is_end {
                    all.push(std::mem::take(&mut chunk));
                }
            }
        }
        all.push(chunk);
        all
    }

    #[test]
    fn boundaries_do_not_depend_on_how_the_bytes_arrive() {
        let bytes = noise(5 << 20);
        let whole = chunks(&bytes, bytes.len());
        assert_eq!(whole.concat(), bytes);
        for piece in [1000, 4096, 65_536 + 1] {
            assert!(chunks(&bytes, piece) == whole);
        }
    }

    #[test]
    fn lengths_are_bounded_and_usually_near_the_middle() {
        let mut all = chunks(&noise(64 << 20), 1 << 20);
        all.pop();
        assert!(all.iter().all(|chunk| (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk.len())));
        let mean = (64 << 20) / all.len();
        assert!((200 << 10..400 << 10).contains(&mean), "{mean}");
        let zeros = chunks(&vec![0; 5 << 20], 1 << 20);
        assert!(zeros.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_only() {
        let bytes = noise(16 << 20);
        let mut longer = bytes.clone();
        longer.splice(8 << 20..8 << 20, *b"a few bytes more");
        let before: BTreeSet<_> = chunks(&bytes, 1 << 20).into_iter().collect();
        let after = chunks(&longer, 1 << 20);
        let changed = after.iter().filter(|chunk| !before.contains(*chunk)).count();
        assert!((1..=3).contains(&changed), "{changed} of {}", after.len());
    }
}
