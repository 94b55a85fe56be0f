//! The `[settings]` of a cluster file: every protocol setting by its key, with its unit and its meaning.
//!
//! The one table from which the keys are read, written with comments, and hashed into the cluster's id.

use std::fmt::Write as _;
use std::time::Duration;

use regency_protocol::limits::Settings;

use super::document::{Document, Section};
use crate::failure::Failure;

/// One setting: how the file calls it and where the core keeps it.
pub(super) struct Setting {
    key: &'static str,
    doc: &'static str,
    read: fn(&Settings) -> u64,
    write: fn(&mut Settings, u64) -> bool,
}

/// A value of a setting as the whole number that stands in the file.
trait Number: Sized {
    fn to_number(&self) -> u64;
    fn from_number(number: u64) -> Option<Self>;
}

impl Number for u64 {
    fn to_number(&self) -> u64 {
        *self
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Number for usize {
    fn to_number(&self) -> u64 {
        u64::try_from(*self).unwrap_or(u64::MAX)
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::try_from(number).ok()
    }
}

/// In milliseconds.
impl Number for Duration {
    fn to_number(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(Self::from_millis(number))
    }
}

macro_rules! settings {
    ($($field:ident = $key:literal, $doc:literal;)*) => {
        /// The keys of the section.
        pub(super) const KEYS: &[&str] = &[$($key,)*];

        /// Every setting there is, in the order of the file.
        const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            doc: $doc,
            read: |settings| settings.$field.to_number(),
            write: |settings, number| match Number::from_number(number) {
                Some(value) => {
                    settings.$field = value;
                    true
                }
                None => false,
            },
        },)*];

        /// Does not compile when the core has a setting that the table lacks.
        const _: fn(Settings) = |settings| {
            let Settings { $($field: _,)* } = settings;
        };
    };
}

settings! {
    window = "window", "Instances above the decided prefix that may be in flight.";
    span = "span", "Instances above the highest certificate that may be voted on; at least chain_interval + 2 * window.";
    chain_interval = "chain_interval", "Chain signatures are made at multiples of this many instances.";
    chain_period = "chain_period_ms", "Chain signatures are made after this time when idle, in milliseconds.";
    status_period = "status_period_ms", "Replicas exchange their state this often while work is open, in milliseconds.";
    max_clock_skew = "max_clock_skew_ms", "How far a proposal's timestamp may be from a replica's clock, in milliseconds.";
    batch_requests_max = "batch_requests_max", "Requests in one batch.";
    batch_bytes_max = "batch_bytes_max", "Bytes of one batch.";
    request_bytes_max = "request_bytes_max", "Bytes of one operation.";
    result_bytes_max = "result_bytes_max", "Bytes of one result; a larger one is answered with a refusal.";
    session_window = "session_window", "Operations that one session may have in flight.";
    session_result_bytes_max = "session_result_bytes_max", "Bytes of results that are kept for one session.";
    sessions_max = "sessions_max", "Open sessions, of all clients.";
    client_sessions_max = "client_sessions_max", "Open sessions of one client key.";
    pending_requests_max = "pending_requests_max", "Requests that wait to be ordered; at least sessions_max * session_window.";
    client_pending_bytes_max = "client_pending_bytes_max", "Bytes of requests of one client key that wait to be ordered.";
    session_idle = "session_idle_ms", "A session unused for this long may be closed, in milliseconds.";
    open_horizon = "open_horizon_ms", "How far ahead the opening of a session may be valid, in milliseconds.";
    checkpoint_interval = "checkpoint_interval", "A checkpoint is made after this many instances.";
    checkpoint_bytes = "checkpoint_bytes", "Or after this many bytes of ordered requests.";
    retained_instances = "retained_instances", "Decided instances kept for replicas that fell behind; at least span + 2 * window.";
    retained_bytes = "retained_bytes", "Bytes of decided batches kept beyond retained_instances.";
    fetch_delay = "fetch_delay_ms", "How long a missing request is waited for before it is fetched, in milliseconds.";
    request_timeout_min = "request_timeout_min_ms", "The leader is suspected no sooner than after twice this, in milliseconds; the timeout grows by itself where rounds are slow.";
    request_timeout_max = "request_timeout_max_ms", "The request timeout never grows beyond this, in milliseconds.";
    proposal_delay_min = "proposal_delay_min_ms", "A leader may let requests wait this long before it proposes them, in milliseconds; the bound grows by itself where rounds are slow.";
    standing_period = "standing_period_ms", "How long a client stays suspect whose requests reached some replicas only, in milliseconds.";
}

/// Reads the section; keys that are absent keep their defaults.
pub(super) fn read(section: Option<&Section<'_>>) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let Some(section) = section else { return Ok(settings) };
    for setting in SETTINGS {
        let Some(number) = section.number(setting.key)? else { continue };
        if !(setting.write)(&mut settings, number) {
            return Err(section.bad(setting.key, "a smaller number"));
        }
    }
    Ok(settings)
}

/// Reads settings of the form `key=value`; the others keep their defaults.
pub fn parse_settings(settings: &[String]) -> Result<Settings, Failure> {
    let document = Document::from_text("--set", &settings.join("\n"));
    let section = document.root(KEYS)?;
    read(Some(&section))
}

/// Appends the section with a comment for every key; defaults are commented out.
pub(super) fn write(settings: &Settings, out: &mut String) {
    let defaults = Settings::default();
    out.push_str("[settings]\n");
    for setting in SETTINGS {
        let value = (setting.read)(settings);
        let mark = if value == (setting.read)(&defaults) { "# " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(out, "# {}\n{mark}{} = {value}\n", setting.doc, setting.key);
    }
}

/// Every setting with its value, in the fixed order of the table.
pub(super) fn values(settings: &Settings) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    SETTINGS.iter().map(|setting| (setting.key, (setting.read)(settings)))
}
