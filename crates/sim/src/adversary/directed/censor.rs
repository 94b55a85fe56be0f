//! A first leader that proposes nothing but empty batches, steadily: instances are decided, nobody is answered.

use std::sync::Arc;

use regency_protocol::ids::{InstanceId, Regency, ReplicaId, ViewId};
use regency_protocol::message::{Batch, Message, Propose};

use super::{Deed, others, send};
use crate::agenda::Moment;
use crate::node::clock;
use crate::plan::Plan;
use crate::random::Stream;

/// The pauses between its batches: well under any timeout.
const PAUSE: (Moment, Moment) = (15_000, 45_000);

/// It seems to work.
pub(in crate::adversary) struct Censor {
    me: ReplicaId,
    view: ViewId,
    others: Vec<ReplicaId>,
    next: InstanceId,
    next_at: Moment,
    stream: Stream,
}

impl Censor {
    pub(super) fn new(plan: &Plan, me: ReplicaId) -> Self {
        let stream = Stream::new(plan.seed, "censor");
        let (view, others) = (plan.view.id(), others(plan, me));
        Self { me, view, others, next: InstanceId(1), next_at: 0, stream }
    }

    /// Proposes the next empty batch, if it is time to.
    pub(super) fn on_turn(&mut self, now: Moment, deeds: &mut Vec<Deed>) {
        if now < self.next_at {
            return;
        }
        self.next_at = now + self.stream.between(PAUSE.0, PAUSE.1);
        let timestamp = clock(now, 0);
        let batch = Batch { view: self.view, instance: self.next, timestamp, requests: Vec::new() };
        let propose = Propose { regency: Regency(0), batch: Arc::new(batch), inline: Vec::new() };
        for to in &self.others {
            send(self.me, *to, &Message::Propose(propose.clone()), deeds);
        }
        self.next = self.next.next();
    }
}
