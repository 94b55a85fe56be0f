//! The normal case: PROPOSE, WRITE, ACCEPT, execution, replies.

use regency_protocol::event::Event;
use regency_protocol::view::Mode;

use crate::scene::{Scene, Setting};

#[test]
fn a_leader_orders_what_has_gathered() {
    let mut scene = Scene::new(Setting { me: 0, ..Setting::default() });
    let open = scene.open();
    let a = scene.name_proposal("a", 1, &[&open]);
    scene.request(&open);
    scene.expect("");
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1: open
         to all: WRITE 1 a",
    );
    scene.write(&[1], &a);
    scene.expect("");
    scene.write(&[2], &a);
    scene.expect("to all: ACCEPT 1 a");
    scene.accept(&[3, 1], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_follower_votes_executes_and_answers() {
    let mut scene = Scene::new(Setting::default()).with_session();
    let [one, two] = [0, 1].map(|sequence| scene.operation(sequence));
    let a = scene.batch("a", 2, &[&two, &one]);
    scene.request(&one);
    scene.request(&two);
    scene.expect("");
    scene.propose(0, &a);
    scene.expect("to all: WRITE 2 a");
    scene.write(&[0, 2], &a);
    scene.expect("to all: ACCEPT 2 a");
    scene.accept(&[0, 2], &a);
    scene.expect("execute 2: op1 op0");
    scene.executed(2, &["two", "one"]);
    scene.expect(
        "reply 1: two
         reply 0: one",
    );
    scene.request(&one);
    scene.expect("reply 0: one");
}

#[test]
fn among_five_replicas_four_accepts_decide_and_three_do_not() {
    // Two groups of three among five may share only the liar.
    let mut scene = Scene::new(Setting { n: 5, ..Setting::default() });
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("to all: WRITE 1 a");
    scene.write(&[0, 2], &a);
    scene.expect("");
    scene.write(&[3], &a);
    scene.expect("to all: ACCEPT 1 a");
    scene.accept(&[0, 2], &a);
    scene.expect("");
    scene.accept(&[3], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn a_crash_only_cluster_has_no_write_phase() {
    let mut scene = Scene::new(Setting { mode: Mode::Cft, n: 3, ..Setting::default() });
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.expect("to all: ACCEPT 1 a");
    scene.accept(&[0], &a);
    scene.expect(
        "reply 77: session
         execute 1:",
    );
}

#[test]
fn instances_are_decided_in_any_order_and_delivered_in_theirs() {
    let mut scene = Scene::new(Setting::default()).with_session();
    let [one, two] = [0, 1].map(|sequence| scene.operation(sequence));
    let [a, b] = [("a", 2, &one), ("b", 3, &two)].map(|(name, at, op)| scene.batch(name, at, &[op]));
    scene.request(&one);
    scene.request(&two);
    scene.propose(0, &b);
    scene.propose(0, &a);
    scene.expect(
        "to all: WRITE 3 b
         to all: WRITE 2 a",
    );
    scene.write(&[0, 2], &b);
    scene.accept(&[0, 2], &b);
    scene.expect("to all: ACCEPT 3 b");
    scene.write(&[0, 2], &a);
    scene.accept(&[0, 2], &a);
    scene.expect(
        "to all: ACCEPT 2 a
         execute 2: op0
         execute 3: op1",
    );
}

#[test]
fn a_request_ordered_twice_is_executed_once() {
    let mut scene = Scene::new(Setting::default()).with_session();
    let one = scene.operation(0);
    let [a, b] = [("a", 2), ("b", 3)].map(|(name, at)| scene.batch(name, at, &[&one]));
    scene.request(&one);
    scene.propose(0, &a);
    scene.propose(0, &b);
    for batch in [&a, &b] {
        scene.write(&[0, 2], batch);
        scene.accept(&[0, 2], batch);
    }
    scene.expect(
        "to all: WRITE 2 a
         to all: WRITE 3 b
         to all: ACCEPT 2 a
         execute 2: op0
         to all: ACCEPT 3 b
         execute 3:",
    );
}
