//! How a replica that misses more than its peers keep in memory is repaired [ST-1, ST-2, ST-3].
//!
//! Replica 1 of four. Batches are empty, chunks have one byte.

use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::digest::{chain_genesis, chain_next};
use regency_protocol::event::{Damage, Event};
use regency_protocol::ids::{ClusterId, Digest, InstanceId, LogPosition, ViewId};
use regency_protocol::limits::Settings;
use regency_protocol::manifest::Manifest;
use regency_protocol::message::{Batch, Message, Supply, Wanted};
use regency_protocol::record::Durability;
use regency_protocol::replica::ReplicaState;
use regency_protocol::time::Timestamp;

use crate::scene::transfer::{manifest, stable};
use crate::scene::{Scene, Setting};

const CHAIN: Digest = Digest([9; 32]);

fn scene() -> Scene {
    Scene::new(Setting::default())
}

fn genesis() -> Digest {
    chain_genesis(&ClusterId([1; 32]))
}

/// Four decided batches, certified, that only logs on disk hold.
fn gap(scene: &mut Scene) -> Vec<Arc<Batch>> {
    let batches: Vec<_> =
        (1..=4).map(|instance| scene.batch(&format!("batch {instance}"), instance, &[])).collect();
    let chain = batches.iter().fold(genesis(), |chain, batch| chain_next(&chain, &batch.digest()));
    for peer in [2, 3] {
        scene.ahead(peer, 4, 1);
    }
    scene.skip();
    scene.certified(2, 4, chain);
    batches
}

fn digests(batches: &[Arc<Batch>]) -> Supply {
    let digests = batches.iter().map(|batch| batch.digest()).collect();
    Supply::Digests { from: InstanceId(1), digests }
}

#[test]
fn a_gap_is_closed_from_the_log_of_others() {
    let mut scene = scene();
    let batches = gap(&mut scene);
    scene.expect("to 2: digests 1 to 4?");
    scene.supply(2, digests(&batches));
    scene.expect("to 2: batches 1 to 4?");
    // As many as fit into one answer.
    scene.supply_batches(2, &batches[..2]);
    scene.expect(
        "execute 1:
         execute 2:
         to 2: batches 3 to 4?",
    );
    scene.supply_batches(2, &batches[2..]);
    scene.expect(
        "execute 3:
         execute 4:",
    );
}

#[test]
fn digests_that_do_not_lead_to_the_certified_chain_end_their_donor() {
    let mut scene = scene();
    let batches = gap(&mut scene);
    scene.expect("to 2: digests 1 to 4?");
    let other = scene.batch("other", 2, &[]);
    let mut wrong = batches.clone();
    wrong[1] = other;
    wrong.swap(0, 2);
    scene.supply(2, digests(&wrong));
    scene.expect(
        "report replica 2: bad_supply
         to 3: digests 1 to 4?",
    );
}

#[test]
fn a_batch_that_is_not_the_certified_one_ends_its_donor_and_is_fetched_elsewhere() {
    let mut scene = scene();
    let batches = gap(&mut scene);
    scene.supply(2, digests(&batches));
    scene.skip();
    let later = Timestamp(scene.now().0 + 1);
    let other = scene.batch_at("other", 2, &[], later);
    scene.supply_batches(2, &[batches[0].clone(), other, batches[2].clone()]);
    scene.expect(
        "execute 1:
         report replica 2: bad_supply
         to 3: batches 2 to 4?",
    );
}

#[test]
fn a_snapshot_comes_from_several_donors_and_each_part_is_judged() {
    let mut scene = scene();
    for peer in [0, 2, 3] {
        scene.ahead(peer, 70, 60);
    }
    scene.skip();
    scene.certified(2, 70, CHAIN);
    // Nobody's log begins early enough.
    scene.expect(
        "to 0: snapshot above 0?
         to 2: snapshot above 0?
         to 3: snapshot above 0?",
    );
    let [old, new] = [manifest(40, &[1, 2]), manifest(64, &[1, 2, 3, 4])];
    let offer = |manifest: &Manifest| Supply::Snapshot {
        certificate: stable(manifest, CHAIN),
        head: manifest.head(),
    };
    scene.supply(0, offer(&old));
    scene.supply(2, offer(&new));
    scene.expect("");
    let wanted = Wanted::Snapshot { view: ViewId(0), above: InstanceId(0) };
    scene.supply(3, Supply::Nothing(wanted));
    // The highest certificate is the target.
    scene.expect("to 0: page 0 of snapshot 64?");
    let page = |chunks: &[u8]| Supply::Page {
        instance: InstanceId(64),
        page: 0,
        chunks: manifest(64, chunks).chunks,
    };
    scene.supply(0, page(&[1, 2, 3, 5]));
    scene.expect(
        "report replica 0: bad_supply
         to 2: page 0 of snapshot 64?",
    );
    scene.supply(2, page(&[1, 2, 3, 4]));
    scene.expect("begin snapshot 64 of 4 chunks");
    // Two chunks are in an older snapshot of its own.
    scene.handle(Event::TransferBegun { instance: InstanceId(64), held: vec![true, false, false, true] });
    scene.expect(
        "to 2: chunk 1 of snapshot 64?
         to 3: chunk 2 of snapshot 64?",
    );
    let chunk = |index, byte: u8| Supply::Chunk {
        instance: InstanceId(64),
        index,
        bytes: Bytes::copy_from_slice(&[byte]),
    };
    scene.supply(3, chunk(2, 9));
    scene.expect(
        "report replica 3: bad_supply
         to 2: chunk 2 of snapshot 64?",
    );
    scene.supply(2, chunk(1, 2));
    scene.supply(2, chunk(2, 3));
    scene.expect(
        "keep chunk 1 of snapshot 64
         keep chunk 2 of snapshot 64",
    );
    for index in [1, 2] {
        scene.handle(Event::ChunkKept { instance: InstanceId(64), index });
    }
    scene.expect("install snapshot 64");
}

#[test]
fn a_donor_that_is_late_is_not_waited_for() {
    let mut scene = scene();
    gap(&mut scene);
    scene.expect("to 2: digests 1 to 4?");
    scene.wait_for("to 3: digests 1 to 4?");
}

#[test]
fn who_has_no_snapshot_is_asked_once() {
    let mut scene = scene();
    for peer in [0, 2, 3] {
        scene.ahead(peer, 70, 60);
    }
    scene.skip();
    scene.certified(2, 70, CHAIN);
    scene.skip();
    let wanted = Wanted::Snapshot { view: ViewId(0), above: InstanceId(0) };
    for peer in [0, 2, 3] {
        scene.supply(peer, Supply::Nothing(wanted));
    }
    scene.expect("");
    scene.wait_for("to 3: snapshot above 0?");
}

#[test]
fn the_only_one_that_has_the_log_is_left_for_a_snapshot_if_it_gives_too_slowly() {
    let mut scene = scene();
    let batches: Vec<_> =
        (1..=300).map(|instance| scene.batch(&format!("batch {instance}"), instance, &[])).collect();
    let chain = batches.iter().fold(genesis(), |chain, batch| chain_next(&chain, &batch.digest()));
    scene.ahead(2, 300, 1);
    [0, 3].iter().for_each(|peer| scene.ahead(*peer, 300, 280));
    scene.skip();
    scene.certified(2, 300, chain);
    scene.expect("to 2: digests 1 to 300?");
    scene.supply(2, digests(&batches));
    // It answers each question in time, with the least that is an answer.
    let left_in = batches.iter().zip(1..=20).find(|(batch, round)| {
        scene.pass(390);
        scene.supply_batches(2, &[Arc::clone(batch)]);
        if *round == 1 {
            // After that it is asked one thing at a time.
            [64, 128, 192].iter().for_each(|place| scene.supply_batches(2, &batches[*place..=*place]));
        }
        scene.executed(*round, &[]);
        scene.has_come(&format!("to 0: snapshot above {}?", round - 1))
    });
    let left_in = left_in.map(|(_, round)| round);
    assert_eq!(left_in, Some(13), "five seconds, of the hundred that it would take");
}

/// The only one that has a log of 3000 instances gives it in full answers, each `percent` later than the one before; after how
/// many milliseconds it is left, if it is.
fn left_after(percent: u64) -> Option<u64> {
    let mut scene = scene();
    let batches: Vec<_> =
        (1..=3000).map(|instance| scene.batch(&format!("batch {instance}"), instance, &[])).collect();
    let chain = batches.iter().fold(genesis(), |chain, batch| chain_next(&chain, &batch.digest()));
    scene.ahead(2, 3000, 1);
    [0, 3].iter().for_each(|peer| scene.ahead(*peer, 3000, 2980));
    scene.skip();
    scene.certified(2, 3000, chain);
    scene.supply(2, digests(&batches));
    let (mut pause, mut time, mut prefix) = (350, 0, 0);
    for answer in batches.chunks(64) {
        scene.pass(pause);
        time += pause;
        if scene.has_come(&format!("to 0: snapshot above {prefix}?")) {
            return Some(time);
        }
        scene.supply_batches(2, answer);
        for batch in answer {
            prefix = batch.instance.0;
            scene.executed(prefix, &[]);
        }
        pause = (pause + pause * percent / 100).min(2_000);
    }
    None
}

#[test]
fn full_answers_that_come_later_and_later_are_too_slow_as_well() {
    assert_eq!(left_after(0), None, "47 of them in 17 s");
    let left = left_after(20);
    assert!(left.is_some_and(|millis| millis < 30_000), "{left:?}");
}

#[test]
fn the_only_donor_that_is_left_may_have_a_slow_line() {
    for millis in [100, 1_100, 4_000, 9_000] {
        let mut scene = scene();
        scene.ahead(2, 70, 60);
        scene.skip();
        scene.certified(2, 70, CHAIN);
        let manifest = manifest(64, &(0..60).collect::<Vec<u8>>());
        let times = scene.give_slowly(2, &manifest, CHAIN, millis);
        assert!(times.is_some_and(|times| times < 400), "{millis} ms: {times:?} answers for 60 chunks");
    }
}

#[test]
fn what_nobody_asked_for_is_reported() {
    let mut scene = scene();
    scene.supply_batches(2, &[]);
    scene.expect("report replica 2: unexpected_supply");
}

#[test]
fn a_donor_gives_what_it_has_in_memory_and_has_the_rest_read_from_disk() {
    let settings = Settings { retained_instances: 2, retained_bytes: 0, ..Settings::default() };
    let mut scene = Scene::new(Setting { durability: Durability::Sync, settings, ..Setting::default() });
    for instance in 1..=4 {
        let batch = scene.batch(&format!("batch {instance}"), instance, &[]);
        scene.decided(&[0, 2], &batch);
        scene.tick();
        scene.batch_answer(0, &batch, &[]);
        scene.executed(instance, &[]);
    }
    scene.skip();
    let (view, last) = (ViewId(0), InstanceId(4));
    for from in [InstanceId(3), InstanceId(1)] {
        scene.from(3, Message::Fetch(Wanted::Batches { view, from, last }));
    }
    scene.from(3, Message::Fetch(Wanted::Digests { view, from: InstanceId(1), last }));
    scene.from(3, Message::Fetch(Wanted::Digests { view, from: InstanceId(1), last: InstanceId(5) }));
    scene.expect(
        "to 3: batches 3 4
         read for 3: batches 1 to 4 from record 1 on
         to 3: 4 digests from 1
         to 3: nothing for digests 1 to 5?",
    );
    scene.from(3, Message::Fetch(Wanted::Snapshot { view, above: InstanceId(0) }));
    scene.expect("to 3: nothing for snapshot above 0?");
}

#[test]
fn a_state_that_differs_from_the_stable_one_is_taken_from_others() {
    let settings = Settings { checkpoint_interval: 1, ..Settings::default() };
    let mut scene = Scene::new(Setting { durability: Durability::Sync, settings, ..Setting::default() });
    let batch = scene.batch("batch", 1, &[]);
    scene.decided(&[0, 2], &batch);
    scene.tick();
    scene.batch_answer(0, &batch, &[]);
    scene.executed(1, &[]);
    scene.ahead(2, 1, 1);
    scene.handle(Event::Snapshotted { instance: InstanceId(1), root: Digest([7; 32]) });
    scene.skip();
    let manifest = manifest(1, &[1]);
    let chain = chain_next(&genesis(), &batch.digest());
    scene.from(2, Message::CheckpointCertificate(stable(&manifest, chain)));
    scene.expect(
        "record 3: checkpoint 1
         state differs at 1
         to 2: snapshot above 0?",
    );
}

/// One decided batch with a snapshot after it, which is stable.
fn stable_checkpoint(settings: Settings) -> (Scene, Manifest) {
    let mut scene = Scene::new(Setting { durability: Durability::Sync, settings, ..Setting::default() });
    let manifest = manifest(1, &[1, 2]);
    for peer in [0, 2, 3] {
        scene.ahead(peer, 1, 1);
    }
    let batch = scene.batch("batch", 1, &[]);
    scene.decided(&[0, 2], &batch);
    scene.tick();
    scene.batch_answer(0, &batch, &[]);
    scene.executed(1, &[]);
    scene.handle(Event::Snapshotted { instance: InstanceId(1), root: manifest.root() });
    let chain = chain_next(&genesis(), &batch.digest());
    scene.from(2, Message::CheckpointCertificate(stable(&manifest, chain)));
    scene.skip();
    (scene, manifest)
}

#[test]
fn a_damaged_snapshot_is_put_right_from_others_while_the_replica_goes_on() {
    let settings = Settings { checkpoint_interval: 1, ..Settings::default() };
    let (mut scene, manifest) = stable_checkpoint(settings);
    let instance = InstanceId(1);
    scene.handle(Event::Damaged(Damage::Snapshot(InstanceId(7))));
    scene.expect("");
    scene.handle(Event::Damaged(Damage::Snapshot(instance)));
    scene.expect(
        "to 0: snapshot above 0?
         to 2: snapshot above 0?
         to 3: snapshot above 0?",
    );
    let chain = scene.figures().chain;
    for donor in [0, 2, 3] {
        let certificate = stable(&manifest, chain);
        scene.supply(donor, Supply::Snapshot { certificate, head: manifest.head() });
    }
    scene.expect("to 0: page 0 of snapshot 1?");
    scene.supply(0, Supply::Page { instance, page: 0, chunks: manifest.chunks.clone() });
    scene.expect("begin snapshot 1 of 2 chunks");
    // One chunk only is damaged.
    scene.handle(Event::TransferBegun { instance, held: vec![true, false] });
    scene.expect("to 0: chunk 1 of snapshot 1?");
    assert_eq!(scene.figures().state, ReplicaState::Normal);
    scene.supply(0, Supply::Chunk { instance, index: 1, bytes: Bytes::from_static(&[2]) });
    scene.expect("keep chunk 1 of snapshot 1");
    scene.handle(Event::ChunkKept { instance, index: 1 });
    scene.expect("replace snapshot 1");
    scene.handle(Event::Repaired(instance));
    scene.expect("");
    assert_eq!(scene.figures().transfer, None);
}

#[test]
fn a_repair_ends_when_the_next_snapshot_is_taken() {
    let settings = Settings { checkpoint_interval: 1, ..Settings::default() };
    let (mut scene, _) = stable_checkpoint(settings);
    scene.handle(Event::Damaged(Damage::Snapshot(InstanceId(1))));
    assert!(scene.figures().transfer.is_some());
    let batch = scene.batch("next", 2, &[]);
    scene.decided(&[0, 2], &batch);
    scene.tick();
    scene.batch_answer(0, &batch, &[]);
    scene.executed(2, &[]);
    assert_eq!(scene.figures().transfer, None);
    scene.handle(Event::Snapshotted { instance: InstanceId(2), root: Digest([8; 32]) });
    scene.skip();
    scene.tick();
    scene.handle(Event::Repaired(InstanceId(1)));
    assert_eq!(scene.figures().transfer, None, "nothing is left of it");
}

#[test]
fn a_damaged_part_of_the_log_goes_as_soon_as_a_checkpoint_covers_it() {
    let settings = Settings { checkpoint_interval: 1, ..Settings::default() };
    let (mut scene, _) = stable_checkpoint(settings);
    // What is retained for others would keep it otherwise.
    let chain = scene.figures().chain;
    scene.certified(2, 1, chain);
    scene.skip();
    scene.handle(Event::Damaged(Damage::Log(LogPosition(1))));
    scene.expect(
        "record 5: regency 0
         record 6: STOP 0
         record 7: chain certificate 1
         record 8: checkpoint 1
         cut below record 5",
    );
    scene.handle(Event::Damaged(Damage::Log(LogPosition(6))));
    // What is about no instance is written again wherever it stands.
    scene.expect(
        "record 9: regency 0
         record 10: STOP 0
         record 11: chain certificate 1
         record 12: checkpoint 1
         cut below record 9",
    );
    let batch = scene.batch("next", 2, &[]);
    scene.decided(&[0, 2], &batch);
    scene.skip();
    scene.handle(Event::Damaged(Damage::Log(LogPosition(13))));
    // No checkpoint covers that yet.
    scene.expect("");
}
