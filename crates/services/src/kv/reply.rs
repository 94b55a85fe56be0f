//! A reply: what the store answers to one request.

use bytes::BufMut;

use super::answer::{Answer, Refusal};
use super::codec::{DecodeError, FORMAT, Reader};
use super::limits::OPERATIONS_MAX;

const REFUSED: u8 = 0;
const PIPELINE: u8 = 1;
const COMMITTED: u8 = 2;
const CONFLICT: u8 = 3;

/// A decoded reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The request could not be read: nothing was executed.
    Refused(Refusal),
    /// The answers to a pipeline's first operations. Those without an answer were not executed.
    Pipeline(Vec<Answer<'a>>),
    /// The answers to a transaction's operations, all of them.
    Committed(Vec<Answer<'a>>),
    /// A precondition did not hold: nothing was executed.
    Conflict,
}

impl<'a> Reply<'a> {
    /// Reads what the store wrote.
    pub fn decode(encoded: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(encoded);
        if from.u8()? != FORMAT {
            return Err(DecodeError::UnknownFormat);
        }
        let reply = match from.u8()? {
            REFUSED => Self::Refused(Refusal::decode(&mut from)?),
            PIPELINE => Self::Pipeline(from.list(OPERATIONS_MAX, Answer::decode)?),
            COMMITTED => Self::Committed(from.list(OPERATIONS_MAX, Answer::decode)?),
            CONFLICT => Self::Conflict,
            _ => return Err(DecodeError::UnknownTag),
        };
        from.finish()?;
        Ok(reply)
    }
}

/// Writes a reply, answer by answer.
#[derive(Debug)]
pub(super) struct ReplyWriter {
    out: Vec<u8>,
    count: u32,
}

impl ReplyWriter {
    pub(super) fn pipeline() -> Self {
        Self::answers(PIPELINE)
    }

    pub(super) fn committed() -> Self {
        Self::answers(COMMITTED)
    }

    pub(super) fn conflict() -> Vec<u8> {
        vec![FORMAT, CONFLICT]
    }

    pub(super) fn refused(refusal: Refusal) -> Vec<u8> {
        vec![FORMAT, REFUSED, refusal.tag()]
    }

    fn answers(kind: u8) -> Self {
        let mut out = Vec::with_capacity(64);
        out.put_slice(&[FORMAT, kind]);
        out.put_u32_le(0);
        Self { out, count: 0 }
    }

    pub(super) fn push(&mut self, answer: &Answer<'_>) {
        answer.encode(&mut self.out);
        self.count += 1;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.out.get_mut(2..6) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        self.out
    }
}
