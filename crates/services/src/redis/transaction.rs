//! What a connection has watched, and what it has queued since MULTI.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::CommandError;
use super::limits::{LOCAL_REPLY_BYTES_MAX, WATCHED_BYTES_MAX, WATCHED_KEYS_MAX};
use super::plan::Plan;
use super::render::Rendering;
use super::resp::{Protocol, RespWriter};
use crate::kv::limits::OPERATIONS_MAX;
use crate::kv::{Observed, Operation, Precondition, QueuedOperations};

/// Bytes of a precondition beyond its key, and of a transaction's frame, rounded up.
const OVERHEAD_BYTES: usize = 16;

/// The keys that the connection watches, as they were when it began to.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    keys: BTreeMap<Box<[u8]>, Observed>,
    bytes: usize,
}

impl Watched {
    /// Whether `keys` may be watched, too.
    pub(super) fn check(&self, keys: &[&[u8]]) -> Result<(), CommandError> {
        let bytes = keys.iter().map(|key| key.len() + OVERHEAD_BYTES).sum::<usize>();
        let fits =
            self.keys.len() + keys.len() <= WATCHED_KEYS_MAX && self.bytes + bytes <= WATCHED_BYTES_MAX;
        if fits { Ok(()) } else { Err(CommandError::TooManyWatched) }
    }

    /// Watches `key` from now; one that is watched already stays as it was.
    pub(super) fn add(&mut self, key: Box<[u8]>, observed: Observed) {
        let bytes = key.len() + OVERHEAD_BYTES;
        self.keys.entry(key).or_insert_with(|| {
            self.bytes += bytes;
            observed
        });
    }
}

/// The commands since MULTI.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    operations: QueuedOperations,
    plan: Plan,
    /// Whether a command was refused: then EXEC executes none.
    is_broken: bool,
}

impl Queue {
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    pub(super) fn refuse(&mut self) {
        self.is_broken = true;
    }

    /// Queues an operation.
    pub(super) fn push(
        &mut self,
        operation: &Operation<'_>,
        rendering: Rendering,
        watched: &Watched,
        request_bytes_max: usize,
    ) -> Result<(), CommandError> {
        let room = request_bytes_max.saturating_sub(watched.bytes + OVERHEAD_BYTES);
        if self.plan.len() >= OPERATIONS_MAX || !self.operations.push(operation, room) {
            return Err(CommandError::TransactionTooLarge(request_bytes_max));
        }
        self.plan.ask(rendering);
        Ok(())
    }

    /// Queues a reply that the front gives itself.
    pub(super) fn reply(
        &mut self,
        protocol: Protocol,
        write: impl FnOnce(&mut RespWriter<'_>),
    ) -> Result<(), CommandError> {
        if self.plan.len() >= OPERATIONS_MAX || self.plan.ready_bytes() > LOCAL_REPLY_BYTES_MAX {
            return Err(CommandError::TransactionTooLarge(LOCAL_REPLY_BYTES_MAX));
        }
        self.plan.reply(protocol, write);
        Ok(())
    }

    /// The request that executes it, and what is to be answered then; no request if the front can do so alone.
    pub(super) fn finish(self, watched: &Watched) -> (Option<Bytes>, Plan) {
        if self.operations.count() == 0 && watched.keys.is_empty() {
            return (None, self.plan);
        }
        let preconditions =
            watched.keys.iter().map(|(key, observed)| Precondition { key, observed: *observed });
        (Some(self.operations.transaction(preconditions)), self.plan)
    }
}
