//! Who says that which request is authentic, who lacks that, and which clients are suspect for it [REQ-3].
//!
//! Owned by the replica, used by its authenticity walk where requests are authenticated by their channel. Bounded
//! per peer: beyond its share a peer's oldest statements are forgotten.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ids::{ClientId, Digest, ReplicaId};
use crate::limits::{ANNOUNCED_PER_PEER_MAX, FORWARDED_BYTES_PER_PEER_MAX};
use crate::message::Request;
use crate::time::Timestamp;
use crate::view::View;

/// Clients that are remembered as suspect.
const SUSPECTS_MAX: usize = 4096;

/// A set of members, by their rank in the view: there are at most 127.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Members(u128);

impl Members {
    fn insert(&mut self, rank: usize) -> bool {
        let is_new = !self.contains(rank);
        self.0 |= Self::bit(rank);
        is_new
    }

    fn remove(&mut self, rank: usize) {
        self.0 &= !Self::bit(rank);
    }

    fn contains(self, rank: usize) -> bool {
        self.0 & Self::bit(rank) != 0
    }

    fn bit(rank: usize) -> u128 {
        u32::try_from(rank).ok().and_then(|rank| 1_u128.checked_shl(rank)).unwrap_or(0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn len(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(usize::MAX)
    }
}

/// What is said of one request.
#[derive(Debug, Default)]
struct Said {
    announced: Members,
    lacked: Members,
}

impl Said {
    /// Takes back what one member said; returns whether anybody says anything still.
    fn withdraw(&mut self, rank: usize) -> bool {
        self.announced.remove(rank);
        self.lacked.remove(rank);
        self.is_said()
    }

    fn is_said(&self) -> bool {
        !self.announced.is_empty() || !self.lacked.is_empty()
    }
}

/// Requests that one peer forwarded and nothing proves here yet.
#[derive(Debug, Default)]
struct Kept {
    /// With the number under which each stands in `order`.
    requests: BTreeMap<Digest, (u64, Arc<Request>)>,
    /// The oldest first.
    order: BTreeMap<u64, Digest>,
    arrivals: u64,
    bytes: usize,
}

impl Kept {
    /// Takes one more, at the cost of the oldest.
    fn insert(&mut self, request: &Arc<Request>) {
        if self.requests.contains_key(&request.digest()) {
            return;
        }
        self.arrivals = self.arrivals.wrapping_add(1);
        self.order.insert(self.arrivals, request.digest());
        self.requests.insert(request.digest(), (self.arrivals, Arc::clone(request)));
        self.bytes = self.bytes.saturating_add(request.encoded().len());
        while self.bytes > FORWARDED_BYTES_PER_PEER_MAX {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, request: &Digest) {
        if let Some((arrival, request)) = self.requests.remove(request) {
            self.order.remove(&arrival);
            self.bytes = self.bytes.saturating_sub(request.encoded().len());
        }
    }
}

/// All that is said.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    said: BTreeMap<Digest, Said>,
    /// What each peer forwarded.
    kept: BTreeMap<ReplicaId, Kept>,
    /// How much was said when it was last pruned.
    pruned: usize,
    /// What each peer said, the oldest first.
    order: BTreeMap<ReplicaId, VecDeque<Digest>>,
    suspects: BTreeMap<ClientId, Timestamp>,
    /// Digests to be announced when the input has drained: each once, however many ask.
    outgoing: BTreeSet<Digest>,
}

impl Announcements {
    /// A member announces a request as authentic there; returns whether that is new.
    pub(crate) fn announce(&mut self, by: ReplicaId, request: Digest, view: &View, is_own: bool) -> bool {
        self.say(by, request, view, is_own, |said| &mut said.announced)
    }

    /// A member lacks proof of a proposed request; returns whether that is new.
    pub(crate) fn lack(&mut self, by: ReplicaId, request: Digest, view: &View, is_own: bool) -> bool {
        self.say(by, request, view, is_own, |said| &mut said.lacked)
    }

    /// Keeps a request that a peer forwarded until it is announced often enough, at the cost of what that peer
    /// forwarded before.
    pub(crate) fn keep(&mut self, by: ReplicaId, request: &Arc<Request>) {
        self.kept.entry(by).or_default().insert(request);
    }

    /// The forwarded request with this digest.
    pub(crate) fn kept(&self, request: &Digest) -> Option<Arc<Request>> {
        let (_, kept) = self.kept.values().find_map(|kept| kept.requests.get(request))?;
        Some(Arc::clone(kept))
    }

    /// Whether so much has been said since the last time that it pays to look for what is of no use any more.
    pub(crate) fn is_due_for_pruning(&self) -> bool {
        self.said.len() > self.pruned.saturating_mul(2).saturating_add(ANNOUNCED_PER_PEER_MAX / 16)
    }

    /// Forgets what this member said of requests that are not open; what peers said is bounded by itself.
    pub(crate) fn prune(&mut self, me: ReplicaId, view: &View, is_open: impl Fn(&Digest) -> bool) {
        let Some(rank) = view.position(me) else { return };
        self.said.retain(|request, said| if is_open(request) { said.is_said() } else { said.withdraw(rank) });
        self.pruned = self.said.len();
    }

    /// How many members announced a request, this one included.
    pub(crate) fn announced(&self, request: &Digest) -> usize {
        self.said.get(request).map_or(0, |said| said.announced.len())
    }

    /// Whether this member announced a request.
    pub(crate) fn has_announced(&self, by: ReplicaId, request: &Digest, view: &View) -> bool {
        let rank = view.position(by);
        rank.is_some_and(|rank| self.said.get(request).is_some_and(|said| said.announced.contains(rank)))
    }

    /// How many members lack proof of a request, this one included.
    pub(crate) fn lacked(&self, request: &Digest) -> usize {
        self.said.get(request).map_or(0, |said| said.lacked.len())
    }

    /// Forgets a request that is pending no more.
    pub(crate) fn forget(&mut self, request: &Digest) {
        if !self.said.is_empty() {
            self.said.remove(request);
        }
        for kept in self.kept.values_mut() {
            kept.remove(request);
        }
    }

    /// Makes a client suspect until then.
    pub(crate) fn suspect(&mut self, client: ClientId, until: Timestamp) {
        if self.suspects.len() < SUSPECTS_MAX || self.suspects.contains_key(&client) {
            self.suspects.insert(client, until);
        }
    }

    /// Whether a client is suspect.
    pub(crate) fn is_suspect(&self, client: &ClientId) -> bool {
        self.suspects.contains_key(client)
    }

    /// Clears the clients whose time is over; returns them.
    pub(crate) fn clear_suspects(&mut self, now: Timestamp) -> Vec<ClientId> {
        let cleared: Vec<ClientId> =
            self.suspects.iter().filter(|(_, until)| **until <= now).map(|(client, _)| *client).collect();
        cleared.iter().for_each(|client| _ = self.suspects.remove(client));
        cleared
    }

    /// Has a request announced to all when the input has drained.
    pub(crate) fn queue(&mut self, request: Digest) {
        self.outgoing.insert(request);
    }

    /// Whether anything is to be announced.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// What is to be announced.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Digest> {
        std::mem::take(&mut self.outgoing).into_iter().collect()
    }

    /// How many requests something is said of.
    pub(crate) fn len(&self) -> usize {
        self.said.len()
    }

    /// Adds a member to one of the sets of a request; returns whether that is new.
    fn say(
        &mut self,
        by: ReplicaId,
        request: Digest,
        view: &View,
        is_own: bool,
        what: impl FnOnce(&mut Said) -> &mut Members,
    ) -> bool {
        let Some(rank) = view.position(by) else { return false };
        let is_new = what(self.said.entry(request).or_default()).insert(rank);
        if is_new && !is_own {
            self.remember(by, rank, request);
        }
        is_new
    }

    fn remember(&mut self, by: ReplicaId, rank: usize, request: Digest) {
        let order = self.order.entry(by).or_default();
        order.push_back(request);
        if order.len() <= ANNOUNCED_PER_PEER_MAX {
            return;
        }
        let Some(oldest) = order.pop_front() else { return };
        if self.said.get_mut(&oldest).is_some_and(|said| !said.withdraw(rank)) {
            self.said.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Sequence, SessionId};
    use crate::view::Mode;
    use crate::view::tests::view;

    #[test]
    fn a_member_counts_once() {
        let view = view(Mode::Bft, 4, 1).unwrap();
        let (mut said, request) = (Announcements::default(), Digest([1; 32]));
        assert!(said.announce(ReplicaId(1), request, &view, false));
        assert!(!said.announce(ReplicaId(1), request, &view, false));
        assert!(said.lack(ReplicaId(1), request, &view, false));
        assert_eq!((said.announced(&request), said.lacked(&request)), (1, 1));
    }

    #[test]
    fn a_peer_that_floods_forgets_its_own_statements_only() {
        let view = view(Mode::Bft, 4, 1).unwrap();
        let mut said = Announcements::default();
        let numbered = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            Digest(digest)
        };
        said.announce(ReplicaId(1), numbered(0), &view, false);
        (0..ANNOUNCED_PER_PEER_MAX + 5)
            .for_each(|number| _ = said.announce(ReplicaId(2), numbered(number), &view, false));
        assert_eq!((said.len(), said.announced(&numbered(0))), (ANNOUNCED_PER_PEER_MAX + 1, 1));
    }

    #[test]
    fn what_a_peer_forwarded_costs_no_more_than_what_is_kept_of_it() {
        let mut said = Announcements::default();
        let forwarded = |sequence: u64, bytes: usize| {
            let (client, payload) = (ClientId([1; 32]), vec![0; bytes]);
            Arc::new(Request::ordered(client, SessionId(1), Sequence(sequence), Sequence(0), &payload))
        };
        let first = forwarded(0, 10);
        said.keep(ReplicaId(1), &first);
        for sequence in 1..100 {
            let request = forwarded(sequence, 10);
            said.keep(ReplicaId(1), &request);
            said.forget(&request.digest());
        }
        assert_eq!(said.kept[&ReplicaId(1)].order.len(), 1);
        said.keep(ReplicaId(1), &forwarded(100, FORWARDED_BYTES_PER_PEER_MAX - 100));
        assert!(said.kept(&first.digest()).is_none(), "the oldest goes first");
        assert_eq!(said.kept[&ReplicaId(1)].requests.len(), 1);
    }
}
