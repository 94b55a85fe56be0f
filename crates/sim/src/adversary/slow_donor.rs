//! A donor that gives nothing false: as little at a time, and as late, as is just no reason to leave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::Settings;
use regency_protocol::message::Supply;

use super::Deed;
use super::vice::Vice;
use crate::agenda::Moment;
use crate::coverage::Point;
use crate::plan::{MILLI, Plan};

/// How long the first answer takes: a donor is given 400 ms at least.
const FIRST: Moment = 300 * MILLI;
/// By how many percent the next one may take longer: four times what answers take on average is no reason to leave.
const GROWTH: Moment = 30;
/// The longest that a part of the log may take: a phase that brings nothing is given up after 3 s.
const LOG_MAX: Moment = 2_600 * MILLI;
/// The longest that a part of a snapshot may take: with few donors it is 1 s.
const SNAPSHOT_MAX: Moment = 900 * MILLI;

/// How slowly the owned replicas give.
pub(super) struct Pace {
    is_slow: bool,
    /// How long the next answer takes.
    next: BTreeMap<ReplicaId, Moment>,
}

impl Pace {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { is_slow: plan.vices.contains(&Vice::SlowDonor), next: BTreeMap::new() }
    }

    /// After how long what of an answer is given.
    pub(super) fn hold_back(
        &mut self,
        to: ReplicaId,
        supply: Supply,
        deeds: &mut Vec<Deed>,
    ) -> (Moment, Supply) {
        if !self.is_slow {
            return (0, supply);
        }
        let (most, supply) = match supply {
            Supply::Batches(mut batches) => {
                batches.truncate(1);
                (LOG_MAX, Supply::Batches(batches))
            }
            Supply::Digests { .. } => (FIRST, supply),
            Supply::Page { .. } | Supply::Chunk { .. } => (SNAPSHOT_MAX, supply),
            // It is no donor otherwise.
            Supply::Snapshot { .. } | Supply::Nothing(_) => return (0, supply),
        };
        deeds.push(Deed::Reached(Point::Did(Vice::SlowDonor)));
        let next = self.next.entry(to).or_insert(FIRST);
        let after = (*next).min(most);
        *next = (*next + *next * GROWTH / 100).min(LOG_MAX);
        (after, supply)
    }
}

/// The settings of an owned replica: what others cut it keeps, if it means to be the only one that has it.
pub(super) fn settings(plan: &Plan) -> Arc<Settings> {
    let mut settings = Arc::clone(&plan.settings);
    if plan.vices.contains(&Vice::SlowDonor) {
        Arc::make_mut(&mut settings).retained_instances = u64::MAX;
    }
    settings
}
