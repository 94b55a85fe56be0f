//! A replica under a stream of arbitrary messages from its peers: it refuses and counts, and never panics.
//!
//! The input is a sequence of frames, each behind one byte that says from whom it comes and how much time passes.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use regency::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::event::{Event, Verified};
use regency_protocol::ids::{ClusterId, PublicKey, ReplicaId, ViewId};
use regency_protocol::limits::Settings;
use regency_protocol::message::Message;
use regency_protocol::replica::{Replica, ReplicaConfig, Start};
use regency_protocol::time::Timestamp;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

/// Bytes of a frame's length in the input.
const LENGTH_BYTES: usize = 2;

fuzz_target!(|data: &[u8]| {
    let mut replica = replica();
    let mut actions = Vec::new();
    let mut now = Timestamp(1_000_000_000);
    let mut rest = data;
    while let Some((&[control, low, high], tail)) = rest.split_first_chunk::<{ 1 + LENGTH_BYTES }>() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (frame, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        now = now.plus(Duration::from_millis(u64::from(control >> 4)));
        let from = ReplicaId(u16::from(control & 7));
        let event = match Message::decode(Bytes::copy_from_slice(frame)) {
            Ok(message) => Event::Message { from, message: Verified::vouch(message) },
            Err(_) if control & 8 == 0 => Event::InputDrained,
            Err(_) => Event::Tick,
        };
        replica.handle(now, event, &mut actions);
        actions.clear();
    }
    let status = replica.status();
    assert!(status.executed <= status.decided);
});

fn replica() -> Replica {
    let members = (0..4)
        .map(|id: u8| Member {
            id: ReplicaId(u16::from(id)),
            address: format!("replica-{id}:7000"),
            key: PublicKey([id + 1; 32]),
        })
        .collect();
    let view = View::new(ViewParts {
        cluster: ClusterId([7; 32]),
        id: ViewId(0),
        mode: Mode::Bft,
        faults: 1,
        members,
        clients: Clients::Open,
        request_auth: RequestAuth::Signature,
    });
    Replica::new(ReplicaConfig {
        view: Arc::new(view.expect("four members tolerate one fault")),
        me: ReplicaId(1),
        settings: Arc::new(Settings::default()),
        start: Start::Fresh,
        eager_instances: 4,
    })
}
