//! What this replica knows of its peers: channels, where they stand, and how much they have been given.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{InstanceId, Regency, ReplicaId};
use crate::leader_change::timer::RoundTrip;
use crate::limits::{
    FETCH_ANSWER_BYTES_PER_PERIOD_MAX, FETCH_ANSWERS_PER_PERIOD_MAX, FORWARDS_PER_PERIOD_MAX,
};
use crate::message::Status;
use crate::time::Timestamp;
use crate::view::View;

/// Echoes that are waited for.
const ECHOES_MAX: usize = 256;

/// All other members of the view.
#[derive(Debug)]
pub(crate) struct Links {
    peers: BTreeMap<ReplicaId, Peer>,
    /// When STATUS left for all, as far as echoes are still waited for.
    sent: VecDeque<Timestamp>,
}

#[derive(Debug, Default)]
struct Peer {
    is_connected: bool,
    status: Option<Status>,
    /// When its STATUS was last answered, and told where this replica stands.
    helped: Option<Timestamp>,
    synced: Option<Timestamp>,
    told: Option<Timestamp>,
    /// When it was last told which of the requests that it announced are executed here.
    vouched: Option<Timestamp>,
    /// Its fetches since the last period began.
    answers: usize,
    /// Bytes sent to it as answers since then.
    answer_bytes: usize,
    /// Requests that it has forwarded since then.
    forwards: usize,
    /// How long it takes there and back.
    round_trip: RoundTrip,
    /// When its STATUS was last echoed.
    echoed: Option<Timestamp>,
    /// The newest STATUS that it echoed.
    answered: Timestamp,
}

impl Links {
    pub(crate) fn new(view: &View, me: ReplicaId) -> Self {
        let others = view.members().iter().filter(|member| member.id != me);
        Self { peers: others.map(|member| (member.id, Peer::default())).collect(), sent: VecDeque::new() }
    }

    /// Notes that there is a channel to `peer`, or that there is none.
    pub(crate) fn set_connected(&mut self, peer: ReplicaId, is_connected: bool) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.is_connected = is_connected;
        }
    }

    /// Whether there is a channel to `peer`.
    pub(crate) fn is_connected(&self, peer: ReplicaId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.is_connected)
    }

    /// Whether a peer with a channel has not come as far in regencies as `own`.
    pub(crate) fn has_regency_below(&self, own: (Regency, bool)) -> bool {
        let is_below = |status: Status| (status.regency, status.is_live) < own;
        self.peers.values().any(|peer| peer.is_connected && peer.status.is_some_and(is_below))
    }

    /// Whether a STATUS of `peer` is to be echoed now: not more often than every `spacing`.
    pub(crate) fn may_echo(&mut self, peer: ReplicaId, now: Timestamp, spacing: std::time::Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        take_turn(&mut peer.echoed, now, spacing)
    }

    /// Notes that a STATUS left for all, to be echoed.
    pub(crate) fn note_sent(&mut self, now: Timestamp) {
        self.sent.push_back(now);
        if self.sent.len() > ECHOES_MAX {
            self.sent.pop_front();
        }
    }

    /// Notes that `peer` has echoed a STATUS: each once, and only such as left.
    pub(crate) fn note_echo(&mut self, peer: ReplicaId, sent: Timestamp, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if sent > peer.answered && self.sent.binary_search(&sent).is_ok() {
            peer.answered = sent;
            peer.round_trip.observe(now.since(sent));
        }
    }

    /// What it takes to hear back from `count` peers, on its bad days: liars beyond them cannot stretch it.
    pub(crate) fn round_trip_to(&self, count: usize) -> std::time::Duration {
        let mut trips: Vec<_> = self.peers.values().map(|peer| peer.round_trip.bound()).collect();
        trips.retain(|trip| !trip.is_zero());
        trips.sort_unstable();
        let farthest = count.min(trips.len()).checked_sub(1);
        farthest.and_then(|place| trips.get(place)).copied().unwrap_or_default()
    }

    /// How many peers there is a channel to.
    pub(crate) fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_connected).count()
    }

    /// Notes where a peer stands.
    pub(crate) fn note(&mut self, peer: ReplicaId, status: Status) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.status = Some(status);
        }
    }

    /// Whether a peer that is behind may be helped now: not more often than every `spacing`.
    pub(crate) fn may_help(&mut self, peer: ReplicaId, now: Timestamp, spacing: std::time::Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        take_turn(&mut peer.helped, now, spacing)
    }

    /// Whether a SYNC may be sent again to `peer`: it is large, so not more often than every `period`.
    pub(crate) fn may_sync(&mut self, peer: ReplicaId, now: Timestamp, period: std::time::Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        take_turn(&mut peer.synced, now, period)
    }

    /// Whether a peer that is ahead should be told now where this replica stands.
    pub(crate) fn may_tell(&mut self, peer: ReplicaId, now: Timestamp, spacing: std::time::Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        take_turn(&mut peer.told, now, spacing)
    }

    /// Whether a peer below `prefix` may now be told what is executed here: not more often than every `period`.
    pub(crate) fn may_vouch(
        &mut self,
        peer: ReplicaId,
        prefix: InstanceId,
        now: Timestamp,
        period: std::time::Duration,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let is_behind = peer.status.is_some_and(|status| status.decided < prefix);
        is_behind && take_turn(&mut peer.vouched, now, period)
    }

    /// Counts one fetch of `peer`; false if it has had its share of this period.
    pub(crate) fn may_answer(&mut self, peer: ReplicaId) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        peer.answers = peer.answers.saturating_add(1);
        peer.answers <= FETCH_ANSWERS_PER_PERIOD_MAX && peer.answer_bytes < FETCH_ANSWER_BYTES_PER_PERIOD_MAX
    }

    /// Counts what is sent to `peer` as an answer.
    pub(crate) fn note_answer(&mut self, peer: ReplicaId, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.answer_bytes = peer.answer_bytes.saturating_add(bytes);
        }
    }

    /// Counts what `peer` forwards; false if it has had its share of this period.
    pub(crate) fn may_forward(&mut self, peer: ReplicaId, requests: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        peer.forwards = peer.forwards.saturating_add(requests);
        peer.forwards <= FORWARDS_PER_PERIOD_MAX
    }

    /// Begins a new period of answers and forwards.
    pub(crate) fn renew_answers(&mut self) {
        for peer in self.peers.values_mut() {
            peer.answers = 0;
            peer.answer_bytes = 0;
            peer.forwards = 0;
        }
    }

    /// Whether any peer used up part of its answers.
    pub(crate) fn has_answered(&self) -> bool {
        self.peers.values().any(|peer| peer.answers > 0 || peer.forwards > 0)
    }

    /// Peers that say they are above `prefix`.
    pub(crate) fn ahead(&self, prefix: InstanceId) -> impl Iterator<Item = (ReplicaId, Status)> + '_ {
        self.peers
            .iter()
            .filter_map(|(id, peer)| peer.status.map(|status| (*id, status)))
            .filter(move |(_, status)| status.decided > prefix)
    }

    /// All other members.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.peers.keys().copied()
    }
}

/// Whether `period` has passed since the last turn; then this is one.
fn take_turn(last: &mut Option<Timestamp>, now: Timestamp, period: std::time::Duration) -> bool {
    let is_due = last.is_none_or(|last| now >= last.plus(period));
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::view::Mode;
    use crate::view::tests::view;

    /// Replica 0 of a view that can do with `faults` liars.
    fn links(n: u16, faults: usize) -> Links {
        Links::new(&view(Mode::Bft, n, faults).unwrap(), ReplicaId(0))
    }

    /// When the STATUS of this number leaves.
    fn at(number: u64) -> Timestamp {
        Timestamp(number * 1_000_000)
    }

    /// So many STATUS leave, and each peer echoes each of them after so many milliseconds; 0 for never. Those that are
    /// named first are replicas 1, 2, and so on.
    fn measured(n: u16, faults: usize, trips: &[u64]) -> Links {
        let mut links = links(n, faults);
        for number in 1..100 {
            links.note_sent(at(number));
            for (peer, trip) in (1..n).zip(trips).filter(|(_, trip)| **trip > 0) {
                let now = at(number).plus(Duration::from_millis(*trip));
                links.note_echo(ReplicaId(peer), at(number), now);
            }
        }
        links
    }

    /// What a quorum takes, in milliseconds, rounded down: the deviation has faded, all trips being equal.
    fn quorum_trip(links: &Links, n: u16, faults: usize) -> u128 {
        let others = view(Mode::Bft, n, faults).unwrap().quorum() - 1;
        links.round_trip_to(others).as_millis()
    }

    #[test]
    fn a_round_trip_lasts_from_the_status_to_its_echo() {
        let mut links = links(4, 1);
        links.note_sent(at(1));
        links.note_echo(ReplicaId(1), at(1), at(1).plus(Duration::from_millis(100)));
        // The first measurement may be off by half.
        assert_eq!(links.round_trip_to(1), Duration::from_millis(300));
        assert_eq!(links.round_trip_to(0), Duration::ZERO, "alone there is nobody to wait for");
    }

    #[test]
    fn only_a_status_that_left_is_measured_and_each_once() {
        let mut links = links(4, 1);
        links.note_echo(ReplicaId(1), at(1), at(9));
        links.note_sent(at(2));
        links.note_sent(at(3));
        for invented in [at(1), Timestamp(at(2).0 + 1), at(4), Timestamp(0), Timestamp(u64::MAX)] {
            links.note_echo(ReplicaId(1), invented, at(9));
        }
        links.note_echo(ReplicaId(9), at(2), at(9));
        assert_eq!(links.round_trip_to(3), Duration::ZERO);
        links.note_echo(ReplicaId(1), at(3), at(3).plus(Duration::from_millis(100)));
        // Again, later; and an older one, after a newer one.
        links.note_echo(ReplicaId(1), at(3), at(9));
        links.note_echo(ReplicaId(1), at(2), at(9));
        assert_eq!(links.round_trip_to(3), Duration::from_millis(300));
    }

    #[test]
    fn an_echo_that_comes_after_too_many_others_left_is_not_measured() {
        let mut links = links(4, 1);
        (1..=ECHOES_MAX as u64 + 1).for_each(|number| links.note_sent(at(number)));
        assert_eq!(links.sent.len(), ECHOES_MAX);
        links.note_echo(ReplicaId(1), at(1), at(1_000));
        assert_eq!(links.round_trip_to(3), Duration::ZERO);
    }

    #[test]
    fn a_quorum_takes_as_long_as_the_farthest_peer_that_it_needs() {
        let links = measured(4, 1, &[30, 20, 10]);
        assert_eq!([1, 2, 3].map(|count| links.round_trip_to(count).as_millis()), [10, 20, 30]);
        // Of those that never answered nothing is known.
        let links = measured(4, 1, &[30, 0, 0]);
        assert_eq!([1, 2, 3].map(|count| links.round_trip_to(count).as_millis()), [30, 30, 30]);
    }

    #[test]
    fn f_liars_move_what_a_quorum_takes_nowhere_beyond_what_correct_peers_take() {
        for (n, faults, correct) in [
            (4, 1, &[20, 40][..]),
            (5, 1, &[20, 30, 40]),
            (7, 2, &[20, 25, 30, 40]),
            (8, 2, &[20, 25, 30, 35, 40]),
        ] {
            // They echo at once, late, one so and one so, or never.
            for lies in [[1, 1], [9_000, 9_000], [1, 9_000], [0, 0]] {
                let trips = [&lies[..faults], correct].concat();
                let trip = quorum_trip(&measured(n, faults, &trips), n, faults);
                assert!((20..=40).contains(&trip), "{n} replicas, {lies:?}: {trip} ms");
            }
        }
    }

    #[test]
    fn a_liar_that_changes_its_pace_does_not_stretch_a_quorum() {
        let mut links = measured(4, 1, &[1, 20, 40]);
        for number in 100..200 {
            links.note_sent(at(number));
            links.note_echo(ReplicaId(1), at(number), at(number).plus(Duration::from_secs(number % 7)));
        }
        assert_eq!(quorum_trip(&links, 4, 1), 40);
    }

    #[test]
    fn a_peer_is_echoed_once_in_a_while_whatever_others_send() {
        let (mut links, spacing) = (links(4, 1), Duration::from_millis(50));
        let at = |millis| Timestamp(1_000_000).plus(Duration::from_millis(millis));
        assert!(links.may_echo(ReplicaId(1), at(0), spacing));
        assert!(!links.may_echo(ReplicaId(1), at(49), spacing));
        assert!(links.may_echo(ReplicaId(2), at(49), spacing));
        assert!(links.may_echo(ReplicaId(1), at(50), spacing));
        assert!(!links.may_echo(ReplicaId(9), at(50), spacing), "no member");
        assert!(!links.may_echo(ReplicaId(0), at(50), spacing), "nobody echoes itself");
    }
}
