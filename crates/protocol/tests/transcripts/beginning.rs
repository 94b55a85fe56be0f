//! How a regency begins at those who do not lead it [SYNC-3].
//!
//! Replica 3; replica 1 leads regency 1.

use std::sync::Arc;

use regency_protocol::ids::{InstanceId, Regency};
use regency_protocol::message::{Message, Sync};
use regency_protocol::time::Timestamp;

use crate::scene::{Scene, locked, nothing_stated, stated, timed, wrote};

/// Replica 3, which has installed regency 1 and stated what it voted for.
fn installed(mut scene: Scene) -> Scene {
    scene.stop(&[1, 2], 1);
    scene.signed();
    scene
}

/// [`installed`] before anything was proposed.
fn waiting() -> Scene {
    let mut scene = installed(Scene::new(timed(3)).connected());
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: nothing",
    );
    scene
}

#[test]
fn what_is_bound_is_voted_for_as_if_it_were_proposed() {
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    let mut scene = installed(scene);
    scene.expect(
        "to all: WRITE 1 a
         to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: 1 wrote a in 0",
    );
    scene.sync(1, 1, &[stated(0, 1, &[locked(0, &a)]), stated(1, 1, &[wrote(0, &a)]), stated(3, 1, &[])]);
    scene.expect("to all: WRITE 1 a in 1");
    scene.write_in(1, &[0, 1], &a);
    scene.accept_in(1, &[0, 1], &a);
    scene.expect(
        "to all: ACCEPT 1 a in 1
         execute 1:",
    );
}

#[test]
fn a_bound_batch_that_is_missing_is_fetched_from_those_who_wrote_it() {
    let mut scene = waiting();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.sync(1, 1, &[stated(0, 1, &[locked(0, &a)]), stated(1, 1, &[]), stated(2, 1, &[wrote(0, &a)])]);
    scene.expect("");
    scene.pass(0);
    scene.expect("to 0: batch of 1 a?");
    scene.pass(60);
    scene.expect("to 2: batch of 1 a?");
    // Somebody correct wrote it: its requests need no proof of their own.
    scene.batch_answer(2, &a, &[&open]);
    scene.expect("to all: WRITE 1 a in 1");
}

#[test]
fn an_old_timestamp_is_no_reason_to_refuse_what_is_bound() {
    // Otherwise a cluster that was down for longer than the clocks' tolerance would never go on.
    let mut scene = waiting();
    let old = scene.batch_at("old", 1, &[], Timestamp(7));
    scene.sync(1, 1, &[stated(0, 1, &[locked(0, &old)]), stated(1, 1, &[wrote(0, &old)]), stated(2, 1, &[])]);
    scene.pass(0);
    scene.expect("to 0: batch of 1 old?");
    scene.batch_answer(0, &old, &[]);
    scene.expect("to all: WRITE 1 old in 1");
}

#[test]
fn what_the_statements_bind_wins_over_the_leaders_word() {
    let mut scene = waiting();
    let a = scene.batch("a", 1, &[]);
    let open = scene.open();
    let b = scene.batch("b", 1, &[&open]);
    let set = [stated(0, 1, &[locked(0, &a)]), stated(1, 1, &[wrote(0, &a)]), stated(2, 1, &[])];
    let honest = scene.sync_of(1, &set);
    let sync = Sync { results: vec![(InstanceId(1), b.digest())], ..honest };
    scene.from(1, Message::Sync(Arc::new(sync)));
    scene.pass(0);
    scene.expect(
        "report replica 1: wrong_selection
         to 0: batch of 1 a?",
    );
    scene.batch_answer(0, &a, &[]);
    scene.expect("to all: WRITE 1 a in 1");
}

#[test]
fn a_leader_whose_sync_begins_nothing_is_left_at_once() {
    // Too few statements; one replica speaking twice; a statement for another regency; an impossible one; a set
    // that leaves an instance undecided.
    let none = |sender| stated(sender, 1, &[]);
    let mut namer = Scene::new(timed(3));
    let a = namer.batch("a", 1, &[]);
    let sets = [
        vec![none(0), none(1)],
        vec![none(0), none(1), none(1)],
        vec![none(0), none(1), stated(2, 2, &[])],
        vec![none(0), none(1), stated(2, 1, &[wrote(1, &a)])],
        vec![none(0), none(1), stated(9, 1, &[])],
        vec![none(0), none(1), stated(2, 1, &[locked(0, &a)])],
    ];
    for set in sets {
        let mut scene = waiting();
        scene.sync(1, 1, &set);
        scene.expect(
            "report replica 1: bad_sync
             to all: STOP 2",
        );
        assert_eq!(scene.figures().regency, Regency(1));
    }
}

#[test]
fn a_bad_sync_for_a_later_regency_begins_nothing_and_costs_nobody_its_term() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.sync(2, 1 << 63, &[stated(0, 1 << 63, &[]), stated(2, 1 << 63, &[])]);
    scene.expect("report replica 2: bad_sync");
    assert_eq!(scene.figures().regency, Regency(0));
}

#[test]
fn a_second_sync_of_one_leader_changes_nothing_and_is_reported() {
    let mut scene = waiting();
    let a = scene.batch("a", 1, &[]);
    scene.sync(1, 1, &nothing_stated(1));
    scene.sync(1, 1, &nothing_stated(1));
    scene.expect("");
    let set = [stated(0, 1, &[locked(0, &a)]), stated(1, 1, &[wrote(0, &a)]), stated(2, 1, &[])];
    scene.sync(2, 1, &set);
    scene.pass(0);
    scene.expect("report replica 1: second_sync");
}

#[test]
fn what_is_executed_here_is_voted_for_again() {
    // Others may need this very vote to decide it in the new epoch.
    let mut scene = Scene::new(timed(3)).connected().with_session();
    let open = scene.open();
    let first = scene.batch("first", 1, &[&open]);
    let mut scene = installed(scene);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: 1 locked first in 0 wrote first in 0",
    );
    let set = [stated(0, 1, &[locked(0, &first)]), stated(1, 1, &[wrote(0, &first)]), stated(2, 1, &[])];
    scene.sync(1, 1, &set);
    scene.expect(
        "to all: WRITE 1 first in 1
         to all: ACCEPT 1 first in 1",
    );
    // Decision 0017: that ACCEPT rests on no WRITEs of its epoch, so it is not told as a lock in it.
    scene.stop(&[0, 2], 2);
    scene.signed();
    scene.expect(
        "to all: STOP 2
         sign STOPDATA 2
         to all: STOPDATA 2 of 3: 1 locked first in 0 wrote first in 1",
    );
}

#[test]
fn a_sync_against_what_is_executed_here_gets_no_vote() {
    // More than `f` lie, or this replica's history is not the others': it must not add to it.
    let mut scene = installed(Scene::new(timed(3)).connected().with_session());
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: 1 locked first in 0 wrote first in 0",
    );
    let other = scene.batch("other", 1, &[]);
    let set = [stated(0, 1, &[locked(0, &other)]), stated(1, 1, &[wrote(0, &other)]), stated(2, 1, &[])];
    scene.sync(1, 1, &set);
    scene.expect("report replica 1: conflicting_decision");
}

#[test]
fn a_proposal_that_overtakes_its_sync_is_kept() {
    let mut scene = waiting();
    let a = scene.batch("a", 1, &[]);
    scene.propose_in(1, 1, &a);
    scene.expect("");
    scene.sync(1, 1, &nothing_stated(1));
    scene.expect("to all: WRITE 1 a in 1");
}

#[test]
fn a_proposal_and_votes_of_the_next_regency_are_kept_until_it_is_installed() {
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    scene.propose_in(1, 1, &a);
    scene.write_in(1, &[0, 1], &a);
    scene.accept_in(1, &[0], &a);
    scene.expect("");
    scene.sync(1, 1, &nothing_stated(1));
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: WRITE 1 a in 1
         to all: ACCEPT 1 a in 1",
    );
    scene.accept_in(1, &[1], &a);
    scene.expect("execute 1:");
}

#[test]
fn votes_of_the_installed_epoch_count_before_its_sync_is_here() {
    // [WRITE-2] Two WRITEs say that somebody correct has seen the SYNC, three that it may be locked.
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.stop(&[1, 2], 1);
    scene.expect(
        "to all: WRITE 1 a
         to all: STOP 1
         sign STOPDATA 1",
    );
    scene.write_in(1, &[0], &a);
    scene.expect("");
    scene.write_in(1, &[1], &a);
    scene.expect(
        "to all: WRITE 1 a in 1
         to all: ACCEPT 1 a in 1",
    );
}

#[test]
fn what_sync_has_bound_is_not_proposed_again() {
    let mut scene = waiting();
    let open = scene.open();
    let a = scene.batch_at("a", 1, &[], Timestamp(7));
    let b = scene.batch("b", 1, &[&open]);
    let c = scene.batch("c", 2, &[]);
    scene.sync(1, 1, &[stated(0, 1, &[locked(0, &a)]), stated(1, 1, &[wrote(0, &a)]), stated(2, 1, &[])]);
    scene.propose_in(1, 1, &b);
    scene.expect("report replica 1: below_sync");
    scene.propose_in(1, 1, &c);
    scene.expect("to all: WRITE 2 c in 1");
}

#[test]
fn proposals_of_a_regency_that_has_ended_are_dropped() {
    let mut scene = waiting();
    let a = scene.batch("a", 1, &[]);
    scene.sync(1, 1, &nothing_stated(1));
    scene.propose(0, &a);
    scene.expect("");
    scene.propose_in(1, 0, &a);
    scene.expect("report replica 0: not_the_leader");
}
