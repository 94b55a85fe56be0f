//! What a replica does wrong when a test tells it to (feature `adversity`): it takes the place of honest conduct
//! between the core and the network, so that the core knows nothing of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regency_protocol::action::Recipients;
use regency_protocol::ids::ReplicaId;
use regency_protocol::message::{Batch, Message, Propose, Supply};
use regency_protocol::time::Timestamp;
use regency_protocol::view::View;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adversity {
    /// Every PROPOSE leaves this much later; everything else leaves at once.
    DelayProposals(Duration),
    /// Half of the members get another PROPOSE for the same instance than the rest.
    Equivocate,
    /// Every chunk that is given for a state transfer has a byte turned over.
    FalseChunks,
    /// No chunk is given to anybody who asks.
    WithholdChunks,
}

impl Adversity {
    /// `delay-proposals=499ms`, `equivocate`, `false-chunks` or `withhold-chunks`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            None if text == "equivocate" => Some(Self::Equivocate),
            None if text == "false-chunks" => Some(Self::FalseChunks),
            None if text == "withhold-chunks" => Some(Self::WithholdChunks),
            Some(("delay-proposals", delay)) => {
                let delay = delay.strip_suffix("ms")?.parse().ok()?;
                Some(Self::DelayProposals(Duration::from_millis(delay)))
            }
            Some(_) | None => None,
        }
    }
}

/// The conduct of a replica that does wrong, or does not.
#[derive(Debug)]
pub(super) struct Conduct {
    adversity: Option<Adversity>,
    others: Vec<ReplicaId>,
    held: VecDeque<(Timestamp, Recipients, Message)>,
}

impl Conduct {
    /// That of the member `me` of `view`, honest so far.
    pub(super) fn new(view: &Arc<View>, me: ReplicaId) -> Self {
        let others = view.members().iter().map(|member| member.id).filter(|id| *id != me).collect();
        Self { adversity: None, others, held: VecDeque::new() }
    }

    /// Does wrong from now on.
    pub(super) fn suffer(&mut self, adversity: Adversity) {
        self.adversity = Some(adversity);
    }

    /// Hands a message of the core on, now or later, or something else in its place.
    pub(super) fn on_send(
        &mut self,
        now: Timestamp,
        to: Recipients,
        message: Message,
        mut send: impl FnMut(Recipients, &Message),
    ) {
        match (self.adversity, message) {
            (Some(Adversity::DelayProposals(delay)), message @ Message::Propose(_)) => {
                self.held.push_back((now.plus(delay), to, message));
            }
            (Some(Adversity::Equivocate), Message::Propose(propose)) if to == Recipients::All => {
                let (one, other) = (Message::Propose(propose.clone()), Message::Propose(altered(&propose)));
                for (rank, peer) in self.others.iter().enumerate() {
                    // With the leader's own vote neither reaches a quorum.
                    let is_first_half = rank < self.others.len() / 2;
                    send(Recipients::One(*peer), if is_first_half { &one } else { &other });
                }
            }
            (Some(Adversity::FalseChunks), Message::Supply(Supply::Chunk { instance, index, bytes })) => {
                let bytes = turned_over(&bytes);
                send(to, &Message::Supply(Supply::Chunk { instance, index, bytes }));
            }
            (Some(Adversity::WithholdChunks), Message::Supply(Supply::Chunk { .. })) => {}
            (_, message) => send(to, &message),
        }
    }

    /// Hands on what was held back until `now`.
    pub(super) fn release(&mut self, now: Timestamp, mut send: impl FnMut(Recipients, &Message)) {
        while let Some((_, to, message)) = self.held.pop_front_if(|(due, ..)| *due <= now) {
            send(to, &message);
        }
    }

    /// When something is to be released.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.held.front().map(|(due, ..)| *due)
    }
}

/// The same requests at another time: another digest.
fn altered(propose: &Propose) -> Propose {
    let timestamp = propose.batch.timestamp.plus(Duration::from_micros(1));
    Propose { batch: Arc::new(Batch { timestamp, ..(*propose.batch).clone() }), ..propose.clone() }
}

/// The same bytes but for the last one.
fn turned_over(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().last().into_iter().for_each(|byte| *byte = !*byte);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_wrong_is_told_in_words() {
        let delay = Adversity::DelayProposals(Duration::from_millis(499));
        assert_eq!(Adversity::parse("delay-proposals=499ms"), Some(delay));
        assert_eq!(Adversity::parse("equivocate"), Some(Adversity::Equivocate));
        assert_eq!(Adversity::parse("false-chunks"), Some(Adversity::FalseChunks));
        assert_eq!(Adversity::parse("withhold-chunks"), Some(Adversity::WithholdChunks));
        for wrong in ["", "delay-proposals", "delay-proposals=5", "equivocate=1"] {
            assert_eq!(Adversity::parse(wrong), None, "{wrong}");
        }
    }
}
