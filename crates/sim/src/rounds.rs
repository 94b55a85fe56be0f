//! Faults by round: in each regency, and for each kind of message, some links carry nothing at all. Whole rounds
//! that reach only some replicas bring about what single lost frames seldom do: one decides and the others change
//! leaders, a lock that nobody else has, statements that only some have seen.

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::message::Message;

use crate::random::Stream;

/// Regencies with rules of their own; later ones are not disturbed.
const REGENCIES: u64 = 12;
/// Kinds of messages that rounds consist of.
const KINDS: usize = 5;
/// How many percent of the links fail, for one kind in one regency.
const RATES: [u64; 6] = [0, 0, 20, 50, 80, 100];

/// Which rounds fail on which links.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    seed: u64,
    /// For each regency the rates of PROPOSE, WRITE, ACCEPT, STOPDATA and SYNC.
    rates: Vec<[u64; KINDS]>,
    /// How many percent of the links carry none of what helps those who are behind.
    without_help: u64,
    /// From which regency on the liar says nothing any more, if it depends on that.
    silence: Option<Regency>,
}

impl Rounds {
    /// Rules that `stream` chooses, for the schedule of `seed`.
    pub(crate) fn new(seed: u64, stream: &mut Stream) -> Self {
        let shape = stream.below(3);
        let rates = |regency: u64, stream: &mut Stream| match shape {
            // Anything.
            0 => std::array::from_fn(|_| stream.pick(&RATES)),
            // Some decide, or only lock, in every second regency; the next one is not disturbed.
            1 if regency.is_multiple_of(2) => [0, 0, stream.pick(&[50, 70, 100]), 0, 0],
            1 => [0; KINDS],
            // Some write, fewer lock, one decides.
            _ => [stream.pick(&[0, 20]), stream.pick(&[0, 20, 40]), stream.pick(&[20, 50, 80]), 0, 0],
        };
        let rates = (0..REGENCIES).map(|regency| rates(regency, stream)).collect();
        Self { seed, rates, without_help: stream.pick(&[50, 100, 100]), silence: None }
    }

    /// Nobody hears an ACCEPT of the first regency.
    pub(crate) fn no_accepts(seed: u64) -> Self {
        Self { seed, rates: vec![[0, 0, 100, 0, 0]], without_help: 0, silence: None }
    }

    /// In the first regency most write, few lock, hardly anybody decides. In the next ones leaders begin without the
    /// statements of some, so that what is locked may look free; most write what is proposed then, and nobody locks.
    /// In the end the liar falls silent: selection has only what the correct ones still know.
    pub(crate) fn overwritten(seed: u64, stream: &mut Stream) -> Self {
        let first =
            [stream.pick(&[0, 0, 20]), stream.pick(&[20, 40, 60]), stream.pick(&[80, 100, 100]), 0, 0];
        let later = |stream: &mut Stream| {
            let stop_data = stream.pick(&[0, 20, 40]);
            [0, stream.pick(&[60, 80, 100]), stream.pick(&[80, 100]), stop_data, stream.pick(&[0, 0, 30])]
        };
        let last = stream.between(1, 3);
        let rates = std::iter::once(first).chain((0..last).map(|_| later(stream))).collect();
        Self { seed, rates, without_help: 100, silence: Some(Regency(last).next()) }
    }

    /// From which regency on the liar says nothing any more, if it depends on that.
    pub(crate) fn silence(&self) -> Option<Regency> {
        self.silence
    }

    /// The number of the rule by which a frame is lost, if it is.
    pub(crate) fn blocked(&self, from: ReplicaId, to: ReplicaId, frame: &Bytes) -> Option<u64> {
        let Ok(message) = Message::decode(frame.clone()) else { return None };
        let (kind, regency) = match &message {
            Message::Propose(propose) => (0, propose.regency),
            Message::Write(vote) => (1, vote.regency),
            Message::Accept(vote) => (2, vote.regency),
            Message::StopData(stated) => (3, stated.data.regency),
            Message::Sync(sync) => (4, sync.regency),
            Message::Decided(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::ChainCertificate(_) => {
                let is_lost = self.coin(KINDS, Regency(0), from, to) < self.without_help;
                return is_lost.then(|| number(KINDS, Regency(0), from, to));
            }
            Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::Stop(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => return None,
        };
        let rates = usize::try_from(regency.0).ok().and_then(|place| self.rates.get(place))?;
        (self.coin(kind, regency, from, to) < rates[kind]).then(|| number(kind, regency, from, to))
    }

    /// A number below 100 that is the same for every frame of one round on one link.
    fn coin(&self, kind: usize, regency: Regency, from: ReplicaId, to: ReplicaId) -> u64 {
        let name = format!("round {kind} {} {} {}", regency.0, from.0, to.0);
        Stream::new(self.seed, &name).below(100)
    }
}

/// A number of its own for each kind of message, regency and link; replicas of schedules have small identifiers.
fn number(kind: usize, regency: Regency, from: ReplicaId, to: ReplicaId) -> u64 {
    let round = regency.0 * (KINDS as u64 + 1) + kind as u64;
    (round * 1000 + u64::from(from.0)) * 1000 + u64::from(to.0)
}
