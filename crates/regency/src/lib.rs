//! Byzantine fault-tolerant state machine replication.
//!
//! Implement [`Service`], a deterministic state machine; run it on `n >= 3f + 1` machines as a [`Replica`]; call it
//! through a [`Client`]. Up to `f` replicas may fail, or lie, and every client still sees one service that executes
//! each operation once, in one order.
//!
//! ```
//! use std::io::Read;
//!
//! use regency::{Bytes, Client, Context, Frozen, LocalCluster, RestoreError, Service, Snapshot};
//!
//! struct Counter(i64);
//!
//! impl Service for Counter {
//!     fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
//!         self.0 += operation.try_into().map_or(0, i64::from_le_bytes);
//!         Bytes::copy_from_slice(&self.0.to_le_bytes())
//!     }
//!
//!     fn snapshot(&self) -> Box<dyn Snapshot> {
//!         Frozen::image(self.0.to_le_bytes())
//!     }
//!
//!     fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
//!         self.0 = i64::from_le_bytes(Frozen::read(source)?);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Four replicas in this process; `regency init` and `regency replica` run them on hosts of their own.
//! let cluster = LocalCluster::start(|| Counter(0))?;
//! let client = Client::connect(cluster.client()).await?;
//! let sum = client.invoke(42_i64.to_le_bytes().to_vec()).await?;
//! assert_eq!(sum, 42_i64.to_le_bytes()[..]);
//! # Ok(())
//! # }
//! ```

mod admin;
pub mod client;
pub mod config;
pub mod crypto;
pub mod failure;
pub mod keys;
pub mod local;
pub mod logging;
pub mod metrics;
pub mod replica;
pub mod service;
pub mod snapshot;
pub mod transport;

pub use bytes::Bytes;
pub use client::{Client, ClientConfig, ClientError};
pub use failure::{ErrorCode, ExitStatus, Failure};
pub use local::{LocalCluster, LocalPlan};
pub use regency_protocol as protocol;
pub use replica::{Replica, ReplicaHandle};
pub use service::{Context, Operation, Service, Validator};
pub use snapshot::{Frozen, RestoreError, Snapshot};

/// The README's example is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
