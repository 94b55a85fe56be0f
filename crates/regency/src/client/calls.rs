//! The app behind [`Client`](super::Client): takes calls from other threads in batches and hands their results back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::Waker;
use regency_protocol::ids::Sequence;
use regency_protocol::time::Timestamp;
use tokio::sync::oneshot;

use super::ClientError;
use super::driver::{App, Completion, Io};

/// Calls that have not ended, at most; more are refused.
pub(super) const CALLS_MAX: usize = 1 << 16;
/// Bytes of their operations, at most.
const CALL_BYTES_MAX: usize = 256 << 20;

/// How the result of a call reaches its caller.
pub(super) type Answer = oneshot::Sender<Result<Bytes, ClientError>>;

/// What other threads ask of the driver.
pub(super) enum Command {
    /// A call.
    Begin(Begin),
    /// The caller of this ticket does not wait any more.
    Cancel(u64),
    /// End.
    Close,
}

/// A call on its way to the driver.
pub(super) struct Begin {
    pub(super) ticket: u64,
    pub(super) operation: Bytes,
    pub(super) began: Instant,
    pub(super) timeout: Duration,
    pub(super) answer: Answer,
    pub(super) permit: Permit,
}

/// What the driver's thread shares with all others.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    is_signalled: AtomicBool,
    waker: Arc<Waker>,
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    is_closed: bool,
}

/// The right to have a call; it is given back when the call has ended.
pub(super) struct Permit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.calls.fetch_sub(1, Ordering::Relaxed);
        self.shared.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self {
            queue: Mutex::default(),
            is_signalled: AtomicBool::new(false),
            waker,
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes a place among the calls.
    pub(super) fn permit(self: &Arc<Self>, bytes: usize) -> Result<Permit, ClientError> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit { shared: self.clone(), bytes };
        if calls >= CALLS_MAX || total.saturating_add(bytes) > CALL_BYTES_MAX {
            return Err(ClientError::Overloaded(calls));
        }
        Ok(permit)
    }

    /// Hands a command to the driver; returns it if the driver has ended.
    pub(super) fn push(&self, command: Command) -> Result<(), Command> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(command);
        }
        queue.commands.push(command);
        drop(queue);
        // One wake-up for all that is pushed before the driver looks.
        if !self.is_signalled.swap(true, Ordering::AcqRel) {
            // It fails only when the driver's poll is gone; then the queue is closed, or about to be.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    fn take(&self) -> Vec<Command> {
        self.is_signalled.store(false, Ordering::Release);
        std::mem::take(&mut self.lock().commands)
    }

    /// Takes no more commands; returns those that nobody has looked at.
    pub(super) fn close(&self) -> Vec<Command> {
        let mut queue = self.lock();
        queue.is_closed = true;
        std::mem::take(&mut queue.commands)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls of one client.
pub(super) struct Calls {
    shared: Arc<Shared>,
    /// Calls for which no session has room, in the order of their coming.
    waiting: VecDeque<Waiting>,
    pending: HashMap<(usize, Sequence), Pending>,
    tickets: HashMap<u64, (usize, Sequence)>,
    next_session: usize,
    needed: usize,
    /// Who waits for the first session, and until when.
    ready: Option<(oneshot::Sender<Result<(), ClientError>>, Timestamp)>,
    patience: Duration,
}

struct Waiting {
    begin: Begin,
    deadline: Timestamp,
}

struct Pending {
    ticket: u64,
    answer: Answer,
    _permit: Permit,
}

impl Calls {
    /// An app that tells `ready` when the first session is open, or why none will be, within `patience`.
    pub(super) fn new(
        shared: Arc<Shared>,
        needed: usize,
        ready: oneshot::Sender<Result<(), ClientError>>,
        patience: Duration,
    ) -> Self {
        Self {
            shared,
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            tickets: HashMap::new(),
            next_session: 0,
            needed,
            ready: Some((ready, Timestamp::NEVER)),
            patience,
        }
    }

    /// Ends the calls that no session has taken; the driver has ended, and with it all others.
    pub(super) fn close(self) {
        let unseen = self.shared.close().into_iter().filter_map(|command| match command {
            Command::Begin(begin) => Some(begin),
            Command::Cancel(_) | Command::Close => None,
        });
        for begin in self.waiting.into_iter().map(|waiting| waiting.begin).chain(unseen) {
            let _ = begin.answer.send(Err(ClientError::Closed { sent: false }));
        }
        if let Some((ready, _)) = self.ready {
            let _ = ready.send(Err(ClientError::Closed { sent: false }));
        }
    }

    /// Submits what waits, as far as sessions have room.
    fn submit_waiting(&mut self, io: &mut Io<'_>) {
        while !self.waiting.is_empty() {
            let Some(session) = self.session_with_room(io) else { return };
            let Some(Waiting { begin, deadline }) = self.waiting.pop_front() else { return };
            let left = deadline.since(io.now());
            match io.submit(session, begin.operation, left) {
                Ok(sequence) => {
                    self.tickets.insert(begin.ticket, (session, sequence));
                    let pending =
                        Pending { ticket: begin.ticket, answer: begin.answer, _permit: begin.permit };
                    self.pending.insert((session, sequence), pending);
                }
                Err(error) => {
                    let _ = begin.answer.send(Err(error.into()));
                }
            }
        }
    }

    /// Sessions take turns.
    fn session_with_room(&mut self, io: &Io<'_>) -> Option<usize> {
        let sessions = io.sessions();
        let found = (0..sessions)
            .map(|step| (self.next_session + step) % sessions)
            .find(|session| io.room(*session) > 0)?;
        self.next_session = (found + 1) % sessions;
        Some(found)
    }

    fn cancel(&mut self, io: &mut Io<'_>, ticket: u64) {
        if let Some((session, sequence)) = self.tickets.remove(&ticket) {
            self.pending.remove(&(session, sequence));
            io.cancel(session, sequence);
        } else {
            self.waiting.retain(|waiting| waiting.begin.ticket != ticket);
        }
    }

    /// Ends the calls that have waited for room until their deadlines, and sets the timer for the next one.
    fn expire_waiting(&mut self, io: &mut Io<'_>) {
        let now = io.now();
        let needed = self.needed;
        let mut next = Timestamp::NEVER;
        if self.waiting.iter().any(|waiting| waiting.deadline <= now) {
            let (expired, waiting): (VecDeque<_>, _) =
                std::mem::take(&mut self.waiting).into_iter().partition(|each| each.deadline <= now);
            self.waiting = waiting;
            for Waiting { begin, .. } in expired {
                let waited = begin.began.elapsed();
                let _ = begin.answer.send(Err(unheard(needed, waited)));
            }
        }
        for waiting in &self.waiting {
            next = next.min(waiting.deadline);
        }
        if let Some((_, until)) = &self.ready {
            next = next.min(*until);
        }
        io.set_timer(next);
    }
}

fn unheard(needed: usize, waited: Duration) -> ClientError {
    ClientError::NoQuorum { replies: 0, needed, refused: 0, sent: false, waited }
}

impl App for Calls {
    fn on_start(&mut self, io: &mut Io<'_>) {
        let until = io.now().plus(self.patience);
        if let Some((_, due)) = &mut self.ready {
            *due = until;
        }
        io.set_timer(until);
    }

    fn on_ready(&mut self, io: &mut Io<'_>, _session: usize) {
        if let Some((ready, _)) = self.ready.take() {
            let _ = ready.send(Ok(()));
        }
        self.submit_waiting(io);
    }

    fn on_completed(&mut self, io: &mut Io<'_>, completion: Completion) {
        if let Some(pending) = self.pending.remove(&(completion.session, completion.sequence)) {
            self.tickets.remove(&pending.ticket);
            let _ = pending.answer.send(completion.outcome);
        }
        self.submit_waiting(io);
    }

    fn on_hopeless(&mut self, _io: &mut Io<'_>, error: &ClientError) {
        if let Some((ready, _)) = self.ready.take() {
            let _ = ready.send(Err(error.clone()));
        }
    }

    fn on_wake(&mut self, io: &mut Io<'_>) {
        for command in self.shared.take() {
            match command {
                Command::Begin(begin) => {
                    let left = begin.timeout.saturating_sub(begin.began.elapsed());
                    let deadline = io.now().plus(left);
                    self.waiting.push_back(Waiting { begin, deadline });
                }
                Command::Cancel(ticket) => self.cancel(io, ticket),
                Command::Close => io.stop(),
            }
        }
        self.submit_waiting(io);
        if !self.waiting.is_empty() {
            self.expire_waiting(io);
        }
    }

    fn on_timer(&mut self, io: &mut Io<'_>) {
        if let Some((ready, _)) = self.ready.take_if(|(_, until)| *until <= io.now()) {
            let _ = ready.send(Err(unheard(self.needed, self.patience)));
        }
        self.expire_waiting(io);
    }
}
