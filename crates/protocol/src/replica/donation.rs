//! The donor's side of a transfer: from memory what is there, the rest read from disk by the shell [ST-3].

use std::sync::Arc;

use super::{Replica, report, send};
use crate::action::{Action, Reason};
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::limits::{RANGE_BYTES_MAX, RANGE_MAX};
use crate::message::{Message, Supply, Wanted};
use crate::record::RecordedBatch;
use crate::state_transfer::donation::Donation;

impl Replica {
    /// Another replica asks for a part of what it misses.
    pub(super) fn on_fetch(&mut self, from: ReplicaId, wanted: Wanted, actions: &mut Vec<Action>) {
        if !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        if let Wanted::Digests { view, .. } | Wanted::Batches { view, .. } | Wanted::Snapshot { view, .. } =
            wanted
            && view != self.view.id()
        {
            return report(from, Reason::WrongView, actions);
        }
        let donation = match wanted {
            Wanted::Digests { from: first, last, .. } => {
                return match self.log.digests(first, last) {
                    Some(digests) => {
                        self.links.note_answer(from, digests.len().saturating_mul(size_of::<Digest>()));
                        send(from, Message::Supply(Supply::Digests { from: first, digests }), actions);
                    }
                    None => send(from, Message::Supply(Supply::Nothing(wanted)), actions),
                };
            }
            Wanted::Batches { from: first, last, .. } => {
                if let Some(batches) = self.retained(first, last) {
                    let bytes = batches.iter().map(RecordedBatch::bytes).fold(0, usize::saturating_add);
                    self.links.note_answer(from, bytes);
                    return send(from, Message::Supply(Supply::Batches(batches)), actions);
                }
                let position =
                    self.journal.position_of(first).filter(|_| first >= self.journal.logged_from());
                position.map(|position| Donation::Batches { from: first, last, position })
            }
            Wanted::Snapshot { above, .. } => {
                let certificate = self.checkpoints.certificate().cloned();
                let newer = certificate.filter(|certificate| certificate.instance > above);
                newer.map(|certificate| Donation::Snapshot { certificate, above })
            }
            Wanted::Page { instance, root, page } => Some(Donation::Page { instance, root, page }),
            Wanted::Chunk { instance, root, index } => Some(Donation::Chunk { instance, root, index }),
        };
        match donation {
            Some(donation) => actions.push(Action::Donate { to: from, donation }),
            None => send(from, Message::Supply(Supply::Nothing(wanted)), actions),
        }
    }

    /// Decided batches that are in memory, as many as one answer takes; nothing if the first one is not.
    fn retained(&self, first: InstanceId, last: InstanceId) -> Option<Vec<RecordedBatch>> {
        let mut batches = Vec::new();
        let mut bytes = 0_usize;
        let mut instance = first;
        while instance <= last && bytes < RANGE_BYTES_MAX && (batches.len() as u64) < RANGE_MAX {
            let Some(decided) = self.log.get(instance) else { break };
            let recorded =
                RecordedBatch { batch: Arc::clone(&decided.batch), requests: decided.requests.clone() };
            bytes = bytes.saturating_add(recorded.bytes());
            batches.push(recorded);
            instance = instance.next();
        }
        (!batches.is_empty()).then_some(batches)
    }
}
