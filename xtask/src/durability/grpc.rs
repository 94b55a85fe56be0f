//! As much of gRPC over HTTP/2 as it takes to put keys into etcd: one connection, many calls at once, header blocks
//! written by hand and those of the answers not read. A call has succeeded if a message came before its end.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// Longest frame that a peer may send to one who has not asked for more.
const FRAME_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 64 << 10;
/// What is added to the connection's window at once: more than a run receives.
const WINDOW: u32 = (1 << 31) - (1 << 16);
/// No answer takes so long.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of data and headers; in settings and pings the same bit acknowledges.
const END_STREAM: u8 = 1;
const ACKNOWLEDGES: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection to one member.
pub(super) struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    next_stream: u32,
    /// Calls in flight that have had a message.
    answered: BTreeSet<u32>,
}

impl Connection {
    /// Connects.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut outgoing = PREFACE.to_vec();
        push_frame(&mut outgoing, SETTINGS, 0, 0, &[]);
        push_frame(&mut outgoing, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Ok(Self { socket, received: Vec::new(), outgoing, next_stream: 1, answered: BTreeSet::new() })
    }

    /// Keeps so many puts in flight until `end`; how many were done between `begin` and `end`.
    pub(super) fn put(
        mut self,
        client: usize,
        in_flight: usize,
        begin: Instant,
        end: Instant,
    ) -> Result<usize> {
        for slot in 0..in_flight {
            self.call(&key(client, slot));
        }
        let mut slot = 0;
        let mut puts = 0;
        loop {
            self.socket.write_all(&self.outgoing).context("etcd does not take calls")?;
            self.outgoing.clear();
            let done = self.receive()?;
            let now = Instant::now();
            if now >= end {
                return Ok(puts);
            }
            if now >= begin {
                puts += done;
            }
            for _ in 0..done {
                slot = (slot + 1) % in_flight;
                self.call(&key(client, slot));
            }
        }
    }

    /// Begins a call.
    fn call(&mut self, key: &[u8]) {
        let message = put_request(key);
        push_frame(&mut self.outgoing, HEADERS, END_HEADERS, self.next_stream, &header_block());
        push_frame(&mut self.outgoing, DATA, END_STREAM, self.next_stream, &message);
        self.next_stream += 2;
    }

    /// Waits for bytes; how many calls ended with them.
    fn receive(&mut self) -> Result<usize> {
        let filled = self.received.len();
        self.received.resize(filled + READ_BYTES, 0);
        let read = self.socket.read(&mut self.received[filled..]).context("etcd does not answer")?;
        ensure!(read > 0, "etcd closed the connection");
        self.received.truncate(filled + read);
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        let mut done = 0;
        while let Some(frame) = Frame::split(&mut rest)? {
            done += usize::from(self.on_frame(&frame)?);
        }
        self.received = rest.to_vec();
        Ok(done)
    }

    /// Whether a call ended with it.
    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<bool> {
        match frame.kind {
            DATA => {
                ensure!(frame.flags & END_STREAM == 0, "an answer without a status");
                self.answered.insert(frame.stream);
                Ok(false)
            }
            HEADERS if frame.flags & END_STREAM != 0 => {
                ensure!(self.answered.remove(&frame.stream), "etcd refused a put");
                Ok(true)
            }
            SETTINGS if frame.flags & ACKNOWLEDGES == 0 => {
                push_frame(&mut self.outgoing, SETTINGS, ACKNOWLEDGES, 0, &[]);
                Ok(false)
            }
            PING if frame.flags & ACKNOWLEDGES == 0 => {
                push_frame(&mut self.outgoing, PING, ACKNOWLEDGES, 0, frame.payload);
                Ok(false)
            }
            RST_STREAM | GOAWAY => bail!("etcd broke a call off: {:?}", frame.payload),
            _ => Ok(false),
        }
    }
}

/// A frame that has come.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first one off, if it is whole.
    fn split(rest: &mut &'a [u8]) -> Result<Option<Self>> {
        let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let Some((payload, behind)) = behind.split_at_checked(length) else { return Ok(None) };
        *rest = behind;
        Ok(Some(Self { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload }))
    }
}

fn push_frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// The headers of a put, none of them compressed or remembered.
fn header_block() -> Vec<u8> {
    // Of the static table: POST and http.
    let mut block = vec![0x83, 0x86];
    let mut push = |name: &[u8], value: &[u8]| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    };
    // Names of the static table: path, authority, content-type; and one that is not there.
    push(&[0x04], b"/etcdserverpb.KV/Put");
    push(&[0x01], b"127.0.0.1");
    push(&[0x0f, 0x10], b"application/grpc");
    push(b"\x00\x02te", b"trailers");
    block
}

/// A message with a key and an empty value.
fn put_request(key: &[u8]) -> Vec<u8> {
    let field = [&[0x0a, key.len() as u8], key].concat();
    let mut message = vec![0, 0, 0, 0, field.len() as u8];
    message.extend_from_slice(&field);
    message
}

fn key(client: usize, slot: usize) -> Vec<u8> {
    format!("{client:04}{slot:04}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_where_they_end() {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, DATA, END_STREAM, 5, b"abc");
        push_frame(&mut bytes, PING, 0, 0, &[1; 8]);
        let mut rest = &bytes[..bytes.len() - 1];
        let first = Frame::split(&mut rest).unwrap().unwrap();
        assert_eq!(
            (first.kind, first.flags, first.stream, first.payload),
            (DATA, END_STREAM, 5, &b"abc"[..])
        );
        assert!(Frame::split(&mut rest).unwrap().is_none());
        assert_eq!(rest.len(), FRAME_HEADER_BYTES + 7);
    }

    #[test]
    fn a_put_has_the_bytes_that_protocol_buffers_want() {
        assert_eq!(put_request(b"k"), [0, 0, 0, 0, 3, 0x0a, 1, b'k']);
    }
}
