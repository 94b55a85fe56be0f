//! One vote: a correct replica sends at most one digest per view, instance, epoch and phase [Q-4, VOTE-1], and
//! one that lost its votes sends none.

use std::collections::BTreeMap;

use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId, ViewId};
use regency_protocol::message::{Message, Vote};

use super::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Propose,
    Write,
    Accept,
}

type Place = (ReplicaId, ViewId, InstanceId, Regency, Phase);

/// The votes of every correct replica, across its restarts, and the leader's proposals [PROPOSE-5].
#[derive(Default)]
pub(crate) struct OneVote(BTreeMap<Place, Digest>);

impl OneVote {
    /// A correct replica sends this; `votes_lost` if it knows that it has forgotten earlier votes.
    pub(crate) fn on_send(
        &mut self,
        by: ReplicaId,
        votes_lost: bool,
        message: &Message,
    ) -> Result<(), Violation> {
        let (vote, phase) = match message {
            Message::Write(vote) => (*vote, Phase::Write),
            Message::Accept(vote) => (*vote, Phase::Accept),
            Message::Propose(propose) => {
                let batch = &propose.batch;
                let (view, instance, regency) = (batch.view, batch.instance, propose.regency);
                (Vote { view, instance, regency, digest: batch.digest() }, Phase::Propose)
            }
            Message::Decided(_)
            | Message::FetchBatch(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::StopData(_)
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Echo(_)
            | Message::Lack(_) => return Ok(()),
        };
        if votes_lost {
            let detail = format!("replica {by} has lost its votes and sends {phase:?} {vote:?}");
            return Err(Violation::new("one-vote", detail));
        }
        let place = (by, vote.view, vote.instance, vote.regency, phase);
        let first = *self.0.entry(place).or_insert(vote.digest);
        if first != vote.digest {
            let detail = format!("replica {by} sends {phase:?} {vote:?} after {first}");
            return Err(Violation::new("one-vote", detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(instance: u64, digest: u8) -> Message {
        let (view, instance, regency) = (ViewId(0), InstanceId(instance), Regency(0));
        Message::Write(Vote { view, instance, regency, digest: Digest([digest; 32]) })
    }

    #[test]
    fn the_same_vote_again_is_fine_and_a_differing_one_is_not() {
        let mut votes = OneVote::default();
        assert!(votes.on_send(ReplicaId(0), false, &write(1, 1)).is_ok());
        assert!(votes.on_send(ReplicaId(0), false, &write(1, 1)).is_ok());
        assert!(votes.on_send(ReplicaId(1), false, &write(1, 2)).is_ok());
        assert!(votes.on_send(ReplicaId(0), false, &write(2, 2)).is_ok());
        assert!(votes.on_send(ReplicaId(0), false, &write(1, 2)).is_err());
    }

    #[test]
    fn who_lost_its_votes_must_not_vote() {
        let mut votes = OneVote::default();
        assert!(votes.on_send(ReplicaId(0), true, &write(1, 1)).is_err());
    }
}
