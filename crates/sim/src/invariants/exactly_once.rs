//! Exactly-once: no place (client, session, sequence) is executed twice, nor outside its session's window.

use std::collections::{BTreeMap, BTreeSet};

use regency_protocol::ids::{ClientId, Sequence, SessionId};
use regency_protocol::message::{Request, RequestPlace};

use super::Violation;

/// The order's places, and what REQ-4 makes of their sessions' floors.
pub(crate) struct ExactlyOnce {
    executed: BTreeSet<RequestPlace>,
    floors: BTreeMap<(ClientId, SessionId), Sequence>,
    session_window: u64,
}

impl ExactlyOnce {
    /// Nothing executed yet; sessions have windows of this many sequences.
    pub(crate) fn new(session_window: u64) -> Self {
        Self { executed: BTreeSet::new(), floors: BTreeMap::new(), session_window }
    }

    /// This comes next in the total order.
    pub(crate) fn on_execute(&mut self, request: &Request) -> Result<(), Violation> {
        let place = request.place();
        if !self.executed.insert(place) {
            return Err(Violation::new("exactly-once", format!("{place:?} is executed twice")));
        }
        let floor = self.floors.entry((place.client, place.session)).or_default();
        // [REQ-4] Execution first raises the table's floor to the request's; it never falls.
        *floor = request.floor().max(*floor);
        if place.sequence < *floor || place.sequence >= request.floor().plus(self.session_window) {
            let detail = format!("{place:?} with floor {} is executed at floor {floor}", request.floor());
            return Err(Violation::new("exactly-once", detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sequence: u64, floor: u64, payload: &[u8]) -> Request {
        Request::ordered(ClientId([1; 32]), SessionId(1), Sequence(sequence), Sequence(floor), payload)
    }

    #[test]
    fn a_place_runs_once_whatever_its_payload() {
        let mut once = ExactlyOnce::new(4);
        assert!(once.on_execute(&request(1, 1, b"a")).is_ok());
        assert!(once.on_execute(&request(2, 1, b"a")).is_ok());
        assert!(once.on_execute(&request(1, 1, b"b")).is_err());
    }

    #[test]
    fn outside_the_window_nothing_runs() {
        let mut once = ExactlyOnce::new(4);
        assert!(once.on_execute(&request(7, 4, b"a")).is_ok());
        assert!(once.on_execute(&request(3, 1, b"a")).is_err(), "below the floor");
        assert!(once.on_execute(&request(8, 4, b"a")).is_err(), "above the window");
    }
}
