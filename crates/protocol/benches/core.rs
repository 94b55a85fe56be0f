//! What the core costs per operation: four cores in one thread, no network, no cryptography.
//!
//! `cargo bench -p regency-protocol` prints nanoseconds per operation and replica, from a decoded request to
//! the reply, in rounds of as many operations as are in flight.

// A benchmark looks at clocks and prints; the core that it measures does neither.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::disallowed_macros)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use regency_protocol::action::{Action, Recipients};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{
    ClientId, ClusterId, PublicKey, ReplicaId, Sequence, SessionId, Signature, ViewId,
};
use regency_protocol::limits::Settings;
use regency_protocol::message::{Outcome, Request};
use regency_protocol::record::Durability;
use regency_protocol::replica::{Replica, ReplicaConfig, Start};
use regency_protocol::time::Timestamp;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

const CLIENT: ClientId = ClientId([9; 32]);
const SESSIONS: u64 = 100;
const ROUNDS: u64 = 300;

fn main() {
    for (in_flight, bytes) in [(16_u64, 0_usize), (16, 1024), (1, 0)] {
        let mut cluster = Cluster::new();
        let sessions = cluster.open_sessions();
        let started = Instant::now();
        let mut spent = Duration::ZERO;
        for round in 0..ROUNDS {
            let first = round * in_flight;
            let requests: Vec<Arc<Request>> = sessions
                .iter()
                .flat_map(|session| (first..first + in_flight).map(|sequence| (*session, sequence)))
                .map(|(session, sequence)| {
                    let payload = vec![7; bytes];
                    Arc::new(Request::ordered(CLIENT, session, Sequence(sequence), Sequence(first), &payload))
                })
                .collect();
            let before = Instant::now();
            cluster.order(&requests);
            spent += before.elapsed();
        }
        let operations = SESSIONS * in_flight * ROUNDS;
        assert_eq!(cluster.executed, operations * 4, "everything is executed everywhere");
        println!(
            "{SESSIONS} x {in_flight} in flight, {bytes} bytes: {} ns per operation and replica ({:.1} s in all)",
            spent.as_nanos() / u128::from(operations * 4),
            started.elapsed().as_secs_f64()
        );
    }
}

struct Cluster {
    replicas: Vec<Replica>,
    inbox: VecDeque<(usize, Event)>,
    now: Timestamp,
    executed: u64,
    opened: Vec<SessionId>,
}

impl Cluster {
    fn new() -> Self {
        let members = (0..4_u8).map(|id| Member {
            id: ReplicaId(id.into()),
            address: format!("r{id}:1"),
            key: PublicKey([id; 32]),
        });
        let view = View::new(ViewParts {
            cluster: ClusterId([1; 32]),
            id: ViewId(0),
            mode: Mode::Bft,
            faults: 1,
            members: members.collect(),
            clients: Clients::Listed([(CLIENT, PublicKey([9; 32]))].into()),
            request_auth: RequestAuth::Channel,
        });
        let view = Arc::new(view.expect("a view"));
        let settings = Arc::new(Settings::default());
        let replica = |id| {
            Replica::new(ReplicaConfig {
                view: Arc::clone(&view),
                me: ReplicaId(id),
                settings: Arc::clone(&settings),
                start: Start::Fresh,
                durability: Durability::None,
                eager_instances: 2,
            })
        };
        Self {
            replicas: (0..4).map(replica).collect(),
            inbox: VecDeque::new(),
            now: Timestamp(1),
            executed: 0,
            opened: Vec::new(),
        }
    }

    fn open_sessions(&mut self) -> Vec<SessionId> {
        let valid = Timestamp(60_000_000);
        let opens: Vec<_> =
            (0..SESSIONS).map(|nonce| Arc::new(Request::open(CLIENT, nonce, valid))).collect();
        self.order(&opens);
        let mut sessions = std::mem::take(&mut self.opened);
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }

    /// Gives the requests to all, and goes on until nothing moves.
    fn order(&mut self, requests: &[Arc<Request>]) {
        for replica in 0..self.replicas.len() {
            for request in requests {
                let request =
                    ClientRequest { request: Arc::clone(request), proof: None, whole_result: false };
                self.inbox.push_back((replica, Event::Request(Verified::vouch(request))));
            }
        }
        let mut actions = Vec::new();
        loop {
            while let Some((to, event)) = self.inbox.pop_front() {
                self.replicas[to].handle(self.now, event, &mut actions);
                self.perform(to, &mut actions);
            }
            self.now = Timestamp(self.now.0 + 100);
            for replica in 0..self.replicas.len() {
                self.replicas[replica].handle(self.now, Event::InputDrained, &mut actions);
                self.perform(replica, &mut actions);
            }
            if self.inbox.is_empty() {
                return;
            }
        }
    }

    fn perform(&mut self, from: usize, actions: &mut Vec<Action>) {
        let me = ReplicaId(u16::try_from(from).expect("small"));
        for action in actions.drain(..) {
            match action {
                Action::Send { to, message, .. } => {
                    for replica in 0..self.replicas.len() {
                        let is_meant = match to {
                            Recipients::All => replica != from,
                            Recipients::One(one) => usize::from(one.0) == replica,
                        };
                        if is_meant {
                            let message = Verified::vouch(message.clone());
                            self.inbox.push_back((replica, Event::Message { from: me, message }));
                        }
                    }
                }
                Action::Sign(statement) => {
                    let signature = Signature([0; 64]);
                    self.inbox.push_back((from, Event::Signed { statement, signature }));
                }
                Action::Execute(delivery) => {
                    self.executed += delivery.operations.len() as u64;
                    let results = vec![Bytes::new(); delivery.operations.len()];
                    let executed = Event::Executed { instance: delivery.instance, results };
                    self.inbox.push_back((from, executed));
                }
                Action::Reply { reply, .. } => {
                    if reply.session == SessionId::NONE
                        && let Outcome::Result(session) = reply.outcome
                    {
                        let session = session[..].try_into().map(u64::from_le_bytes).expect("eight bytes");
                        self.opened.push(SessionId(session));
                    }
                }
                Action::Append { .. }
                | Action::Cut(_)
                | Action::Snapshot { .. }
                | Action::Diverged(_)
                | Action::Donate { .. }
                | Action::Transfer(_)
                | Action::Remembered => {}
                Action::Report(misbehaviour) => panic!("{me}: {misbehaviour:?}"),
            }
        }
    }
}
