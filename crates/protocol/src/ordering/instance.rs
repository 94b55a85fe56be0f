//! One instance: its proposal, the batches it may decide, its votes, and what follows from them.
//!
//! [`Instance::next_step`] is where WRITE-1, WRITE-2, ACCEPT-1 and PROPOSE-3's vouching stand; it changes
//! nothing. The replica's ordering walk performs the step and asks again.

use std::collections::BTreeMap;

use crate::ids::{Digest, InstanceId, Regency, ReplicaId};
use crate::message::Propose;
use crate::mutants::{Mutant, is_active};
use crate::ordering::candidate::Candidate;
use crate::ordering::votes::VoteSet;
use crate::time::Timestamp;
use crate::view::{Mode, View};
use crate::voting_record::VotingRecord;

/// The first PROPOSE of the regency's leader for an instance.
#[derive(Clone, Debug, Default)]
pub(crate) enum Proposal {
    /// None has come.
    #[default]
    None,
    /// It came too early to be judged, and is kept [PROPOSE-3].
    Early(Box<Propose>),
    /// It was accepted: its batch is the candidate of this digest.
    Accepted(Digest),
    /// Its bodies turned out to break a rule: it is never voted for.
    Invalid(Digest),
}

/// When and of whom a missing batch or body is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fetch {
    /// When it is due next; `None` while nothing is missing.
    pub(crate) due: Option<Timestamp>,
    /// How often it was asked for.
    pub(crate) attempts: usize,
}

/// One consensus in progress.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) opened: Timestamp,
    pub(crate) proposal: Proposal,
    /// A proposal of the next regency, kept until that is installed [PROPOSE-3].
    pub(crate) next: Option<Box<Propose>>,
    pub(crate) candidates: BTreeMap<Digest, Candidate>,
    pub(crate) writes: VoteSet,
    pub(crate) accepts: VoteSet,
    pub(crate) decided: Option<Digest>,
    pub(crate) fetch: Fetch,
}

/// What an instance is looked at with.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) view: &'a View,
    pub(crate) regency: Regency,
    pub(crate) record: &'a VotingRecord,
    /// What the regency's SYNC proposes for it [SYNC-3].
    pub(crate) bound: Option<Digest>,
    /// Whether the instance lies where this replica votes.
    pub(crate) may_vote: bool,
    /// The digest that `weak` DECIDED statements or a certificate name.
    pub(crate) known_decided: Option<Digest>,
}

/// What an instance calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send WRITE for this digest.
    Write(Digest),
    /// Lock this digest and send ACCEPT for it.
    Accept(Digest),
    /// The instance is decided.
    Decide(Digest),
    /// The batch of this digest, or bodies of it, are needed: others vouch for it, so that it needs no proof.
    FetchBatch {
        /// Which.
        digest: Digest,
        /// Whether the leader's PROPOSE is not worth waiting for.
        is_urgent: bool,
    },
    /// Bodies of this proposal are needed, or proof that their clients sent them.
    FetchBodies(Digest),
    /// Nothing, until something comes.
    Wait,
}

impl Instance {
    pub(crate) fn new(opened: Timestamp) -> Self {
        Self {
            opened,
            proposal: Proposal::None,
            next: None,
            candidates: BTreeMap::new(),
            writes: VoteSet::default(),
            accepts: VoteSet::default(),
            decided: None,
            fetch: Fetch::default(),
        }
    }

    /// Begins `regency`: the leader's proposals count anew, votes are kept as far as ACCEPT-1 says.
    pub(crate) fn install(&mut self, regency: Regency) {
        let next = self.next.take().filter(|propose| propose.regency == regency);
        self.proposal = next.map_or(Proposal::None, Proposal::Early);
        self.writes.install(regency);
        self.accepts.install(regency);
        self.fetch = Fetch::default();
    }

    /// Whether nothing of it needs to be kept.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.proposal, Proposal::None)
            && self.next.is_none()
            && self.candidates.is_empty()
            && self.writes.is_empty()
            && self.accepts.is_empty()
            && self.decided.is_none()
    }

    /// What the votes and bodies at hand call for.
    pub(crate) fn next_step(&self, situation: &Situation<'_>) -> Step {
        if self.decided.is_some() {
            return Step::Wait;
        }
        let view = situation.view;
        // [ACCEPT-1] A quorum of ACCEPTs or `weak` DECIDED statements decide, with the batch at hand.
        let accepted = self.accepts.reached_in_any(situation.regency, view.quorum());
        if let Some(digest) = accepted.or(situation.known_decided) {
            return if self.is_complete(&digest) || is_active(Mutant::DecideWithoutBody) {
                Step::Decide(digest)
            } else {
                Step::FetchBatch { digest, is_urgent: situation.known_decided.is_some() }
            };
        }
        let vote = if situation.may_vote { self.vote_step(situation) } else { Step::Wait };
        if vote != Step::Wait {
            return vote;
        }
        // [SYNC-4] A bound batch that is not at hand: by its leader before SYNC, by everybody after.
        if let Some(digest) = situation.bound {
            return if self.is_complete(&digest) {
                Step::Wait
            } else {
                Step::FetchBatch { digest, is_urgent: true }
            };
        }
        // An accepted proposal that lacks bodies, or proof of them while that keeps this replica from voting: a
        // body without proof, from whomever, does not keep it from telling all what it lacks [REQ-3].
        let Situation { instance, regency, record, may_vote, .. } = *situation;
        let has_voted = record.written(instance, regency).is_some() || record.has_accepted(instance, regency);
        let is_enough = |digest: &Digest| {
            let is_authentic = self.candidates.get(digest).is_some_and(Candidate::is_authentic);
            self.is_complete(digest) && (is_authentic || has_voted || !may_vote)
        };
        match self.proposal {
            Proposal::Accepted(digest) if !is_enough(&digest) => Step::FetchBodies(digest),
            Proposal::None | Proposal::Early(_) | Proposal::Accepted(_) | Proposal::Invalid(_) => Step::Wait,
        }
    }

    fn vote_step(&self, situation: &Situation<'_>) -> Step {
        let Situation { instance, view, regency, record, .. } = *situation;
        match view.mode() {
            Mode::Bft => {
                let has_written = record.written(instance, regency).is_some();
                if !has_written {
                    let write = self.first_vote(&self.writes, situation);
                    if let Step::Write(_) = write {
                        return write;
                    }
                }
                // [WRITE-2] A quorum of WRITEs locks, whatever this replica wrote itself.
                let locked = if is_active(Mutant::OlderWritesLock) {
                    self.writes.reached_in_any(regency, view.quorum())
                } else {
                    self.writes.reached(regency, view.quorum())
                };
                if !record.has_accepted(instance, regency)
                    && let Some(digest) = locked
                {
                    return Step::Accept(digest);
                }
                if has_written { Step::Wait } else { self.first_vote(&self.writes, situation) }
            }
            // No WRITE phase: an accepted PROPOSE is locked, with its bodies.
            Mode::Cft if record.has_accepted(instance, regency) => Step::Wait,
            Mode::Cft => match self.first_vote(&self.accepts, situation) {
                Step::Write(digest) => Step::Accept(digest),
                other => other,
            },
        }
    }

    /// The first vote of the epoch: for what SYNC binds, all of whose bodies are here [SYNC-3]; for the leader's
    /// proposal, if they are authentic too [WRITE-1]; or for what `weak` votes say that somebody correct has
    /// checked [PROPOSE-3].
    fn first_vote(&self, votes: &VoteSet, situation: &Situation<'_>) -> Step {
        if let Some(digest) = situation.bound
            && self.is_complete(&digest)
        {
            return Step::Write(digest);
        }
        if let Proposal::Accepted(digest) = self.proposal
            && self.candidates.get(&digest).is_some_and(Candidate::is_authentic)
        {
            return Step::Write(digest);
        }
        match votes.reached(situation.regency, situation.view.weak()) {
            Some(digest) if self.is_complete(&digest) => Step::Write(digest),
            Some(digest) => Step::FetchBatch { digest, is_urgent: false },
            None => Step::Wait,
        }
    }

    fn is_complete(&self, digest: &Digest) -> bool {
        self.candidates.get(digest).is_some_and(Candidate::is_complete)
    }

    /// Who can be expected to have the batch of `digest`, the leader first if it proposed it.
    pub(crate) fn holders(&self, digest: &Digest, leader: ReplicaId) -> Vec<ReplicaId> {
        let mut holders = Vec::new();
        if matches!(&self.proposal, Proposal::Accepted(proposed) if proposed == digest) {
            holders.push(leader);
        }
        for voter in self.writes.voters(digest).chain(self.accepts.voters(digest)) {
            if !holders.contains(&voter) {
                holders.push(voter);
            }
        }
        holders
    }
}
