//! What the store answers to one operation. Values are borrowed, from the store or from a reply's bytes.

use std::borrow::Cow;
use std::time::Duration;

use bytes::BufMut;
use regency::protocol::ids::InstanceId;
use thiserror::Error;

use super::codec::{DecodeError, Reader, put_bytes, put_option};
use super::limits::{
    ANSWER_BYTES_MAX, KEY_BYTES_MAX, OPERATION_KEYS_MAX, SCAN_VISITS_MAX, VALUE_BYTES_MAX, WORK_MAX,
};
use super::version::{Observed, Version};

/// Keys in one answer: an [`Operation::Keys`](super::Operation::Keys) is refused before it finds more.
const ANSWER_KEYS_MAX: usize = WORK_MAX as usize;

/// The answer to one operation; which one an operation draws is said at [`Operation`](super::Operation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It was done.
    Done,
    /// Its condition did not hold: nothing was done.
    NotDone,
    /// There is no such key.
    Absent,
    /// A value.
    Value(Cow<'a, [u8]>),
    /// A number that was stored.
    Integer(i64),
    /// How many there are.
    Count(u64),
    /// A value, or `None`, for each key that was named.
    Values(Vec<Option<Cow<'a, [u8]>>>),
    /// Keys, in order.
    Keys(Vec<Cow<'a, [u8]>>),
    /// A page of a scan.
    Page {
        /// Keys in order, with their values if asked for.
        entries: Vec<PageEntry<'a>>,
        /// Scan after this key for the next page; `None`: this was the last one.
        next: Option<Cow<'a, [u8]>>,
    },
    /// How long a key will live.
    TimeToLive(TimeToLive),
    /// What was seen at each key that was named.
    Versions(Vec<Observed>),
    /// The value was not the expected one: nothing was done.
    Mismatch {
        /// The value that is there.
        current: Option<Cow<'a, [u8]>>,
    },
    /// The operation was refused: nothing was done.
    Refused(Refusal),
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEntry<'a> {
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// Its value, if the scan asked for values.
    pub value: Option<Cow<'a, [u8]>>,
}

/// How long a key will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    Absent,
    /// For ever.
    Endless,
    /// For this long after the operation's own time.
    Remaining(Duration),
}

/// Why a request or an operation was refused. A refused one has changed nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes of the request are not of the store's format.
    #[error("the request is malformed: another version, or another service's client?")]
    Malformed,
    /// A key in the request is too long.
    #[error("a key is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// A value is, or would become, too long.
    #[error("a value is or would be longer than {VALUE_BYTES_MAX} bytes")]
    ValueTooLong,
    /// More operations, keys or preconditions than their limit, or too long a pattern.
    #[error("the request holds too many operations, keys or preconditions, or too long a pattern")]
    TooManyParts,
    /// The value is no number.
    #[error("the value is not an integer or out of range")]
    NotAnInteger,
    /// The sum would leave the range of 64 bits.
    #[error("the increment would overflow")]
    Overflow,
    /// The store holds as much as it may.
    #[error("the store is full")]
    StoreFull,
    /// The answer would be longer than [`ANSWER_BYTES_MAX`].
    #[error("the answer would be longer than {ANSWER_BYTES_MAX} bytes: ask for less at once")]
    AnswerTooLong,
    /// The operation would visit too many entries.
    #[error("the operation would visit too many keys: scan them in pages")]
    TooMuchWork,
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnknownFormat
            | DecodeError::Truncated
            | DecodeError::TrailingBytes
            | DecodeError::UnknownTag => Self::Malformed,
            DecodeError::KeyTooLong => Self::KeyTooLong,
            DecodeError::ValueTooLong => Self::ValueTooLong,
            DecodeError::PatternTooLong | DecodeError::TooManyParts => Self::TooManyParts,
        }
    }
}

const DONE: u8 = 1;
const NOT_DONE: u8 = 2;
const ABSENT: u8 = 3;
const VALUE: u8 = 4;
const INTEGER: u8 = 5;
const COUNT: u8 = 6;
const VALUES: u8 = 7;
const KEYS: u8 = 8;
const PAGE: u8 = 9;
const TIME_TO_LIVE: u8 = 10;
const VERSIONS: u8 = 11;
const MISMATCH: u8 = 12;
const REFUSED: u8 = 13;

impl<'a> Answer<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.put_u8(DONE),
            Self::NotDone => out.put_u8(NOT_DONE),
            Self::Absent => out.put_u8(ABSENT),
            Self::Value(value) => {
                out.put_u8(VALUE);
                put_bytes(out, value);
            }
            Self::Integer(number) => {
                out.put_u8(INTEGER);
                out.put_i64_le(*number);
            }
            Self::Count(count) => {
                out.put_u8(COUNT);
                out.put_u64_le(*count);
            }
            Self::Values(values) => {
                put_list(out, VALUES, values, |out, value| put_option(out, value.as_deref(), put_bytes));
            }
            Self::Keys(keys) => put_list(out, KEYS, keys, |out, key| put_bytes(out, key)),
            Self::Page { entries, next } => {
                put_list(out, PAGE, entries, |out, PageEntry { key, value }| {
                    put_bytes(out, key);
                    put_option(out, value.as_deref(), put_bytes);
                });
                put_option(out, next.as_deref(), put_bytes);
            }
            Self::TimeToLive(time) => {
                out.put_u8(TIME_TO_LIVE);
                time.encode(out);
            }
            Self::Versions(versions) => {
                put_list(out, VERSIONS, versions, |out, observed| observed.encode(out));
            }
            Self::Mismatch { current } => {
                out.put_u8(MISMATCH);
                put_option(out, current.as_deref(), put_bytes);
            }
            Self::Refused(refusal) => {
                out.put_u8(REFUSED);
                out.put_u8(refusal.tag());
            }
        }
    }

    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            DONE => Self::Done,
            NOT_DONE => Self::NotDone,
            ABSENT => Self::Absent,
            VALUE => Self::Value(cow(from)?),
            INTEGER => Self::Integer(from.i64()?),
            COUNT => Self::Count(from.u64()?),
            VALUES => Self::Values(from.list(OPERATION_KEYS_MAX, |from| from.option(cow))?),
            KEYS => Self::Keys(from.list(ANSWER_KEYS_MAX, cow)?),
            PAGE => {
                let most = usize::try_from(SCAN_VISITS_MAX).unwrap_or(usize::MAX);
                let entries =
                    from.list(most, |from| Ok(PageEntry { key: cow(from)?, value: from.option(cow)? }))?;
                Self::Page { entries, next: from.option(cow)? }
            }
            TIME_TO_LIVE => Self::TimeToLive(TimeToLive::decode(from)?),
            VERSIONS => Self::Versions(from.list(OPERATION_KEYS_MAX, Observed::decode)?),
            MISMATCH => Self::Mismatch { current: from.option(cow)? },
            REFUSED => Self::Refused(Refusal::decode(from)?),
            _ => return Err(DecodeError::UnknownTag),
        })
    }
}

impl TimeToLive {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Absent => out.put_u8(0),
            Self::Endless => out.put_u8(1),
            Self::Remaining(duration) => {
                out.put_u8(2);
                out.put_u64_le(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::Absent),
            1 => Ok(Self::Endless),
            2 => Ok(Self::Remaining(Duration::from_micros(from.u64()?))),
            _ => Err(DecodeError::UnknownTag),
        }
    }
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Malformed,
        Self::KeyTooLong,
        Self::ValueTooLong,
        Self::TooManyParts,
        Self::NotAnInteger,
        Self::Overflow,
        Self::StoreFull,
        Self::AnswerTooLong,
        Self::TooMuchWork,
    ];

    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Malformed => 0,
            Self::KeyTooLong => 1,
            Self::ValueTooLong => 2,
            Self::TooManyParts => 3,
            Self::NotAnInteger => 4,
            Self::Overflow => 5,
            Self::StoreFull => 6,
            Self::AnswerTooLong => 7,
            Self::TooMuchWork => 8,
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::ALL.get(usize::from(from.u8()?)).copied().ok_or(DecodeError::UnknownTag)
    }
}

impl Observed {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Absent => out.put_u8(0),
            Self::Present(Version { instance, change }) => {
                out.put_u8(1);
                out.put_u64_le(instance.0);
                out.put_u32_le(change);
            }
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if !from.bool()? {
            return Ok(Self::Absent);
        }
        Ok(Self::Present(Version { instance: InstanceId(from.u64()?), change: from.u32()? }))
    }
}

fn put_list<T>(out: &mut Vec<u8>, tag: u8, elements: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    out.put_u8(tag);
    out.put_u32_le(u32::try_from(elements.len()).unwrap_or(u32::MAX));
    for element in elements {
        put(out, element);
    }
}

fn cow<'a>(from: &mut Reader<'a>) -> Result<Cow<'a, [u8]>, DecodeError> {
    from.value().map(Cow::Borrowed)
}
