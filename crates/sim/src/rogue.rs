//! The dishonest client of a schedule: it breaks every rule there is for clients.

use std::sync::Arc;
use std::time::Duration;

use regency_protocol::digest::client_id;
use regency_protocol::ids::{ClientId, ReplicaId, Sequence, SessionId, Signature};
use regency_protocol::limits::BUNDLE_REQUESTS_MAX;
use regency_protocol::message::{Bundle, Outcome, Reply, Request};
use regency_protocol::view::RequestAuth;

use crate::agenda::Moment;
use crate::coverage::Point;
use crate::node::clock;
use crate::plan::{CLIENTS_MAX, Plan};
use crate::random::Stream;
use crate::service;
use crate::signatures::{Keyring, Signer};

/// Sessions that it asks for in a row, now and then, and in a few schedules.
const OPENS: usize = BUNDLE_REQUESTS_MAX;
const OPENS_MAX: u64 = 2048;
/// From so many on a flood is a long one.
const OPENS_LONG: usize = 1024;

/// A client that does what it must not.
pub(crate) struct RogueClient {
    id: ClientId,
    replicas: Vec<ReplicaId>,
    auth: RequestAuth,
    window: u64,
    horizon: Duration,
    acts_left: usize,
    /// Sessions that it asks for in a row.
    opens: usize,
    hearers: Option<Hearers>,
    sessions: Vec<SessionId>,
    sequence: u64,
    /// Those that it ever sends to: all of them, or too few for a quorum.
    reached: Vec<ReplicaId>,
    /// What it sent last.
    last: Option<Bundle>,
    stream: Stream,
}

/// Who hears a request of a client that speaks to some only.
#[derive(Clone, Copy, Debug)]
enum Hearers {
    /// Any one replica, each time another.
    One,
    /// Whoever leads at the moment.
    Leader,
    /// Up to so many.
    Few(usize),
}

impl Hearers {
    fn new(plan: &Plan) -> Self {
        match Stream::new(plan.seed, "hearers").below(4) {
            0 | 1 => Self::Leader,
            2 => Self::Few(plan.view.quorum() - 1),
            _ => Self::One,
        }
    }
}

/// How many sessions it asks for in a row: many in a few schedules, which take longer.
fn opens(seed: u64) -> usize {
    let mut stream = Stream::new(seed, "session flood");
    let many = stream.percent(8).then(|| stream.between(OPENS_LONG as u64, OPENS_MAX));
    many.and_then(|many| usize::try_from(many).ok()).unwrap_or(OPENS)
}

/// What it sends to whom.
pub(crate) struct Misdeed {
    /// The replicas that get it.
    pub(crate) to: Vec<ReplicaId>,
    /// What they get.
    pub(crate) bundle: Bundle,
}

impl RogueClient {
    /// The client before its first misdeed.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut stream = Stream::new(plan.seed, "rogue client");
        let replicas: Vec<ReplicaId> = plan.view.members().iter().map(|member| member.id).collect();
        let mut reached = replicas.clone();
        if stream.percent(30) {
            stream.shuffle(&mut reached);
            reached.truncate(1 + stream.index(plan.view.quorum() - 1));
        }
        Self {
            id: client_id(&Keyring::client_key(CLIENTS_MAX)),
            replicas,
            reached,
            last: None,
            auth: plan.view.request_auth(),
            window: plan.settings.session_window,
            horizon: plan.settings.open_horizon,
            acts_left: plan.rogue_acts,
            opens: opens(plan.seed),
            hearers: plan.is_half_heard.then(|| Hearers::new(plan)),
            sessions: Vec::new(),
            sequence: 1,
            stream,
        }
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    /// An answer came: it takes every session that it is told of.
    pub(crate) fn on_reply(&mut self, reply: &Reply) {
        if let (SessionId::NONE, Outcome::Result(id)) = (reply.session, &reply.outcome)
            && let Ok(id) = <[u8; 8]>::try_from(&id[..])
            && self.sessions.len() < 8
            && !self.sessions.contains(&SessionId(u64::from_le_bytes(id)))
        {
            self.sessions.push(SessionId(u64::from_le_bytes(id)));
        }
    }

    /// Its turn, while `leader` leads; returns what it does, what that reaches, and how long it waits for the next turn.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        leader: ReplicaId,
        keyring: &Keyring,
    ) -> (Vec<Misdeed>, Option<Point>, Option<Moment>) {
        if self.acts_left == 0 {
            return (Vec::new(), None, None);
        }
        self.acts_left -= 1;
        let (mut misdeeds, mut point) = self.act(now, leader, keyring);
        if self.reached.len() < self.replicas.len() && !self.sessions.is_empty() {
            // Whatever it does, it does to the same few: the others lack proof of it.
            misdeeds.iter_mut().for_each(|misdeed| misdeed.to.clone_from(&self.reached));
            point = point.or(Some(Point::FewReached));
        }
        self.last = misdeeds.last().map(|misdeed| misdeed.bundle.clone());
        let pause = (self.acts_left > 0).then(|| self.stream.between(1000, 100_000));
        (misdeeds, point, pause)
    }

    fn act(&mut self, now: Moment, leader: ReplicaId, keyring: &Keyring) -> (Vec<Misdeed>, Option<Point>) {
        let Some(session) = (!self.sessions.is_empty()).then(|| self.stream.pick(&self.sessions)) else {
            return (vec![self.open(now, keyring)], None);
        };
        let everybody = self.replicas.clone();
        if let Some(hearers) = self.hearers {
            let request = self.next_request(session);
            let mut some = everybody;
            self.stream.shuffle(&mut some);
            match hearers {
                Hearers::One => some.truncate(1),
                Hearers::Leader => some = vec![leader],
                Hearers::Few(most) => some.truncate(1 + self.stream.index(most)),
            }
            return (vec![self.signed(some, vec![request], keyring)], None);
        }
        match self.stream.below(12) {
            8 => {
                // Again what it sent before.
                let bundle = self.last.clone().into_iter();
                let again = bundle.map(|bundle| Misdeed { to: everybody.clone(), bundle });
                (again.collect(), Some(Point::RequestReplayed))
            }
            9 => {
                // A gap, that is never filled.
                self.sequence += self.stream.between(1, 3);
                let request = self.next_request(session);
                (vec![self.signed(everybody, vec![request], keyring)], Some(Point::SequenceGap))
            }
            10 if self.stream.percent(30) => {
                let until = clock(now, 0).plus(self.horizon / 2);
                let opens =
                    (0..self.opens).map(|_| Arc::new(Request::open(self.id, self.stream.number(), until)));
                let opens: Vec<_> = opens.collect();
                let bundles = opens.chunks(BUNDLE_REQUESTS_MAX);
                let misdeeds =
                    bundles.map(|opens| self.signed(everybody.clone(), opens.to_vec(), keyring)).collect();
                let is_long = self.opens >= OPENS_LONG;
                (misdeeds, Some(if is_long { Point::LongSessionFlood } else { Point::SessionFlood }))
            }
            0 => (vec![self.open(now, keyring)], None),
            1 => (self.conflict(session, keyring), Some(Point::ConflictingRequests)),
            2 => {
                // Beyond the window.
                let far = self.sequence + self.window + self.stream.below(3);
                let request = self.request(session, far, self.sequence);
                (vec![self.signed(everybody, vec![request], keyring)], None)
            }
            3 => {
                // Below the floor that it named itself, under a lower floor.
                let low = self.sequence.saturating_sub(self.stream.between(1, 3));
                let request = self.request(session, low, low);
                (vec![self.signed(everybody, vec![request], keyring)], None)
            }
            4 => {
                // Of a session that is not there, or another client's.
                let stranger = SessionId(session.0 ^ self.stream.between(1, 1 << 18));
                let request = self.request(stranger, 1, 1);
                (vec![self.signed(everybody, vec![request], keyring)], None)
            }
            5 => {
                let request = self.next_request(session);
                let mut misdeed = self.signed(everybody, vec![request], keyring);
                misdeed.bundle.signature =
                    if self.stream.percent(50) { None } else { Some(Signature([7; 64])) };
                (vec![misdeed], None)
            }
            6 => {
                // To some only, and twice.
                let request = self.next_request(session);
                let mut some = everybody;
                self.stream.shuffle(&mut some);
                some.truncate(1 + self.stream.index(self.replicas.len()));
                let again = some.clone();
                let bundles = [some, again].map(|to| self.signed(to, vec![Arc::clone(&request)], keyring));
                (bundles.into(), None)
            }
            7 => {
                // As many as fit, and more.
                let count = self.window + 2;
                let requests = (0..count).map(|_| self.next_request(session)).collect();
                (vec![self.signed(everybody, requests, keyring)], None)
            }
            _ => {
                let request = self.next_request(session);
                (vec![self.signed(everybody, vec![request], keyring)], None)
            }
        }
    }

    /// A good OPEN most of the time, or one outside its time.
    fn open(&mut self, now: Moment, keyring: &Keyring) -> Misdeed {
        let until = match self.stream.below(6) {
            0 => clock(0, 0),
            1 => clock(now, 0).plus(self.horizon.saturating_mul(3)),
            _ => clock(now, 0).plus(self.horizon / 2),
        };
        let open = Arc::new(Request::open(self.id, self.stream.number(), until));
        self.signed(self.replicas.clone(), vec![open], keyring)
    }

    /// Two requests of one place, to everybody in different orders, or one to each half.
    fn conflict(&mut self, session: SessionId, keyring: &Keyring) -> Vec<Misdeed> {
        let sequence = self.sequence;
        self.sequence += 1;
        let [a, b] = [0, 1].map(|_| self.request(session, sequence, sequence));
        let mut one = self.replicas.clone();
        self.stream.shuffle(&mut one);
        let mut other = one.split_off(one.len() / 2);
        let both = self.stream.percent(50);
        if both {
            std::mem::swap(&mut other, &mut one);
            one = self.replicas.clone();
            other = self.replicas.clone();
        }
        vec![self.signed(one, vec![a], keyring), self.signed(other, vec![b], keyring)]
    }

    fn next_request(&mut self, session: SessionId) -> Arc<Request> {
        let sequence = self.sequence;
        self.sequence += 1;
        let floor = sequence.saturating_sub(self.stream.below(self.window));
        self.request(session, sequence, floor)
    }

    fn request(&mut self, session: SessionId, sequence: u64, floor: u64) -> Arc<Request> {
        let payload = service::append(9, self.stream.number(), 0);
        Arc::new(Request::ordered(self.id, session, Sequence(sequence), Sequence(floor), &payload))
    }

    fn signed(&self, to: Vec<ReplicaId>, requests: Vec<Arc<Request>>, keyring: &Keyring) -> Misdeed {
        let mut bundle = Bundle { signature: None, whole_results: false, requests };
        if let (RequestAuth::Signature, Some(statement)) = (self.auth, bundle.statement()) {
            bundle.signature = Some(keyring.sign(Signer::Client(self.id), &statement));
        }
        Misdeed { to, bundle }
    }
}
