//! Leaving a leader: who asks for it and when [STOP-1], who joins [STOP-2], and what ends then [STOP-3].

use regency_protocol::event::Event;
use regency_protocol::ids::ReplicaId;

use crate::scene::{Scene, Setting, timed};

#[test]
fn a_request_that_waits_is_forwarded_and_then_the_leader_asked_to_go() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.pass(999);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: FORWARD open");
    scene.pass(999);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: STOP 1");
}

#[test]
fn other_progress_does_not_reset_the_timer() {
    // A leader that orders everything but one client's requests is asked to go.
    let mut scene = Scene::new(timed(3)).connected().with_session();
    let [censored, other] = [0, 1].map(|sequence| scene.operation(sequence));
    let a = scene.batch("a", 2, &[&other]);
    scene.signed_request(&censored);
    scene.signed_request(&other);
    scene.pass(900);
    scene.propose(0, &a);
    scene.write(&[0, 1], &a);
    scene.accept(&[0, 1], &a);
    scene.executed(2, &["done"]);
    scene.expect(
        "to all: WRITE 2 a
         to all: ACCEPT 2 a
         execute 2: op1
         reply 1: done",
    );
    scene.pass(100);
    scene.expect("to all: FORWARD op0");
    scene.pass(1_000);
    scene.expect("to all: STOP 1");
}

#[test]
fn timers_rest_while_this_replica_is_far_behind() {
    // The window is two instances: two peers more than that above the own prefix say that the fault is here.
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.status(0, 3);
    scene.status(1, 3);
    scene.expect(
        "to 0: STATUS 0
         to 1: STATUS 0",
    );
    scene.pass(10_000);
    scene.expect("");
    // Caught up, or nearly: the time begins anew.
    scene.status(1, 2);
    scene.expect("to 1: STATUS 0");
    scene.pass(700);
    scene.expect("");
    scene.pass(500);
    scene.expect("to all: FORWARD open");
    scene.pass(1_000);
    scene.expect("to all: STOP 1");
}

#[test]
fn one_peer_far_ahead_does_not_stop_the_timers() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.status(0, 1 << 40);
    scene.expect("to 0: STATUS 0");
    scene.pass(2_000);
    scene.expect(
        "to all: FORWARD open
         to all: STOP 1",
    );
}

#[test]
fn patience_doubles_with_every_regency_without_progress_and_ends_with_it() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.signed_request(&open);
    scene.stop(&[0, 2], 1);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1",
    );
    // [SYNC-5] No SYNC within the timeout. The first change is no second failure yet.
    scene.pass(999);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: STOP 2");
    scene.stop(&[0, 1], 2);
    scene.expect("sign STOPDATA 2");
    assert_eq!(scene.figures().backoff, 1);
    scene.pass(1_999);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: STOP 3");
    // It begins after all, and executes what was oldest.
    scene.sync(2, 2, &crate::scene::nothing_stated(2));
    scene.propose_in(2, 2, &a);
    scene.accept_in(2, &[0, 1, 2], &a);
    scene.expect(
        "to all: WRITE 1 a in 2
         reply 77: session
         execute 1:",
    );
    assert_eq!(scene.figures().backoff, 0);
}

#[test]
fn a_lone_stop_does_nothing_however_far_it_reaches() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.stop(&[2], 1);
    scene.stop(&[2], 1 << 63);
    scene.stop(&[2], u64::MAX);
    scene.expect("");
    assert!(!scene.has_deadline());
}

#[test]
fn a_stop_is_joined_at_f_plus_one_and_installs_at_a_quorum() {
    let mut scene = Scene::new(Setting { n: 7, ..timed(3) }).connected();
    scene.stop(&[1, 2], 1);
    scene.stop(&[1, 2], 1);
    scene.expect("");
    scene.stop(&[4], 1);
    scene.expect("to all: STOP 1");
    scene.stop(&[5], 1);
    scene.expect("sign STOPDATA 1");
    assert_eq!(scene.figures().regency.0, 1);
}

#[test]
fn the_highest_regency_that_f_plus_one_reach_is_joined() {
    let mut scene = Scene::new(Setting { n: 7, ..timed(3) }).connected();
    scene.stop(&[1], 9);
    scene.stop(&[2], 3);
    scene.stop(&[4], 5);
    scene.expect("to all: STOP 3");
    // It counts for every regency below, too.
    scene.stop(&[5], 2);
    scene.expect("sign STOPDATA 2");
}

#[test]
fn a_leader_that_gives_its_term_away_is_believed_at_once() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.stop(&[0], 1);
    scene.expect("to all: STOP 1");
    // Only its own term: it cannot skip the next leader's.
    let mut scene = Scene::new(timed(3)).connected();
    scene.stop(&[0], 2);
    scene.expect("");
}

#[test]
fn an_installed_regency_ends_the_votes_below_it() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    let b = scene.batch("b", 2, &[]);
    scene.signed_request(&open);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.stop(&[1, 2], 1);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1",
    );
    scene.write(&[0, 1, 2], &a);
    scene.propose(0, &b);
    scene.expect("");
    // What goes to all is what it voted for until then.
    scene.signed();
    scene.expect("to all: STOPDATA 1 of 3: 1 wrote a in 0");
}

#[test]
fn a_quorum_of_accepts_decides_also_below_the_installed_regency() {
    // [ACCEPT-1] Those who sent them had locked: no later epoch can decide otherwise.
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.signed_request(&open);
    scene.propose(0, &a);
    scene.write(&[0, 1], &a);
    scene.stop(&[1, 2], 1);
    scene.expect(
        "to all: WRITE 1 a
         to all: ACCEPT 1 a
         to all: STOP 1
         sign STOPDATA 1",
    );
    scene.accept(&[0, 1], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn accepts_of_two_epochs_are_not_counted_together() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.signed_request(&open);
    scene.propose(0, &a);
    scene.stop(&[1, 2], 1);
    scene.expect(
        "to all: WRITE 1 a
         to all: STOP 1
         sign STOPDATA 1",
    );
    scene.accept(&[0, 1], &a);
    scene.accept_in(1, &[2, 0], &a);
    scene.expect("");
    scene.accept_in(1, &[1], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn an_idle_cluster_with_a_dead_leader_costs_nothing_until_a_request_comes() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.expect("");
    assert!(!scene.has_deadline(), "nothing is to be done, ever");
    scene.pass(3_600_000);
    scene.expect("");
    // Its channel has been gone for long: there is no use in waiting.
    let open = scene.open();
    scene.signed_request(&open);
    scene.pass(0);
    scene.expect("to all: STOP 1");
}

#[test]
fn a_lost_channel_to_the_leader_is_waited_for_no_longer_than_a_status_period() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.pass(399);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: STOP 1");
}

#[test]
fn a_channel_to_the_leader_that_comes_back_is_no_reason() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.pass(300);
    scene.handle(Event::Connected(ReplicaId(0)));
    scene.pass(600);
    scene.expect("to 0: STATUS 0");
}

#[test]
fn a_leader_that_lets_requests_wait_much_longer_than_it_could_is_asked_to_go() {
    // Rounds take no time here, so a request need not wait longer than `proposal_delay_min`: 20 ms. The session's
    // batch and four late ones, over more than a second, are a record; no timer has expired.
    let mut scene = Scene::new(timed(3)).connected().with_session();
    for number in 0..4 {
        let operation = scene.operation(number);
        let batch = scene.batch("late", number + 2, &[&operation]);
        scene.signed_request(&operation);
        scene.pass(300);
        scene.propose(0, &batch);
        scene.write(&[0, 1], &batch);
        scene.accept(&[0, 1], &batch);
        scene.executed(number + 2, &["done"]);
        if number < 3 {
            scene.expect(&format!(
                "to all: WRITE {0} late
                 to all: ACCEPT {0} late
                 execute {0}: op{number}
                 reply {number}: done",
                number + 2
            ));
        }
    }
    scene.expect(
        "to all: WRITE 5 late
         report replica 0: slow_leader
         to all: STOP 1
         to all: ACCEPT 5 late
         execute 5: op3
         reply 3: done",
    );
}

#[test]
fn a_leader_that_proposes_at_once_stays() {
    let mut scene = Scene::new(timed(3)).connected().with_session();
    for number in 0..14 {
        let operation = scene.operation(number);
        let batch = scene.batch("prompt", number + 2, &[&operation]);
        scene.signed_request(&operation);
        scene.pass(19);
        scene.propose(0, &batch);
        scene.write(&[0, 1], &batch);
        scene.accept(&[0, 1], &batch);
        scene.executed(number + 2, &["done"]);
        scene.pass(281);
        scene.expect(&format!(
            "to all: WRITE {0} prompt
             to all: ACCEPT {0} prompt
             execute {0}: op{number}
             reply {number}: done",
            number + 2
        ));
    }
}
