//! Operations of every kind on a few keys, drawn by chance.

use std::time::Duration;

use proptest::prelude::*;
use regency::protocol::time::Timestamp;
use regency_services::kv::{Deadline, ExpireCondition, Operation, Put, PutCondition, PutExpiry, Scan};

const KEYS: [&[u8]; 7] = [b"", b"a", b"ab", b"abc", b"b", b"b*", b"z"];
const VALUES: [&[u8]; 7] = [b"", b"0", b"7", b"-3", b"9223372036854775807", b"text", b"01"];
const PATTERNS: [&[u8]; 4] = [b"*", b"a*", b"?", b"[ab]b"];

/// What proptest draws: numbers that [`Draw::operation`] makes an operation of.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    kind: u8,
    key: usize,
    other: usize,
    value: usize,
    number: i64,
    flag: bool,
}

pub(crate) fn draws() -> impl Strategy<Value = Draw> {
    (0..19_u8, 0..KEYS.len(), 0..KEYS.len(), 0..VALUES.len(), 0..60_i64, any::<bool>())
        .prop_map(|(kind, key, other, value, number, flag)| Draw { kind, key, other, value, number, flag })
}

impl Draw {
    /// The operation, for a store whose time is `now`.
    pub(crate) fn operation(&self, now: u64) -> Operation<'static> {
        let (key, other, value) = (KEYS[self.key], KEYS[self.other], VALUES[self.value]);
        let small = u64::try_from(self.number).unwrap();
        let deadline = if self.flag {
            Deadline::After(Duration::from_micros(small))
        } else {
            Deadline::At(Timestamp((now + small).saturating_sub(10)))
        };
        match self.kind {
            0 => Operation::Get { key },
            1 => Operation::GetMany { keys: vec![key, other, key] },
            2 | 3 => Operation::Put(Put {
                key,
                value,
                condition: [PutCondition::Always, PutCondition::IfAbsent, PutCondition::IfPresent]
                    [self.number as usize % 3],
                expiry: [PutExpiry::Never, PutExpiry::Keep, PutExpiry::At(deadline)][self.other % 3],
                returns_old: self.flag,
            }),
            4 => Operation::PutMany {
                pairs: vec![(key, value), (other, VALUES[2])],
                only_if_all_absent: self.flag,
            },
            5 => Operation::Take { key },
            6 => Operation::Delete { keys: vec![key, other, key] },
            7 => Operation::Exists { keys: vec![key, other, key] },
            8 => Operation::CompareAndSet {
                key,
                expected: self.flag.then_some(value),
                new: (self.number % 3 > 0).then_some(VALUES[self.other]),
            },
            9 => Operation::Increment { key, by: self.number - 30 },
            10 => Operation::Append { key, value },
            11 => Operation::Length { key },
            12 => Operation::Count,
            13 => Operation::Scan(Scan {
                prefix: key,
                after: self.flag.then_some(other),
                pattern: (self.number % 2 == 0).then_some(PATTERNS[self.value % PATTERNS.len()]),
                visits: small as u32 % 8,
                with_values: self.value > 3,
            }),
            14 => Operation::Keys { pattern: PATTERNS[self.value % PATTERNS.len()] },
            15 if self.number == 0 => Operation::Clear,
            15 | 16 => Operation::Expire {
                key,
                deadline,
                condition: [
                    ExpireCondition::Always,
                    ExpireCondition::Always,
                    ExpireCondition::IfNone,
                    ExpireCondition::IfSome,
                    ExpireCondition::IfLater,
                    ExpireCondition::IfEarlier,
                    ExpireCondition::IfSomeAndEarlier,
                ][self.other],
            },
            17 => Operation::Persist { key },
            _ => Operation::TimeToLive { key },
        }
    }
}
