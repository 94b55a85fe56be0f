//! Commands out of bytes: RESP arrays of bulk strings, and inline commands.
//!
//! Incremental: a command that is not complete is gone on with where the bytes ended, never read from its start
//! again. Bounded: every length is checked before anything is kept for it. It copies nothing but inline
//! arguments, which may be quoted.

use std::ops::Range;

use thiserror::Error;

use super::limits::{
    ARGUMENTS_MAX, INLINE_BYTES_MAX, UNAUTHENTICATED_ARGUMENT_BYTES_MAX, UNAUTHENTICATED_ARGUMENTS_MAX,
};
use crate::kv::parse_integer;

/// Digits of a length, with room for a sign: longer lines are no lengths.
const LENGTH_LINE_BYTES_MAX: usize = 32;

/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserLimits {
    /// Arguments of one command.
    pub arguments: usize,
    /// Bytes of one argument.
    pub argument_bytes: usize,
    /// Bytes of a whole command.
    pub command_bytes: usize,
    /// Whether the limits are those of a connection that has not authenticated itself.
    is_unauthenticated: bool,
}

impl ParserLimits {
    /// For a connection whose commands may be as large as a request of the cluster.
    #[must_use]
    pub fn authenticated(request_bytes_max: usize) -> Self {
        Self {
            arguments: ARGUMENTS_MAX,
            argument_bytes: request_bytes_max,
            // Lengths and line ends come on top of the arguments, which must fit a request together.
            command_bytes: request_bytes_max.saturating_mul(2).saturating_add(INLINE_BYTES_MAX),
            is_unauthenticated: false,
        }
    }

    /// For a connection that has still to show a password.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self {
            arguments: UNAUTHENTICATED_ARGUMENTS_MAX,
            argument_bytes: UNAUTHENTICATED_ARGUMENT_BYTES_MAX,
            command_bytes: UNAUTHENTICATED_ARGUMENTS_MAX * 2 * UNAUTHENTICATED_ARGUMENT_BYTES_MAX,
            is_unauthenticated: true,
        }
    }
}

/// Bytes that are no command. The connection is closed after the error is told, since nobody knows where the
/// next command would begin. The texts are those of Redis.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line without end, or too many bytes in all.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// A quotation without end, or one that something follows at once.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The line after `*` has no end.
    #[error("Protocol error: too big mbulk count string")]
    ArrayLengthTooLong,
    /// The number after `*` is none, or too high.
    #[error("Protocol error: invalid multibulk length")]
    ArrayLength,
    /// The number after `*` is too high before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedArrayLength,
    /// The line after `$` has no end.
    #[error("Protocol error: too big bulk count string")]
    BulkLengthTooLong,
    /// An argument that does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    BulkExpected(u8),
    /// The number after `$` is none, or too high.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// The number after `$` is too high before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument is not followed by a line end.
    #[error("Protocol error: expected a line end after the argument")]
    LineEndExpected,
    /// The arguments of one command are longer than a request may be.
    #[error("Protocol error: the command is larger than a request of the cluster may be")]
    CommandTooLong,
}

/// Where the parser is inside a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Before its first byte, or after its last one.
    #[default]
    Start,
    /// Inside an inline command.
    Inline,
    /// Before the length of the next of this many arguments.
    Length { left: usize },
    /// Inside an argument of `length` bytes, after which `left` others come.
    Argument { length: usize, left: usize },
}

/// The parser of one connection.
///
/// ```
/// use regency_services::redis::{Parser, ParserLimits};
///
/// let mut parser = Parser::default();
/// let limits = ParserLimits::authenticated(1 << 20);
/// assert_eq!(parser.parse(b"*2\r\n$3\r\nGET\r\n$1\r", &limits), Ok(None), "incomplete");
/// let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
/// assert_eq!(parser.parse(input, &limits), Ok(Some(20)));
/// assert_eq!(parser.arguments(input).to_vec(), [b"GET".as_slice(), b"k"]);
/// assert_eq!(parser.parse(&input[20..], &limits), Ok(Some(6)));
/// assert_eq!(parser.arguments(&input[20..]).to_vec(), [b"PING".as_slice()]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parser {
    phase: Phase,
    /// Bytes of the command that have been read.
    position: usize,
    /// Bytes of the current line known to hold no line end.
    searched: usize,
    /// Where the arguments are, in the input or in `unquoted`.
    ranges: Vec<Range<usize>>,
    is_inline: bool,
    /// The arguments of an inline command.
    unquoted: Vec<u8>,
}

/// The arguments of one command, its name first.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    base: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Arguments<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none: an empty line, which is no command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The argument at `place`; empty if there is none.
    #[must_use]
    pub fn at(&self, place: usize) -> &'a [u8] {
        self.ranges.get(place).and_then(|range| self.base.get(range.clone())).unwrap_or_default()
    }

    /// Those from `place` on.
    #[must_use]
    pub fn from(&self, place: usize) -> Self {
        Self { base: self.base, ranges: self.ranges.get(place..).unwrap_or_default() }
    }

    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let base = self.base;
        self.ranges.iter().map(move |range| base.get(range.clone()).unwrap_or_default())
    }

    /// All of them.
    #[must_use]
    pub fn to_vec(&self) -> Vec<&'a [u8]> {
        self.iter().collect()
    }
}

impl Parser {
    /// Reads the command at the start of `input`: its length in bytes, or `None` if it is not complete.
    ///
    /// While it answers `None`, the next call must get the same bytes with more behind them. After a command the
    /// next call begins a new one.
    pub fn parse(&mut self, input: &[u8], limits: &ParserLimits) -> Result<Option<usize>, ProtocolError> {
        loop {
            let step = match self.phase {
                Phase::Start => self.on_start(input, limits)?,
                Phase::Inline => return self.on_inline(input),
                Phase::Length { left: 0 } => {
                    self.phase = Phase::Start;
                    return Ok(Some(self.position));
                }
                Phase::Length { left } => self.on_length(left, input, limits)?,
                Phase::Argument { length, left } => self.on_argument(length, left, input)?,
            };
            if step.is_none() {
                return Ok(None);
            }
        }
    }

    /// The arguments of the command that [`Parser::parse`] has just read from `input`.
    #[must_use]
    pub fn arguments<'a>(&'a self, input: &'a [u8]) -> Arguments<'a> {
        let base = if self.is_inline { &self.unquoted } else { input };
        Arguments { base, ranges: &self.ranges }
    }

    /// Whether a command has begun and not ended.
    #[must_use]
    pub fn is_inside_command(&self) -> bool {
        self.phase != Phase::Start
    }

    fn on_start(&mut self, input: &[u8], limits: &ParserLimits) -> Result<Option<()>, ProtocolError> {
        self.position = 0;
        let Some(first) = input.first() else { return Ok(None) };
        if *first != b'*' {
            self.begin(Phase::Inline, true);
            return Ok(Some(()));
        }
        let error = ProtocolError::ArrayLengthTooLong;
        let Some((line, end)) = self.length_line(input, error)? else { return Ok(None) };
        let count = parse_integer(line).ok_or(ProtocolError::ArrayLength)?;
        let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::ArrayLength)?;
        if count > limits.arguments {
            return Err(if limits.is_unauthenticated {
                ProtocolError::UnauthenticatedArrayLength
            } else {
                ProtocolError::ArrayLength
            });
        }
        self.begin(Phase::Length { left: count }, false);
        self.position = end;
        Ok(Some(()))
    }

    fn begin(&mut self, phase: Phase, is_inline: bool) {
        self.phase = phase;
        self.is_inline = is_inline;
        self.ranges.clear();
        self.unquoted.clear();
    }

    fn on_length(
        &mut self,
        left: usize,
        input: &[u8],
        limits: &ParserLimits,
    ) -> Result<Option<()>, ProtocolError> {
        match input.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::BulkExpected(*other)),
        }
        let error = ProtocolError::BulkLengthTooLong;
        let Some((line, end)) = self.length_line(input, error)? else { return Ok(None) };
        let length = parse_integer(line).ok_or(ProtocolError::BulkLength)?;
        let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        if length > limits.argument_bytes {
            return Err(if limits.is_unauthenticated {
                ProtocolError::UnauthenticatedBulkLength
            } else {
                ProtocolError::BulkLength
            });
        }
        if end.saturating_add(length) > limits.command_bytes {
            return Err(ProtocolError::CommandTooLong);
        }
        self.position = end;
        self.phase = Phase::Argument { length, left: left - 1 };
        Ok(Some(()))
    }

    fn on_argument(&mut self, length: usize, left: usize, input: &[u8]) -> Result<Option<()>, ProtocolError> {
        let end = self.position + length;
        match input.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::LineEndExpected),
        }
        self.ranges.push(self.position..end);
        self.position = end + 2;
        self.phase = Phase::Length { left };
        Ok(Some(()))
    }

    /// The rest of the line after the byte at the position, and where the next one begins.
    fn length_line<'a>(
        &self,
        input: &'a [u8],
        error: ProtocolError,
    ) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
        let start = self.position + 1;
        let rest = input.get(start..).unwrap_or_default();
        let window = rest.get(..LENGTH_LINE_BYTES_MAX).unwrap_or(rest);
        match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = window.get(..end).unwrap_or_default();
                // Without the carriage return it is no number for the caller.
                Ok(Some((line.strip_suffix(b"\r").unwrap_or(b"-"), start + end + 1)))
            }
            None if rest.len() >= LENGTH_LINE_BYTES_MAX => Err(error),
            None => Ok(None),
        }
    }

    fn on_inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let unsearched = input.get(self.searched..).unwrap_or_default();
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n').map(|end| end + self.searched)
        else {
            self.searched = input.len();
            return if input.len() > INLINE_BYTES_MAX { Err(ProtocolError::InlineTooLong) } else { Ok(None) };
        };
        self.searched = 0;
        self.phase = Phase::Start;
        if end > INLINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = input.get(..end).unwrap_or_default();
        self.split(line.strip_suffix(b"\r").unwrap_or(line))?;
        Ok(Some(end + 1))
    }

    /// Splits an inline command as a shell would: by spaces, with both kinds of quotes.
    fn split(&mut self, mut line: &[u8]) -> Result<(), ProtocolError> {
        loop {
            line = line.trim_ascii_start();
            if line.is_empty() {
                return Ok(());
            }
            let start = self.unquoted.len();
            line = match line {
                [b'"', quoted @ ..] => self.unquote_double(quoted)?,
                [b'\'', quoted @ ..] => self.unquote_single(quoted)?,
                plain => self.take_plain(plain)?,
            };
            self.ranges.push(start..self.unquoted.len());
        }
    }

    /// An argument that begins without a quote; a quote inside it begins a quoted part that ends it.
    fn take_plain<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], ProtocolError> {
        loop {
            rest = match rest {
                [] => return Ok(rest),
                [space, ..] if space.is_ascii_whitespace() => return Ok(rest),
                [b'"', quoted @ ..] => return self.unquote_double(quoted),
                [b'\'', quoted @ ..] => return self.unquote_single(quoted),
                [byte, rest @ ..] => {
                    self.unquoted.push(*byte);
                    rest
                }
            };
        }
    }

    fn unquote_double<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], ProtocolError> {
        loop {
            let (byte, after) = match rest {
                [] => return Err(ProtocolError::UnbalancedQuotes),
                [b'"', after @ ..] => return end_of_quotes(after),
                [b'\\', b'x', high, low, after @ ..] if is_hex(*high) && is_hex(*low) => {
                    (hex(*high) << 4 | hex(*low), after)
                }
                [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
                [byte, after @ ..] => (*byte, after),
            };
            self.unquoted.push(byte);
            rest = after;
        }
    }

    fn unquote_single<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], ProtocolError> {
        loop {
            let (byte, after) = match rest {
                [] => return Err(ProtocolError::UnbalancedQuotes),
                [b'\'', after @ ..] => return end_of_quotes(after),
                [b'\\', b'\'', after @ ..] => (b'\'', after),
                [byte, after @ ..] => (*byte, after),
            };
            self.unquoted.push(byte);
            rest = after;
        }
    }
}

fn end_of_quotes(after: &[u8]) -> Result<&[u8], ProtocolError> {
    match after {
        [] => Ok(after),
        [space, ..] if space.is_ascii_whitespace() => Ok(after),
        [..] => Err(ProtocolError::UnbalancedQuotes),
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn is_hex(digit: u8) -> bool {
    digit.is_ascii_hexdigit()
}

/// The value of a digit that [`is_hex`].
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter.to_ascii_lowercase().wrapping_sub(b'a') & 0xf) + 10,
    }
}
