//! The parser of Redis commands: split anywhere, bounded, and equal to an independent decoder.

use proptest::prelude::*;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use regency_services::redis::{Parser, ParserLimits, ProtocolError};

type Command = Vec<Vec<u8>>;

fn limits() -> ParserLimits {
    ParserLimits::authenticated(64 << 10)
}

/// The commands in `bytes`, which arrive in pieces of `piece` bytes.
fn parse(bytes: &[u8], piece: usize) -> Result<Vec<Command>, ProtocolError> {
    let mut parser = Parser::default();
    let (mut commands, mut start) = (Vec::new(), 0);
    let mut end = 0;
    while end < bytes.len() {
        end = (end + piece).min(bytes.len());
        while let Some(length) = parser.parse(&bytes[start..end], &limits())? {
            let arguments = parser.arguments(&bytes[start..end]);
            if !arguments.is_empty() {
                commands.push(arguments.iter().map(<[u8]>::to_vec).collect());
            }
            start += length;
        }
    }
    Ok(commands)
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let argument = prop::collection::vec(any::<u8>(), 0..40);
    prop::collection::vec(prop::collection::vec(argument, 1..6), 1..6)
}

/// The commands as the independent decoder sees them.
fn oracle(mut bytes: &[u8]) -> Option<Vec<Command>> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let (frame, length) = decode(bytes).ok()??;
        let OwnedFrame::Array(frames) = frame else { return None };
        let command: Option<Command> = frames
            .into_iter()
            .map(|frame| match frame {
                OwnedFrame::BulkString(argument) => Some(argument),
                _ => None,
            })
            .collect();
        commands.push(command?);
        bytes = &bytes[length..];
    }
    Some(commands)
}

proptest! {
    #[test]
    fn commands_are_the_same_however_they_are_split(commands in commands(), piece in 1_usize..50) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        prop_assert_eq!(parse(&bytes, bytes.len()).unwrap(), commands.clone());
        prop_assert_eq!(parse(&bytes, piece).unwrap(), commands.clone());
        prop_assert_eq!(parse(&bytes, 1).unwrap(), commands.clone());
        prop_assert_eq!(oracle(&bytes), Some(commands));
    }

    #[test]
    fn garbage_is_judged_the_same_however_it_is_split(
        bytes in prop::collection::vec(prop::sample::select(&b"*$0123-\r\nab\"'\\ x"[..]), 0..80),
        piece in 1_usize..20,
    ) {
        prop_assert_eq!(parse(&bytes, bytes.len().max(1)), parse(&bytes, piece));
    }

    #[test]
    fn what_both_decoders_accept_they_read_alike(
        commands in commands(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let (Ok(ours), Some(theirs)) = (parse(&bytes, 7), oracle(&bytes)) {
            let theirs: Vec<_> = theirs.into_iter().filter(|command| !command.is_empty()).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn inline_commands_are_split_as_in_redis() {
    for (line, expected) in [
        ("PING\r\n", vec!["PING"]),
        ("  SET  k   v \n", vec!["SET", "k", "v"]),
        ("SET k \"a b\\x41\\n\\\"\"\r\n", vec!["SET", "k", "a bA\n\""]),
        ("SET k 'a\\'b\\n'\r\n", vec!["SET", "k", "a'b\\n"]),
        ("SET k \"\"\r\n", vec!["SET", "k", ""]),
        ("SET a\"b c\" d\r\n", vec!["SET", "ab c", "d"]),
    ] {
        let expected: Vec<Vec<u8>> = expected.into_iter().map(|part| part.as_bytes().to_vec()).collect();
        assert_eq!(parse(line.as_bytes(), 1), Ok(vec![expected]), "{line:?}");
    }
    assert_eq!(parse(b"\r\n\n  \r\n", 1), Ok(vec![]));
    assert_eq!(parse(b"*0\r\n*-1\r\n", 1), Ok(vec![]));
    for line in ["\"a\r\n", "'a\r\n", "\"a\"b\r\n", "'a'b\r\n", "x\"a\"b\r\n"] {
        assert_eq!(parse(line.as_bytes(), 1), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
    }
}

#[test]
fn bytes_that_are_no_command_get_the_texts_of_redis() {
    for (bytes, text) in [
        ("*x\r\n", "Protocol error: invalid multibulk length"),
        ("*1\nPING", "Protocol error: invalid multibulk length"),
        ("*+1\r\n", "Protocol error: invalid multibulk length"),
        ("*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        ("*1\r\nx\r\n", "Protocol error: expected '$', got 'x'"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$ff\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$04\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$999999999999\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$4\r\nPINGxx", "Protocol error: expected a line end after the argument"),
    ] {
        assert_eq!(parse(bytes.as_bytes(), 3).unwrap_err().to_string(), text, "{bytes:?}");
    }
    let zeros = "0".repeat(100);
    assert_eq!(parse(format!("*{zeros}").as_bytes(), 3), Err(ProtocolError::ArrayLengthTooLong));
    assert_eq!(parse(format!("*1\r\n${zeros}").as_bytes(), 3), Err(ProtocolError::BulkLengthTooLong));
    assert_eq!(parse(&vec![b'x'; 70 << 10], 1000), Err(ProtocolError::InlineTooLong));
}

#[test]
fn lengths_are_refused_before_anything_is_kept_for_them() {
    let mut parser = Parser::default();
    assert_eq!(parser.parse(b"*32769\r\n", &limits()), Err(ProtocolError::ArrayLength));
    let mut parser = Parser::default();
    assert_eq!(parser.parse(b"*1\r\n$65537\r\n", &limits()), Err(ProtocolError::BulkLength));
    let unauthenticated = ParserLimits::unauthenticated();
    let mut parser = Parser::default();
    assert_eq!(parser.parse(b"*11\r\n", &unauthenticated), Err(ProtocolError::UnauthenticatedArrayLength));
    let mut parser = Parser::default();
    let long = b"*2\r\n$4\r\nAUTH\r\n$16385\r\n";
    assert_eq!(parser.parse(long, &unauthenticated), Err(ProtocolError::UnauthenticatedBulkLength));
    let many = [&b"*5\r\n"[..], &[&b"$65536\r\n"[..], &[b'x'; 65536], b"\r\n"].concat().repeat(4)].concat();
    assert_eq!(Parser::default().parse(&many, &limits()), Err(ProtocolError::CommandTooLong));
}
