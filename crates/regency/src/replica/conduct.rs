//! How a replica sends what its core says: at once, and the same to all.
//!
//! The event loop passes every message through here. With the feature `adversity`, for tests only, `adversity.rs`
//! stands in this file's place.

use std::sync::Arc;

use regency_protocol::action::Recipients;
use regency_protocol::ids::ReplicaId;
use regency_protocol::message::Message;
use regency_protocol::time::Timestamp;
use regency_protocol::view::View;

/// Honest conduct; it remembers nothing.
#[derive(Debug)]
pub(super) struct Conduct;

impl Conduct {
    /// That of the member `me` of `view`.
    pub(super) fn new(_view: &Arc<View>, _me: ReplicaId) -> Self {
        Self
    }

    /// Hands a message of the core on.
    #[inline]
    pub(super) fn on_send(
        &mut self,
        _now: Timestamp,
        to: Recipients,
        message: Message,
        mut send: impl FnMut(Recipients, &Message),
    ) {
        send(to, &message);
    }

    /// Hands on what was held back until `now`.
    #[inline]
    pub(super) fn release(&mut self, _now: Timestamp, _send: impl FnMut(Recipients, &Message)) {}

    /// When something is to be released.
    #[inline]
    pub(super) fn due(&self) -> Option<Timestamp> {
        None
    }
}
