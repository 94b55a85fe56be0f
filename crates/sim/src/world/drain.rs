//! Inputs that drain: a core is told a moment after the first frame of several, but only if it would do something.

use regency_protocol::event::Event;
use regency_protocol::ids::ReplicaId;

use super::{Happening, World};
use crate::invariants::Violation;
use crate::node::Drain;

impl World<'_> {
    /// The input of `replica` drains in a moment, unless it is about to anyway. That goes onto the agenda only if
    /// the core waits for it: most of the time it would do nothing, and a third of all events would be this.
    pub(super) fn expect_drain(&mut self, replica: ReplicaId) {
        let Some(node) = self.nodes.get_mut(&replica) else { return };
        let agenda = &mut self.agenda;
        let is_due = |drain: &Drain| drain.is_entered || !agenda.is_past(drain.place);
        let mut drain = match node.drain.filter(is_due) {
            Some(drain) => drain,
            None => {
                let at = self.now + self.machines.below(60);
                Drain { place: agenda.reserve(at), is_entered: false }
            }
        };
        if !drain.is_entered && node.waits_for_drain() {
            drain.is_entered = true;
            agenda.put(drain.place, Happening::Drained { replica, life: node.life });
        }
        node.drain = Some(drain);
    }

    /// The input of `replica` has drained.
    pub(super) fn drained(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        if node.drain.is_none_or(|drain| !drain.is_entered) || !node.is_up() {
            return Ok(());
        }
        node.drain = None;
        self.tell(replica, Event::InputDrained)
    }
}
