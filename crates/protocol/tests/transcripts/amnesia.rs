//! A replica that has lost its votes asks what they may have been, and what others do for it [RECOVER-2].
//!
//! The span is 20.

use regency_protocol::event::Event;
use regency_protocol::ids::{InstanceId, Regency, ViewId};
use regency_protocol::message::{Message, Recover, RecoverAnswer};
use regency_protocol::replica::Start;

use crate::scene::{Scene, Setting};

fn answer(scene: &mut Scene, from: u16, highest: u64, regency: u64) {
    let nonce = scene.now().0;
    let (view, highest, regency) = (ViewId(0), InstanceId(highest), Regency(regency));
    scene.from(from, Message::RecoverAnswer(RecoverAnswer { view, nonce, highest, regency }));
}

/// Replica 1, which has asked.
fn amnesiac() -> Scene {
    let mut scene = Scene::new(Setting { start: Start::StateLost, ..Setting::default() });
    scene.status(0, 0);
    scene.expect("to all: RECOVER");
    scene
}

#[test]
fn a_replica_without_votes_does_not_vote_before_a_quorum_has_answered() {
    let mut scene = amnesiac();
    answer(&mut scene, 0, 0, 0);
    answer(&mut scene, 2, 0, 0);
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 2, 3], &a);
    scene.expect("");
}

#[test]
fn with_its_answers_it_votes_beyond_all_that_it_may_have_touched() {
    let mut scene = amnesiac();
    for (from, highest) in [(0, 0), (2, 0), (3, 0)] {
        answer(&mut scene, from, highest, 0);
    }
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 2, 3], &a);
    // Instance 1 is not above 0 + 20.
    scene.expect("");
}

#[test]
fn it_answers_nobody() {
    let mut scene = amnesiac();
    scene.from(3, Message::Recover(Recover { view: ViewId(0), nonce: 5, is_relayed: false }));
    scene.expect("");
}

#[test]
fn a_leader_answers_and_orders_nothing_until_the_lost_votes_are_past() {
    let mut scene = Scene::new(Setting { me: 0, ..Setting::default() });
    scene.name_proposal("a", 1, &[]);
    scene.name_proposal("b", 2, &[]);
    scene.from(3, Message::Recover(Recover { view: ViewId(0), nonce: 5, is_relayed: false }));
    scene.handle(Event::InputDrained);
    scene.expect(
        "to 3: RECOVER answer: instance 0, regency 0
         to all: PROPOSE 1:
         to all: WRITE 1 a
         to all: PROPOSE 2:
         to all: WRITE 2 b",
    );
}

#[test]
fn whoever_waits_for_what_is_to_be_ordered_tells_the_leader_before_it_asks_for_another() {
    let mut scene = Scene::new(Setting::default());
    scene.from(3, Message::Recover(Recover { view: ViewId(0), nonce: 5, is_relayed: false }));
    scene.expect("to 3: RECOVER answer: instance 0, regency 0");
    // Replica 3 may have left the leader out.
    scene.wait_for("to 0: RECOVER of another");
    scene.wait_for("to all: STOP 1");
}

#[test]
fn a_leader_does_not_give_up_its_own_term_for_what_takes_its_time() {
    let mut scene = Scene::new(Setting { me: 0, ..Setting::default() });
    scene.name_proposal("a", 1, &[]);
    scene.name_proposal("b", 2, &[]);
    scene.from(3, Message::Recover(Recover { view: ViewId(0), nonce: 5, is_relayed: false }));
    scene.handle(Event::InputDrained);
    scene.wait_for("to all: WRITE 2 b");
    // Nobody votes for what it proposes.
    for _ in 0..200 {
        assert!(!scene.has_come("to all: STOP 1"));
        scene.tick();
    }
}

#[test]
fn a_leader_orders_for_those_of_whom_it_is_told() {
    let mut scene = Scene::new(Setting { me: 0, ..Setting::default() });
    scene.name_proposal("a", 1, &[]);
    scene.name_proposal("b", 2, &[]);
    scene.from(1, Message::Recover(Recover { view: ViewId(0), nonce: 0, is_relayed: true }));
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1:
         to all: WRITE 1 a
         to all: PROPOSE 2:
         to all: WRITE 2 b",
    );
    assert_eq!(scene.figures().amnesiacs, 0, "who relays has lost nothing");
}

#[test]
fn what_an_earlier_life_wanted_counts_no_more_and_bounds_the_later_one() {
    let mut scene = Scene::new(Setting::default());
    scene.stop(&[3], 2);
    scene.skip();
    let recover = Message::Recover(Recover { view: ViewId(0), nonce: 5, is_relayed: false });
    scene.from(3, recover.clone());
    scene.from(3, recover);
    scene.expect(
        "to 3: RECOVER answer: instance 0, regency 2
         to 3: RECOVER answer: instance 0, regency 2",
    );
    // With that of replica 3 these would be enough to join.
    scene.stop(&[2], 2);
    scene.expect("");
}
