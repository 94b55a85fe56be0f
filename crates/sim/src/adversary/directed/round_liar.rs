//! One replica that lies in every round of the protocol, to each of the others as it likes: it votes for whatever was
//! ever proposed, states votes that it never cast and hides those that it did, and, where it leads, begins
//! regencies with whatever set of statements suits it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regency_protocol::action::{Action, Recipients};
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId, Signature};
use regency_protocol::leader_change::selection::{Selection, select};
use regency_protocol::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
use regency_protocol::leader_change::sync::{Outcome, Sync};
use regency_protocol::message::{
    Batch, BatchAnswer, Body, ChainCertificate, Message, Propose, Request, Vote,
};
use regency_protocol::view::View;

use super::super::Deed;
use super::super::puppet::Puppet;
use super::{others, send};
use crate::agenda::Moment;
use crate::plan::Plan;
use crate::random::Stream;
use crate::rounds::Rounds;
use crate::signatures::{Keyring, Signer};

/// How much it remembers of each kind.
const MEMORY_MAX: usize = 64;

/// The liar.
pub(in crate::adversary) struct RoundLiar {
    me: ReplicaId,
    view: Arc<View>,
    others: Vec<ReplicaId>,
    puppet: Puppet,
    /// From when on it is silent.
    silent_from: Moment,
    /// From which regency on.
    silent_in: Option<Regency>,
    /// How many percent of its messages are lies.
    lies: u64,
    /// Every digest that was proposed or voted for, by instance.
    digests: BTreeMap<InstanceId, BTreeSet<Digest>>,
    batches: BTreeMap<Digest, Arc<Batch>>,
    requests: BTreeMap<Digest, Arc<Request>>,
    statements: Vec<SignedStopData>,
    certificates: Vec<ChainCertificate>,
    /// Regencies that it has begun.
    begun: BTreeSet<Regency>,
    stream: Stream,
}

impl RoundLiar {
    pub(super) fn new(plan: &Plan, me: ReplicaId) -> Self {
        let everybody = plan.view.members().iter().map(|member| member.id).collect();
        let mut stream = Stream::new(plan.seed, "round liar");
        Self {
            me,
            view: Arc::clone(&plan.view),
            others: others(plan, me),
            puppet: Puppet::new(plan, me, everybody, 0),
            silent_from: if stream.percent(50) { plan.heal_at } else { Moment::MAX },
            silent_in: plan.rounds.as_ref().and_then(Rounds::silence),
            lies: stream.pick(&[30, 60, 100]),
            digests: BTreeMap::new(),
            batches: BTreeMap::new(),
            requests: BTreeMap::new(),
            statements: Vec::new(),
            certificates: Vec::new(),
            begun: BTreeSet::new(),
            stream,
        }
    }

    pub(super) fn on_message(
        &mut self,
        now: Moment,
        from: ReplicaId,
        message: Message,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        self.remember(&message);
        self.fall_silent(now, &message);
        if let Message::FetchBatch(fetch) = &message {
            self.answer(from, &fetch.digest, deeds);
        }
        if let Message::StopData(stated) = &message {
            self.begin(now, stated.data.regency, keyring, deeds);
        }
        let Some(message) = keyring.verify_message(from, message) else { return };
        self.take(now, vec![Event::Message { from, message }], keyring, deeds);
    }

    pub(super) fn on_requests(
        &mut self,
        now: Moment,
        requests: Vec<Verified<ClientRequest>>,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        for request in &requests {
            self.requests.insert(request.request.digest(), Arc::clone(&request.request));
        }
        self.take(now, requests.into_iter().map(Event::Request).collect(), keyring, deeds);
    }

    pub(super) fn on_turn(&mut self, now: Moment, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        if self.puppet.is_due(now) {
            self.take(now, vec![Event::Tick], keyring, deeds);
        }
    }

    fn take(&mut self, now: Moment, events: Vec<Event>, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        for action in self.puppet.take(now, events, keyring) {
            let Action::Send { to, message, .. } = action else { continue };
            self.remember(&message);
            self.fall_silent(now, &message);
            let to = match to {
                Recipients::One(to) => vec![to],
                Recipients::All => self.others.clone(),
            };
            for to in to {
                if now < self.silent_from {
                    self.say(to, &message, keyring, deeds);
                }
            }
        }
    }

    /// Notes what can be used again.
    fn remember(&mut self, message: &Message) {
        match message {
            Message::Propose(propose) => self.note_batch(&propose.batch),
            Message::BatchAnswer(answer) => self.note_batch(&answer.batch),
            Message::Write(vote) | Message::Accept(vote) => {
                self.digests.entry(vote.instance).or_default().insert(vote.digest);
            }
            Message::StopData(stated) if self.statements.len() < MEMORY_MAX => {
                self.statements.push(stated.clone());
            }
            Message::ChainCertificate(certificate) if self.certificates.len() < MEMORY_MAX => {
                self.certificates.push(certificate.clone());
            }
            _ => {}
        }
    }

    /// Whoever states its votes for a regency is in it.
    fn fall_silent(&mut self, now: Moment, message: &Message) {
        let Message::StopData(stated) = message else { return };
        if self.silent_in.is_some_and(|silent_in| stated.data.regency >= silent_in) {
            self.silent_from = self.silent_from.min(now);
        }
    }

    fn note_batch(&mut self, batch: &Arc<Batch>) {
        self.digests.entry(batch.instance).or_default().insert(batch.digest());
        self.batches.insert(batch.digest(), Arc::clone(batch));
    }

    /// Sends a message to one of the others: as it is, altered, or not at all.
    fn say(&mut self, to: ReplicaId, message: &Message, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        if !self.stream.percent(self.lies) {
            return send(self.me, to, message, deeds);
        }
        match message {
            Message::Propose(propose) => {
                let propose = self.other_proposal(propose);
                send(self.me, to, &Message::Propose(propose), deeds);
            }
            Message::Write(vote) => {
                for vote in self.other_votes(vote) {
                    send(self.me, to, &Message::Write(vote), deeds);
                }
            }
            Message::Accept(vote) => {
                for vote in self.other_votes(vote) {
                    send(self.me, to, &Message::Accept(vote), deeds);
                }
            }
            Message::StopData(stated) => {
                let stated = self.false_statement(stated.data.regency, &stated.data, keyring);
                send(self.me, to, &Message::StopData(stated), deeds);
            }
            // It has begun the regency in its own way.
            Message::Sync(sync) if self.begun.contains(&sync.regency) => {}
            Message::Decided(_) if self.stream.percent(50) => {}
            other => send(self.me, to, other, deeds),
        }
    }

    /// The proposal, or one with the same requests that differs, or an older batch.
    fn other_proposal(&mut self, propose: &Propose) -> Propose {
        let mut batch = (*propose.batch).clone();
        batch.timestamp = batch.timestamp.plus(std::time::Duration::from_micros(self.stream.between(1, 2)));
        let known: Vec<_> =
            self.batches.values().filter(|known| known.instance == batch.instance).cloned().collect();
        let batch = if self.stream.percent(40) && !known.is_empty() {
            Arc::clone(&known[self.stream.index(known.len())])
        } else {
            Arc::new(batch)
        };
        self.note_batch(&batch);
        Propose { regency: propose.regency, batch, inline: propose.inline.clone() }
    }

    /// No vote, or one or several for what was proposed at any time, in this epoch or one near it.
    fn other_votes(&mut self, vote: &Vote) -> Vec<Vote> {
        let digests: Vec<Digest> = self.digests[&vote.instance].iter().copied().collect();
        let count = self.stream.pick(&[0, 1, 1, 2, 4]);
        (0..count)
            .map(|_| {
                let back = self.stream.pick(&[0, 0, 0, 1, 2]);
                let regency = Regency(vote.regency.0.saturating_sub(back));
                Vote { regency, digest: self.stream.pick(&digests), ..*vote }
            })
            .collect()
    }

    /// What it says about its votes.
    fn false_statement(&mut self, regency: Regency, honest: &StopData, keyring: &Keyring) -> SignedStopData {
        let mut data = StopData { regency, ..honest.clone() };
        match self.stream.below(8) {
            // Nothing at all.
            0 | 1 => data.claims.clear(),
            // A base that is not certified, or certified for something else.
            2 => {
                let base = self.certificates.last().cloned().or_else(|| honest.base.clone());
                if let Some(mut base) = base {
                    base.instance = base.instance.plus(self.stream.between(1, 3));
                    if self.stream.percent(50) {
                        base.signatures.clear();
                    }
                    data.claims.retain(|claim| claim.instance > base.instance);
                    data.base = Some(base);
                } else {
                    let (view, instance) = (data.view, InstanceId(self.stream.between(1, 3)));
                    let chain = Digest([9; 32]);
                    data.claims.retain(|claim| claim.instance > instance);
                    data.base = Some(ChainCertificate { view, instance, chain, signatures: Vec::new() });
                }
            }
            // Votes for anything that was ever seen.
            _ => data.claims = self.false_claims(regency, data.base_instance()),
        }
        self.signed(data, keyring)
    }

    fn false_claims(&mut self, regency: Regency, base: InstanceId) -> Vec<Claim> {
        let open: Vec<(InstanceId, Vec<Digest>)> = self
            .digests
            .range(base.next()..)
            .take(4)
            .map(|(instance, digests)| (*instance, digests.iter().copied().collect()))
            .collect();
        let mut claims = Vec::new();
        for (instance, digests) in open {
            let epoch = Regency(self.stream.below(regency.0));
            let digest = self.stream.pick(&digests);
            let other = self.stream.pick(&digests);
            let lock = match self.stream.below(4) {
                0 | 1 => Lock::At { epoch, digest },
                2 => Lock::At { epoch: regency.previous(), digest: other },
                _ => Lock::None,
            };
            let last = regency.previous();
            let mut write_set = vec![(last, digest)];
            if epoch < last && other != digest && lock == Lock::None {
                write_set.insert(0, (epoch, other));
            }
            if self.stream.percent(85) {
                claims.push(Claim { instance, lock, write_set });
            }
        }
        claims
    }

    fn signed(&self, data: StopData, keyring: &Keyring) -> SignedStopData {
        let signature = keyring.sign(Signer::Replica(self.me), &data.statement());
        SignedStopData { sender: self.me, data: Arc::new(data), signature }
    }

    /// Where it leads: begins the regency for each of the others with a set of its own choice.
    fn begin(&mut self, now: Moment, regency: Regency, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        let is_mine = self.view.leader_of(regency) == self.me;
        if !is_mine || self.begun.contains(&regency) || now >= self.silent_from {
            return;
        }
        let of_others: BTreeSet<ReplicaId> =
            self.statements.iter().filter(|s| s.data.regency == regency).map(|s| s.sender).collect();
        // It waits for all it needs, or for everybody's to choose from.
        let enough = self.view.quorum() - if self.stream.percent(50) { 1 } else { 0 };
        if of_others.len() < enough || !self.stream.percent(self.lies) {
            return;
        }
        self.begun.insert(regency);
        let is_one_for_all = self.stream.percent(50);
        let first = self.sync(regency, keyring);
        let anew = self.new_batches(regency);
        for to in self.others.clone() {
            let sync = if is_one_for_all { first.clone() } else { self.sync(regency, keyring) };
            let results = sync.results.clone();
            send(self.me, to, &Message::Sync(Arc::new(sync)), deeds);
            self.vote_for(regency, &results, to, deeds);
            self.propose_anew(regency, &anew, to, deeds);
        }
    }

    /// New batches for the last instances that there are any for.
    fn new_batches(&mut self, regency: Regency) -> Vec<Arc<Batch>> {
        let last = self.batches.values().map(|batch| batch.instance).max().unwrap_or_default();
        let known: BTreeMap<InstanceId, Arc<Batch>> = self
            .batches
            .values()
            .filter(|batch| batch.instance.plus(1) >= last)
            .map(|batch| (batch.instance, Arc::clone(batch)))
            .collect();
        known
            .into_values()
            .map(|batch| self.other_proposal(&Propose { regency, batch, inline: Vec::new() }).batch)
            .collect()
    }

    /// Proposes them right after its SYNC, and votes for them.
    fn propose_anew(&self, regency: Regency, anew: &[Arc<Batch>], to: ReplicaId, deeds: &mut Vec<Deed>) {
        for batch in anew {
            let propose = Propose { regency, batch: Arc::clone(batch), inline: Vec::new() };
            send(self.me, to, &Message::Propose(propose), deeds);
            let vote = Vote { view: batch.view, instance: batch.instance, regency, digest: batch.digest() };
            send(self.me, to, &Message::Write(vote), deeds);
            send(self.me, to, &Message::Accept(vote), deeds);
        }
    }

    /// A SYNC with some of the statements, its own lies among them, in every way that a check could overlook.
    fn sync(&mut self, regency: Regency, keyring: &Keyring) -> Sync {
        let mut set: Vec<SignedStopData> = self
            .statements
            .iter()
            .filter(|s| s.data.regency == regency && s.sender != self.me)
            .cloned()
            .collect();
        set.sort_by_key(|stated| stated.sender);
        set.dedup_by_key(|stated| stated.sender);
        self.stream.shuffle(&mut set);
        let honest = set.first().map(|stated| (*stated.data).clone());
        let Some(honest) = honest else { unreachable!("a regency begins with statements") };
        let quorum = self.view.quorum();
        match self.stream.below(6) {
            // Its own statement several times.
            0 => {
                let mine = if self.stream.percent(50) {
                    self.false_statement(regency, &honest, keyring)
                } else {
                    self.signed(without_claims(&honest), keyring)
                };
                set.clear();
                set.resize(quorum, mine);
            }
            // Statements in the name of others.
            1 => {
                let is_empty = self.stream.percent(70);
                for stated in &mut set {
                    let data = if is_empty {
                        without_claims(&stated.data)
                    } else {
                        (*self.false_statement(regency, &honest, keyring).data).clone()
                    };
                    stated.data = Arc::new(data);
                }
                set.push(self.signed(without_claims(&honest), keyring));
            }
            // Statements of earlier regencies.
            2 => {
                for stated in &mut set {
                    let sender = stated.sender;
                    let old = self.statements.iter().find(|s| s.sender == sender && s.data.regency < regency);
                    if let Some(old) = old {
                        let data = StopData { regency, ..(*old.data).clone() };
                        *stated = SignedStopData { data: Arc::new(data), ..old.clone() };
                    }
                }
                set.push(self.signed(without_claims(&honest), keyring));
            }
            // A quorum of its choice, with its own lie.
            _ => {
                set.truncate(quorum - 1);
                set.push(self.false_statement(regency, &honest, keyring));
            }
        }
        let mut results = self.results(&set);
        if self.stream.percent(50) {
            for (instance, digest) in &mut results {
                *digest = self.other_digest(*instance, *digest);
            }
        }
        let mut sync = Sync { view: self.view.id(), regency, set, results, signature: Signature([0; 64]) };
        sync.signature = keyring.sign(Signer::Replica(self.me), &sync.statement());
        sync
    }

    /// The digest of another batch for `instance`, if there is one to be had.
    fn other_digest(&mut self, instance: InstanceId, digest: Digest) -> Digest {
        if let (Some(batch), true) = (self.batches.get(&digest).cloned(), self.stream.percent(70)) {
            let propose = Propose { regency: Regency(0), batch, inline: Vec::new() };
            return self.other_proposal(&propose).batch.digest();
        }
        let known = self.digests.get(&instance).into_iter().flatten().copied().collect::<Vec<_>>();
        if known.is_empty() { digest } else { self.stream.pick(&known) }
    }

    /// Votes, towards one of the others, for what its SYNC proposes.
    fn vote_for(
        &self,
        regency: Regency,
        results: &[(InstanceId, Digest)],
        to: ReplicaId,
        deeds: &mut Vec<Deed>,
    ) {
        for (instance, digest) in results {
            let vote = Vote { view: self.view.id(), instance: *instance, regency, digest: *digest };
            send(self.me, to, &Message::Write(vote), deeds);
            send(self.me, to, &Message::Accept(vote), deeds);
        }
    }

    /// Hands out the batches that only it has.
    fn answer(&self, to: ReplicaId, digest: &Digest, deeds: &mut Vec<Deed>) {
        let Some(batch) = self.batches.get(digest) else { return };
        let bodies = batch.requests.iter().map(|request| {
            self.requests.get(request).map(|request| Body { request: Arc::clone(request), proof: None })
        });
        if let Some(bodies) = bodies.collect() {
            let answer = BatchAnswer { batch: Arc::clone(batch), bodies };
            send(self.me, to, &Message::BatchAnswer(answer), deeds);
        }
    }

    /// What its set comes to, or what it would like it to.
    fn results(&mut self, set: &[SignedStopData]) -> Vec<(InstanceId, Digest)> {
        let data: Vec<&StopData> = set.iter().map(|stated| &*stated.data).collect();
        if let Some(outcome) = Outcome::select(&data, &self.view) {
            return outcome.bound.into_iter().collect();
        }
        let bound = self.digests.keys().filter_map(|instance| match select(&data, *instance, &self.view) {
            Selection::Bound { digest, .. } => Some((*instance, digest)),
            Selection::Free | Selection::Undecided => None,
        });
        bound.collect()
    }
}

/// A statement that says nothing of any vote.
fn without_claims(data: &StopData) -> StopData {
    StopData { claims: Vec::new(), ..data.clone() }
}
