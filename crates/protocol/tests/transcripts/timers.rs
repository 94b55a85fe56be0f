//! How long a request may wait [STOP-1]: what rounds take here, what waits before it, whose fault it is, and the cap.

use std::time::Duration;

use regency_protocol::ids::Regency;
use regency_protocol::limits::Settings;

use crate::scene::{Scene, Setting, nothing_stated, timed};

/// [`timed`] with other settings.
fn timed_with(me: u16, change: impl FnOnce(&mut Settings)) -> Setting {
    let mut setting = timed(me);
    change(&mut setting.settings);
    setting
}

/// Replica 3 after the batch that opens Alice's session. STATUS leaves every 400 ms, as nothing is certified yet.
fn followed(change: impl FnOnce(&mut Settings)) -> Scene {
    Scene::new(timed_with(3, change)).connected().with_session()
}

/// The next STATUS leaves, and two peers echo it after so long: with this replica they are a quorum.
fn measure(scene: &mut Scene, trip: u64) {
    scene.wait_for("to all: STATUS 1");
    let sent = scene.now();
    scene.pass(trip);
    scene.echo(&[0, 1], sent);
    scene.expect("");
}

#[test]
fn where_round_trips_are_long_a_request_is_forwarded_later() {
    let mut scene = followed(|_| {});
    measure(&mut scene, 100);
    // 100 ms, and half of that off, four times: 300 ms there and back on a bad day. A round is two of them.
    assert_eq!(scene.figures().round, Duration::from_millis(600));
    let op = scene.operation(0);
    scene.signed_request(&op);
    // Eight rounds are 4,800 ms; it is looked after within a quarter of that. Without ECHOes it were 1,000 ms.
    scene.pass(4_799);
    scene.expect("");
    scene.wait_for("to all: FORWARD op0");
    scene.pass(4_799);
    scene.expect("");
    scene.pass(1_201);
    scene.expect("to all: STOP 1");
}

#[test]
fn round_trips_that_prove_steady_shorten_the_wait_again() {
    let mut scene = followed(|_| {});
    (0..30).for_each(|_| measure(&mut scene, 100));
    let round = scene.figures().round;
    assert!(round >= Duration::from_millis(200) && round < Duration::from_millis(210), "{round:?}");
    let op = scene.operation(0);
    scene.signed_request(&op);
    scene.pass(1_600);
    scene.expect("");
    scene.pass(500);
    scene.expect("to all: FORWARD op0");
}

#[test]
fn one_peer_that_echoes_late_delays_nothing() {
    let mut scene = followed(|_| {});
    scene.wait_for("to all: STATUS 1");
    let sent = scene.now();
    scene.pass(25);
    scene.echo(&[0, 1], sent);
    scene.pass(9_000);
    scene.echo(&[2], sent);
    // Nor does one that says the same again, or echoes what never left.
    scene.echo(&[0, 1], sent);
    scene.echo(&[0, 1], sent.plus(Duration::from_millis(1)));
    assert_eq!(scene.figures().round, Duration::from_millis(150));
}

#[test]
fn the_timer_is_longer_by_as_much_for_every_full_batch_that_waits() {
    // A round is 150 ms here, so that eight are 1,200; two requests are a full batch.
    for (requests, timeout) in [(1, 1_200), (2, 2_400), (3, 2_400), (4, 3_600), (9, 6_000)] {
        let mut scene = followed(|settings| settings.batch_requests_max = 2);
        measure(&mut scene, 25);
        for sequence in 0..requests {
            let op = scene.operation(sequence);
            scene.signed_request(&op);
        }
        scene.pass(timeout - 1);
        scene.expect("");
        scene.pass(timeout / 4 + 1);
        let names: Vec<String> = (0..requests).map(|sequence| format!("op{sequence}")).collect();
        scene.expect(&format!("to all: FORWARD {}", names.join(" ")));
    }
}

#[test]
fn full_batches_count_by_their_bytes_too() {
    let mut scene = followed(|settings| settings.batch_bytes_max = 1);
    measure(&mut scene, 25);
    let op = scene.operation(0);
    scene.signed_request(&op);
    // One request is many a batch of a byte: nothing happens before the cap.
    scene.pass(19_999);
    scene.expect("");
    scene.pass(5_001);
    scene.expect("to all: FORWARD op0");
}

/// The leader keeps 64 deliveries before the service, of which each takes 50 ms, until the core asks for `line`; after how
/// many milliseconds it does.
fn until_under_load(scene: &mut Scene, next: &mut u64, line: &str) -> u64 {
    let begun = scene.now();
    for _ in 0..150 {
        if scene.has_come(line) {
            return u64::try_from(scene.now().since(begun).as_millis()).unwrap();
        }
        let batch = scene.batch("other", *next, &[]);
        scene.propose(0, &batch);
        scene.write(&[0, 1], &batch);
        scene.accept(&[0, 1], &batch);
        if *next > 65 {
            scene.pass(50);
            scene.executed(*next - 64, &[]);
        }
        *next += 1;
    }
    panic!("{line:?} has not come");
}

#[test]
fn a_slow_service_gives_its_leader_more_time_and_no_more_than_that() {
    let mut scene = followed(|settings| {
        (settings.span, settings.chain_interval) = (300, 100);
        settings.request_timeout_max = Duration::from_secs(2);
    });
    let (op, mut next) = (scene.operation(0), 2);
    scene.signed_request(&op);
    // 64 deliveries of 50 ms: eight times as long is beyond the cap, which is what a request waits then.
    let forwarded = until_under_load(&mut scene, &mut next, "to all: FORWARD op0");
    assert!((2_000..3_000).contains(&forwarded), "{forwarded}");
    let stopped = until_under_load(&mut scene, &mut next, "to all: STOP 1");
    assert!((2_000..3_000).contains(&stopped), "{stopped}");
}

#[test]
fn timers_rest_while_the_own_service_does_not_answer() {
    // [CKPT-1] Nothing is executed between the last batch of a checkpoint and its snapshot, either.
    let mut scene = followed(|settings| settings.checkpoint_interval = 2);
    let batch = scene.batch("last", 2, &[]);
    scene.propose(0, &batch);
    scene.write(&[0, 1], &batch);
    scene.accept(&[0, 1], &batch);
    scene.expect(
        "to all: WRITE 2 last
         to all: ACCEPT 2 last
         execute 2:",
    );
    let op = scene.operation(0);
    scene.signed_request(&op);
    scene.pass(60_000);
    scene.expect("");
    scene.executed(2, &[]);
    scene.expect("snapshot at 2 after record 0");
    // Who was so slow may be so again.
    scene.pass(14_000);
    scene.expect("");
    scene.pass(11_000);
    scene.expect("to all: FORWARD op0");
}

#[test]
fn patience_doubles_up_to_the_cap() {
    let mut scene =
        Scene::new(timed_with(3, |settings| settings.request_timeout_max = Duration::from_millis(3_000)));
    scene = scene.connected();
    let open = scene.open();
    scene.signed_request(&open);
    scene.stop(&[1, 2], 1);
    scene.expect(
        "to all: STOP 1
         sign STOPDATA 1",
    );
    // Replica 3 leads regency 3, and nobody states anything: it does not begin either.
    for (regency, timeout) in [(1, 1_000), (2, 2_000), (3, 3_000), (4, 3_000), (5, 3_000)] {
        assert_eq!(scene.figures().regency, Regency(regency));
        scene.pass(timeout - 1);
        scene.expect("");
        scene.pass(1);
        scene.expect(&format!("to all: STOP {}", regency + 1));
        scene.stop(&[0, 1, 2], regency + 1);
        scene.expect(&format!("sign STOPDATA {}", regency + 1));
    }
    assert_eq!(scene.figures().backoff, 5);
}

/// The leader of `regency` proposes so many operations in a row, each as long after it came; says whether it was
/// called slow.
fn is_called_slow(scene: &mut Scene, regency: u64, numbers: std::ops::Range<u64>, delay: u64) -> bool {
    let leader = u16::try_from(regency % 4).unwrap();
    let voters: Vec<u16> = (0..3).collect();
    for number in numbers {
        let operation = scene.operation(number);
        let batch = scene.batch("paced", number + 2, &[&operation]);
        scene.signed_request(&operation);
        scene.pass(delay);
        scene.propose_in(regency, leader, &batch);
        scene.write_in(regency, &voters, &batch);
        scene.accept_in(regency, &voters, &batch);
        scene.executed(number + 2, &["done"]);
        scene.pass(300);
    }
    scene.has_come(&format!("report replica {leader}: slow_leader"))
}

#[test]
fn a_complaint_makes_its_author_twice_as_patient_with_the_next_leader() {
    // 30 ms are more than the 20 that a leader may let a request wait where rounds take no time.
    let mut scene = followed(|settings| settings.span = 200);
    assert!(is_called_slow(&mut scene, 0, 0..6, 30));
    scene.stop(&[1, 2], 1);
    scene.sync(1, 1, &nothing_stated(1));
    scene.forget();
    // They are less than 40; 50 are not, and cost the next leader its term.
    assert!(!is_called_slow(&mut scene, 1, 6..14, 30));
    assert!(is_called_slow(&mut scene, 1, 14..22, 50));
    scene.stop(&[1, 2], 2);
    scene.sync(2, 2, &nothing_stated(2));
    scene.forget();
    assert!(!is_called_slow(&mut scene, 2, 22..30, 50), "less than 80");
}
