//! The pool of authentic requests that wait to be ordered, bounded per session, per client and in all [REQ-5].
//!
//! Owned by the replica; its request walk admits, its ordering walk takes batches and looks up bodies, its
//! delivery walk removes what was executed. A request is here at most once per (client, session, sequence).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{ClientId, Digest, Sequence, SessionId};
use crate::limits::{EARLY_REQUESTS_MAX, FORWARD_MAX, Settings};
use crate::message::{Body, BundleProof, Request, RequestKind, RequestPlace};
use crate::time::Timestamp;

/// Requests taken of one client before the next one's turn comes, when a batch is filled.
const TURN: usize = 16;

/// The pending requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pending: BTreeMap<Digest, Pending>,
    places: BTreeMap<RequestPlace, Digest>,
    /// Requests that no accepted proposal holds, by client and arrival: what a leader proposes from.
    unproposed: BTreeMap<ClientId, BTreeMap<u64, Digest>>,
    /// Requests whose session is not open here yet: not to be proposed [REQ-6].
    early: BTreeSet<(SessionId, Digest)>,
    /// Bytes of each client's requests, proofs included.
    clients: BTreeMap<ClientId, usize>,
    /// How many requests of each session are here; under [`SessionId::NONE`], the OPENs of a client.
    sessions: BTreeMap<(SessionId, ClientId), usize>,
    arrivals: u64,
    /// How many entries `unproposed` has.
    queued: usize,
    bytes: usize,
    /// The client whose turn was last.
    turn: ClientId,
    /// The few requests that were forwarded in this regency.
    forwarded: BTreeMap<Digest, Forwarded>,
}

/// When a request was forwarded.
#[derive(Clone, Copy, Debug)]
struct Forwarded {
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug)]
struct Pending {
    request: Arc<Request>,
    proof: Option<Arc<BundleProof>>,
    arrival: u64,
    /// When it came.
    since: Timestamp,
    hold: Hold,
    whole_result: bool,
}

/// What keeps a pending request from being proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing.
    None,
    /// Its session is not open here yet [REQ-6].
    Early,
    /// Too few members have announced it, and it needs them [REQ-3].
    Unannounced,
}

/// A request's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Which request.
    pub(crate) request: Digest,
    /// When it came.
    pub(crate) since: Timestamp,
    /// When it was forwarded in this regency.
    pub(crate) forwarded: Option<Timestamp>,
}

impl Pending {
    fn body(&self) -> Body {
        Body { request: Arc::clone(&self.request), proof: self.proof.clone() }
    }

    /// What it costs its client: a proof counts in full, since it is kept as long as one request needs it.
    fn weight(&self) -> usize {
        let proof = self.proof.as_ref().map_or(0, |proof| proof.bytes());
        self.request.encoded().len().saturating_add(proof)
    }
}

/// Why a request was not taken into the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client or its session has as much pending as it may, or the pool as many requests.
    Busy,
    /// Another request of the same place is here.
    Reused,
}

impl Requests {
    /// Takes a request that came at `now`, to be proposed unless something holds it; taking one that is here
    /// already changes nothing, but a wish for the whole result stays.
    pub(crate) fn insert(
        &mut self,
        body: &Body,
        whole_result: bool,
        hold: Hold,
        now: Timestamp,
        settings: &Settings,
    ) -> Result<(), Full> {
        let Body { request, proof } = body.clone();
        let (place, digest) = (request.place(), request.digest());
        if let Some(here) = self.places.get(&place) {
            if *here != digest {
                return Err(Full::Reused);
            }
            if let Some(pending) = self.pending.get_mut(&digest) {
                pending.whole_result |= whole_result;
            }
            return Ok(());
        }
        let arrival = self.arrivals.wrapping_add(1);
        let pending = Pending { request, proof, arrival, since: now, hold, whole_result };
        let weight = pending.weight();
        let client_bytes = self.clients.get(&place.client).copied().unwrap_or(0).saturating_add(weight);
        let key = (place.session, place.client);
        let in_session = self.sessions.get(&key).copied().unwrap_or(0);
        // [REQ-5] The pool has room for `W` requests of every session, so nobody may use more than that.
        let session_max = match pending.request.kind() {
            RequestKind::Open => settings.client_sessions_max,
            RequestKind::Ordered => usize::try_from(settings.session_window).unwrap_or(usize::MAX),
        };
        let is_full = client_bytes > settings.client_pending_bytes_max
            || in_session >= session_max
            || self.pending.len() >= settings.pending_requests_max;
        if is_full || (hold == Hold::Early && !self.has_room_for_early(place.session)) {
            return Err(Full::Busy);
        }
        self.arrivals = arrival;
        self.sessions.insert(key, in_session.saturating_add(1));
        self.clients.insert(place.client, client_bytes);
        self.bytes = self.bytes.saturating_add(weight);
        self.places.insert(place, digest);
        match hold {
            Hold::None => self.enqueue(place.client, arrival, digest),
            Hold::Early => _ = self.early.insert((place.session, digest)),
            Hold::Unannounced => {}
        }
        self.pending.insert(digest, pending);
        Ok(())
    }

    /// Whether a request of `session` may be kept as early; makes room for it at the cost of a session that is
    /// farther off: anybody can name those, while one that exists is near.
    fn has_room_for_early(&mut self, session: SessionId) -> bool {
        if self.early.len() < EARLY_REQUESTS_MAX {
            return true;
        }
        match self.early.last().copied() {
            Some((farthest, digest)) if farthest > session => {
                self.remove(&digest);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The authentic request with this digest, and its proof for other replicas.
    pub(crate) fn body(&self, digest: &Digest) -> Option<Body> {
        let pending = self.pending.get(digest)?;
        Some(pending.body())
    }

    /// Marks a request as part of an accepted proposal: it is not proposed again in this regency. Returns when it
    /// came, if it is here.
    pub(crate) fn mark_proposed(&mut self, digest: &Digest) -> Option<Timestamp> {
        let pending = self.pending.get(digest)?;
        let since = pending.since;
        self.unqueue(pending.request.client(), pending.arrival);
        Some(since)
    }

    /// A new regency: whatever was proposed may be proposed again, and nothing was forwarded.
    pub(crate) fn requeue(&mut self) {
        let mut open = Vec::new();
        self.forwarded.clear();
        for (digest, pending) in &self.pending {
            if pending.hold == Hold::None {
                open.push((pending.request.client(), pending.arrival, *digest));
            }
        }
        for (client, arrival, digest) in open {
            self.enqueue(client, arrival, digest);
        }
    }

    /// The longest pending of those that count; early ones never do.
    pub(crate) fn oldest(&self, counts: impl Fn(&Digest) -> bool) -> Option<Waiting> {
        let waiting = self.pending.iter().filter(|(_, pending)| pending.hold != Hold::Early);
        let oldest =
            waiting.filter(|(digest, _)| counts(digest)).min_by_key(|(_, pending)| pending.arrival)?;
        let (request, pending) = oldest;
        let forwarded = self.forwarded.get(request).map(|forwarded| forwarded.first);
        Some(Waiting { request: *request, since: pending.since, forwarded })
    }

    /// Requests that came until `since` and that no forwarding serves, as `serves` tells of its time: first those that
    /// were never forwarded in this regency, then those whose last time is longest ago, so that nobody's requests that
    /// come to nothing are in the way of others'.
    pub(crate) fn unforwarded(
        &self,
        since: Timestamp,
        serves: impl Fn(&Digest, Timestamp) -> bool,
    ) -> Vec<Body> {
        let last = |digest: &Digest| self.forwarded.get(digest).map(|forwarded| forwarded.last);
        let is_due = |(digest, pending): &(&Digest, &Pending)| {
            let is_served = last(digest).is_some_and(|last| serves(digest, last));
            pending.hold != Hold::Early && !is_served && pending.since <= since
        };
        let mut due: Vec<(&Digest, &Pending)> = self.pending.iter().filter(is_due).collect();
        due.sort_unstable_by_key(|(digest, pending)| (last(digest), pending.arrival));
        due.into_iter().take(FORWARD_MAX).map(|(_, pending)| pending.body()).collect()
    }

    /// Requests that came until `since`, the longest pending first.
    pub(crate) fn pending_since(&self, since: Timestamp) -> Vec<Digest> {
        let waiting = self.pending.iter().filter(|(_, pending)| pending.since <= since);
        let mut waiting: Vec<_> = waiting.map(|(digest, pending)| (pending.arrival, *digest)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Notes that a request was forwarded.
    pub(crate) fn mark_forwarded(&mut self, digest: &Digest, now: Timestamp, began: Timestamp) {
        let forwarded = self.forwarded.entry(*digest).or_insert(Forwarded { first: now, last: now });
        if forwarded.first < began {
            forwarded.first = now;
        }
        forwarded.last = now;
    }

    /// Whether a request is here.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.pending.contains_key(digest)
    }

    /// How many full batches the pending requests make.
    pub(crate) fn backlog(&self, settings: &Settings) -> u32 {
        let by_number = self.pending.len().checked_div(settings.batch_requests_max).unwrap_or(0);
        let by_bytes = self.bytes.checked_div(settings.batch_bytes_max).unwrap_or(0);
        u32::try_from(by_number.max(by_bytes)).unwrap_or(u32::MAX)
    }

    /// Holds back what a client has pending until it is announced; returns what is held.
    pub(crate) fn hold_back(&mut self, client: &ClientId) -> Vec<Digest> {
        let mut held = Vec::new();
        for (digest, pending) in &mut self.pending {
            if pending.request.client() == *client && pending.hold == Hold::None {
                pending.hold = Hold::Unannounced;
                held.push((*digest, pending.arrival));
            }
        }
        held.iter().for_each(|(_, arrival)| self.unqueue(*client, *arrival));
        held.into_iter().map(|(digest, _)| digest).collect()
    }

    /// Lets what a client has pending be proposed without announcements.
    pub(crate) fn let_go(&mut self, client: &ClientId) {
        let is_held =
            |pending: &Pending| pending.request.client() == *client && pending.hold == Hold::Unannounced;
        let held: Vec<Digest> =
            self.pending.iter().filter(|(_, pending)| is_held(pending)).map(|(digest, _)| *digest).collect();
        held.iter().for_each(|digest| self.queue(digest));
    }

    /// Lets a request be proposed that waited for announcements.
    pub(crate) fn release(&mut self, digest: &Digest) {
        if self.pending.get(digest).is_some_and(|pending| pending.hold == Hold::Unannounced) {
            self.queue(digest);
        }
    }

    /// Whether there is something to propose.
    pub(crate) fn has_unproposed(&self) -> bool {
        !self.unproposed.is_empty()
    }

    /// How many requests could be proposed.
    pub(crate) fn unproposed(&self) -> usize {
        self.queued
    }

    /// Takes requests for one batch out of the queue, the clients in turn, within the limits of a batch.
    pub(crate) fn take_batch(&mut self, settings: &Settings) -> Vec<Body> {
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        let mut round: Vec<ClientId> = self.unproposed.keys().copied().collect();
        let after = round.partition_point(|client| *client <= self.turn);
        round.rotate_left(after);
        while !round.is_empty() {
            round.retain(|client| {
                self.turn = *client;
                for _ in 0..TURN {
                    let Some((arrival, next)) = self.front(client) else { return false };
                    let weight = next.request.encoded().len();
                    let is_full = batch.len() >= settings.batch_requests_max
                        || bytes.saturating_add(weight) > settings.batch_bytes_max;
                    if is_full && !batch.is_empty() {
                        return false;
                    }
                    bytes = bytes.saturating_add(weight);
                    self.unqueue(*client, arrival);
                    batch.push(next);
                }
                true
            });
        }
        batch
    }

    /// The early requests of `session`: they become proposable, or are handed back to be refused.
    pub(crate) fn take_early(&mut self, session: SessionId) -> Vec<Arc<Request>> {
        let range = (session, Digest([0; 32]))..=(session, Digest([255; 32]));
        let digests: Vec<_> = self.early.range(range).copied().collect();
        for key in &digests {
            self.early.remove(key);
        }
        digests
            .iter()
            .filter_map(|(_, digest)| Some(Arc::clone(&self.pending.get(digest)?.request)))
            .collect()
    }

    /// The lowest session that early requests wait for.
    pub(crate) fn first_early(&self) -> Option<SessionId> {
        self.early.first().map(|(session, _)| *session)
    }

    /// Lets a request be proposed that something held.
    pub(crate) fn queue(&mut self, digest: &Digest) {
        let Some(pending) = self.pending.get_mut(digest) else { return };
        pending.hold = Hold::None;
        let (client, arrival) = (pending.request.client(), pending.arrival);
        self.enqueue(client, arrival, *digest);
    }

    /// Has something hold a request that is not queued.
    pub(crate) fn set_hold(&mut self, digest: &Digest, hold: Hold) {
        if let Some(pending) = self.pending.get_mut(digest) {
            pending.hold = hold;
        }
    }

    /// Removes a request; returns whether its client wants the result whole, `None` if it was not here.
    pub(crate) fn remove(&mut self, digest: &Digest) -> Option<bool> {
        let pending = self.pending.remove(digest)?;
        if !self.forwarded.is_empty() {
            self.forwarded.remove(digest);
        }
        let place = pending.request.place();
        let weight = pending.weight();
        self.places.remove(&place);
        if !self.early.is_empty() {
            self.early.remove(&(place.session, *digest));
        }
        self.bytes = self.bytes.saturating_sub(weight);
        self.unqueue(place.client, pending.arrival);
        if let Some(bytes) = self.clients.get_mut(&place.client) {
            *bytes = bytes.saturating_sub(weight);
            if *bytes == 0 {
                self.clients.remove(&place.client);
            }
        }
        let key = (place.session, place.client);
        if let Some(count) = self.sessions.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sessions.remove(&key);
            }
        }
        Some(pending.whole_result)
    }

    /// Removes whatever request is pending at `place`, which has been executed; returns as [`Self::remove`].
    pub(crate) fn remove_place(&mut self, place: &RequestPlace) -> Option<bool> {
        let digest = self.places.get(place).copied()?;
        self.remove(&digest)
    }

    /// Removes the requests of a session below `floor.sequence`: their client does not wait for them [REQ-4].
    pub(crate) fn remove_below(&mut self, floor: &RequestPlace) {
        let first = RequestPlace { sequence: Sequence(0), ..*floor };
        while let Some((_, digest)) = self.places.range(first..*floor).next() {
            let digest = *digest;
            self.remove(&digest);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Request>> {
        self.pending.values().map(|pending| Arc::clone(&pending.request)).collect()
    }

    /// Removes the requests of a session that has ended.
    pub(crate) fn remove_session(&mut self, client: ClientId, session: SessionId) {
        let end = RequestPlace { client, session, sequence: Sequence(u64::MAX) };
        self.remove_below(&end);
        self.remove_place(&end);
    }

    /// How many requests are pending.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of the requests that are pending.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn front(&self, client: &ClientId) -> Option<(u64, Body)> {
        let (arrival, digest) = self.unproposed.get(client)?.first_key_value()?;
        Some((*arrival, self.body(digest)?))
    }

    fn enqueue(&mut self, client: ClientId, arrival: u64, digest: Digest) {
        if self.unproposed.entry(client).or_default().insert(arrival, digest).is_none() {
            self.queued = self.queued.saturating_add(1);
        }
    }

    fn unqueue(&mut self, client: ClientId, arrival: u64) {
        let Some(queue) = self.unproposed.get_mut(&client) else { return };
        if queue.remove(&arrival).is_some() {
            self.queued = self.queued.saturating_sub(1);
        }
        if queue.is_empty() {
            self.unproposed.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PublicKey, Signature};

    fn request(client: u8, sequence: u64, payload: &[u8]) -> Arc<Request> {
        let client = ClientId([client; 32]);
        Arc::new(Request::ordered(client, SessionId(1 << 16), Sequence(sequence), Sequence(0), payload))
    }

    fn insert(requests: &mut Requests, request: &Arc<Request>) -> Result<(), Full> {
        insert_with(requests, request, None, &Settings::default())
    }

    fn insert_with(
        requests: &mut Requests,
        request: &Arc<Request>,
        proof: Option<Arc<BundleProof>>,
        settings: &Settings,
    ) -> Result<(), Full> {
        let body = Body { request: Arc::clone(request), proof };
        requests.insert(&body, false, Hold::None, Timestamp(0), settings)
    }

    #[test]
    fn a_place_holds_one_request() {
        let mut requests = Requests::default();
        assert_eq!(insert(&mut requests, &request(1, 1, b"a")), Ok(()));
        assert_eq!(insert(&mut requests, &request(1, 1, b"a")), Ok(()));
        assert_eq!(insert(&mut requests, &request(1, 1, b"b")), Err(Full::Reused));
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn what_is_forwarded_in_vain_is_not_in_the_way_of_what_never_was() {
        let mut requests = Requests::default();
        for sequence in 0..64 {
            insert(&mut requests, &request(1, sequence, b"in vain")).unwrap();
        }
        let other = request(2, 0, b"later");
        insert(&mut requests, &other).unwrap();
        // Nothing that is forwarded comes to anything: all of it is due again at once.
        let mut forward = |now: u64| {
            let due = requests.unforwarded(Timestamp(now), |_, _| false);
            let digests: Vec<Digest> = due.iter().map(|body| body.request.digest()).collect();
            digests.iter().for_each(|digest| requests.mark_forwarded(digest, Timestamp(now), Timestamp(0)));
            digests
        };
        let first = forward(1);
        assert_eq!((first.len(), first.contains(&other.digest())), (FORWARD_MAX, false));
        let second = forward(2);
        assert_eq!(second[0], other.digest());
        assert_eq!(second[1..], first[..FORWARD_MAX - 1], "then those whose turn is longest ago");
    }

    #[test]
    fn a_flooding_client_leaves_room_for_others_in_a_batch() {
        let mut requests = Requests::default();
        for sequence in 0..64 {
            insert(&mut requests, &request(1, sequence, b"flood")).unwrap();
        }
        insert(&mut requests, &request(2, 0, b"quiet")).unwrap();
        let settings = Settings { batch_requests_max: 20, ..Settings::default() };
        let batch = requests.take_batch(&settings);
        assert_eq!(batch.len(), 20);
        assert!(batch.iter().any(|body| body.request.client() == ClientId([2; 32])));
    }

    #[test]
    fn a_batch_keeps_to_its_bytes_and_requests_are_taken_once() {
        let mut requests = Requests::default();
        for sequence in 0..3 {
            insert(&mut requests, &request(1, sequence, &[0; 100])).unwrap();
        }
        let settings = Settings { batch_bytes_max: 400, ..Settings::default() };
        let sizes: Vec<_> = (0..3).map(|_| requests.take_batch(&settings).len()).collect();
        assert_eq!(sizes, [2, 1, 0]);
    }

    #[test]
    fn a_client_over_its_bytes_is_busy_until_some_are_executed() {
        let mut requests = Requests::default();
        let settings = Settings { client_pending_bytes_max: 200, ..Settings::default() };
        let (first, second) = (request(1, 1, &[0; 100]), request(1, 2, &[0; 100]));
        assert_eq!(insert_with(&mut requests, &first, None, &settings), Ok(()));
        assert_eq!(insert_with(&mut requests, &second, None, &settings), Err(Full::Busy));
        requests.remove(&first.digest());
        assert_eq!(insert_with(&mut requests, &second, None, &settings), Ok(()));
        assert_eq!(requests.bytes(), 161);
    }

    #[test]
    fn a_proof_counts_for_its_client_as_long_as_it_is_kept() {
        let mut requests = Requests::default();
        let proof = BundleProof {
            key: PublicKey([4; 32]),
            requests: vec![Digest([1; 32]); 256],
            signature: Signature([0; 64]),
        };
        let proof = Some(Arc::new(proof));
        let settings = Settings { client_pending_bytes_max: 10_000, ..Settings::default() };
        let (first, second) = (request(1, 1, b"x"), request(1, 2, b"x"));
        assert_eq!(insert_with(&mut requests, &first, proof.clone(), &settings), Ok(()));
        assert_eq!(insert_with(&mut requests, &second, proof, &settings), Err(Full::Busy));
        requests.remove(&first.digest());
        assert_eq!((requests.bytes(), requests.sessions.len(), requests.clients.len()), (0, 0, 0));
    }

    #[test]
    fn what_lies_below_the_floor_leaves() {
        let mut requests = Requests::default();
        for sequence in 0..4 {
            insert(&mut requests, &request(1, sequence, b"x")).unwrap();
        }
        requests.remove_below(&request(1, 3, b"").place());
        assert_eq!(requests.len(), 1);
        assert_eq!(requests.remove_place(&request(1, 3, b"").place()), Some(false));
        assert!(!requests.has_unproposed());
    }

    #[test]
    fn early_requests_are_not_proposed_until_their_session_opens() {
        let mut requests = Requests::default();
        let early = request(1, 1, b"early");
        let body = Body { request: Arc::clone(&early), proof: None };
        requests.insert(&body, false, Hold::Early, Timestamp(0), &Settings::default()).unwrap();
        assert!(!requests.has_unproposed());
        assert_eq!(requests.first_early(), Some(SessionId(1 << 16)));
        assert_eq!(requests.take_early(SessionId(1 << 16)), [Arc::clone(&early)]);
        requests.queue(&early.digest());
        assert_eq!(requests.take_batch(&Settings::default()), [Body { request: early, proof: None }]);
    }
}
