//! The user's state machine: what a replica runs and what it is told about each operation.
//!
//! The executor calls it, on one thread, in the total order. Everything here must be deterministic: the same
//! operations in the same contexts give the same results and the same state on every machine.

use std::io::Read;

use bytes::Bytes;
use regency_protocol::digest::{Domain, Hasher};
use regency_protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId, ViewId};
use regency_protocol::time::Timestamp;

use crate::snapshot::{RestoreError, Snapshot};

/// A deterministic service, replicated by running one instance of it in every replica.
///
/// ```
/// use std::io::Read;
///
/// use regency::{Bytes, Context, Frozen, RestoreError, Service, Snapshot};
///
/// struct Counter(i64);
///
/// impl Service for Counter {
///     fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
///         let delta = operation.try_into().map(i64::from_le_bytes).unwrap_or(0);
///         self.0 = self.0.wrapping_add(delta);
///         Bytes::copy_from_slice(&self.0.to_le_bytes())
///     }
///
///     fn snapshot(&self) -> Box<dyn Snapshot> {
///         Frozen::image(self.0.to_le_bytes())
///     }
///
///     fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
///         self.0 = i64::from_le_bytes(Frozen::read(source)?);
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + 'static {
    /// Executes one ordered operation and returns its result.
    ///
    /// Must not panic on any input, must not look at clocks, randomness, environment or addresses: time and
    /// randomness are in `context`. A result above `result_bytes_max` reaches the client as a refusal.
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes;

    /// Executes the operations of one batch, in order; one result for each. By default, one by one.
    fn execute_batch(&mut self, batch: &[Operation]) -> Vec<Bytes> {
        batch.iter().map(|operation| self.execute(&operation.context, &operation.payload)).collect()
    }

    /// Judges an operation before it is ordered: a pure function of the operation, the same at every replica.
    ///
    /// What depends on state belongs into [`Service::execute`] [REQ-7]. A leader that proposes what this refuses
    /// is faulty. Returns the validator to be used from then on, or `None` if every operation is acceptable.
    fn validator(&self) -> Option<Validator> {
        None
    }

    /// Freezes the state as it is between two batches, at once: no operation runs before this returns.
    ///
    /// A large state shares its structure with the snapshot and copies what it changes afterwards; a small one is
    /// a [`Frozen`](crate::Frozen) image. Equal states must have equal images, whatever led to them: everything
    /// that later results depend on belongs into it, and nothing else [CKPT-1].
    fn snapshot(&self) -> Box<dyn Snapshot>;

    /// Replaces the whole state by that of an image, read to its end.
    ///
    /// Must not panic on any bytes, nor take memory for a length that they claim before they are there. After an
    /// error the state is unspecified: nothing is executed before another image has been restored.
    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError>;
}

/// Whether an operation of a client may be ordered; see [`Service::validator`].
pub type Validator = Box<dyn Fn(&ClientId, &[u8]) -> bool + Send>;

/// One operation with its context, as [`Service::execute_batch`] gets it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Where and when it stands.
    pub context: Context,
    /// What to execute.
    pub payload: Bytes,
}

/// What a service may know about the operation that it executes: equal at every replica.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Ordered time: never goes back, agreed on by the replicas [PROPOSE-4].
    pub timestamp: Timestamp,
    /// The client that sent the operation.
    pub client: ClientId,
    /// Its session.
    pub session: SessionId,
    /// The operation's number in the session.
    pub sequence: Sequence,
    /// The view in which it was ordered.
    pub view: ViewId,
    /// The instance that ordered it.
    pub instance: InstanceId,
    /// Its position among the executed operations of the instance, from 0.
    pub position: u32,
    /// Whether it is the last one of the instance.
    pub is_last: bool,
    /// The chain at the instance: the source of [`Context::randomness`].
    pub chain: Digest,
}

impl Context {
    /// 32 bytes, different for every operation, equal at every replica, unpredictable before the proposal.
    ///
    /// A Byzantine leader may bias them by choosing among proposals: draw no lottery with them.
    #[must_use]
    pub fn randomness(&self) -> [u8; 32] {
        Hasher::new(Domain::Randomness).bytes(&self.chain.0).number(u64::from(self.position)).finish().0
    }
}
