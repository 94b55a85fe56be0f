//! Runs the service on what was decided, in the order in which it was decided [EXEC-1].
//!
//! By default on the replica's own thread: for a service that answers in microseconds, handing a batch to another
//! thread costs more than the work.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use regency_protocol::action::Delivery;

use crate::service::{Context, Operation, Service};
use crate::snapshot::{RestoreError, Snapshot};

/// The service and what running it has cost.
pub(super) struct Executor {
    service: Box<dyn Service>,
    operations: Vec<Operation>,
}

/// What came of a delivery.
pub(super) struct Execution {
    /// One result for each operation, in order.
    pub(super) results: Vec<Bytes>,
    /// How long the service took.
    pub(super) time: Duration,
}

impl Executor {
    /// An executor of `service`.
    pub(super) fn new(service: Box<dyn Service>) -> Self {
        Self { service, operations: Vec::new() }
    }

    /// Executes one delivery.
    ///
    /// # Panics
    ///
    /// If the service returns another number of results than it was given operations: replicas would diverge.
    pub(super) fn execute(&mut self, delivery: &Delivery) -> Execution {
        let count = delivery.operations.len();
        self.operations.clear();
        self.operations.extend(delivery.operations.iter().enumerate().map(|(position, request)| Operation {
            context: Context {
                timestamp: delivery.timestamp,
                client: request.client(),
                session: request.session(),
                sequence: request.sequence(),
                view: delivery.view,
                instance: delivery.instance,
                // A batch has at most 2^16 requests.
                position: u32::try_from(position).unwrap_or(u32::MAX),
                is_last: position + 1 == count,
                chain: delivery.chain,
            },
            payload: request.payload(),
        }));
        let begun = Instant::now();
        let results = self.service.execute_batch(&self.operations);
        assert_eq!(results.len(), count, "the service must return one result for each operation");
        self.operations.clear();
        Execution { results, time: begun.elapsed() }
    }

    /// Freezes the state as it is after everything that was executed.
    pub(super) fn snapshot(&self) -> Box<dyn Snapshot> {
        self.service.snapshot()
    }

    /// Takes the state of an image over.
    pub(super) fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.service.restore(source)
    }

    /// The image of the state, which is small: nothing was executed yet.
    pub(super) fn image(&self) -> Vec<u8> {
        let mut image = Vec::new();
        self.service.snapshot().write(&mut image).expect("memory takes every write");
        image
    }

    /// Goes back to the state of an image that the service has made itself.
    ///
    /// # Panics
    ///
    /// If the service refuses its own image: nothing may be executed on half of a state.
    pub(super) fn reset(&mut self, mut image: &[u8]) {
        self.service.restore(&mut image).expect("a service takes its own image back");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use regency_protocol::ids::{ClientId, Digest, InstanceId, Regency, Sequence, SessionId, ViewId};
    use regency_protocol::message::Request;
    use regency_protocol::time::Timestamp;

    use crate::snapshot::Frozen;

    use super::*;

    struct Echo;

    impl Service for Echo {
        fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
            let mut out = operation.to_vec();
            out.push(u8::try_from(context.position).unwrap());
            out.push(u8::from(context.is_last));
            out.into()
        }

        fn snapshot(&self) -> Box<dyn Snapshot> {
            Frozen::image([])
        }

        fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
            Frozen::read(source).map(|[]| ())
        }
    }

    #[test]
    fn operations_run_in_order_with_their_places() {
        let request = |sequence, payload: &[u8]| {
            let client = ClientId([1; 32]);
            Arc::new(Request::ordered(client, SessionId(1), Sequence(sequence), Sequence(0), payload))
        };
        let delivery = Delivery {
            instance: InstanceId(1),
            view: ViewId(0),
            regency: Regency(0),
            timestamp: Timestamp(5),
            chain: Digest([0; 32]),
            operations: vec![request(1, b"a"), request(2, b"b")],
        };
        let execution = Executor::new(Box::new(Echo)).execute(&delivery);
        assert_eq!(execution.results, [Bytes::from_static(b"a\0\0"), Bytes::from_static(b"b\x01\x01")]);
    }
}
