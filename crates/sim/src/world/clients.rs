//! Clients in the world: their turns, their frames, and the shell's part in front of a replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::action::Recipients;
use regency_protocol::client::{ClientAction, ClientEvent};
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::BUNDLE_REQUESTS_MAX;
use regency_protocol::message::{Bundle, ClientMessage, ReplicaMessage, Request};
use regency_protocol::view::RequestAuth;

use super::{Happening, World};
use crate::coverage::Point;
use crate::history::End;
use crate::invariants::Violation;
use crate::network::{Flight, Place};
use crate::shrink::reduction::Kind;
use crate::signatures::Signer;

impl World<'_> {
    /// A client's timer has come.
    pub(super) fn client_turn(&mut self, number: usize) -> Result<(), Violation> {
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        client.turn_at = None;
        let actions = client.turn(self.now, &mut self.history);
        self.perform_client(number, actions);
        Ok(())
    }

    /// A frame reaches a client.
    pub(super) fn client_frame(&mut self, number: usize, flight: Flight) -> Result<(), Violation> {
        let Place::Replica(from) = flight.from else { return Ok(()) };
        let replies = match ReplicaMessage::decode(flight.frame) {
            Ok(ReplicaMessage::Replies { view, replies }) => {
                replies.into_iter().map(move |reply| (view, reply))
            }
            Err(error) if self.nodes.contains_key(&from) => {
                let detail =
                    format!("client {number} cannot read a frame of correct replica {from}: {error}");
                return Err(Violation::new("codec", detail));
            }
            Err(_) => return Ok(()),
        };
        for (view, reply) in replies {
            match self.clients.get_mut(number) {
                Some(client) => {
                    let event = ClientEvent::Reply { from, view, reply };
                    let actions = client.handle(self.now, event, &mut self.history);
                    self.perform_client(number, actions);
                }
                None => self.rogue.on_reply(&reply),
            }
        }
        Ok(())
    }

    /// Sends what a client wants sent, coalesced into bundles, and puts its next turn on the agenda.
    fn perform_client(&mut self, number: usize, actions: Vec<ClientAction>) {
        let mut bundles: BTreeMap<(Option<ReplicaId>, bool), Vec<Arc<Request>>> = BTreeMap::new();
        for action in actions {
            if self.trace.is_on() {
                self.say(format_args!("    client {number}: {action:?}"));
            }
            match action {
                ClientAction::Send { to, request, whole_results } => {
                    let to = match to {
                        Recipients::All => None,
                        Recipients::One(replica) => Some(replica),
                    };
                    if !self.validity.on_send(&request) {
                        self.points.insert(Point::RequestAgain);
                    }
                    bundles.entry((to, whole_results)).or_default().push(request);
                }
                ClientAction::Completed { .. } | ClientAction::Opened(_) => {}
            }
        }
        for ((to, whole_results), requests) in bundles {
            for requests in requests.chunks(BUNDLE_REQUESTS_MAX) {
                if requests.len() > 1 {
                    self.points.insert(Point::Bundle);
                }
                let mut bundle = Bundle { signature: None, whole_results, requests: requests.to_vec() };
                self.sign_bundle(number, &mut bundle);
                let frame = ClientMessage::Bundle(bundle).to_frame();
                let recipients = match to {
                    Some(replica) => vec![replica],
                    None => self.plan.view.members().iter().map(|member| member.id).collect(),
                };
                for to in recipients {
                    self.send(Place::Client(number), Place::Replica(to), frame.clone());
                }
            }
        }
        self.arm_client(number);
    }

    fn sign_bundle(&self, number: usize, bundle: &mut Bundle) {
        if self.plan.view.request_auth() == RequestAuth::Signature
            && let (Some(client), Some(statement)) = (self.clients.get(number), bundle.statement())
        {
            bundle.signature = Some(self.keyring.sign(Signer::Client(client.id()), &statement));
        }
    }

    fn arm_client(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(at) = client.next_turn(self.now) else { return };
        if client.turn_at.is_none_or(|turn_at| at < turn_at) {
            client.turn_at = Some(at);
            self.agenda.add(at, Happening::Client(number));
        }
    }

    /// The dishonest client's turn.
    pub(super) fn rogue_turn(&mut self) -> Result<(), Violation> {
        let ahead = self.nodes.values().map(|node| node.status()).max_by_key(|status| status.regency);
        let leader = ahead.map_or(self.plan.leader(), |status| status.leader);
        let (misdeeds, point, pause) = self.rogue.turn(self.now, leader, &self.keyring);
        self.points.extend(point);
        self.rogue_turns += 1;
        let me = Place::Client(self.clients.len());
        let what = point.map_or("requests", Point::name);
        let is_done = self.plan.choices.decide_turn(Kind::Rogue, self.rogue_turns, self.now, me, what);
        for misdeed in misdeeds {
            for request in &misdeed.bundle.requests {
                self.validity.on_send(request);
            }
            let frame = ClientMessage::Bundle(misdeed.bundle).to_frame();
            for to in misdeed.to {
                let to = Place::Replica(to);
                if is_done {
                    self.send(me, to, frame.clone());
                } else {
                    self.network.pass_over(self.now, Flight { from: me, to, frame: frame.clone() });
                }
            }
        }
        if let Some(pause) = pause {
            self.agenda.add(self.now + pause, Happening::Rogue);
        }
        Ok(())
    }

    /// The shell in front of a replica: takes a bundle apart and checks its signature and its channel.
    pub(super) fn receive_from_client(
        &mut self,
        to: ReplicaId,
        number: usize,
        frame: Bytes,
    ) -> Result<(), Violation> {
        let bundle = match ClientMessage::decode(frame) {
            Ok(ClientMessage::Bundle(bundle)) => bundle,
            Err(error) => {
                let detail = format!("replica {to} cannot read a frame of client {number}: {error}");
                return Err(Violation::new("codec", detail));
            }
        };
        let owner = self.clients.get(number).map_or(self.rogue.id(), |client| client.id());
        if bundle.requests.iter().any(|request| request.client() != owner) {
            return Ok(());
        }
        for request in self.keyring.open_bundle(bundle).into_iter().flatten() {
            self.tell(to, Event::Request(request))?;
        }
        Ok(())
    }

    /// Whether every honest client is done.
    pub(super) fn are_clients_done(&self) -> bool {
        self.clients.iter().all(|client| client.is_done())
    }

    /// Notes which ends calls came to.
    pub(super) fn note_ends(&mut self) {
        if self.history.calls().any(|(_, call)| matches!(call.end, Some((_, End::GaveUp { .. })))) {
            self.points.insert(Point::GaveUp);
        }
    }
}
