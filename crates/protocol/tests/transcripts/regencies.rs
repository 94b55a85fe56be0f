//! Late, lost and repeated messages of a leader change, and replicas that were away [LINK-1, LINK-2, SYNC-5].

use regency_protocol::event::Event;
use regency_protocol::ids::{Regency, ReplicaId};
use regency_protocol::replica::Start;

use crate::scene::{Scene, Setting, locked, nothing_stated, stated, timed, wrote};

#[test]
fn a_replica_that_was_away_joins_by_sync_alone() {
    // Any member may relay it: its leader has signed it, and a quorum has signed what it rests on.
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.sync(2, 9, &[stated(0, 9, &[locked(0, &a)]), stated(1, 9, &[wrote(0, &a)]), stated(2, 9, &[])]);
    scene.expect(
        "to all: STOP 9
         sign STOPDATA 9
         to all: WRITE 1 a in 9",
    );
    assert_eq!((scene.figures().regency, scene.figures().leader), (Regency(9), ReplicaId(1)));
    // Its own statement comes too late to be of use.
    scene.signed();
    scene.expect("");
}

#[test]
fn a_replica_that_lost_its_votes_follows_and_states_nothing() {
    let mut scene = Scene::new(Setting { start: Start::StateLost, ..timed(3) }).connected();
    scene.stop(&[0, 1], 1);
    scene.expect("");
    scene.sync(1, 1, &nothing_stated(1));
    scene.expect("");
    assert_eq!(scene.figures().regency, Regency(1));
}

#[test]
fn a_peer_that_is_regencies_behind_gets_stop_and_sync() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.sync(2, 2, &nothing_stated(2));
    scene.expect(
        "to all: STOP 2
         sign STOPDATA 2",
    );
    scene.status_in(0, 0, true, 0);
    scene.expect(
        "to 0: STOP 2
         to 0: SYNC 2 of 0 1 2: nothing",
    );
    // It installed the regency, and lacks its beginning only.
    scene.status_in(1, 2, false, 0);
    scene.expect("to 1: SYNC 2 of 0 1 2: nothing");
    scene.status_in(2, 2, true, 0);
    scene.expect("");
}

#[test]
fn a_replica_that_is_regencies_behind_says_so() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.status_in(2, 4, true, 0);
    scene.expect("to 2: STATUS 0");
}

#[test]
fn stop_and_statement_go_out_again_until_the_regency_has_begun() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.stop(&[0, 1], 1);
    scene.signed();
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: nothing",
    );
    scene.tick();
    scene.expect(
        "to all: STATUS 0 in 1
         to all: STOP 1
         to all: STOPDATA 1 of 3: nothing",
    );
    scene.handle(Event::Connected(ReplicaId(2)));
    scene.expect(
        "to 2: STATUS 0 in 1
         to 2: STOP 1
         to 2: STOPDATA 1 of 3: nothing",
    );
    scene.sync(1, 1, &nothing_stated(1));
    scene.tick();
    scene.expect("");
    scene.handle(Event::Connected(ReplicaId(2)));
    scene.expect("to 2: STATUS 0 in 1");
}

#[test]
fn a_stop_that_was_lost_goes_out_again() {
    let mut scene = Scene::new(timed(3)).connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.handle(Event::Disconnected(ReplicaId(0)));
    scene.pass(400);
    scene.expect("to all: STOP 1");
    scene.handle(Event::Connected(ReplicaId(2)));
    scene.expect(
        "to 2: STATUS 0
         to 2: STOP 1",
    );
}

#[test]
fn a_new_leader_that_cannot_be_reached_is_given_up_sooner() {
    let mut scene = Scene::new(timed(3)).connected();
    scene.handle(Event::Disconnected(ReplicaId(1)));
    scene.stop(&[0, 2], 1);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1",
    );
    scene.pass(399);
    scene.expect("");
    scene.pass(1);
    scene.expect("to all: STOP 2");
}

#[test]
fn pending_requests_survive_every_change_and_executed_ones_do_not_run_again() {
    let mut scene = Scene::new(timed(1)).connected().with_session();
    let [done, waiting] = [0, 1].map(|sequence| scene.operation(sequence));
    let a = scene.batch("a", 2, &[&done]);
    scene.signed_request(&done);
    scene.signed_request(&waiting);
    scene.propose(0, &a);
    scene.accept(&[0, 2, 3], &a);
    scene.executed(2, &["one"]);
    scene.expect(
        "to all: WRITE 2 a
         execute 2: op0
         reply 0: one",
    );
    scene.stop(&[0, 2], 5);
    scene.signed();
    scene.expect(
        "to all: STOP 5
         sign STOPDATA 5
         to all: STOPDATA 5 of 1: 1 locked first in 0 wrote first in 0, 2 wrote a in 0",
    );
    scene.stop_data(&stated(0, 5, &[]));
    scene.stop_data(&stated(2, 5, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.stop_data(&stated(3, 5, &[]));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 5
         to all: SYNC 5 of 0 1 2 3: nothing",
    );
    scene.name_proposal("b", 3, &[&waiting]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 3 in 5: op1
         to all: WRITE 3 b in 5",
    );
}
