//! Ordering among cores in one process, with a network that delivers everything at once, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::action::{Action, Misbehaviour, Reason, Recipients};
use regency_protocol::codec::Wire;
use regency_protocol::digest::{Domain, digest};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{
    ClientId, ClusterId, Digest, InstanceId, LogPosition, PublicKey, ReplicaId, Sequence, SessionId,
    Signature, ViewId,
};
use regency_protocol::limits::Settings;
use regency_protocol::message::{Message, Outcome, Request};
use regency_protocol::record::{Durability, Record};
use regency_protocol::replica::{Replica, ReplicaConfig, ReplicaState, Start};
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::time::Timestamp;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

const CLIENT: ClientId = ClientId([9; 32]);

/// Cores with instant links; what `is_cut` names neither sends nor receives.
struct Cluster {
    now: Timestamp,
    configs: BTreeMap<ReplicaId, ReplicaConfig>,
    replicas: BTreeMap<ReplicaId, Replica>,
    executed: BTreeMap<ReplicaId, Vec<Bytes>>,
    replies: Vec<(ReplicaId, Sequence, Outcome)>,
    inbox: VecDeque<(ReplicaId, Event)>,
    /// What each has on disk.
    logs: BTreeMap<ReplicaId, Vec<(LogPosition, Record)>>,
    snapshots: BTreeMap<ReplicaId, (SnapshotHead, Digest)>,
    cut: Vec<ReplicaId>,
}

impl Cluster {
    fn new(mode: Mode, n: u16, starts: impl Fn(u16) -> Start) -> Self {
        Self::with(mode, n, starts, Durability::None, Settings::default())
    }

    fn durable(mode: Mode, n: u16, settings: Settings) -> Self {
        Self::with(mode, n, |_| Start::Fresh, Durability::Sync, settings)
    }

    fn with(
        mode: Mode,
        n: u16,
        starts: impl Fn(u16) -> Start,
        durability: Durability,
        settings: Settings,
    ) -> Self {
        let members = (0..n).map(|id| Member {
            id: ReplicaId(id),
            address: format!("r{id}:1"),
            key: PublicKey([u8::try_from(id).unwrap(); 32]),
        });
        let view = View::new(ViewParts {
            cluster: ClusterId([1; 32]),
            id: ViewId(0),
            mode,
            faults: View::faults_max(mode, usize::from(n)),
            members: members.collect(),
            clients: Clients::Open,
            request_auth: RequestAuth::Channel,
        });
        let view = Arc::new(view.unwrap());
        let settings = Arc::new(settings);
        let configs = (0..n).map(|id| {
            let config = ReplicaConfig {
                view: Arc::clone(&view),
                me: ReplicaId(id),
                settings: Arc::clone(&settings),
                start: starts(id),
                durability,
                eager_instances: 2,
            };
            (config.me, config)
        });
        let configs: BTreeMap<_, _> = configs.collect();
        Self {
            now: Timestamp(1_000_000),
            replicas: configs.iter().map(|(id, config)| (*id, Replica::new(config.clone()))).collect(),
            configs,
            executed: BTreeMap::new(),
            replies: Vec::new(),
            inbox: VecDeque::new(),
            logs: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            cut: Vec::new(),
        }
    }

    /// Ends some replicas, and starts them again from what they have on disk.
    fn restart(&mut self, ids: &[u16]) {
        let ids: Vec<ReplicaId> = ids.iter().map(|id| ReplicaId(*id)).collect();
        self.inbox.retain(|(to, _)| !ids.contains(to));
        for id in &ids {
            let snapshot = self.snapshots.get(id).cloned();
            self.executed.entry(*id).or_default().clear();
            let mut replica = Replica::restore(self.configs[id].clone(), snapshot);
            let mut actions = Vec::new();
            for (position, record) in self.logs.get(id).cloned().unwrap_or_default() {
                replica.replay(position, record, &mut actions).unwrap();
                for action in actions.drain(..) {
                    let Action::Execute(delivery) = action else { panic!("{action:?} while reading") };
                    let results: Vec<_> = delivery.operations.iter().map(|op| op.payload()).collect();
                    self.executed.entry(*id).or_default().extend(results.iter().cloned());
                    let executed = Event::Executed { instance: delivery.instance, results };
                    replica.handle(self.now, executed, &mut Vec::new());
                }
            }
            replica.resume(self.now, &mut actions);
            self.replicas.insert(*id, replica);
            self.perform(*id, actions);
        }
        let everybody: Vec<ReplicaId> = self.replicas.keys().copied().collect();
        for id in &ids {
            for peer in everybody.iter().filter(|peer| *peer != id) {
                self.inbox.push_back((*id, Event::Connected(*peer)));
                self.inbox.push_back((*peer, Event::Connected(*id)));
            }
        }
        self.run();
    }

    fn request(&mut self, request: Request) {
        let request = Arc::new(request);
        for id in self.replicas.keys() {
            let from_client =
                ClientRequest { request: Arc::clone(&request), proof: None, whole_result: false };
            self.inbox.push_back((*id, Event::Request(Verified::vouch(from_client))));
        }
    }

    fn open_session(&mut self) -> SessionId {
        self.request(Request::open(CLIENT, 77, self.now.plus(std::time::Duration::from_secs(60))));
        self.run();
        let (_, _, outcome) = self.replies.last().expect("an answer").clone();
        let Outcome::Result(session) = outcome else { panic!("refused") };
        SessionId(u64::from_le_bytes(session[..].try_into().unwrap()))
    }

    fn run(&mut self) {
        while let Some((to, event)) = self.inbox.pop_front() {
            if self.cut.contains(&to) {
                continue;
            }
            let mut actions = Vec::new();
            let replica = self.replicas.get_mut(&to).unwrap();
            replica.handle(self.now, event, &mut actions);
            if self.inbox.is_empty() {
                for replica in self.replicas.keys() {
                    self.inbox.push_back((*replica, Event::InputDrained));
                }
                if actions.is_empty() && self.drain_once() {
                    return;
                }
            }
            self.perform(to, actions);
        }
    }

    /// Lets everybody propose; true if nobody had anything to do.
    fn drain_once(&mut self) -> bool {
        self.inbox.clear();
        let mut is_quiet = true;
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            let mut actions = Vec::new();
            self.replicas.get_mut(&id).unwrap().handle(self.now, Event::InputDrained, &mut actions);
            is_quiet &= actions.is_empty();
            self.perform(id, actions);
        }
        is_quiet
    }

    fn perform(&mut self, from: ReplicaId, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { .. } if self.cut.contains(&from) => {}
                Action::Send { to, message, .. } => {
                    let everybody: Vec<ReplicaId> = self.replicas.keys().copied().collect();
                    for id in everybody {
                        let is_meant = match to {
                            Recipients::All => id != from,
                            Recipients::One(one) => id == one,
                        };
                        if is_meant {
                            let mut bytes = Vec::new();
                            message.encode(&mut bytes);
                            let message = Message::decode(bytes.into()).unwrap();
                            let message = Verified::vouch(message);
                            self.inbox.push_back((id, Event::Message { from, message }));
                        }
                    }
                }
                Action::Sign(statement) => {
                    let signature = Signature([u8::try_from(from.0).unwrap(); 64]);
                    self.inbox.push_back((from, Event::Signed { statement, signature }));
                }
                Action::Execute(delivery) => {
                    let log = self.executed.entry(from).or_default();
                    let payloads: Vec<_> = delivery.operations.iter().map(|op| op.payload()).collect();
                    log.extend(payloads.iter().cloned());
                    let executed = Event::Executed { instance: delivery.instance, results: payloads };
                    self.inbox.push_back((from, executed));
                }
                Action::Reply { reply, .. } => self.replies.push((from, reply.sequence, reply.outcome)),
                // A replica that was away sees messages beyond what it keeps.
                Action::Report(Misbehaviour { reason: Reason::TooFarAhead, .. }) => {}
                Action::Append { position, record } => {
                    let bytes = record.to_frame();
                    self.logs.entry(from).or_default().push((position, Record::decode(bytes).unwrap()));
                    self.inbox.push_back((from, Event::Durable(position)));
                }
                Action::Snapshot { head, .. } => {
                    let bytes = Bytes::from(head.encode());
                    let root = digest(Domain::Result, &bytes);
                    self.snapshots.insert(from, (SnapshotHead::decode(bytes).unwrap(), root));
                    self.inbox.push_back((from, Event::Snapshotted { instance: head.instance, root }));
                }
                Action::Cut(below) => self.logs.entry(from).or_default().retain(|(at, _)| *at >= below),
                Action::Diverged(instance) => panic!("{from}: state differs at {instance}"),
                Action::Donate { .. } | Action::Transfer(_) | Action::Remembered => {
                    panic!("{from}: nobody is behind here")
                }
                Action::Report(misbehaviour) => panic!("{from}: {misbehaviour:?}"),
            }
        }
    }

    /// Lets time pass, ticking whoever has a deadline.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = Timestamp(self.now.0 + 1_000);
            for id in self.replicas.keys().copied().collect::<Vec<_>>() {
                if self.replicas[&id].next_deadline().is_some_and(|due| due <= self.now) {
                    self.inbox.push_back((id, Event::Tick));
                }
            }
            self.run();
        }
    }
}

fn operation(session: SessionId, sequence: u64) -> Request {
    let floor = Sequence(sequence.saturating_sub(10));
    Request::ordered(CLIENT, session, Sequence(sequence), floor, format!("op {sequence}").as_bytes())
}

#[test]
fn four_replicas_execute_the_same_operations_in_one_order() {
    for (mode, n) in [(Mode::Bft, 4), (Mode::Cft, 3), (Mode::Bft, 7), (Mode::Bft, 1)] {
        let mut cluster = Cluster::new(mode, n, |_| Start::Fresh);
        let session = cluster.open_session();
        for sequence in 0..200 {
            cluster.request(operation(session, sequence));
            cluster.run();
        }
        let first = cluster.executed[&ReplicaId(0)].clone();
        assert_eq!(first.len(), 200);
        assert!(cluster.executed.values().all(|log| *log == first), "{mode:?} {n}");
        cluster.pass(2_000);
        for replica in cluster.replicas.values() {
            let status = replica.status();
            assert_eq!((status.decided, status.executed), (InstanceId(201), InstanceId(201)));
            assert_eq!(status.certified, InstanceId(201), "an idle cluster certifies what it has decided");
            assert_eq!(replica.next_deadline(), None, "an idle cluster has nothing to wait for");
        }
    }
}

#[test]
fn a_replica_that_lost_its_votes_votes_again_when_all_that_it_may_have_touched_is_past() {
    let lost = |id| if id == 3 { Start::StateLost } else { Start::Fresh };
    let mut cluster = Cluster::new(Mode::Bft, 4, lost);
    assert_eq!(cluster.replicas[&ReplicaId(3)].status().state, ReplicaState::StateLost);
    let session = cluster.open_session();
    cluster.pass(5_000);
    let status = cluster.replicas[&ReplicaId(3)].status();
    assert_eq!(status.state, ReplicaState::Normal);
    assert!(
        status.executed.0 >= Settings::default().span,
        "the leader has ordered nothing, as often as it takes"
    );
    // Now the other three are not a quorum without it.
    cluster.cut = vec![ReplicaId(2)];
    cluster.request(operation(session, 1));
    cluster.pass(1_000);
    assert_eq!(cluster.replicas[&ReplicaId(0)].status().executed, status.executed.next());
    assert!(cluster.replicas[&ReplicaId(3)].status().recorded_votes > 0);
}

#[test]
fn a_replica_that_was_away_catches_up_from_its_peers() {
    let mut cluster = Cluster::new(Mode::Bft, 4, |_| Start::Fresh);
    let session = cluster.open_session();
    cluster.cut = vec![ReplicaId(2)];
    for sequence in 0..300 {
        cluster.request(operation(session, sequence));
        cluster.run();
    }
    assert_eq!(cluster.replicas[&ReplicaId(2)].status().executed, InstanceId(1));
    cluster.cut.clear();
    for peer in [0, 1, 3].map(ReplicaId) {
        cluster.inbox.push_back((ReplicaId(2), Event::Connected(peer)));
        cluster.inbox.push_back((peer, Event::Connected(ReplicaId(2))));
    }
    cluster.pass(3_000);
    assert_eq!(cluster.executed[&ReplicaId(2)], cluster.executed[&ReplicaId(0)]);
}

#[test]
fn a_cluster_that_ends_at_once_has_every_operation_when_it_starts_again() {
    for (mode, n) in [(Mode::Bft, 4), (Mode::Cft, 3), (Mode::Bft, 1)] {
        let settings = Settings { checkpoint_interval: 50, retained_bytes: 0, ..Settings::default() };
        let mut cluster = Cluster::durable(mode, n, settings);
        let session = cluster.open_session();
        for sequence in 0..120 {
            cluster.request(operation(session, sequence));
            cluster.run();
        }
        cluster.pass(2_000);
        assert!(
            cluster.replicas.values().all(|replica| replica.status().stable_checkpoint == InstanceId(100))
        );
        let before = cluster.replicas[&ReplicaId(0)].status();
        let everybody: Vec<u16> = (0..n).collect();
        cluster.restart(&everybody);
        for replica in cluster.replicas.values() {
            assert_eq!((replica.status().executed, replica.status().chain), (before.executed, before.chain));
        }
        cluster.pass(3_000);
        for sequence in 120..130 {
            cluster.request(operation(session, sequence));
            cluster.run();
        }
        cluster.pass(3_000);
        let first = &cluster.executed[&ReplicaId(0)];
        assert_eq!(first.last().unwrap(), "op 129", "{mode:?} {n}");
        assert!(cluster.executed.values().all(|log| log == first), "{mode:?} {n}");
    }
}

#[test]
fn a_replica_that_restarts_takes_part_at_once() {
    let mut cluster = Cluster::durable(Mode::Bft, 4, Settings::default());
    let session = cluster.open_session();
    for sequence in 0..40 {
        cluster.request(operation(session, sequence));
        cluster.run();
        if sequence % 7 == 3 {
            cluster.restart(&[u16::try_from(sequence % 4).unwrap()]);
        }
    }
    cluster.pass(5_000);
    let first = cluster.replicas[&ReplicaId(0)].status();
    for replica in cluster.replicas.values() {
        assert_eq!((replica.status().executed, replica.status().chain), (first.executed, first.chain));
        assert_eq!(replica.status().state, ReplicaState::Normal);
    }
    cluster.cut = vec![ReplicaId(1)];
    cluster.request(operation(session, 40));
    cluster.pass(5_000);
    assert_eq!(cluster.replicas[&ReplicaId(2)].status().executed, first.executed.next());
}
