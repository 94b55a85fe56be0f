//! A core that the adversary runs for one of its own: honest by itself, at the end of strings.

use std::collections::{BTreeSet, VecDeque};

use regency_protocol::action::Action;
use regency_protocol::event::Event;
use regency_protocol::ids::{ReplicaId, ViewId};
use regency_protocol::replica::Replica;

use super::slow_donor;
use crate::agenda::Moment;
use crate::node::{self, clock};
use crate::plan::Plan;
use crate::service::Lists;
use crate::signatures::{Keyring, Signer};
use crate::store::Image;

/// A core with its service, in touch with some replicas only.
pub(crate) struct Puppet {
    id: ReplicaId,
    view: ViewId,
    core: Replica,
    service: Lists,
    clock_offset: Moment,
    friends: BTreeSet<ReplicaId>,
    is_fresh: bool,
}

impl Puppet {
    /// A core of `id` that knows only `friends`, with a clock that is `ahead` of the planned one.
    pub(super) fn new(plan: &Plan, id: ReplicaId, friends: BTreeSet<ReplicaId>, ahead: Moment) -> Self {
        Self {
            id,
            view: plan.view.id(),
            core: node::core(plan, id, slow_donor::settings(plan)),
            service: Lists::default(),
            clock_offset: plan.clock_offsets.get(&id).copied().unwrap_or_default() + ahead,
            friends: friends.into_iter().filter(|friend| *friend != id).collect(),
            is_fresh: true,
        }
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.id
    }

    pub(super) fn view(&self) -> ViewId {
        self.view
    }

    /// Whether it hears from `replica`.
    pub(super) fn knows(&self, replica: ReplicaId) -> bool {
        self.friends.contains(&replica)
    }

    /// Whom it sends to.
    pub(super) fn friends(&self) -> Vec<ReplicaId> {
        self.friends.iter().copied().collect()
    }

    /// Whether it wants a tick.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.is_fresh
            || self.core.next_deadline().is_some_and(|deadline| deadline <= clock(now, self.clock_offset))
    }

    /// Gives it events; returns what it wants sent. Its service and its signer answer at once.
    pub(super) fn take(&mut self, now: Moment, events: Vec<Event>, keyring: &Keyring) -> Vec<Action> {
        let mut queue = events;
        if std::mem::take(&mut self.is_fresh) {
            queue.extend(self.friends.iter().map(|friend| Event::Connected(*friend)));
        }
        queue.push(Event::InputDrained);
        queue.reverse();
        let mut out = Vec::new();
        let mut actions = Vec::new();
        // What its own machine says comes first, in the order in which it was asked.
        let mut answers = VecDeque::new();
        while let Some(event) = answers.pop_front().or_else(|| queue.pop()) {
            self.core.handle(clock(now, self.clock_offset), event, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Sign(statement) => {
                        let signature = keyring.sign(Signer::Replica(self.id), &statement);
                        answers.push_back(Event::Signed { statement, signature });
                    }
                    Action::Execute(delivery) => {
                        let operations = delivery.operations.iter();
                        let results =
                            operations.map(|operation| self.service.execute(&operation.payload())).collect();
                        answers.push_back(Event::Executed { instance: delivery.instance, results });
                    }
                    Action::Snapshot { head, .. } => {
                        let image = Image::new(&head, &self.service.encode());
                        answers.push_back(Event::Snapshotted { instance: image.instance, root: image.root });
                    }
                    other => out.push(other),
                }
            }
        }
        out
    }
}
