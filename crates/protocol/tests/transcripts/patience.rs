//! Requests that wait: how they are forwarded, announced and proposed although something came in between.

use regency_protocol::event::Event;

use crate::scene::{Scene, Setting, stated};

#[test]
fn a_request_whose_time_began_anew_is_forwarded_anew() {
    // [STOP-1] Catching up pauses the timers; afterwards a silent leader is given up all the same.
    let mut scene = Scene::new(Setting::default()).with_session();
    let op = scene.operation(0);
    scene.request(&op);
    scene.wait_for("to all: FORWARD op0");
    scene.announce(&[2, 3], &[&op]);
    // Two peers are more than a window ahead: that is not the leader's fault.
    scene.status(2, 4);
    scene.status(3, 4);
    (0..8).for_each(|_| scene.tick());
    let next = scene.batch("next", 2, &[]);
    scene.decided(&[2, 3], &next);
    scene.tick();
    scene.batch_answer(2, &next, &[]);
    scene.executed(2, &[]);
    scene.wait_for("to all: FORWARD op0");
    scene.wait_for("to all: STOP 1");
}

#[test]
fn a_client_is_suspect_although_lacks_come_before_its_request() {
    // [REQ-3] LACKs travel one way, the body that tells whose request it is travels there and back.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.tick();
    scene.expect(
        "to 0: bodies of open?
         to all: LACK open",
    );
    scene.lack(&[2, 3], &[&open]);
    scene.expect("");
    scene.bodies(0, &[&open]);
    scene.expect("report Alice: client_suspect");
}

#[test]
fn what_was_announced_or_lacked_before_it_came_is_announced() {
    // [REQ-3] Whoever holds it as authentic announces it, in whichever order it hears of it.
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    scene.announce(&[2], &[&open]);
    scene.request(&open);
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
    let mut scene = Scene::new(Setting::default());
    let open = scene.open();
    scene.lack(&[2], &[&open]);
    scene.request(&open);
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
}

#[test]
fn a_request_in_a_batch_that_became_free_is_proposed() {
    // Replica 1 wrote for a batch whose request no client has sent to it; nobody locked it, and it leads now.
    let mut scene = Scene::new(Setting { n: 7, ..Setting::default() });
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.write(&[2, 3, 4], &a);
    scene.tick();
    scene.batch_answer(2, &a, &[&open]);
    scene.expect(
        "to 2: batch of 1 a?
         to all: WRITE 1 a",
    );
    scene.stop(&[2, 3, 4, 5, 6], 1);
    (2..7).for_each(|sender| scene.stop_data(&stated(sender, 1, &[])));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.wait_for("to all: SYNC 1 of 2 3 4 5 6: nothing");
    scene.name_proposal("b", 1, &[&open]);
    scene.request(&open);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1 in 1: open
         to all: WRITE 1 b in 1",
    );
}
