//! Clients and peers in the normal case: floods, sizes, numbers at their ends.

use std::sync::Arc;

use regency_protocol::action::Reason;
use regency_protocol::codec::Wire;
use regency_protocol::digest::{chain_genesis, chain_next};
use regency_protocol::event::Event;
use regency_protocol::ids::{
    ClientId, Digest, InstanceId, Regency, ReplicaId, Sequence, SessionId, Signature,
};
use regency_protocol::limits::{PEER_FRAME_BYTES_MAX, Settings};
use regency_protocol::message::{
    Batch, Body, ChainCertificate, Decided, FetchBatch, FetchBodies, Message, Propose, Request, Vote,
};
use regency_protocol::time::Timestamp;
use regency_protocol::view::RequestAuth;

use crate::lone::{
    ALICE, CLUSTER, Lone, MALLORY, VIEW, bodies, has_written, is_busy, operation, proof, reasons, sent, vote,
};

#[test]
fn a_proposed_request_is_handed_out_although_the_floor_has_passed_it() {
    let mut leader = Lone::new(0, RequestAuth::Signature, Settings::default());
    let session = leader.open(MALLORY, 1);
    let (later, sooner) = (operation(MALLORY, session, 11, b"b"), operation(MALLORY, session, 10, b"a"));
    leader.request(&later);
    let first = leader.proposals();
    leader.request(&sooner);
    let second = leader.proposals();
    assert_eq!(second[0].requests, [sooner.digest()]);
    leader.decide(&first[0]);
    let ask = FetchBodies { instance: second[0].instance, requests: vec![sooner.digest()] };
    let answer = bodies(&leader.message(1, Message::FetchBodies(ask)));
    assert_eq!(answer, [Body { proof: Some(Arc::new(proof(&[sooner.digest()]))), request: sooner }]);
}

#[test]
fn a_request_that_can_have_no_effect_needs_no_channel() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let session = backup.open(ALICE, 1);
    let (later, sooner) = (operation(ALICE, session, 11, b"b"), operation(ALICE, session, 10, b"a"));
    backup.request(&later);
    backup.request(&sooner);
    let first = backup.batch(2, &[&later]);
    backup.propose(&first);
    backup.decide(&first);
    // It left the pool with the floor; the leader's proposal was under way before that.
    let second = backup.batch(3, &[&sooner]);
    assert!(!has_written(&backup.propose(&second), &second));
    let body = Body { request: sooner, proof: None };
    assert!(has_written(&backup.message(0, Message::Bodies(vec![body])), &second));
    // A forged one that could have an effect is not voted for.
    let forged = operation(ALICE, session, 12, b"forged");
    let third = backup.batch(4, &[&forged]);
    backup.propose(&third);
    let body = Body { request: forged, proof: None };
    assert!(!has_written(&backup.message(0, Message::Bodies(vec![body])), &third));
}

#[test]
fn a_batch_over_its_bytes_is_not_voted_for_although_all_its_bodies_came_from_clients() {
    let settings = Settings::default();
    let mut backup = Lone::new(3, RequestAuth::Channel, settings.clone());
    let session = backup.open(MALLORY, 1);
    let payload = vec![0; settings.request_bytes_max];
    let requests: Vec<_> = (0..4).map(|n| operation(MALLORY, session, n, &payload)).collect();
    for request in &requests {
        backup.request(request);
    }
    let batch = backup.batch(2, &requests.iter().collect::<Vec<_>>());
    let actions = backup.propose(&batch);
    assert!(!has_written(&actions, &batch));
    assert_eq!(reasons(&actions), [Reason::BatchTooLarge]);
}

#[test]
fn a_request_that_a_proposal_waits_for_is_taken_although_the_client_is_busy() {
    let settings = Settings { client_pending_bytes_max: 200, ..Settings::default() };
    let mut backup = Lone::new(3, RequestAuth::Channel, settings);
    let session = backup.open(ALICE, 1);
    let (first, second) = (operation(ALICE, session, 0, b"a"), operation(ALICE, session, 1, b"b"));
    backup.request(&first);
    assert!(is_busy(&backup.request(&second)));
    let batch = backup.batch(2, &[&second]);
    backup.propose(&batch);
    assert!(has_written(&backup.request(&second), &batch));
}

#[test]
fn what_a_certificate_proves_is_not_asked_for_again_once_delivered() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let session = backup.open(ALICE, 1);
    let chain_1 = backup.status().chain;
    let requests: Vec<_> = (0..2).map(|n| operation(ALICE, session, n, b"x")).collect();
    let batches: Vec<_> = (0..2).map(|n| backup.batch(2 + n, &[&requests[n as usize]])).collect();
    for (request, batch) in requests.iter().zip(&batches) {
        backup.request(request);
        backup.propose(batch);
    }
    backup.decide(&batches[1]);
    assert_eq!(backup.status().decided, InstanceId(1));
    let chain = batches.iter().fold(chain_1, |chain, batch| chain_next(&chain, &batch.digest()));
    for batch in &batches {
        let decided = Decided { view: VIEW, instance: batch.instance, digest: batch.digest() };
        backup.message(1, Message::Decided(decided));
    }
    let signatures = vec![(ReplicaId(0), Signature([0; 64])), (ReplicaId(1), Signature([0; 64]))];
    let certificate = ChainCertificate { view: VIEW, instance: InstanceId(3), chain, signatures };
    backup.message(1, Message::ChainCertificate(certificate));
    let actions = backup.pass(1_000);
    let status = backup.status();
    assert_eq!((status.decided, status.chain, status.open_instances), (InstanceId(3), chain, 0));
    assert!(!sent(&actions).iter().any(|message| matches!(message, Message::FetchBatch(_))));
    assert_eq!(backup.replica.next_deadline(), None);
    assert_ne!(chain_1, chain_genesis(&CLUSTER));
}

#[test]
fn an_answer_with_long_proofs_fits_a_frame() {
    let mut leader = Lone::new(0, RequestAuth::Signature, Settings::default());
    let requests: Vec<_> = (0..1024_u64)
        .map(|n| {
            let client = ClientId([u8::try_from(n % 200).unwrap(); 32]);
            let request = Arc::new(Request::open(client, n, leader.now));
            let digests: Vec<_> =
                (0..255).map(|other| Digest([other; 32])).chain([request.digest()]).collect();
            leader.request_under(&request, Arc::new(proof(&digests)));
            request
        })
        .collect();
    let ask =
        FetchBodies { instance: InstanceId(1), requests: requests.iter().map(|r| r.digest()).collect() };
    let actions = leader.message(1, Message::FetchBodies(ask));
    let answer = sent(&actions)[0];
    assert!(answer.to_frame().len() <= PEER_FRAME_BYTES_MAX, "{}", answer.to_frame().len());
    assert!(bodies(&actions).len() > 100);
}

#[test]
fn an_early_proposal_is_kept_only_within_the_limits_of_a_batch() {
    let settings = Settings::default();
    let mut backup = Lone::new(3, RequestAuth::Signature, settings.clone());
    let early = settings.window + 1;
    let digests = (0..=settings.batch_requests_max as u64).map(|n| Digest([(n % 251) as u8; 32])).collect();
    let timestamp = backup.now;
    let batch = Arc::new(Batch { view: VIEW, instance: InstanceId(early), timestamp, requests: digests });
    assert_eq!(reasons(&backup.propose(&batch)), [Reason::BatchTooLarge]);
}

#[test]
fn a_batch_that_was_asked_for_is_not_asked_for_again_with_every_statement() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let decided = Decided { view: VIEW, instance: InstanceId(1), digest: Digest([7; 32]) };
    let mut fetches = 0;
    for _ in 0..10 {
        for from in 0..3 {
            backup.message(from, Message::Decided(decided));
            let actions = backup.event(Event::Tick);
            fetches += sent(&actions).iter().filter(|sent| matches!(sent, Message::FetchBatch(_))).count();
        }
    }
    assert_eq!(fetches, 1);
    let actions = backup.pass(1_000);
    let fetches = sent(&actions).iter().filter(|sent| matches!(sent, Message::FetchBatch(_))).count();
    assert!((5..50).contains(&fetches), "{fetches}");
}

#[test]
fn batches_are_handed_out_within_a_bound_of_bytes() {
    let settings = Settings::default();
    let mut backup = Lone::new(3, RequestAuth::Channel, settings.clone());
    let session = backup.open(ALICE, 1);
    let large = operation(ALICE, session, 0, &vec![0; settings.request_bytes_max]);
    backup.request(&large);
    let batch = backup.batch(2, &[&large]);
    backup.propose(&batch);
    backup.decide(&batch);
    let ask = FetchBatch { view: VIEW, instance: InstanceId(2), digest: batch.digest() };
    let answered =
        (0..1_000).filter(|_| !sent(&backup.message(2, Message::FetchBatch(ask))).is_empty()).count();
    assert!((16..200).contains(&answered), "{answered}");
    backup.pass(200);
    assert!(!sent(&backup.message(2, Message::FetchBatch(ask))).is_empty(), "the next period begins anew");
}

#[test]
fn a_long_backlog_of_early_proposals_is_worked_off_without_recursion() {
    let window = 4_000;
    let settings = Settings {
        window,
        span: 3 * window,
        chain_interval: window,
        retained_instances: 5 * window,
        ..Settings::default()
    };
    let mut backup = Lone::new(3, RequestAuth::Channel, settings);
    let batches: Vec<_> = (1..=3 * window).map(|instance| backup.batch(instance, &[])).collect();
    for batch in &batches {
        backup.propose(batch);
        for from in 0..3 {
            if batch.instance > InstanceId(1) {
                backup.message(from, Message::Accept(vote(batch)));
            }
        }
    }
    assert_eq!(backup.status().decided, InstanceId(0));
    backup.decide(&batches[0]);
    assert_eq!(backup.status().decided, InstanceId(3 * window));
}

#[test]
fn numbers_at_their_ends_are_survived() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let session = backup.open(ALICE, 1);
    for number in [0, 1, u64::MAX - 1, u64::MAX] {
        let digest = Digest([5; 32]);
        let instance = InstanceId(number);
        for regency in [Regency(0), Regency(number)] {
            let vote = Vote { view: VIEW, instance, regency, digest };
            for from in 0..3 {
                backup.message(from, Message::Write(vote));
                backup.message(from, Message::Accept(vote));
            }
            let timestamp = Timestamp(number);
            let batch = Arc::new(Batch { view: VIEW, instance, timestamp, requests: vec![digest] });
            backup.message(0, Message::Propose(Propose { regency, batch, inline: Vec::new() }));
        }
        backup.message(1, Message::Decided(Decided { view: VIEW, instance, digest }));
        backup.message(1, Message::FetchBatch(FetchBatch { view: VIEW, instance, digest }));
        backup.message(1, Message::FetchBodies(FetchBodies { instance, requests: vec![digest] }));
        for (session, sequence, floor) in
            [(session, number, number), (session, number, 0), (SessionId(number), 0, number)]
        {
            backup.request(&Arc::new(Request::ordered(
                ALICE,
                session,
                Sequence(sequence),
                Sequence(floor),
                b"x",
            )));
        }
        backup.request(&Arc::new(Request::open(ALICE, number, Timestamp(number))));
        backup.pass(300);
    }
    assert_eq!(backup.status().decided, InstanceId(1));
}

#[test]
fn a_flooding_session_leaves_room_in_the_pool_for_others() {
    let settings =
        Settings { session_window: 4, sessions_max: 2, pending_requests_max: 8, ..Settings::default() };
    let mut backup = Lone::new(3, RequestAuth::Signature, settings);
    let mallory = backup.open(MALLORY, 1);
    let alice = backup.open(ALICE, 1);
    let refused = (0..20).filter(|n| is_busy(&backup.request(&operation(MALLORY, mallory, *n, b"flood"))));
    assert_eq!(refused.count(), 16);
    for sequence in 0..4 {
        assert!(!is_busy(&backup.request(&operation(ALICE, alice, sequence, b"quiet"))));
    }
}

#[test]
fn a_session_invented_far_ahead_gives_way_to_one_that_may_exist() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    for n in 0..5_000 {
        backup.request(&operation(MALLORY, SessionId(u64::MAX - n), 0, b"never"));
    }
    let pending = backup.status().pending_requests;
    assert!(!is_busy(&backup.request(&operation(ALICE, SessionId::at(InstanceId(7), 0), 0, b"soon"))));
    assert_eq!(backup.status().pending_requests, pending);
}

#[test]
fn the_requests_of_an_evicted_session_leave_the_pool() {
    let settings = Settings { client_sessions_max: 1, ..Settings::default() };
    let mut backup = Lone::new(3, RequestAuth::Signature, settings.clone());
    let session = backup.open(ALICE, 1);
    backup.request(&operation(ALICE, session, 0, b"the leader never gets it"));
    assert_eq!(backup.status().pending_requests, 1);
    backup.now = backup.now.plus(settings.session_idle);
    backup.open(ALICE, 2);
    let status = backup.status();
    assert_eq!((status.sessions, status.pending_requests, status.pending_bytes), (1, 0, 0));
}
