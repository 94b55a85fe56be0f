//! Which regency is installed, how far its beginning has come, and what binds its first instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Digest, InstanceId, Regency, ReplicaId};
use crate::leader_change::stop_data::{SignedStopData, StopData};
use crate::leader_change::stops::Stops;
use crate::leader_change::sync::{Outcome, Sync};
use crate::time::Timestamp;
use crate::view::View;

/// How far the installed regency has come.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// It is the view's first: nothing precedes it.
    First,
    /// Its SYNC is awaited.
    Syncing(Gathering),
    /// Its SYNC has come, and this is what follows from it.
    Live {
        /// The SYNC, for whoever lacks it.
        sync: Arc<Sync>,
        /// What it binds.
        outcome: Outcome,
    },
}

/// A regency that has not begun yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathering {
    /// When this replica gives it up [SYNC-5].
    pub(crate) deadline: Timestamp,
    /// The statements that it is to begin with, if this replica leads it.
    pub(crate) set: BTreeMap<ReplicaId, SignedStopData>,
    /// What they come to: the bound batches are gathered before SYNC is sent [SYNC-4].
    pub(crate) selected: Option<Outcome>,
    /// The SYNC that is being signed.
    pub(crate) unsigned: Option<Sync>,
}

/// The state of leader change.
#[derive(Debug)]
pub(crate) struct LeaderChange {
    pub(crate) regency: Regency,
    pub(crate) phase: Phase,
    pub(crate) stops: Stops,
    /// This replica's statement for the installed regency, while it is being signed.
    pub(crate) unsigned: Option<Arc<StopData>>,
    /// And once it is.
    pub(crate) stated: Option<SignedStopData>,
    /// The latest statement of each member for a regency that this replica leads, now or next.
    pub(crate) received: BTreeMap<ReplicaId, SignedStopData>,
    /// When the leader's channel was lost; `None` while there is one.
    pub(crate) leader_lost: Option<Timestamp>,
}

impl LeaderChange {
    pub(crate) fn new() -> Self {
        Self {
            regency: Regency(0),
            phase: Phase::First,
            stops: Stops::default(),
            unsigned: None,
            stated: None,
            received: BTreeMap::new(),
            leader_lost: None,
        }
    }

    /// Ends all regencies below `regency`, and with them what was stated for their beginning.
    pub(crate) fn install(&mut self, regency: Regency) {
        self.regency = regency;
        self.stated = None;
        self.received.retain(|_, stated| stated.data.regency >= regency);
    }

    /// Keeps a statement, at the cost of an earlier one of its sender; returns whether it may be of use.
    pub(crate) fn keep(&mut self, stated: SignedStopData, view: &View) -> bool {
        let regency = stated.data.regency;
        let is_over = regency < self.regency || (regency == self.regency && self.is_live());
        if is_over || regency > self.horizon(view) {
            return false;
        }
        let kept = self.received.entry(stated.sender).or_insert_with(|| stated.clone());
        if kept.data.regency < regency {
            *kept = stated;
        }
        true
    }

    /// The last regency for which statements are kept: every member's next term after what somebody correct wants. A
    /// statement from beyond it has come before the STOPs that it rests on, and comes again until its regency has
    /// begun [LINK-1].
    fn horizon(&self, view: &View) -> Regency {
        let wanted = self.stops.reached(view.certifying()).max(self.regency);
        wanted.plus(u64::try_from(view.n()).unwrap_or(u64::MAX))
    }

    /// Whether the installed regency has begun here.
    pub(crate) fn is_live(&self) -> bool {
        match self.phase {
            Phase::First | Phase::Live { .. } => true,
            Phase::Syncing(_) => false,
        }
    }

    /// The SYNC of the installed regency.
    pub(crate) fn sync(&self) -> Option<&Arc<Sync>> {
        match &self.phase {
            Phase::First | Phase::Syncing(_) => None,
            Phase::Live { sync, .. } => Some(sync),
        }
    }

    /// What follows from the statements: everybody's from a SYNC, the leader's own before it sends one.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::First => None,
            Phase::Syncing(gathering) => gathering.selected.as_ref(),
            Phase::Live { outcome, .. } => Some(outcome),
        }
    }

    /// What `instance` is bound to.
    pub(crate) fn bound(&self, instance: InstanceId) -> Option<Digest> {
        self.outcome()?.bound.get(&instance).copied()
    }

    /// The last instance that the regency's SYNC proposes: its leader proposes above it [SYNC-3].
    pub(crate) fn last_bound(&self) -> InstanceId {
        self.outcome().map_or(InstanceId(0), Outcome::last)
    }

    /// Who states that it wrote or locked `digest`: it has the batch [SYNC-4].
    pub(crate) fn holders(&self, instance: InstanceId, digest: &Digest) -> Vec<ReplicaId> {
        let has =
            |stated: &&SignedStopData| stated.data.claim(instance).is_some_and(|claim| claim.names(digest));
        match &self.phase {
            Phase::First => Vec::new(),
            Phase::Syncing(gathering) => gathering.set.values().filter(has).map(|s| s.sender).collect(),
            Phase::Live { sync, .. } => sync.set.iter().filter(has).map(|s| s.sender).collect(),
        }
    }
}
