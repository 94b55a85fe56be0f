//! One follower that asks for another leader all the time.

use regency_protocol::ids::{Regency, ReplicaId, ViewId};
use regency_protocol::message::{Message, Stop};

use super::{Deed, others, send};
use crate::plan::Plan;
use crate::random::Stream;

/// It never has enough.
pub(in crate::adversary) struct StopStorm {
    me: ReplicaId,
    view: ViewId,
    others: Vec<ReplicaId>,
    highest: Regency,
    stream: Stream,
}

impl StopStorm {
    pub(super) fn new(plan: &Plan, me: ReplicaId) -> Self {
        let stream = Stream::new(plan.seed, "stop storm");
        Self { me, view: plan.view.id(), others: others(plan, me), highest: Regency(0), stream }
    }

    /// It wants to know which regency there is: as soon as there is a new one, it asks for the next.
    pub(super) fn on_message(&mut self, message: &Message, deeds: &mut Vec<Deed>) {
        let regency = match message {
            Message::Status(status) => status.regency,
            Message::StopData(stated) => stated.data.regency,
            Message::Sync(sync) => sync.regency,
            Message::Propose(propose) => propose.regency,
            Message::Write(vote) | Message::Accept(vote) => vote.regency,
            Message::Decided(_)
            | Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => return,
        };
        if regency > self.highest {
            self.highest = regency;
            self.ask(deeds);
        }
    }

    pub(super) fn on_turn(&mut self, deeds: &mut Vec<Deed>) {
        self.ask(deeds);
    }

    /// Asks all, or one, for the next regency, or one far away.
    fn ask(&mut self, deeds: &mut Vec<Deed>) {
        let ahead = self.stream.pick(&[1, 1, 1, 2, 1000]);
        let stop = Message::Stop(Stop { view: self.view, regency: Regency(self.highest.0 + ahead) });
        let only = self.stream.percent(20).then(|| self.stream.pick(&self.others));
        for to in self.others.iter().filter(|to| only.is_none_or(|only| only == **to)) {
            send(self.me, *to, &stop, deeds);
        }
    }
}
