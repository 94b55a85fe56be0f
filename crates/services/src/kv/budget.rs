//! What the operations of one request may still spend.

use super::answer::Refusal;
use super::limits::{ANSWER_BYTES_MAX, VISIT_WORK, WORK_MAX};

/// Bytes that each element of an answer costs beyond its content: tags and lengths, rounded up.
const ELEMENT_BYTES: usize = 8;

/// Room for answers and for work; an operation takes its share before it changes anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    answer_bytes: usize,
    work: u64,
}

impl Budget {
    /// Of a request that has just begun.
    pub(super) fn full() -> Self {
        Self { answer_bytes: ANSWER_BYTES_MAX, work: WORK_MAX }
    }

    /// Takes room for a key or value of `length` bytes in the answer.
    pub(super) fn take_answer(&mut self, length: usize) -> Result<(), Refusal> {
        let rest = self.answer_bytes.checked_sub(length.saturating_add(ELEMENT_BYTES));
        self.answer_bytes = rest.ok_or(Refusal::AnswerTooLong)?;
        Ok(())
    }

    /// Takes the work of visiting one entry and of `steps` of matching.
    pub(super) fn take_visit(&mut self, steps: u64) -> Result<(), Refusal> {
        self.work = self.work.checked_sub(VISIT_WORK + steps).ok_or(Refusal::TooMuchWork)?;
        Ok(())
    }
}

impl Refusal {
    /// Whether the operation might be executed as the first one of a request of its own.
    pub(super) fn is_for_want_of_room(self) -> bool {
        match self {
            Self::AnswerTooLong | Self::TooMuchWork => true,
            Self::Malformed
            | Self::KeyTooLong
            | Self::ValueTooLong
            | Self::TooManyParts
            | Self::NotAnInteger
            | Self::Overflow
            | Self::StoreFull => false,
        }
    }
}
