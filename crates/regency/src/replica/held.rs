//! Messages that must not leave before the record that they rest on is durable [VOTE-1].

use std::collections::VecDeque;

use regency_protocol::action::Recipients;
use regency_protocol::ids::LogPosition;
use regency_protocol::message::Message;

/// Messages that may wait. What finds no room is dropped: the core sends again [LINK-1].
const WAITING_MAX: usize = 1 << 16;

/// What waits, in the order in which the core sent it.
#[derive(Debug, Default)]
pub(super) struct Held {
    durable: LogPosition,
    waiting: VecDeque<(LogPosition, Recipients, Message)>,
}

impl Held {
    /// Nothing waits, and everything up to `durable` is on disk.
    pub(super) fn new(durable: LogPosition) -> Self {
        Self { durable, waiting: VecDeque::new() }
    }

    /// Keeps a message back if it must wait; hands it out otherwise.
    pub(super) fn admit(
        &mut self,
        to: Recipients,
        message: Message,
        after: LogPosition,
    ) -> Option<(Recipients, Message)> {
        if after <= self.durable {
            return Some((to, message));
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((after, to, message));
        }
        None
    }

    /// How far the log is durable.
    pub(super) fn durable(&self) -> LogPosition {
        self.durable
    }

    /// Notes how far the log is durable; true if it is further than before.
    pub(super) fn advance(&mut self, durable: LogPosition) -> bool {
        let is_further = durable > self.durable;
        self.durable = self.durable.max(durable);
        is_further
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next message that may leave.
    pub(super) fn next(&mut self) -> Option<(Recipients, Message)> {
        let durable = self.durable;
        self.waiting.front().filter(|(after, ..)| *after <= durable)?;
        let (_, to, message) = self.waiting.pop_front()?;
        Some((to, message))
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{Regency, ReplicaId, ViewId};
    use regency_protocol::message::Stop;

    use super::*;

    fn message(regency: u64) -> Message {
        Message::Stop(Stop { view: ViewId(0), regency: Regency(regency) })
    }

    #[test]
    fn what_waits_leaves_in_order_when_its_record_is_durable() {
        let mut held = Held::new(LogPosition(3));
        let to = Recipients::One(ReplicaId(1));
        assert_eq!(held.admit(to, message(1), LogPosition(3)), Some((to, message(1))));
        assert_eq!(held.admit(to, message(2), LogPosition(4)), None);
        assert_eq!(held.admit(to, message(3), LogPosition(6)), None);
        assert_eq!(held.next(), None);
        assert!(held.advance(LogPosition(5)) && !held.advance(LogPosition(5)));
        assert_eq!(held.next(), Some((to, message(2))));
        assert_eq!(held.next(), None);
        assert!(held.advance(LogPosition(6)));
        assert_eq!(held.next(), Some((to, message(3))));
    }
}
