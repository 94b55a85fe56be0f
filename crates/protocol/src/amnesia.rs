//! A replica that has lost its votes learns what it may have voted for, from those who have not [RECOVER-2].
//!
//! Until a quorum has answered it does not vote; until the chain is certified beyond all that it may have touched it
//! counts as faulty. Whoever answers does so from records that never shrink.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{InstanceId, Regency, ReplicaId};
use crate::message::RecoverAnswer;
use crate::time::Timestamp;

/// So often a replica that has its answers asks again, which makes the leader fill up once more.
pub(crate) const RECOVER_PERIOD: Duration = Duration::from_secs(2);

/// What a replica that lost its votes knows about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// It has voted for no instance above this: `M + span`.
    pub instance: InstanceId,
    /// It has voted in no epoch above this, and led no regency above it.
    pub regency: Regency,
}

/// The question that a replica asks which has lost its votes.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Tells the answers of this life from those of an earlier one.
    nonce: u64,
    answers: BTreeMap<ReplicaId, (InstanceId, Regency)>,
    due: Timestamp,
}

impl Asking {
    /// A question that is asked at once. Its nonce is the time: channels are authenticated, so it only has to differ
    /// from those of earlier lives.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { nonce: now.0, answers: BTreeMap::new(), due: now }
    }

    /// The nonce.
    pub(crate) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// When to ask next.
    pub(crate) fn due(&self) -> Timestamp {
        self.due
    }

    /// Notes that it was asked.
    pub(crate) fn asked(&mut self, next: Timestamp) {
        self.due = next;
    }

    /// Counts an answer, the first of each replica; returns the smallest bounds that `quorum` answers do not exceed.
    pub(crate) fn add(
        &mut self,
        from: ReplicaId,
        answer: &RecoverAnswer,
        quorum: usize,
        span: u64,
    ) -> Option<Bounds> {
        if answer.nonce != self.nonce {
            return None;
        }
        self.answers.entry(from).or_insert((answer.highest, answer.regency));
        let mut instances: Vec<InstanceId> = self.answers.values().map(|(instance, _)| *instance).collect();
        let mut regencies: Vec<Regency> = self.answers.values().map(|(_, regency)| *regency).collect();
        instances.sort_unstable();
        regencies.sort_unstable();
        let place = quorum.checked_sub(1)?;
        Some(Bounds { instance: instances.get(place)?.plus(span), regency: *regencies.get(place)? })
    }
}

/// What the leader does for those who ask: it orders empty batches, until all that they may have touched is past.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    /// Up to where.
    target: InstanceId,
    /// The part of that which was asked for when the time began.
    goal: InstanceId,
    /// Since when it has been waited for.
    since: Timestamp,
    /// When each asker was last served.
    served: BTreeMap<ReplicaId, Timestamp>,
    /// Whether this leader was told of it.
    is_relayed: bool,
    /// The newest life of each asker, by its nonce, and the highest regency that an earlier one is known to have wanted.
    lives: BTreeMap<ReplicaId, (Option<u64>, Regency)>,
}

impl Fill {
    /// Takes a question; at most one of each asker in a period brings anything about.
    pub(crate) fn ask(&mut self, from: ReplicaId, now: Timestamp, prefix: InstanceId, target: InstanceId) {
        let is_served = self.served.get(&from).is_some_and(|last| now < last.plus(RECOVER_PERIOD));
        if is_served {
            return;
        }
        self.served.insert(from, now);
        if self.target <= prefix {
            self.restart(now);
            self.goal = target;
        }
        self.target = self.target.max(target);
    }

    /// Whether it is unfinished.
    pub(crate) fn is_open(&self, prefix: InstanceId) -> bool {
        self.target > prefix
    }

    /// Up to where there is something to order, at the least nothing.
    pub(crate) fn target(&self) -> InstanceId {
        self.target
    }

    /// Since when an unfinished one has been waited for.
    pub(crate) fn since(&self, prefix: InstanceId) -> Option<Timestamp> {
        self.is_open(prefix).then_some(self.since)
    }

    /// Time begins anew: another leader has its turn.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.since = now;
        self.is_relayed = false;
    }

    /// Lets the time begin anew for what was asked for since it began, if what was asked for by then is done; tells whether
    /// it is.
    pub(crate) fn go_on(&mut self, now: Timestamp, prefix: InstanceId) -> bool {
        let is_reached = self.goal <= prefix;
        if is_reached {
            self.goal = self.target;
            self.restart(now);
        }
        is_reached
    }

    /// Gives the leader as much time again; false if that was done before.
    pub(crate) fn relay(&mut self, now: Timestamp) -> bool {
        self.since = now;
        !std::mem::replace(&mut self.is_relayed, true)
    }

    /// The highest regency that earlier lives of `asker` are known to have wanted; `left` is asked what is left of the
    /// one before at the first question of a life, which its nonce tells.
    pub(crate) fn earlier_lives(
        &mut self,
        asker: ReplicaId,
        nonce: u64,
        left: impl FnOnce() -> Regency,
    ) -> Regency {
        let (newest, wanted) = self.lives.entry(asker).or_default();
        if newest.replace(nonce) != Some(nonce) {
            *wanted = left().max(*wanted);
        }
        *wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ViewId;

    fn answer(nonce: u64, highest: u64, regency: u64) -> RecoverAnswer {
        RecoverAnswer { view: ViewId(0), nonce, highest: InstanceId(highest), regency: Regency(regency) }
    }

    #[test]
    fn bounds_are_the_smallest_that_a_quorum_does_not_exceed() {
        let mut asking = Asking::new(Timestamp(7));
        assert_eq!(asking.add(ReplicaId(0), &answer(7, 10, 0), 3, 100), None);
        assert_eq!(asking.add(ReplicaId(1), &answer(6, 11, 0), 3, 100), None, "of another life");
        assert_eq!(asking.add(ReplicaId(1), &answer(7, 900, 50), 3, 100), None);
        assert_eq!(asking.add(ReplicaId(1), &answer(7, 11, 0), 3, 100), None, "each counts once");
        let high = Bounds { instance: InstanceId(1000), regency: Regency(50) };
        assert_eq!(asking.add(ReplicaId(2), &answer(7, 12, 2), 3, 100), Some(high));
        let low = Bounds { instance: InstanceId(112), regency: Regency(2) };
        assert_eq!(asking.add(ReplicaId(3), &answer(7, 11, 1), 3, 100), Some(low));
    }

    #[test]
    fn what_earlier_lives_wanted_is_kept_for_every_question_of_a_later_one() {
        let mut fill = Fill::default();
        let mut ask = |asker, nonce, left| fill.earlier_lives(ReplicaId(asker), nonce, || Regency(left));
        assert_eq!((ask(1, 7, 3), ask(1, 7, 9)), (Regency(3), Regency(3)), "asked once in a life");
        assert_eq!(ask(2, 7, 0), Regency(0));
        assert_eq!(ask(1, 8, 1), Regency(3));
        assert_eq!(ask(1, 9, 5), Regency(5));
    }

    #[test]
    fn an_asker_is_served_once_in_a_period() {
        let mut fill = Fill::default();
        let later = Timestamp(0).plus(RECOVER_PERIOD);
        fill.ask(ReplicaId(1), Timestamp(0), InstanceId(5), InstanceId(9));
        fill.ask(ReplicaId(1), Timestamp(1), InstanceId(5), InstanceId(90));
        assert!(fill.is_open(InstanceId(8)) && !fill.is_open(InstanceId(9)));
        fill.ask(ReplicaId(1), later, InstanceId(9), InstanceId(20));
        assert_eq!((fill.target(), fill.since(InstanceId(9))), (InstanceId(20), Some(later)));
    }

    #[test]
    fn what_is_asked_for_later_has_its_own_time() {
        let mut fill = Fill::default();
        fill.ask(ReplicaId(1), Timestamp(0), InstanceId(5), InstanceId(9));
        fill.ask(ReplicaId(2), Timestamp(1), InstanceId(5), InstanceId(20));
        assert!(!fill.go_on(Timestamp(2), InstanceId(8)), "it is late");
        assert!(fill.go_on(Timestamp(3), InstanceId(9)));
        assert_eq!(fill.since(InstanceId(9)), Some(Timestamp(3)));
        assert!(!fill.go_on(Timestamp(4), InstanceId(19)));
    }
}
