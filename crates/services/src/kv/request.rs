//! A request: what one ordered operation of the cluster asks of the store.

use bytes::{BufMut, Bytes};

use super::codec::{DecodeError, FORMAT, Reader, put_key};
use super::limits::{OPERATIONS_MAX, PRECONDITIONS_MAX};
use super::operation::Operation;
use super::version::Observed;

const PIPELINE: u8 = 1;
const TRANSACTION: u8 = 2;
/// Bytes before the operations of a pipeline: format, kind, count.
const PIPELINE_HEADER_BYTES: usize = 1 + 1 + 4;

/// A decoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Operations executed in order, each for itself. Where the answers to some do not fit one reply, it ends
    /// before the first of these, and the client asks again for the rest.
    Pipeline(Vec<Operation<'a>>),
    /// Operations executed if all preconditions hold, else not at all. As in Redis, an operation that is
    /// refused for itself does not keep the others from being executed.
    Transaction {
        /// What must hold.
        preconditions: Vec<Precondition<'a>>,
        /// What is executed then, in order.
        operations: Vec<Operation<'a>>,
    },
}

/// A key must be as it was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precondition<'a> {
    /// This key.
    pub key: &'a [u8],
    /// What [`Operation::Observe`] answered.
    pub observed: Observed,
}

impl<'a> Request<'a> {
    /// Reads what a [`RequestWriter`] or [`QueuedOperations`] wrote.
    pub fn decode(encoded: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(encoded);
        if from.u8()? != FORMAT {
            return Err(DecodeError::UnknownFormat);
        }
        let request = match from.u8()? {
            PIPELINE => Self::Pipeline(from.list(OPERATIONS_MAX, Operation::decode)?),
            TRANSACTION => {
                let preconditions = from.list(PRECONDITIONS_MAX, |from| {
                    Ok(Precondition { key: from.key()?, observed: Observed::decode(from)? })
                })?;
                let operations = from.list(OPERATIONS_MAX, Operation::decode)?;
                Self::Transaction { preconditions, operations }
            }
            _ => return Err(DecodeError::UnknownTag),
        };
        from.finish()?;
        Ok(request)
    }
}

/// Writes a pipeline, operation by operation, straight into the bytes that are ordered.
///
/// ```
/// use regency_services::kv::{Operation, Request, RequestWriter};
///
/// let mut writer = RequestWriter::default();
/// writer.push(&Operation::put(b"k", b"v"), usize::MAX);
/// writer.push(&Operation::Get { key: b"k" }, usize::MAX);
/// let encoded = writer.finish();
/// let request = Request::decode(&encoded)?;
/// assert_eq!(request, Request::Pipeline(vec![Operation::put(b"k", b"v"), Operation::Get { key: b"k" }]));
/// # Ok::<(), regency_services::kv::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestWriter {
    /// The encoded operations, without header.
    operations: QueuedOperations,
}

impl RequestWriter {
    /// Appends `operation`, unless the request would exceed `bytes_max` or [`OPERATIONS_MAX`]; says whether it did.
    pub fn push(&mut self, operation: &Operation<'_>, bytes_max: usize) -> bool {
        self.operations.push(operation, bytes_max.saturating_sub(PIPELINE_HEADER_BYTES))
    }

    /// Operations so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.operations.count()
    }

    /// The request; the writer is empty then.
    pub fn finish(&mut self) -> Bytes {
        let operations = std::mem::take(&mut self.operations);
        encode_pipeline(operations.count(), &operations.encoded)
    }

    /// Where each operation begins in the request that [`RequestWriter::finish`] will give.
    #[must_use]
    pub fn starts(&self) -> Vec<usize> {
        self.operations.starts.iter().map(|start| start + PIPELINE_HEADER_BYTES).collect()
    }

    /// What is left of `request`, a pipeline, when operations before the one that begins at `start` are done.
    #[must_use]
    pub fn rest(request: &Bytes, start: usize, count: usize) -> Bytes {
        encode_pipeline(count, request.get(start..).unwrap_or_default())
    }

    /// A request with this one operation.
    #[must_use]
    pub fn single(operation: &Operation<'_>) -> Bytes {
        let mut writer = Self::default();
        writer.push(operation, usize::MAX);
        writer.finish()
    }
}

/// Encoded operations that wait for the end of their transaction.
#[derive(Clone, Debug, Default)]
pub struct QueuedOperations {
    encoded: Vec<u8>,
    starts: Vec<usize>,
}

impl QueuedOperations {
    /// Appends `operation`, unless there would be more than `bytes_max` or [`OPERATIONS_MAX`]; says whether it did.
    pub fn push(&mut self, operation: &Operation<'_>, bytes_max: usize) -> bool {
        let start = self.encoded.len();
        if self.starts.len() >= OPERATIONS_MAX {
            return false;
        }
        operation.encode(&mut self.encoded);
        if self.encoded.len() > bytes_max {
            self.encoded.truncate(start);
            return false;
        }
        self.starts.push(start);
        true
    }

    /// Operations so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The transaction that executes them if all `preconditions` hold.
    #[must_use]
    pub fn transaction<'k>(&self, preconditions: impl ExactSizeIterator<Item = Precondition<'k>>) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded.len() + 16 + preconditions.len() * 64);
        out.put_u8(FORMAT);
        out.put_u8(TRANSACTION);
        put_count(&mut out, preconditions.len());
        for Precondition { key, observed } in preconditions {
            put_key(&mut out, key);
            observed.encode(&mut out);
        }
        put_count(&mut out, self.starts.len());
        out.put_slice(&self.encoded);
        Bytes::from(out)
    }
}

fn encode_pipeline(count: usize, operations: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PIPELINE_HEADER_BYTES + operations.len());
    out.put_u8(FORMAT);
    out.put_u8(PIPELINE);
    put_count(&mut out, count);
    out.put_slice(operations);
    Bytes::from(out)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}
