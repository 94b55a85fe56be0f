//! Answers of the store as replies: pure but for the cursors that pages leave behind.

use std::time::Duration;

use super::cursors::Cursors;
use super::error::refusal_text;
use super::info::Sections;
use super::resp::RespWriter;
use crate::kv::{Answer, TimeToLive};

/// How the answer to a command is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rendering {
    /// `OK` if done, else nothing.
    Ok,
    /// A value or nothing.
    Bulk,
    /// A number.
    Number,
    /// 1 if done, else 0.
    Boolean,
    /// A value or nothing for each key.
    Values,
    /// Keys.
    Keys,
    /// A cursor and keys.
    Page,
    /// Seconds to live, rounded.
    Seconds,
    /// Milliseconds to live.
    Milliseconds,
    /// The type of the value.
    Type,
    /// Information that ends with the number of keys.
    Info(Sections),
    /// `OK`; the versions are for the connection to keep.
    Watch,
}

/// Appends the reply that `answer` is in this rendering. `info` gives the text of sections with a number of keys.
pub(super) fn render(
    answer: &Answer<'_>,
    rendering: Rendering,
    resp: &mut RespWriter<'_>,
    cursors: &mut Cursors,
    info: &dyn Fn(Sections, u64) -> String,
) {
    match (rendering, answer) {
        (_, Answer::Refused(refusal)) => resp.error(&refusal_text(*refusal)),
        (Rendering::Ok, Answer::Done) | (Rendering::Watch, Answer::Versions(_)) => resp.status("OK"),
        (Rendering::Ok, Answer::NotDone) | (Rendering::Bulk, Answer::Absent) => resp.nil(),
        (Rendering::Bulk, Answer::Value(value)) => resp.bulk(value),
        (Rendering::Number, Answer::Integer(number)) => resp.integer(*number),
        (Rendering::Number, Answer::Count(count)) => resp.integer(signed(*count)),
        (Rendering::Boolean, Answer::Done) => resp.integer(1),
        (Rendering::Boolean, Answer::NotDone) => resp.integer(0),
        (Rendering::Values, Answer::Values(values)) => {
            resp.array(values.len());
            for value in values {
                match value {
                    Some(value) => resp.bulk(value),
                    None => resp.nil(),
                }
            }
        }
        (Rendering::Keys, Answer::Keys(keys)) => {
            resp.array(keys.len());
            keys.iter().for_each(|key| resp.bulk(key));
        }
        (Rendering::Page, Answer::Page { entries, next }) => {
            let cursor = next.as_deref().map_or(0, |key| cursors.leave(key));
            resp.array(2);
            resp.bulk(cursor.to_string().as_bytes());
            resp.array(entries.len());
            entries.iter().for_each(|entry| resp.bulk(&entry.key));
        }
        (Rendering::Seconds, Answer::TimeToLive(time)) => {
            resp.integer(time_left(*time, |left| (millis(left) + 500) / 1000));
        }
        (Rendering::Milliseconds, Answer::TimeToLive(time)) => resp.integer(time_left(*time, millis)),
        (Rendering::Type, Answer::Count(count)) => resp.status(if *count == 0 { "none" } else { "string" }),
        (Rendering::Info(sections), Answer::Count(count)) => resp.text(&info(sections, *count)),
        (
            Rendering::Ok
            | Rendering::Bulk
            | Rendering::Number
            | Rendering::Boolean
            | Rendering::Values
            | Rendering::Keys
            | Rendering::Page
            | Rendering::Seconds
            | Rendering::Milliseconds
            | Rendering::Type
            | Rendering::Info(_)
            | Rendering::Watch,
            Answer::Done
            | Answer::NotDone
            | Answer::Absent
            | Answer::Value(_)
            | Answer::Integer(_)
            | Answer::Count(_)
            | Answer::Values(_)
            | Answer::Keys(_)
            | Answer::Page { .. }
            | Answer::TimeToLive(_)
            | Answer::Versions(_)
            | Answer::Mismatch { .. },
        ) => resp.error(FOREIGN_ANSWER),
    }
}

/// The error for an answer that the key-value store would not give.
pub(super) const FOREIGN_ANSWER: &str = "ERR the cluster's service does not answer as a key-value store does";

fn time_left(time: TimeToLive, convert: impl Fn(Duration) -> i64) -> i64 {
    match time {
        TimeToLive::Absent => -2,
        TimeToLive::Endless => -1,
        TimeToLive::Remaining(left) => convert(left),
    }
}

/// Whole milliseconds; a part of one counts as one, so that what lives is never shown as dead.
fn millis(left: Duration) -> i64 {
    i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
