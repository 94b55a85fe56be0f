//! A batch that an instance may decide, on its way to having all its bodies.

use std::sync::Arc;

use crate::ids::Digest;
use crate::message::{Batch, Body, Request, RequestPlace};

/// One request of a candidate.
#[derive(Clone, Debug)]
enum Slot {
    /// Its body is not here.
    Missing,
    /// Its body is here, but nothing proves that its client sent it [REQ-3].
    Unproven(Arc<Request>),
    /// It is here and authentic, with its proof for whoever lacks it: it may leave the pool before the batch is
    /// decided.
    Authentic(Body),
}

/// Where a body comes from, and so what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The own pool: authentic and checked.
    Pool,
    /// A peer, under its client's signature.
    Proven,
    /// A peer, of a request that can have no effect any more: whoever made it up gained nothing [REQ-3].
    Void,
    /// A peer, without any proof.
    Unproven,
}

/// A batch with those of its bodies that are here.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    batch: Arc<Batch>,
    slots: Vec<Slot>,
    missing: usize,
    unproven: usize,
    /// Whether a body came from a peer: then the batch's bodies are to be judged.
    has_foreign: bool,
    /// Bytes of the bodies that are here.
    bytes: usize,
}

impl Candidate {
    /// A batch without any body yet.
    pub(crate) fn new(batch: Arc<Batch>) -> Self {
        let count = batch.requests.len();
        Self {
            batch,
            slots: vec![Slot::Missing; count],
            missing: count,
            unproven: 0,
            has_foreign: false,
            bytes: 0,
        }
    }

    /// The batch.
    pub(crate) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Puts a body at `position` of the batch, where the caller found its digest.
    pub(crate) fn put(&mut self, position: usize, body: &Body, source: Source) {
        let Some(slot) = self.slots.get_mut(position) else { return };
        let is_authentic = source != Source::Unproven;
        match slot {
            Slot::Missing => {
                self.missing = self.missing.saturating_sub(1);
                self.bytes = self.bytes.saturating_add(body.request.encoded().len());
            }
            Slot::Unproven(_) if is_authentic => self.unproven = self.unproven.saturating_sub(1),
            Slot::Unproven(_) | Slot::Authentic(_) => return,
        }
        self.has_foreign |= source != Source::Pool;
        *slot = if is_authentic {
            Slot::Authentic(body.clone())
        } else {
            self.unproven = self.unproven.saturating_add(1);
            Slot::Unproven(Arc::clone(&body.request))
        };
    }

    /// Whether bodies came from peers, who may have chosen what no pool would take.
    pub(crate) fn has_foreign(&self) -> bool {
        self.has_foreign
    }

    /// Whether all bodies are here.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Whether all bodies are here and each is authentic.
    pub(crate) fn is_authentic(&self) -> bool {
        self.missing == 0 && self.unproven == 0
    }

    /// The digests of the bodies that are not here.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Digest> + '_ {
        let pairs = self.batch.requests.iter().zip(&self.slots);
        pairs.filter(|(_, slot)| matches!(slot, Slot::Missing)).map(|(digest, _)| *digest)
    }

    /// The digests, with their positions, of what is not authentic yet.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Digest, usize)> + '_ {
        let pairs = self.batch.requests.iter().zip(&self.slots).enumerate();
        pairs
            .filter(|(_, (_, slot))| !matches!(slot, Slot::Authentic(_)))
            .map(|(position, (digest, _))| (*digest, position))
    }

    /// The bodies that are here, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Missing => None,
            Slot::Unproven(request) => Some(request),
            Slot::Authentic(body) => Some(&body.request),
        })
    }

    /// The authentic bodies that are here, with their proofs.
    pub(crate) fn authentic(&self) -> impl Iterator<Item = &Body> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Missing | Slot::Unproven(_) => None,
            Slot::Authentic(body) => Some(body),
        })
    }

    /// The body at `position`, if it is here without proof.
    pub(crate) fn unproven(&self, position: usize) -> Option<Arc<Request>> {
        match self.slots.get(position)? {
            Slot::Unproven(request) => Some(Arc::clone(request)),
            Slot::Missing | Slot::Authentic(_) => None,
        }
    }

    /// Bytes of the bodies that are here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether two of the bodies have one place [REQ-4].
    pub(crate) fn has_place_twice(&self) -> bool {
        let mut places: Vec<RequestPlace> = self.requests().map(|request| request.place()).collect();
        places.sort_unstable();
        places.windows(2).any(|pair| matches!(pair, [first, second] if first == second))
    }
}
