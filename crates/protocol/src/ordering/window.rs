//! The instances above the decided prefix, what they wait for, and what peers say is decided.
//!
//! Bounded: nothing is kept for an instance above `prefix + 3 * window`, nor a DECIDED statement above
//! `prefix + DECIDED_PER_STATUS_MAX`, whatever numbers come in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{Digest, InstanceId, Regency, ReplicaId};
use crate::limits::{DECIDED_PER_STATUS_MAX, Settings};
use crate::message::{Body, Request};
use crate::ordering::candidate::{Candidate, Source};
use crate::ordering::instance::{Instance, Proposal};
use crate::ordering::votes::{Counted, VoteSet};
use crate::time::Timestamp;

/// The open instances.
#[derive(Debug, Default)]
pub(crate) struct Window {
    instances: BTreeMap<InstanceId, Instance>,
    /// Requests that candidates lack, or hold without proof: where they belong.
    waiting: BTreeMap<(Digest, InstanceId, Digest), usize>,
    /// DECIDED statements above the prefix.
    claims: BTreeMap<InstanceId, VoteSet>,
    /// Decided digests above the prefix that a certificate's chain proves.
    certified: BTreeMap<InstanceId, Digest>,
    /// Instances whose proposal is kept for later.
    early: BTreeSet<InstanceId>,
    /// When something missing is to be asked for.
    fetches: BTreeSet<(Timestamp, InstanceId)>,
}

/// A candidate that a body was put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) instance: InstanceId,
    pub(crate) digest: Digest,
}

impl Window {
    /// The highest instance that anything is kept for, votes and early proposals included [PROPOSE-3].
    pub(crate) fn horizon(prefix: InstanceId, settings: &Settings) -> InstanceId {
        prefix.plus(settings.window.saturating_mul(3))
    }

    /// The instance; opened now if it was not there. The caller has checked the horizon.
    pub(crate) fn open(&mut self, id: InstanceId, now: Timestamp) -> &mut Instance {
        self.instances.entry(id).or_insert_with(|| Instance::new(now))
    }

    /// The instance, if anything of it is here.
    pub(crate) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    /// The instance, if anything of it is here.
    pub(crate) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        self.instances.get_mut(&id)
    }

    /// The open instances, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.instances.iter().map(|(id, instance)| (*id, instance))
    }

    /// Whether an instance is open and not empty.
    pub(crate) fn has_work(&self) -> bool {
        self.instances.values().any(|instance| !instance.is_empty()) || !self.claims.is_empty()
    }

    /// Makes `candidate` one of the instance's, and remembers what it lacks.
    pub(crate) fn add_candidate(
        &mut self,
        id: InstanceId,
        digest: Digest,
        candidate: Candidate,
        now: Timestamp,
    ) {
        for (request, position) in candidate.open() {
            self.waiting.insert((request, id, digest), position);
        }
        self.open(id, now).candidates.insert(digest, candidate);
    }

    /// Puts a request into every candidate that lacks it, or lacks proof of it.
    pub(crate) fn fill(&mut self, body: &Body, source: Source) -> Vec<Filled> {
        let key = body.request.digest();
        let range = (key, InstanceId(0), Digest([0; 32]))..=(key, InstanceId(u64::MAX), Digest([255; 32]));
        let places: Vec<_> = self.waiting.range(range).map(|(key, position)| (*key, *position)).collect();
        let mut filled = Vec::new();
        for ((request_digest, instance, digest), position) in places {
            if source != Source::Unproven {
                self.waiting.remove(&(request_digest, instance, digest));
            }
            let open = self.instances.get_mut(&instance);
            if let Some(candidate) = open.and_then(|open| open.candidates.get_mut(&digest)) {
                candidate.put(position, body, source);
                filled.push(Filled { instance, digest });
            }
        }
        filled
    }

    /// Whether some candidate lacks the body of `request`, or proof of it.
    pub(crate) fn wants(&self, request: &Digest) -> bool {
        let first = (*request, InstanceId(0), Digest([0; 32]));
        self.waiting.range(first..).next().is_some_and(|((wanted, _, _), _)| wanted == request)
    }

    /// Keeps a proposal for later, or forgets that one is kept.
    pub(crate) fn mark_early(&mut self, id: InstanceId, is_early: bool) {
        if is_early {
            self.early.insert(id);
        } else {
            self.early.remove(&id);
        }
    }

    /// The instances up to `limit` whose proposals were kept.
    pub(crate) fn early_up_to(&self, limit: InstanceId) -> Vec<InstanceId> {
        self.early.range(..=limit).copied().collect()
    }

    /// Counts a DECIDED statement above the prefix; `None` if it is out of bounds.
    pub(crate) fn claim(
        &mut self,
        from: ReplicaId,
        id: InstanceId,
        digest: Digest,
        prefix: InstanceId,
    ) -> Option<Counted> {
        if id <= prefix || id > prefix.plus(DECIDED_PER_STATUS_MAX) {
            return None;
        }
        // Statements of decisions know no epochs.
        Some(self.claims.entry(id).or_default().add(from, Regency(0), digest, Regency(0)))
    }

    /// The digest that at least `threshold` peers, or a certificate, say is decided.
    pub(crate) fn claimed(&self, id: InstanceId, threshold: usize) -> Option<Digest> {
        self.certified.get(&id).copied().or_else(|| self.claims.get(&id)?.reached(Regency(0), threshold))
    }

    /// Notes that a certificate covers a peer's statement about `id`, which is within bounds because that is.
    pub(crate) fn certify_claim(&mut self, id: InstanceId, digest: Digest) {
        self.certified.insert(id, digest);
    }

    /// Who says that `digest` is decided.
    pub(crate) fn claimants(&self, id: InstanceId, digest: &Digest) -> Vec<ReplicaId> {
        self.claims.get(&id).map(|claims| claims.voters(digest).collect()).unwrap_or_default()
    }

    /// What `peer` says is decided at `id`.
    pub(crate) fn claim_of(&self, peer: ReplicaId, id: InstanceId) -> Option<Digest> {
        self.claims.get(&id)?.vote_of(peer, Regency(0))
    }

    /// Begins `regency` in every open instance: votes and proposals of others go, and so do candidates that nobody
    /// needs; `is_needed` tells which.
    pub(crate) fn install(&mut self, regency: Regency, is_needed: impl Fn(InstanceId, &Digest) -> bool) {
        self.early.clear();
        self.fetches.clear();
        for (id, instance) in &mut self.instances {
            instance.install(regency);
            if let Proposal::Early(_) = instance.proposal {
                self.early.insert(*id);
            }
            let (accepts, decided) = (&instance.accepts, instance.decided);
            instance.candidates.retain(|digest, candidate| {
                let is_named = decided == Some(*digest) || accepts.voters(digest).next().is_some();
                let is_kept = is_named || is_needed(*id, digest);
                if !is_kept {
                    for (request, _) in candidate.open() {
                        self.waiting.remove(&(request, *id, *digest));
                    }
                }
                is_kept
            });
        }
        self.instances.retain(|_, instance| !instance.is_empty());
    }

    /// The request with this digest, if a candidate holds it without proof.
    pub(crate) fn unproven(&self, request: &Digest) -> Option<Arc<Request>> {
        let range =
            (*request, InstanceId(0), Digest([0; 32]))..=(*request, InstanceId(u64::MAX), Digest([255; 32]));
        self.waiting.range(range).find_map(|((_, id, digest), position)| {
            self.instances.get(id)?.candidates.get(digest)?.unproven(*position)
        })
    }

    /// Schedules a question for what the instance lacks; one that is scheduled stays if it is due earlier, or if
    /// the first question has been asked: the answer is given its time.
    pub(crate) fn schedule_fetch(&mut self, id: InstanceId, due: Timestamp) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if let Some(scheduled) = instance.fetch.due {
            if scheduled <= due || instance.fetch.attempts > 0 {
                return;
            }
            self.fetches.remove(&(scheduled, id));
        }
        instance.fetch.due = Some(due);
        self.fetches.insert((due, id));
    }

    /// The instances whose question is due.
    pub(crate) fn due_fetches(&mut self, now: Timestamp) -> Vec<InstanceId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.fetches.first().copied() {
            if at > now {
                break;
            }
            self.fetches.pop_first();
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.fetch.due = None;
                due.push(id);
            }
        }
        due
    }

    /// When the next question is due.
    pub(crate) fn next_fetch(&self) -> Option<Timestamp> {
        self.fetches.first().map(|(due, _)| *due)
    }

    /// Takes the instance after the prefix if it is decided; with it goes all that was kept for it.
    pub(crate) fn take_decided(&mut self, id: InstanceId) -> Option<(Digest, Instance)> {
        let digest = self.instances.get(&id)?.decided?;
        Some((digest, self.forget(id)?))
    }

    /// Drops all that is kept up to `id`: it is delivered otherwise.
    pub(crate) fn forget_up_to(&mut self, id: InstanceId) {
        while let Some(first) = self.instances.keys().next().copied().filter(|first| *first <= id) {
            self.forget(first);
        }
        self.claims = self.claims.split_off(&id.next());
        self.certified = self.certified.split_off(&id.next());
    }

    fn forget(&mut self, id: InstanceId) -> Option<Instance> {
        let instance = self.instances.remove(&id)?;
        for (candidate_digest, candidate) in &instance.candidates {
            for (request, _) in candidate.open() {
                self.waiting.remove(&(request, id, *candidate_digest));
            }
        }
        if let Some(due) = instance.fetch.due {
            self.fetches.remove(&(due, id));
        }
        self.early.remove(&id);
        self.claims.remove(&id);
        self.certified.remove(&id);
        Some(instance)
    }

    /// How many instances are open.
    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    /// How many requests candidates wait for.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
