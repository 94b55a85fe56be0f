//! What a follower refuses, and what it says about it.

use std::sync::Arc;
use std::time::Duration;

use regency_protocol::ids::{Sequence, ViewId};
use regency_protocol::message::{Batch, Request};
use regency_protocol::view::RequestAuth;

use crate::scene::{ALICE, SESSION, Scene, Setting};

#[test]
fn a_second_vote_is_ignored_and_reported() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    let b = scene.batch("b", 1, &[]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.write(&[2], &b);
    scene.write(&[2], &a);
    scene.expect("report replica 2: second_vote");
    scene.write(&[0], &a);
    scene.expect("");
    scene.write(&[3], &a);
    scene.expect("to all: ACCEPT 1 a");
}

#[test]
fn the_same_vote_again_counts_once() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.write(&[2, 2, 2, 2], &a);
    scene.expect("");
}

#[test]
fn only_the_leader_proposes() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(2, &a);
    scene.expect("report replica 2: not_the_leader");
}

#[test]
fn the_first_proposal_counts() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    let b = scene.batch("b", 1, &[]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.propose(0, &b);
    scene.propose(0, &a);
    scene.expect(
        "to all: WRITE 1 a
         report replica 0: second_proposal",
    );
}

#[test]
fn a_proposal_beyond_the_window_waits_and_one_far_beyond_is_dropped() {
    // [PROPOSE-3] The window is two instances, and early ones are kept up to two windows further.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let [a, early, far] =
        [("a", 1), ("early", 3), ("far", 7)].map(|(name, instance)| scene.batch(name, instance, &[]));
    scene.request(&open);
    scene.propose(0, &early);
    scene.expect("");
    scene.propose(0, &far);
    scene.expect("report replica 0: too_far_ahead");
    scene.propose(0, &a);
    scene.write(&[0, 2], &a);
    scene.accept(&[0, 2], &a);
    scene.expect(
        "to all: WRITE 1 a
         to all: ACCEPT 1 a
         execute 1:
         to all: WRITE 3 early",
    );
}

#[test]
fn a_batch_with_a_request_twice_gets_no_vote() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open, &open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("report replica 0: request_twice");
}

#[test]
fn two_requests_of_one_place_are_one_request_twice() {
    let setting = Setting { auth: RequestAuth::Signature, ..Setting::default() };
    let mut scene = Scene::new(setting);
    let [one, other] = [&b"one"[..], &b"other"[..]].map(|payload| {
        let request = Request::ordered(ALICE, SESSION, Sequence(0), Sequence(0), payload);
        scene.named(request, "operation")
    });
    let a = scene.batch("a", 1, &[&one, &other]);
    scene.propose(0, &a);
    scene.expect("");
    scene.signed_bodies(0, &[&one, &other]);
    scene.expect("report replica 0: request_twice");
}

#[test]
fn a_timestamp_far_from_the_own_clock_is_refused_or_waited_for() {
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    scene.request(&open);
    let skew = Duration::from_secs(61);
    let past = regency_protocol::time::Timestamp(scene.now().0 - 61_000_000);
    let old = scene.batch_at("old", 1, &[&open], past);
    scene.propose(0, &old);
    scene.expect("report replica 0: timestamp_skewed");
    let future = scene.now().plus(skew);
    let early = scene.batch_at("early", 1, &[&open], future);
    scene.propose(0, &early);
    scene.expect("");
}

#[test]
fn a_proposal_of_another_view_is_refused() {
    let mut scene = Scene::new(Setting::default());
    let a = scene.batch("a", 1, &[]);
    let other = Arc::new(Batch { view: ViewId(1), ..Batch::clone(&a) });
    scene.propose(0, &other);
    scene.expect("report replica 0: wrong_view");
}

#[test]
fn a_forged_request_gets_no_vote_where_clients_sign() {
    let setting = Setting { auth: RequestAuth::Signature, ..Setting::default() };
    let mut scene = Scene::new(setting);
    let forged = scene.open();
    let a = scene.batch("a", 1, &[&forged]);
    scene.propose(0, &a);
    scene.bodies(0, &[&forged]);
    scene.expect("report replica 0: unsigned");
}

#[test]
fn a_forged_request_gets_no_vote_where_channels_vouch() {
    // [REQ-3] A body without proof waits until its client sends it over its own channel.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.bodies(0, &[&open]);
    scene.expect("");
    scene.request(&open);
    scene.expect("to all: WRITE 1 a");
}

#[test]
fn an_unsigned_request_is_refused_where_clients_sign() {
    let setting = Setting { auth: RequestAuth::Signature, ..Setting::default() };
    let mut scene = Scene::new(setting);
    let open = scene.open();
    scene.request(&open);
    scene.expect(
        "report Alice: unsigned
         reply 77: BadSignature",
    );
}

#[test]
fn votes_for_far_instances_are_refused() {
    let mut scene = Scene::new(Setting::default());
    let far = scene.batch("far", 1 << 40, &[]);
    scene.write(&[2], &far);
    scene.accept(&[3], &far);
    scene.expect(
        "report replica 2: too_far_ahead
         report replica 3: too_far_ahead",
    );
}
