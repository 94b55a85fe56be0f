//! What owned replicas send without any occasion: STOPs, floods, and words about requests.

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{ClientId, Digest, InstanceId, Regency, ReplicaId, Sequence, SessionId, ViewId};
use regency_protocol::limits::{
    ANNOUNCE_MAX, FETCH_ANSWERS_PER_PERIOD_MAX, FORWARD_MAX, FORWARDS_PER_PERIOD_MAX,
};
use regency_protocol::message::{Body, FetchBatch, Message, Request, Stop};

use super::Deed;
use super::vice::Vice;
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::network::Place;
use crate::plan::Plan;
use crate::random::Stream;
use crate::service;

/// Floods of one schedule: each reaches the bound of its period, and costs as much as a hundred votes.
const FLOODS_MAX: u32 = 8;
/// Lists of digests in one schedule that are as long as a message may be: each costs as much as a thousand votes.
const LONG_LISTS_MAX: u32 = 3;

/// The noise of one seed.
pub(super) struct Noise {
    vices: Vec<Vice>,
    view: ViewId,
    owned: Vec<ReplicaId>,
    correct: Vec<ReplicaId>,
    victim: ClientId,
    /// The highest regency that it heard of.
    regency: Regency,
    /// Requests that it heard of.
    requests: Vec<Digest>,
    period: Moment,
    next_at: Moment,
    has_fetched: bool,
    floods: u32,
    long_lists: u32,
    stream: Stream,
}

impl Noise {
    pub(super) fn new(plan: &Plan) -> Self {
        let makes_noise = [Vice::StopStorm, Vice::LoneStop, Vice::Flood, Vice::FalseAnnouncements];
        let members = plan.view.members().iter().map(|member| member.id);
        Self {
            vices: makes_noise.into_iter().filter(|vice| plan.vices.contains(vice)).collect(),
            view: plan.view.id(),
            owned: plan.byzantine.iter().copied().collect(),
            correct: members.filter(|id| !plan.byzantine.contains(id)).collect(),
            victim: plan.client_id(0),
            regency: Regency(0),
            requests: Vec::new(),
            period: Moment::try_from(plan.settings.status_period.as_micros()).unwrap_or(Moment::MAX),
            next_at: 0,
            has_fetched: false,
            floods: 0,
            long_lists: 0,
            stream: Stream::new(plan.seed, "noise"),
        }
    }

    /// Learns what a message tells.
    pub(super) fn note(&mut self, message: &Message) {
        match message {
            Message::Status(status) => self.regency = self.regency.max(status.regency),
            Message::Propose(propose) => {
                self.requests.extend(propose.batch.requests.iter().take(8));
                let surplus = self.requests.len().saturating_sub(64);
                self.requests.drain(..surplus);
            }
            Message::Write(_)
            | Message::Accept(_)
            | Message::Decided(_)
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
            | Message::Lack(_)
            | Message::Echo(_) => {}
        }
    }

    /// Makes some noise, once in a period.
    pub(super) fn on_turn(&mut self, now: Moment, deeds: &mut Vec<Deed>) {
        if self.vices.is_empty() || self.correct.is_empty() || now < self.next_at {
            return;
        }
        self.next_at = now + self.stream.between(self.period / 2, self.period);
        let vice = self.stream.pick(&self.vices);
        let from = self.stream.pick(&self.owned);
        let before = deeds.len();
        match vice {
            Vice::StopStorm => {
                for to in self.correct.clone() {
                    let far = self.stream.pick(&[1, 1, 2, 7, 1 << 40, 1 << 63, u64::MAX]);
                    self.stop(from, to, far, deeds);
                }
            }
            Vice::LoneStop if self.stream.percent(10) => {
                for to in self.correct.clone() {
                    self.stop(from, to, 1, deeds);
                }
            }
            Vice::Flood if self.floods < FLOODS_MAX => {
                self.floods += 1;
                self.flood(from, deeds);
            }
            Vice::FalseAnnouncements => self.announce(from, deeds),
            _other => {}
        }
        if deeds.len() > before {
            deeds.push(Deed::Reached(Point::Did(vice)));
        }
    }

    fn stop(&self, from: ReplicaId, to: ReplicaId, far: u64, deeds: &mut Vec<Deed>) {
        let regency = Regency(self.regency.0.saturating_add(far));
        let frame = Message::Stop(Stop { view: self.view, regency }).to_frame();
        deeds.push(Deed::Send { from, to: Place::Replica(to), frame });
    }

    /// To one of the correct: as much as one may ask of it in a period, and not one more.
    fn flood(&mut self, from: ReplicaId, deeds: &mut Vec<Deed>) {
        let to = Place::Replica(self.stream.pick(&self.correct));
        let mut push = |frame: Bytes, times: usize| {
            deeds.extend((0..times).map(|_| Deed::Send { from, to, frame: frame.clone() }));
        };
        if !self.has_fetched && self.stream.percent(20) {
            self.has_fetched = true;
            let fetch = FetchBatch { view: self.view, instance: InstanceId(1), digest: Digest([0xaa; 32]) };
            push(Message::FetchBatch(fetch).to_frame(), FETCH_ANSWERS_PER_PERIOD_MAX);
        }
        let bodies = (0..FORWARD_MAX).map(|place| {
            let payload = service::append(7, self.stream.number(), 0);
            let sequence = Sequence(place as u64 + 1);
            let session = SessionId(self.stream.between(1, 1 << 20));
            let request = Request::ordered(self.victim, session, sequence, sequence, &payload);
            Body { request: request.into(), proof: None }
        });
        let frame = Message::Forward(bodies.collect()).to_frame();
        push(frame, FORWARDS_PER_PERIOD_MAX / FORWARD_MAX);
    }

    fn announce(&mut self, from: ReplicaId, deeds: &mut Vec<Deed>) {
        let mut digests = self.requests.clone();
        if self.long_lists < LONG_LISTS_MAX && self.stream.percent(10) {
            self.long_lists += 1;
            let seed = self.stream.number();
            digests = (0..ANNOUNCE_MAX as u64)
                .map(|n| Digest(*blake3::hash(&(seed ^ n).to_le_bytes()).as_bytes()))
                .collect();
        }
        if digests.is_empty() {
            return;
        }
        let message =
            if self.stream.percent(50) { Message::Lack(digests) } else { Message::Announce(digests) };
        let frame = message.to_frame();
        for to in self.correct.iter().map(|to| Place::Replica(*to)) {
            deeds.push(Deed::Send { from, to, frame: frame.clone() });
        }
    }
}
