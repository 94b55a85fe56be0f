//! Requests that are known by their clients' channels: who lacks one, who announces it, who is suspect [REQ-3].

use regency_protocol::event::Event;
use regency_protocol::message::Message;

use crate::scene::{Scene, certificate, channelled};

#[test]
fn who_lacks_proof_of_a_proposed_request_says_so() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.expect("");
    scene.pass(20);
    scene.expect(
        "to 0: bodies of open?
         to all: LACK open",
    );
    scene.bodies(0, &[&open]);
    scene.expect("");
}

#[test]
fn a_body_without_proof_silences_nobody() {
    // Or else a client and a replica together could have one honest leader after the other deposed.
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.bodies(2, &[&open]);
    scene.pass(20);
    scene.expect("to all: LACK open");
    // Two WRITEs say that somebody correct holds it: there is nothing to complain of any more.
    scene.write(&[0, 1], &a);
    scene.expect(
        "to all: WRITE 1 a
         to all: ACCEPT 1 a",
    );
    scene.pass(300);
    scene.expect("");
}

#[test]
fn who_holds_a_request_that_is_lacked_announces_it() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    scene.request(&open);
    scene.lack(&[2], &[&open]);
    scene.expect("");
    // Many at a time, once the input has drained.
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
    // Of what is not authentic here nothing is said.
    let unknown = scene.operation(0);
    scene.lack(&[2], &[&unknown]);
    scene.handle(Event::InputDrained);
    scene.expect("");
}

#[test]
fn who_sees_an_announcement_of_what_it_holds_announces_it_too() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    scene.request(&open);
    scene.announce(&[2], &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
    scene.announce(&[1], &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect("");
}

#[test]
fn f_plus_one_announcements_make_a_request_authentic() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.bodies(0, &[&open]);
    scene.announce(&[2], &[&open]);
    scene.expect("");
    scene.announce(&[1], &[&open]);
    scene.expect("to all: WRITE 1 a");
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
}

#[test]
fn a_forward_counts_as_an_announcement_and_brings_the_body() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.propose(0, &a);
    scene.forward(&[2], &[&open]);
    scene.expect("");
    scene.announce(&[1], &[&open]);
    scene.expect("to all: WRITE 1 a");
}

#[test]
fn a_request_that_few_hold_costs_nobody_its_term() {
    // It is forwarded, so that all may hold it; but only what a quorum announces counts as oldest.
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    scene.request(&open);
    scene.pass(1_000);
    scene.expect("to all: FORWARD open");
    scene.pass(10_000);
    // Said again, in case that it was lost.
    scene.expect("to all: ANNOUNCE open");
    scene.announce(&[1], &[&open]);
    scene.pass(10_000);
    scene.expect("");
    scene.announce(&[2], &[&open]);
    scene.pass(250);
    scene.expect("to all: STOP 1");
}

#[test]
fn what_is_executed_here_is_announced_to_who_is_behind() {
    // A leader that lies has one replica alone decide. It has nothing pending any more; the two others announce the
    // request to each other for ever, and need one announcement more to ask for another leader.
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    let a = scene.batch("a", 1, &[&open]);
    scene.request(&open);
    scene.propose(0, &a);
    scene.write(&[0, 1], &a);
    scene.accept(&[0, 1], &a);
    scene.executed(1, &[]);
    scene.forget();
    // Nothing is known of replica 2 yet, and replica 1 is not behind.
    scene.status(1, 1);
    scene.announce(&[1, 2], &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.status(2, 0);
    scene.forget();
    // What was never executed here is not vouched for.
    let [one, two] = [0, 1].map(|sequence| scene.operation(sequence));
    scene.announce(&[2], &[&one, &open, &two]);
    scene.expect("to 2: ANNOUNCE open");
    // Not more often than it is repeated.
    scene.announce(&[2], &[&open]);
    scene.expect("");
    scene.pass(400);
    scene.expect("");
    scene.announce(&[2], &[&open]);
    scene.expect("to 2: ANNOUNCE open");
    // Once it is certified, whoever is behind gets the batch itself.
    let chain = scene.figures().chain;
    scene.from(1, Message::ChainCertificate(certificate(1, chain, &[1, 3])));
    scene.pass(400);
    scene.announce(&[2], &[&open]);
    scene.expect("");
}

#[test]
fn two_lacks_make_a_client_suspect() {
    let mut scene = Scene::new(channelled(3)).connected();
    let open = scene.open();
    scene.request(&open);
    scene.lack(&[1], &[&open]);
    scene.expect("");
    scene.lack(&[2], &[&open]);
    scene.expect("report Alice: client_suspect");
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE open");
}

#[test]
fn a_suspects_requests_are_proposed_once_a_quorum_announced_them() {
    let mut scene = Scene::new(channelled(0)).connected().with_session_led();
    let [one, two] = [0, 1].map(|sequence| scene.operation(sequence));
    scene.request(&one);
    scene.lack(&[1, 2], &[&one]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "report Alice: client_suspect
         to all: ANNOUNCE op0",
    );
    scene.announce(&[1], &[&one]);
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.name_proposal("a", 2, &[&one]);
    scene.announce(&[3], &[&one]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 2: op0
         to all: WRITE 2 a",
    );
    // The next one, too; after `standing_period` they need no announcements again.
    scene.request(&two);
    scene.handle(Event::InputDrained);
    scene.expect("to all: ANNOUNCE op1");
}

#[test]
fn a_suspects_standing_is_good_again_after_its_period() {
    let mut scene = Scene::new(channelled(0)).connected().with_session_led();
    let [one, two] = [0, 1].map(|sequence| scene.operation(sequence));
    scene.request(&one);
    scene.lack(&[1, 2], &[&one]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "report Alice: client_suspect
         to all: ANNOUNCE op0",
    );
    scene.pass(59_000);
    scene.handle(Event::InputDrained);
    scene.expect("to all: FORWARD op0");
    scene.pass(2_000);
    scene.name_proposal("a", 2, &[&one]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 2: op0
         to all: WRITE 2 a",
    );
    scene.name_proposal("b", 3, &[&two]);
    scene.request(&two);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 3: op1
         to all: WRITE 3 b",
    );
}

#[test]
fn a_leader_yields_when_nobody_else_has_what_it_proposed() {
    let mut scene = Scene::new(channelled(0)).connected();
    let open = scene.open();
    scene.name_proposal("a", 1, &[&open]);
    scene.request(&open);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1: open
         to all: WRITE 1 a",
    );
    scene.lack(&[1, 2], &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "report Alice: client_suspect
         to all: ANNOUNCE open",
    );
    scene.pass(399);
    scene.expect("");
    scene.pass(400);
    scene.expect("to all: STOP 1");
}

#[test]
fn a_leader_stays_when_somebody_else_announces_what_it_proposed() {
    let mut scene = Scene::new(channelled(0)).connected();
    let open = scene.open();
    scene.name_proposal("a", 1, &[&open]);
    scene.request(&open);
    scene.handle(Event::InputDrained);
    scene.lack(&[1, 2], &[&open]);
    scene.announce(&[3], &[&open]);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1: open
         to all: WRITE 1 a
         report Alice: client_suspect
         to all: ANNOUNCE open",
    );
    scene.pass(900);
    scene.expect("");
}

#[test]
fn where_clients_sign_there_is_nothing_to_announce() {
    let mut scene = Scene::new(crate::scene::timed(3)).connected();
    let open = scene.open();
    scene.announce(&[1], &[&open]);
    scene.lack(&[2], &[&open]);
    scene.forward(&[1], &[&open]);
    scene.expect(
        "report replica 1: unexpected_announce
         report replica 2: unexpected_announce
         report replica 1: bad_forward",
    );
}
