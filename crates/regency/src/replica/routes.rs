//! Where replies go: the connection on which a session, or for an OPEN its nonce, was last heard.

use std::collections::HashMap;

use regency_protocol::ids::{ClientId, Sequence, SessionId};
use regency_protocol::message::{Reply, Request};

use super::connection::ConnectionId;

/// What a reply is routed by: the session, or the nonce of an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Route {
    client: ClientId,
    session: SessionId,
    /// Zero but for an OPEN.
    nonce: Sequence,
}

impl Route {
    fn new(client: ClientId, session: SessionId, sequence: Sequence) -> Self {
        let nonce = if session == SessionId::NONE { sequence } else { Sequence(0) };
        Self { client, session, nonce }
    }
}

/// The newest routes; two generations, the older of which is forgotten when the younger is full.
///
/// A route that is forgotten, or whose connection is gone, costs a reply: the client asks again.
#[derive(Debug)]
pub(super) struct Routes {
    young: HashMap<Route, ConnectionId>,
    old: HashMap<Route, ConnectionId>,
    generation_max: usize,
}

impl Routes {
    /// Room for at least `generation_max` routes, and at most twice as many.
    pub(super) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max }
    }

    /// Notes that `request` came over `connection`.
    pub(super) fn heard(&mut self, request: &Request, connection: ConnectionId) {
        let route = Route::new(request.client(), request.session(), request.sequence());
        if self.young.len() >= self.generation_max && !self.young.contains_key(&route) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(route, connection);
    }

    /// Where `reply` for `client` goes.
    pub(super) fn find(&self, client: ClientId, reply: &Reply) -> Option<ConnectionId> {
        let route = Route::new(client, reply.session, reply.sequence);
        self.young.get(&route).or_else(|| self.old.get(&route)).copied()
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::message::{Outcome, Refusal};
    use regency_protocol::time::Timestamp;

    use super::*;

    const CLIENT: ClientId = ClientId([1; 32]);

    fn reply(session: u64, sequence: u64) -> Reply {
        Reply {
            session: SessionId(session),
            sequence: Sequence(sequence),
            outcome: Outcome::Refused(Refusal::TooLarge),
        }
    }

    fn request(session: u64, sequence: u64) -> Request {
        Request::ordered(CLIENT, SessionId(session), Sequence(sequence), Sequence(0), b"")
    }

    fn connection(serial: u64) -> ConnectionId {
        ConnectionId { slot: 0, serial }
    }

    #[test]
    fn a_session_is_answered_where_it_was_last_heard() {
        let mut routes = Routes::new(8);
        routes.heard(&request(5, 1), connection(1));
        routes.heard(&request(5, 2), connection(2));
        assert_eq!(routes.find(CLIENT, &reply(5, 1)), Some(connection(2)));
        assert_eq!(routes.find(ClientId([2; 32]), &reply(5, 1)), None);
    }

    #[test]
    fn opens_of_one_client_are_told_apart_by_nonce() {
        let mut routes = Routes::new(8);
        routes.heard(&Request::open(CLIENT, 10, Timestamp(1)), connection(1));
        routes.heard(&Request::open(CLIENT, 11, Timestamp(1)), connection(2));
        assert_eq!(routes.find(CLIENT, &reply(0, 10)), Some(connection(1)));
        assert_eq!(routes.find(CLIENT, &reply(0, 11)), Some(connection(2)));
    }

    #[test]
    fn routes_are_bounded_and_the_newest_stay() {
        let mut routes = Routes::new(8);
        for session in 1..=1000 {
            routes.heard(&request(session, 1), connection(session));
        }
        assert!(routes.young.len() + routes.old.len() <= 16);
        for session in 993..=1000 {
            assert_eq!(routes.find(CLIENT, &reply(session, 1)), Some(connection(session)));
        }
    }
}
