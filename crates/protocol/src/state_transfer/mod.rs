//! Collaborative state transfer: a replica that misses more than its peers keep in memory is repaired by several of
//! them at once, none of which is believed [ST-1 to ST-4].
//!
//! The walk in `replica/transfer.rs` owns it. What comes is checked here against a certificate before it is used:
//! digests against the certified chain, a table of contents against the certified root, chunks against that.

pub mod donation;
pub(crate) mod donors;
pub(crate) mod log_fetch;
pub(crate) mod requester;
pub(crate) mod snapshot_fetch;
pub mod wanted;
