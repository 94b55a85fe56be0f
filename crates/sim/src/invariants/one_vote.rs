//! One vote: a correct replica sends at most one digest per view, instance, epoch and phase [Q-4, VOTE-1], and
//! one that lost its votes sends none.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId, ViewId};
use regency_protocol::limits::WRITE_SET_MAX;
use regency_protocol::message::{Lock, Message, StopData, Vote};
use regency_protocol::record::Record;

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
pub(crate) struct OneVote {
    sent: BTreeMap<Place, Digest>,
    /// The ACCEPTs that are locks, of those that have a log.
    locks: BTreeSet<(ReplicaId, InstanceId, Regency)>,
    /// The highest regency that each has stated its votes for.
    stated: BTreeMap<ReplicaId, Arc<StopData>>,
}

impl OneVote {
    /// A correct replica writes this into its log.
    pub(crate) fn on_append(&mut self, by: ReplicaId, record: &Record) {
        match record {
            Record::Lock(vote) => {
                self.locks.insert((by, vote.instance, vote.regency));
            }
            // A lock that never left may be gone with a crash.
            Record::Confirm(vote) => {
                let place = (by, vote.view, vote.instance, vote.regency, Phase::Accept);
                if !self.sent.contains_key(&place) {
                    self.locks.remove(&(by, vote.instance, vote.regency));
                }
            }
            Record::Stop { .. }
            | Record::Regency { .. }
            | Record::Batch(_)
            | Record::Write(_)
            | Record::Decided { .. }
            | Record::Certificate(_)
            | Record::Checkpoint(_)
            | Record::Bounds(_) => {}
        }
    }

    /// A correct replica that has decided all up to `decided` sends this, in whichever of its lives.
    pub(crate) fn on_send(
        &mut self,
        by: ReplicaId,
        decided: InstanceId,
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
            Message::StopData(stated) if stated.sender == by => return self.on_statement(by, &stated.data),
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
            | Message::Echo(_)
            | Message::Lack(_) => return Ok(()),
        };
        let place = (by, vote.view, vote.instance, vote.regency, phase);
        let first = match self.sent.entry(place) {
            Entry::Occupied(first) => *first.get(),
            Entry::Vacant(none) => {
                none.insert(vote.digest);
                return self.check_epoch(by, decided, &vote, phase);
            }
        };
        if first != vote.digest {
            let detail = format!("replica {by} sends {phase:?} {vote:?} after {first}");
            return Err(Violation::new("one-vote", detail));
        }
        Ok(())
    }

    /// A vote that leaves for the first time must not be of an epoch that its sender has ended, but for one that
    /// it had stated, or that is for what is decided [STOP-3].
    fn check_epoch(
        &self,
        by: ReplicaId,
        decided: InstanceId,
        vote: &Vote,
        phase: Phase,
    ) -> Result<(), Violation> {
        let Some(data) = self.stated.get(&by).filter(|data| vote.regency < data.regency) else {
            return Ok(());
        };
        let is_stated = data.claim(vote.instance).is_some_and(|claim| {
            let is_locked = matches!(claim.lock, Lock::At { epoch, .. } if epoch >= vote.regency);
            is_locked || claim.write_set.iter().any(|(_, digest)| *digest == vote.digest)
        });
        // What is settled may be voted for in any epoch: nobody selects there any more.
        let settled = decided.max(data.base_instance());
        if phase == Phase::Propose || is_stated || vote.instance <= settled {
            return Ok(());
        }
        let detail = format!("replica {by} sends {phase:?} {vote:?} after its STOPDATA for {}", data.regency);
        Err(Violation::new("one-vote", detail))
    }

    /// A correct replica states its votes: none that it has sent may be left out [STOPDATA-1].
    fn on_statement(&mut self, by: ReplicaId, data: &Arc<StopData>) -> Result<(), Violation> {
        let base = data.base.as_ref().map_or(InstanceId(0), |base| base.instance);
        let first = (by, data.view, base.next(), Regency(0), Phase::Propose);
        let own = self.sent.range(first..).take_while(|((sender, ..), _)| *sender == by);
        for ((_, _, instance, epoch, phase), digest) in own {
            if *epoch >= data.regency {
                continue;
            }
            let claim = data.claim(*instance);
            let lock = claim.map_or(Lock::None, |claim| claim.lock);
            let is_told = match phase {
                Phase::Propose => true,
                Phase::Write => {
                    let write_set = claim.map_or(&[][..], |claim| &claim.write_set);
                    write_set.iter().any(|(at, written)| at >= epoch && written == digest)
                        || matches!(lock, Lock::At { epoch: locked, .. } if locked > *epoch)
                        || write_set.len() >= WRITE_SET_MAX
                }
                Phase::Accept => {
                    !self.locks.contains(&(by, *instance, *epoch))
                        || matches!(lock, Lock::At { epoch: locked, .. } if locked > *epoch)
                        || lock == Lock::At { epoch: *epoch, digest: *digest }
                }
            };
            if !is_told {
                let detail = format!(
                    "replica {by} sent {phase:?} for {digest} at {instance} in {epoch}, and its STOPDATA for {} \
                     says {claim:?}",
                    data.regency
                );
                return Err(Violation::new("one-vote", detail));
            }
        }
        let is_newer = self.stated.get(&by).is_none_or(|before| before.regency < data.regency);
        if is_newer {
            self.stated.insert(by, Arc::clone(data));
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
        assert!(votes.on_send(ReplicaId(0), InstanceId(0), &write(1, 1)).is_ok());
        assert!(votes.on_send(ReplicaId(0), InstanceId(0), &write(1, 1)).is_ok());
        assert!(votes.on_send(ReplicaId(1), InstanceId(0), &write(1, 2)).is_ok());
        assert!(votes.on_send(ReplicaId(0), InstanceId(0), &write(2, 2)).is_ok());
        assert!(votes.on_send(ReplicaId(0), InstanceId(0), &write(1, 2)).is_err());
    }
}
