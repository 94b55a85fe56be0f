//! The bytes of every message: bounded, canonical, little-endian, written by hand.
//!
//! The transport and the simulator call it; nobody else knows the layout. The first byte of a frame is the
//! protocol's version, the second the kind. There is one encoding of each message: whatever decodes encodes
//! again to the same bytes. Every count is checked against [`limits`](crate::limits) and against the bytes
//! that are left before anything is allocated for it. What is hashed or signed is hashed as received.

mod client;
mod leader_change;
mod peer;
pub mod pieces;
pub(crate) mod reader;
mod record;
mod request;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;

use bytes::Bytes;
pub(crate) use client::{put_outcome, take_outcome};
pub(crate) use leader_change::{stop_data_content, sync_content};
pub(crate) use snapshot::{snapshot_head, take_snapshot_head};
use thiserror::Error;

/// The version of the protocol that this code speaks: the first byte of every frame.
pub const PROTOCOL_VERSION: u8 = 1;

/// What most messages fit in: votes, fetches, statements.
const SMALL_FRAME_BYTES: usize = 160;

/// A message with an encoding: what fills one frame, its length field left out.
pub trait Wire: Sized {
    /// Appends the message's bytes to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one message that fills `frame`; large payloads share the frame's memory.
    ///
    /// # Errors
    ///
    /// Whatever is not exactly the encoding of one message within the limits.
    fn decode(frame: Bytes) -> Result<Self, DecodeError>;

    /// The message's bytes alone.
    fn to_frame(&self) -> Bytes {
        let mut out = Vec::with_capacity(SMALL_FRAME_BYTES);
        self.encode(&mut out);
        Bytes::from(out)
    }
}

/// Why a frame is not a message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Another version of the protocol.
    #[error("protocol version {0} is not {PROTOCOL_VERSION}")]
    UnknownVersion(u8),
    /// A kind of message that does not exist in this direction.
    #[error("unknown message kind {0}")]
    UnknownKind(u8),
    /// It ends too early.
    #[error("truncated: {needed} bytes needed, {remaining} left")]
    Truncated {
        /// How many the next field takes, or all announced items take at least.
        needed: usize,
        /// How many there are.
        remaining: usize,
    },
    /// It goes on after the message's end.
    #[error("{0} bytes after the end")]
    TrailingBytes(usize),
    /// A length or count above what the protocol allows.
    #[error("{what}: {value} is over the limit of {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// How much it would be.
        value: usize,
        /// How much it may be.
        limit: usize,
    },
    /// Bytes that no encoder writes.
    #[error("not canonical: {0}")]
    NonCanonical(&'static str),
    /// A body with a proof that does not cover it.
    #[error("the proof of a request does not name it")]
    RequestNotInProof,
}

/// Begins a message of this kind.
fn put_header(out: &mut Vec<u8>, kind: u8) {
    out.extend_from_slice(&[PROTOCOL_VERSION, kind]);
}

/// Appends a count or length; one that does not fit is far above every limit and decodes nowhere.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// Appends a number.
pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}
