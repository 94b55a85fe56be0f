//! A leader that proposes two batches for one instance, each to some of the others, with accomplices that vote
//! for both at once: what each side sees is consistent.

use std::collections::BTreeMap;
use std::sync::Arc;

use regency_protocol::codec::Wire;
use regency_protocol::event::{ClientRequest, Verified};
use regency_protocol::ids::{
    ClientId, Digest, InstanceId, PublicKey, Regency, ReplicaId, Sequence, Signature, ViewId,
};
use regency_protocol::message::{
    Batch, Body, BundleProof, Message, Outcome, Propose, ReplicaMessage, Reply, Request, RequestPlace, Vote,
};

use super::Deed;
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::network::Place;
use crate::node::clock;
use crate::plan::Plan;
use crate::random::Stream;
use crate::service;

/// Requests that it remembers.
const POOL_MAX: usize = 64;

/// The scripted leader and its accomplices.
pub(crate) struct Equivocator {
    view: ViewId,
    leader: ReplicaId,
    owned: Vec<ReplicaId>,
    others: Vec<ReplicaId>,
    quorum: usize,
    window: u64,
    pool: BTreeMap<Digest, Body>,
    next: InstanceId,
    decided: InstanceId,
    next_at: Moment,
    is_over: bool,
    stream: Stream,
}

impl Equivocator {
    pub(super) fn new(plan: &Plan) -> Self {
        let others = plan.view.members().iter().map(|member| member.id);
        Self {
            view: plan.view.id(),
            leader: plan.leader(),
            owned: plan.byzantine.iter().copied().collect(),
            others: others.filter(|id| !plan.byzantine.contains(id)).collect(),
            quorum: plan.view.quorum(),
            window: plan.settings.window,
            pool: BTreeMap::new(),
            next: InstanceId(1),
            decided: InstanceId(0),
            next_at: 0,
            is_over: false,
            stream: Stream::new(plan.seed, "equivocator"),
        }
    }

    /// Whether the script, not the puppet, sends this kind of message: proposals and votes of the first regency.
    pub(super) fn speaks_for(&self, message: &Message) -> bool {
        match message {
            Message::Propose(propose) => propose.regency == Regency(0),
            Message::Write(vote) | Message::Accept(vote) => vote.regency == Regency(0),
            Message::Decided(_)
            | Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::StopData(_)
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => false,
        }
    }

    /// It only wants to know how far the others are.
    pub(super) fn on_message(&mut self, message: &Message) {
        let decided = match message {
            Message::Status(status) => {
                self.is_over |= status.regency > Regency(0);
                status.decided
            }
            Message::Decided(decided) => decided.instance,
            Message::Propose(_)
            | Message::Write(_)
            | Message::Accept(_)
            | Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::StopData(_)
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Echo(_)
            | Message::Lack(_) => return,
        };
        self.decided = self.decided.max(decided);
    }

    /// A client's request: something to propose, and somebody to lie to.
    pub(super) fn on_request(
        &mut self,
        to: ReplicaId,
        request: &Verified<ClientRequest>,
        clients: &[ClientId],
        deeds: &mut Vec<Deed>,
    ) {
        let ClientRequest { request, proof, .. } = &**request;
        if self.pool.len() < POOL_MAX {
            let body = Body { request: Arc::clone(request), proof: proof.clone() };
            self.pool.insert(request.digest(), body);
        }
        if self.stream.percent(20) {
            let result = Outcome::Result(self.stream.number().to_le_bytes().to_vec().into());
            lie(self.view, to, request, &result, clients, deeds);
        }
    }

    /// Proposes, if it is time to.
    pub(super) fn on_turn(&mut self, now: Moment, deeds: &mut Vec<Deed>) {
        if now < self.next_at || self.pool.is_empty() || self.is_over {
            return;
        }
        self.next_at = now + self.stream.between(1_000, 40_000);
        self.next = self.next.max(self.decided.next());
        if self.next > self.decided.plus(self.window) {
            // Nobody listens any further ahead; now and then an old instance is proposed anew.
            if self.stream.percent(20) {
                self.next = self.decided.next();
            }
            return;
        }
        let (one_side, other_side) = self.sides();
        let one = self.batch(now, deeds);
        let other = self.batch(now + 1, deeds);
        self.push(&one_side, &one, deeds);
        if !other_side.is_empty() {
            self.push(&other_side, &other, deeds);
            deeds.push(Deed::Reached(Point::Equivocation));
            deeds.push(Deed::Reached(Point::ColludingVotes));
        }
        if self.stream.percent(10) {
            let everybody = self.others.clone();
            self.push(&everybody, &other, deeds);
        }
        self.next = self.next.next();
    }

    /// Who sees which batch: half of the time one side can just decide.
    fn sides(&mut self) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
        let mut one = self.others.clone();
        self.stream.shuffle(&mut one);
        let enough = self.quorum.saturating_sub(self.owned.len()).min(one.len());
        let cut = match self.stream.below(4) {
            0 => one.len(),
            1 => self.stream.index(one.len() + 1),
            _ => enough,
        };
        let other = one.split_off(cut);
        (one, other)
    }

    /// A batch of some of the pool's requests, now and then with something that must not be there.
    fn batch(&mut self, now: Moment, deeds: &mut Vec<Deed>) -> (Arc<Batch>, Vec<Body>) {
        let mut bodies: Vec<Body> = self.pool.values().cloned().collect();
        self.stream.shuffle(&mut bodies);
        bodies.truncate(1 + self.stream.index(4));
        if self.stream.percent(10) {
            bodies.push(self.forged());
            deeds.push(Deed::Reached(Point::ForgedRequest));
        }
        if let Some((one, other)) = self.place_twice()
            && self.stream.percent(50)
        {
            bodies = vec![one, other];
            deeds.push(Deed::Reached(Point::PlaceTwice));
        }
        let requests = bodies.iter().map(|body| body.request.digest()).collect();
        let timestamp = clock(now + self.stream.below(1000), 0);
        let batch = Batch { view: self.view, instance: self.next, timestamp, requests };
        (Arc::new(batch), bodies)
    }

    /// A request in the name of a client that never sent it, with whatever can be had for a proof.
    fn forged(&mut self) -> Body {
        let victim = self.pool.values().nth(self.stream.index(self.pool.len()));
        let place = victim.map(|body| body.request.place());
        let Some(RequestPlace { client, session, sequence }) = place else {
            unreachable!("the pool is not empty when something is proposed");
        };
        let sequence = Sequence(sequence.0 + self.stream.below(3));
        let payload = service::append(0, self.stream.number(), 0);
        let request = Arc::new(Request::ordered(client, session, sequence, sequence, &payload));
        let proof = match self.stream.below(3) {
            0 => None,
            1 => {
                let requests = vec![request.digest()];
                Some(BundleProof { key: PublicKey([4; 32]), requests, signature: Signature([1; 64]) })
            }
            _ => victim.and_then(|body| body.proof.as_deref()).map(|proof| {
                let requests = vec![request.digest()];
                BundleProof { key: PublicKey([4; 32]), requests, signature: proof.signature }
            }),
        };
        Body { request, proof: proof.map(Arc::new) }
    }

    /// Two different requests of one place, if a client sent such.
    fn place_twice(&self) -> Option<(Body, Body)> {
        let mut places: BTreeMap<RequestPlace, &Body> = BTreeMap::new();
        self.pool.values().find_map(|body| {
            places.insert(body.request.place(), body).map(|other| (other.clone(), body.clone()))
        })
    }

    /// Makes one side believe that everybody is for this batch.
    fn push(&mut self, side: &[ReplicaId], (batch, bodies): &(Arc<Batch>, Vec<Body>), deeds: &mut Vec<Deed>) {
        let (view, instance, regency) = (self.view, self.next, Regency(0));
        let vote = Vote { view, instance, regency, digest: batch.digest() };
        let inline = if self.stream.percent(70) { bodies.clone() } else { Vec::new() };
        let propose = Message::Propose(Propose { regency, batch: Arc::clone(batch), inline }).to_frame();
        let votes = [Message::Write(vote).to_frame(), Message::Accept(vote).to_frame()];
        let times = if self.stream.percent(30) { 4 } else { 1 };
        if times > 1 {
            deeds.push(Deed::Reached(Point::StuffedVotes));
        }
        for to in side.iter().map(|id| Place::Replica(*id)) {
            deeds.push(Deed::Send { from: self.leader, to, frame: propose.clone() });
            for from in &self.owned {
                for frame in votes.iter().flat_map(|vote| std::iter::repeat_n(vote, times)) {
                    deeds.push(Deed::Send { from: *from, to, frame: frame.clone() });
                }
            }
        }
    }
}

/// Tells a client several times what came of its request, before anybody can know.
pub(super) fn lie(
    view: ViewId,
    from: ReplicaId,
    request: &Request,
    outcome: &Outcome,
    clients: &[ClientId],
    deeds: &mut Vec<Deed>,
) {
    let Some(number) = clients.iter().position(|id| *id == request.client()) else { return };
    let reply = Reply { session: request.session(), sequence: request.sequence(), outcome: outcome.clone() };
    let frame = ReplicaMessage::Replies { view, replies: vec![reply; 4] }.to_frame();
    deeds.push(Deed::Send { from, to: Place::Client(number), frame });
    deeds.push(Deed::Reached(Point::LyingReply));
}
