//! Requests that are known by their clients' channels: what peers forward, announce or lack proves nothing alone.

use std::sync::Arc;
use std::time::Duration;

use regency_protocol::action::Reason;
use regency_protocol::event::Event;
use regency_protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId};
use regency_protocol::limits::{
    FETCH_ANSWERS_PER_PERIOD_MAX, FORWARD_MAX, FORWARDS_PER_PERIOD_MAX, Settings,
};
use regency_protocol::message::{Body, Message, Request};
use regency_protocol::view::RequestAuth;

use crate::change::is_dropped;
use crate::lone::{ALICE, Lone, MALLORY, has_written, operation, reasons};

fn body(request: &Arc<Request>) -> Body {
    Body { request: Arc::clone(request), proof: None }
}

/// An OPEN of a key of its own: a liar may have as many as it likes where any key is a client.
fn invented(number: u64, replica: &Lone) -> Body {
    let mut client = [0; 32];
    client[..8].copy_from_slice(&number.to_be_bytes());
    let valid_until = replica.now.plus(Duration::from_secs(60));
    body(&Arc::new(Request::open(ClientId(client), number, valid_until)))
}

/// Replica 2 forwards this.
fn forwarded(replica: &mut Lone, bodies: Vec<Body>) -> Vec<Reason> {
    reasons(&replica.message(2, Message::Forward(bodies)))
}

#[test]
fn every_forward_that_breaks_a_rule_is_dropped_and_counted() {
    let settings = Settings::default();
    let mut backup = Lone::new(3, RequestAuth::Channel, settings.clone());
    let session = SessionId::at(InstanceId(1), 0);
    let ordered = |sequence, floor, payload: &[u8]| {
        Arc::new(Request::ordered(MALLORY, session, Sequence(sequence), Sequence(floor), payload))
    };
    let bad = [
        ordered(0, 0, &vec![0; settings.request_bytes_max + 1]),
        ordered(0, 1, b"below its own floor"),
        ordered(settings.session_window, 0, b"beyond its window"),
        ordered(u64::MAX, 0, b"far beyond its window"),
    ];
    for request in bad {
        is_dropped(&mut backup, 2, Message::Forward(vec![body(&request)]), Reason::BadForward);
    }
    let many = vec![invented(1, &backup); FORWARD_MAX + 1];
    is_dropped(&mut backup, 2, Message::Forward(many), Reason::ForwardTooMuch);
    // What stands beside a bad one is taken.
    let good = invented(1, &backup);
    assert_eq!(forwarded(&mut backup, vec![body(&ordered(0, 1, b"bad")), good]), [Reason::BadForward]);
    assert_eq!(backup.status().announced_requests, 1);
}

#[test]
fn what_one_peer_forwards_is_neither_pending_nor_voted_for() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let session = backup.open(ALICE, 1);
    backup.event(Event::InputDrained);
    let forged = operation(ALICE, session, 0, b"forged");
    for _ in 0..3 {
        assert!(forwarded(&mut backup, vec![body(&forged)]).is_empty());
    }
    assert_eq!(backup.status().pending_requests, 0);
    let batch = backup.batch(2, &[&forged]);
    assert!(!has_written(&backup.propose(&batch), &batch));
    assert!(!has_written(&backup.message(2, Message::Bodies(vec![body(&forged)])), &batch));
    // Nor does it announce what it does not hold itself.
    assert!(backup.event(Event::InputDrained).is_empty());
    // A second peer holds it: one of the two is correct.
    assert!(has_written(&backup.message(1, Message::Announce(vec![forged.digest()])), &batch));
}

#[test]
fn ten_thousand_forwarded_requests_do_not_starve_clients() {
    let mut leader = Lone::new(0, RequestAuth::Channel, Settings::default());
    let mut dropped = 0;
    for first in (0..10_000_u64).step_by(50) {
        let bodies = (first..first + 50).map(|number| invented(number, &leader)).collect();
        let too_much = forwarded(&mut leader, bodies);
        assert!(too_much.iter().all(|reason| *reason == Reason::ForwardTooMuch));
        dropped += 50 * too_much.len();
    }
    let taken = FORWARDS_PER_PERIOD_MAX / 50 * 50;
    assert_eq!(dropped, 10_000 - taken);
    let status = leader.status();
    assert_eq!((status.pending_requests, status.pending_bytes, status.announced_requests), (0, 0, taken));
    assert!(leader.proposals().is_empty());
    // A client's own request, which the others have too, waits for nobody.
    let open = Arc::new(Request::open(ALICE, 1, leader.now.plus(Duration::from_secs(60))));
    leader.request(&open);
    for from in [1, 3] {
        leader.message(from, Message::Announce(vec![open.digest()]));
    }
    assert_eq!(leader.proposals()[0].requests, [open.digest()]);
    // The peer that used up its share has a new one in the next period, and no more than that.
    leader.pass(150);
    let again = (0..FORWARD_MAX as u64).map(|number| invented(20_000 + number, &leader)).collect();
    assert!(forwarded(&mut leader, again).is_empty());
}

#[test]
fn ten_thousand_requests_forwarded_at_leisure_stay_out_of_the_pool() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let session = backup.open(ALICE, 1);
    for first in (0..10_000_u64).step_by(50) {
        let bodies = (first..first + 50).map(|number| invented(number, &backup)).collect();
        assert!(forwarded(&mut backup, bodies).is_empty());
        backup.pass(100);
    }
    let status = backup.status();
    assert_eq!((status.pending_requests, status.pending_bytes), (0, 0));
    assert!(status.announced_requests <= 10_000, "{}", status.announced_requests);
    // It has not cost the leader its term, and the next proposal is voted for.
    assert_eq!(status.wanted_regency, regency_protocol::ids::Regency(0));
    let request = operation(ALICE, session, 0, b"in between");
    backup.request(&request);
    let batch = backup.batch(2, &[&request]);
    assert!(has_written(&backup.propose(&batch), &batch));
}

#[test]
fn a_peer_that_lacks_everything_is_heard_within_its_share() {
    let mut backup = Lone::new(3, RequestAuth::Channel, Settings::default());
    let lack = |number: u64| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Message::Lack(vec![Digest(digest)])
    };
    let heard = (0..10_000).filter(|number| reasons(&backup.message(2, lack(*number))).is_empty()).count();
    assert_eq!(heard, FETCH_ANSWERS_PER_PERIOD_MAX);
    assert_eq!(backup.status().announced_requests, FETCH_ANSWERS_PER_PERIOD_MAX);
    assert_eq!(reasons(&backup.message(2, lack(0))), [Reason::FetchTooMuch]);
    assert!(reasons(&backup.message(1, lack(0))).is_empty(), "another peer has its own");
}
