//! One non-blocking connection of the floor: one read takes what is there, one write sends what has gathered.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::frame::{Frame, FrameError};

/// What one read asks for.
const READ_BYTES: usize = 64 << 10;
/// Bytes that may wait for a peer that does not read.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// A connection with its buffers.
pub(super) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that have arrived.
    filled: usize,
    /// Bytes of `input` that have been parsed.
    parsed: usize,
    output: Vec<u8>,
    /// Whether the kernel took less than it was given; it will say when there is room again.
    is_blocked: bool,
    /// Whether it waits in the list of connections to flush.
    is_dirty: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The operating system says so.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The other side sent something else than a frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The other side does not keep up.
    #[error("{OUTPUT_BYTES_MAX} bytes wait for a peer that does not read")]
    Slow,
    /// The other side closed it.
    #[error("closed by the other side")]
    Closed,
}

impl Wire {
    /// Takes over a connected stream and registers it under `token`.
    pub(super) fn new(mut stream: TcpStream, registry: &Registry, token: Token) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            input: vec![0; READ_BYTES],
            filled: 0,
            parsed: 0,
            output: Vec::new(),
            is_blocked: false,
            is_dirty: false,
        })
    }

    /// Reads what the socket holds. Edge-triggered: a read that is not full has drained it, and the next bytes
    /// wake us again, so no second call is spent on finding it empty.
    pub(super) fn receive(&mut self) -> Result<(), WireError> {
        self.input.copy_within(self.parsed..self.filled, 0);
        self.filled -= self.parsed;
        self.parsed = 0;
        loop {
            if self.input.len() - self.filled < READ_BYTES / 2 {
                self.input.resize(self.filled + READ_BYTES, 0);
            }
            let room = self.input.len() - self.filled;
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(WireError::Closed),
                Ok(count) => {
                    self.filled += count;
                    if count < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next whole frame of what has arrived.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((frame, length)) = Frame::decode(&self.input[self.parsed..self.filled])? else {
            return Ok(None);
        };
        self.parsed += length;
        Ok(Some(frame))
    }

    /// Appends a frame to what the next flush sends. True if the connection was clean before.
    pub(super) fn push(&mut self, frame: &Frame, padding: usize) -> bool {
        frame.encode(padding, &mut self.output);
        !std::mem::replace(&mut self.is_dirty, true)
    }

    /// Sends what has gathered, in one call.
    pub(super) fn flush(&mut self) -> Result<(), WireError> {
        self.is_dirty = false;
        if self.is_blocked {
            return self.check_output();
        }
        self.write()
    }

    /// The kernel has room again.
    pub(super) fn on_writable(&mut self) -> Result<(), WireError> {
        if !self.is_blocked {
            return Ok(());
        }
        self.is_blocked = false;
        self.write()
    }

    fn write(&mut self) -> Result<(), WireError> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..sent);
        self.check_output()
    }

    fn check_output(&self) -> Result<(), WireError> {
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(WireError::Slow);
        }
        Ok(())
    }
}
