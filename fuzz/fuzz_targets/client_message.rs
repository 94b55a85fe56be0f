//! Frames between clients and replicas, in both directions: one encoding for each message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::message::{ClientMessage, ReplicaMessage};

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(message) = ClientMessage::decode(frame.clone()) {
        assert_eq!(message.to_frame(), data, "a second encoding of one message");
        let ClientMessage::Bundle(bundle) = message;
        // What the verifier asks of every bundle.
        let _ = bundle.statement();
    }
    if let Ok(message) = ReplicaMessage::decode(frame) {
        assert_eq!(message.to_frame(), data, "a second encoding of one message");
    }
});
