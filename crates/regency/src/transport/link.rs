//! One connection: a non-blocking socket, its TLS state, frames in and out.
//!
//! An event loop owns it and calls [`Link::read`] when the socket has something, [`Link::queue`] for every frame that
//! shall go out, and [`Link::flush`] once per turn: all frames of the turn then leave in full TLS records and, if
//! the socket takes them, in one write. It never blocks, and what it holds is bounded by [`LinkLimits`].

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use regency_protocol::ids::PublicKey;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;

use super::counters::LinkCounters;
use super::frame::{FrameError, FrameParser, LENGTH_BYTES};
use super::handshake::HANDSHAKE_BYTES_MAX;
use super::tls::{self, TlsIdentity};

/// Silence after which the system asks whether the peer's host is there.
const PROBE_AFTER: Duration = Duration::from_secs(10);
/// The pause between two such questions; after about ten without an answer the connection fails.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// What a connection first reserves for reading.
const INPUT_BYTES_MIN: usize = 4 << 10;
/// What it may hold undecrypted: several full records, and a fragmented handshake.
const INPUT_BYTES_MAX: usize = 128 << 10;
/// Bytes that are encrypted before they are written: a few writes' worth.
const ENCRYPTED_BYTES: usize = 256 << 10;
/// What encryption adds to a record, at most: header, content type, tag.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Bytes of a full record.
const RECORD_BYTES: usize = 16 << 10;
/// Buffers above this size are given back when they are empty.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Bytes of one incoming frame; the first one is a handshake and has the handshake's limit.
    pub frame_bytes_max: usize,
    /// Bytes that wait to be sent. A frame that is larger is taken when nothing else waits.
    pub outbound_bytes_max: usize,
}

/// Why a connection is of no use any more.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer holds another key than the expected one.
    #[error("the peer holds another key than the expected one")]
    WrongPeerKey,
    /// What came is not TLS, or TLS that is not accepted.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// What came inside TLS is no sequence of frames.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The peer has closed the connection.
    #[error("closed by the peer")]
    Closed,
}

impl LinkError {
    /// The reason's name in metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::WrongPeerKey => "wrong_peer_key",
            Self::Tls(_) => "tls",
            Self::Frame(FrameError::TooLong { .. }) => "frame_too_long",
            Self::Frame(FrameError::Empty) => "frame_empty",
            Self::Closed => "closed",
        }
    }
}

impl From<rustls::Error> for LinkError {
    fn from(error: rustls::Error) -> Self {
        if tls::is_wrong_key(&error) { Self::WrongPeerKey } else { Self::Tls(error) }
    }
}

/// There is no room for another outgoing frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the outbound queue is full")]
pub struct Full;

/// What a read has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Nothing: the socket will announce what comes.
    Drained,
    /// Perhaps something: the budget was used up, read again.
    More,
}

/// What a flush has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushOutcome {
    /// Nothing.
    Done,
    /// Something: the socket will announce that it takes more.
    Blocked,
}

/// A non-blocking, mutually authenticated connection that carries frames.
pub struct Link {
    socket: TcpStream,
    tls: Tls,
    /// Received, not decrypted yet: `input[input_start..input_end]`.
    input: Vec<u8>,
    input_start: usize,
    input_end: usize,
    parser: FrameParser,
    /// Frames that wait for encryption.
    plain: Vec<u8>,
    plain_start: usize,
    /// Encrypted, not written yet: `output[output_start..output_end]`.
    output: Vec<u8>,
    output_start: usize,
    output_end: usize,
    limits: LinkLimits,
    peer: Option<PublicKey>,
    /// Whether the socket has announced its end: then reading goes on until it comes.
    is_ending: bool,
    /// After an error nothing moves any more.
    has_ended: bool,
    counters: LinkCounters,
}

enum Tls {
    Connecting(UnbufferedClientConnection),
    Accepted(UnbufferedServerConnection),
}

impl Tls {
    fn wants_write(&self) -> bool {
        match self {
            Self::Connecting(tls) => tls.wants_write(),
            Self::Accepted(tls) => tls.wants_write(),
        }
    }
}

/// What one step of the TLS state machine asks for.
enum Step {
    Again,
    Input,
    Idle,
    Closed,
}

impl Link {
    /// A connection that `socket` is opening to the holder of `expected`.
    pub fn connect(
        socket: TcpStream,
        identity: &TlsIdentity,
        expected: &PublicKey,
        limits: LinkLimits,
    ) -> Result<Self, LinkError> {
        Self::new(socket, Tls::Connecting(identity.connect(expected)?), limits)
    }

    /// A connection that somebody has opened to us: [`Link::peer_key`] tells who, after TLS.
    pub fn accept(socket: TcpStream, identity: &TlsIdentity, limits: LinkLimits) -> Result<Self, LinkError> {
        Self::new(socket, Tls::Accepted(identity.accept()?), limits)
    }

    fn new(socket: TcpStream, tls: Tls, limits: LinkLimits) -> Result<Self, LinkError> {
        socket.set_nodelay(true)?;
        // A host that vanished says nothing: without probes its links would count as live for a quarter of an hour.
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
        SockRef::from(&socket).set_tcp_keepalive(&probes)?;
        Ok(Self {
            socket,
            tls,
            input: Vec::new(),
            input_start: 0,
            input_end: 0,
            parser: FrameParser::with_first(HANDSHAKE_BYTES_MAX, limits.frame_bytes_max),
            plain: Vec::new(),
            plain_start: 0,
            output: Vec::new(),
            output_start: 0,
            output_end: 0,
            limits,
            peer: None,
            is_ending: false,
            has_ended: false,
            counters: LinkCounters::default(),
        })
    }

    /// Changes the bounds, once the handshake has told who the peer is.
    pub fn set_limits(&mut self, limits: LinkLimits) {
        self.limits = limits;
        self.parser.set_limit(limits.frame_bytes_max);
    }

    /// The key that the peer has proved to hold; `None` until TLS is established.
    #[must_use]
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.peer
    }

    /// What went over the connection so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn outbound_bytes(&self) -> usize {
        (self.plain.len() - self.plain_start) + (self.output_end - self.output_start)
    }

    /// Whether something waits to be sent, the handshake of TLS included.
    #[must_use]
    pub fn has_outbound(&self) -> bool {
        self.outbound_bytes() > 0
    }

    /// Whether a frame or TLS record has begun to arrive and is not complete.
    #[must_use]
    pub fn has_partial_frame(&self) -> bool {
        !self.parser.is_between_frames() || self.input_start < self.input_end
    }

    /// The socket, for its addresses.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads up to about `budget_bytes` from the socket and appends the frames that are complete.
    ///
    /// The frames that came before an error, or before the peer closed the connection, are appended too.
    pub fn read(&mut self, budget_bytes: usize, frames: &mut Vec<Bytes>) -> Result<ReadOutcome, LinkError> {
        if self.has_ended {
            return Err(LinkError::Closed);
        }
        let frames_before = frames.len();
        let outcome = self.read_frames(budget_bytes, frames);
        self.has_ended = outcome.is_err();
        self.counters.frames_in += (frames.len() - frames_before) as u64;
        outcome
    }

    fn read_frames(&mut self, budget: usize, frames: &mut Vec<Bytes>) -> Result<ReadOutcome, LinkError> {
        let mut taken = 0;
        while taken < budget {
            self.make_room_for_input()?;
            let room = self.input.len() - self.input_end;
            let is_emptied = match self.socket.read(&mut self.input[self.input_end..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => {
                    self.input_end += count;
                    taken += count;
                    self.counters.bytes_in += count as u64;
                    self.counters.reads += 1;
                    // A read that did not fill its room has emptied the socket, and what comes next is announced
                    // anew: the read that would find nothing is saved.
                    count < room && !self.is_ending
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadOutcome::Drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.advance(frames, 0)?;
            if is_emptied {
                return Ok(ReadOutcome::Drained);
            }
        }
        Ok(ReadOutcome::More)
    }

    /// Space for a read; the buffer doubles while reads fill it, up to its bound.
    fn make_room_for_input(&mut self) -> Result<(), LinkError> {
        let was_filled = self.input_end == self.input.len();
        self.input.copy_within(self.input_start..self.input_end, 0);
        self.input_end -= self.input_start;
        self.input_start = 0;
        if was_filled && self.input.len() < INPUT_BYTES_MAX {
            let doubled = (self.input.len() * 2).clamp(INPUT_BYTES_MIN, INPUT_BYTES_MAX);
            self.input.resize(doubled, 0);
        }
        if self.input_end == self.input.len() {
            // Nothing of it could be used: no TLS that we speak has pieces this large.
            return Err(LinkError::Tls(rustls::Error::General("a record that never ends".into())));
        }
        Ok(())
    }

    /// Notes that the socket has announced its end or an error: the next [`Link::read`] goes on until it meets it.
    pub fn note_ending(&mut self) {
        self.is_ending = true;
    }

    /// Takes a frame to be sent with the next [`Link::flush`].
    pub fn queue(&mut self, frame: &[u8]) -> Result<(), Full> {
        let waiting = self.outbound_bytes();
        if waiting > 0 && waiting + frame.len() + LENGTH_BYTES > self.limits.outbound_bytes_max {
            return Err(Full);
        }
        let length = u32::try_from(frame.len()).map_err(|_| Full)?;
        self.plain.extend_from_slice(&length.to_le_bytes());
        self.plain.extend_from_slice(frame);
        self.counters.frames_out += 1;
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<FlushOutcome, LinkError> {
        if self.has_ended {
            return Err(LinkError::Closed);
        }
        let outcome = self.write_frames();
        self.has_ended = outcome.is_err();
        outcome
    }

    fn write_frames(&mut self) -> Result<FlushOutcome, LinkError> {
        loop {
            if !self.write_output()? {
                return Ok(FlushOutcome::Blocked);
            }
            // Frames are encrypted only when the socket takes more: a slow peer costs no second copy.
            let encrypt = (self.plain.len() - self.plain_start).min(ENCRYPTED_BYTES);
            // All complete records were taken by `read`: none is left here that could hold a frame.
            self.advance(&mut Vec::new(), encrypt)?;
            if self.output_start == self.output_end {
                return Ok(FlushOutcome::Done);
            }
        }
    }

    /// Says goodbye as well as that works without waiting, and closes the socket.
    pub fn close(mut self) {
        if self.has_ended {
            return;
        }
        let mut farewell = [0; 256];
        let incoming = &mut self.input[self.input_start..self.input_end];
        let written = match &mut self.tls {
            Tls::Connecting(tls) => farewell_of(tls.process_tls_records(incoming), &mut farewell),
            Tls::Accepted(tls) => farewell_of(tls.process_tls_records(incoming), &mut farewell),
        };
        // Nobody waits for the outcome: the connection ends either way.
        if self.output_start == self.output_end {
            let _ = self.socket.write(&farewell[..written]);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Runs the TLS state machine until it wants input or the application; encrypts `encrypt` plain bytes.
    fn advance(&mut self, frames: &mut Vec<Bytes>, encrypt: usize) -> Result<(), LinkError> {
        loop {
            match self.step(frames, encrypt) {
                Ok(Step::Again) => {}
                Ok(Step::Input) => return Ok(()),
                Ok(Step::Idle) => {
                    self.plain_start += encrypt;
                    self.give_back_buffers();
                    self.learn_peer()?;
                    return Ok(());
                }
                Ok(Step::Closed) => return Err(LinkError::Closed),
                Err(error) => {
                    if matches!(error, LinkError::Tls(_) | LinkError::WrongPeerKey) {
                        self.send_alert();
                    }
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, frames: &mut Vec<Bytes>, encrypt: usize) -> Result<Step, LinkError> {
        let incoming = &mut self.input[self.input_start..self.input_end];
        let mut sink = Sink {
            parser: &mut self.parser,
            frames,
            plain: &self.plain[self.plain_start..self.plain_start + encrypt],
            output: &mut self.output,
            output_end: &mut self.output_end,
        };
        let (discard, step) = match &mut self.tls {
            Tls::Connecting(tls) => sink.step(tls.process_tls_records(incoming)),
            Tls::Accepted(tls) => sink.step(tls.process_tls_records(incoming)),
        };
        self.input_start += discard;
        step
    }

    fn learn_peer(&mut self) -> Result<(), LinkError> {
        if self.peer.is_some() {
            return Ok(());
        }
        let (handshaking, certificates) = match &self.tls {
            Tls::Connecting(tls) => (tls.is_handshaking(), tls.peer_certificates()),
            Tls::Accepted(tls) => (tls.is_handshaking(), tls.peer_certificates()),
        };
        if handshaking {
            return Ok(());
        }
        let key = certificates.and_then(|all| all.first()).and_then(tls::key_of);
        self.peer = Some(key.ok_or(rustls::Error::NoCertificatesPresented)?);
        Ok(())
    }

    /// Tells the peer why TLS ends, as well as that works without waiting.
    fn send_alert(&mut self) {
        // What waits is handed out before anything else; a step more would run into the error again.
        while self.tls.wants_write() && self.step(&mut Vec::new(), 0).is_ok() {}
        let _ = self.write_output();
    }

    /// Whether all that is encrypted has been written.
    fn write_output(&mut self) -> Result<bool, LinkError> {
        while self.output_start < self.output_end {
            match self.socket.write(&self.output[self.output_start..self.output_end]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => {
                    self.output_start += count;
                    self.counters.bytes_out += count as u64;
                    self.counters.writes += 1;
                }
                // A socket that is still being connected says "not connected" on some systems.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output_start = 0;
        self.output_end = 0;
        Ok(true)
    }

    fn give_back_buffers(&mut self) {
        if self.plain_start == self.plain.len() {
            self.plain_start = 0;
            self.plain.clear();
            self.plain.shrink_to(KEPT_BYTES_MAX);
        } else if self.plain_start > ENCRYPTED_BYTES {
            self.plain.drain(..self.plain_start);
            self.plain_start = 0;
        }
    }
}

impl Source for Link {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

/// Where the TLS state machine puts what comes out of it, and gets what goes into it.
struct Sink<'a> {
    parser: &'a mut FrameParser,
    frames: &'a mut Vec<Bytes>,
    plain: &'a [u8],
    output: &'a mut Vec<u8>,
    output_end: &'a mut usize,
}

impl Sink<'_> {
    /// Carries out one step; also tells how many bytes of the input are done with.
    fn step<D>(&mut self, status: UnbufferedStatus<'_, '_, D>) -> (usize, Result<Step, LinkError>) {
        let UnbufferedStatus { mut discard, state } = status;
        let step = match state {
            Err(error) => Err(error.into()),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut fed = Ok(Step::Again);
                while let Some(record) = traffic.next_record() {
                    let result = record.map_err(LinkError::from).and_then(|record| {
                        discard += record.discard;
                        Ok(self.parser.feed(record.payload, self.frames)?)
                    });
                    if let Err(error) = result {
                        fed = Err(error);
                        break;
                    }
                }
                fed
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                self.write_with(0, |space| match data.encode(space) {
                    Ok(count) => Ok(Ok(count)),
                    Err(EncodeError::InsufficientSize(size)) => Err(size),
                    Err(error @ EncodeError::AlreadyEncoded) => Ok(Err(general(&error))),
                })
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Input),
            Ok(ConnectionState::WriteTraffic(traffic)) => self.encrypt(traffic),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
            // Early data is switched off; the enum may grow with the library.
            Ok(other) => Err(general(&format!("unexpected state {other:?}"))),
        };
        (discard, step)
    }

    fn encrypt<D>(&mut self, mut traffic: WriteTraffic<'_, D>) -> Result<Step, LinkError> {
        if self.plain.is_empty() {
            return Ok(Step::Idle);
        }
        let plain = self.plain;
        let records = plain.len().div_ceil(RECORD_BYTES);
        self.write_with(plain.len() + records * RECORD_OVERHEAD_BYTES, |space| {
            match traffic.encrypt(plain, space) {
                Ok(count) => Ok(Ok(count)),
                Err(EncryptError::InsufficientSize(size)) => Err(size),
                Err(error @ EncryptError::EncryptExhausted) => Ok(Err(general(&error))),
            }
        })?;
        Ok(Step::Idle)
    }

    /// Lets `write` put bytes behind the encrypted ones, in as much space as it wants.
    fn write_with(
        &mut self,
        expected: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, LinkError>, InsufficientSizeError>,
    ) -> Result<Step, LinkError> {
        let mut wanted = expected;
        loop {
            let end = *self.output_end + wanted;
            if self.output.len() < end {
                self.output.resize(end, 0);
            }
            match write(&mut self.output[*self.output_end..]) {
                Ok(written) => {
                    *self.output_end += written?;
                    return Ok(Step::Again);
                }
                Err(InsufficientSizeError { required_size }) => wanted = required_size.max(wanted + 1),
            }
        }
    }
}

/// A close notification, if the connection is in a state to send one.
fn farewell_of<D>(status: UnbufferedStatus<'_, '_, D>, space: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(space).unwrap_or(0),
        _ => 0,
    }
}

fn general(error: &impl ToString) -> LinkError {
    LinkError::Tls(rustls::Error::General(error.to_string()))
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
