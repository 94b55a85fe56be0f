//! Where a replica that misses something stands on its way back [ST-1, ST-3].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::donors::Donors;
use super::log_fetch::LogFetch;
use super::snapshot_fetch::SnapshotFetch;
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::manifest::ManifestHead;
use crate::message::CheckpointCertificate;
use crate::mutants::{Mutant, is_active};
use crate::record::RecordedBatch;
use crate::time::Timestamp;

/// A snapshot or log that brings nothing for so long is given up for another one: whoever is left may be silent. Each time
/// in a row that a phase was given up doubles it, so often at most: lines may be slow.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
const LOG_PATIENCE: Duration = Duration::from_secs(3);
/// As long, if no more donors are left than may lie.
const FEW_PATIENCE: Duration = Duration::from_secs(1);
/// If no more donors are left than may lie, it is looked after so long, which doubles as well, whether all comes in time. A
/// log may take so long: what has come of it is delivered and stays. A snapshot may, too, and that doubles.
const PACE_LOOK: Duration = Duration::from_secs(5);
const WHOLE_MAX: Duration = Duration::from_secs(30);
/// No longer than donors keep open what they have removed: others have a newer one by then.
const WHOLE_LIMIT: Duration = Duration::from_secs(480);
/// With few donors that is doubled more often; what takes longer still goes on after the next beginning.
const FEW_DOUBLINGS_MAX: u32 = 5;
const DOUBLINGS_MAX: u32 = 2;
/// Given up snapshots that are remembered.
const SPURNED_MAX: usize = 8;

/// What a replica fetches from others.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    pub(crate) phase: Phase,
    pub(crate) donors: Donors,
    /// After this replica's own state turned out to be another one than the certified one: it takes over that of a
    /// stable checkpoint from here on, whatever it has executed [CKPT-2].
    pub(crate) diverged: Option<InstanceId>,
    /// This replica's own snapshot of the stable checkpoint, a part of which is damaged on disk.
    pub(crate) damaged: Option<InstanceId>,
    /// Whether the phase is about that: the state in memory stays as it is.
    pub(crate) is_repair: bool,
    /// Until then nobody's log is asked for: it was, and nobody had it.
    pub(crate) no_log_until: Timestamp,
    /// Until then nobody is asked for a snapshot, likewise.
    pub(crate) no_snapshot_until: Timestamp,
    /// When anything new last came in this phase, or it began.
    pub(crate) progress: Timestamp,
    /// When the phase began to fetch, and with how much of it.
    begun: (Timestamp, u64),
    /// How many phases in a row were given up because nothing came, or too slowly.
    given_up: u32,
    /// When the executor was full, if it was when it was last looked.
    full_at: Option<Timestamp>,
    /// How often in a row offers were asked for without a state in the end.
    pub(crate) offer_rounds: u32,
    /// Until then a snapshot is preferred to a log that few donors gave too slowly.
    pub(crate) slow_log_until: Timestamp,
    /// Whether no more donors were left than may lie when it was last looked.
    had_few: bool,
    /// Donors that do not have the snapshot that is fetched.
    pub(crate) lacking: BTreeSet<ReplicaId>,
    /// Snapshots that were given up lately, because nobody had them any more.
    spurned: VecDeque<InstanceId>,
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
    /// Whether any were.
    pub(crate) is_asked: bool,
    /// When the best one is taken, or all are asked again.
    pub(crate) due: Timestamp,
    offers: BTreeMap<ReplicaId, (CheckpointCertificate, ManifestHead)>,
}

impl Offers {
    pub(crate) fn new(above: InstanceId, due: Timestamp) -> Self {
        Self { above, asked: BTreeSet::new(), is_asked: false, due, offers: BTreeMap::new() }
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

    /// One that more than `faults` donors offer, and one that is none of `spurned`, is better than a higher one.
    fn best(
        &self,
        spurned: &VecDeque<InstanceId>,
        faults: usize,
    ) -> Option<(CheckpointCertificate, ManifestHead)> {
        let offered = |instance: InstanceId| {
            self.offers.values().filter(|(other, _)| other.instance == instance).count()
        };
        let is_enough =
            |instance: InstanceId| offered(instance) > 1 || !is_active(Mutant::EqualPositionsNeeded);
        self.offers
            .values()
            .filter(|(certificate, _)| is_enough(certificate.instance))
            .max_by_key(|(certificate, _)| {
                let instance = certificate.instance;
                (offered(instance) > faults, !spurned.contains(&instance), instance)
            })
            .cloned()
    }
}

impl Requester {
    /// The phase begins here, with what it has of its target already.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.progress = now;
        self.begun = (now, self.done().map_or(0, |(done, _)| done));
    }

    /// Whether the phase began less than `period` ago.
    pub(crate) fn has_just_begun(&self, now: Timestamp, period: Duration) -> bool {
        now.since(self.begun.0) < period
    }

    /// Whether the few donors that are left bring it so slowly that others had better be asked: they may mean it so. What
    /// is slow in any case is given more time from time to time.
    pub(crate) fn is_too_slow(&self, now: Timestamp) -> bool {
        let (since, begun) = self.begun;
        let took = now.since(since);
        let Some((done, total)) = self.done() else { return false };
        if took < doubled(PACE_LOOK, self.doublings(true)) || is_active(Mutant::SlowDonorsEndured) {
            return false;
        }
        let (come, missing) = (done.saturating_sub(begun).max(1), total.saturating_sub(begun));
        // At the pace so far; what has passed counts, or each answer could take a little longer than the one before.
        let whole = took.as_millis().saturating_mul(u128::from(missing)).checked_div(u128::from(come));
        let limit = match &self.phase {
            Phase::Snapshot(_) => doubled(WHOLE_MAX, self.doublings(true)).min(WHOLE_LIMIT),
            Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) => WHOLE_MAX,
        };
        whole.is_some_and(|whole| whole > limit.as_millis())
    }

    /// Notes whether few donors are left: from then on their pace is judged.
    pub(crate) fn note_few(&mut self, now: Timestamp, is_few: bool) {
        if is_few && !self.had_few {
            self.begin(now);
        }
        self.had_few = is_few;
    }

    /// Notes whether the executor is full, and nothing more can be taken: that time counts for nobody.
    pub(crate) fn note_full(&mut self, now: Timestamp, is_full: bool) {
        if let Some(at) = self.full_at.filter(|_| is_full) {
            let pause = now.since(at);
            self.progress = self.progress.plus(pause);
            self.begun.0 = self.begun.0.plus(pause);
        }
        self.full_at = is_full.then_some(now);
    }

    /// It brought nothing, or too little.
    pub(crate) fn note_given_up(&mut self) {
        self.given_up = self.given_up.saturating_add(1);
    }

    /// What was missing is here.
    pub(crate) fn note_success(&mut self) {
        (self.given_up, self.offer_rounds) = (0, 0);
    }

    /// How often patience is doubled. Of the log more comes after another beginning.
    fn doublings(&self, few: bool) -> u32 {
        let most = match &self.phase {
            Phase::Snapshot(_) if few => FEW_DOUBLINGS_MAX,
            Phase::Snapshot(_) | Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) => {
                DOUBLINGS_MAX
            }
        };
        self.given_up.min(most)
    }

    /// What there is of what donors send, and all of it: pages, bytes or instances.
    fn done(&self) -> Option<(u64, u64)> {
        match &self.phase {
            Phase::Log(fetch) => Some(fetch.progress()),
            Phase::Snapshot(fetch) if fetch.waits_for_donors() => Some(fetch.received()),
            Phase::Idle | Phase::Digests(_) | Phase::Offers(_) | Phase::Snapshot(_) => None,
        }
    }

    /// Whether the service's state is not this replica's own just now: nothing may be executed.
    pub(crate) fn holds_execution(&self) -> bool {
        let is_installing = match &self.phase {
            Phase::Snapshot(fetch) => !self.is_repair && (fetch.is_installing() || fetch.is_complete()),
            Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) => false,
        };
        is_installing || self.diverged.is_some()
    }

    /// The best snapshot that was offered.
    pub(crate) fn best_offer(&self, faults: usize) -> Option<(CheckpointCertificate, ManifestHead)> {
        match &self.phase {
            Phase::Offers(offers) => offers.best(&self.spurned, faults),
            Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Snapshot(_) => None,
        }
    }

    /// Nobody seems to have this snapshot any more: another one is preferred for a while.
    pub(crate) fn spurn(&mut self, instance: InstanceId) {
        if self.spurned.len() >= SPURNED_MAX {
            self.spurned.pop_front();
        }
        self.spurned.push_back(instance);
    }

    /// How long a phase goes on without anything good; `few` says that as many donors are left as may all lie.
    pub(crate) fn patience(&self, few: bool) -> Option<Duration> {
        let patience = match &self.phase {
            Phase::Idle | Phase::Offers(_) => return None,
            Phase::Digests(_) | Phase::Log(_) => LOG_PATIENCE,
            Phase::Snapshot(fetch) if fetch.waits_for_donors() => {
                if few {
                    FEW_PATIENCE
                } else {
                    SNAPSHOT_PATIENCE
                }
            }
            Phase::Snapshot(_) => return None,
        };
        Some(doubled(patience, self.doublings(few)))
    }

    /// The certified batch of `instance`, if it has come.
    pub(crate) fn take_batch(&mut self, instance: InstanceId) -> Option<(Digest, RecordedBatch)> {
        match &mut self.phase {
            Phase::Log(fetch) => fetch.take(instance),
            Phase::Idle | Phase::Digests(_) | Phase::Offers(_) | Phase::Snapshot(_) => None,
        }
    }

    /// Whether what is fetched is to lead this replica on.
    pub(crate) fn leads_on(&self) -> bool {
        self.is_active() && !self.is_repair
    }

    /// Whether anything is fetched.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }
}

/// `base`, doubled so often.
fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}
