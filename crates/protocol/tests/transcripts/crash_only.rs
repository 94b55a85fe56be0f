//! Leader changes where replicas crash and do not lie: two of three go on [Q-2, SYNC-2].
//!
//! There is no WRITE: who accepts a proposal has locked it, and one lock binds. Replica 1 leads regency 1.

use regency_protocol::event::Event;
use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::leader_change::stop_data::Claim;
use regency_protocol::view::Mode;

use crate::scene::{Scene, Setting, locked, stated, timed};

/// Replica `me` of three. Alice's OPEN waits in its pool.
fn of_three(me: u16) -> Scene {
    let mut scene = Scene::new(Setting { mode: Mode::Cft, n: 3, ..timed(me) }).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.expect("");
    scene
}

/// What a replica states that accepted this batch.
fn accepted(batch: &regency_protocol::message::Batch) -> Claim {
    Claim { write_set: vec![], ..locked(0, batch) }
}

#[test]
fn a_new_leader_binds_what_it_has_accepted_itself() {
    let mut scene = of_three(1);
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    // The leader dies before anybody else has its proposal. It may have been told of this ACCEPT, and have decided.
    scene.propose(0, &a);
    scene.expect("to all: ACCEPT 1 a");
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.pass(400);
    scene.expect("to all: STOP 1");
    scene.stop(&[2], 1);
    scene.signed();
    scene.expect(
        "sign STOPDATA 1
         to all: STOPDATA 1 of 1: 1 locked a in 0",
    );
    scene.stop_data(&stated(2, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 1
         to all: SYNC 1 of 1 2: 1 a
         to all: ACCEPT 1 a in 1",
    );
    scene.accept_in(1, &[2], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_new_leader_binds_and_fetches_what_the_other_has_accepted() {
    let mut scene = of_three(1);
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.stop(&[2], 1);
    scene.pass(400);
    scene.signed();
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 1: nothing",
    );
    // [SYNC-4] It is not its own OPEN in a batch of its own: the very batch that was accepted.
    scene.stop_data(&stated(2, 1, &[accepted(&a)]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.pass(0);
    scene.expect("to 2: batch of 1 a?");
    scene.batch_answer(2, &a, &[&open]);
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 1
         to all: SYNC 1 of 1 2: 1 a
         to all: ACCEPT 1 a in 1",
    );
    scene.accept_in(1, &[2], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_new_leader_proposes_anew_what_nobody_has_accepted() {
    let mut scene = of_three(1);
    let open = scene.open();
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.stop(&[2], 1);
    scene.pass(400);
    scene.signed();
    scene.stop_data(&stated(2, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 1: nothing
         sign SYNC 1
         to all: SYNC 1 of 1 2: nothing",
    );
    scene.name_proposal("b", 1, &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1 in 1: open
         to all: ACCEPT 1 b in 1",
    );
}

#[test]
fn a_follower_accepts_again_what_the_new_leaders_sync_binds() {
    let mut scene = of_three(2);
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.pass(400);
    scene.stop(&[1], 1);
    scene.signed();
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 2: nothing",
    );
    scene.sync(1, 1, &[stated(1, 1, &[accepted(&a)]), stated(2, 1, &[])]);
    scene.pass(0);
    scene.expect("to 1: batch of 1 a?");
    scene.batch_answer(1, &a, &[&open]);
    // With the new leader's ACCEPT two of three have it.
    scene.expect("to all: ACCEPT 1 a in 1");
    scene.accept_in(1, &[1], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
    assert_eq!(scene.figures().regency, Regency(1));
}

#[test]
fn of_two_locks_the_one_of_the_later_epoch_binds() {
    // All three state something: replica 0 is back, with what it accepted in regency 0 and nobody else heard of.
    let mut scene = of_three(2);
    let a = scene.batch("a", 1, &[]);
    let open = scene.open();
    let b = scene.batch("b", 1, &[&open]);
    scene.sync(1, 1, &[stated(1, 1, &[]), stated(2, 1, &[])]);
    scene.propose_in(1, 1, &b);
    scene.stop(&[0], 2);
    scene.pass(0);
    scene.forget();
    scene.stop(&[1], 2);
    scene.signed();
    scene.expect(
        "to all: STOP 2
         sign STOPDATA 2
         to all: STOPDATA 2 of 2: 1 locked b in 1",
    );
    scene.stop_data(&stated(0, 2, &[accepted(&a)]));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 2
         to all: SYNC 2 of 0 2: 1 b
         to all: ACCEPT 1 b in 2",
    );
}
