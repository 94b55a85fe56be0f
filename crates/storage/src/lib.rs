//! What a replica keeps on disk, so that it never votes twice and loses nothing that was acknowledged.
//!
//! An append-only [log] of opaque records, a store of [snapshots], a [scrub] of both, and the marks of the [directory]
//! that say whose it is and whether votes may have been lost. All of it stands on the small [`Disk`] trait: real files or a simulated
//! disk with faults. The caller's thread does the work; there is no async, no clock, no randomness.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

mod block;
pub mod chunks;
pub mod directory;
mod disk;
mod error;
mod faulty_disk;
pub mod log;
mod real_disk;
pub mod scrub;
pub mod snapshots;

pub use disk::{Disk, DiskFile};
pub use error::{DiskOperation, StorageError, TransferRefusal};
pub use faulty_disk::{DiskImage, Fault, FaultyDisk, Random};
pub use real_disk::RealDisk;
pub use regency_protocol::ids::LogPosition;
pub use regency_protocol::manifest;

use regency_protocol::ids::{ClusterId, ReplicaId};

/// Whose files these are; stands in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The replica.
    pub replica: ReplicaId,
}
