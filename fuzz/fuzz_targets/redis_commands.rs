//! Redis commands out of bytes: the pieces in which they arrive make no difference to what is parsed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency_services::redis::{Parser, ParserLimits, ProtocolError};

/// The limit of one command's arguments together.
const REQUEST_BYTES_MAX: usize = 1024;

/// The commands of a stream, until it is no stream of commands any more.
type Parsed = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    for limits in [ParserLimits::authenticated(REQUEST_BYTES_MAX), ParserLimits::unauthenticated()] {
        let (whole, error) = parse(stream, stream.len().max(1), &limits);
        let (pieced, error_in_pieces) = parse(stream, usize::from(size).max(1), &limits);
        // A line that is too long is refused as soon as that is seen, which pieces may show sooner.
        let common = whole.len().min(pieced.len());
        assert_eq!(whole[..common], pieced[..common]);
        assert!(error.is_some() || error_in_pieces.is_some() || whole.len() == pieced.len());
    }
});

fn parse(stream: &[u8], piece: usize, limits: &ParserLimits) -> Parsed {
    let mut parser = Parser::default();
    let mut commands = Vec::new();
    let mut begin = 0;
    let mut end = 0;
    loop {
        match parser.parse(&stream[begin..end], limits) {
            Ok(Some(length)) => {
                let arguments = parser.arguments(&stream[begin..end]);
                commands.push(arguments.iter().map(<[u8]>::to_vec).collect());
                begin += length;
            }
            Ok(None) if end == stream.len() => return (commands, None),
            Ok(None) => end = (end + piece).min(stream.len()),
            Err(error) => return (commands, Some(error)),
        }
    }
}
