//! Operations of the key-value store, executed: any bytes get an answer, and the answer decodes.
//!
//! The input is a sequence of operations, each behind two bytes with its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency::protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId, ViewId};
use regency::protocol::time::Timestamp;
use regency::{Context, Service};
use regency_services::kv::{KvService, Reply};

fuzz_target!(|data: &[u8]| {
    let mut service = KvService::default();
    let mut rest = data;
    let mut position = 0;
    while let Some((&[low, high], tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (operation, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        position += 1;
        let answer = service.execute(&context(position), operation);
        assert!(Reply::decode(&answer).is_ok(), "an answer that does not decode");
    }
});

fn context(position: u32) -> Context {
    Context {
        timestamp: Timestamp(1_000_000 * u64::from(position)),
        client: ClientId([1; 32]),
        session: SessionId::at(InstanceId(1), 0),
        sequence: Sequence(u64::from(position)),
        view: ViewId(0),
        instance: InstanceId(1),
        position,
        is_last: false,
        chain: Digest([2; 32]),
    }
}
