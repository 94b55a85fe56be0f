//! What a core asks for: sends, signatures, executions, replies, reports; each looked at on its way.

use std::collections::BTreeMap;

use bytes::Bytes;
use regency_protocol::action::{Action, Delivery, Origin, Recipients};
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::{ClientId, InstanceId, ReplicaId};
use regency_protocol::message::{Message, Outcome, Refusal, ReplicaMessage, Reply, Statement};

use super::{Happening, World};
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::invariants::{Violation, accusation};
use crate::network::Place;
use crate::node::Held;
use crate::signatures::Signer;

impl World<'_> {
    /// Carries out what the core of `replica` asks for, in order.
    pub(super) fn perform(&mut self, replica: ReplicaId, actions: Vec<Action>) -> Result<(), Violation> {
        let mut replies: BTreeMap<ClientId, Vec<Reply>> = BTreeMap::new();
        for action in actions {
            if self.ends_now(replica) {
                break;
            }
            if self.trace.is_on() {
                self.say(format_args!("    {replica}: {action:?}"));
            }
            match action {
                Action::Send { to, message, after } => match self.nodes.get_mut(&replica) {
                    Some(node) if node.must_wait(after) => {
                        node.held.push_back(Held { after, since: self.now, to, message });
                    }
                    Some(_) | None => self.on_send(replica, to, &message)?,
                },
                Action::Sign(statement) => self.on_sign(replica, statement),
                Action::Append { position, record } => self.on_append(replica, position, record)?,
                Action::Cut(below) => self.on_cut(replica, below)?,
                Action::Snapshot { head, after } => self.on_snapshot(replica, &head, after)?,
                Action::Diverged(instance) => self.on_diverged(replica, instance)?,
                Action::Donate { to, donation } => self.on_donate(replica, to, donation)?,
                Action::Transfer(transfer) => self.on_transfer(replica, transfer)?,
                Action::Remembered => self.on_remembered(replica),
                Action::Execute(delivery) => self.on_execute(replica, &delivery)?,
                Action::Reply { client, reply } => {
                    self.note_reply(&reply);
                    replies.entry(client).or_default().push(reply);
                }
                Action::Report(report) => {
                    self.points.insert(Point::Reported(report.reason));
                    let is_owned =
                        matches!(report.by, Origin::Replica(id) if self.plan.byzantine.contains(&id));
                    let is_rolled_back = matches!(report.by, Origin::Replica(id)
                        if self.nodes.get(&id).is_some_and(|node| node.is_rolled_back));
                    if !is_owned && !is_rolled_back {
                        self.forgiven(accusation::check(replica, &report))?;
                    }
                }
            }
        }
        for (client, replies) in replies {
            let Some(number) = self.client_places.get(&client).copied() else { continue };
            let message = ReplicaMessage::Replies { view: self.plan.view.id(), replies };
            self.send(Place::Replica(replica), Place::Client(number), message.to_frame());
        }
        self.commit(replica);
        Ok(())
    }

    pub(super) fn add_own(&mut self, at: Moment, replica: ReplicaId, event: Event) {
        let Some(node) = self.nodes.get(&replica) else { return };
        self.agenda.add(at, Happening::Own { replica, life: node.life, event: Box::new(event) });
    }

    fn on_sign(&mut self, replica: ReplicaId, statement: Statement) {
        let signature = self.keyring.sign(Signer::Replica(replica), &statement);
        let at = self.now + self.machines.between(20, 500);
        self.add_own(at, replica, Event::Signed { statement, signature });
    }

    pub(super) fn on_send(
        &mut self,
        from: ReplicaId,
        to: Recipients,
        message: &Message,
    ) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&from) else { return Ok(()) };
        // One whose disk was exchanged counts in `f`: it may do anything.
        if !node.is_rolled_back {
            let is_one = self.one_vote.on_send(from, node.status().decided, message);
            self.forgiven(is_one)?;
            let is_unique = self.unique_proposals.on_send(from, message);
            self.forgiven(is_unique)?;
            self.forgiven(self.check_signed(from, message))?;
        }
        self.forgiven(self.check_fetch(from, message))?;
        self.note_message(from, message);
        self.notices.on_send(from, message, &self.plan.view, &mut self.points);
        let frame = message.to_frame();
        match to {
            Recipients::One(to) => self.send(Place::Replica(from), Place::Replica(to), frame),
            Recipients::All => {
                for to in self.others(from) {
                    self.send(Place::Replica(from), Place::Replica(to), frame.clone());
                }
            }
        }
        Ok(())
    }

    fn on_execute(&mut self, by: ReplicaId, delivery: &Delivery) -> Result<(), Violation> {
        let results = self.execute(by, delivery)?;
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        if node.votes_lost {
            self.points.insert(Point::StateLostExecutes);
        }
        // The service takes its time, and takes deliveries one after the other.
        let at = node.service_busy_until.max(self.now) + self.machines.between(5, 300);
        node.service_busy_until = at;
        self.add_own(at, by, Event::Executed { instance: delivery.instance, results });
        Ok(())
    }

    /// A replica executes, for the first time or again; returns the results.
    pub(super) fn execute(&mut self, by: ReplicaId, delivery: &Delivery) -> Result<Vec<Bytes>, Violation> {
        let in_order = self.total_order.on_execute(by, delivery.instance);
        self.forgiven(in_order)?;
        let executed = self.ledger.execute(by, delivery);
        let (mut results, is_first) = self.forgiven(executed)?;
        // The service answers even where nobody else has executed the same.
        results.resize(delivery.operations.len(), Bytes::new());
        if is_first {
            for operation in &delivery.operations {
                self.forgiven(self.validity.on_execute(operation))?;
                let is_once = self.exactly_once.on_execute(operation);
                self.forgiven(is_once)?;
            }
            match delivery.operations.len() {
                0 => self.points.insert(Point::EmptyBatch),
                1 => false,
                _ => self.points.insert(Point::LargeBatch),
            };
        }
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(results) };
        if node.store.is_some() {
            // What comes back from snapshots must be what everybody else has.
            let own = node.execute(delivery);
            if own != results {
                let detail =
                    format!("replica {by} answers {own:?} at {}, not {results:?}", delivery.instance);
                self.forgiven::<()>(Err(Violation::new("agreement", detail)))?;
                results = own;
            }
        }
        Ok(results)
    }

    fn note_reply(&mut self, reply: &Reply) {
        let point = match &reply.outcome {
            Outcome::ResultDigest(_) => Point::ResultByDigest,
            Outcome::Refused(Refusal::Busy { .. }) => Point::Busy,
            Outcome::Refused(Refusal::TooFarAhead) => Point::TooFarAhead,
            Outcome::Refused(Refusal::SessionExpired) => Point::SessionExpired,
            Outcome::Result(_) | Outcome::Refused(_) => return,
        };
        self.points.insert(point);
    }

    fn note_message(&mut self, from: ReplicaId, message: &Message) {
        let mut vote = |phase, instance: InstanceId| {
            (!self.sent_before.insert((from, phase, instance))).then_some(Point::VoteAgain)
        };
        let point = match message {
            Message::Propose(propose) => {
                let instance = propose.batch.instance;
                let decided = self.nodes.get(&from).map(|node| node.status().decided).unwrap_or_default();
                if instance > decided.plus(2) {
                    self.points.insert(Point::SeveralInFlight);
                }
                None
            }
            Message::Write(write) => vote(1, write.instance),
            Message::Accept(accept) => vote(2, accept.instance),
            Message::Decided(_) => Some(Point::DecisionVouched),
            Message::FetchBatch(_) => Some(Point::BatchFetched),
            Message::FetchBodies(_) => Some(Point::BodiesFetched),
            Message::ChainCertificate(_) => Some(Point::Certificate),
            Message::BatchAnswer(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::Stop(_)
            | Message::StopData(_)
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Echo(_)
            | Message::Lack(_) => None,
        };
        self.points.extend(point);
    }
}
