//! What the adversary has seen and may yet use: batches, votes, statements, certificates; all bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regency_protocol::ids::{Digest, InstanceId, ReplicaId};
use regency_protocol::message::{Batch, ChainCertificate, Message, SignedStopData, Vote};

/// Statements, votes and batches that it remembers, at most.
const REMEMBERED_MAX: usize = 96;
/// Digests of one instance that it remembers, at most.
const DIGESTS_MAX: usize = 8;

/// The adversary's memory.
#[derive(Default)]
pub(super) struct Memory {
    digests: BTreeMap<InstanceId, BTreeSet<Digest>>,
    votes: VecDeque<(ReplicaId, Message)>,
    statements: VecDeque<SignedStopData>,
    certificate: Option<ChainCertificate>,
}

impl Memory {
    /// Something reached one of its own, or an accomplice says it.
    pub(super) fn note(&mut self, message: &Message) {
        match message {
            Message::Propose(propose) => self.note_batch(&propose.batch),
            Message::Write(vote) | Message::Accept(vote) => self.note_digest(vote.instance, vote.digest),
            Message::StopData(stated) => push(&mut self.statements, stated.clone()),
            Message::ChainCertificate(certificate) => {
                if self.certificate.as_ref().is_none_or(|known| known.instance < certificate.instance) {
                    self.certificate = Some(certificate.clone());
                }
            }
            Message::BatchAnswer(answer) => self.note_batch(&answer.batch),
            Message::Decided(_)
            | Message::FetchBatch(_)
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
            | Message::Stop(_)
            | Message::Sync(_)
            | Message::Forward(_)
            | Message::Announce(_)
            | Message::Lack(_)
            | Message::Echo(_) => {}
        }
    }

    /// An owned replica votes.
    pub(super) fn note_vote(&mut self, by: ReplicaId, message: &Message) {
        if self.votes.back().is_none_or(|(last, known)| *last != by || known != message) {
            push(&mut self.votes, (by, message.clone()));
        }
    }

    /// Somebody proposes a batch, or will.
    pub(super) fn note_batch(&mut self, batch: &Batch) {
        self.note_digest(batch.instance, batch.digest());
    }

    fn note_digest(&mut self, instance: InstanceId, digest: Digest) {
        let digests = self.digests.entry(instance).or_default();
        if digests.len() < DIGESTS_MAX {
            digests.insert(digest);
        }
        if self.digests.len() > REMEMBERED_MAX {
            self.digests.pop_first();
        }
    }

    /// The instances that anybody has named.
    pub(super) fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.digests.keys().copied()
    }

    /// The digests that anybody has named for an instance.
    pub(super) fn digests(&self, instance: InstanceId) -> impl Iterator<Item = Digest> + '_ {
        self.digests.get(&instance).into_iter().flatten().copied()
    }

    /// Another digest than that of `vote`.
    pub(super) fn rival(&self, vote: &Vote) -> Option<Digest> {
        self.digests(vote.instance).find(|digest| *digest != vote.digest)
    }

    /// Statements in the order in which they came.
    pub(super) fn statements(&self) -> impl Iterator<Item = &SignedStopData> {
        self.statements.iter()
    }

    /// The highest certificate.
    pub(super) fn certificate(&self) -> Option<&ChainCertificate> {
        self.certificate.as_ref()
    }

    /// Votes of owned replicas, the oldest first.
    pub(super) fn votes(&self) -> &VecDeque<(ReplicaId, Message)> {
        &self.votes
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == REMEMBERED_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}
