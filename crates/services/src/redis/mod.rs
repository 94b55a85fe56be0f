//! A front that speaks the Redis protocol: a client of the cluster, a server to Redis clients.
//!
//! Every answer that depends on the store has a reply quorum of the cluster behind it. What a connection has sent
//! so far becomes one ordered request, so pipelining pays; MULTI … EXEC becomes one transaction, with the keys
//! that were watched as its preconditions. Times to live run in ordered time.
//!
//! What differs from Redis, on purpose: one database; strings only; keys, values and patterns are bounded by
//! [`kv::limits`](crate::kv::limits); a page of SCAN is in key order and a cursor is forgotten when many others
//! have come after it; a key that was absent when watched and is absent at EXEC counts as unchanged whatever
//! happened between; HELLO and AUTH are refused inside MULTI.

mod cluster;
mod command;
mod cursors;
mod error;
mod front;
mod front_command;
mod info;
pub mod limits;
mod parser;
mod plan;
mod render;
mod resp;
mod session;
#[cfg(test)]
mod session_tests;
mod shared;
mod transaction;
mod translate;

pub use cluster::Cluster;
pub use error::Unanswered;
pub use front::{Front, FrontError};
pub use parser::{Arguments, Parser, ParserLimits, ProtocolError};
pub use resp::Protocol;
pub use shared::{Options, Password, Stats};
