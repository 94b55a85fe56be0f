//! What the replicas answered to one request: one answer of each counts [CLI-1].

use bytes::Bytes;

use crate::digest::{self, Domain};
use crate::ids::{Digest, ReplicaId};
use crate::message::{Outcome, Refusal};
use crate::mutants::{Mutant, is_active};

/// The answers to one request so far.
#[derive(Debug, Default)]
pub(super) struct Replies {
    votes: Vec<Vote>,
}

/// What the answers amount to after another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// Enough replicas say that they have this result.
    Result(Bytes),
    /// Enough replicas say so, but none of them has sent it whole.
    DigestOnly,
    /// Enough replicas refuse for this reason; of `Busy`, the longest pause that one of them asks for.
    Refused(Refusal),
}

#[derive(Debug)]
struct Vote {
    from: ReplicaId,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    /// The digest is worked out when something must be compared with one.
    Result {
        whole: Option<Bytes>,
        digest: Option<Digest>,
    },
    Refused(Refusal),
}

impl Replies {
    /// How many replicas sent a result, or its digest.
    pub(super) fn results(&self) -> usize {
        self.votes.iter().filter(|vote| matches!(vote.answer, Answer::Result { .. })).count()
    }

    /// How many replicas refused.
    pub(super) fn refusals(&self) -> usize {
        self.votes.iter().filter(|vote| matches!(vote.answer, Answer::Refused(_))).count()
    }

    /// Forgets the refusals: they were about an earlier transmission.
    pub(super) fn forget_refusals(&mut self) {
        self.votes.retain(|vote| matches!(vote.answer, Answer::Result { .. }));
    }

    /// Counts the answer of `from`, if it counts; `needed` equal ones decide.
    pub(super) fn add(&mut self, from: ReplicaId, outcome: Outcome, needed: usize) -> Verdict {
        let mut new = Answer::from(outcome);
        let earlier = self.votes.iter().position(|vote| vote.from == from);
        match earlier.filter(|_| !is_active(Mutant::RepliesPerMessage)) {
            None => self.votes.push(Vote { from, answer: new.clone() }),
            Some(position) => {
                let Some(vote) = self.votes.get_mut(position) else { return Verdict::Open };
                if !vote.answer.may_become(&mut new) {
                    return Verdict::Open;
                }
                vote.answer = new.clone();
            }
        }
        self.judge(new, needed)
    }

    fn judge(&mut self, mut new: Answer, needed: usize) -> Verdict {
        let mut equal: usize = 0;
        let mut result = None;
        let mut pause = None;
        for vote in &mut self.votes {
            if !vote.answer.agrees_with(&mut new) {
                continue;
            }
            equal = equal.saturating_add(1);
            match &vote.answer {
                Answer::Result { whole, .. } => result = result.or_else(|| whole.clone()),
                Answer::Refused(refusal) => pause = pause.max(Some(*refusal)),
            }
        }
        if equal < needed {
            return Verdict::Open;
        }
        match (new, result, pause) {
            (Answer::Result { .. }, Some(result), _) => Verdict::Result(result),
            (Answer::Result { .. }, None, _) => Verdict::DigestOnly,
            (Answer::Refused(refusal), _, pause) => Verdict::Refused(pause.unwrap_or(refusal)),
        }
    }
}

impl Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Result(whole) => Self::Result { whole: Some(whole), digest: None },
            Outcome::ResultDigest(digest) => Self::Result { whole: None, digest: Some(digest) },
            Outcome::Refused(refusal) => Self::Refused(refusal),
        }
    }

    /// Whether a replica that said this may say `later` and be counted: the whole of what it named, or something
    /// else than a refusal that was true for a while.
    fn may_become(&mut self, later: &mut Self) -> bool {
        match (&mut *self, &mut *later) {
            (Self::Refused(_), Self::Refused(_) | Self::Result { .. }) => true,
            (Self::Result { whole: None, .. }, Self::Result { whole: Some(_), .. }) => {
                self.agrees_with(later)
            }
            (Self::Result { .. }, Self::Result { .. } | Self::Refused(_)) => false,
        }
    }

    fn agrees_with(&mut self, other: &mut Self) -> bool {
        match (&mut *self, &mut *other) {
            (Self::Result { whole: Some(mine), .. }, Self::Result { whole: Some(theirs), .. }) => {
                mine == theirs
            }
            (
                Self::Result { whole: my_whole, digest: my_digest },
                Self::Result { whole: their_whole, digest: their_digest },
            ) => digest_of(my_whole.as_ref(), my_digest) == digest_of(their_whole.as_ref(), their_digest),
            (Self::Refused(Refusal::Busy { .. }), Self::Refused(Refusal::Busy { .. })) => true,
            (Self::Refused(mine), Self::Refused(theirs)) => mine == theirs,
            (Self::Result { .. }, Self::Refused(_)) | (Self::Refused(_), Self::Result { .. }) => false,
        }
    }
}

/// The digest of an answer, worked out once.
fn digest_of(whole: Option<&Bytes>, known: &mut Option<Digest>) -> Option<Digest> {
    if let (None, Some(whole)) = (*known, whole) {
        *known = Some(digest::digest(Domain::Result, whole));
    }
    *known
}
