//! The bytes of one file of the faulty disk: what is durable, what readers see, and what lies between.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Random;

/// What the page cache writes at once.
const BLOCK_BYTES: usize = 4096;
const BLOCK_LENGTH: u64 = BLOCK_BYTES as u64;
/// What the disk writes in one piece.
const SECTOR_BYTES: usize = 512;
/// Versions of one block that may each survive a crash; a newer one takes the place of the newest beyond that.
const VERSIONS_MAX: usize = 4;

type Block = Arc<[u8; BLOCK_BYTES]>;

/// Bytes with holes that read as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) length: u64,
    blocks: BTreeMap<u64, Block>,
}

impl Content {
    /// Fills `buffer` from `offset` on, as far as there are bytes.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let Some(buffer) = buffer.get_mut(..count) else { return 0 };
        buffer.fill(0);
        let end = offset.saturating_add(count as u64);
        let (first, last) = (block_of(offset), end.div_ceil(BLOCK_LENGTH));
        for (number, block) in self.blocks.range(first..last.max(first)) {
            for_overlap(*number, offset, count, |inside, outside| {
                if let (Some(to), Some(from)) = (buffer.get_mut(outside), block.get(inside)) {
                    to.copy_from_slice(from);
                }
            });
        }
        count
    }

    /// Writes `bytes`; the length is the caller's matter.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for number in blocks_of(offset, bytes.len()) {
            let block = self.overlaid(number, offset, bytes);
            self.blocks.insert(number, block);
        }
    }

    /// A block with what `bytes` at `offset` change of it.
    fn overlaid(&self, number: u64, offset: u64, bytes: &[u8]) -> Block {
        let mut block = self.block(number);
        let content = Arc::make_mut(&mut block);
        for_overlap(number, offset, bytes.len(), |inside, outside| {
            if let (Some(to), Some(from)) = (content.get_mut(inside), bytes.get(outside)) {
                to.copy_from_slice(from);
            }
        });
        block
    }

    fn block(&self, number: u64) -> Block {
        self.blocks.get(&number).cloned().unwrap_or_else(|| Arc::new([0; BLOCK_BYTES]))
    }
}

/// A file as the disk has it and as readers see it.
#[derive(Debug, Default)]
pub(super) struct FileState {
    pub(super) durable: Content,
    pub(super) cache: Content,
    /// Blocks that were written since the last sync, each with all that it has been meanwhile.
    dirty: BTreeMap<u64, Vec<Block>>,
}

impl From<Content> for FileState {
    fn from(content: Content) -> Self {
        Self { durable: content.clone(), cache: content, dirty: BTreeMap::new() }
    }
}

impl FileState {
    /// Writes to the cache.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.cache.write(offset, bytes);
        for number in blocks_of(offset, bytes.len()) {
            let block = self.cache.block(number);
            self.mark_dirty(number, block);
        }
    }

    /// Lets bytes reach the disk at `offset` that readers do not see there.
    pub(super) fn misdirect(&mut self, offset: u64, bytes: &[u8]) {
        for number in blocks_of(offset, bytes.len()) {
            let block = self.durable.overlaid(number, offset, bytes);
            self.mark_dirty(number, block);
        }
    }

    /// Makes the cache durable.
    pub(super) fn sync(&mut self) {
        for (number, mut versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.pop() {
                self.durable.blocks.insert(number, newest);
            }
        }
        self.durable.length = self.cache.length;
    }

    /// A sync that fails: some blocks are durable, the rest will never be, and none counts as dirty any more.
    pub(super) fn lose_dirty(&mut self, random: &mut Random) {
        for (number, mut versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.pop().filter(|_| random(2) == 1) {
                self.durable.blocks.insert(number, newest);
            }
        }
    }

    /// What a power failure leaves.
    pub(super) fn crash(&mut self, random: &mut Random) {
        for (number, versions) in std::mem::take(&mut self.dirty) {
            let mut candidates = versions;
            candidates.push(self.durable.block(number));
            let pick = |random: &mut Random| {
                let index = usize::try_from(random(candidates.len() as u64)).unwrap_or(0);
                candidates.get(index).cloned().unwrap_or_else(|| Arc::new([0; BLOCK_BYTES]))
            };
            let mut left = pick(random);
            if random(2) == 1 {
                let other = pick(random);
                let sectors = random((BLOCK_BYTES / SECTOR_BYTES + 1) as u64);
                let from = usize::try_from(sectors).unwrap_or(0).saturating_mul(SECTOR_BYTES);
                if let (Some(to), Some(from)) = (Arc::make_mut(&mut left).get_mut(from..), other.get(from..))
                {
                    to.copy_from_slice(from);
                }
            }
            self.durable.blocks.insert(number, left);
        }
        if self.durable.length != self.cache.length && random(2) == 1 {
            self.durable.length = self.cache.length;
        }
        let length = self.durable.length;
        self.durable.blocks.split_off(&length.div_ceil(BLOCK_LENGTH));
        self.cache = self.durable.clone();
    }

    /// Flips bits wherever a byte is kept. False if there is no such byte.
    pub(super) fn rot(&mut self, offset: u64, mask: u8) -> bool {
        let mut byte = [0];
        if self.cache.read(offset, &mut byte) == 0 {
            return false;
        }
        let flipped = byte.map(|byte| byte ^ mask);
        self.cache.write(offset, &flipped);
        self.durable.write(offset, &flipped);
        true
    }

    fn mark_dirty(&mut self, number: u64, block: Block) {
        let versions = self.dirty.entry(number).or_default();
        if versions.len() >= VERSIONS_MAX {
            versions.pop();
        }
        versions.push(block);
    }
}

fn block_of(offset: u64) -> u64 {
    offset / BLOCK_LENGTH
}

/// The blocks that `length` bytes at `offset` touch.
fn blocks_of(offset: u64, length: usize) -> std::ops::Range<u64> {
    let end = offset.saturating_add(length as u64);
    if length == 0 { 0..0 } else { block_of(offset)..end.div_ceil(BLOCK_LENGTH) }
}

/// Calls `copy` with the range inside a block and the range inside `length` bytes at `offset` that are the same.
fn for_overlap(
    number: u64,
    offset: u64,
    length: usize,
    copy: impl FnOnce(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let begin = number.saturating_mul(BLOCK_LENGTH);
    let from = begin.max(offset);
    let to = begin.saturating_add(BLOCK_LENGTH).min(offset.saturating_add(length as u64));
    let size = |distance: u64| usize::try_from(distance).unwrap_or(usize::MAX);
    if from < to {
        let inside = size(from.saturating_sub(begin))..size(to.saturating_sub(begin));
        let outside = size(from.saturating_sub(offset))..size(to.saturating_sub(offset));
        copy(inside, outside);
    }
}
