//! Links over real loopback sockets: whole frames, whatever the sockets and the peers do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream as StdStream};
use std::time::Duration;

use mio::{Events, Poll};

use super::*;
use crate::crypto::SigningKey;

const LIMITS: LinkLimits = LinkLimits { frame_bytes_max: 3 << 20, outbound_bytes_max: 4 << 20 };
const PATIENCE: Duration = Duration::from_secs(10);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn identity(seed: u8) -> TlsIdentity {
    TlsIdentity::new(&key(seed)).unwrap()
}

fn sockets() -> (StdStream, StdStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connecting = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (connecting, accepted)
}

fn non_blocking(socket: StdStream) -> TcpStream {
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket)
}

/// Two links and the event loop that moves them.
struct Pair {
    poll: Poll,
    links: [Link; 2],
    received: [Vec<Bytes>; 2],
}

impl Pair {
    fn new(expected: u8) -> Self {
        let (connecting, accepted) = sockets();
        let connecting =
            Link::connect(non_blocking(connecting), &identity(1), &key(expected).public(), LIMITS);
        let accepted = Link::accept(non_blocking(accepted), &identity(2), LIMITS);
        let poll = Poll::new().unwrap();
        let mut links = [connecting.unwrap(), accepted.unwrap()];
        for (number, link) in links.iter_mut().enumerate() {
            poll.registry().register(link, Token(number), Interest::READABLE | Interest::WRITABLE).unwrap();
            link.flush().unwrap();
        }
        Self { poll, links, received: [vec![], vec![]] }
    }

    /// One turn for both sides; an error with the side that it struck.
    fn turn(&mut self) -> Result<(), (usize, LinkError)> {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "nothing happens any more");
        for event in &events {
            let number = event.token().0;
            let (link, received) = (&mut self.links[number], &mut self.received[number]);
            if event.is_read_closed() || event.is_error() {
                link.note_ending();
            }
            while link.read(100_000, received).map_err(|error| (number, error))? == ReadOutcome::More {}
            link.flush().map_err(|error| (number, error))?;
        }
        Ok(())
    }

    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            self.turn().unwrap();
        }
    }

    fn run_to_error(&mut self) -> (usize, LinkError) {
        loop {
            if let Err(failed) = self.turn() {
                return failed;
            }
        }
    }
}

#[test]
fn both_sides_learn_the_others_key() {
    let mut pair = Pair::new(2);
    pair.run_until(|pair| pair.links.iter().all(|link| link.peer_key().is_some()));
    assert_eq!(pair.links[0].peer_key(), Some(key(2).public()));
    assert_eq!(pair.links[1].peer_key(), Some(key(1).public()));
}

#[test]
fn frames_of_all_sizes_arrive_in_order_both_ways() {
    let mut pair = Pair::new(2);
    let sizes = [1, 100, 16_384, 16_385, 300_000, 2_500_000, 3];
    let frames: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
    for link in &mut pair.links {
        // A handshake's limit holds for the first frame, even if the rest is queued with it.
        link.queue(b"first").unwrap();
        for frame in &frames {
            link.queue(frame).unwrap();
        }
        link.flush().unwrap();
    }
    pair.run_until(|pair| pair.received.iter().all(|frames| frames.len() == sizes.len() + 1));
    for received in &pair.received {
        assert_eq!(received[0], &b"first"[..]);
        assert_eq!(received[1..], frames);
    }
    assert_eq!(pair.links[0].counters().frames_out, 8);
    assert_eq!(pair.links[1].counters().frames_in, 8);
    assert!(pair.links.iter().all(|link| !link.has_outbound()));
}

#[test]
fn many_small_frames_leave_in_few_writes() {
    let mut pair = Pair::new(2);
    pair.run_until(|pair| pair.links.iter().all(|link| link.peer_key().is_some()));
    let before = pair.links[0].counters().writes;
    for number in 0..1000_u32 {
        pair.links[0].queue(&number.to_le_bytes()).unwrap();
    }
    assert_eq!(pair.links[0].flush().unwrap(), FlushOutcome::Done);
    assert_eq!(pair.links[0].counters().writes, before + 1);
    pair.run_until(|pair| pair.received[1].len() == 1000);
}

#[test]
fn another_key_than_the_expected_one_ends_the_connection_with_that_reason() {
    let mut pair = Pair::new(3);
    let (side, error) = pair.run_to_error();
    assert!(matches!((side, error), (0, LinkError::WrongPeerKey)));
    let (side, error) = pair.run_to_error();
    assert!(side == 1 && matches!(error, LinkError::Tls(_)), "the other side gets an alert: {error}");
}

#[test]
fn the_outbound_queue_is_bounded_while_the_peer_does_not_read() {
    let mut pair = Pair::new(2);
    pair.run_until(|pair| pair.links.iter().all(|link| link.peer_key().is_some()));
    let frame = vec![7; 100_000];
    let mut queued = 0_usize;
    loop {
        let full = pair.links[0].queue(&frame).is_err();
        let blocked = pair.links[0].flush().unwrap() == FlushOutcome::Blocked;
        if full && blocked {
            break;
        }
        queued += usize::from(!full);
        assert!(pair.links[0].outbound_bytes() <= LIMITS.outbound_bytes_max + RECORD_OVERHEAD_BYTES * 32);
        assert!(queued < 1000, "sockets take some megabytes, not all");
    }
    // The first frame has the limit of a handshake: lift it, this test is about volume.
    pair.links[1].parser = FrameParser::new(LIMITS.frame_bytes_max);
    pair.run_until(|pair| pair.received[1].len() == queued);
    assert!(pair.links[0].queue(&frame).is_ok());
}

#[test]
fn a_frame_over_the_limit_ends_the_connection() {
    let mut pair = Pair::new(2);
    pair.links[0].queue(&[1; HANDSHAKE_BYTES_MAX + 1]).unwrap();
    let (side, error) = pair.run_to_error();
    assert!(side == 1 && matches!(error, LinkError::Frame(FrameError::TooLong { .. })), "{error}");
}

#[test]
fn a_close_is_noticed_after_the_last_frame() {
    let mut pair = Pair::new(2);
    pair.run_until(|pair| pair.links.iter().all(|link| link.peer_key().is_some()));
    let Pair { poll, links: [mut leaving, staying], received } = pair;
    leaving.queue(b"last words").unwrap();
    leaving.flush().unwrap();
    leaving.close();
    let (idle, _peer) = sockets();
    let idle = Link::accept(non_blocking(idle), &identity(1), LIMITS).unwrap();
    let mut pair = Pair { poll, links: [idle, staying], received };
    let (side, error) = pair.run_to_error();
    assert!(side == 1 && matches!(error, LinkError::Closed), "{error}");
    assert_eq!(pair.received[1], ["last words"]);
}

/// Feeds raw bytes to an accepting link, byte for byte if `slow`; returns how it ends.
fn end_of_raw(bytes: &[u8], slow: bool) -> LinkError {
    let (mut raw, accepted) = sockets();
    let mut link = Link::accept(non_blocking(accepted), &identity(2), LIMITS).unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut link, Token(0), Interest::READABLE).unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || {
        for piece in bytes.chunks(if slow { 1 } else { bytes.len().max(1) }) {
            if raw.write_all(piece).is_err() {
                return;
            }
        }
        let _ = raw.shutdown(Shutdown::Write);
        let _ = raw.read_to_end(&mut Vec::new());
    });
    let mut frames = Vec::new();
    let error = loop {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "nothing happens any more");
        if events.iter().any(|event| event.is_read_closed() || event.is_error()) {
            link.note_ending();
        }
        match link.read(100_000, &mut frames) {
            Ok(_) => assert!(link.input.len() <= INPUT_BYTES_MAX),
            Err(error) => break error,
        }
    };
    drop(link);
    writer.join().unwrap();
    assert!(frames.is_empty());
    error
}

#[test]
fn garbage_ends_the_connection_with_an_error() {
    let mut garbage = vec![vec![0; 10_000], vec![0xff; 10_000], b"GET / HTTP/1.1\r\n\r\n".to_vec()];
    let mut state = 1_u32;
    garbage.push(
        (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect(),
    );
    // A handshake record whose content never ends.
    garbage.push([&[0x16, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; 16_380]].concat().repeat(12));
    for bytes in garbage {
        let error = end_of_raw(&bytes, false);
        assert!(matches!(error, LinkError::Tls(_)), "{error}");
    }
    assert!(matches!(end_of_raw(&[0x16, 3, 1], true), LinkError::Closed));
    assert!(matches!(end_of_raw(&[], true), LinkError::Closed));
}

#[test]
fn a_truncated_and_a_slow_handshake_end_without_frames() {
    // A real first flight, cut anywhere, and byte for byte.
    let mut client = identity(1).connect(&key(2).public()).unwrap();
    let mut hello = vec![0; 4096];
    let status = client.process_tls_records(&mut []);
    let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { panic!("a first flight") };
    let length = data.encode(&mut hello).unwrap();
    hello.truncate(length);
    for end in [1, 5, 6, length / 2, length - 1, length] {
        assert!(matches!(end_of_raw(&hello[..end], false), LinkError::Closed));
    }
    assert!(matches!(end_of_raw(&hello, true), LinkError::Closed));
}
