//! Adversaries with one idea each, for the scenarios that go for one weakness.

mod censor;
mod round_liar;
mod storm;

use regency_protocol::codec::Wire;
use regency_protocol::ids::ReplicaId;
use regency_protocol::message::{ClientMessage, Message};

use super::Deed;
use crate::agenda::Moment;
use crate::network::{Flight, Place};
use crate::plan::{Plan, Strategy};
use crate::signatures::Keyring;

use censor::Censor;
use round_liar::RoundLiar;
use storm::StopStorm;

/// One of them.
pub(super) enum Directed {
    Rounds(Box<RoundLiar>),
    StopStorm(StopStorm),
    Censor(Censor),
}

impl Directed {
    /// What the plan wants, if it is one of these.
    pub(super) fn new(plan: &Plan) -> Option<Self> {
        let me = *plan.byzantine.first()?;
        match plan.strategy {
            Strategy::Rounds => Some(Self::Rounds(Box::new(RoundLiar::new(plan, me)))),
            Strategy::StopStorm => Some(Self::StopStorm(StopStorm::new(plan, me))),
            Strategy::Censor => Some(Self::Censor(Censor::new(plan, me))),
            Strategy::None | Strategy::Equivocate | Strategy::Distort | Strategy::Twins => None,
        }
    }

    /// A frame reaches it.
    pub(super) fn on_frame(
        &mut self,
        now: Moment,
        flight: &Flight,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        match flight.from {
            Place::Replica(from) => {
                let Ok(message) = Message::decode(flight.frame.clone()) else { return };
                match self {
                    Self::Rounds(liar) => liar.on_message(now, from, message, keyring, deeds),
                    Self::StopStorm(storm) => storm.on_message(&message, deeds),
                    Self::Censor(_) => {}
                }
            }
            Place::Client(_) => {
                let Ok(ClientMessage::Bundle(bundle)) = ClientMessage::decode(flight.frame.clone()) else {
                    return;
                };
                if let (Self::Rounds(liar), Some(requests)) = (self, keyring.open_bundle(bundle)) {
                    liar.on_requests(now, requests, keyring, deeds);
                }
            }
        }
    }

    /// Time has passed.
    pub(super) fn on_turn(&mut self, now: Moment, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        match self {
            Self::Rounds(liar) => liar.on_turn(now, keyring, deeds),
            Self::StopStorm(storm) => storm.on_turn(deeds),
            Self::Censor(censor) => censor.on_turn(now, deeds),
        }
    }
}

/// Everybody in the plan that is not `me`.
fn others(plan: &Plan, me: ReplicaId) -> Vec<ReplicaId> {
    plan.view.members().iter().map(|member| member.id).filter(|id| *id != me).collect()
}

/// Sends one message in the name of `from`.
fn send(from: ReplicaId, to: ReplicaId, message: &Message, deeds: &mut Vec<Deed>) {
    deeds.push(Deed::Send { from, to: Place::Replica(to), frame: message.to_frame() });
}
