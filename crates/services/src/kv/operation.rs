//! What a client may ask of the store. Operations borrow their keys and values from whoever encodes them.

use std::time::Duration;

use bytes::BufMut;
use regency::protocol::time::Timestamp;

use super::codec::{DecodeError, Reader, put_bytes, put_key, put_keys, put_option};
use super::limits::{OPERATION_KEYS_MAX, PATTERN_BYTES_MAX};

/// One operation. What it answers is said with each; any may be [refused](super::Refusal) instead, and has then
/// changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The value of a key: `Value` or `Absent`.
    Get {
        /// Of this key.
        key: &'a [u8],
    },
    /// The values of many keys: `Values`.
    GetMany {
        /// Of these keys, in this order.
        keys: Vec<&'a [u8]>,
    },
    /// Sets a key.
    Put(Put<'a>),
    /// Sets many keys, for ever: `Done`, or `NotDone` if one of them exists and none may.
    PutMany {
        /// Keys and values; of equal keys the last one holds.
        pairs: Vec<(&'a [u8], &'a [u8])>,
        /// Whether to set none if one of the keys exists.
        only_if_all_absent: bool,
    },
    /// Deletes a key and answers what it was: `Value` or `Absent`.
    Take {
        /// This key.
        key: &'a [u8],
    },
    /// Deletes keys: `Count` of those that existed.
    Delete {
        /// These keys.
        keys: Vec<&'a [u8]>,
    },
    /// `Count` of the keys that exist; one named twice counts twice.
    Exists {
        /// These keys.
        keys: Vec<&'a [u8]>,
    },
    /// Sets or deletes a key if its value is the expected one: `Done` or `Mismatch`.
    CompareAndSet {
        /// This key.
        key: &'a [u8],
        /// The value that it must have; `None`: it must be absent.
        expected: Option<&'a [u8]>,
        /// The value that it gets, for ever; `None`: it is deleted.
        new: Option<&'a [u8]>,
    },
    /// Adds to the number at a key, 0 if absent: `Integer`. Its deadline stays.
    Increment {
        /// This key.
        key: &'a [u8],
        /// What to add.
        by: i64,
    },
    /// Appends to the value of a key, empty if absent: `Count` of its bytes. Its deadline stays.
    Append {
        /// This key.
        key: &'a [u8],
        /// What to append.
        value: &'a [u8],
    },
    /// `Count` of the bytes of a value, 0 if absent.
    Length {
        /// Of this key.
        key: &'a [u8],
    },
    /// `Count` of all keys.
    Count,
    /// A page of keys in order.
    Scan(Scan<'a>),
    /// All keys that match a pattern: `Keys`; refused where that means too much work.
    Keys {
        /// The pattern.
        pattern: &'a [u8],
    },
    /// Deletes every key: `Done`.
    Clear,
    /// Sets the deadline of a key: `Done`, or `NotDone` if it is absent or the condition fails.
    Expire {
        /// Of this key.
        key: &'a [u8],
        /// One that has passed deletes the key.
        deadline: Deadline,
        /// When to do it.
        condition: ExpireCondition,
    },
    /// Removes the deadline of a key: `Done`, or `NotDone` if it is absent or has none.
    Persist {
        /// Of this key.
        key: &'a [u8],
    },
    /// How long a key will live: `TimeToLive`.
    TimeToLive {
        /// This key.
        key: &'a [u8],
    },
    /// The last changes of keys, for the preconditions of a transaction: `Versions`.
    Observe {
        /// Of these keys, in this order.
        keys: Vec<&'a [u8]>,
    },
}

/// Sets a key: `Done`, or `NotDone` if the condition fails; with `returns_old` what was there instead, `Value`
/// or `Absent`, whether it was set or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// This key.
    pub key: &'a [u8],
    /// To this value.
    pub value: &'a [u8],
    /// When to do it.
    pub condition: PutCondition,
    /// For how long.
    pub expiry: PutExpiry,
    /// Whether to answer the value that was there before.
    pub returns_old: bool,
}

/// A page of keys in byte order: `Page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// Only keys above this one: what the page before said; `None`: from the first.
    pub after: Option<&'a [u8]>,
    /// Only keys that match this.
    pub pattern: Option<&'a [u8]>,
    /// Entries to visit, at most [`SCAN_VISITS_MAX`](super::limits::SCAN_VISITS_MAX), whether they match or not.
    pub visits: u32,
    /// Whether to answer the values, too.
    pub with_values: bool,
}

/// When a [`Put`] is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutCondition {
    /// In any case.
    Always,
    /// If the key is absent.
    IfAbsent,
    /// If the key is there.
    IfPresent,
}

/// How long what a [`Put`] sets will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutExpiry {
    /// For ever.
    Never,
    /// As long as what was there before.
    Keep,
    /// Until then.
    At(Deadline),
}

/// A point in ordered time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// This long after the operation's own time.
    After(Duration),
    /// This very point.
    At(Timestamp),
}

impl Deadline {
    /// The point that it means in an operation executed `now`.
    #[must_use]
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::After(duration) => now.plus(duration),
            Self::At(timestamp) => timestamp,
        }
    }
}

/// When an [`Operation::Expire`] is done. A key without a deadline counts as one that lives longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireCondition {
    /// In any case.
    Always,
    /// If the key has no deadline.
    IfNone,
    /// If the key has a deadline.
    IfSome,
    /// If the key has a deadline and the new one is later.
    IfLater,
    /// If the new deadline is earlier, or the key has none.
    IfEarlier,
    /// If the key has a deadline, and the new one is earlier.
    IfSomeAndEarlier,
}

const GET: u8 = 1;
const GET_MANY: u8 = 2;
const PUT: u8 = 3;
const PUT_MANY: u8 = 4;
const TAKE: u8 = 5;
const DELETE: u8 = 6;
const EXISTS: u8 = 7;
const COMPARE_AND_SET: u8 = 8;
const INCREMENT: u8 = 9;
const APPEND: u8 = 10;
const LENGTH: u8 = 11;
const COUNT: u8 = 12;
const SCAN: u8 = 13;
const KEYS: u8 = 14;
const CLEAR: u8 = 15;
const EXPIRE: u8 = 16;
const PERSIST: u8 = 17;
const TIME_TO_LIVE: u8 = 18;
const OBSERVE: u8 = 19;

impl<'a> Operation<'a> {
    /// Sets `key` to `value` for ever, whatever was there.
    #[must_use]
    pub fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        let (condition, expiry) = (PutCondition::Always, PutExpiry::Never);
        Self::Put(Put { key, value, condition, expiry, returns_old: false })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Get { key } => put_keyed(out, GET, key),
            Self::GetMany { keys } => put_many_keyed(out, GET_MANY, keys),
            Self::Put(put) => put.encode(out),
            Self::PutMany { pairs, only_if_all_absent } => {
                out.put_u8(PUT_MANY);
                out.put_u8(u8::from(*only_if_all_absent));
                out.put_u32_le(u32::try_from(pairs.len()).unwrap_or(u32::MAX));
                for (key, value) in pairs {
                    put_key(out, key);
                    put_bytes(out, value);
                }
            }
            Self::Take { key } => put_keyed(out, TAKE, key),
            Self::Delete { keys } => put_many_keyed(out, DELETE, keys),
            Self::Exists { keys } => put_many_keyed(out, EXISTS, keys),
            Self::CompareAndSet { key, expected, new } => {
                put_keyed(out, COMPARE_AND_SET, key);
                put_option(out, *expected, put_bytes);
                put_option(out, *new, put_bytes);
            }
            Self::Increment { key, by } => {
                put_keyed(out, INCREMENT, key);
                out.put_i64_le(*by);
            }
            Self::Append { key, value } => {
                put_keyed(out, APPEND, key);
                put_bytes(out, value);
            }
            Self::Length { key } => put_keyed(out, LENGTH, key),
            Self::Count => out.put_u8(COUNT),
            Self::Scan(scan) => scan.encode(out),
            Self::Keys { pattern } => put_keyed(out, KEYS, pattern),
            Self::Clear => out.put_u8(CLEAR),
            Self::Expire { key, deadline, condition } => {
                put_keyed(out, EXPIRE, key);
                deadline.encode(out);
                out.put_u8(condition.tag());
            }
            Self::Persist { key } => put_keyed(out, PERSIST, key),
            Self::TimeToLive { key } => put_keyed(out, TIME_TO_LIVE, key),
            Self::Observe { keys } => put_many_keyed(out, OBSERVE, keys),
        }
    }

    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            GET => Self::Get { key: from.key()? },
            GET_MANY => Self::GetMany { keys: from.keys()? },
            PUT => Self::Put(Put::decode(from)?),
            PUT_MANY => Self::decode_put_many(from)?,
            TAKE => Self::Take { key: from.key()? },
            DELETE => Self::Delete { keys: from.keys()? },
            EXISTS => Self::Exists { keys: from.keys()? },
            COMPARE_AND_SET => {
                let key = from.key()?;
                Self::CompareAndSet {
                    key,
                    expected: from.option(Reader::value)?,
                    new: from.option(Reader::value)?,
                }
            }
            INCREMENT => Self::Increment { key: from.key()?, by: from.i64()? },
            APPEND => Self::Append { key: from.key()?, value: from.value()? },
            LENGTH => Self::Length { key: from.key()? },
            COUNT => Self::Count,
            SCAN => Self::Scan(Scan::decode(from)?),
            KEYS => Self::Keys { pattern: decode_pattern(from)? },
            CLEAR => Self::Clear,
            EXPIRE => Self::Expire {
                key: from.key()?,
                deadline: Deadline::decode(from)?,
                condition: ExpireCondition::decode(from)?,
            },
            PERSIST => Self::Persist { key: from.key()? },
            TIME_TO_LIVE => Self::TimeToLive { key: from.key()? },
            OBSERVE => Self::Observe { keys: from.keys()? },
            _ => return Err(DecodeError::UnknownTag),
        })
    }

    fn decode_put_many(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let only_if_all_absent = from.bool()?;
        let pairs = from.list(OPERATION_KEYS_MAX, |from| Ok((from.key()?, from.value()?)))?;
        Ok(Self::PutMany { pairs, only_if_all_absent })
    }
}

impl<'a> Put<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_keyed(out, PUT, self.key);
        put_bytes(out, self.value);
        out.put_u8(match self.condition {
            PutCondition::Always => 0,
            PutCondition::IfAbsent => 1,
            PutCondition::IfPresent => 2,
        });
        match self.expiry {
            PutExpiry::Never => out.put_u8(0),
            PutExpiry::Keep => out.put_u8(1),
            PutExpiry::At(deadline) => {
                out.put_u8(2);
                deadline.encode(out);
            }
        }
        out.put_u8(u8::from(self.returns_old));
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (key, value) = (from.key()?, from.value()?);
        let condition = match from.u8()? {
            0 => PutCondition::Always,
            1 => PutCondition::IfAbsent,
            2 => PutCondition::IfPresent,
            _ => return Err(DecodeError::UnknownTag),
        };
        let expiry = match from.u8()? {
            0 => PutExpiry::Never,
            1 => PutExpiry::Keep,
            2 => PutExpiry::At(Deadline::decode(from)?),
            _ => return Err(DecodeError::UnknownTag),
        };
        Ok(Self { key, value, condition, expiry, returns_old: from.bool()? })
    }
}

impl<'a> Scan<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_keyed(out, SCAN, self.prefix);
        put_option(out, self.after, put_key);
        put_option(out, self.pattern, put_key);
        out.put_u32_le(self.visits);
        out.put_u8(u8::from(self.with_values));
    }

    fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (prefix, after) = (from.key()?, from.option(Reader::key)?);
        let pattern = from.option(decode_pattern)?;
        Ok(Self { prefix, after, pattern, visits: from.u32()?, with_values: from.bool()? })
    }
}

impl Deadline {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::After(duration) => {
                out.put_u8(0);
                out.put_u64_le(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
            }
            Self::At(timestamp) => {
                out.put_u8(1);
                out.put_u64_le(timestamp.0);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::After(Duration::from_micros(from.u64()?))),
            1 => Ok(Self::At(Timestamp(from.u64()?))),
            _ => Err(DecodeError::UnknownTag),
        }
    }
}

impl ExpireCondition {
    const ALL: [Self; 6] =
        [Self::Always, Self::IfNone, Self::IfSome, Self::IfLater, Self::IfEarlier, Self::IfSomeAndEarlier];

    fn tag(self) -> u8 {
        match self {
            Self::Always => 0,
            Self::IfNone => 1,
            Self::IfSome => 2,
            Self::IfLater => 3,
            Self::IfEarlier => 4,
            Self::IfSomeAndEarlier => 5,
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::ALL.get(usize::from(from.u8()?)).copied().ok_or(DecodeError::UnknownTag)
    }
}

fn put_keyed(out: &mut Vec<u8>, tag: u8, key: &[u8]) {
    out.put_u8(tag);
    put_key(out, key);
}

fn put_many_keyed(out: &mut Vec<u8>, tag: u8, keys: &[&[u8]]) {
    out.put_u8(tag);
    put_keys(out, keys);
}

fn decode_pattern<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let pattern = from.key()?;
    if pattern.len() > PATTERN_BYTES_MAX { Err(DecodeError::PatternTooLong) } else { Ok(pattern) }
}
