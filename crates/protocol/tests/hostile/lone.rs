//! One core of four, whose deliveries are executed and statements signed at once; the test plays everybody else.

use std::sync::Arc;

use regency_protocol::action::{Action, Misbehaviour, Reason};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{
    ClientId, ClusterId, Digest, InstanceId, PublicKey, Regency, ReplicaId, Sequence, SessionId, Signature,
    ViewId,
};
use regency_protocol::limits::Settings;
use regency_protocol::message::{
    Batch, Body, BundleProof, Message, Outcome, Propose, Refusal, Request, Vote,
};
use regency_protocol::record::Durability;
use regency_protocol::replica::{Replica, ReplicaConfig, ReplicaStatus, Start};
use regency_protocol::time::Timestamp;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 32]);
pub(crate) const VIEW: ViewId = ViewId(0);
pub(crate) const MALLORY: ClientId = ClientId([6; 32]);
pub(crate) const ALICE: ClientId = ClientId([9; 32]);

/// One core of four; the test plays everybody else.
pub(crate) struct Lone {
    me: u16,
    pub(crate) now: Timestamp,
    pub(crate) replica: Replica,
    actions: Vec<Action>,
}

impl Lone {
    pub(crate) fn new(me: u16, auth: RequestAuth, settings: Settings) -> Self {
        let members = (0..4_u8).map(|id| Member {
            id: ReplicaId(id.into()),
            address: format!("r{id}:1"),
            key: PublicKey([id; 32]),
        });
        let view = View::new(ViewParts {
            cluster: CLUSTER,
            id: VIEW,
            mode: Mode::Bft,
            faults: 1,
            members: members.collect(),
            clients: Clients::Open,
            request_auth: auth,
        });
        let replica = Replica::new(ReplicaConfig {
            view: Arc::new(view.unwrap()),
            me: ReplicaId(me),
            settings: Arc::new(settings),
            start: Start::Fresh,
            durability: Durability::None,
            eager_instances: 2,
        });
        Self { me, now: Timestamp(1_000_000_000), replica, actions: Vec::new() }
    }

    /// Handles an event, and executes and signs whatever it calls for; returns all actions.
    pub(crate) fn event(&mut self, event: Event) -> Vec<Action> {
        let mut done = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.replica.handle(self.now, event, &mut self.actions);
            for action in self.actions.drain(..) {
                match &action {
                    Action::Execute(delivery) => events.insert(
                        0,
                        Event::Executed {
                            instance: delivery.instance,
                            results: delivery.operations.iter().map(|op| op.payload()).collect(),
                        },
                    ),
                    Action::Sign(statement) => {
                        events.insert(
                            0,
                            Event::Signed { statement: *statement, signature: Signature([0; 64]) },
                        );
                    }
                    Action::Send { .. }
                    | Action::Append { .. }
                    | Action::Cut(_)
                    | Action::Snapshot { .. }
                    | Action::Diverged(_)
                    | Action::Donate { .. }
                    | Action::Transfer(_)
                    | Action::Remembered
                    | Action::Reply { .. }
                    | Action::Report(_) => {}
                }
                done.push(action);
            }
        }
        done
    }

    pub(crate) fn message(&mut self, from: u16, message: Message) -> Vec<Action> {
        self.event(Event::Message { from: ReplicaId(from), message: Verified::vouch(message) })
    }

    pub(crate) fn request(&mut self, request: &Arc<Request>) -> Vec<Action> {
        self.request_under(request, Arc::new(proof(&[request.digest()])))
    }

    pub(crate) fn request_under(&mut self, request: &Arc<Request>, proof: Arc<BundleProof>) -> Vec<Action> {
        let from_client =
            ClientRequest { request: Arc::clone(request), proof: Some(proof), whole_result: false };
        self.event(Event::Request(Verified::vouch(from_client)))
    }

    /// Lets the leader propose, and takes its proposals.
    pub(crate) fn proposals(&mut self) -> Vec<Arc<Batch>> {
        let actions = self.event(Event::InputDrained);
        sent(&actions)
            .into_iter()
            .filter_map(|message| match message {
                Message::Propose(propose) => Some(Arc::clone(&propose.batch)),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn propose(&mut self, batch: &Arc<Batch>) -> Vec<Action> {
        let batch = Arc::clone(batch);
        self.message(0, Message::Propose(Propose { regency: Regency(0), batch, inline: Vec::new() }))
    }

    /// The votes of all other replicas for a batch.
    pub(crate) fn decide(&mut self, batch: &Batch) {
        let me = self.me;
        for from in (0..4).filter(|id| *id != me) {
            self.message(from, Message::Write(vote(batch)));
        }
        for from in (0..4).filter(|id| *id != me) {
            self.message(from, Message::Accept(vote(batch)));
        }
    }

    /// Opens a session of `client` by the next instance.
    pub(crate) fn open(&mut self, client: ClientId, nonce: u64) -> SessionId {
        let open = Arc::new(Request::open(client, nonce, self.now.plus(std::time::Duration::from_secs(60))));
        self.request(&open);
        let instance = self.status().decided.next();
        if self.me == 0 {
            let proposals = self.proposals();
            self.decide(&proposals[0]);
        } else {
            let batch = self.batch(instance.0, &[&open]);
            self.propose(&batch);
            self.decide(&batch);
        }
        assert_eq!(self.status().decided, instance);
        SessionId::at(instance, 0)
    }

    pub(crate) fn batch(&self, instance: u64, requests: &[&Arc<Request>]) -> Arc<Batch> {
        Arc::new(Batch {
            view: VIEW,
            instance: InstanceId(instance),
            timestamp: self.now,
            requests: requests.iter().map(|request| request.digest()).collect(),
        })
    }

    pub(crate) fn pass(&mut self, millis: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..millis {
            self.now = Timestamp(self.now.0 + 1_000);
            if self.replica.next_deadline().is_some_and(|due| due <= self.now) {
                actions.extend(self.event(Event::Tick));
            }
        }
        actions
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }
}

pub(crate) fn vote(batch: &Batch) -> Vote {
    Vote { view: VIEW, instance: batch.instance, regency: Regency(0), digest: batch.digest() }
}

pub(crate) fn proof(requests: &[Digest]) -> BundleProof {
    BundleProof { key: PublicKey([4; 32]), requests: requests.to_vec(), signature: Signature([3; 64]) }
}

pub(crate) fn operation(client: ClientId, session: SessionId, sequence: u64, payload: &[u8]) -> Arc<Request> {
    let sequence = Sequence(sequence);
    Arc::new(Request::ordered(client, session, sequence, sequence, payload))
}

pub(crate) fn sent(actions: &[Action]) -> Vec<&Message> {
    let sent = actions.iter().map(|action| match action {
        Action::Send { message, .. } => Some(message),
        _ => None,
    });
    sent.flatten().collect()
}

pub(crate) fn has_written(actions: &[Action], batch: &Batch) -> bool {
    sent(actions).contains(&&Message::Write(vote(batch)))
}

pub(crate) fn bodies(actions: &[Action]) -> Vec<Body> {
    let bodies = sent(actions).into_iter().filter_map(|message| match message {
        Message::Bodies(bodies) => Some(bodies.clone()),
        _ => None,
    });
    bodies.flatten().collect()
}

pub(crate) fn reasons(actions: &[Action]) -> Vec<Reason> {
    let reason = |action: &Action| match action {
        Action::Report(Misbehaviour { reason, .. }) => Some(*reason),
        _ => None,
    };
    actions.iter().filter_map(reason).collect()
}

pub(crate) fn is_busy(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Reply { reply, .. } => matches!(reply.outcome, Outcome::Refused(Refusal::Busy { .. })),
        _ => false,
    })
}
