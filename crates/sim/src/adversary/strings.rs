//! The strings of the puppets: what becomes of an honest message under the vices of a seed, recipient by recipient.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regency_protocol::codec::Wire;
use regency_protocol::ids::{ClientId, Digest, InstanceId, Regency, ReplicaId, ViewId};
use regency_protocol::message::{Batch, Decided, Message, Propose, Reply, SignedStopData, Stop, Sync, Vote};
use regency_protocol::time::Timestamp;

use super::Deed;
use super::distortion::Distortion;
use super::forgery::Forger;
use super::held_votes::{HeldVote, HeldVotes};
use super::memory::Memory;
use super::slow_donor::Pace;
use super::vice::Vice;
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::network::Place;
use crate::plan::Plan;
use crate::random::Stream;
use crate::signatures::Keyring;

/// Forks that it remembers, at most.
const FORKS_MAX: usize = 256;
/// Within how many µs votes follow when the last one is in sight that they wait for.
const EDGE: Moment = 300;

/// The hands on the strings.
pub(super) struct Strings {
    vices: BTreeSet<Vice>,
    /// On how many of 100 occasions a vice shows.
    share: u64,
    view: ViewId,
    pub(super) owned: Vec<ReplicaId>,
    members: Vec<ReplicaId>,
    correct: Vec<ReplicaId>,
    quorum: usize,
    span: u64,
    /// Those that certain messages are withheld from.
    shunned: BTreeSet<ReplicaId>,
    censored: Option<ClientId>,
    /// By how much a slow leader's proposals are late.
    drip: Moment,
    forks: BTreeMap<(Regency, InstanceId), Fork>,
    held: HeldVotes,
    pub(super) memory: Memory,
    distortion: Distortion,
    pace: Pace,
    pub(super) stream: Stream,
}

/// Two proposals for one instance.
struct Fork {
    honest: Digest,
    other: Arc<Batch>,
    /// Who gets the other one.
    side: BTreeSet<ReplicaId>,
}

impl Strings {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut stream = Stream::new(plan.seed, "strings");
        let members: Vec<ReplicaId> = plan.view.members().iter().map(|member| member.id).collect();
        let correct: Vec<ReplicaId> =
            members.iter().copied().filter(|id| !plan.byzantine.contains(id)).collect();
        let mut shunned = correct.clone();
        stream.shuffle(&mut shunned);
        shunned.truncate(1 + stream.index(correct.len()));
        let timeout = plan.settings.request_timeout_min.as_micros();
        let timeout = Moment::try_from(timeout).unwrap_or(Moment::MAX);
        Self {
            share: stream.pick(&[30, 60, 100]),
            censored: plan.vices.contains(&Vice::Censor).then(|| plan.client_id(0)),
            drip: timeout * stream.pick(&[8, 9, 14, 19]) / 10,
            shunned: shunned.into_iter().collect(),
            vices: plan.vices.clone(),
            view: plan.view.id(),
            owned: plan.byzantine.iter().copied().collect(),
            members,
            correct,
            quorum: plan.view.quorum(),
            span: plan.settings.span,
            forks: BTreeMap::new(),
            held: HeldVotes::new(plan),
            memory: Memory::default(),
            distortion: Distortion::new(plan),
            pace: Pace::new(plan),
            stream,
        }
    }

    pub(super) fn has(&self, vice: Vice) -> bool {
        self.vices.contains(&vice)
    }

    /// Whether a vice shows this time; if so, it is told.
    pub(super) fn shows(&mut self, vice: Vice, deeds: &mut Vec<Deed>) -> bool {
        let shows = self.has(vice) && self.stream.percent(self.share);
        if shows {
            deeds.push(Deed::Reached(Point::Did(vice)));
        }
        shows
    }

    /// Whether a client's requests are not seen.
    pub(super) fn is_censored(&self, client: &ClientId, deeds: &mut Vec<Deed>) -> bool {
        let is_censored = self.censored.as_ref() == Some(client);
        if is_censored {
            deeds.push(Deed::Reached(Point::Did(Vice::Censor)));
        }
        is_censored
    }

    /// A message reached one of the owned.
    pub(super) fn note(&mut self, now: Moment, from: ReplicaId, message: &Message, deeds: &mut Vec<Deed>) {
        self.memory.note(message);
        match message {
            Message::Write(_) | Message::Accept(_) if self.has(Vice::LateVotes) => {
                let due = self.held.note(from, message);
                if !due.is_empty() {
                    deeds.push(Deed::Reached(Point::VotesAtTheEdge));
                }
                self.release(now, due, EDGE, deeds);
            }
            Message::Propose(propose) => self.distortion.note_proposal(propose),
            Message::StopData(_) | Message::Stop(_) => {
                // A change is under way: now is the time for what was held back.
                let due = self.held.all();
                self.release(now, due, 3000, deeds);
            }
            Message::Write(_)
            | Message::Accept(_)
            | Message::Decided(_)
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
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => {}
        }
    }

    /// Sends votes that were held back, within so many µs.
    fn release(&mut self, now: Moment, due: Vec<HeldVote>, within: Moment, deeds: &mut Vec<Deed>) {
        for HeldVote { from, to, message } in due {
            deeds.push(Deed::Reached(Point::Did(Vice::LateVotes)));
            let after = self.stream.below(within) + u64::from(now == 0);
            deeds.push(Deed::Later { after, from, to: Place::Replica(to), frame: message.to_frame() });
        }
    }

    /// What becomes of an answer to a client.
    pub(super) fn replies(&mut self, reply: Reply, deeds: &mut Vec<Deed>) -> Vec<Reply> {
        if self.has(Vice::Alter) { self.distortion.replies(reply, deeds) } else { vec![reply] }
    }

    /// The hand on single messages, if there is one.
    pub(super) fn distortion(&mut self) -> Option<&mut Distortion> {
        self.has(Vice::Alter).then_some(&mut self.distortion)
    }

    /// Sends what becomes of `message` on its way to a correct replica.
    pub(super) fn send(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        message: &Message,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        let mut out: Vec<(Moment, Message)> = Vec::new();
        match message {
            Message::Propose(propose) => self.propose(from, to, propose, &mut out, deeds),
            Message::Write(vote) => self.vote(from, to, *vote, Message::Write, &mut out, deeds),
            Message::Accept(vote) => self.vote(from, to, *vote, Message::Accept, &mut out, deeds),
            Message::StopData(stated) => self.stop_data(from, stated, keyring, &mut out, deeds),
            Message::Sync(sync) => self.sync(from, to, sync, keyring, &mut out, deeds),
            Message::Decided(decided) => {
                out.push((0, Message::Decided(self.decided(*decided, deeds))));
            }
            Message::Supply(supply) => {
                let given = self.give(supply.clone(), keyring, deeds);
                out.extend(given.map(|supply| {
                    let (after, supply) = self.pace.hold_back(to, supply, deeds);
                    (after, Message::Supply(supply))
                }));
            }
            Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::RecoverAnswer(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => out.push((0, message.clone())),
        }
        for (after, message) in out {
            if after == 0 && self.has(Vice::Alter) {
                deeds.push(Deed::Reached(Point::Did(Vice::Alter)));
                self.distortion.send(from, to, &message, keyring, deeds);
            } else {
                deeds.push(Deed::Later { after, from, to: Place::Replica(to), frame: message.to_frame() });
            }
        }
    }

    fn propose(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        propose: &Propose,
        out: &mut Vec<(Moment, Message)>,
        deeds: &mut Vec<Deed>,
    ) {
        if self.shunned.contains(&to) && self.shows(Vice::WithheldProposals, deeds) {
            return;
        }
        let after = if self.shows(Vice::SlowDrip, deeds) { self.drip } else { 0 };
        let (regency, id) = (propose.regency, propose.batch.instance);
        if self.has(Vice::Equivocate) && !self.forks.contains_key(&(regency, id)) {
            self.fork(propose);
        }
        let fork = self.forks.get(&(regency, id)).filter(|fork| fork.side.contains(&to));
        let batch = fork.map_or_else(|| Arc::clone(&propose.batch), |fork| Arc::clone(&fork.other));
        let is_forked = fork.is_some();
        let mut propose = Propose { batch, ..propose.clone() };
        if self.shows(Vice::BadBatches, deeds) {
            propose.batch = Arc::new(self.bad_batch(&propose.batch));
        }
        let digest = propose.batch.digest();
        out.push((after, Message::Propose(propose)));
        if is_forked {
            deeds.push(Deed::Reached(Point::Did(Vice::Equivocate)));
            let vote = Vote { view: self.view, instance: id, regency, digest };
            for owned in self.owned.clone() {
                for message in [Message::Write(vote), Message::Accept(vote)] {
                    let (to, frame) = (Place::Replica(to), message.to_frame());
                    deeds.push(Deed::Later { after: after + 1, from: owned, to, frame });
                }
            }
        }
        if self.has(Vice::Resign) && self.stream.percent(self.share / 4) {
            deeds.push(Deed::Reached(Point::Did(Vice::Resign)));
            let stop = Message::Stop(Stop { view: self.view, regency: Regency(regency.0.saturating_add(1)) });
            let after = after + self.stream.between(1, 8000);
            for to in self.correct.iter().map(|to| Place::Replica(*to)) {
                deeds.push(Deed::Later { after, from, to, frame: stop.to_frame() });
            }
        }
    }

    /// Thinks of another batch for some: often for so many that the others are just enough.
    fn fork(&mut self, propose: &Propose) {
        let mut side = self.correct.clone();
        self.stream.shuffle(&mut side);
        let enough = self.quorum.saturating_sub(self.owned.len()).min(side.len());
        let cut = if self.stream.percent(70) { enough } else { self.stream.index(side.len()) };
        let side = side.split_off(cut);
        let mut other = Batch::clone(&propose.batch);
        other.timestamp = Timestamp(other.timestamp.0.saturating_add(self.stream.between(1, 50)));
        if self.stream.percent(50) {
            other.requests.reverse();
            other.requests.truncate(1 + self.stream.index(other.requests.len()));
        }
        let other = Arc::new(other);
        self.memory.note_batch(&other);
        if self.forks.len() > FORKS_MAX {
            self.forks.pop_first();
        }
        let fork = Fork { honest: propose.batch.digest(), other, side: side.into_iter().collect() };
        self.forks.insert((propose.regency, propose.batch.instance), fork);
    }

    fn bad_batch(&mut self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        match self.stream.below(6) {
            0 => batch.requests.clear(),
            1 => batch.timestamp = Timestamp(self.stream.pick(&[0, 1, u64::MAX])),
            2 => {
                batch.timestamp =
                    Timestamp(batch.timestamp.0.saturating_add(self.stream.pick(&[3_000_000, 60_000_000])))
            }
            3 => batch.requests.extend(batch.requests.clone()),
            // Maximal, of what nobody has.
            4 => batch
                .requests
                .extend((0..1000_u32).map(|n| Digest(*blake3::hash(&n.to_le_bytes()).as_bytes()))),
            _ => batch.requests.reverse(),
        }
        batch
    }

    fn vote(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        vote: Vote,
        phase: fn(Vote) -> Message,
        out: &mut Vec<(Moment, Message)>,
        deeds: &mut Vec<Deed>,
    ) {
        self.memory.note_vote(from, &phase(vote));
        if self.shunned.contains(&to) && self.shows(Vice::WithheldVotes, deeds) {
            return;
        }
        let fork = self.forks.get(&(vote.regency, vote.instance));
        let mut vote = vote;
        if let Some(fork) = fork.filter(|fork| fork.side.contains(&to) && fork.honest == vote.digest) {
            vote.digest = fork.other.digest();
        }
        if self.has(Vice::LateVotes) && self.stream.percent(self.share) {
            match self.stream.below(10) {
                0..3 => self.held.until_change(HeldVote { from, to, message: phase(vote) }),
                3..6 => {
                    // There may be enough others already.
                    if let Some(due) = self.held.until_edge(HeldVote { from, to, message: phase(vote) }) {
                        out.push((0, due.message));
                    }
                }
                _ => out.push((self.stream.between(5_000, 400_000), phase(vote))),
            }
            return;
        }
        out.push((0, phase(vote)));
        if self.shows(Vice::DoubleVotes, deeds) {
            let digest = self.memory.rival(&vote).unwrap_or(Digest([0xdd; 32]));
            let place = if self.stream.percent(60) { 0 } else { out.len() };
            out.insert(place, (0, phase(Vote { digest, ..vote })));
        }
        if self.shows(Vice::HastyAccepts, deeds) {
            out.push((0, Message::Accept(vote)));
        }
        if self.shows(Vice::StaleVotes, deeds)
            && let Some((_, old)) = {
                let votes = self.memory.votes();
                let place = self.stream.index(votes.len());
                votes.get(place).cloned()
            }
        {
            out.push((0, self.relabelled(old, vote)));
        }
    }

    /// An old vote as it was, or under another place.
    fn relabelled(&mut self, old: Message, now: Vote) -> Message {
        let (phase, old): (fn(Vote) -> Message, Vote) = match old {
            Message::Write(vote) => (Message::Write, vote),
            Message::Accept(vote) => (Message::Accept, vote),
            other => return other,
        };
        phase(match self.stream.below(5) {
            0 => Vote { regency: now.regency, ..old },
            1 => Vote { instance: now.instance, ..old },
            2 => Vote { regency: Regency(now.regency.0.saturating_sub(1)), ..now },
            3 => Vote { view: old.view.next(), ..old },
            _ => old,
        })
    }

    fn decided(&mut self, decided: Decided, deeds: &mut Vec<Deed>) -> Decided {
        if !self.shows(Vice::FalseDecisions, deeds) {
            return decided;
        }
        let place = InstanceId(decided.instance.0.saturating_add(1));
        let rival = self.memory.digests(decided.instance).find(|digest| *digest != decided.digest);
        match self.stream.below(3) {
            0 => Decided { instance: place, ..decided },
            _ => Decided { digest: rival.unwrap_or(Digest([0xdd; 32])), ..decided },
        }
    }

    fn forger<'a>(&'a mut self, me: ReplicaId, keyring: &'a Keyring) -> Forger<'a> {
        Forger {
            me,
            owned: &self.owned,
            members: &self.members,
            quorum: self.quorum,
            span: self.span,
            memory: &self.memory,
            keyring,
            stream: &mut self.stream,
        }
    }

    /// The vices of the seed that could show, in random order.
    fn tempted(&mut self) -> Vec<Vice> {
        let mut vices: Vec<Vice> = self.vices.iter().copied().collect();
        self.stream.shuffle(&mut vices);
        vices
    }

    fn stop_data(
        &mut self,
        from: ReplicaId,
        stated: &SignedStopData,
        keyring: &Keyring,
        out: &mut Vec<(Moment, Message)>,
        deeds: &mut Vec<Deed>,
    ) {
        self.memory.note(&Message::StopData(stated.clone()));
        let mut forged = None;
        for vice in self.tempted() {
            if !self.stream.percent(self.share) {
                continue;
            }
            forged = self.forger(from, keyring).stop_data(vice, stated);
            if forged.is_some() {
                deeds.push(Deed::Reached(Point::Did(vice)));
                break;
            }
        }
        out.push((0, Message::StopData(forged.unwrap_or_else(|| stated.clone()))));
    }

    fn sync(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        sync: &Arc<Sync>,
        keyring: &Keyring,
        out: &mut Vec<(Moment, Message)>,
        deeds: &mut Vec<Deed>,
    ) {
        if self.shunned.contains(&to) && self.shows(Vice::WithheldSync, deeds) {
            return;
        }
        // Only a SYNC of its own can be signed again.
        if self.owned.contains(&keyring.members().leader_of(sync.regency)) {
            for vice in self.tempted() {
                if !self.stream.percent(self.share) {
                    continue;
                }
                if let Some(forged) = self.forger(from, keyring).sync(vice, sync) {
                    deeds.push(Deed::Reached(Point::Did(vice)));
                    return out.push((0, Message::Sync(Arc::new(forged))));
                }
            }
        }
        out.push((0, Message::Sync(Arc::clone(sync))));
    }
}
