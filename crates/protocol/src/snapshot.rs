//! The replica's own part of a snapshot: where it stands, and the session table [CKPT-1].
//!
//! The core freezes it together with the service's state; the shell encodes it in the background. Equal states give
//! equal bytes at every replica.

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::ids::{Digest, InstanceId, ViewId};
use crate::sessions::Sessions;
use crate::time::Timestamp;

/// A frozen place in the total order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The view of the instance.
    pub view: ViewId,
    /// The instance: it and all below are executed, nothing above is.
    pub instance: InstanceId,
    /// The chain at the instance.
    pub chain: Digest,
    /// Ordered time at the instance.
    pub timestamp: Timestamp,
    /// Which checkpoint it is, counted from 1.
    pub checkpoint: u64,
    /// The session table after the instance.
    pub(crate) sessions: Sessions,
}

impl SnapshotHead {
    /// Its bytes: equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::codec::snapshot_head(self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// Whatever is not exactly that.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        crate::codec::take_snapshot_head(bytes)
    }
}
