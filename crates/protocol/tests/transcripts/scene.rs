//! One core on a stage: events in, lines out.

mod change;
pub(crate) mod transfer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regency_protocol::action::{Action, Delivery, Origin, Recipients};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{
    ClientId, ClusterId, Digest, InstanceId, LogPosition, PublicKey, Regency, ReplicaId, Sequence, SessionId,
    Signature, ViewId,
};
use regency_protocol::limits::Settings;
use regency_protocol::message::{
    Batch, BatchAnswer, Body, BundleProof, Decided, Message, Outcome, Propose, Reply, Request, Statement,
    Status, Vote,
};
use regency_protocol::record::{Durability, Record};
use regency_protocol::replica::{Replica, ReplicaConfig, Start};
use regency_protocol::time::Timestamp;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};

pub(crate) use change::{
    certificate, channelled, locked, nothing_stated, stated, stated_above, timed, wrote,
};

/// The only client.
pub(crate) const ALICE: ClientId = ClientId([0xa; 32]);
/// The place of Alice's OPEN in the order: the first of the first batch.
pub(crate) const SESSION: SessionId = SessionId(1 << 16);
/// When scenes begin.
const BEGIN: Timestamp = Timestamp(1_000_000_000);

/// What a scene is about.
pub(crate) struct Setting {
    pub(crate) mode: Mode,
    pub(crate) n: u16,
    pub(crate) me: u16,
    pub(crate) auth: RequestAuth,
    pub(crate) start: Start,
    pub(crate) durability: Durability,
    pub(crate) settings: Settings,
}

impl Default for Setting {
    /// Replica 1 of four; replica 0 leads.
    fn default() -> Self {
        Self {
            mode: Mode::Bft,
            n: 4,
            me: 1,
            auth: RequestAuth::Channel,
            start: Start::Fresh,
            durability: Durability::None,
            settings: Settings { window: 2, span: 20, chain_interval: 16, ..Settings::default() },
        }
    }
}

/// One core, and names for what it is shown.
pub(crate) struct Scene {
    now: Timestamp,
    view: ViewId,
    config: ReplicaConfig,
    replica: Replica,
    /// What the core has written into its log.
    log: Vec<(LogPosition, Record)>,
    actions: Vec<Action>,
    /// What the core has asked to be signed.
    unsigned: Vec<Statement>,
    /// What went to all.
    told: Vec<Message>,
    names: BTreeMap<Digest, String>,
}

impl Scene {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { mode, n, me, auth, start, durability, settings } = setting;
        let members = (0..n).map(|id| Member {
            id: ReplicaId(id),
            address: format!("replica-{id}:7000"),
            key: PublicKey([u8::try_from(id).unwrap(); 32]),
        });
        let view = View::new(ViewParts {
            cluster: ClusterId([1; 32]),
            id: ViewId(0),
            mode,
            faults: View::faults_max(mode, usize::from(n)),
            members: members.collect(),
            clients: Clients::Listed(BTreeMap::from([(ALICE, PublicKey([100; 32]))])),
            request_auth: auth,
        });
        let config = ReplicaConfig {
            view: Arc::new(view.unwrap()),
            me: ReplicaId(me),
            settings: Arc::new(settings),
            start,
            durability,
            eager_instances: 2,
        };
        let replica = Replica::new(config.clone());
        Self {
            now: BEGIN,
            view: ViewId(0),
            config,
            replica,
            log: Vec::new(),
            actions: Vec::new(),
            unsigned: Vec::new(),
            told: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// Alice's OPEN.
    pub(crate) fn open(&mut self) -> Arc<Request> {
        let open = Request::open(ALICE, 77, BEGIN.plus(Duration::from_secs(60)));
        self.named(open, "open")
    }

    /// Alice's operation with this number.
    pub(crate) fn operation(&mut self, sequence: u64) -> Arc<Request> {
        let payload = format!("put {sequence}");
        let request = Request::ordered(ALICE, SESSION, Sequence(sequence), Sequence(0), payload.as_bytes());
        self.named(request, &format!("op{sequence}"))
    }

    /// Lets transcripts call `request` so.
    pub(crate) fn named(&mut self, request: Request, name: &str) -> Arc<Request> {
        self.names.insert(request.digest(), name.to_owned());
        Arc::new(request)
    }

    /// A batch of these requests with this name.
    pub(crate) fn batch(&mut self, name: &str, instance: u64, requests: &[&Arc<Request>]) -> Arc<Batch> {
        self.batch_at(name, instance, requests, BEGIN)
    }

    /// A batch with a timestamp of its own.
    pub(crate) fn batch_at(
        &mut self,
        name: &str,
        instance: u64,
        requests: &[&Arc<Request>],
        timestamp: Timestamp,
    ) -> Arc<Batch> {
        let requests = requests.iter().map(|request| request.digest()).collect();
        let batch = Batch { view: self.view, instance: InstanceId(instance), timestamp, requests };
        self.names.insert(batch.digest(), name.to_owned());
        Arc::new(batch)
    }

    /// The time at which the scene is.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let (first, is_tick) = (self.actions.len(), matches!(event, Event::Tick));
        self.replica.handle(self.now, event, &mut self.actions);
        for action in &self.actions[first..] {
            match action {
                Action::Sign(statement) => self.unsigned.push(*statement),
                Action::Send { to: Recipients::All, message, .. } if !is_tick => {
                    self.told.push(message.clone())
                }
                Action::Append { position, record } => self.log.push((*position, record.clone())),
                Action::Send { .. }
                | Action::Cut(_)
                | Action::Snapshot { .. }
                | Action::Diverged(_)
                | Action::Donate { .. }
                | Action::Transfer(_)
                | Action::Remembered
                | Action::Execute(_)
                | Action::Reply { .. }
                | Action::Report(_) => {}
            }
        }
    }

    /// The log is on disk up to this record.
    pub(crate) fn durable(&mut self, position: u64) {
        self.handle(Event::Durable(LogPosition(position)));
    }

    /// The replica ends, and starts again with the log up to this record.
    pub(crate) fn restart(&mut self, last: u64) {
        self.log.retain(|(position, _)| position.0 <= last);
        self.replica = Replica::restore(self.config.clone(), None);
        for (position, record) in self.log.clone() {
            let begun = self.actions.len();
            self.replica.replay(position, record, &mut self.actions).unwrap();
            for action in self.actions.split_off(begun) {
                let Action::Execute(delivery) = action else { panic!("{action:?} while the log is read") };
                let results = delivery.operations.iter().map(|_| Bytes::from_static(b"again")).collect();
                let executed = Event::Executed { instance: delivery.instance, results };
                self.replica.handle(self.now, executed, &mut Vec::new());
            }
        }
        self.replica.resume(self.now, &mut self.actions);
    }

    /// A message of another replica comes.
    pub(crate) fn from(&mut self, from: u16, message: Message) {
        self.handle(Event::Message { from: ReplicaId(from), message: Verified::vouch(message) });
    }

    /// Alice's request comes over her own channel.
    pub(crate) fn request(&mut self, request: &Arc<Request>) {
        let request = Arc::clone(request);
        let request = ClientRequest { request, proof: None, whole_result: false };
        self.handle(Event::Request(Verified::vouch(request)));
    }

    pub(crate) fn propose(&mut self, from: u16, batch: &Arc<Batch>) {
        let (regency, batch) = (Regency(0), Arc::clone(batch));
        self.from(from, Message::Propose(Propose { regency, batch, inline: Vec::new() }));
    }

    /// Each of these replicas sends WRITE.
    pub(crate) fn write(&mut self, from: &[u16], batch: &Batch) {
        from.iter().for_each(|from| self.from(*from, Message::Write(vote(batch))));
    }

    /// Each of these replicas sends ACCEPT.
    pub(crate) fn accept(&mut self, from: &[u16], batch: &Batch) {
        from.iter().for_each(|from| self.from(*from, Message::Accept(vote(batch))));
    }

    /// Each of these replicas says that the batch is decided.
    pub(crate) fn decided(&mut self, from: &[u16], batch: &Batch) {
        let decided = Decided { view: batch.view, instance: batch.instance, digest: batch.digest() };
        from.iter().for_each(|from| self.from(*from, Message::Decided(decided)));
    }

    /// A replica says how far it is.
    pub(crate) fn status(&mut self, from: u16, decided: u64) {
        let status = Status {
            view: self.view,
            regency: Regency(0),
            is_live: true,
            decided: InstanceId(decided),
            retained_from: InstanceId(1),
            logged_from: InstanceId(1),
            stable: InstanceId(0),
            certified: InstanceId(0),
            sent: self.now,
        };
        self.from(from, Message::Status(status));
    }

    /// The bodies that somebody asked for.
    pub(crate) fn bodies(&mut self, from: u16, requests: &[&Arc<Request>]) {
        self.from(from, Message::Bodies(bodies(requests, None)));
    }

    /// The bodies that somebody asked for, under Alice's signature.
    pub(crate) fn signed_bodies(&mut self, from: u16, requests: &[&Arc<Request>]) {
        let digests = requests.iter().map(|request| request.digest()).collect();
        let proof = BundleProof { key: PublicKey([4; 32]), requests: digests, signature: Signature([5; 64]) };
        self.from(from, Message::Bodies(bodies(requests, Some(Arc::new(proof)))));
    }

    /// The batch that somebody asked for, whole.
    pub(crate) fn batch_answer(&mut self, from: u16, batch: &Arc<Batch>, requests: &[&Arc<Request>]) {
        let answer = BatchAnswer { batch: Arc::clone(batch), bodies: bodies(requests, None) };
        self.from(from, Message::BatchAnswer(answer));
    }

    /// The service has done what it was given.
    pub(crate) fn executed(&mut self, instance: u64, results: &[&'static str]) {
        let results = results.iter().map(|result| Bytes::from_static(result.as_bytes())).collect();
        self.handle(Event::Executed { instance: InstanceId(instance), results });
    }

    /// Time passes to the core's next deadline.
    pub(crate) fn tick(&mut self) {
        self.now = self.replica.next_deadline().expect("a deadline").max(self.now);
        self.handle(Event::Tick);
    }

    /// Alice's session is opened by the first instance, whose leader is replica 0.
    pub(crate) fn with_session(mut self) -> Self {
        let open = self.open();
        let batch = self.batch("first", 1, &[&open]);
        self.signed_request(&open);
        self.propose(0, &batch);
        self.write(&[0, 2, 3], &batch);
        self.accept(&[0, 2, 3], &batch);
        self.executed(1, &[]);
        self.actions.clear();
        self
    }

    /// Everything that the core has asked for since the last time, one line each.
    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &str) {
        let expected: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut actions = std::mem::take(&mut self.actions);
        // Measuring round trips is no part of any walk.
        actions.retain(|action| !matches!(action, Action::Send { message: Message::Echo(_), .. }));
        let seen: Vec<String> =
            actions.iter().map(|action| self.line(action).trim_end().to_owned()).collect();
        assert_eq!(seen, expected, "seen:\n{}", seen.join("\n"));
    }

    /// Passes time until one of the next deadlines brings this line; whatever else it brings is not looked at.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, line: &str) {
        for _ in 0..200 {
            let actions = std::mem::take(&mut self.actions);
            if actions.iter().any(|action| self.line(action) == line) {
                return;
            }
            self.tick();
        }
        panic!("{line:?} has not come");
    }

    /// Whether this line is among what the core has asked for since the last time; the rest is not looked at.
    pub(crate) fn has_come(&mut self, line: &str) -> bool {
        let actions = std::mem::take(&mut self.actions);
        actions.iter().any(|action| self.line(action) == line)
    }

    /// Whatever the core has asked for since the last time is not looked at.
    pub(crate) fn forget(&mut self) {
        self.actions.clear();
    }

    fn name(&self, digest: &Digest) -> String {
        self.names.get(digest).cloned().unwrap_or_else(|| format!("{digest:?}"))
    }

    fn list<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> String {
        digests.map(|digest| self.name(digest)).collect::<Vec<_>>().join(" ")
    }

    fn line(&self, action: &Action) -> String {
        match action {
            Action::Send { to, message, after } => {
                let to = match to {
                    Recipients::All => String::from("all"),
                    Recipients::One(to) => to.to_string(),
                };
                let gate = if after.0 > 0 { format!(" after record {after}") } else { String::new() };
                format!("to {to}: {}{gate}", self.message(message))
            }
            Action::Append { position, record } => format!("record {position}: {}", self.record(record)),
            Action::Cut(below) => format!("cut below record {below}"),
            Action::Snapshot { head, after } => format!("snapshot at {} after record {after}", head.instance),
            Action::Diverged(instance) => format!("state differs at {instance}"),
            Action::Donate { to, donation } => transfer::donation_line(*to, donation),
            Action::Transfer(transfer) => transfer::transfer_line(transfer),
            Action::Remembered => String::from("votes are remembered"),
            Action::Sign(statement) => change::statement_line(statement),
            Action::Execute(Delivery { instance, operations, .. }) => {
                let mut line = format!("execute {instance}:");
                for operation in operations {
                    let _ = write!(line, " {}", self.name(&operation.digest()));
                }
                line
            }
            Action::Reply { reply: Reply { sequence, outcome, .. }, .. } => {
                let outcome = match outcome {
                    Outcome::Result(result) if result.len() == 8 => String::from("session"),
                    Outcome::Result(result) => String::from_utf8_lossy(result).into_owned(),
                    Outcome::ResultDigest(_) => String::from("digest of the result"),
                    Outcome::Refused(refusal) => format!("{refusal:?}"),
                };
                format!("reply {sequence}: {outcome}")
            }
            Action::Report(report) => {
                let by = match report.by {
                    Origin::Replica(id) => format!("replica {id}"),
                    Origin::Client(_) => String::from("Alice"),
                };
                format!("report {by}: {}", report.reason.label())
            }
        }
    }

    fn record(&self, record: &Record) -> String {
        let vote = |vote: &Vote| format!("{} {}", vote.instance, self.name(&vote.digest));
        match record {
            Record::Stop { regency, .. } => format!("STOP {regency}"),
            Record::Regency { regency, .. } => format!("regency {regency}"),
            Record::Batch(recorded) => {
                format!("batch {} {}", recorded.batch.instance, self.name(&recorded.batch.digest()))
            }
            Record::Write(write) => format!("WRITE {}", vote(write)),
            Record::Lock(lock) => format!("lock {}", vote(lock)),
            Record::Confirm(accept) => format!("ACCEPT {}", vote(accept)),
            Record::Decided { instance, digest, .. } => format!("decided {instance} {}", self.name(digest)),
            Record::Certificate(certificate) => format!("chain certificate {}", certificate.instance),
            Record::Checkpoint(certificate) => format!("checkpoint {}", certificate.instance),
            Record::Bounds(bounds) => format!("bounds {} {}", bounds.instance, bounds.regency),
        }
    }

    fn message(&self, message: &Message) -> String {
        // Epoch 0 goes without saying.
        let epoch = |regency: Regency| match regency {
            Regency(0) => String::new(),
            regency => format!(" in {regency}"),
        };
        let vote =
            |vote: &Vote| format!("{} {}{}", vote.instance, self.name(&vote.digest), epoch(vote.regency));
        match message {
            Message::Propose(propose) => {
                let batch = &propose.batch;
                let requests = self.list(batch.requests.iter());
                format!("PROPOSE {}{}: {requests}", batch.instance, epoch(propose.regency))
            }
            Message::Write(write) => format!("WRITE {}", vote(write)),
            Message::Accept(accept) => format!("ACCEPT {}", vote(accept)),
            Message::Decided(decided) => {
                format!("DECIDED {} {}", decided.instance, self.name(&decided.digest))
            }
            Message::FetchBatch(fetch) => {
                format!("batch of {} {}?", fetch.instance, self.name(&fetch.digest))
            }
            Message::BatchAnswer(answer) => format!("batch {}", self.name(&answer.batch.digest())),
            Message::FetchBodies(fetch) => format!("bodies of {}?", self.list(fetch.requests.iter())),
            Message::Bodies(bodies) => {
                let digests: Vec<_> = bodies.iter().map(|body| body.request.digest()).collect();
                format!("bodies {}", self.list(digests.iter()))
            }
            Message::Status(status) => format!("STATUS {}{}", status.decided, epoch(status.regency)),
            Message::ChainSignature(signature) => format!("chain signature {}", signature.instance),
            Message::ChainCertificate(certificate) => format!("chain certificate {}", certificate.instance),
            Message::CheckpointSignature(signed) => format!("checkpoint signature {}", signed.instance),
            Message::CheckpointCertificate(certificate) => format!("checkpoint {}", certificate.instance),
            Message::Recover(recover) if recover.is_relayed => String::from("RECOVER of another"),
            Message::Recover(_) => String::from("RECOVER"),
            Message::RecoverAnswer(answer) => {
                format!("RECOVER answer: instance {}, regency {}", answer.highest, answer.regency)
            }
            Message::Stop(stop) => format!("STOP {}", stop.regency),
            Message::StopData(stated) => {
                let claims = self.claims(&stated.data);
                format!("STOPDATA {} of {}: {claims}", stated.data.regency, stated.sender)
            }
            Message::Sync(sync) => self.sync_line(sync),
            Message::Forward(bodies) => {
                let digests: Vec<_> = bodies.iter().map(|body| body.request.digest()).collect();
                format!("FORWARD {}", self.list(digests.iter()))
            }
            Message::Announce(requests) => format!("ANNOUNCE {}", self.list(requests.iter())),
            Message::Echo(_) => String::from("ECHO"),
            Message::Lack(requests) => format!("LACK {}", self.list(requests.iter())),
            Message::Fetch(wanted) => transfer::wanted_line(wanted),
            Message::Supply(supply) => transfer::supply_line(supply),
        }
    }

    /// Lets transcripts call the leader's next proposal so: its timestamp is the scene's time.
    pub(crate) fn name_proposal(
        &mut self,
        name: &str,
        instance: u64,
        requests: &[&Arc<Request>],
    ) -> Arc<Batch> {
        let now = self.now;
        self.batch_at(name, instance, requests, now)
    }
}

fn vote(batch: &Batch) -> Vote {
    Vote { view: batch.view, instance: batch.instance, regency: Regency(0), digest: batch.digest() }
}

fn bodies(requests: &[&Arc<Request>], proof: Option<Arc<BundleProof>>) -> Vec<Body> {
    requests.iter().map(|request| Body { request: Arc::clone(request), proof: proof.clone() }).collect()
}
