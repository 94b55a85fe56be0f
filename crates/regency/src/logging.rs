//! Log lines to standard error: text for people or JSON for machines, filtered by level and module.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::failure::{ErrorCode, Failure};

/// What is logged unless configuration or environment say otherwise.
const LEVEL_DEFAULT: &str = "info";
/// Overrides the configured filter.
pub const LEVEL_VARIABLE: &str = "REGENCY_LOG";
/// Overrides the configured format.
pub const FORMAT_VARIABLE: &str = "REGENCY_LOG_FORMAT";
/// A kind of line that others cause is written at most once in this time.
const QUIET: Duration = Duration::from_secs(1);

/// Sends the log of this process to standard error; a second call changes nothing.
///
/// `level` has the syntax of `RUST_LOG`: `warn`, or `info,regency=debug`.
pub fn start(format: LogFormat, level: Option<&str>) -> Result<(), Failure> {
    start_through(format, level, io::stderr)
}

/// The same by way of a writer of one's own, for a terminal that shows something else as well; each line comes in one
/// piece.
pub fn start_through<W>(format: LogFormat, level: Option<&str>, writer: W) -> Result<(), Failure>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let from_environment = std::env::var(LEVEL_VARIABLE).ok();
    let level = from_environment.as_deref().or(level).unwrap_or(LEVEL_DEFAULT);
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Failure::new(
            ErrorCode::BadValue,
            format!("log level {level:?} is not possible ({error})"),
            "write for example \"info\" or \"warn,regency=debug\"",
        )
    })?;
    let format = match std::env::var(FORMAT_VARIABLE) {
        Err(_) => format,
        Ok(name) => LogFormat::parse(&name).ok_or_else(|| {
            Failure::new(
                ErrorCode::BadValue,
                format!("{FORMAT_VARIABLE} = {name:?} is not possible"),
                "write \"text\" or \"json\"",
            )
        })?,
    };
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let has_colours = io::stderr().is_terminal() && !is_plain;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(has_colours);
    // The only error is that a subscriber is set already: the process has logging, as wanted.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Keeps lines that others can cause from flooding the log: one of a kind per second, with the number left out.
#[derive(Debug, Default)]
pub(crate) struct Quieter {
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Debug)]
struct Kind {
    last: Instant,
    left_out: u64,
}

impl Quieter {
    /// Whether a line of this kind may be written now; then, how many were left out before it.
    pub(crate) fn admits(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let Some(known) = self.kinds.get_mut(kind) else {
            self.kinds.insert(kind, Kind { last: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(known.last) < QUIET {
            known.left_out += 1;
            return None;
        }
        known.last = now;
        Some(std::mem::take(&mut known.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_line_is_written_once_a_second() {
        let mut quieter = Quieter::default();
        let start = Instant::now();
        assert_eq!(quieter.admits("a", start), Some(0));
        assert_eq!(quieter.admits("a", start), None);
        assert_eq!(quieter.admits("b", start), Some(0));
        assert_eq!(quieter.admits("a", start + QUIET / 2), None);
        assert_eq!(quieter.admits("a", start + QUIET), Some(2));
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        let refused = start(LogFormat::Text, Some("regency=loud")).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::BadValue);
    }
}
