//! Authenticated channels between replicas, and between clients and replicas.
//!
//! TLS 1.3 with raw public keys on both sides ([`tls`]), length-prefixed frames ([`frame`]), one frame each way
//! that says who one is and to which cluster one belongs ([`handshake`]), and the non-blocking connection that puts
//! them together ([`link`]). Nothing here has a thread or a clock; an event loop owns the links.

mod counters;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod tls;

pub use counters::LinkCounters;
pub use frame::FrameError;
pub use handshake::{Answer, Hello, RefusalCode, Role};
pub use link::{FlushOutcome, Full, Link, LinkError, LinkLimits, ReadOutcome};
pub use tls::{TlsIdentity, TlsSetupError};
