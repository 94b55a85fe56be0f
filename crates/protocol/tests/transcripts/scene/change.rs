//! What a scene needs for leader changes and announcements: STOP, STOPDATA, SYNC, votes of later epochs, time.

use std::sync::Arc;
use std::time::Duration;

use regency_protocol::action::{Action, Recipients};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{Digest, InstanceId, PublicKey, Regency, ReplicaId, Signature};
use regency_protocol::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
use regency_protocol::leader_change::sync::{Outcome, Sync, empty_batch};
use regency_protocol::limits::Settings;
use regency_protocol::message::{
    Batch, Body, BundleProof, ChainCertificate, Message, Propose, Request, Statement, Status, Stop, Vote,
};
use regency_protocol::replica::ReplicaStatus;
use regency_protocol::time::Timestamp;
use regency_protocol::view::RequestAuth;

use super::{Scene, Setting, bodies};

/// Replica `me` of four. Clients sign, the first timer is a second, and chain signatures are far off.
pub(crate) fn timed(me: u16) -> Setting {
    let settings = Settings {
        window: 2,
        span: 20,
        chain_interval: 16,
        chain_period: Duration::from_secs(3600),
        status_period: Duration::from_millis(400),
        request_timeout_min: Duration::from_millis(1000),
        ..Settings::default()
    };
    Setting { me, auth: RequestAuth::Signature, settings, ..Setting::default() }
}

/// Where clients are known by their channels.
pub(crate) fn channelled(me: u16) -> Setting {
    Setting { auth: RequestAuth::Channel, ..timed(me) }
}

/// A replica states that it wrote this batch in `epoch`.
pub(crate) fn wrote(epoch: u64, batch: &Batch) -> Claim {
    Claim { instance: batch.instance, lock: Lock::None, write_set: vec![(Regency(epoch), batch.digest())] }
}

/// A replica states that it wrote and locked this batch in `epoch`.
pub(crate) fn locked(epoch: u64, batch: &Batch) -> Claim {
    let (epoch, digest) = (Regency(epoch), batch.digest());
    Claim { instance: batch.instance, lock: Lock::At { epoch, digest }, write_set: vec![(epoch, digest)] }
}

/// A statement for `regency` of a replica without certificates.
pub(crate) fn stated(sender: u16, regency: u64, claims: &[Claim]) -> SignedStopData {
    stated_above(None, sender, regency, claims)
}

/// A statement for `regency` above a certificate.
pub(crate) fn stated_above(
    base: Option<ChainCertificate>,
    sender: u16,
    regency: u64,
    claims: &[Claim],
) -> SignedStopData {
    let view = regency_protocol::ids::ViewId(0);
    let data = StopData { view, regency: Regency(regency), base, claims: claims.to_vec() };
    SignedStopData { sender: ReplicaId(sender), data: Arc::new(data), signature: Signature([7; 64]) }
}

/// A certificate for this place in the chain, signed by these replicas.
pub(crate) fn certificate(instance: u64, chain: Digest, signers: &[u16]) -> ChainCertificate {
    ChainCertificate {
        view: regency_protocol::ids::ViewId(0),
        instance: InstanceId(instance),
        chain,
        signatures: signers.iter().map(|id| (ReplicaId(*id), Signature([8; 64]))).collect(),
    }
}

impl Scene {
    /// Every other replica has a channel to this one.
    pub(crate) fn connected(mut self) -> Self {
        let view = Arc::clone(self.replica.view());
        for member in view.members() {
            self.handle(Event::Connected(member.id));
        }
        self.actions.clear();
        self
    }

    /// [`Self::with_session`] where this replica leads.
    pub(crate) fn with_session_led(mut self) -> Self {
        let open = self.open();
        let batch = self.name_proposal("first", 1, &[&open]);
        self.signed_request(&open);
        self.handle(Event::InputDrained);
        self.write(&[1, 2, 3], &batch);
        self.accept(&[1, 2, 3], &batch);
        self.executed(1, &[]);
        self.actions.clear();
        self
    }

    /// The core's own figures.
    pub(crate) fn figures(&self) -> ReplicaStatus {
        self.replica.status()
    }

    /// When the core wants to be woken next.
    pub(crate) fn has_deadline(&self) -> bool {
        self.replica.next_deadline().is_some()
    }

    /// Time passes; what goes to all every `status_period` is left out: STATUS, and what went to all before
    /// [LINK-1].
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now.plus(Duration::from_millis(millis));
        let mut ticks = 0;
        while let Some(due) = self.replica.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let first = self.actions.len();
            self.handle(Event::Tick);
            let news: Vec<Action> = self.actions.drain(first..).collect();
            for action in news {
                if !self.is_repetition(&action) {
                    self.actions.push(action);
                }
            }
            ticks += 1;
            assert!(ticks < 10_000, "a timer is due again and again");
        }
        self.now = end;
    }

    fn is_repetition(&mut self, action: &Action) -> bool {
        let Action::Send { to: Recipients::All, message, .. } = action else { return false };
        let is_known = matches!(message, Message::Status(_)) || self.told.contains(message);
        if !is_known {
            self.told.push(message.clone());
        }
        is_known
    }

    /// Alice's request comes, under her signature.
    pub(crate) fn signed_request(&mut self, request: &Arc<Request>) {
        let proof = BundleProof {
            key: PublicKey([4; 32]),
            requests: vec![request.digest()],
            signature: Signature([5; 64]),
        };
        let request = Arc::clone(request);
        let request = ClientRequest { request, proof: Some(Arc::new(proof)), whole_result: false };
        self.handle(Event::Request(Verified::vouch(request)));
    }

    /// Each of these replicas wants every regency below this one to end.
    pub(crate) fn stop(&mut self, from: &[u16], regency: u64) {
        let stop = Stop { view: self.view, regency: Regency(regency) };
        from.iter().for_each(|from| self.from(*from, Message::Stop(stop)));
    }

    /// This replica's statement comes over its own channel.
    pub(crate) fn stop_data(&mut self, stated: &SignedStopData) {
        self.from(stated.sender.0, Message::StopData(stated.clone()));
    }

    /// The SYNC that a correct leader makes of these statements.
    pub(crate) fn sync_of(&self, regency: u64, set: &[SignedStopData]) -> Sync {
        let data: Vec<&StopData> = set.iter().map(|stated| &*stated.data).collect();
        let outcome = Outcome::select(&data, self.replica.view());
        Sync {
            view: self.view,
            regency: Regency(regency),
            set: set.to_vec(),
            results: outcome.map(|outcome| outcome.bound.into_iter().collect()).unwrap_or_default(),
            signature: Signature([9; 64]),
        }
    }

    /// A SYNC of these statements comes.
    pub(crate) fn sync(&mut self, from: u16, regency: u64, set: &[SignedStopData]) {
        let sync = Arc::new(self.sync_of(regency, set));
        self.from(from, Message::Sync(sync));
    }

    /// What is being signed is signed.
    pub(crate) fn signed(&mut self) {
        for statement in std::mem::take(&mut self.unsigned) {
            self.handle(Event::Signed { statement, signature: Signature([6; 64]) });
        }
    }

    /// [`Self::propose`] in a later regency.
    pub(crate) fn propose_in(&mut self, regency: u64, from: u16, batch: &Arc<Batch>) {
        let (regency, batch) = (Regency(regency), Arc::clone(batch));
        self.from(from, Message::Propose(Propose { regency, batch, inline: Vec::new() }));
    }

    /// [`Self::write`] in a later epoch.
    pub(crate) fn write_in(&mut self, epoch: u64, from: &[u16], batch: &Batch) {
        let vote = Vote { regency: Regency(epoch), ..super::vote(batch) };
        from.iter().for_each(|from| self.from(*from, Message::Write(vote)));
    }

    /// [`Self::accept`] in a later epoch.
    pub(crate) fn accept_in(&mut self, epoch: u64, from: &[u16], batch: &Batch) {
        let vote = Vote { regency: Regency(epoch), ..super::vote(batch) };
        from.iter().for_each(|from| self.from(*from, Message::Accept(vote)));
    }

    /// A replica says where it stands.
    pub(crate) fn status_in(&mut self, from: u16, regency: u64, is_live: bool, decided: u64) {
        let status = Status {
            view: self.view,
            regency: Regency(regency),
            is_live,
            sent: self.now,
            decided: InstanceId(decided),
            retained_from: InstanceId(1),
            logged_from: InstanceId(1),
            stable: InstanceId(0),
            certified: InstanceId(0),
        };
        self.from(from, Message::Status(status));
    }

    /// Each of these replicas echoes the STATUS that left then.
    pub(crate) fn echo(&mut self, from: &[u16], sent: Timestamp) {
        from.iter().for_each(|from| self.from(*from, Message::Echo(sent)));
    }

    /// These replicas hold the requests as authentic.
    pub(crate) fn announce(&mut self, from: &[u16], requests: &[&Arc<Request>]) {
        let digests: Vec<Digest> = requests.iter().map(|request| request.digest()).collect();
        from.iter().for_each(|from| self.from(*from, Message::Announce(digests.clone())));
    }

    /// These replicas lack proof of the requests.
    pub(crate) fn lack(&mut self, from: &[u16], requests: &[&Arc<Request>]) {
        let digests: Vec<Digest> = requests.iter().map(|request| request.digest()).collect();
        from.iter().for_each(|from| self.from(*from, Message::Lack(digests.clone())));
    }

    /// These replicas forward the requests, without proof.
    pub(crate) fn forward(&mut self, from: &[u16], requests: &[&Arc<Request>]) {
        let forwarded: Vec<Body> = bodies(requests, None);
        from.iter().for_each(|from| self.from(*from, Message::Forward(forwarded.clone())));
    }

    /// The batch of no requests that fills a free instance below a bound one.
    pub(crate) fn empty(&mut self, instance: u64) -> Arc<Batch> {
        let batch = empty_batch(self.view, InstanceId(instance));
        self.names.insert(batch.digest(), String::from("empty"));
        batch
    }

    pub(super) fn claims(&self, data: &StopData) -> String {
        let mut parts = Vec::new();
        if let Some(base) = &data.base {
            parts.push(format!("above {}", base.instance));
        }
        for claim in &data.claims {
            let lock = match &claim.lock {
                Lock::None => String::new(),
                Lock::At { epoch, digest } => format!(" locked {} in {epoch}", self.name(digest)),
            };
            let written = claim.write_set.iter();
            let written: String =
                written.map(|(epoch, digest)| format!(" wrote {} in {epoch}", self.name(digest))).collect();
            parts.push(format!("{}{lock}{written}", claim.instance));
        }
        if parts.is_empty() { String::from("nothing") } else { parts.join(", ") }
    }

    pub(super) fn sync_line(&self, sync: &Sync) -> String {
        let senders: String = sync.set.iter().map(|stated| format!(" {}", stated.sender)).collect();
        let results = sync.results.iter();
        let results: Vec<String> =
            results.map(|(instance, digest)| format!("{instance} {}", self.name(digest))).collect();
        let results = if results.is_empty() { String::from("nothing") } else { results.join(", ") };
        format!("SYNC {} of{senders}: {results}", sync.regency)
    }
}

/// What is signed.
pub(super) fn statement_line(statement: &Statement) -> String {
    match statement {
        Statement::Chain { instance, .. } => format!("sign chain {instance}"),
        Statement::Checkpoint { instance, .. } => format!("sign checkpoint {instance}"),
        Statement::StopData { regency, .. } => format!("sign STOPDATA {regency}"),
        Statement::Sync { regency, .. } => format!("sign SYNC {regency}"),
        Statement::Bundle { .. } => String::from("sign bundle"),
    }
}

/// What three replicas state for `regency` that have voted for nothing.
pub(crate) fn nothing_stated(regency: u64) -> Vec<SignedStopData> {
    (0..3).map(|sender| stated(sender, regency, &[])).collect()
}
