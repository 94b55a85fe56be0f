//! What a replica writes into its own log, so that a crash takes nothing from it [VOTE-1, RECOVER-1].
//!
//! The core makes records and reads them again after a restart, in the order in which it made them; the shell
//! keeps them. A record that was made durable never comes back altered: damage is found by the log.

use std::sync::Arc;

pub use crate::amnesia::Bounds;
use crate::ids::{Digest, InstanceId, Regency, ViewId};
use crate::message::{Batch, ChainCertificate, CheckpointCertificate, Request, Vote};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The highest regency that this replica asked for; recorded before its STOP leaves [RECOVER-2].
    Stop {
        /// The view.
        view: ViewId,
        /// The regency.
        regency: Regency,
    },
    /// The regency that it installed; recorded before its STOPDATA leaves [STOP-3].
    Regency {
        /// The view.
        view: ViewId,
        /// The regency.
        regency: Regency,
    },
    /// A batch with all its bodies: before the first vote for it, or when it is decided.
    Batch(RecordedBatch),
    /// A WRITE.
    Write(Vote),
    /// An ACCEPT that is a lock.
    Lock(Vote),
    /// An ACCEPT for what was decided before, which is no lock.
    Confirm(Vote),
    /// An instance is decided and delivered; those of a log follow each other without a gap.
    Decided {
        /// The instance.
        instance: InstanceId,
        /// The digest of its batch, which a record before holds.
        digest: Digest,
        /// The chain at the instance.
        chain: Digest,
    },
    /// The highest chain certificate.
    Certificate(ChainCertificate),
    /// The highest stable checkpoint.
    Checkpoint(CheckpointCertificate),
    /// What votes of an earlier life, which are not on record, cannot have been for [RECOVER-2].
    Bounds(Bounds),
}

impl Record {
    /// The instance that it is about; `None` if it is about none.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        match self {
            Self::Batch(recorded) => Some(recorded.batch.instance),
            Self::Write(vote) | Self::Lock(vote) | Self::Confirm(vote) => Some(vote.instance),
            Self::Decided { instance, .. } => Some(*instance),
            Self::Stop { .. }
            | Self::Regency { .. }
            | Self::Certificate(_)
            | Self::Checkpoint(_)
            | Self::Bounds(_) => None,
        }
    }
}

/// A batch and its requests, in order. Proofs are left out: whoever votes for it has checked them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedBatch {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Its requests.
    pub requests: Vec<Arc<Request>>,
}

impl RecordedBatch {
    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.requests.iter().fold(64, |sum, request| sum.saturating_add(request.encoded().len()))
    }
}

/// How durable votes and operations are before they leave a replica [VOTE-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before a vote leaves: nothing that was acknowledged is lost, however many machines fail at once.
    Sync,
    /// Written, but not waited for: a crash of the process loses nothing, one of the machine does.
    Async,
    /// In memory only: a replica that stops has lost its votes.
    None,
}
