//! The replicated session table: exactly-once and the reply cache [REQ-4, REQ-6].
//!
//! A pure function of the total order, except for results, which the service fills in later in the same
//! order. The replica's delivery walk calls it for every decided request, its request walk asks it.

mod image;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::ids::{ClientId, Digest, InstanceId, Sequence, SessionId};
use crate::limits::Settings;
use crate::message::{Outcome, Refusal, Request, RequestKind};
use crate::mutants::{Mutant, is_active};
use crate::time::Timestamp;

/// All open sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// Which session an OPEN that is still valid has made.
    opened: BTreeMap<(ClientId, Sequence), SessionId>,
    /// When those OPENs cease to be valid, in ordered time.
    expiries: BTreeSet<(Timestamp, ClientId, Sequence)>,
    per_client: BTreeMap<ClientId, usize>,
    /// Sessions that were closed and not yet told of.
    ended: Vec<(ClientId, SessionId)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    client: ClientId,
    floor: Sequence,
    last_used: Timestamp,
    /// Entry `k` belongs to sequence `floor + k`.
    entries: VecDeque<Option<Entry>>,
    /// Bytes of results in `entries`.
    result_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    digest: Digest,
    outcome: Option<Outcome>,
}

/// What the table knows of a request before it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it may be ordered.
    New,
    /// It was delivered, its result is not there yet.
    Executing,
    /// It was executed.
    Answered(Outcome),
    /// Another request was delivered under its sequence.
    Reused,
    /// Its sequence lies below the session's floor.
    BelowFloor,
    /// Its session, or for an OPEN the nonce, is not in the table.
    NoSession,
}

/// What becomes of a request at its place in the total order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The service executes it.
    Execute,
    /// It is answered at once.
    Answer(Outcome),
    /// It was delivered before, or lies below the floor: nothing happens.
    Nothing,
}

impl Sessions {
    /// What is known of `request` [REQ-4].
    pub(crate) fn lookup(&self, request: &Request) -> Known {
        if request.kind() == RequestKind::Open {
            return match self.opened.get(&(request.client(), request.sequence())) {
                Some(session) => Known::Answered(opened(*session)),
                None => Known::NoSession,
            };
        }
        let Some(session) = self.session(request) else { return Known::NoSession };
        if request.sequence() < session.floor {
            return Known::BelowFloor;
        }
        match session.entry(request.sequence()) {
            None => Known::New,
            Some(entry) if entry.digest != request.digest() => Known::Reused,
            Some(Entry { outcome: Some(outcome), .. }) => Known::Answered(outcome.clone()),
            Some(Entry { outcome: None, .. }) => Known::Executing,
        }
    }

    /// Takes the request at `position` of `instance`, at ordered time `now`.
    pub(crate) fn deliver(
        &mut self,
        request: &Request,
        instance: InstanceId,
        position: u16,
        now: Timestamp,
        settings: &Settings,
    ) -> Delivered {
        match request.kind() {
            RequestKind::Open => {
                Delivered::Answer(self.open(request, SessionId::at(instance, position), now, settings))
            }
            RequestKind::Ordered => self.admit(request, now, settings),
        }
    }

    /// Stores the result of a request that was delivered for execution; returns what to answer.
    pub(crate) fn executed(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        result: Bytes,
        settings: &Settings,
    ) -> Option<Outcome> {
        let outcome = if result.len() > settings.result_bytes_max {
            Outcome::Refused(Refusal::ResultTooLarge)
        } else {
            Outcome::Result(result)
        };
        let table = self.sessions.get_mut(&session)?;
        table.store(sequence, outcome.clone(), settings.session_result_bytes_max);
        Some(outcome)
    }

    /// The sessions that were closed since the last call: their pending requests are of no use any more.
    pub(crate) fn take_ended(&mut self) -> Vec<(ClientId, SessionId)> {
        std::mem::take(&mut self.ended)
    }

    /// Forgets what requests came to: only a mutant does.
    pub(crate) fn forget_results(&mut self) {
        for session in self.sessions.values_mut() {
            session.entries.iter_mut().flatten().for_each(|entry| entry.outcome = None);
            session.result_bytes = 0;
        }
    }

    /// How many sessions are open.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of all results that are kept.
    pub(crate) fn result_bytes(&self) -> usize {
        self.sessions.values().map(|session| session.result_bytes).sum()
    }

    /// The session of a request, if it is its client's own.
    fn session(&self, request: &Request) -> Option<&Session> {
        self.sessions.get(&request.session()).filter(|session| session.client == request.client())
    }

    fn open(&mut self, request: &Request, id: SessionId, now: Timestamp, settings: &Settings) -> Outcome {
        self.forget_opens(now);
        let (client, nonce) = (request.client(), request.sequence());
        if let Some(session) = self.opened.get(&(client, nonce)) {
            return opened(*session);
        }
        let valid_until = match request.valid_until() {
            Some(until) if until >= now && until <= now.plus(settings.open_horizon) => until,
            Some(_) | None => return Outcome::Refused(Refusal::OpenExpired),
        };
        let own = self.per_client.get(&client).copied().unwrap_or(0);
        let has_room = if own >= settings.client_sessions_max {
            self.evict(Some(client), now, settings)
        } else {
            self.sessions.len() < settings.sessions_max || self.evict(None, now, settings)
        };
        if !has_room {
            return Outcome::Refused(Refusal::SessionsExhausted);
        }
        let session =
            Session { client, floor: Sequence(0), last_used: now, entries: VecDeque::new(), result_bytes: 0 };
        self.sessions.insert(id, session);
        self.opened.insert((client, nonce), id);
        self.expiries.insert((valid_until, client, nonce));
        let count = self.per_client.entry(client).or_default();
        *count = count.saturating_add(1);
        opened(id)
    }

    fn admit(&mut self, request: &Request, now: Timestamp, settings: &Settings) -> Delivered {
        let client = request.client();
        let Some(session) =
            self.sessions.get_mut(&request.session()).filter(|session| session.client == client)
        else {
            return Delivered::Answer(Outcome::Refused(Refusal::SessionExpired));
        };
        session.last_used = now;
        session.raise(request.floor());
        let sequence = request.sequence();
        if sequence < session.floor || sequence >= session.floor.plus(settings.session_window) {
            // [REQ-4] Below the floor it was answered; above the window no correct replica orders it, because
            // `sequence < request floor + W` is checked purely.
            return if is_active(Mutant::SequenceUnchecked) {
                Delivered::Execute
            } else {
                Delivered::Nothing
            };
        }
        match session.entry(sequence) {
            None => {
                session.mark(sequence, request.digest());
                Delivered::Execute
            }
            Some(_) if is_active(Mutant::RequestTwiceExecuted) => Delivered::Execute,
            Some(entry) if entry.digest != request.digest() => {
                Delivered::Answer(Outcome::Refused(Refusal::SequenceReused))
            }
            Some(_) => Delivered::Nothing,
        }
    }

    /// Drops the nonces whose OPEN is not valid any more; a late copy is refused by its time.
    fn forget_opens(&mut self, now: Timestamp) {
        while let Some((until, client, nonce)) = self.expiries.first().copied() {
            if until >= now {
                return;
            }
            self.expiries.pop_first();
            self.opened.remove(&(client, nonce));
        }
    }

    /// Closes the longest unused session that is idle, of `client` or of all; false if none is.
    fn evict(&mut self, client: Option<ClientId>, now: Timestamp, settings: &Settings) -> bool {
        let oldest = self
            .sessions
            .iter()
            .filter(|(_, session)| client.is_none_or(|client| session.client == client))
            .filter(|(_, session)| session.last_used.plus(settings.session_idle) <= now)
            .min_by_key(|(id, session)| (session.last_used, **id))
            .map(|(id, session)| (*id, session.client));
        let Some((id, owner)) = oldest else { return false };
        self.sessions.remove(&id);
        self.ended.push((owner, id));
        self.opened.retain(|_, opened| *opened != id);
        if let Some(count) = self.per_client.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_client.remove(&owner);
            }
        }
        true
    }
}

impl Session {
    fn entry(&self, sequence: Sequence) -> Option<&Entry> {
        let offset = usize::try_from(sequence.0.checked_sub(self.floor.0)?).ok()?;
        self.entries.get(offset)?.as_ref()
    }

    /// Raises the floor, which never falls, and forgets what lies below it [REQ-4].
    fn raise(&mut self, floor: Sequence) {
        while self.floor < floor {
            let Some(entry) = self.entries.pop_front() else {
                self.floor = floor;
                return;
            };
            self.result_bytes = self.result_bytes.saturating_sub(result_bytes(entry.as_ref()));
            self.floor = self.floor.next();
        }
    }

    /// Marks `sequence`, which lies inside the window, as delivered.
    fn mark(&mut self, sequence: Sequence, digest: Digest) {
        let offset = usize::try_from(sequence.0.saturating_sub(self.floor.0)).unwrap_or(usize::MAX);
        if self.entries.len() <= offset {
            self.entries.resize(offset.saturating_add(1), None);
        }
        if let Some(entry) = self.entries.get_mut(offset) {
            *entry = Some(Entry { digest, outcome: None });
        }
    }

    /// Stores an outcome; over the session's bound the lowest sequences lose theirs first, which is the same
    /// everywhere, because results come in the total order.
    fn store(&mut self, sequence: Sequence, outcome: Outcome, bytes_max: usize) {
        let Some(offset) =
            sequence.0.checked_sub(self.floor.0).and_then(|offset| usize::try_from(offset).ok())
        else {
            return;
        };
        if let Some(Some(entry)) = self.entries.get_mut(offset) {
            entry.outcome = Some(outcome);
            self.result_bytes = self.result_bytes.saturating_add(result_bytes(Some(entry)));
        }
        for entry in self.entries.iter_mut().flatten() {
            if self.result_bytes <= bytes_max {
                return;
            }
            let bytes = match &entry.outcome {
                Some(Outcome::Result(result)) => result.len(),
                Some(Outcome::ResultDigest(_) | Outcome::Refused(_)) | None => continue,
            };
            entry.outcome = Some(Outcome::Refused(Refusal::ResultDiscarded));
            self.result_bytes = self.result_bytes.saturating_sub(bytes);
        }
    }
}

fn result_bytes(entry: Option<&Entry>) -> usize {
    match entry.and_then(|entry| entry.outcome.as_ref()) {
        Some(Outcome::Result(result)) => result.len(),
        Some(Outcome::ResultDigest(_) | Outcome::Refused(_)) | None => 0,
    }
}

/// The answer to an OPEN.
fn opened(session: SessionId) -> Outcome {
    Outcome::Result(Bytes::copy_from_slice(&session.0.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId([1; 32]);
    const NOW: Timestamp = Timestamp(1_000_000);

    fn settings() -> Settings {
        Settings { session_window: 4, sessions_max: 2, client_sessions_max: 2, ..Settings::default() }
    }

    fn open(sessions: &mut Sessions, instance: u64, now: Timestamp, nonce: u64) -> Delivered {
        let request = Request::open(CLIENT, nonce, now.plus(settings().open_horizon));
        sessions.deliver(&request, InstanceId(instance), 0, now, &settings())
    }

    fn opened_at(instance: u64) -> SessionId {
        SessionId::at(InstanceId(instance), 0)
    }

    fn request(sequence: u64, floor: u64, payload: &[u8]) -> Request {
        Request::ordered(CLIENT, opened_at(1), Sequence(sequence), Sequence(floor), payload)
    }

    fn deliver(sessions: &mut Sessions, request: &Request) -> Delivered {
        sessions.deliver(request, InstanceId(2), 0, NOW, &settings())
    }

    #[test]
    fn a_request_is_executed_once_and_answered_from_the_table() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 1, NOW, 5);
        let first = request(0, 0, b"a");
        assert_eq!(sessions.lookup(&first), Known::New);
        assert_eq!(deliver(&mut sessions, &first), Delivered::Execute);
        assert_eq!(sessions.lookup(&first), Known::Executing);
        assert_eq!(deliver(&mut sessions, &first), Delivered::Nothing);
        sessions.executed(opened_at(1), Sequence(0), Bytes::from_static(b"r"), &settings());
        assert_eq!(sessions.lookup(&first), Known::Answered(Outcome::Result(Bytes::from_static(b"r"))));
        assert_eq!(sessions.lookup(&request(0, 0, b"b")), Known::Reused);
    }

    #[test]
    fn the_floor_only_rises_and_what_is_below_is_dropped() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 1, NOW, 5);
        assert_eq!(deliver(&mut sessions, &request(3, 3, b"a")), Delivered::Execute);
        assert_eq!(deliver(&mut sessions, &request(2, 0, b"b")), Delivered::Nothing);
        assert_eq!(sessions.lookup(&request(2, 0, b"b")), Known::BelowFloor);
        assert_eq!(deliver(&mut sessions, &request(6, 3, b"c")), Delivered::Execute);
        assert_eq!(deliver(&mut sessions, &request(4, 3, b"d")), Delivered::Execute);
    }

    #[test]
    fn the_same_open_gives_the_same_session() {
        let mut sessions = Sessions::default();
        let first = open(&mut sessions, 1, NOW, 5);
        assert_eq!(first, Delivered::Answer(opened(opened_at(1))));
        assert_eq!(open(&mut sessions, 2, NOW, 5), first);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn an_open_outside_its_time_is_refused() {
        let mut sessions = Sessions::default();
        for until in [NOW.0 - 1, NOW.plus(settings().open_horizon).0 + 1] {
            let request = Request::open(CLIENT, 1, Timestamp(until));
            let refused = Delivered::Answer(Outcome::Refused(Refusal::OpenExpired));
            assert_eq!(deliver(&mut sessions, &request), refused);
        }
    }

    #[test]
    fn a_full_table_refuses_until_a_session_is_idle() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 1, NOW, 1);
        open(&mut sessions, 2, NOW.plus(settings().session_idle), 2);
        let refused = Delivered::Answer(Outcome::Refused(Refusal::SessionsExhausted));
        assert_eq!(open(&mut sessions, 3, NOW, 3), refused);
        let later = NOW.plus(settings().session_idle);
        assert_eq!(open(&mut sessions, 3, later, 3), Delivered::Answer(opened(opened_at(3))));
        assert!(
            !sessions.sessions.contains_key(&opened_at(1)) && sessions.sessions.contains_key(&opened_at(2))
        );
        let expired = Delivered::Answer(Outcome::Refused(Refusal::SessionExpired));
        assert_eq!(deliver(&mut sessions, &request(0, 0, b"late")), expired);
    }

    #[test]
    fn results_over_the_bound_are_discarded_lowest_first() {
        let mut sessions = Sessions::default();
        let settings = Settings { session_result_bytes_max: 10, ..settings() };
        open(&mut sessions, 1, NOW, 5);
        for sequence in 0..2 {
            deliver(&mut sessions, &request(sequence, 0, b"x"));
            sessions.executed(opened_at(1), Sequence(sequence), Bytes::from_static(&[7; 8]), &settings);
        }
        let discarded = Known::Answered(Outcome::Refused(Refusal::ResultDiscarded));
        assert_eq!(sessions.lookup(&request(0, 0, b"x")), discarded);
        assert_eq!(sessions.result_bytes(), 8);
    }
}
