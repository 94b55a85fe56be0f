//! A counter: the smallest useful service, and the first one to read.
//!
//! Owns one number. Whoever orders an [`Operation`] gets the number after it as an [`Answer`].

use std::io::Read;

use bytes::Bytes;
use regency::{Context, Frozen, RestoreError, Service, Snapshot};

/// Bytes of an encoded [`Operation`] and of an encoded [`Answer`]: a tag and a little-endian number.
const ENCODED_BYTES: usize = 1 + 8;

/// What a client asks of the counter.
///
/// ```
/// use regency_services::counter::Operation;
///
/// let encoded = Operation::Add(-3).encode();
/// assert_eq!(Operation::decode(&encoded), Some(Operation::Add(-3)));
/// assert_eq!(Operation::decode(b"garbage"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The number, unchanged.
    Get,
    /// The number after this was added to it.
    Add(i64),
}

impl Operation {
    /// The form that is sent to the cluster.
    #[must_use]
    pub fn encode(self) -> Bytes {
        match self {
            Self::Get => encode(0, 0),
            Self::Add(amount) => encode(1, amount),
        }
    }

    /// Reads what [`Operation::encode`] wrote; `None` for any other bytes.
    #[must_use]
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        match decode(encoded)? {
            (0, 0) => Some(Self::Get),
            (1, amount) => Some(Self::Add(amount)),
            (_, _) => None,
        }
    }
}

/// What the counter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The number after the operation.
    Value(i64),
    /// The sum would leave the range of 64 bits: the number stays as it is.
    Overflow,
    /// The operation is not one of the counter's.
    Malformed,
}

impl Answer {
    /// The form that comes back from the cluster.
    #[must_use]
    pub fn encode(self) -> Bytes {
        match self {
            Self::Value(value) => encode(0, value),
            Self::Overflow => encode(1, 0),
            Self::Malformed => encode(2, 0),
        }
    }

    /// Reads what [`Answer::encode`] wrote; `None` for any other bytes, as another service would send.
    #[must_use]
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        match decode(encoded)? {
            (0, value) => Some(Self::Value(value)),
            (1, 0) => Some(Self::Overflow),
            (2, 0) => Some(Self::Malformed),
            (_, _) => None,
        }
    }
}

/// The service: one number that starts at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    value: i64,
}

impl Counter {
    /// The number as of the last executed operation.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.value
    }

    fn apply(&mut self, operation: Operation) -> Answer {
        let amount = match operation {
            Operation::Get => 0,
            Operation::Add(amount) => amount,
        };
        match self.value.checked_add(amount) {
            Some(sum) => {
                self.value = sum;
                Answer::Value(sum)
            }
            None => Answer::Overflow,
        }
    }
}

impl Service for Counter {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        Operation::decode(operation).map_or(Answer::Malformed, |operation| self.apply(operation)).encode()
    }

    /// The image is the number, little-endian.
    fn snapshot(&self) -> Box<dyn Snapshot> {
        Frozen::image(self.value.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.value = i64::from_le_bytes(Frozen::read(source)?);
        Ok(())
    }
}

fn encode(tag: u8, number: i64) -> Bytes {
    let mut encoded = [0; ENCODED_BYTES];
    encoded[0] = tag;
    encoded[1..].copy_from_slice(&number.to_le_bytes());
    Bytes::copy_from_slice(&encoded)
}

fn decode(encoded: &[u8]) -> Option<(u8, i64)> {
    let (tag, number) = encoded.split_first()?;
    Some((*tag, i64::from_le_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_answers_the_sum() {
        let mut counter = Counter::default();
        assert_eq!(counter.apply(Operation::Add(5)), Answer::Value(5));
        assert_eq!(counter.apply(Operation::Add(-7)), Answer::Value(-2));
        assert_eq!(counter.apply(Operation::Get), Answer::Value(-2));
    }

    #[test]
    fn overflow_is_refused_and_changes_nothing() {
        let mut counter = Counter { value: i64::MAX };
        assert_eq!(counter.apply(Operation::Add(1)), Answer::Overflow);
        assert_eq!(counter.value(), i64::MAX);
    }

    #[test]
    fn operations_and_answers_survive_encoding() {
        for operation in [Operation::Get, Operation::Add(0), Operation::Add(i64::MIN)] {
            assert_eq!(Operation::decode(&operation.encode()), Some(operation));
        }
        for answer in [Answer::Value(-1), Answer::Overflow, Answer::Malformed] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn a_restored_counter_counts_on_from_where_the_image_was_frozen() {
        let mut counter = Counter { value: -5 };
        let snapshot = counter.snapshot();
        counter.apply(Operation::Add(1));
        let mut image = Vec::new();
        snapshot.write(&mut image).unwrap();
        let mut restored = Counter { value: 77 };
        restored.restore(&mut &image[..]).unwrap();
        assert_eq!(restored, Counter { value: -5 });
        assert!(matches!(restored.restore(&mut &image[1..]), Err(RestoreError::Truncated)));
    }

    #[test]
    fn bytes_that_are_no_operation_are_refused() {
        assert_eq!(Operation::decode(&[]), None);
        assert_eq!(Operation::decode(&[1; 10]), None);
        assert_eq!(Operation::decode(&[0, 1, 0, 0, 0, 0, 0, 0, 0]), None, "a Get carries no number");
    }
}
