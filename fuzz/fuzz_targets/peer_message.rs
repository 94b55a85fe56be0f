//! Frames from another replica: whatever decodes encodes again to the same bytes, the rest is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::codec::pieces::Assembler;
use regency_protocol::message::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(message.to_frame(), data, "a second encoding of one message");
    }
    // No input of a fuzzer is long enough for a whole message in pieces.
    assert!(!matches!(Assembler::default().take(data), Ok(Some(_))));
});
