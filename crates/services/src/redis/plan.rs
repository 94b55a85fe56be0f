//! What a connection has promised to answer: replies that are there already and operations that are asked for,
//! in the order of the commands.

use std::collections::VecDeque;

use super::render::Rendering;
use super::resp::{Protocol, RespWriter};

/// The next thing to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// This many bytes of the replies that are there.
    Ready(usize),
    /// The answer to the next operation.
    Operation(Rendering),
}

/// Slots with the bytes of those that are ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    slots: VecDeque<Slot>,
    ready: Vec<u8>,
    /// Bytes of `ready` that have left.
    gone: usize,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Replies so far.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn ready_bytes(&self) -> usize {
        self.ready.len()
    }

    /// Promises a reply that is written now.
    pub(super) fn reply(&mut self, protocol: Protocol, write: impl FnOnce(&mut RespWriter<'_>)) {
        let before = self.ready.len();
        write(&mut RespWriter::new(&mut self.ready, protocol));
        self.slots.push_back(Slot::Ready(self.ready.len() - before));
    }

    /// Promises the answer to the operation that is asked for next.
    pub(super) fn ask(&mut self, rendering: Rendering) {
        self.slots.push_back(Slot::Operation(rendering));
    }

    /// What is to be answered now.
    pub(super) fn first(&self) -> Option<Slot> {
        self.slots.front().copied()
    }

    /// Takes the first slot, which has been answered; the bytes of one that was ready.
    pub(super) fn take(&mut self) -> &[u8] {
        let Some(slot) = self.slots.pop_front() else { return &[] };
        let start = self.gone;
        if let Slot::Ready(length) = slot {
            self.gone += length;
        }
        self.ready.get(start..self.gone).unwrap_or_default()
    }

    /// Forgets what has been answered, if that is all.
    pub(super) fn rest(&mut self) {
        if self.slots.is_empty() {
            self.ready.clear();
            self.gone = 0;
        }
    }
}
