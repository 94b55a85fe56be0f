//! The decisions that a running schedule comes to: each has a number, and a reduction has the last word.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use regency_protocol::codec::Wire;
use regency_protocol::message::Message;

use super::reduction::{Kind, Reduction};
use crate::agenda::Moment;
use crate::network::{Flight, Place};

/// Something that went wrong, because chance or the adversary wanted it to.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    /// When.
    pub(crate) at: Moment,
    /// Of which kind.
    pub(crate) kind: Kind,
    /// Its number among those of its kind.
    pub(crate) number: u64,
    /// Who sent what it is about.
    pub(crate) from: Place,
    /// To whom; the dishonest client sends to many.
    pub(crate) to: Option<Place>,
    /// What it is about.
    pub(crate) what: String,
}

/// Has the last word on decisions, and notes those that make a difference where somebody wants to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    reduction: Arc<Reduction>,
    // Shared, so that what is noted survives a panic of the core.
    log: Option<Rc<RefCell<Vec<Decision>>>>,
}

impl Choices {
    /// Those of `reduction`, noted in `log`.
    pub(crate) fn new(reduction: Arc<Reduction>, log: Option<Rc<RefCell<Vec<Decision>>>>) -> Self {
        Self { reduction, log }
    }

    /// The reduction that has the last word.
    pub(crate) fn reduction(&self) -> &Reduction {
        &self.reduction
    }

    /// Whether it comes to pass: as `drawn`, or as the reduction wants it.
    pub(crate) fn decide(&self, kind: Kind, number: u64, drawn: bool, at: Moment, flight: &Flight) -> bool {
        let is_so = self.is_so(kind, number, drawn);
        if is_so && let Some(log) = &self.log {
            let (from, to) = (flight.from, Some(flight.to));
            log.borrow_mut().push(Decision { at, kind, number, from, to, what: subject(flight) });
        }
        is_so
    }

    /// The same for what is not about one frame.
    pub(crate) fn decide_turn(&self, kind: Kind, number: u64, at: Moment, from: Place, what: &str) -> bool {
        let is_so = self.is_so(kind, number, true);
        if is_so && let Some(log) = &self.log {
            let what = what.to_owned();
            log.borrow_mut().push(Decision { at, kind, number, from, to: None, what });
        }
        is_so
    }

    fn is_so(&self, kind: Kind, number: u64, drawn: bool) -> bool {
        self.reduction.kept.get(&kind).map_or(drawn, |kept| kept.contains(&number))
    }
}

/// A frame in a few words.
fn subject(flight: &Flight) -> String {
    let (Place::Replica(_), Place::Replica(_)) = (flight.from, flight.to) else {
        return String::from(if matches!(flight.to, Place::Client(_)) { "replies" } else { "requests" });
    };
    let Ok(message) = Message::decode(flight.frame.clone()) else { return String::from("no message") };
    let vote =
        |name, instance: u64, regency: u64| format!("{name} of instance {instance} in regency {regency}");
    match &message {
        Message::Propose(propose) => vote("PROPOSE", propose.batch.instance.0, propose.regency.0),
        Message::Write(write) => vote("WRITE", write.instance.0, write.regency.0),
        Message::Accept(accept) => vote("ACCEPT", accept.instance.0, accept.regency.0),
        Message::StopData(stated) => format!("STOPDATA of regency {}", stated.data.regency.0),
        Message::Sync(sync) => format!("SYNC of regency {}", sync.regency.0),
        Message::Stop(stop) => format!("{stop:?}"),
        other => {
            let whole = format!("{other:?}");
            whole.split(['(', ' ', '{']).next().unwrap_or_default().to_uppercase()
        }
    }
}
