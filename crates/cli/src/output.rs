//! What goes to stdout: data, a line at a time. A reader that went away ends the command quietly.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::failure::{self, Failure};

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    bytes(&[text.as_bytes(), b"\n"])
}

/// Prints bytes as they are.
pub(crate) fn bytes(parts: &[&[u8]]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
    match written {
        // `regency … | head -1` is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome.map_err(|error| failure::system("writing to stdout", &error)),
    }
}

/// Prints one JSON value on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| failure::system("writing JSON", &std::io::Error::other(error)))?;
    line(&text)
}
