//! Agreement: no two correct replicas execute different things at one place of the order.

use bytes::Bytes;
use regency_protocol::action::Delivery;
use regency_protocol::ids::{Digest, InstanceId, ReplicaId};

use super::Violation;
use crate::service::Lists;

/// The order, as whoever came first executed it; everybody else must do the same.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The entry of instance `i` is at `i - 1`.
    entries: Vec<Executed>,
    service: Lists,
}

/// One executed instance.
pub(crate) struct Executed {
    /// What the first replica to come here was given.
    pub(crate) delivery: Delivery,
    /// What the service answered: it is deterministic, so once is enough.
    pub(crate) results: Vec<Bytes>,
}

impl Ledger {
    /// A correct replica executes; returns the results, and whether it is the first one at this instance.
    pub(crate) fn execute(
        &mut self,
        by: ReplicaId,
        delivery: &Delivery,
    ) -> Result<(Vec<Bytes>, bool), Violation> {
        let at = usize::try_from(delivery.instance.0.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some(executed) = self.entries.get(at) {
            if !is_same(&executed.delivery, delivery) {
                let detail =
                    format!("replica {by} executes {delivery:?}, but another one {:?}", executed.delivery);
                return Err(Violation::new("agreement", detail));
            }
            return Ok((executed.results.clone(), false));
        }
        if at != self.entries.len() {
            let detail =
                format!("replica {by} executes {} before {}", delivery.instance, self.entries.len() + 1);
            return Err(Violation::new("total-order", detail));
        }
        let results: Vec<Bytes> =
            delivery.operations.iter().map(|operation| self.service.execute(&operation.payload())).collect();
        self.entries.push(Executed { delivery: delivery.clone(), results: results.clone() });
        Ok((results, true))
    }

    /// A correct replica says that its chain at `executed` is this.
    pub(crate) fn check_chain(
        &self,
        by: ReplicaId,
        executed: InstanceId,
        chain: Digest,
    ) -> Result<(), Violation> {
        let at = usize::try_from(executed.0).unwrap_or(usize::MAX).checked_sub(1);
        match at.and_then(|at| self.entries.get(at)) {
            Some(entry) if entry.delivery.chain != chain => Err(Violation::new(
                "agreement",
                format!(
                    "replica {by} has another chain at {executed}: {chain}, not {}",
                    entry.delivery.chain
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// All that was executed, in order.
    pub(crate) fn entries(&self) -> &[Executed] {
        &self.entries
    }
}

/// The regency in which something was decided may differ from replica to replica.
fn is_same(one: &Delivery, other: &Delivery) -> bool {
    let Delivery { instance, view, regency: _, timestamp, chain, operations } = one;
    (instance, view, timestamp, chain) == (&other.instance, &other.view, &other.timestamp, &other.chain)
        && operations.len() == other.operations.len()
        && operations.iter().zip(&other.operations).all(|(a, b)| a.digest() == b.digest())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use regency_protocol::ids::{ClientId, Regency, Sequence, SessionId, ViewId};
    use regency_protocol::message::Request;
    use regency_protocol::time::Timestamp;

    use super::*;

    fn delivery(instance: u64, payload: u8) -> Delivery {
        let request = Request::ordered(ClientId([1; 32]), SessionId(1), Sequence(1), Sequence(1), &[payload]);
        Delivery {
            instance: InstanceId(instance),
            view: ViewId(0),
            regency: Regency(0),
            timestamp: Timestamp(instance),
            chain: Digest([0; 32]),
            operations: vec![Arc::new(request)],
        }
    }

    #[test]
    fn the_first_replica_sets_the_order_and_others_must_follow() {
        let mut ledger = Ledger::default();
        assert!(ledger.execute(ReplicaId(0), &delivery(1, 7)).is_ok_and(|(_, first)| first));
        assert!(ledger.execute(ReplicaId(1), &delivery(1, 7)).is_ok_and(|(_, first)| !first));
        let violation = ledger.execute(ReplicaId(2), &delivery(1, 8)).unwrap_err();
        assert_eq!(violation.invariant, "agreement");
        assert_eq!(ledger.execute(ReplicaId(0), &delivery(3, 7)).unwrap_err().invariant, "total-order");
    }

    #[test]
    fn another_chain_at_one_place_is_no_agreement() {
        let mut ledger = Ledger::default();
        ledger.execute(ReplicaId(0), &delivery(1, 7)).unwrap();
        assert!(ledger.check_chain(ReplicaId(1), InstanceId(1), Digest([0; 32])).is_ok());
        assert!(ledger.check_chain(ReplicaId(1), InstanceId(1), Digest([1; 32])).is_err());
    }
}
