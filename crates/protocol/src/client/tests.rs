//! A session against replicas that answer, refuse, lie, or say nothing.

use super::*;
use crate::digest::{self, Domain};
use crate::ids::{ClusterId, Digest, PublicKey};
use crate::message::RequestKind;
use crate::view::{Clients, Member, Mode, RequestAuth, ViewParts};

const CLIENT: ClientId = ClientId([5; 32]);
const NONCE: u64 = 77;
const SESSION: SessionId = SessionId(9 << 16);
const START: Timestamp = Timestamp(1_000_000_000);
const RETRY: Retry = Retry {
    first: Duration::from_millis(100),
    longest: Duration::from_millis(800),
    whole: Duration::from_millis(20),
};

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A session, its clock, and what it wants done.
struct Scene {
    session: ClientSession,
    now: Timestamp,
    actions: Vec<ClientAction>,
}

impl Scene {
    fn of(mode: Mode, n: u16, faults: usize) -> Self {
        let members = (0..n)
            .map(|id| Member {
                id: ReplicaId(id),
                address: format!("host-{id}:1"),
                key: PublicKey([u8::try_from(id).unwrap() + 1; 32]),
            })
            .collect();
        let view = View::new(ViewParts {
            cluster: ClusterId([7; 32]),
            id: ViewId(0),
            mode,
            faults,
            members,
            clients: Clients::Open,
            request_auth: RequestAuth::Channel,
        });
        let settings = Settings { session_window: 4, request_bytes_max: 100, ..Settings::default() };
        let session = ClientSession::new(Arc::new(view.unwrap()), Arc::new(settings), CLIENT, NONCE, RETRY);
        Self { session, now: START, actions: vec![] }
    }

    fn new() -> Self {
        Self::of(Mode::Bft, 4, 1)
    }

    /// A scene whose session is open.
    fn opened() -> Self {
        let mut scene = Self::new();
        scene.tick();
        scene.open_by(&[0, 1]);
        scene
    }

    fn open_by(&mut self, replicas: &[u16]) {
        let nonce = self.session.opening().unwrap();
        for replica in replicas {
            let result = Outcome::Result(Bytes::copy_from_slice(&SESSION.0.to_le_bytes()));
            self.reply(*replica, SessionId::NONE, nonce, result);
        }
        assert_eq!(self.session.id(), Some(SESSION));
        self.actions.clear();
    }

    fn handle(&mut self, event: ClientEvent) {
        self.session.handle(self.now, event, &mut self.actions);
    }

    fn tick(&mut self) {
        self.handle(ClientEvent::Tick);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.tick();
    }

    fn reply(&mut self, from: u16, session: SessionId, sequence: Sequence, outcome: Outcome) {
        let reply = Reply { session, sequence, outcome };
        self.handle(ClientEvent::Reply { from: ReplicaId(from), view: ViewId(0), reply });
    }

    fn answer(&mut self, from: u16, sequence: u64, outcome: Outcome) {
        self.reply(from, SESSION, Sequence(sequence), outcome);
    }

    fn try_submit(&mut self, payload: &'static [u8]) -> Result<Sequence, SubmitError> {
        let deadline = self.now.plus(millis(5000));
        self.session.submit(self.now, Bytes::from_static(payload), deadline, &mut self.actions)
    }

    fn submit(&mut self, payload: &'static [u8]) -> Sequence {
        self.try_submit(payload).unwrap()
    }

    /// The calls that ended since last asked.
    fn completed(&mut self) -> Vec<(u64, Result<Bytes, CallError>)> {
        let ended = self.actions.extract_if(.., |action| matches!(action, ClientAction::Completed { .. }));
        ended
            .map(|action| match action {
                ClientAction::Completed { sequence, outcome, .. } => (sequence.0, outcome),
                ClientAction::Send { .. } | ClientAction::Opened(_) => unreachable!(),
            })
            .collect()
    }

    /// The transmissions since last asked: to whom, sequence, floor, whole results.
    fn sent(&mut self) -> Vec<(Recipients, u64, u64, bool)> {
        let sent = self.actions.extract_if(.., |action| matches!(action, ClientAction::Send { .. }));
        sent.map(|action| match action {
            ClientAction::Send { to, request, whole_results } => {
                (to, request.sequence().0, request.floor().0, whole_results)
            }
            ClientAction::Completed { .. } | ClientAction::Opened(_) => unreachable!(),
        })
        .collect()
    }
}

fn result(text: &'static str) -> Outcome {
    Outcome::Result(Bytes::from_static(text.as_bytes()))
}

fn digest_of(text: &str) -> Digest {
    digest::digest(Domain::Result, text.as_bytes())
}

fn hash(text: &str) -> Outcome {
    Outcome::ResultDigest(digest_of(text))
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn busy(pause: u64) -> Outcome {
    refused(Refusal::Busy { retry_after: millis(pause) })
}

fn ok(text: &'static str) -> Result<Bytes, CallError> {
    Ok(Bytes::from_static(text.as_bytes()))
}

#[test]
fn the_first_event_opens_the_session_and_queued_calls_follow() {
    let mut scene = Scene::new();
    assert_eq!(scene.session.next_deadline(), Some(Timestamp(0)));
    scene.submit(b"a");
    let [ClientAction::Send { to: Recipients::All, request, whole_results: false }] = &scene.actions[..]
    else {
        panic!("an OPEN to all, not {:?}", scene.actions)
    };
    assert_eq!((request.kind(), request.sequence()), (RequestKind::Open, Sequence(NONCE)));
    assert_eq!(request.valid_until(), Some(START.plus(Settings::default().open_horizon / 2)));
    scene.actions.clear();
    scene.submit(b"b");
    assert_eq!(scene.sent(), []);
    let id = Outcome::Result(Bytes::copy_from_slice(&SESSION.0.to_le_bytes()));
    scene.reply(0, SessionId::NONE, Sequence(NONCE), id.clone());
    assert!(!scene.session.is_open(), "one reply is not enough");
    scene.reply(3, SessionId::NONE, Sequence(NONCE), id);
    assert_eq!(scene.actions.remove(0), ClientAction::Opened(SESSION));
    assert_eq!(scene.sent(), [(Recipients::All, 0, 0, false), (Recipients::All, 1, 0, false)]);
}

#[test]
fn a_result_counts_when_weak_replicas_sent_the_same() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(2, 0, result("lie"));
    scene.answer(0, 0, result("true"));
    assert_eq!(scene.completed(), []);
    scene.answer(1, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
    scene.answer(3, 0, result("true"));
    assert_eq!(scene.completed(), [], "an answer too many is nothing");
    assert_eq!(scene.session.outstanding(), 0);
}

#[test]
fn with_two_faults_three_equal_answers_are_needed() {
    let mut scene = Scene::of(Mode::Bft, 7, 2);
    scene.tick();
    scene.open_by(&[0, 3, 6]);
    scene.submit(b"a");
    for liar in [1, 2] {
        scene.answer(liar, 0, result("lie"));
    }
    for honest in [3, 4] {
        scene.answer(honest, 0, result("true"));
    }
    assert_eq!(scene.completed(), []);
    scene.answer(5, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn in_crash_mode_one_answer_is_enough() {
    let mut scene = Scene::of(Mode::Cft, 3, 1);
    scene.tick();
    scene.open_by(&[2]);
    scene.submit(b"a");
    scene.answer(1, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn a_replica_that_answers_twice_counts_once_and_its_first_answer_stays() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(2, 0, result("lie"));
    scene.answer(2, 0, result("lie"));
    assert_eq!(scene.completed(), []);
    scene.answer(0, 0, result("true"));
    scene.answer(2, 0, result("true"));
    assert_eq!(scene.completed(), [], "a liar does not get a second vote");
    scene.answer(3, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn strangers_and_other_views_do_not_count() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, result("x"));
    scene.answer(9, 0, result("x"));
    let reply = Reply { session: SESSION, sequence: Sequence(0), outcome: result("x") };
    scene.handle(ClientEvent::Reply { from: ReplicaId(1), view: ViewId(1), reply });
    scene.reply(2, SessionId(1), Sequence(0), result("x"));
    scene.reply(3, SessionId::NONE, Sequence(0), result("x"));
    assert_eq!(scene.completed(), []);
}

#[test]
fn a_large_result_comes_whole_from_one_and_by_digest_from_the_others() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, hash("large"));
    scene.answer(1, 0, result("large"));
    assert_eq!(scene.completed(), [(0, ok("large"))]);
    scene.submit(b"b");
    scene.answer(1, 1, result("forged"));
    scene.answer(0, 1, hash("large"));
    scene.answer(2, 1, hash("large"));
    assert_eq!(scene.completed(), [], "what was sent whole has another digest");
    scene.answer(3, 1, result("large"));
    assert_eq!(scene.completed(), [(1, ok("large"))]);
}

#[test]
fn without_a_whole_result_all_are_asked_for_it_soon() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.sent();
    scene.answer(0, 0, hash("large"));
    scene.answer(2, 0, hash("large"));
    assert_eq!(scene.session.next_deadline().map(|due| due <= scene.now.plus(RETRY.whole)), Some(true));
    scene.pass(RETRY.whole);
    assert_eq!(scene.sent(), [(Recipients::All, 0, 0, true)]);
    scene.answer(2, 0, result("small"));
    assert_eq!(scene.completed(), [], "not what it sent the digest of");
    scene.answer(0, 0, result("large"));
    assert_eq!(scene.completed(), [(0, ok("large"))]);
}

#[test]
fn a_replica_may_correct_a_refusal_into_a_result() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, busy(10));
    scene.answer(0, 0, result("true"));
    scene.answer(1, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn a_single_refusal_and_mixed_refusals_change_nothing() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, refused(Refusal::SessionExpired));
    scene.answer(1, 0, refused(Refusal::TooLarge));
    scene.answer(2, 0, busy(10));
    assert_eq!(scene.completed(), []);
    assert!(scene.session.is_open());
    scene.answer(1, 0, result("true"));
    scene.answer(2, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn weak_refusals_end_the_call_for_sure() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, refused(Refusal::Rejected));
    scene.answer(1, 0, refused(Refusal::Rejected));
    let error = CallError::Refused(Refusal::Rejected);
    assert_eq!(scene.completed(), [(0, Err(error))]);
    assert!(!error.may_be_executed());
    scene.submit(b"b");
    scene.answer(2, 1, refused(Refusal::ResultTooLarge));
    scene.answer(3, 1, refused(Refusal::ResultTooLarge));
    let error = CallError::ResultUnavailable(Refusal::ResultTooLarge);
    assert_eq!(scene.completed(), [(1, Err(error))]);
    assert!(error.may_be_executed());
}

#[test]
fn busy_is_tried_again_when_the_replicas_say() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.sent();
    scene.answer(0, 0, busy(30));
    scene.answer(1, 0, busy(50));
    scene.pass(millis(49));
    assert_eq!(scene.sent(), []);
    scene.pass(millis(1));
    assert_eq!(scene.sent(), [(Recipients::All, 0, 0, false)]);
    scene.answer(2, 0, busy(30));
    assert_eq!(scene.completed(), [], "refusals of an earlier transmission do not count again");
    scene.answer(0, 0, result("true"));
    scene.answer(1, 0, result("true"));
    assert_eq!(scene.completed(), [(0, ok("true"))]);
}

#[test]
fn an_absurd_pause_is_cut() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.sent();
    scene.answer(0, 0, busy(3_600_000));
    scene.answer(1, 0, busy(1));
    scene.pass(RETRY.longest);
    assert_eq!(scene.sent(), [(Recipients::All, 0, 0, false)]);
}

#[test]
fn requests_are_sent_again_with_growing_pauses_and_equal_bytes() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    let ClientAction::Send { request: first, .. } = scene.actions.remove(0) else { panic!("sent") };
    let mut pauses = vec![];
    let mut last = scene.now;
    while pauses.len() < 5 {
        scene.now = scene.session.next_deadline().unwrap();
        scene.tick();
        for action in std::mem::take(&mut scene.actions) {
            let ClientAction::Send { to: Recipients::All, request, .. } = action else { panic!("sent") };
            assert_eq!(request, first);
            pauses.push(scene.now.since(last));
            last = scene.now;
        }
    }
    for (pause, expected) in pauses.iter().zip([100, 200, 400, 800, 800]) {
        let range = millis(expected) * 3 / 4..=millis(expected) * 5 / 4;
        assert!(range.contains(pause), "{pause:?} is not about {expected} ms");
    }
}

#[test]
fn at_the_deadline_the_error_tells_what_was_heard() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.answer(0, 0, result("x"));
    scene.answer(1, 0, result("y"));
    scene.answer(2, 0, refused(Refusal::SessionExpired));
    // In one step, so that no retransmission forgets the refusal.
    scene.pass(millis(5000));
    let error = CallError::NoQuorum { replies: 2, needed: 2, refused: 1, sent: true };
    assert_eq!(scene.completed(), [(0, Err(error))]);
    assert!(error.may_be_executed());
    scene.answer(0, 0, result("x"));
    assert_eq!(scene.completed(), []);
    assert_eq!(scene.session.next_deadline(), None);
}

#[test]
fn a_call_that_was_never_sent_is_surely_not_executed() {
    let mut scene = Scene::new();
    scene.submit(b"a");
    scene.pass(millis(5000));
    let error = CallError::NoQuorum { replies: 0, needed: 2, refused: 0, sent: false };
    assert_eq!(scene.completed(), [(0, Err(error))]);
    assert!(!error.may_be_executed());
}

#[test]
fn the_window_is_bounded_and_moves_with_the_floor() {
    let mut scene = Scene::opened();
    for payload in [b"a", b"b", b"c", b"d"] {
        scene.submit(payload);
    }
    assert_eq!(scene.try_submit(b"e"), Err(SubmitError::WindowFull(4)));
    for replica in [0, 1] {
        scene.answer(replica, 2, result("x"));
    }
    assert_eq!(scene.session.room(), 0, "the lowest is still unanswered");
    for replica in [0, 1] {
        scene.answer(replica, 0, result("x"));
    }
    assert_eq!(scene.session.room(), 1);
    scene.sent();
    assert_eq!(scene.submit(b"e"), Sequence(4));
    assert_eq!(scene.sent(), [(Recipients::All, 4, 1, false)]);
    for replica in [0, 1] {
        scene.answer(replica, 1, result("x"));
    }
    assert_eq!(scene.session.room(), 2, "the answered one above goes too");
    scene.submit(b"f");
    assert_eq!(scene.sent(), [(Recipients::All, 5, 3, false)]);
    let limit = 100;
    assert_eq!(scene.try_submit(&[0; 101]), Err(SubmitError::TooLarge { bytes: 101, limit }));
}

#[test]
fn a_cancelled_call_raises_the_floor_and_is_silent() {
    let mut scene = Scene::opened();
    let first = scene.submit(b"a");
    scene.submit(b"b");
    scene.sent();
    assert!(scene.session.cancel(first));
    assert!(!scene.session.cancel(first));
    assert!(!scene.session.cancel(Sequence(99)));
    scene.answer(0, 0, result("x"));
    scene.answer(1, 0, result("x"));
    assert_eq!(scene.completed(), []);
    scene.submit(b"c");
    assert_eq!(scene.sent(), [(Recipients::All, 2, 1, false)]);
}

#[test]
fn all_calls_can_be_given_up_at_once() {
    let mut scene = Scene::new();
    scene.submit(b"a");
    scene.open_by(&[0, 1]);
    scene.now = scene.now.plus(millis(3));
    scene.submit(b"b");
    let later = START.plus(millis(3));
    assert_eq!(scene.session.cancel_all(), [(Sequence(0), START, true), (Sequence(1), later, true)]);
    assert_eq!((scene.session.outstanding(), scene.session.cancel_all()), (0, vec![]));
}

#[test]
fn a_new_channel_gets_everything_outstanding() {
    let mut scene = Scene::new();
    scene.tick();
    scene.sent();
    let one = Recipients::One(ReplicaId(3));
    scene.handle(ClientEvent::Connected(ReplicaId(3)));
    assert_eq!(scene.sent(), [(one, NONCE, 0, false)]);
    scene.open_by(&[0, 1]);
    scene.submit(b"a");
    scene.submit(b"b");
    scene.sent();
    scene.handle(ClientEvent::Connected(ReplicaId(3)));
    assert_eq!(scene.sent(), [(one, 0, 0, false), (one, 1, 0, false)]);
}

#[test]
fn an_expired_session_leaves_outcomes_unknown_and_a_new_one_takes_over() {
    let mut scene = Scene::opened();
    scene.submit(b"a");
    scene.submit(b"b");
    scene.sent();
    for replica in [0, 2] {
        scene.answer(replica, 1, refused(Refusal::SessionExpired));
    }
    let unknown = Err(CallError::SessionExpired);
    assert_eq!(scene.completed(), [(0, unknown.clone()), (1, unknown)]);
    assert!(CallError::SessionExpired.may_be_executed());
    let nonce = scene.session.opening().unwrap();
    assert_ne!(nonce, Sequence(NONCE), "a nonce is used once");
    assert_eq!(scene.sent(), [(Recipients::All, nonce.0, 0, false)]);
    assert_eq!(scene.submit(b"c"), Sequence(2));
    assert_eq!(scene.sent(), []);
    let id = Outcome::Result(Bytes::copy_from_slice(&SESSION.0.to_le_bytes()));
    scene.reply(1, SessionId::NONE, Sequence(NONCE), id.clone());
    scene.reply(0, SessionId::NONE, Sequence(NONCE), id.clone());
    assert!(!scene.session.is_open(), "those answer the earlier OPEN");
    for replica in [0, 1] {
        scene.reply(replica, SessionId::NONE, nonce, id.clone());
    }
    assert_eq!(scene.sent(), [(Recipients::All, 2, 2, false)]);
}

#[test]
fn an_open_that_expired_is_replaced_after_a_pause() {
    let mut scene = Scene::new();
    scene.submit(b"a");
    scene.sent();
    for replica in [0, 1] {
        scene.reply(replica, SessionId::NONE, Sequence(NONCE), refused(Refusal::OpenExpired));
    }
    assert_eq!((scene.sent(), scene.completed()), (vec![], vec![]));
    let nonce = scene.session.opening().unwrap();
    assert_ne!(nonce, Sequence(NONCE));
    scene.pass(RETRY.first);
    assert_eq!(scene.sent(), [(Recipients::All, nonce.0, 0, false)]);
}

#[test]
fn an_open_that_nobody_answers_is_replaced_when_it_cannot_be_valid_any_more() {
    let mut scene = Scene::new();
    scene.tick();
    let settings = Settings::default();
    scene.pass(settings.open_horizon / 2 + settings.max_clock_skew);
    assert_eq!(scene.session.opening(), Some(Sequence(NONCE)));
    scene.pass(millis(1));
    assert_ne!(scene.session.opening(), Some(Sequence(NONCE)));
}

#[test]
fn a_refused_session_fails_what_waits_and_is_asked_for_again_seldom() {
    let mut scene = Scene::new();
    scene.submit(b"a");
    scene.sent();
    for replica in [1, 2] {
        scene.reply(replica, SessionId::NONE, Sequence(NONCE), refused(Refusal::SessionsExhausted));
    }
    let error = CallError::Refused(Refusal::SessionsExhausted);
    assert_eq!(scene.completed(), [(0, Err(error))]);
    scene.pass(RETRY.longest - millis(1));
    assert_eq!(scene.sent(), []);
    scene.pass(millis(1));
    assert_eq!(scene.sent().len(), 1);
    scene.open_by(&[0, 3]);
}

#[test]
fn a_malformed_session_id_opens_nothing() {
    let mut scene = Scene::new();
    scene.tick();
    for replica in [0, 1] {
        scene.reply(replica, SessionId::NONE, Sequence(NONCE), result("short"));
    }
    assert!(!scene.session.is_open());
}

#[test]
fn equal_events_give_equal_actions() {
    let run = || {
        let mut scene = Scene::opened();
        for payload in [b"a", b"b", b"c"] {
            scene.submit(payload);
        }
        for _ in 0..40 {
            scene.pass(millis(37));
        }
        scene.answer(0, 1, result("x"));
        scene.answer(1, 1, result("x"));
        scene.actions
    };
    assert_eq!(run(), run());
}

#[cfg(feature = "mutants")]
#[test]
fn a_mutant_that_counts_messages_believes_one_liar() {
    use crate::mutants::{Mutant, activate};
    let mut scene = Scene::opened();
    scene.submit(b"a");
    activate(Some(Mutant::RepliesPerMessage));
    scene.answer(2, 0, result("lie"));
    scene.answer(2, 0, result("lie"));
    activate(None);
    assert_eq!(scene.completed(), [(0, ok("lie"))]);
}
