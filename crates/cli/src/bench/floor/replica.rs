//! A replica process of the floor: one event loop over bare sockets.
//!
//! A hidden command that `bench --floor` starts. It prints its port, reads everybody's ports from stdin, joins
//! the others, prints `ready` and serves until its stdin closes.

use std::collections::HashMap;
use std::io::{BufRead, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use clap::{Args, ValueEnum};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::frame::Frame;
use super::round::{LEADER, Output, Round};
use super::wire::{Wire, WireError};
use crate::child;
use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};

/// Connections that one wait may report.
const EVENTS_MAX: usize = 1024;
/// The listener's token; connections count up from 0.
const LISTENER: Token = Token(usize::MAX);

/// Which messages the floor exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Exchange {
    /// Requests and replies.
    Echo,
    /// Also PROPOSE, WRITE and ACCEPT.
    Pattern,
}

/// What the parent says on the command line.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// This replica.
    #[arg(long)]
    id: u16,
    /// Votes that decide.
    #[arg(long)]
    quorum: usize,
    /// Which messages.
    #[arg(long)]
    exchange: Exchange,
    /// Bytes of a result.
    #[arg(long)]
    reply_bytes: usize,
}

/// Serves until the parent closes stdin or ends.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    child::end_with_parent()?;
    let failed = |what: &'static str| move |error: std::io::Error| failure::system(what, &error);
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(failed("listening on loopback"))?;
    let port = listener.local_addr().map_err(failed("listening on loopback"))?.port();
    println!("{port}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed("reading the ports"))?;
    let ports: Vec<u16> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    child::end_with_stdin();
    let mut replica = Replica::new(arguments, listener).map_err(failed("waiting for connections"))?;
    for port in &ports[..ports.len().min(usize::from(arguments.id))] {
        replica.join(*port).map_err(failed("connecting to another floor process"))?;
    }
    replica.serve(ports.len().saturating_sub(1)).map_err(failed("waiting for connections"))?;
    Ok(ExitStatus::Done)
}

struct Replica {
    id: u16,
    exchange: Exchange,
    reply_bytes: usize,
    poll: Poll,
    listener: TcpListener,
    wires: HashMap<usize, Wire>,
    next_token: usize,
    /// The replica behind a connection.
    peers: HashMap<usize, u16>,
    round: Round,
    outputs: Vec<Output>,
    /// Connections with something to send.
    dirty: Vec<usize>,
}

impl Replica {
    fn new(arguments: &Arguments, mut listener: TcpListener) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            id: arguments.id,
            exchange: arguments.exchange,
            reply_bytes: arguments.reply_bytes,
            poll,
            listener,
            wires: HashMap::new(),
            next_token: 0,
            peers: HashMap::new(),
            round: Round::new(arguments.id, arguments.quorum),
            outputs: Vec::new(),
            dirty: Vec::new(),
        })
    }

    /// Connects to a replica with a lower id and says who we are.
    fn join(&mut self, port: u16) -> std::io::Result<()> {
        let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nonblocking(true)?;
        let token = self.add(TcpStream::from_std(stream))?;
        let peer = u16::try_from(self.peers.len()).unwrap_or(u16::MAX);
        self.peers.insert(token, peer);
        push(&mut self.wires, &mut self.dirty, token, &Frame::Hello(self.id), 0);
        Ok(())
    }

    fn add(&mut self, stream: TcpStream) -> std::io::Result<usize> {
        let token = self.next_token;
        self.next_token += 1;
        self.wires.insert(token, Wire::new(stream, self.poll.registry(), Token(token))?);
        Ok(token)
    }

    /// The event loop: take in everything, order, then one write per connection.
    fn serve(&mut self, peers: usize) -> std::io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut is_ready = false;
        loop {
            self.flush();
            if !is_ready && self.peers.len() == peers {
                is_ready = true;
                println!("ready");
                std::io::stdout().flush()?;
            }
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let token = event.token().0;
                if event.is_readable() {
                    self.guarded(token, Self::receive);
                }
                if event.is_writable() {
                    self.guarded(token, |replica, token| match replica.wires.get_mut(&token) {
                        Some(wire) => wire.on_writable(),
                        None => Ok(()),
                    });
                }
            }
            if self.id == LEADER {
                self.round.propose(&mut self.outputs);
            }
            self.send_outputs();
        }
    }

    /// Runs one step on a connection; drops the connection if the step fails.
    fn guarded(&mut self, token: usize, step: impl FnOnce(&mut Self, usize) -> Result<(), WireError>) {
        match step(self, token) {
            Ok(()) => {}
            // At the end everybody closes everything, in any order.
            Err(WireError::Closed | WireError::Io(_)) => self.forget(token),
            Err(error @ (WireError::Frame(_) | WireError::Slow)) => {
                eprintln!("floor process {}: connection dropped: {error}", self.id);
                self.forget(token);
            }
        }
    }

    fn forget(&mut self, token: usize) {
        self.wires.remove(&token);
        self.peers.remove(&token);
    }

    fn accept(&mut self) -> std::io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream)?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
    }

    fn receive(&mut self, token: usize) -> Result<(), WireError> {
        let Some(wire) = self.wires.get_mut(&token) else { return Ok(()) };
        wire.receive()?;
        while let Some(frame) = wire.next_frame()? {
            let from = self.peers.get(&token).copied();
            match (frame, from) {
                (Frame::Hello(id), _) => {
                    self.peers.insert(token, id);
                }
                (Frame::Request(place), _) => match self.exchange {
                    Exchange::Echo => self.outputs.push(Output::Reply(token, place)),
                    Exchange::Pattern => self.round.on_request(token, place, &mut self.outputs),
                },
                (Frame::Propose { instance, requests }, Some(LEADER)) => {
                    self.round.on_propose(instance, requests, &mut self.outputs);
                }
                (Frame::Write(instance), Some(from)) => {
                    self.round.on_write(from, instance, &mut self.outputs);
                }
                (Frame::Accept(instance), Some(from)) => {
                    self.round.on_accept(from, instance, &mut self.outputs);
                }
                (Frame::Propose { .. } | Frame::Write(_) | Frame::Accept(_) | Frame::Reply(_), _) => {
                    return Err(super::frame::FrameError.into());
                }
            }
        }
        Ok(())
    }

    fn send_outputs(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Reply(token, place) => {
                    push(&mut self.wires, &mut self.dirty, token, &Frame::Reply(place), self.reply_bytes);
                }
                Output::Peers(frame) => {
                    for token in self.peers.keys() {
                        push(&mut self.wires, &mut self.dirty, *token, &frame, 0);
                    }
                }
            }
        }
        self.outputs = outputs;
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            self.guarded(token, |replica, token| match replica.wires.get_mut(&token) {
                Some(wire) => wire.flush(),
                None => Ok(()),
            });
        }
        self.dirty = dirty;
    }
}

fn push(
    wires: &mut HashMap<usize, Wire>,
    dirty: &mut Vec<usize>,
    token: usize,
    frame: &Frame,
    padding: usize,
) {
    if let Some(wire) = wires.get_mut(&token)
        && wire.push(frame, padding)
    {
        dirty.push(token);
    }
}

/// Says why stdin or stdout of a floor process did not hold what the parent expects.
pub(super) fn unexpected(line: &str) -> Failure {
    Failure::new(ErrorCode::System, format!("a floor process said {line:?}"), "run the command again")
}
