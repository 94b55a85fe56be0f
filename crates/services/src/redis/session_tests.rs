//! A session without a socket: what it answers does not depend on how its input comes in pieces.

use bytes::BytesMut;
use proptest::prelude::*;
use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;

use super::error::Unanswered;
use super::session::{Session, Turn};
use super::shared::{Options, Shared};
use crate::kv::{Moment, Request, Store};

const COMMANDS: [&str; 24] = [
    "SET a 1",
    "SET b text EX 100",
    "SET a 2 NX",
    "GET a",
    "GETDEL b",
    "INCR a",
    "INCR b",
    "MGET a b c",
    "DEL a c",
    "SCAN 0 COUNT 1",
    "PING",
    "ECHO x",
    "FOO",
    "GET",
    "WATCH a b",
    "UNWATCH",
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "HELLO 3",
    "HELLO 2",
    "RESET",
    "SELECT 9",
];

/// A session with a store behind it, and everything that it has written.
struct World {
    shared: Shared,
    session: Session,
    store: Store,
    input: BytesMut,
    out: Vec<u8>,
    requests: u64,
    /// Every request of this number and its multiples goes unanswered.
    unanswered_each: u64,
}

impl World {
    fn new(options: Options) -> Self {
        let shared = Shared::new(options, 6379, 1);
        let session = Session::new(1, ([127, 0, 0, 1], 1).into(), &shared);
        let (input, out) = (BytesMut::new(), Vec::new());
        Self { shared, session, store: Store::default(), input, out, requests: 0, unanswered_each: u64::MAX }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            match self.session.take(&mut self.input, &mut self.out, &self.shared) {
                Turn::Waiting => return,
                Turn::Reply => {}
                Turn::Ask(request) => {
                    let mut next = Some(request);
                    while let Some(request) = next {
                        let reply = self.ask(&request);
                        let reply = reply.as_deref().map_err(Clone::clone);
                        next = self.session.on_reply(reply, &mut self.out, &self.shared);
                    }
                }
            }
        }
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Unanswered> {
        assert!(request.len() <= self.shared.options().request_bytes_max);
        self.requests += 1;
        if self.requests.is_multiple_of(self.unanswered_each) {
            return Err(Unanswered::NotExecuted { cause: "lost".to_owned() });
        }
        let moment = Moment { timestamp: Timestamp(0), instance: InstanceId(self.requests) };
        Ok(self.store.execute(moment, &Request::decode(request).unwrap()))
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

fn talk(bytes: &[u8], piece: usize, request_bytes_max: usize) -> String {
    let mut world = World::new(Options { request_bytes_max, ..Options::default() });
    bytes.chunks(piece).for_each(|piece| world.receive(piece));
    world.written()
}

fn lines(commands: &[&str]) -> Vec<u8> {
    commands.iter().flat_map(|command| format!("{command}\r\n").into_bytes()).collect()
}

/// Replies of the outermost level in `written`.
fn replies(mut written: &[u8]) -> usize {
    let mut count = 0;
    while !written.is_empty() {
        let (_, length) = redis_protocol::resp3::decode::complete::decode(written)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(written)))
            .unwrap();
        written = &written[length..];
        count += 1;
    }
    count
}

proptest! {
    #[test]
    fn replies_do_not_depend_on_the_pieces(
        commands in prop::collection::vec(prop::sample::select(&COMMANDS[..]), 0..40),
        piece in 1_usize..100,
        request_bytes_max in 60_usize..300,
    ) {
        let bytes = lines(&commands);
        let whole = talk(&bytes, usize::MAX, 1 << 18);
        prop_assert_eq!(&talk(&bytes, 1, 1 << 18), &whole);
        prop_assert_eq!(&talk(&bytes, piece, 1 << 18), &whole);
        // Small requests only split pipelines; a transaction must fit one, so there are none here.
        if !commands.contains(&"MULTI") {
            prop_assert_eq!(&talk(&bytes, usize::MAX, request_bytes_max), &whole);
        }
    }

    #[test]
    fn every_command_gets_one_reply_whatever_the_cluster_does(
        commands in prop::collection::vec(prop::sample::select(&COMMANDS[..]), 0..40),
        piece in 1_usize..100,
        unanswered_each in 1_u64..4,
    ) {
        // The decoder of the third version of the protocol does not know the second one's null.
        let commands: Vec<_> = commands.into_iter().filter(|c| !["HELLO 2", "RESET"].contains(c)).collect();
        let mut world = World::new(Options::default());
        world.unanswered_each = unanswered_each;
        world.receive(b"HELLO 3\r\n");
        lines(&commands).chunks(piece).for_each(|piece| world.receive(piece));
        prop_assert_eq!(replies(&world.out), commands.len() + 1, "{}", world.written());
    }
}

#[test]
fn a_reply_of_another_service_is_an_error_for_each_command() {
    let mut world = World::new(Options::default());
    world.input.extend_from_slice(b"GET a\r\nPING\r\nGET b\r\n");
    let Turn::Ask(_) = world.session.take(&mut world.input, &mut world.out, &world.shared) else {
        panic!("nothing was asked")
    };
    let next = world.session.on_reply(Ok(b"garbage"), &mut world.out, &world.shared);
    assert_eq!(next, None);
    let error = "-ERR the cluster's service does not answer as a key-value store does\r\n";
    assert_eq!(world.written(), format!("{error}+PONG\r\n{error}"));
}
