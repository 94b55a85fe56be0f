//! The event loop of a client process: one thread, many sessions, few connections.
//!
//! Run to completion: a turn reads all that the sockets have, hands the answers to the sessions, lets the [`App`] submit
//! more, and ends with one write per connection. Operations need no wake-up of another thread; [`Client`] is such
//! an app that other threads feed, the benchmark is another.
//!
//! [`Client`]: super::Client

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use regency_protocol::action::Recipients;
use regency_protocol::client::{ClientAction, ClientEvent, ClientSession, SubmitError};
use regency_protocol::codec::Wire;
use regency_protocol::ids::{Sequence, SessionId};
use regency_protocol::message::{ReplicaMessage, Reply};
use regency_protocol::time::Timestamp;
use regency_protocol::view::{RequestAuth, View};

use super::connection::{Connection, Need, Problem, Progress, Surroundings};
use super::outbox::{Bundling, Outbox, Signer};
use super::resolver::Resolver;
use super::{ClientConfig, ClientError, Connections};
use crate::transport::{Hello, LinkCounters, Role, TlsIdentity};

/// Socket events taken at once.
const EVENTS_PER_TURN: usize = 1024;
/// The waker's token; connections count from 0.
const WAKER: Token = Token(usize::MAX);
/// How long an ending loop waits for the calls under way: one that reached some replicas only would burden them.
const DRAIN_LONGEST: Duration = Duration::from_secs(1);
/// The longest sleep of the loop.
const SLEEP_LONGEST: Duration = Duration::from_secs(60);

/// What runs inside the driver's thread. Its methods must not block.
pub trait App {
    /// The loop begins.
    fn on_start(&mut self, _io: &mut Io<'_>) {}

    /// A session is open, for the first time or again; calls can be submitted before, they wait for it.
    fn on_ready(&mut self, _io: &mut Io<'_>, _session: usize) {}

    /// A call has ended.
    fn on_completed(&mut self, io: &mut Io<'_>, completion: Completion);

    /// No call can succeed as things are: enough replicas do not let this client in, or hold other keys. Calls
    /// that are outstanding end with the same error.
    fn on_hopeless(&mut self, _io: &mut Io<'_>, _error: &ClientError) {}

    /// Somebody has used the driver's [`Waker`]; several uses may be one call.
    fn on_wake(&mut self, _io: &mut Io<'_>) {}

    /// The time that was set with [`Io::set_timer`] has come.
    fn on_timer(&mut self, _io: &mut Io<'_>) {}
}

/// A call that has ended.
#[derive(Debug)]
pub struct Completion {
    /// The session's number, from 0.
    pub session: usize,
    /// What [`Io::submit`] returned.
    pub sequence: Sequence,
    /// The result.
    pub outcome: Result<Bytes, ClientError>,
    /// From submission to the end.
    pub latency: Duration,
}

/// What an [`App`] can do.
pub struct Io<'a> {
    core: &'a mut Core,
}

impl Io<'_> {
    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core.now
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.core.sessions.len()
    }

    /// How many calls may begin in a session now; none once the loop is to end.
    #[must_use]
    pub fn room(&self, session: usize) -> u64 {
        if self.core.is_stopping {
            return 0;
        }
        self.core.sessions.get(session).map_or(0, |session| session.room())
    }

    /// Begins a call in a session; it is sent at the end of the turn and ends within `timeout`.
    pub fn submit(
        &mut self,
        session: usize,
        operation: Bytes,
        timeout: Duration,
    ) -> Result<Sequence, SubmitError> {
        self.core.submit(session, operation, timeout)
    }

    /// Gives a call up without a completion; false if it has ended.
    pub fn cancel(&mut self, session: usize, sequence: Sequence) -> bool {
        self.core.sessions.get_mut(session).is_some_and(|session| session.cancel(sequence))
    }

    /// Asks for [`App::on_timer`] at `at`; replaces an earlier wish.
    pub fn set_timer(&mut self, at: Timestamp) {
        self.core.timer_at = at;
    }

    /// Ends the loop once the calls under way have ended, or after a second; no more can begin.
    pub fn stop(&mut self) {
        self.core.is_stopping = true;
    }

    /// What all connections have carried so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.core
            .groups
            .iter()
            .flat_map(|group| &group.connections)
            .fold(LinkCounters::default(), |total, connection| total.plus(connection.counters()))
    }
}

/// An event loop that is ready to run.
pub struct Driver {
    core: Core,
    poll: Poll,
}

struct Core {
    clock: Clock,
    /// The time of this turn.
    now: Timestamp,
    view: Arc<View>,
    around: Surroundings,
    bundling: Bundling,
    sessions: Vec<ClientSession>,
    groups: Vec<Group>,
    waker: Arc<Waker>,
    resolver: Option<Resolver>,
    /// No later than when a session's tick is due.
    tick_at: Timestamp,
    /// No later than when a connection's time comes.
    connect_at: Timestamp,
    timer_at: Timestamp,
    is_stopping: bool,
    /// Connections that may have more to read.
    unread: Vec<Token>,
    actions: Vec<ClientAction>,
    frames: Vec<Bytes>,
}

/// Sessions and the connections that they share: one to each replica.
struct Group {
    connections: Vec<Connection>,
    sessions: Range<usize>,
    open: HashMap<SessionId, usize>,
    outbox: Outbox,
    /// Why no call of the group can succeed, while that is so.
    verdict: Option<ClientError>,
    /// Whether the app knows that.
    is_told: bool,
}

impl Group {
    fn new(view: &View, number: usize, sessions: Range<usize>) -> Self {
        let first = number * view.n();
        let members = view.members().iter().zip(first..);
        Self {
            connections: members.map(|(member, token)| Connection::new(member, Token(token))).collect(),
            sessions,
            open: HashMap::new(),
            outbox: Outbox::default(),
            verdict: None,
            is_told: false,
        }
    }
}

/// Microseconds since the epoch that never go back.
struct Clock {
    start: Instant,
    start_time: Timestamp,
}

impl Clock {
    fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_time: Timestamp(0).plus(since_epoch) }
    }

    fn now(&self) -> Timestamp {
        self.start_time.plus(self.start.elapsed())
    }
}

impl Driver {
    /// Prepares sessions and connections; nothing is sent before [`Driver::run`].
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let setup = |error: &dyn std::fmt::Display| ClientError::Setup(error.to_string());
        let identity = TlsIdentity::new(&config.key).map_err(|error| setup(&error))?;
        let poll = Poll::new().map_err(|error| setup(&error))?;
        let registry = poll.registry().try_clone().map_err(|error| setup(&error))?;
        let waker = Arc::new(Waker::new(&registry, WAKER).map_err(|error| setup(&error))?);
        let view = config.view.clone();
        let clock = Clock::new();
        let client = config.key.client_id();
        let sessions: Vec<ClientSession> = (0..config.sessions.max(1))
            .map(|_| {
                let (view, settings) = (view.clone(), config.settings.clone());
                ClientSession::new(view, settings, client, rand::random(), config.retry)
            })
            .collect();
        let ranges: Vec<Range<usize>> = match config.connections {
            Connections::Shared => std::iter::once(0..sessions.len()).collect(),
            Connections::PerSession => (0..sessions.len()).map(|session| session..session + 1).collect(),
        };
        let groups = ranges
            .into_iter()
            .enumerate()
            .map(|(number, sessions)| Group::new(&view, number, sessions))
            .collect();
        let signer = match config.view.request_auth() {
            RequestAuth::Signature => {
                Some(Signer { key: config.key.clone(), cluster: config.view.cluster() })
            }
            RequestAuth::Channel => None,
        };
        let core = Core {
            now: clock.now(),
            clock,
            around: Surroundings { registry, identity, hello: Hello::new(&config.view, Role::Client) },
            view: config.view.clone(),
            bundling: Bundling { signer, signatures: config.signatures },
            sessions,
            groups,
            waker,
            resolver: None,
            tick_at: Timestamp(0),
            connect_at: Timestamp(0),
            timer_at: Timestamp::NEVER,
            is_stopping: false,
            unread: vec![],
            actions: vec![],
            frames: vec![],
        };
        Ok(Self { core, poll })
    }

    /// Wakes the loop from another thread: the app's [`App::on_wake`] is called.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        self.core.waker.clone()
    }

    /// Runs until the app stops it; returns the app.
    pub fn run<A: App>(mut self, mut app: A) -> Result<A, ClientError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        app.on_start(&mut Io { core: &mut self.core });
        let mut drain_until = None;
        loop {
            let mut sleep = self.core.sleep();
            if self.core.is_stopping {
                let now = self.core.clock.now();
                let until = *drain_until.get_or_insert(now.plus(DRAIN_LONGEST));
                if now >= until || self.core.is_drained() {
                    break;
                }
                sleep = sleep.min(until.since(now));
            }
            match self.poll.poll(&mut events, Some(sleep)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Setup(error.to_string())),
            }
            self.core.now = self.core.clock.now();
            let unread = std::mem::take(&mut self.core.unread);
            let mut is_woken = false;
            for event in events.iter().filter(|event| event.is_read_closed() || event.is_error()) {
                self.core.note_ending(event.token());
            }
            for token in events.iter().map(|event| event.token()).chain(unread) {
                if token == WAKER {
                    is_woken = true;
                } else {
                    self.core.on_socket(&mut app, token);
                }
            }
            if is_woken {
                self.core.on_addresses();
                app.on_wake(&mut Io { core: &mut self.core });
            }
            self.core.on_time(&mut app);
            self.core.end_hopeless(&mut app);
            self.core.send();
        }
        for session in 0..self.core.sessions.len() {
            self.core.end_calls(&mut app, session, &ClientError::Closed { sent: false });
        }
        for connection in self.core.groups.iter_mut().flat_map(|group| &mut group.connections) {
            connection.close(&self.core.around);
        }
        Ok(app)
    }
}

impl Core {
    /// Whether no call is under way, or none could end any more.
    fn is_drained(&self) -> bool {
        let has_links = self.groups.iter().flat_map(|group| &group.connections).any(Connection::is_up);
        !has_links || self.sessions.iter().all(|session| session.outstanding() == 0)
    }

    fn sleep(&self) -> Duration {
        if !self.unread.is_empty() {
            return Duration::ZERO;
        }
        let due = self.tick_at.min(self.connect_at).min(self.timer_at);
        due.since(self.clock.now()).min(SLEEP_LONGEST)
    }

    fn submit(
        &mut self,
        session: usize,
        operation: Bytes,
        timeout: Duration,
    ) -> Result<Sequence, SubmitError> {
        let Some(target) = self.sessions.get_mut(session) else { return Err(SubmitError::WindowFull(0)) };
        let mut actions = Vec::new();
        let sequence = target.submit(self.now, operation, self.now.plus(timeout), &mut actions)?;
        self.tick_at = self.tick_at.min(target.next_deadline().unwrap_or(Timestamp::NEVER));
        let group = self.group_of(session);
        for action in actions {
            match action {
                ClientAction::Send { to, request, whole_results } => {
                    self.groups[group].outbox.push(to, whole_results, request);
                }
                // A submission sends, or waits; nothing opens or ends by it.
                ClientAction::Opened(_) | ClientAction::Completed { .. } => {}
            }
        }
        Ok(sequence)
    }

    /// Where a session's connections are: there is one group for all, or one for each.
    fn group_of(&self, session: usize) -> usize {
        if self.groups.len() == 1 { 0 } else { session }
    }

    /// The socket of `token` has announced its end; the waker has none.
    fn note_ending(&mut self, token: Token) {
        let (group, position) = (token.0 / self.view.n(), token.0 % self.view.n());
        if let Some(group) = self.groups.get_mut(group) {
            group.connections[position].note_ending();
        }
    }

    fn on_socket<A: App>(&mut self, app: &mut A, token: Token) {
        let (group, position) = (token.0 / self.view.n(), token.0 % self.view.n());
        let Some(connection) = self.groups.get_mut(group).map(|group| &mut group.connections[position])
        else {
            return;
        };
        let replica = connection.replica();
        let mut frames = std::mem::take(&mut self.frames);
        match connection.on_ready(self.now, &self.around, &mut frames) {
            Progress::Drained => {}
            Progress::More => self.unread.push(token),
            Progress::Entered => {
                self.unread.push(token);
                self.judge(group);
                for session in self.groups[group].sessions.clone() {
                    self.deliver(app, session, ClientEvent::Connected(replica));
                }
            }
            Progress::Failed => {
                self.connect_at = self.connect_at.min(connection.due());
                self.groups[group].outbox.forget(replica);
                self.judge(group);
            }
        }
        for frame in frames.drain(..) {
            // What is not a message for us is as good as no answer.
            if let Ok(ReplicaMessage::Replies { view, replies }) = ReplicaMessage::decode(frame) {
                for reply in replies {
                    if let Some(session) = self.session_of(group, &reply) {
                        self.deliver(app, session, ClientEvent::Reply { from: replica, view, reply });
                    }
                }
            }
        }
        self.frames = frames;
    }

    fn session_of(&self, group: usize, reply: &Reply) -> Option<usize> {
        let group = &self.groups[group];
        if reply.session == SessionId::NONE {
            let mut sessions = group.sessions.clone();
            return sessions.find(|session| self.sessions[*session].opening() == Some(reply.sequence));
        }
        group.open.get(&reply.session).copied()
    }

    fn deliver<A: App>(&mut self, app: &mut A, session: usize, event: ClientEvent) {
        let mut actions = std::mem::take(&mut self.actions);
        let target = &mut self.sessions[session];
        let was_open = target.id();
        target.handle(self.now, event, &mut actions);
        self.tick_at = self.tick_at.min(target.next_deadline().unwrap_or(Timestamp::NEVER));
        let group = self.group_of(session);
        if was_open.is_some() && self.sessions[session].id() != was_open {
            self.groups[group].open.retain(|_, open| *open != session);
        }
        for action in actions.drain(..) {
            match action {
                ClientAction::Send { to, request, whole_results } => {
                    self.groups[group].outbox.push(to, whole_results, request);
                }
                ClientAction::Opened(id) => {
                    self.groups[group].open.insert(id, session);
                    app.on_ready(&mut Io { core: self }, session);
                }
                ClientAction::Completed { sequence, began, outcome } => {
                    let latency = self.now.since(began);
                    let outcome = outcome.map_err(|error| ClientError::of_call(error, latency));
                    let completion = Completion { session, sequence, outcome, latency };
                    app.on_completed(&mut Io { core: self }, completion);
                }
            }
        }
        self.actions = actions;
    }

    fn on_time<A: App>(&mut self, app: &mut A) {
        if self.connect_at <= self.now {
            self.on_connect_time();
        }
        if self.tick_at <= self.now {
            self.tick_at = Timestamp::NEVER;
            for session in 0..self.sessions.len() {
                let due = self.sessions[session].next_deadline().unwrap_or(Timestamp::NEVER);
                if due <= self.now {
                    self.deliver(app, session, ClientEvent::Tick);
                } else {
                    self.tick_at = self.tick_at.min(due);
                }
            }
        }
        if self.timer_at <= self.now {
            self.timer_at = Timestamp::NEVER;
            app.on_timer(&mut Io { core: self });
        }
    }

    fn on_connect_time(&mut self) {
        self.connect_at = Timestamp::NEVER;
        let mut questions = Vec::new();
        for (group, entry) in self.groups.iter_mut().enumerate() {
            for (position, connection) in entry.connections.iter_mut().enumerate() {
                if connection.due() <= self.now
                    && connection.on_time(self.now, &self.around) == Need::Addresses
                {
                    let token = Token(group * self.view.n() + position);
                    questions.push((token, connection.address().to_owned()));
                }
                self.connect_at = self.connect_at.min(connection.due());
            }
        }
        for (token, name) in questions {
            if !self.ask(token, &name) {
                self.resolved(token, vec![]);
            }
        }
    }

    fn ask(&mut self, token: Token, name: &str) -> bool {
        if self.resolver.is_none() {
            self.resolver = Resolver::start(self.waker.clone()).ok();
        }
        self.resolver.as_ref().is_some_and(|resolver| resolver.ask(token, name))
    }

    fn on_addresses(&mut self) {
        let answers = self.resolver.as_ref().map(Resolver::answers).unwrap_or_default();
        for (token, addresses) in answers {
            self.resolved(token, addresses.unwrap_or_default());
        }
    }

    fn resolved(&mut self, token: Token, addresses: Vec<std::net::SocketAddr>) {
        let (group, position) = (token.0 / self.view.n(), token.0 % self.view.n());
        let connection = &mut self.groups[group].connections[position];
        connection.on_addresses(self.now, &self.around, addresses);
        self.connect_at = self.connect_at.min(connection.due());
    }

    /// Whether the group's calls can succeed at all.
    fn judge(&mut self, group: usize) {
        let group = &mut self.groups[group];
        let weak = self.view.weak();
        let refusing = group.connections.iter().filter_map(|connection| match connection.problem() {
            Some(Problem::Refused { code, text }) if !code.is_temporary() => Some((connection, *code, text)),
            Some(Problem::Refused { .. } | Problem::Unreachable | Problem::WrongKey) | None => None,
        });
        let refusing: Vec<_> = refusing.collect();
        let foreign = group.connections.iter().filter(|each| each.problem() == Some(&Problem::WrongKey));
        let foreign: Vec<_> = foreign.collect();
        // One correct replica among those that say so; or too few are left that could answer.
        let refused = refusing
            .iter()
            .find(|(_, code, _)| refusing.iter().filter(|(_, other, _)| other == code).count() >= weak);
        let verdict = match (refused, foreign.first()) {
            (Some((connection, code, text)), _) => Some(ClientError::NotAdmitted {
                replica: connection.replica(),
                code: *code,
                text: (*text).clone(),
                sent: false,
            }),
            (None, Some(connection)) if self.view.n() - foreign.len() < weak => Some(ClientError::WrongKey {
                replica: connection.replica(),
                address: connection.address().to_owned(),
                sent: false,
            }),
            (None, _) => None,
        };
        group.is_told = group.is_told && verdict.is_some();
        group.verdict = verdict;
    }

    /// Ends calls that cannot succeed, rather than let them wait for their deadlines.
    fn end_hopeless<A: App>(&mut self, app: &mut A) {
        for group in 0..self.groups.len() {
            let Some(verdict) = self.groups[group].verdict.clone() else { continue };
            if !std::mem::replace(&mut self.groups[group].is_told, true) {
                app.on_hopeless(&mut Io { core: self }, &verdict);
            }
            for session in self.groups[group].sessions.clone() {
                self.end_calls(app, session, &verdict);
            }
        }
    }

    fn end_calls<A: App>(&mut self, app: &mut A, session: usize, error: &ClientError) {
        for (sequence, began, sent) in self.sessions[session].cancel_all() {
            let outcome = Err(error.clone().with_sent(sent));
            let latency = self.now.since(began);
            app.on_completed(&mut Io { core: self }, Completion { session, sequence, outcome, latency });
        }
    }

    /// Ends the turn: everything that was submitted leaves, in one write per connection if the sockets take it.
    fn send(&mut self) {
        for group in &mut self.groups {
            if group.outbox.is_empty() {
                continue;
            }
            let connections = &mut group.connections;
            group.outbox.take(&self.bundling, |outgoing| {
                for connection in connections.iter_mut() {
                    let is_meant = match outgoing.to {
                        Recipients::All => true,
                        Recipients::One(replica) => replica == connection.replica(),
                    };
                    if is_meant && connection.is_up() {
                        connection.queue(&outgoing.frame);
                    }
                }
            });
            for connection in &mut group.connections {
                if !connection.flush(self.now, &self.around) {
                    self.connect_at = self.connect_at.min(connection.due());
                }
            }
        }
    }
}
