//! What a replica writes into its log, and what waits until that is on disk [VOTE-1, RECOVER-1].
//!
//! Replica 1; replica 0 leads regency 0.

use regency_protocol::record::Durability;
use regency_protocol::time::Timestamp;

use crate::scene::{Scene, Setting};

fn scene(me: u16) -> Scene {
    Scene::new(Setting { me, durability: Durability::Sync, ..Setting::default() })
}

#[test]
fn a_vote_is_recorded_after_its_batch_and_waits_for_its_record() {
    let mut scene = scene(1);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2",
    );
    scene.write(&[0, 2, 3], &a);
    scene.expect(
        "record 3: lock 1 a
         to all: ACCEPT 1 a after record 3",
    );
}

#[test]
fn an_own_vote_counts_when_it_is_on_disk() {
    let mut scene = scene(1);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 2], &a);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2",
    );
    scene.durable(1);
    scene.expect("");
    scene.durable(2);
    scene.expect(
        "record 3: lock 1 a
         to all: ACCEPT 1 a after record 3",
    );
    scene.accept(&[0, 2], &a);
    scene.expect("");
    scene.durable(3);
    scene.expect(
        "record 4: decided 1 a
         execute 1:",
    );
}

#[test]
fn a_decision_rests_on_the_disks_of_others_and_needs_no_own_vote() {
    let mut scene = scene(1);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.accept(&[0, 2, 3], &a);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2
         record 3: decided 1 a
         execute 1:",
    );
}

#[test]
fn a_restarted_replica_sends_its_votes_again_as_they_were() {
    let mut scene = scene(1);
    let a = scene.batch("a", 1, &[]);
    let later = Timestamp(scene.now().0 + 1);
    let other = scene.batch_at("other", 1, &[], later);
    scene.propose(0, &a);
    scene.write(&[0, 2, 3], &a);
    scene.restart(3);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2
         record 3: lock 1 a
         to all: ACCEPT 1 a after record 3",
    );
    scene.propose(0, &other);
    scene.write(&[0, 2, 3], &other);
    scene.expect("");
    scene.wait_for("to all: ACCEPT 1 a after record 3");
}

#[test]
fn what_was_not_on_disk_was_never_sent_and_is_forgotten() {
    let mut scene = scene(1);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 2, 3], &a);
    scene.restart(2);
    scene.write(&[0, 2, 3], &a);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2
         record 3: lock 1 a
         to all: ACCEPT 1 a after record 3
         record 3: lock 1 a
         to all: ACCEPT 1 a after record 3",
    );
}

#[test]
fn a_restarted_leader_gives_its_term_away() {
    let mut scene = scene(0);
    scene.restart(0);
    scene.expect(
        "record 1: STOP 1
         to all: STOP 1 after record 1",
    );
}

#[test]
fn a_restarted_replica_states_its_votes_once_they_are_all_it_had() {
    let mut scene = scene(3);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 1, 2], &a);
    scene.stop(&[1, 2], 1);
    scene.expect(
        "record 1: batch 1 a
         record 2: WRITE 1 a
         to all: WRITE 1 a after record 2
         record 3: lock 1 a
         to all: ACCEPT 1 a after record 3
         record 4: STOP 1
         to all: STOP 1 after record 4
         record 5: regency 1
         sign STOPDATA 1",
    );
    scene.restart(5);
    scene.expect("sign STOPDATA 1");
    scene.signed();
    scene.expect("to all: STOPDATA 1 of 3: 1 locked a in 0 wrote a in 0 after record 5");
}
