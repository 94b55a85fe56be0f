//! Byzantine fault-tolerant state machine replication.
//!
//! Implement [`Service`], run it on `n` machines, call it through a client.

mod admin;
pub mod client;
pub mod config;
pub mod crypto;
pub mod failure;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod replica;
pub mod service;
pub mod transport;

pub use bytes::Bytes;
pub use client::{Client, ClientConfig, ClientError};
pub use failure::{ErrorCode, ExitStatus, Failure};
pub use regency_protocol as protocol;
pub use replica::{Replica, ReplicaHandle};
pub use service::{Context, Operation, Service, Validator};

/// The README's example is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
