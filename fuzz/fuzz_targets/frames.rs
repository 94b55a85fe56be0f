//! A byte stream cut into frames: the pieces in which it arrives make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency::transport::frame::FrameParser;

/// The frames' limit.
const LIMIT: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    let mut whole = Vec::new();
    let at_once = FrameParser::new(LIMIT).feed(stream, &mut whole);

    let mut parser = FrameParser::new(LIMIT);
    let mut pieced = Vec::new();
    let in_pieces =
        stream.chunks(usize::from(size).max(1)).try_for_each(|piece| parser.feed(piece, &mut pieced));

    assert_eq!(at_once, in_pieces);
    assert_eq!(whole, pieced);
    assert!(whole.iter().all(|frame| (1..=LIMIT).contains(&frame.len())));
});
