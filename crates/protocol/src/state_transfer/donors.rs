//! Who is asked for what, how fast it answers, and who is no donor any more [ST-3].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ReplicaId;
use crate::limits::DONOR_QUESTIONS_MAX;
use crate::message::Wanted;
use crate::time::Timestamp;

/// A donor is given at least this time to answer.
const PATIENCE_MIN: Duration = Duration::from_millis(400);
/// And at most this.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Whoever takes so long to answer is asked one thing at a time.
const SLOW_PACE: Duration = Duration::from_secs(2);
/// How many times longer than usual an answer may take.
const PATIENCE_PACES: u32 = 4;
/// Whoever has nothing to do takes a question over that is open for longer than this, and than many of its own answers
/// take.
const TAKE_OVER_MIN: Duration = Duration::from_millis(200);
/// How long a donor that lacked something, or let a question lie, is not asked while others may know.
const REST: Duration = Duration::from_secs(1);

/// The donors of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Donors {
    donors: BTreeMap<ReplicaId, Donor>,
    /// The questions that are open: each is asked of one donor at a time.
    open: BTreeMap<Wanted, Asked>,
    /// Questions that were taken back, to be asked of others.
    returned: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Donor {
    /// Open questions.
    questions: usize,
    /// Answers that may yet come, those of questions that were taken back included.
    expected: usize,
    /// What an answer takes, on average.
    pace: Duration,
    /// It has sent what is not so.
    is_banned: bool,
    /// Until then it is not asked.
    rests_until: Timestamp,
    /// Until then what else is late counts no more: what it was asked at once is late at once.
    late_until: Timestamp,
}

/// A question that is open.
#[derive(Clone, Copy, Debug)]
struct Asked {
    donor: ReplicaId,
    at: Timestamp,
    due: Timestamp,
}

impl Donors {
    /// The donor that is likely to answer next, if any may be asked now.
    pub(crate) fn pick(
        &self,
        now: Timestamp,
        candidates: impl Iterator<Item = ReplicaId>,
    ) -> Option<ReplicaId> {
        candidates
            .filter_map(|id| {
                let donor = self.donors.get(&id).copied().unwrap_or_default();
                // The answers of a slow one wait for each other.
                let most = if donor.pace >= SLOW_PACE { 1 } else { DONOR_QUESTIONS_MAX };
                let is_free = donor.questions < most;
                (is_free && self.may_ask(id, now)).then(|| {
                    let queue = u32::try_from(donor.questions.saturating_add(1)).unwrap_or(u32::MAX);
                    (donor.pace.saturating_mul(queue), donor.questions, id)
                })
            })
            .min()
            .map(|(_, _, id)| id)
    }

    /// Whether it has sent what is not so.
    pub(crate) fn is_banned(&self, id: ReplicaId) -> bool {
        self.donors.get(&id).is_some_and(|donor| donor.is_banned)
    }

    /// Whether a donor is of any use at present.
    pub(crate) fn may_ask(&self, id: ReplicaId, now: Timestamp) -> bool {
        self.donors.get(&id).is_none_or(|donor| !donor.is_banned && donor.rests_until <= now)
    }

    /// Notes a question that all are asked at once.
    pub(crate) fn expect(&mut self, id: ReplicaId) {
        let donor = self.donors.entry(id).or_default();
        donor.expected = donor.expected.saturating_add(1);
    }

    /// Notes a question to one donor.
    pub(crate) fn asked(&mut self, wanted: Wanted, id: ReplicaId, now: Timestamp) {
        self.take_back(&wanted);
        self.returned.retain(|returned| *returned != wanted);
        self.expect(id);
        let donor = self.donors.entry(id).or_default();
        donor.questions = donor.questions.saturating_add(1);
        let queue = u32::try_from(donor.questions).unwrap_or(u32::MAX).saturating_mul(PATIENCE_PACES);
        let patience = donor.pace.saturating_mul(queue).clamp(PATIENCE_MIN, PATIENCE_MAX);
        self.open.insert(wanted, Asked { donor: id, at: now, due: now.plus(patience) });
    }

    /// Whether the question is open.
    pub(crate) fn is_open(&self, wanted: &Wanted) -> bool {
        self.open.contains_key(wanted)
    }

    /// The open questions.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Wanted> {
        self.open.keys()
    }

    /// Counts an answer of `from`; false if none was expected.
    pub(crate) fn answered(&mut self, from: ReplicaId) -> bool {
        let Some(donor) = self.donors.get_mut(&from) else { return false };
        let is_expected = donor.expected > 0;
        donor.expected = donor.expected.saturating_sub(1);
        is_expected
    }

    /// Whether the question is open at `id`.
    pub(crate) fn is_asked(&self, id: ReplicaId, wanted: &Wanted) -> bool {
        self.open.get(wanted).is_some_and(|asked| asked.donor == id)
    }

    /// Takes the first question back that another donor lets lie for longer than `by`, which has nothing to do, would; that
    /// one rests. Whether there was one.
    pub(crate) fn take_over(&mut self, by: ReplicaId, now: Timestamp) -> bool {
        let own = self.donors.get(&by).copied().unwrap_or_default();
        let patience = own.pace.saturating_mul(PATIENCE_PACES).max(TAKE_OVER_MIN);
        let lies = |asked: &Asked| asked.donor != by && asked.at.plus(patience) <= now;
        let found = self.open.iter().find(|(_, asked)| lies(asked));
        let Some((wanted, id)) = found.map(|(wanted, asked)| (*wanted, asked.donor)) else { return false };
        self.take_back(&wanted);
        self.note_late(id, now);
        true
    }

    /// Closes a question whose answer has come from `from`; it takes `parts` of those to answer all of it.
    pub(crate) fn close(&mut self, wanted: &Wanted, from: ReplicaId, now: Timestamp, parts: u64) {
        let Some(asked) = self.open.remove(wanted) else { return };
        let Some(donor) = self.donors.get_mut(&asked.donor) else { return };
        donor.questions = donor.questions.saturating_sub(1);
        if asked.donor == from {
            // Whoever gives little at a time is not quick.
            let parts = u32::try_from(parts).unwrap_or(u32::MAX);
            let took = now.since(asked.at).saturating_mul(parts).min(PATIENCE_MAX);
            let mean = donor.pace.saturating_mul(3).saturating_add(took);
            donor.pace = mean.checked_div(4).unwrap_or(took);
        }
    }

    /// `from` does not have what it was asked for: others are asked first for a while.
    pub(crate) fn lacks(&mut self, wanted: &Wanted, from: ReplicaId, now: Timestamp) {
        if self.is_asked(from, wanted) {
            self.take_back(wanted);
            self.donors.entry(from).or_default().rests_until = now.plus(REST);
        }
    }

    /// `from` does not have a part that it was asked for.
    pub(crate) fn decline(&mut self, wanted: &Wanted, from: ReplicaId) {
        if self.is_asked(from, wanted) {
            self.take_back(wanted);
        }
    }

    /// `from` has sent what a certificate contradicts: it is asked nothing any more.
    pub(crate) fn ban(&mut self, from: ReplicaId) {
        self.donors.entry(from).or_default().is_banned = true;
        self.forget(from);
    }

    /// Takes back what is open at a donor that is gone: it did not answer in time.
    pub(crate) fn leave(&mut self, from: ReplicaId, now: Timestamp) {
        if self.forget(from) {
            self.note_late(from, now);
        }
        if let Some(donor) = self.donors.get_mut(&from) {
            donor.expected = 0;
        }
    }

    /// Takes back the questions that were not answered in time; their donors rest. Those that have rested may go on.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        for donor in self.donors.values_mut().filter(|donor| donor.rests_until <= now) {
            donor.rests_until = Timestamp(0);
        }
        let late: Vec<(Wanted, ReplicaId)> = self
            .open
            .iter()
            .filter(|(_, asked)| asked.due <= now)
            .map(|(wanted, asked)| (*wanted, asked.donor))
            .collect();
        for (wanted, id) in late {
            self.take_back(&wanted);
            self.note_late(id, now);
        }
    }

    fn note_late(&mut self, id: ReplicaId, now: Timestamp) {
        if let Some(donor) = self.donors.get_mut(&id).filter(|donor| donor.late_until <= now) {
            donor.late_until = now.plus(REST);
            donor.pace = donor.pace.max(PATIENCE_MIN).saturating_mul(2).min(PATIENCE_MAX);
            donor.rests_until = now.plus(REST);
        }
    }

    /// Takes back all open questions.
    pub(crate) fn take_back_all(&mut self) {
        let open: Vec<Wanted> = self.open.keys().copied().collect();
        open.iter().for_each(|wanted| self.take_back(wanted));
    }

    /// The questions that were taken back since they were last asked for.
    pub(crate) fn take_returned(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.returned)
    }

    /// When the next question is late, or the next donor has rested.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let late = self.open.values().map(|asked| asked.due);
        let rests = self.donors.values().map(|donor| donor.rests_until);
        late.chain(rests.filter(|until| *until > Timestamp(0))).min()
    }

    /// Who has been asked and is trusted still.
    pub(crate) fn len(&self) -> usize {
        self.donors.values().filter(|donor| !donor.is_banned).count()
    }

    /// Takes back what is open at `id`; whether anything was.
    fn forget(&mut self, id: ReplicaId) -> bool {
        let open = self.open.iter().filter(|(_, asked)| asked.donor == id);
        let open: Vec<Wanted> = open.map(|(wanted, _)| *wanted).collect();
        open.iter().for_each(|wanted| self.take_back(wanted));
        !open.is_empty()
    }

    fn take_back(&mut self, wanted: &Wanted) {
        let Some(asked) = self.open.remove(wanted) else { return };
        self.returned.push(*wanted);
        if let Some(donor) = self.donors.get_mut(&asked.donor) {
            donor.questions = donor.questions.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InstanceId, ViewId};

    fn wanted(from: u64) -> Wanted {
        Wanted::Batches { view: ViewId(0), from: InstanceId(from), last: InstanceId(from) }
    }

    fn ids() -> impl Iterator<Item = ReplicaId> {
        (0..3).map(ReplicaId)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_millis(millis))
    }

    #[test]
    fn the_fastest_donor_gets_most_and_none_more_than_its_share() {
        let mut donors = Donors::default();
        for (id, millis) in [(0, 90), (1, 10), (2, 50)] {
            donors.asked(wanted(id), ReplicaId(u16::try_from(id).unwrap()), at(0));
            donors.close(&wanted(id), ReplicaId(u16::try_from(id).unwrap()), at(millis), 1);
        }
        let mut shares = [0; 3];
        for number in 10.. {
            let Some(id) = donors.pick(at(100), ids()) else { break };
            donors.asked(wanted(number), id, at(100));
            shares[usize::from(id.0)] += 1;
        }
        assert_eq!(shares, [DONOR_QUESTIONS_MAX; 3]);
        donors.take_back_all();
        let first: Vec<u16> = (0..3)
            .map(|number| {
                let id = donors.pick(at(100), ids()).unwrap();
                donors.asked(wanted(number), id, at(100));
                id.0
            })
            .collect();
        assert_eq!(first, [1, 1, 1]);
    }

    #[test]
    fn a_late_question_goes_to_another_and_a_late_answer_is_no_surprise() {
        let mut donors = Donors::default();
        donors.asked(wanted(1), ReplicaId(0), at(0));
        donors.expire(at(399));
        assert!(donors.is_open(&wanted(1)));
        donors.expire(at(400));
        assert!(!donors.is_open(&wanted(1)) && !donors.may_ask(ReplicaId(0), at(400)));
        assert_eq!(donors.pick(at(400), ids()), Some(ReplicaId(1)));
        assert!(donors.answered(ReplicaId(0)) && !donors.answered(ReplicaId(0)));
        assert!(donors.may_ask(ReplicaId(0), at(1400)));
    }

    #[test]
    fn who_has_nothing_to_do_takes_over_what_another_lets_lie() {
        let mut donors = Donors::default();
        donors.asked(wanted(9), ReplicaId(1), at(0));
        donors.close(&wanted(9), ReplicaId(1), at(100), 1);
        donors.asked(wanted(1), ReplicaId(0), at(100));
        donors.asked(wanted(2), ReplicaId(0), at(100));
        assert!(!donors.take_over(ReplicaId(1), at(299)), "not for long");
        assert!(!donors.take_over(ReplicaId(0), at(300)), "its own");
        assert!(donors.take_over(ReplicaId(1), at(300)));
        assert_eq!(donors.take_returned(), [wanted(1)]);
        assert!(donors.is_asked(ReplicaId(0), &wanted(2)) && !donors.may_ask(ReplicaId(0), at(300)));
    }

    #[test]
    fn a_question_that_is_asked_of_another_is_none_of_the_first_one_any_more() {
        let mut donors = Donors::default();
        for _ in 0..2 * DONOR_QUESTIONS_MAX {
            donors.asked(wanted(1), ReplicaId(0), at(0));
            donors.asked(wanted(1), ReplicaId(1), at(0));
        }
        assert!(donors.is_asked(ReplicaId(1), &wanted(1)) && donors.take_returned().is_empty());
        assert_eq!(donors.pick(at(0), std::iter::once(ReplicaId(0))), Some(ReplicaId(0)));
        assert_eq!(donors.donors[&ReplicaId(0)].questions, 0);
    }

    #[test]
    fn whoever_gives_little_or_leaves_with_a_question_is_slow() {
        let mut donors = Donors::default();
        let first = |donors: &Donors, now| donors.pick(at(now), ids());
        for id in 0..3 {
            donors.asked(wanted(id), ReplicaId(u16::try_from(id).unwrap()), at(0));
        }
        donors.close(&wanted(0), ReplicaId(0), at(10), 64);
        donors.leave(ReplicaId(1), at(10));
        donors.close(&wanted(2), ReplicaId(2), at(100), 1);
        assert_eq!(first(&donors, 2000), Some(ReplicaId(2)));
        donors.lacks(&wanted(7), ReplicaId(2), at(2000));
        assert_eq!(first(&donors, 2000), Some(ReplicaId(2)), "it was not asked for that");
    }

    #[test]
    fn a_liar_is_asked_nothing_any_more() {
        let mut donors = Donors::default();
        donors.asked(wanted(1), ReplicaId(0), at(0));
        donors.ban(ReplicaId(0));
        assert!(!donors.is_open(&wanted(1)) && !donors.may_ask(ReplicaId(0), at(1_000_000)));
        assert_eq!(donors.next_deadline(), None);
    }
}
