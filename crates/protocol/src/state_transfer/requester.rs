//! Where a replica that misses something stands on its way back [ST-1, ST-3].

use std::collections::{BTreeMap, BTreeSet};

use super::donors::Donors;
use super::log_fetch::LogFetch;
use super::snapshot_fetch::SnapshotFetch;
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::manifest::ManifestHead;
use crate::message::CheckpointCertificate;
use crate::mutants::{Mutant, is_active};
use crate::record::RecordedBatch;
use crate::time::Timestamp;

/// What a replica fetches from others.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    pub(crate) phase: Phase,
    pub(crate) donors: Donors,
    /// After this replica's own state turned out to be another one than the certified one: it takes over that of a
    /// stable checkpoint from here on, whatever it has executed [CKPT-2].
    pub(crate) diverged: Option<InstanceId>,
    /// Until then nobody's log is asked for: it was, and nobody had it.
    pub(crate) no_log_until: Timestamp,
    /// Until then nobody is asked for a snapshot, likewise.
    pub(crate) no_snapshot_until: Timestamp,
    /// The prefix, and since when it has not grown although a certificate lies above it.
    pub(crate) stalled: Option<(InstanceId, Timestamp)>,
}

/// A step of a transfer.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// Nothing is missing, or the links alone heal it.
    #[default]
    Idle,
    /// Some donor is to name the batches up to a certified place.
    Digests(Gap),
    /// They are fetched.
    Log(LogFetch),
    /// Donors are to say which snapshots they have.
    Offers(Offers),
    /// One of them is fetched.
    Snapshot(Box<SnapshotFetch>),
}

/// A stretch of the order that is missing here, with the chain at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The first missing instance.
    pub(crate) from: InstanceId,
    /// The chain before it.
    pub(crate) base: Digest,
    /// The last instance that a certificate covers.
    pub(crate) last: InstanceId,
    /// The certified chain there.
    pub(crate) chain: Digest,
}

/// Which snapshots donors have offered.
#[derive(Debug)]
pub(crate) struct Offers {
    /// They must be of a later instance than this one.
    pub(crate) above: InstanceId,
    /// The donors that were asked, and have not said that they have none.
    pub(crate) asked: BTreeSet<ReplicaId>,
    /// When the best one is taken, or all are asked again.
    pub(crate) due: Timestamp,
    offers: BTreeMap<ReplicaId, (CheckpointCertificate, ManifestHead)>,
}

impl Offers {
    pub(crate) fn new(above: InstanceId, due: Timestamp) -> Self {
        Self { above, asked: BTreeSet::new(), due, offers: BTreeMap::new() }
    }

    /// Takes an offer that was checked.
    pub(crate) fn put(&mut self, from: ReplicaId, certificate: CheckpointCertificate, head: ManifestHead) {
        self.offers.insert(from, (certificate, head));
    }

    /// Whether everybody who was asked has answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.asked.iter().all(|id| self.offers.contains_key(id))
    }

    /// Whether anybody offers anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// The highest one.
    pub(crate) fn best(&self) -> Option<(CheckpointCertificate, ManifestHead)> {
        let is_enough = |instance: InstanceId| {
            let same = self.offers.values().filter(|(other, _)| other.instance == instance).count();
            same > 1 || !is_active(Mutant::EqualPositionsNeeded)
        };
        self.offers
            .values()
            .filter(|(certificate, _)| is_enough(certificate.instance))
            .max_by_key(|(certificate, _)| certificate.instance)
            .cloned()
    }
}

impl Requester {
    /// Whether the service's state is not this replica's own just now: nothing may be executed.
    pub(crate) fn holds_execution(&self) -> bool {
        let is_installing = match &self.phase {
            Phase::Snapshot(fetch) => fetch.is_installing() || fetch.is_complete(),
            Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) => false,
        };
        is_installing || self.diverged.is_some()
    }

    /// The certified batch of `instance`, if it has come.
    pub(crate) fn take_batch(&mut self, instance: InstanceId) -> Option<(Digest, RecordedBatch)> {
        match &mut self.phase {
            Phase::Log(fetch) => fetch.take(instance),
            Phase::Idle | Phase::Digests(_) | Phase::Offers(_) | Phase::Snapshot(_) => None,
        }
    }

    /// Whether anything is fetched.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }
}
