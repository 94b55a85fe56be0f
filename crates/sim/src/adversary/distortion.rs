//! What becomes of an honest message on its way out of an owned replica: dropped, repeated, or made into
//! something that breaks one rule or another, differently for every recipient.

use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{ClientId, Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
use regency_protocol::limits::FETCH_ANSWERS_PER_PERIOD_MAX;
use regency_protocol::message::{
    Batch, Body, ChainCertificate, ChainSignature, CheckpointSignature, FetchBodies, Message, Outcome,
    Propose, Refusal, Reply, Request, Statement, Stop, Vote,
};
use regency_protocol::time::Timestamp;

use super::{Deed, equivocator};
use crate::coverage::Point;
use crate::network::Place;
use crate::plan::Plan;
use crate::random::Stream;
use crate::service;
use crate::signatures::{Keyring, Signer};

/// The adversary's hand on the strings.
pub(crate) struct Distortion {
    view: ViewId,
    /// How many of 100 messages are not sent as they are.
    share: u64,
    /// A digest that several lies share: so they may add up.
    favourite: Digest,
    /// The last proposal seen, to be passed off as the own.
    proposal: Option<Propose>,
    /// Fetches that it will ask beyond all measure.
    flood: usize,
    stream: Stream,
}

impl Distortion {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut stream = Stream::new(plan.seed, "distortion");
        let share = stream.pick(&[5, 20, 50, 90]);
        let flood = if stream.percent(10) { 2 * FETCH_ANSWERS_PER_PERIOD_MAX } else { 0 };
        let view = plan.view.id();
        Self { view, share, favourite: Digest([0xee; 32]), proposal: None, flood, stream }
    }

    /// The leader's proposal came: it may serve as a model.
    pub(super) fn note_proposal(&mut self, propose: &Propose) {
        self.proposal = Some(propose.clone());
    }

    /// Sends what becomes of `message`.
    pub(super) fn send(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        message: &Message,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        let to = Place::Replica(to);
        if !self.stream.percent(self.share) {
            return deeds.push(Deed::Send { from, to, frame: message.to_frame() });
        }
        let mut frames = vec![message.to_frame()];
        if let Message::Status(status) = message
            && self.flood > 0
            && status.decided > InstanceId(0)
        {
            let requests = vec![self.favourite];
            let fetch = Message::FetchBodies(FetchBodies { instance: status.decided, requests }).to_frame();
            deeds.push(Deed::Reached(Point::FetchFlood));
            frames.extend(std::iter::repeat_n(fetch, std::mem::take(&mut self.flood)));
        }
        match self.stream.below(6) {
            0 => frames.truncate(frames.len() - 1),
            1 => {
                frames.extend(std::iter::repeat_n(message.to_frame(), 3));
                if matches!(message, Message::Write(_) | Message::Accept(_)) {
                    deeds.push(Deed::Reached(Point::StuffedVotes));
                }
            }
            2 if self.proposal.is_some() && self.stream.percent(30) => {
                deeds.push(Deed::Reached(Point::FalseLeader));
                frames.extend(self.false_proposal().map(|propose| propose.to_frame()));
            }
            2 => frames.push(self.altered(from, message, keyring).to_frame()),
            3 => frames.push(self.mutated(message.to_frame())),
            _ => {
                deeds.push(Deed::Reached(Point::AlteredMessage));
                let times = if self.stream.percent(30) { 4 } else { 1 };
                frames = vec![self.altered(from, message, keyring).to_frame(); times];
            }
        }
        deeds.extend(frames.into_iter().map(|frame| Deed::Send { from, to, frame }));
    }

    /// What becomes of an answer to a client.
    pub(super) fn replies(&mut self, reply: Reply, deeds: &mut Vec<Deed>) -> Vec<Reply> {
        if !self.stream.percent(self.share) {
            return vec![reply];
        }
        deeds.push(Deed::Reached(Point::LyingReply));
        let outcome = self.false_outcome();
        let lie = Reply { outcome, ..reply.clone() };
        match self.stream.below(3) {
            0 => Vec::new(),
            1 => vec![lie; 5],
            _ => vec![lie.clone(), reply, lie],
        }
    }

    /// Answers a request before it can have been executed.
    pub(super) fn answer_at_once(
        &mut self,
        from: ReplicaId,
        request: &Request,
        clients: &[ClientId],
        deeds: &mut Vec<Deed>,
    ) {
        if self.stream.percent(self.share / 3) {
            let outcome = self.false_outcome();
            equivocator::lie(self.view, from, request, &outcome, clients, deeds);
        }
    }

    fn false_outcome(&mut self) -> Outcome {
        match self.stream.below(6) {
            0 => Outcome::Result(Bytes::from_static(b"12345678")),
            1 => Outcome::Result(Bytes::from(vec![7; 600])),
            2 => Outcome::ResultDigest(self.favourite),
            3 => Outcome::Refused(Refusal::SessionExpired),
            4 => Outcome::Refused(Refusal::TooFarAhead),
            _ => Outcome::Refused(Refusal::SequenceReused),
        }
    }

    fn mutated(&mut self, frame: Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        for _ in 0..=self.stream.below(3) {
            let at = self.stream.index(bytes.len());
            bytes[at] ^= 1 << self.stream.below(8);
        }
        Bytes::from(bytes)
    }

    fn digest(&mut self) -> Digest {
        if self.stream.percent(70) {
            return self.favourite;
        }
        Digest(*blake3::hash(&self.stream.number().to_le_bytes()).as_bytes())
    }

    /// A number near `number`, or far from it.
    fn other_number(&mut self, number: u64) -> u64 {
        match self.stream.below(8) {
            0 => u64::MAX,
            1 => 0,
            2 => number.saturating_add(1 << 40),
            3 => number.saturating_sub(self.stream.between(1, 3)),
            _ => number.saturating_add(self.stream.between(1, 40)),
        }
    }

    fn altered(&mut self, me: ReplicaId, message: &Message, keyring: &Keyring) -> Message {
        match message {
            Message::Propose(propose) => Message::Propose(self.altered_propose(propose)),
            Message::Write(vote) => self.altered_vote(vote, Message::Write, Message::Accept),
            Message::Accept(vote) => self.altered_vote(vote, Message::Accept, Message::Write),
            Message::Decided(decided) => {
                let mut decided = *decided;
                match self.stream.below(3) {
                    0 => decided.instance = InstanceId(self.other_number(decided.instance.0)),
                    1 => decided.view = decided.view.next(),
                    _ => decided.digest = self.digest(),
                }
                Message::Decided(decided)
            }
            Message::FetchBatch(fetch) => {
                let mut fetch = *fetch;
                fetch.instance = InstanceId(self.other_number(fetch.instance.0));
                Message::FetchBatch(fetch)
            }
            Message::BatchAnswer(answer) => {
                let mut answer = answer.clone();
                if self.stream.percent(50) {
                    answer.bodies.pop();
                } else {
                    answer.batch = Arc::new(self.altered_batch(&answer.batch));
                }
                Message::BatchAnswer(answer)
            }
            Message::FetchBodies(fetch) => {
                let mut fetch = fetch.clone();
                fetch.requests = (0..20).map(|_| self.digest()).chain(fetch.requests).collect();
                Message::FetchBodies(fetch)
            }
            Message::Bodies(bodies) => {
                let bodies = bodies.iter().map(|body| self.altered_body(body)).collect();
                Message::Bodies(bodies)
            }
            Message::Status(status) => {
                let mut status = *status;
                match self.stream.below(5) {
                    0 => status.view = status.view.next(),
                    1 => status.regency = Regency(self.other_number(status.regency.0)),
                    2 => status.retained_from = InstanceId(self.other_number(status.decided.0)),
                    3 => status.certified = InstanceId(self.other_number(status.certified.0)),
                    _ => status.decided = InstanceId(self.other_number(status.decided.0)),
                }
                Message::Status(status)
            }
            Message::ChainSignature(signature) => {
                Message::ChainSignature(self.altered_signature(me, signature, keyring))
            }
            Message::ChainCertificate(certificate) => {
                Message::ChainCertificate(self.altered_certificate(me, certificate, keyring))
            }
            Message::Stop(stop) => {
                let regency = Regency(self.other_number(stop.regency.0));
                Message::Stop(Stop { regency, ..*stop })
            }
            Message::CheckpointSignature(signed) => {
                let mut signed = *signed;
                match self.stream.below(3) {
                    0 => signed.instance = InstanceId(self.other_number(signed.instance.0)),
                    1 => signed.chain = self.digest(),
                    _ => signed.root = self.digest(),
                }
                let CheckpointSignature { view, instance, chain, root, .. } = signed;
                let statement = Statement::Checkpoint { view, instance, chain, root };
                signed.signature = keyring.sign(Signer::Replica(me), &statement);
                Message::CheckpointSignature(signed)
            }
            Message::CheckpointCertificate(certificate) => {
                let mut certificate = certificate.clone();
                if self.stream.percent(50) {
                    certificate.root = self.digest();
                } else {
                    certificate.signatures.pop();
                }
                Message::CheckpointCertificate(certificate)
            }
            Message::RecoverAnswer(answer) => {
                let mut answer = *answer;
                match self.stream.below(4) {
                    0 => answer.highest = InstanceId(0),
                    1 => answer.highest = InstanceId(self.other_number(answer.highest.0)),
                    2 => answer.regency = Regency(self.other_number(answer.regency.0)),
                    _ => answer.nonce = self.other_number(answer.nonce),
                }
                Message::RecoverAnswer(answer)
            }
            Message::Forward(bodies) => {
                let mut bodies: Vec<Body> = bodies.iter().map(|body| self.altered_body(body)).collect();
                if self.stream.percent(30) {
                    bodies.push(self.forged_body());
                }
                Message::Forward(bodies)
            }
            Message::Announce(digests) => self.altered_list(digests, Message::Announce, Message::Lack),
            Message::Lack(digests) => self.altered_list(digests, Message::Lack, Message::Announce),
            Message::Echo(sent) => Message::Echo(Timestamp(self.other_number(sent.0))),
            // Signed as a whole, or altered by those who give them.
            Message::StopData(_)
            | Message::Sync(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_) => message.clone(),
        }
    }

    /// A list of requests with others in it, without some, or under the other name.
    fn altered_list(
        &mut self,
        digests: &[Digest],
        same: fn(Vec<Digest>) -> Message,
        other: fn(Vec<Digest>) -> Message,
    ) -> Message {
        let mut digests = digests.to_vec();
        match self.stream.below(4) {
            0 => return other(digests),
            1 => {
                digests.pop();
            }
            2 => digests.extend(digests.clone()),
            _ => digests.push(self.digest()),
        }
        same(digests)
    }

    /// The leader's last proposal, changed, as if it were the own.
    fn false_proposal(&mut self) -> Option<Message> {
        let propose = self.proposal.clone()?;
        Some(Message::Propose(self.altered_propose(&propose)))
    }

    fn altered_vote(
        &mut self,
        vote: &Vote,
        same: fn(Vote) -> Message,
        other_phase: fn(Vote) -> Message,
    ) -> Message {
        let mut vote = *vote;
        match self.stream.below(8) {
            0 => vote.view = vote.view.next(),
            1 => vote.regency = Regency(self.other_number(vote.regency.0)),
            2 => vote.instance = InstanceId(self.other_number(vote.instance.0)),
            3 => return other_phase(vote),
            _ => vote.digest = self.digest(),
        }
        same(vote)
    }

    fn altered_propose(&mut self, propose: &Propose) -> Propose {
        let mut propose = propose.clone();
        match self.stream.below(6) {
            0 => propose.regency = Regency(self.other_number(propose.regency.0)),
            1 => propose.inline = vec![self.forged_body()],
            2 => {
                let forged = self.forged_body();
                let mut batch = Batch::clone(&propose.batch);
                batch.requests.push(forged.request.digest());
                propose = Propose { batch: Arc::new(batch), inline: vec![forged], ..propose };
            }
            _ => propose.batch = Arc::new(self.altered_batch(&propose.batch)),
        }
        propose
    }

    fn altered_batch(&mut self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        match self.stream.below(8) {
            0 => batch.view = batch.view.next(),
            1 => batch.instance = InstanceId(self.other_number(batch.instance.0)),
            2 => batch.timestamp = Timestamp(self.other_number(batch.timestamp.0)),
            3 => batch.requests.extend(batch.requests.clone()),
            4 => batch.requests.clear(),
            5 => batch.requests.extend((0..2000).map(|_| self.digest())),
            6 => batch.requests.push(self.digest()),
            // The same requests at another time: another batch all the same.
            _ => batch.timestamp = Timestamp(batch.timestamp.0.saturating_add(self.stream.between(1, 1000))),
        }
        batch
    }

    fn altered_body(&mut self, body: &Body) -> Body {
        let mut body = body.clone();
        match self.stream.below(3) {
            0 => body.proof = None,
            1 => return self.forged_body(),
            _ => {
                body.proof = body.proof.map(|proof| {
                    let mut proof = (*proof).clone();
                    proof.signature = Signature([3; 64]);
                    Arc::new(proof)
                });
            }
        }
        body
    }

    fn forged_body(&mut self) -> Body {
        let client = ClientId(self.digest().0);
        let payload = service::append(1, self.stream.number(), 0);
        Body {
            request: Arc::new(Request::ordered(
                client,
                Default::default(),
                Default::default(),
                Default::default(),
                &payload,
            )),
            proof: None,
        }
    }

    fn altered_signature(
        &mut self,
        me: ReplicaId,
        signature: &ChainSignature,
        keyring: &Keyring,
    ) -> ChainSignature {
        let mut altered = *signature;
        match self.stream.below(4) {
            0 => altered.instance = InstanceId(self.other_number(altered.instance.0)),
            1 => altered.view = altered.view.next(),
            2 => altered.chain = self.digest(),
            _ => altered.signature = Signature([9; 64]),
        }
        if altered.signature == signature.signature {
            let ChainSignature { view, instance, chain, .. } = altered;
            altered.signature =
                keyring.sign(Signer::Replica(me), &Statement::Chain { view, instance, chain });
        }
        altered
    }

    fn altered_certificate(
        &mut self,
        me: ReplicaId,
        certificate: &ChainCertificate,
        keyring: &Keyring,
    ) -> ChainCertificate {
        let mut altered = certificate.clone();
        match self.stream.below(3) {
            // Too few.
            0 => {
                altered.signatures.pop();
            }
            // Relabelled: nobody signed that.
            1 => altered.instance = InstanceId(self.other_number(altered.instance.0)),
            // Another chain, with the own signature only.
            _ => {
                altered.chain = self.digest();
                let ChainCertificate { view, instance, chain, .. } = altered;
                let statement = Statement::Chain { view, instance, chain };
                altered.signatures = vec![(me, keyring.sign(Signer::Replica(me), &statement))];
            }
        }
        altered
    }
}
