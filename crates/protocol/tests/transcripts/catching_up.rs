//! What is missing, and how it is had: bodies, batches, decisions, votes.

use regency_protocol::event::Event;
use regency_protocol::ids::{Digest, InstanceId, ReplicaId, Signature, ViewId};
use regency_protocol::message::{ChainSignature, Message};
use regency_protocol::replica::Start;
use regency_protocol::view::RequestAuth;

use crate::scene::{Scene, Setting, timed};

#[test]
fn a_missing_body_is_waited_for_and_then_fetched() {
    let setting = Setting { auth: RequestAuth::Signature, ..Setting::default() };
    let mut scene = Scene::new(setting);
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.expect("");
    scene.tick();
    scene.expect("to 0: bodies of open?");
    scene.signed_bodies(0, &[&open]);
    scene.expect("to all: WRITE 1 a");
}

#[test]
fn a_body_that_comes_by_itself_is_not_fetched() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.expect("");
    scene.request(&open);
    scene.expect("to all: WRITE 1 a");
}

#[test]
fn two_writes_stand_for_a_proposal_that_was_lost() {
    // [PROPOSE-3] One of two is correct, and has checked it.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.write(&[2], &a);
    scene.expect("");
    scene.write(&[3], &a);
    scene.expect("");
    scene.tick();
    scene.expect("to 2: batch of 1 a?");
    scene.batch_answer(2, &a, &[&open]);
    scene.expect(
        "to all: WRITE 1 a
         to all: ACCEPT 1 a",
    );
}

#[test]
fn a_late_replica_decides_by_two_statements() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.decided(&[2], &a);
    scene.expect("");
    scene.decided(&[3], &a);
    scene.tick();
    scene.expect("to 2: batch of 1 a?");
    scene.batch_answer(2, &a, &[&open]);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_decision_waits_for_its_batch() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.accept(&[0, 2, 3], &a);
    scene.expect("");
    scene.tick();
    scene.expect("to 0: batch of 1 a?");
    scene.batch_answer(0, &a, &[&open]);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_replica_that_lost_its_votes_follows_without_voting() {
    let mut scene = Scene::new(Setting { start: Start::StateLost, ..Setting::default() });
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.write(&[0, 2, 3], &a);
    scene.expect("to all: RECOVER");
    scene.accept(&[0, 2, 3], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn who_is_behind_gets_the_votes_that_were_not_needed_before() {
    // Found by the simulator: this replica decides without having voted; then one of those who had is gone, and
    // the rest is one vote short for ever.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.accept(&[0, 2, 3], &a);
    scene.batch_answer(0, &a, &[&open]);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
    scene.status(2, 0);
    scene.expect(
        "to 2: DECIDED 1 a
         to 2: WRITE 1 a
         to 2: ACCEPT 1 a",
    );
}

#[test]
fn after_a_reconnect_open_votes_go_out_again() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.handle(Event::Disconnected(ReplicaId(2)));
    scene.handle(Event::Connected(ReplicaId(2)));
    scene.expect(
        "to 2: STATUS 0
         to 2: WRITE 1 a",
    );
}

/// What a replica sends that has decided so far, and signs that.
fn signed_far(instance: u64) -> Message {
    let (chain, signature) = (Digest([3; 32]), Signature([8; 64]));
    let view = ViewId(0);
    Message::ChainSignature(ChainSignature { view, instance: InstanceId(instance), chain, signature })
}

#[test]
fn who_is_told_of_a_longer_prefix_by_a_signature_alone_asks_around() {
    // Found by the simulator: the last messages of an episode are lost, and nobody has a reason to send any more.
    let mut scene = Scene::new(timed(3)).connected();
    assert!(!scene.has_deadline(), "idle");
    scene.from(2, signed_far(1));
    scene.expect("");
    scene.tick();
    scene.expect("to all: STATUS 0");
    // Whoever is ahead answers, and it catches up.
    let a = scene.batch("a", 1, &[]);
    scene.decided(&[1, 2], &a);
    scene.tick();
    scene.batch_answer(2, &a, &[]);
    scene.expect(
        "to 1: batch of 1 a?
         execute 1:",
    );
}

#[test]
fn a_signature_that_nothing_follows_keeps_nobody_awake_for_ever() {
    // A liar may have signed what nobody decides: fifty times at one prefix are enough.
    let mut scene = Scene::new(timed(3)).connected();
    for instance in [1, 7, 20] {
        scene.from(2, signed_far(instance));
    }
    for _ in 0..50 {
        scene.tick();
        scene.expect("to all: STATUS 0");
    }
    assert!(!scene.has_deadline(), "it asks no more");
    // Not even if it signs more.
    scene.from(2, signed_far(19));
    assert!(!scene.has_deadline());
}
