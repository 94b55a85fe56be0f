//! What happens, in words, for the event log.

use regency_protocol::codec::Wire;
use regency_protocol::message::{ClientMessage, Message, ReplicaMessage};

use super::Happening;
use crate::network::{Flight, Place};

/// A happening in one line.
pub(super) fn describe(happening: &Happening) -> String {
    match happening {
        Happening::Arrive(Flight { from, to, frame }) => {
            let content = match (from, to) {
                (Place::Replica(_), Place::Replica(_)) => format!("{:?}", Message::decode(frame.clone())),
                (Place::Client(_), _) => {
                    format!("{:?}", ClientMessage::decode(frame.clone()))
                }
                (_, Place::Client(_)) => {
                    format!("{:?}", ReplicaMessage::decode(frame.clone()))
                }
            };
            format!("{from} -> {to}: {content}")
        }
        Happening::Own { replica, event, .. } => format!("replica {replica}: {event:?}"),
        Happening::Committed { replica, .. } => format!("replica {replica}: a commit ends"),
        Happening::Wake { replica, .. } => format!("replica {replica}: woken"),
        Happening::Drained { replica, .. } => format!("replica {replica}: input drained"),
        Happening::Client(number) => format!("client {number}: its turn"),
        Happening::Rogue => String::from("dishonest client: its turn"),
        Happening::Adversary => String::from("adversary: its turn"),
        Happening::Deed(flight) => format!("adversary: sends from {} to {}", flight.from, flight.to),
        Happening::Fault(fault) => format!("fault: {fault:?}"),
        Happening::Heal => String::from("all heals"),
    }
}
