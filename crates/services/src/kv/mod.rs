//! The ordered key-value store: keys in byte order, values, times to live, versions, transactions.
//!
//! A client sends a [`Request`], encoded by [`RequestWriter`] and ordered by the cluster; [`KvService`]
//! executes it on its [`Store`] and answers with a [`Reply`]. A request is either a *pipeline*, operations
//! executed in order that have nothing else to do with each other, or a *transaction*, operations executed
//! together if no key that the client had [observed](Operation::Observe) has changed since. [`KvClient`] does
//! this for one operation at a time.
//!
//! Time is ordered time: a key expires when an ordered request comes whose timestamp has reached its deadline,
//! at the same point of the order at every replica.

mod answer;
mod budget;
mod client;
mod codec;
mod image;
mod integer;
mod leaf;
pub mod limits;
mod map;
mod operation;
mod pattern;
mod record;
mod reply;
mod request;
mod separators;
mod service;
mod store;
mod tree;
#[cfg(test)]
mod tree_tests;
mod version;

pub use answer::{Answer, PageEntry, Refusal, TimeToLive};
pub use client::{KvClient, KvError, Page, Swap};
pub use codec::DecodeError;
pub use integer::parse_integer;
pub use operation::{Deadline, ExpireCondition, Operation, Put, PutCondition, PutExpiry, Scan};
pub use pattern::Pattern;
pub use reply::Reply;
pub use request::{Precondition, QueuedOperations, Request, RequestWriter};
pub use service::KvService;
pub use store::{Moment, Store};
pub use version::{Observed, Version};
