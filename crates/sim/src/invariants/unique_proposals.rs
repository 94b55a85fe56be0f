//! Unique proposals: no two correct leaders propose the same batch, and none proposes a batch again in another
//! regency. What a SYNC binds is proposed by that SYNC, and by no PROPOSE [PROPOSE-5, SYNC-3].
//!
//! The timestamp makes a batch its leader's own: the clocks of a schedule never show the same number.

use std::collections::BTreeMap;

use regency_protocol::ids::{Digest, Regency, ReplicaId};
use regency_protocol::message::Message;

use super::Violation;

/// Who proposed each batch, and when.
#[derive(Default)]
pub(crate) struct UniqueProposals(BTreeMap<Digest, (ReplicaId, Regency)>);

impl UniqueProposals {
    /// A correct replica sends this, in whichever of its lives.
    pub(crate) fn on_send(&mut self, by: ReplicaId, message: &Message) -> Result<(), Violation> {
        let Message::Propose(propose) = message else { return Ok(()) };
        let now = (by, propose.regency);
        let first = *self.0.entry(propose.batch.digest()).or_insert(now);
        if first == now {
            return Ok(());
        }
        let detail = format!(
            "replica {by} proposes in {} what replica {} proposed in {}: {:?}",
            propose.regency, first.0, first.1, propose.batch
        );
        Err(Violation::new("unique-proposals", detail))
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{InstanceId, ViewId};
    use regency_protocol::message::{Batch, Propose};
    use regency_protocol::time::Timestamp;

    use super::*;

    fn propose(regency: u64, timestamp: u64) -> Message {
        let (view, instance, timestamp) = (ViewId(0), InstanceId(1), Timestamp(timestamp));
        let batch = Batch { view, instance, timestamp, requests: Vec::new() };
        Message::Propose(Propose { regency: Regency(regency), batch: batch.into(), inline: Vec::new() })
    }

    #[test]
    fn a_proposal_may_come_again_only_from_its_leader_in_its_regency() {
        let mut proposals = UniqueProposals::default();
        assert!(proposals.on_send(ReplicaId(0), &propose(0, 7)).is_ok());
        assert!(proposals.on_send(ReplicaId(0), &propose(0, 7)).is_ok());
        assert!(proposals.on_send(ReplicaId(1), &propose(1, 8)).is_ok());
        assert!(proposals.on_send(ReplicaId(1), &propose(1, 7)).is_err());
        assert!(proposals.on_send(ReplicaId(0), &propose(4, 7)).is_err());
    }
}
