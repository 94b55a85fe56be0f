//! What each replica states [STOPDATA-1], and what the new leader makes of it [SYNC-1, SYNC-2, SYNC-4].
//!
//! Replica 1 leads regency 1.

use std::sync::Arc;

use regency_protocol::event::Event;
use regency_protocol::ids::{Digest, InstanceId, Regency};
use regency_protocol::leader_change::stop_data::{Claim, Lock};
use regency_protocol::message::{Batch, Message};
use regency_protocol::time::Timestamp;

use crate::scene::{Scene, Setting, certificate, locked, stated, stated_above, timed, wrote};

/// Replica 1 with its own empty statement for regency 1, and two batches that nobody has sent it.
fn new_leader() -> (Scene, [Arc<Batch>; 2]) {
    let mut scene = Scene::new(timed(1)).connected();
    let a = scene.batch("a", 1, &[]);
    let old = Timestamp(7);
    let b = scene.batch_at("b", 2, &[], old);
    scene.stop(&[0, 2], 1);
    scene.signed();
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 1: nothing",
    );
    (scene, [a, b])
}

#[test]
fn a_statement_names_locks_and_writes() {
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    let b = scene.batch("b", 2, &[]);
    scene.propose(0, &a);
    scene.propose(0, &b);
    scene.write(&[0, 1], &a);
    scene.stop(&[1, 2], 1);
    scene.signed();
    scene.expect(
        "to all: WRITE 1 a
         to all: WRITE 2 b
         to all: ACCEPT 1 a
         to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: 1 locked a in 0 wrote a in 0, 2 wrote b in 0",
    );
}

#[test]
fn a_statement_names_the_highest_epoch_of_each_digest_and_locking_cuts_what_is_older() {
    let mut scene = Scene::new(timed(3)).connected();
    let a = scene.batch("a", 1, &[]);
    let open = scene.open();
    let b = scene.batch("b", 1, &[&open]);
    scene.propose(0, &a);
    scene.stop(&[1, 2], 1);
    scene.sync(1, 1, &[stated(0, 1, &[]), stated(1, 1, &[]), stated(2, 1, &[])]);
    scene.expect(
        "to all: WRITE 1 a
         to all: STOP 1
         sign STOPDATA 1",
    );
    scene.signed_request(&open);
    scene.propose_in(1, 1, &b);
    scene.stop(&[1, 2], 2);
    scene.signed();
    scene.expect(
        "to all: WRITE 1 b in 1
         to all: STOP 2
         sign STOPDATA 2
         to all: STOPDATA 2 of 3: 1 wrote a in 0 wrote b in 1",
    );
    // Bound in regency 2, and locked: what was written before is of no use any more.
    scene.sync(2, 2, &[stated(0, 2, &[locked(1, &b)]), stated(1, 2, &[wrote(1, &b)]), stated(2, 2, &[])]);
    scene.write_in(2, &[0, 1], &b);
    scene.stop(&[0, 1], 3);
    scene.signed();
    scene.expect(
        "to all: WRITE 1 b in 2
         to all: ACCEPT 1 b in 2
         to all: STOP 3
         sign STOPDATA 3
         to all: STOPDATA 3 of 3: 1 locked b in 2 wrote b in 2",
    );
}

#[test]
fn a_statement_stands_on_the_highest_certificate() {
    let mut scene = Scene::new(timed(3)).connected().with_session();
    let a = scene.batch("a", 2, &[]);
    scene.propose(0, &a);
    let chain = scene.figures().chain;
    scene.from(2, Message::ChainCertificate(certificate(1, chain, &[0, 2])));
    scene.stop(&[1, 2], 1);
    scene.signed();
    scene.expect(
        "to all: WRITE 2 a
         to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 3: above 1, 2 wrote a in 0",
    );
}

#[test]
fn statements_that_no_correct_replica_sends_are_refused() {
    let (mut scene, [a, _]) = new_leader();
    let refused = "report replica 2: bad_stop_data";
    let write = |instance| Claim { instance: InstanceId(instance), ..wrote(0, &a) };
    let base = |signers: &[u16]| Some(certificate(1, Digest([1; 32]), signers));
    let refused_claims = [
        vec![wrote(1, &a)],
        vec![locked(1, &a)],
        vec![Claim {
            write_set: vec![(Regency(0), a.digest()), (Regency(0), Digest([2; 32]))],
            ..wrote(0, &a)
        }],
        vec![Claim { lock: Lock::None, write_set: vec![], ..wrote(0, &a) }],
        vec![write(2), write(1)],
        vec![write(0)],
        vec![write(21)],
    ];
    for claims in refused_claims {
        scene.stop_data(&stated(2, 1, &claims));
        scene.expect(refused);
    }
    for signers in [&[2][..], &[2, 2], &[2, 9]] {
        scene.stop_data(&stated_above(base(signers), 2, 1, &[]));
        scene.expect(refused);
    }
    // In another's name.
    scene.from(2, Message::StopData(stated(3, 1, &[])));
    scene.expect(refused);
    // None of them counts: it takes two more.
    scene.stop_data(&stated(3, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.stop_data(&stated(2, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("sign SYNC 1");
}

#[test]
fn statements_for_other_regencies_do_not_count() {
    let (mut scene, _) = new_leader();
    scene.stop_data(&stated(0, 1, &[]));
    scene.stop_data(&stated(2, 5, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    assert_eq!(scene.figures().regency, Regency(1));
}

#[test]
fn a_statement_is_a_wish_too() {
    // [STOP-2] Whoever states its votes for a regency has left those below.
    let mut scene = Scene::new(timed(3)).connected();
    scene.stop_data(&stated(1, 1, &[]));
    scene.expect("");
    scene.stop_data(&stated(2, 1, &[]));
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1",
    );
}

#[test]
fn a_statement_before_any_stop_is_kept_for_the_next_term() {
    // Replica 1, in regency 0: regency 1 is its next term, whoever hears of it first.
    let mut scene = Scene::new(timed(1)).connected();
    scene.stop_data(&stated(0, 1, &[]));
    assert_eq!(scene.figures().statements, 1);
    scene.stop(&[2], 1);
    scene.signed();
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 1: nothing",
    );
    scene.stop_data(&stated(3, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("sign SYNC 1");
}

#[test]
fn a_statement_for_a_later_term_is_kept_once_somebody_correct_wants_it() {
    // [LINK-1] Replica 1 was away while the others came to regency 9. The first statement tells it nothing yet; it
    // comes again as long as the regency has not begun.
    let mut scene = Scene::new(timed(1)).connected();
    scene.stop_data(&stated(0, 9, &[]));
    scene.expect("");
    assert_eq!(scene.figures().statements, 0);
    scene.stop_data(&stated(2, 9, &[]));
    scene.stop_data(&stated(0, 9, &[]));
    scene.signed();
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: STOP 9
         sign STOPDATA 9
         to all: STOPDATA 9 of 1: nothing
         sign SYNC 9",
    );
}

#[test]
fn a_quorum_of_statements_begins_a_regency() {
    let (mut scene, _) = new_leader();
    scene.stop_data(&stated(0, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.stop_data(&stated(3, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("sign SYNC 1");
    scene.signed();
    scene.expect("to all: SYNC 1 of 0 1 3: nothing");
    // What waits is proposed anew.
    let open = scene.open();
    scene.name_proposal("c", 1, &[&open]);
    scene.signed_request(&open);
    scene.handle(Event::InputDrained);
    scene.expect(
        "to all: PROPOSE 1 in 1: open
         to all: WRITE 1 c in 1",
    );
}

#[test]
fn a_bound_batch_is_fetched_before_sync_goes_out() {
    // [SYNC-4] Nobody could vote for a batch that nobody has.
    let (mut scene, [a, _]) = new_leader();
    scene.stop_data(&stated(0, 1, &[locked(0, &a)]));
    scene.stop_data(&stated(3, 1, &[wrote(0, &a)]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.pass(0);
    scene.expect("to 0: batch of 1 a?");
    // No answer: the next one that has it is asked.
    scene.pass(60);
    scene.expect("to 3: batch of 1 a?");
    scene.batch_answer(3, &a, &[]);
    scene.handle(Event::InputDrained);
    scene.expect("sign SYNC 1");
    scene.signed();
    scene.expect(
        "to all: SYNC 1 of 0 1 3: 1 a
         to all: WRITE 1 a in 1",
    );
}

#[test]
fn a_free_instance_below_a_bound_one_becomes_the_empty_batch() {
    let (mut scene, [a, b]) = new_leader();
    scene.empty(1);
    // One of three wrote `a`; it cannot have been decided. `b` may have been.
    scene.stop_data(&stated(0, 1, &[wrote(0, &a), locked(0, &b)]));
    scene.stop_data(&stated(3, 1, &[wrote(0, &b)]));
    scene.pass(0);
    scene.expect("to 0: batch of 2 b?");
    scene.batch_answer(0, &b, &[]);
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 1
         to all: SYNC 1 of 0 1 3: 1 empty, 2 b
         to all: WRITE 1 empty in 1
         to all: WRITE 2 b in 1",
    );
}

#[test]
fn a_lock_that_nobody_vouches_for_leaves_it_undecided_until_all_have_spoken() {
    let (mut scene, [a, _]) = new_leader();
    // Condition (2): one lock, and nobody else wrote it. Two without a lock are no quorum.
    scene.stop_data(&stated(0, 1, &[locked(0, &a)]));
    scene.stop_data(&stated(3, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.stop_data(&stated(2, 1, &[]));
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 1
         to all: SYNC 1 of 0 1 2 3: nothing",
    );
}

#[test]
fn the_fourth_statement_may_vouch_for_the_lock() {
    let (mut scene, [a, _]) = new_leader();
    scene.stop_data(&stated(0, 1, &[locked(0, &a)]));
    scene.stop_data(&stated(3, 1, &[]));
    scene.stop_data(&stated(2, 1, &[wrote(0, &a)]));
    // Three without a lock make it free as well: bound goes first.
    scene.pass(0);
    scene.expect("to 0: batch of 1 a?");
}

/// Replica 3 of seven leads regency 3, and all have spoken. One locked `a` in `epoch`, one `b` in epoch 1; of each
/// three say that they wrote it, and five have no lock: `a` and `b` are bound, and the instance is free.
fn bound_to_two(epoch: u64) -> (Scene, [Arc<Batch>; 2]) {
    let mut scene = Scene::new(Setting { n: 7, ..timed(3) }).connected();
    let [a, b] = [("a", 7), ("b", 8)].map(|(name, at)| scene.batch_at(name, 1, &[], Timestamp(at)));
    scene.stop(&[0, 1, 2, 4], 3);
    scene.signed();
    scene.expect(
        "to all: STOP 3
         sign STOPDATA 3
         to all: STOPDATA 3 of 3: nothing",
    );
    scene.stop_data(&stated(0, 3, &[locked(epoch, &a)]));
    scene.stop_data(&stated(1, 3, &[locked(1, &b)]));
    scene.stop_data(&stated(2, 3, &[wrote(epoch, &a)]));
    scene.stop_data(&stated(4, 3, &[wrote(1, &b)]));
    scene.stop_data(&stated(5, 3, &[]));
    scene.pass(0);
    scene.expect("");
    let write_set = vec![(Regency(epoch), a.digest()), (Regency(epoch + 1), b.digest())];
    scene.stop_data(&stated(6, 3, &[Claim { write_set, ..wrote(0, &a) }]));
    scene.pass(0);
    (scene, [a, b])
}

#[test]
fn of_two_bound_batches_the_one_of_the_higher_epoch_is_taken() {
    let (mut scene, _) = bound_to_two(0);
    scene.expect("to 1: batch of 1 b?");
}

#[test]
fn of_two_batches_bound_in_one_epoch_the_one_of_the_smaller_digest_is_taken() {
    let (mut scene, [a, b]) = bound_to_two(1);
    let is_a = a.digest() < b.digest();
    scene.expect(if is_a { "to 0: batch of 1 a?" } else { "to 1: batch of 1 b?" });
}

#[test]
fn instances_up_to_the_highest_base_are_left_alone() {
    let (mut scene, [a, b]) = new_leader();
    let base = certificate(1, Digest([1; 32]), &[0, 3]);
    scene.stop_data(&stated_above(Some(base), 0, 1, &[locked(0, &b)]));
    scene.stop_data(&stated(3, 1, &[locked(0, &a), wrote(0, &b)]));
    scene.pass(0);
    // The new leader lacks what the certificate covers, and learns it as everybody who is behind.
    scene.expect("to 0: batch of 2 b?");
    scene.batch_answer(0, &b, &[]);
    scene.handle(Event::InputDrained);
    scene.signed();
    scene.expect(
        "sign SYNC 1
         to all: SYNC 1 of 0 1 3: 2 b
         to all: WRITE 2 b in 1",
    );
}

#[test]
fn a_new_leader_votes_for_nothing_before_its_sync_is_signed() {
    let mut scene = Scene::new(timed(1)).connected();
    let a = scene.batch("a", 1, &[]);
    scene.propose(0, &a);
    scene.write(&[0, 2], &a);
    scene.stop(&[0, 2], 1);
    scene.signed();
    scene.expect(
        "to all: WRITE 1 a
         to all: ACCEPT 1 a
         to all: STOP 1
         sign STOPDATA 1
         to all: STOPDATA 1 of 1: 1 locked a in 0 wrote a in 0",
    );
    scene.stop_data(&stated(0, 1, &[wrote(0, &a)]));
    scene.stop_data(&stated(2, 1, &[]));
    scene.expect("");
    scene.handle(Event::InputDrained);
    scene.expect("sign SYNC 1");
    scene.handle(Event::InputDrained);
    scene.expect("");
    scene.signed();
    scene.expect(
        "to all: SYNC 1 of 0 1 2: 1 a
         to all: WRITE 1 a in 1",
    );
}
