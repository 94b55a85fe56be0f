//! Gap-free total order: each replica executes 1, 2, 3, …, none twice, none left out.

use std::collections::BTreeMap;

use regency_protocol::ids::{InstanceId, ReplicaId};

use super::Violation;

/// How far each replica has executed since it started.
#[derive(Default)]
pub(crate) struct TotalOrder(BTreeMap<ReplicaId, InstanceId>);

impl TotalOrder {
    /// A replica starts again, with all up to `executed` executed.
    pub(crate) fn on_start(&mut self, replica: ReplicaId, executed: InstanceId) {
        self.0.insert(replica, executed);
    }

    /// A correct replica executes `instance`.
    pub(crate) fn on_execute(&mut self, by: ReplicaId, instance: InstanceId) -> Result<(), Violation> {
        let last = self.0.entry(by).or_default();
        if instance != last.next() {
            let detail = format!("replica {by} executes {instance} after {last}");
            return Err(Violation::new("total-order", detail));
        }
        *last = instance;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_repetition_are_noticed() {
        let mut order = TotalOrder::default();
        let [a, b] = [ReplicaId(0), ReplicaId(1)];
        assert!(order.on_execute(a, InstanceId(1)).is_ok());
        assert!(order.on_execute(b, InstanceId(1)).is_ok());
        assert!(order.on_execute(a, InstanceId(3)).is_err());
        assert!(order.on_execute(a, InstanceId(1)).is_err());
        order.on_start(a, InstanceId(0));
        assert!(order.on_execute(a, InstanceId(1)).is_ok());
        order.on_start(a, InstanceId(7));
        assert!(order.on_execute(a, InstanceId(8)).is_ok());
    }
}
