//! The services that come with Regency: a counter, a null service for benchmarks, and an ordered key-value
//! store with a front that speaks the Redis protocol.
//!
//! Each service is a deterministic state machine behind [`regency::Service`]; its operations and answers have
//! a bounded binary form of their own, with typed constructors, so that a client never assembles bytes by hand.
#![forbid(unsafe_code)]

pub mod counter;
pub mod kv;
pub mod null;
pub mod redis;
