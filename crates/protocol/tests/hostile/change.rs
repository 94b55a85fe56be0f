//! Leader changes and forwarded requests: everything malformed, unauthorised or too much is dropped and counted.

use std::sync::Arc;

use regency_protocol::action::Reason;
use regency_protocol::event::{Event, Verified};
use regency_protocol::ids::{
    ClientId, Digest, InstanceId, Regency, ReplicaId, Sequence, SessionId, Signature, ViewId,
};
use regency_protocol::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
use regency_protocol::leader_change::sync::Sync;
use regency_protocol::limits::{FETCH_MAX, FORWARD_MAX, FORWARDS_PER_PERIOD_MAX, Settings};
use regency_protocol::message::{
    Body, ChainCertificate, FetchBatch, FetchBodies, Message, Propose, Request, Stop, Vote,
};
use regency_protocol::view::RequestAuth;

use crate::lone::{ALICE, Lone, MALLORY, VIEW, operation, proof, reasons};

const HUGE: u64 = 1 << 63;

fn stated(sender: u16, regency: u64, claims: Vec<Claim>) -> SignedStopData {
    let data = StopData { view: VIEW, regency: Regency(regency), base: None, claims };
    SignedStopData { sender: ReplicaId(sender), data: Arc::new(data), signature: Signature([0; 64]) }
}

fn certified(sender: u16, base: ChainCertificate) -> SignedStopData {
    let data = StopData { view: VIEW, regency: Regency(1), base: Some(base), claims: Vec::new() };
    SignedStopData { sender: ReplicaId(sender), data: Arc::new(data), signature: Signature([0; 64]) }
}

fn certificate(view: u64, instance: u64, signers: &[u16]) -> ChainCertificate {
    let signatures = signers.iter().map(|id| (ReplicaId(*id), Signature([0; 64]))).collect();
    ChainCertificate {
        view: ViewId(view),
        instance: InstanceId(instance),
        chain: Digest([3; 32]),
        signatures,
    }
}

fn claim(instance: u64, epoch: u64) -> Claim {
    let write_set = vec![(Regency(epoch), Digest([7; 32]))];
    Claim { instance: InstanceId(instance), lock: Lock::None, write_set }
}

fn sync(regency: u64, set: Vec<SignedStopData>) -> Sync {
    Sync { view: VIEW, regency: Regency(regency), set, results: Vec::new(), signature: Signature([0; 64]) }
}

fn signed(request: Request) -> Body {
    let proof = Some(Arc::new(proof(&[request.digest()])));
    Body { request: Arc::new(request), proof }
}

/// The message is dropped and counted once, and leaves nothing behind.
pub(crate) fn is_dropped(replica: &mut Lone, from: u16, message: Message, reason: Reason) {
    let before = replica.status();
    let actions = replica.message(from, message.clone());
    assert_eq!(reasons(&actions), [reason], "{message:?}");
    assert_eq!(actions.len(), 1, "{message:?}");
    assert_eq!(replica.status(), before, "{message:?}");
}

#[test]
fn every_stop_and_statement_that_breaks_a_rule_is_dropped_and_counted() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let beyond = Settings::default().span + 1;
    let mut foreign = stated(2, 1, vec![]);
    Arc::make_mut(&mut foreign.data).view = ViewId(1);
    let stop = Stop { view: ViewId(1), regency: Regency(1) };
    is_dropped(&mut backup, 2, Message::Stop(stop), Reason::WrongView);
    is_dropped(&mut backup, 2, Message::StopData(foreign), Reason::WrongView);
    let stuffed = (0..100).map(|n| (Regency(n), Digest([n as u8; 32]))).collect();
    let bad = [
        stated(1, 1, vec![]),
        stated(2, 1, vec![claim(1, 1)]),
        stated(2, 1, vec![claim(1, HUGE)]),
        stated(2, 1, vec![claim(beyond, 0)]),
        stated(2, 1, vec![claim(u64::MAX, 0)]),
        stated(2, 1, vec![claim(0, 0)]),
        stated(2, 1, vec![claim(2, 0), claim(1, 0)]),
        stated(2, 1, vec![Claim { write_set: vec![], ..claim(1, 0) }]),
        stated(2, HUGE, vec![Claim { write_set: stuffed, ..claim(1, 0) }]),
        certified(2, certificate(0, 8, &[0])),
        certified(2, certificate(0, 8, &[0, 0])),
        certified(2, certificate(0, 8, &[0, 9])),
        certified(2, certificate(1, 8, &[0, 1])),
        certified(2, certificate(0, 0, &[0, 1])),
    ];
    for stated in bad {
        is_dropped(&mut backup, 2, Message::StopData(stated), Reason::BadStopData);
    }
    // Nothing precedes the first regency, so nobody asks for it or states anything for it.
    let stop = Stop { view: VIEW, regency: Regency(0) };
    is_dropped(&mut backup, 2, Message::Stop(stop), Reason::WrongRegency);
    is_dropped(&mut backup, 2, Message::StopData(stated(2, 0, vec![])), Reason::BadStopData);
    let stop = Stop { view: VIEW, regency: Regency(1) };
    is_dropped(&mut backup, 9, Message::Stop(stop), Reason::NotAMember);
    is_dropped(&mut backup, 3, Message::Stop(stop), Reason::NotAMember);
    is_dropped(&mut backup, 9, Message::StopData(stated(9, 1, vec![])), Reason::NotAMember);
}

#[test]
fn every_sync_that_breaks_a_rule_is_dropped_and_counted() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let good = |sender| stated(sender, 5, vec![]);
    let bad = [
        vec![],
        vec![good(0), good(1)],
        vec![good(0), good(1), good(1)],
        vec![good(0), good(1), good(9)],
        vec![good(0), good(1), stated(2, 4, vec![])],
        vec![good(0), good(1), stated(2, 5, vec![claim(1, 5)])],
        vec![good(0), good(1), stated(2, 5, vec![claim(u64::MAX, 0)])],
    ];
    for set in bad {
        is_dropped(&mut backup, 1, Message::Sync(Arc::new(sync(5, set))), Reason::BadSync);
    }
    let first = |sender| stated(sender, 0, vec![]);
    for set in [vec![], vec![first(0), first(1), first(2)]] {
        is_dropped(&mut backup, 0, Message::Sync(Arc::new(sync(0, set))), Reason::BadSync);
    }
    let foreign = Sync { view: ViewId(1), ..sync(5, vec![good(0), good(1), good(2)]) };
    is_dropped(&mut backup, 1, Message::Sync(Arc::new(foreign)), Reason::WrongView);
}

#[test]
fn every_fetch_and_forward_that_breaks_a_rule_is_dropped_and_counted() {
    let settings = Settings::default();
    let mut backup = Lone::new(3, RequestAuth::Signature, settings.clone());
    let fetch = FetchBatch { view: ViewId(1), instance: InstanceId(1), digest: Digest([1; 32]) };
    is_dropped(&mut backup, 2, Message::FetchBatch(fetch), Reason::WrongView);
    let fetch = FetchBodies { instance: InstanceId(1), requests: vec![Digest([1; 32]); FETCH_MAX + 1] };
    is_dropped(&mut backup, 2, Message::FetchBodies(fetch), Reason::FetchTooMuch);
    is_dropped(&mut backup, 2, Message::Announce(vec![Digest([1; 32])]), Reason::UnexpectedAnnounce);
    is_dropped(&mut backup, 2, Message::Lack(vec![Digest([1; 32])]), Reason::UnexpectedAnnounce);
    let session = SessionId::at(InstanceId(1), 0);
    let ordered = |sequence, floor, payload: &[u8]| {
        Request::ordered(MALLORY, session, Sequence(sequence), Sequence(floor), payload)
    };
    let unsigned = Body { request: operation(MALLORY, session, 0, b"unsigned"), proof: None };
    let large = vec![0; settings.request_bytes_max + 1];
    let bad = [
        unsigned,
        signed(ordered(0, 0, &large)),
        signed(ordered(0, 1, b"below its own floor")),
        signed(ordered(settings.session_window, 0, b"beyond its window")),
        signed(ordered(u64::MAX, 0, b"far beyond its window")),
    ];
    for body in bad {
        is_dropped(&mut backup, 2, Message::Forward(vec![body]), Reason::BadForward);
    }
    let many = vec![signed(Request::open(MALLORY, 1, backup.now)); FORWARD_MAX + 1];
    is_dropped(&mut backup, 2, Message::Forward(many), Reason::ForwardTooMuch);
}

#[test]
fn what_nobody_needs_any_more_is_dropped_without_a_word() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let good = |sender| stated(sender, 5, vec![]);
    backup.message(1, Message::Sync(Arc::new(sync(5, vec![good(0), good(1), good(2)]))));
    let before = backup.status();
    assert_eq!(before.regency, Regency(5));
    let old = |sender| stated(sender, 2, vec![]);
    let old_sync = sync(2, vec![old(0), old(1), old(2)]);
    assert!(backup.message(2, Message::Sync(Arc::new(old_sync))).is_empty());
    assert!(backup.message(2, Message::StopData(old(2))).is_empty());
    assert!(backup.message(2, Message::Stop(Stop { view: VIEW, regency: Regency(2) })).is_empty());
    assert_eq!(backup.status(), before);
}

#[test]
fn lateness_does_not_excuse_what_was_never_right() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let good = |sender| stated(sender, 5, vec![]);
    backup.message(1, Message::Sync(Arc::new(sync(5, vec![good(0), good(1), good(2)]))));
    for regency in [0, 2] {
        let old = |sender| stated(sender, regency, vec![]);
        let short = Arc::new(sync(regency, vec![old(0), old(1)]));
        is_dropped(&mut backup, 2, Message::Sync(short), Reason::BadSync);
        let impossible = stated(2, regency, vec![claim(1, regency)]);
        is_dropped(&mut backup, 2, Message::StopData(impossible), Reason::BadStopData);
    }
    // A false word about what was selected does not matter any more.
    let old = |sender| stated(sender, 2, vec![]);
    let set = vec![old(0), old(1), old(2)];
    let boasting = Sync { results: vec![(InstanceId(1), Digest([1; 32]))], ..sync(2, set) };
    assert!(backup.message(2, Message::Sync(Arc::new(boasting))).is_empty());
}

#[test]
fn a_regency_of_two_to_the_63_allocates_nothing() {
    let mut backup = Lone::new(3, RequestAuth::Signature, Settings::default());
    let before = backup.status();
    for regency in [HUGE, HUGE + 1, u64::MAX - 1, u64::MAX] {
        let vote =
            Vote { view: VIEW, instance: InstanceId(1), regency: Regency(regency), digest: Digest([1; 32]) };
        let leader = backup.replica.view().leader_of(Regency(regency)).0;
        let batch = backup.batch(1, &[]);
        let propose = Propose { regency: Regency(regency), batch, inline: Vec::new() };
        if leader != 3 {
            backup.message(leader, Message::Propose(propose));
        }
        backup.message(2, Message::Write(vote));
        backup.message(2, Message::Accept(vote));
        backup.message(2, Message::Stop(Stop { view: VIEW, regency: Regency(regency) }));
        backup.message(2, Message::StopData(stated(2, regency, vec![])));
        let set = vec![stated(0, regency, vec![]), stated(2, regency, vec![])];
        backup.message(2, Message::Sync(Arc::new(sync(regency, set))));
        assert_eq!(backup.status(), before);
    }
    assert_eq!(backup.replica.next_deadline(), None);
    // If f+1 want it, somebody correct does: it is one number like any other, and even the last one ends nothing.
    for regency in [HUGE, u64::MAX] {
        for from in [0, 1, 2] {
            backup.message(from, Message::Stop(Stop { view: VIEW, regency: Regency(regency) }));
        }
        assert_eq!(backup.status().regency, Regency(regency));
        let pieces = (backup.status().open_instances, backup.status().recorded_votes);
        assert_eq!(pieces, (0, 0));
        backup.pass(2_000);
    }
}

#[test]
fn nothing_is_kept_for_a_regency_that_nobody_correct_wants() {
    // Replica 0 would lead 2^63 and 2^63 + 4, replica 3 the very last one.
    for (me, regencies) in [(0, [HUGE, HUGE + 4]), (3, [HUGE + 3, u64::MAX])] {
        let mut leader = Lone::new(me, RequestAuth::Signature, Settings::default());
        let before = leader.status();
        for regency in regencies {
            assert_eq!(leader.replica.view().leader_of(Regency(regency)), ReplicaId(me));
            let claims = (1..=Settings::default().span).map(|instance| claim(instance, 0)).collect();
            assert!(leader.message(2, Message::StopData(stated(2, regency, claims))).is_empty());
            assert_eq!(leader.status(), before);
        }
        assert_eq!(leader.replica.next_deadline(), None);
        // A second replica states the same: somebody correct wants it, and its statement is kept beside the own.
        let last = regencies[1];
        leader.message(1, Message::StopData(stated(1, last, vec![])));
        assert_eq!((leader.status().regency, leader.status().statements), (Regency(last), 2));
        // The first came too soon; a correct replica sends its own again.
        leader.message(2, Message::StopData(stated(2, last, vec![])));
        assert_eq!(leader.status().statements, 3);
    }
}

#[test]
fn one_statement_of_each_member_is_kept() {
    let mut leader = Lone::new(0, RequestAuth::Signature, Settings::default());
    for regency in [4, 4, 8, 12, HUGE] {
        leader.message(2, Message::StopData(stated(2, regency, vec![claim(1, 0)])));
        assert_eq!((leader.status().regency, leader.status().statements), (Regency(0), 1));
    }
    // What was stated for a regency that has ended goes with it.
    for from in [1, 2, 3] {
        leader.message(from, Message::Stop(Stop { view: VIEW, regency: Regency(5) }));
    }
    assert_eq!((leader.status().regency, leader.status().statements), (Regency(5), 0));
}

#[test]
fn ten_thousand_forwarded_requests_do_not_starve_clients() {
    let mut leader = Lone::new(0, RequestAuth::Signature, Settings::default());
    let session = leader.open(ALICE, 1);
    let valid_until = leader.now.plus(std::time::Duration::from_secs(60));
    let mut dropped = 0;
    for first in (0..10_000_u64).step_by(50) {
        // A liar may have as many keys as it likes where any key is a client.
        let forwarded = (first..first + 50).map(|number| {
            let mut client = [0; 32];
            client[..8].copy_from_slice(&number.to_be_bytes());
            signed(Request::open(ClientId(client), number, valid_until))
        });
        let actions = leader.message(2, Message::Forward(forwarded.collect()));
        dropped += 50 * reasons(&actions).iter().filter(|reason| **reason == Reason::ForwardTooMuch).count();
    }
    assert_eq!(dropped, 10_000 - FORWARDS_PER_PERIOD_MAX / 50 * 50);
    assert!(leader.status().pending_requests <= FORWARDS_PER_PERIOD_MAX);
    let request = operation(ALICE, session, 0, b"in between");
    leader.request(&request);
    let proposals = leader.proposals();
    assert!(proposals[0].requests.contains(&request.digest()), "it waits for nobody");
    // The peer that used up its share has a new one in the next period, and no more than that.
    leader.pass(150);
    let one = signed(Request::open(MALLORY, 1, valid_until));
    let forward = Verified::vouch(Message::Forward(vec![one]));
    assert!(reasons(&leader.event(Event::Message { from: ReplicaId(2), message: forward })).is_empty());
}
