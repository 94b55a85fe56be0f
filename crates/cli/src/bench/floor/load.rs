//! The clients of the floor: a closed loop over all connections, one event loop in one thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::frame::{Frame, Place};
use super::wire::{Wire, WireError};
use crate::bench::latency::Latency;

/// Connections that one wait may report.
const EVENTS_MAX: usize = 1024;

/// What the clients do.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// How many clients.
    pub(super) clients: usize,
    /// Requests that each keeps in flight.
    pub(super) in_flight: usize,
    /// Bytes of a request's payload.
    pub(super) request_bytes: usize,
    /// Whether all clients use the same connections.
    pub(super) is_shared: bool,
    /// Equal replies that complete a request.
    pub(super) weak: u32,
    /// Time before counting starts.
    pub(super) warmup: Duration,
    /// Time that is counted.
    pub(super) duration: Duration,
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Counted {
    /// Latencies of the completed requests.
    pub(super) latency: Latency,
    /// For how long.
    pub(super) elapsed: Duration,
}

/// One request in flight.
#[derive(Clone, Copy)]
struct Slot {
    sequence: u64,
    sent: Instant,
    /// Replicas that replied, a bit each.
    replies: u128,
}

struct Clients<'a> {
    load: &'a Load,
    replicas: usize,
    wires: Vec<Wire>,
    slots: Vec<Slot>,
    dirty: Vec<usize>,
    latency: Latency,
    is_counting: bool,
}

/// Connects, warms up, counts, and leaves.
pub(super) fn run(load: &Load, replicas: &[SocketAddr]) -> Result<Counted, WireError> {
    let mut poll = Poll::new()?;
    let groups = if load.is_shared { 1 } else { load.clients };
    let mut wires = Vec::with_capacity(groups * replicas.len());
    for address in std::iter::repeat_n(replicas, groups).flatten() {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let token = Token(wires.len());
        wires.push(Wire::new(mio::net::TcpStream::from_std(stream), poll.registry(), token)?);
    }
    let start = Instant::now();
    let mut clients = Clients {
        load,
        replicas: replicas.len(),
        wires,
        slots: Vec::with_capacity(load.clients * load.in_flight),
        dirty: Vec::new(),
        latency: Latency::new(),
        is_counting: false,
    };
    for client in 0..load.clients {
        for sequence in 0..load.in_flight as u64 {
            clients.slots.push(Slot { sequence, sent: start, replies: 0 });
            let client = u32::try_from(client).unwrap_or(u32::MAX);
            clients.send(Place { client, sequence });
        }
    }
    let count_from = start + load.warmup;
    let end = count_from + load.duration;
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        clients.flush()?;
        let now = Instant::now();
        if now >= end {
            return Ok(Counted { latency: clients.latency, elapsed: now - count_from });
        }
        clients.is_counting = now >= count_from;
        match poll.poll(&mut events, Some(end - now)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        // One look at the clock a turn: what a turn takes is far below what is measured.
        let now = Instant::now();
        for event in &events {
            let index = event.token().0;
            if event.is_readable() {
                clients.receive(index, now)?;
            }
            if event.is_writable() {
                clients.wires[index].on_writable()?;
            }
        }
    }
}

impl Clients<'_> {
    /// The connection of a client to a replica.
    fn wire_of(&self, client: u32, replica: usize) -> usize {
        let group = if self.load.is_shared { 0 } else { client as usize };
        group * self.replicas + replica
    }

    fn send(&mut self, place: Place) {
        for replica in 0..self.replicas {
            let index = self.wire_of(place.client, replica);
            if self.wires[index].push(&Frame::Request(place), self.load.request_bytes) {
                self.dirty.push(index);
            }
        }
    }

    fn receive(&mut self, index: usize, now: Instant) -> Result<(), WireError> {
        self.wires[index].receive()?;
        while let Some(frame) = self.wires[index].next_frame()? {
            let Frame::Reply(place) = frame else { return Err(super::frame::FrameError.into()) };
            self.on_reply(index % self.replicas, place, now);
        }
        Ok(())
    }

    fn on_reply(&mut self, replica: usize, place: Place, now: Instant) {
        let in_flight = self.load.in_flight as u64;
        let offset = usize::try_from(place.sequence % in_flight).unwrap_or(0);
        let slot = place.client as usize * self.load.in_flight + offset;
        let Some(slot) = self.slots.get_mut(slot) else { return };
        if slot.sequence != place.sequence {
            return;
        }
        slot.replies |= 1 << replica;
        if slot.replies.count_ones() < self.load.weak {
            return;
        }
        if self.is_counting {
            self.latency.record(now - slot.sent);
        }
        let sequence = place.sequence + in_flight;
        *slot = Slot { sequence, sent: now, replies: 0 };
        self.send(Place { client: place.client, sequence });
    }

    fn flush(&mut self) -> Result<(), WireError> {
        for index in self.dirty.drain(..) {
            self.wires[index].flush()?;
        }
        Ok(())
    }
}
