//! Commands into operations of the store: pure functions of the arguments.

use std::time::Duration;

use regency::protocol::time::Timestamp;

use super::command::StoreVerb;
use super::error::{CommandError, shown};
use super::parser::Arguments;
use super::render::Rendering;
use crate::kv::limits::{KEY_BYTES_MAX, OPERATION_KEYS_MAX, PATTERN_BYTES_MAX, VALUE_BYTES_MAX};
use crate::kv::{Deadline, ExpireCondition, Operation, Put, PutCondition, PutExpiry, Scan, parse_integer};

/// Entries that a SCAN visits unless it says otherwise, as in Redis.
const SCAN_COUNT: u32 = 10;

/// What a command asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Translation<'a> {
    /// One operation, and how its answer is to be shown.
    Ask(Operation<'a>, Rendering),
    /// The next page after a cursor.
    Scan { cursor: u64, scan: Scan<'a> },
    /// A page of keys of a type that the store does not have.
    EmptyPage,
}

type Translated<'a> = Result<Translation<'a>, CommandError>;

/// Translates a command whose number of arguments has been checked.
pub(super) fn translate<'a>(verb: StoreVerb, arguments: &Arguments<'a>) -> Translated<'a> {
    let (operation, rendering) = match verb {
        StoreVerb::Append => {
            let operation = Operation::Append { key: key(arguments, 1)?, value: value(arguments, 2)? };
            (operation, Rendering::Number)
        }
        StoreVerb::DbSize => (Operation::Count, Rendering::Number),
        StoreVerb::Decr => (Operation::Increment { key: key(arguments, 1)?, by: -1 }, Rendering::Number),
        StoreVerb::DecrBy => {
            let by = integer(arguments.at(2))?.checked_neg().ok_or(CommandError::DecrementOverflow)?;
            (Operation::Increment { key: key(arguments, 1)?, by }, Rendering::Number)
        }
        StoreVerb::Del => (Operation::Delete { keys: keys(arguments)? }, Rendering::Number),
        StoreVerb::Exists => (Operation::Exists { keys: keys(arguments)? }, Rendering::Number),
        StoreVerb::Expire => expire(arguments, "expire", Unit::Seconds, Start::Now)?,
        StoreVerb::ExpireAt => expire(arguments, "expireat", Unit::Seconds, Start::Epoch)?,
        StoreVerb::Flush => flush(arguments)?,
        StoreVerb::Get => (Operation::Get { key: key(arguments, 1)? }, Rendering::Bulk),
        StoreVerb::GetDel => (Operation::Take { key: key(arguments, 1)? }, Rendering::Bulk),
        StoreVerb::GetSet => {
            let put = Put { returns_old: true, ..plain_put(arguments, 2)? };
            (Operation::Put(put), Rendering::Bulk)
        }
        StoreVerb::Incr => (Operation::Increment { key: key(arguments, 1)?, by: 1 }, Rendering::Number),
        StoreVerb::IncrBy => {
            let by = integer(arguments.at(2))?;
            (Operation::Increment { key: key(arguments, 1)?, by }, Rendering::Number)
        }
        StoreVerb::Keys => (Operation::Keys { pattern: pattern(arguments.at(1))? }, Rendering::Keys),
        StoreVerb::MGet => (Operation::GetMany { keys: keys(arguments)? }, Rendering::Values),
        StoreVerb::MSet => {
            let pairs = pairs(arguments, "mset")?;
            (Operation::PutMany { pairs, only_if_all_absent: false }, Rendering::Ok)
        }
        StoreVerb::MSetNx => {
            let pairs = pairs(arguments, "msetnx")?;
            (Operation::PutMany { pairs, only_if_all_absent: true }, Rendering::Boolean)
        }
        StoreVerb::Persist => (Operation::Persist { key: key(arguments, 1)? }, Rendering::Boolean),
        StoreVerb::PExpire => expire(arguments, "pexpire", Unit::Milliseconds, Start::Now)?,
        StoreVerb::PExpireAt => expire(arguments, "pexpireat", Unit::Milliseconds, Start::Epoch)?,
        StoreVerb::PSetEx => put_for(arguments, "psetex", Unit::Milliseconds)?,
        StoreVerb::PTtl => (Operation::TimeToLive { key: key(arguments, 1)? }, Rendering::Milliseconds),
        StoreVerb::Scan => return scan(arguments),
        StoreVerb::Set => set(arguments)?,
        StoreVerb::SetEx => put_for(arguments, "setex", Unit::Seconds)?,
        StoreVerb::SetNx => {
            let put = Put { condition: PutCondition::IfAbsent, ..plain_put(arguments, 2)? };
            (Operation::Put(put), Rendering::Boolean)
        }
        StoreVerb::StrLen => (Operation::Length { key: key(arguments, 1)? }, Rendering::Number),
        StoreVerb::Ttl => (Operation::TimeToLive { key: key(arguments, 1)? }, Rendering::Seconds),
        StoreVerb::Type => (Operation::Exists { keys: vec![key(arguments, 1)?] }, Rendering::Type),
    };
    Ok(Translation::Ask(operation, rendering))
}

type Asked<'a> = Result<(Operation<'a>, Rendering), CommandError>;

/// The keys of a command that takes nothing else.
pub(super) fn keys<'a>(arguments: &Arguments<'a>) -> Result<Vec<&'a [u8]>, CommandError> {
    if arguments.from(1).len() > OPERATION_KEYS_MAX {
        return Err(CommandError::TooManyKeys);
    }
    arguments.from(1).iter().map(checked_key).collect()
}

/// `SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]`, in any order.
fn set<'a>(arguments: &Arguments<'a>) -> Asked<'a> {
    let mut put = plain_put(arguments, 2)?;
    let mut options = arguments.from(3).iter();
    while let Some(option) = options.next() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        if is("NX") && put.condition != PutCondition::IfPresent {
            put.condition = PutCondition::IfAbsent;
        } else if is("XX") && put.condition != PutCondition::IfAbsent {
            put.condition = PutCondition::IfPresent;
        } else if is("GET") {
            put.returns_old = true;
        } else if is("KEEPTTL") && matches!(put.expiry, PutExpiry::Never | PutExpiry::Keep) {
            put.expiry = PutExpiry::Keep;
        } else if let (Some((unit, start)), PutExpiry::Never) = (expiry_option(option), put.expiry) {
            let time = options.next().ok_or(CommandError::Syntax)?;
            put.expiry = PutExpiry::At(positive_deadline(time, "set", unit, start)?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let rendering = if put.returns_old { Rendering::Bulk } else { Rendering::Ok };
    Ok((Operation::Put(put), rendering))
}

fn expiry_option(option: &[u8]) -> Option<(Unit, Start)> {
    let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
    if is("EX") {
        Some((Unit::Seconds, Start::Now))
    } else if is("PX") {
        Some((Unit::Milliseconds, Start::Now))
    } else if is("EXAT") {
        Some((Unit::Seconds, Start::Epoch))
    } else if is("PXAT") {
        Some((Unit::Milliseconds, Start::Epoch))
    } else {
        None
    }
}

/// `SETEX key seconds value` and `PSETEX key milliseconds value`.
fn put_for<'a>(arguments: &Arguments<'a>, name: &'static str, unit: Unit) -> Asked<'a> {
    let expiry = PutExpiry::At(positive_deadline(arguments.at(2), name, unit, Start::Now)?);
    Ok((Operation::Put(Put { expiry, ..plain_put(arguments, 3)? }), Rendering::Ok))
}

/// `EXPIRE key time [NX|XX|GT|LT …]` and its like.
fn expire<'a>(arguments: &Arguments<'a>, name: &'static str, unit: Unit, start: Start) -> Asked<'a> {
    let (mut none, mut some, mut later, mut earlier) = (false, false, false, false);
    for option in arguments.from(3).iter() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        none |= is("NX");
        some |= is("XX");
        later |= is("GT");
        earlier |= is("LT");
        if !(is("NX") || is("XX") || is("GT") || is("LT")) {
            return Err(CommandError::UnsupportedOption(shown(option)));
        }
    }
    let condition = match (none, some, later, earlier) {
        (true, false, false, false) => ExpireCondition::IfNone,
        (true, _, _, _) => return Err(CommandError::ExpireNotExclusive),
        (false, _, true, true) => return Err(CommandError::ExpireGreaterAndLess),
        (false, false, false, false) => ExpireCondition::Always,
        (false, true, false, false) => ExpireCondition::IfSome,
        // A key without a deadline lives longest: a later deadline implies that it has one.
        (false, _, true, false) => ExpireCondition::IfLater,
        (false, false, false, true) => ExpireCondition::IfEarlier,
        (false, true, false, true) => ExpireCondition::IfSomeAndEarlier,
    };
    let time = integer(arguments.at(2))?;
    let deadline = deadline(time, unit, start).ok_or(CommandError::ExpireTime(name))?;
    Ok((Operation::Expire { key: key(arguments, 1)?, deadline, condition }, Rendering::Boolean))
}

fn flush<'a>(arguments: &Arguments<'a>) -> Asked<'a> {
    let mode = arguments.at(1);
    let is_mode = mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC");
    match arguments.len() {
        1 => Ok((Operation::Clear, Rendering::Ok)),
        2 if is_mode => Ok((Operation::Clear, Rendering::Ok)),
        _ => Err(CommandError::Syntax),
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE t]`.
fn scan<'a>(arguments: &Arguments<'a>) -> Translated<'a> {
    let cursor = std::str::from_utf8(arguments.at(1)).ok().and_then(|cursor| cursor.parse().ok());
    let cursor = cursor.ok_or(CommandError::Cursor)?;
    let mut scan = Scan { prefix: b"", after: None, pattern: None, visits: SCAN_COUNT, with_values: false };
    let mut is_empty = false;
    let mut options = arguments.from(2).iter();
    while let Some(option) = options.next() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        let argument = options.next().ok_or(CommandError::Syntax)?;
        if is("MATCH") {
            let pattern = pattern(argument)?;
            scan.pattern = Some(pattern);
            scan.prefix = crate::kv::Pattern::new(pattern).literal_prefix();
        } else if is("COUNT") {
            let count = integer(argument)?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
            scan.visits = u32::try_from(count).unwrap_or(u32::MAX);
        } else if is("TYPE") {
            is_empty = !argument.eq_ignore_ascii_case(b"string");
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(if is_empty { Translation::EmptyPage } else { Translation::Scan { cursor, scan } })
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Seconds,
    Milliseconds,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Now,
    Epoch,
}

fn positive_deadline(
    time: &[u8],
    name: &'static str,
    unit: Unit,
    start: Start,
) -> Result<Deadline, CommandError> {
    let time = integer(time)?;
    let deadline = if time > 0 { deadline(time, unit, start) } else { None };
    deadline.ok_or(CommandError::ExpireTime(name))
}

/// The point in time that a command names; one before its start is the start. `None` beyond what time can be.
fn deadline(time: i64, unit: Unit, start: Start) -> Option<Deadline> {
    let micros_each = match unit {
        Unit::Seconds => 1_000_000,
        Unit::Milliseconds => 1_000,
    };
    // Signed, so that adding any present time stays below `Timestamp::NEVER`.
    let micros = u64::try_from(time.checked_mul(micros_each).or((time < 0).then_some(0))?.max(0)).ok()?;
    Some(match start {
        Start::Now => Deadline::After(Duration::from_micros(micros)),
        Start::Epoch => Deadline::At(Timestamp(micros)),
    })
}

fn plain_put<'a>(arguments: &Arguments<'a>, value_place: usize) -> Result<Put<'a>, CommandError> {
    Ok(Put {
        key: key(arguments, 1)?,
        value: value(arguments, value_place)?,
        condition: PutCondition::Always,
        expiry: PutExpiry::Never,
        returns_old: false,
    })
}

/// Keys with their values.
type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

fn pairs<'a>(arguments: &Arguments<'a>, name: &'static str) -> Result<Pairs<'a>, CommandError> {
    if arguments.len().is_multiple_of(2) {
        return Err(CommandError::Arity(name));
    }
    if arguments.len() / 2 > OPERATION_KEYS_MAX {
        return Err(CommandError::TooManyKeys);
    }
    (1..arguments.len())
        .step_by(2)
        .map(|place| Ok((key(arguments, place)?, value(arguments, place + 1)?)))
        .collect()
}

fn key<'a>(arguments: &Arguments<'a>, place: usize) -> Result<&'a [u8], CommandError> {
    checked_key(arguments.at(place))
}

fn checked_key(key: &[u8]) -> Result<&[u8], CommandError> {
    if key.len() > KEY_BYTES_MAX { Err(CommandError::KeyTooLong) } else { Ok(key) }
}

fn value<'a>(arguments: &Arguments<'a>, place: usize) -> Result<&'a [u8], CommandError> {
    let value = arguments.at(place);
    if value.len() > VALUE_BYTES_MAX { Err(CommandError::ValueTooLong) } else { Ok(value) }
}

fn pattern(pattern: &[u8]) -> Result<&[u8], CommandError> {
    if pattern.len() > PATTERN_BYTES_MAX { Err(CommandError::PatternTooLong) } else { Ok(pattern) }
}

fn integer(text: &[u8]) -> Result<i64, CommandError> {
    parse_integer(text).ok_or(CommandError::NotAnInteger)
}
