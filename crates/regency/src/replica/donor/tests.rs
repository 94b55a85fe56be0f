//! Tests of the donor, on a simulated disk and with its real thread.

use std::io::Write;

use bytes::Bytes;
use mio::{Events, Poll, Token};
use regency_protocol::codec::Wire;
use regency_protocol::ids::{ClientId, ClusterId, Digest, InstanceId, LogPosition, Sequence, SessionId};
use regency_protocol::limits::{DONOR_QUESTIONS_MAX, RANGE_BYTES_MAX, RANGE_MAX};
use regency_protocol::manifest::Manifest;
use regency_protocol::message::{Batch, CheckpointCertificate, Request, Wanted};
use regency_protocol::record::{Record, RecordedBatch};
use regency_protocol::time::Timestamp;
use regency_storage::FaultyDisk;
use regency_storage::log::{Log, LogSettings};
use regency_storage::snapshots::SnapshotStore;

use super::shelf::wanted;
use super::*;

const IDENTITY: Identity = Identity { cluster: ClusterId([7; 32]), replica: ReplicaId(1) };
const VIEW: ViewId = ViewId(0);
const WAIT: Duration = Duration::from_secs(10);

fn opener(disk: &FaultyDisk) -> OpenDisk {
    let disk = disk.clone();
    Box::new(move || Box::new(disk.clone()))
}

/// Bytes without a pattern.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// Puts a snapshot on the disk.
fn snapshot(disk: &FaultyDisk, instance: u64, bytes: usize) -> Manifest {
    let mut store = SnapshotStore::open(Box::new(disk.clone()), IDENTITY).unwrap();
    let mut writer = store.begin(InstanceId(instance)).unwrap();
    writer.write_all(&noise(bytes)).unwrap();
    let finished = writer.finish().unwrap();
    let manifest = finished.manifest().clone();
    store.install(finished).unwrap();
    manifest
}

fn batch(instance: u64, bytes: usize) -> RecordedBatch {
    let (client, session) = (ClientId([1; 32]), SessionId(1));
    let request = Request::ordered(client, session, Sequence(instance), Sequence(0), &vec![5; bytes]);
    let batch = Batch {
        view: VIEW,
        instance: InstanceId(instance),
        timestamp: Timestamp(instance),
        requests: vec![request.digest()],
    };
    RecordedBatch { batch: Arc::new(batch), requests: vec![Arc::new(request)] }
}

/// A log being written, with a batch and its decision for each instance, and where each begins.
struct Written {
    log: Log,
    places: Vec<(u64, LogPosition)>,
}

impl Written {
    fn new(disk: &FaultyDisk) -> Self {
        let settings = LogSettings { segment_bytes: 1 << 18, ..LogSettings::default() };
        let (log, _) = Log::open(Box::new(disk.clone()), IDENTITY, settings, &mut |_, _| {}).unwrap();
        Self { log, places: Vec::new() }
    }

    fn append(&mut self, record: &Record) -> LogPosition {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.log.append(&bytes).unwrap()
    }

    /// Decides instances whose batches have so many bytes, the next one's batch always before the decision.
    fn decide(&mut self, instances: std::ops::RangeInclusive<u64>, bytes: usize) {
        let (first, last) = (*instances.start(), *instances.end());
        for instance in first..=last + 1 {
            if instance <= last {
                let place = self.append(&Record::Batch(batch(instance, bytes)));
                self.places.push((instance, place));
            }
            if instance > first {
                let decided = batch(instance - 1, bytes).batch;
                let (instance, digest) = (decided.instance, decided.digest());
                self.append(&Record::Decided { instance, digest, chain: Digest([0; 32]) });
            }
        }
        self.log.commit().unwrap();
    }

    fn place(&self, instance: u64) -> LogPosition {
        self.places.iter().find(|(known, _)| *known == instance).unwrap().1
    }

    fn range(&self, from: u64, last: u64) -> Donation {
        let position = self.place(from);
        Donation::Batches { from: InstanceId(from), last: InstanceId(last), position }
    }
}

fn instances(supply: Supply) -> Vec<u64> {
    match supply {
        Supply::Batches(batches) => batches.iter().map(|recorded| recorded.batch.instance.0).collect(),
        Supply::Nothing(Wanted::Batches { .. }) => Vec::new(),
        other => panic!("no batches: {other:?}"),
    }
}

fn certificate(instance: InstanceId, root: Digest) -> CheckpointCertificate {
    CheckpointCertificate { view: VIEW, instance, chain: Digest([3; 32]), root, signatures: Vec::new() }
}

fn offer(instance: InstanceId, root: Digest) -> Donation {
    Donation::Snapshot { certificate: certificate(instance, root), above: InstanceId(3) }
}

#[test]
fn a_snapshot_is_given_page_by_page_and_chunk_by_chunk_under_its_root_only() {
    let disk = FaultyDisk::seeded(1);
    let manifest = snapshot(&disk, 20, 1 << 20);
    let (instance, root) = (InstanceId(20), manifest.root());
    let mut shelf = Shelf::new(opener(&disk), IDENTITY);
    let mut supply = |donation: Donation| shelf.supply(donation, VIEW);
    let head = supply(offer(instance, root));
    assert_eq!(head, Supply::Snapshot { certificate: certificate(instance, root), head: manifest.head() });
    let page = supply(Donation::Page { instance, root, page: 0 });
    assert_eq!(page, Supply::Page { instance, page: 0, chunks: manifest.chunks.clone() });
    for index in 0..manifest.chunks.len() {
        let number = u32::try_from(index).unwrap();
        match supply(Donation::Chunk { instance, root, index: number }) {
            Supply::Chunk { instance: of, index: place, bytes } => {
                assert_eq!((of, place), (instance, number));
                assert!(manifest.chunks[index].is_of(&bytes));
            }
            other => panic!("no chunk: {other:?}"),
        }
    }
    let other = Digest([9; 32]);
    let refusals = [
        offer(instance, other),
        Donation::Page { instance, root: other, page: 0 },
        Donation::Page { instance, root, page: 1 },
        Donation::Chunk { instance, root: other, index: 0 },
        Donation::Chunk { instance, root, index: 99 },
        Donation::Chunk { instance: InstanceId(21), root, index: 0 },
    ];
    for donation in refusals {
        let expected = Supply::Nothing(wanted(&donation, VIEW));
        assert_eq!(supply(donation), expected);
    }
}

#[test]
fn a_damaged_chunk_is_not_given_and_spoils_no_other() {
    let disk = FaultyDisk::seeded(2);
    let manifest = snapshot(&disk, 20, 1 << 20);
    let (instance, root) = (InstanceId(20), manifest.root());
    let data = disk.names().into_iter().find(|name| name.ends_with(".data")).unwrap();
    assert!(disk.rot(&data, 5000, 1), "in the first chunk");
    let mut shelf = Shelf::new(opener(&disk), IDENTITY);
    let nothing = Supply::Nothing(Wanted::Chunk { instance, root, index: 0 });
    assert_eq!(shelf.supply(Donation::Chunk { instance, root, index: 0 }, VIEW), nothing);
    let next = shelf.supply(Donation::Chunk { instance, root, index: 1 }, VIEW);
    assert!(matches!(next, Supply::Chunk { .. }));
}

#[test]
fn ranges_of_the_log_are_given_in_order_and_no_longer_than_one_answer() {
    let disk = FaultyDisk::seeded(3);
    let mut written = Written::new(&disk);
    written.decide(1..=300, 10);
    let mut shelf = Shelf::new(opener(&disk), IDENTITY);
    let mut ask = |donation| instances(shelf.supply(donation, VIEW));
    assert_eq!(ask(written.range(1, 5)), [1, 2, 3, 4, 5]);
    assert_eq!(ask(written.range(6, 999)), (6..6 + RANGE_MAX).collect::<Vec<u64>>());
    assert_eq!(ask(written.range(200, 202)), [200, 201, 202], "further on");
    assert_eq!(ask(written.range(40, 41)), [40, 41], "and back");
    assert_eq!(ask(written.range(290, 310)), (290..=300).collect::<Vec<u64>>(), "to the end");
    written.decide(301..=310, 10);
    assert_eq!(ask(written.range(301, 310)), (301..=310).collect::<Vec<u64>>(), "what was written since");
}

#[test]
fn an_answer_ends_with_the_batch_that_fills_it() {
    let disk = FaultyDisk::seeded(4);
    let mut written = Written::new(&disk);
    let bytes = RANGE_BYTES_MAX / 3;
    written.decide(1..=8, bytes);
    let mut shelf = Shelf::new(opener(&disk), IDENTITY);
    let first = instances(shelf.supply(written.range(1, 8), VIEW));
    assert_eq!(first, [1, 2, 3]);
    assert_eq!(instances(shelf.supply(written.range(4, 8), VIEW)), [4, 5, 6]);
}

#[test]
fn what_is_cut_or_undecided_or_has_a_gap_before_it_is_not_given() {
    let disk = FaultyDisk::seeded(5);
    let mut written = Written::new(&disk);
    written.decide(1..=50, 10_000);
    written.decide(60..=70, 10_000);
    written.append(&Record::Batch(batch(71, 10)));
    written.log.commit().unwrap();
    let mut shelf = Shelf::new(opener(&disk), IDENTITY);
    let mut ask = |donation| instances(shelf.supply(donation, VIEW));
    assert_eq!(ask(written.range(48, 65)), [48, 49, 50]);
    let position = written.place(50);
    let missing = |from| Donation::Batches { from: InstanceId(from), last: InstanceId(99), position };
    assert_eq!(ask(missing(55)), [0_u64; 0]);
    assert_eq!(ask(missing(71)), [0_u64; 0]);
    let early = written.range(1, 5);
    written.log.cut(written.place(45)).unwrap();
    assert_eq!(ask(early), [0_u64; 0]);
    assert_eq!(ask(written.range(60, 61)), [60, 61]);
}

/// A donor with a snapshot of many chunks, and what wakes the loop.
fn donor(rate: u64) -> (Donor, Poll, Manifest) {
    let disk = FaultyDisk::seeded(6);
    let manifest = snapshot(&disk, 20, 4 << 20);
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let metrics = Arc::new(Metrics::new(IDENTITY.replica));
    (Donor::new(opener(&disk), IDENTITY, rate, waker, metrics), poll, manifest)
}

fn chunk(manifest: &Manifest, index: u32) -> Donation {
    Donation::Chunk { instance: manifest.instance, root: manifest.root(), index }
}

/// The next answer, as soon as there is one.
fn next(donor: &mut Donor, poll: &mut Poll) -> (ReplicaId, Supply) {
    let mut events = Events::with_capacity(4);
    let until = Instant::now() + WAIT;
    loop {
        if let Some(next) = donor.next() {
            return next;
        }
        assert!(Instant::now() < until, "no answer");
        poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
    }
}

#[test]
fn answers_wake_the_loop_and_are_counted() {
    let (mut donor, mut poll, manifest) = donor(0);
    assert!(!donor.is_giving() && donor.next().is_none());
    donor.give(ReplicaId(2), chunk(&manifest, 0), VIEW).unwrap();
    donor.give(ReplicaId(3), chunk(&manifest, 9999), VIEW).unwrap();
    assert!(donor.is_giving());
    let mut answers = [next(&mut donor, &mut poll), next(&mut donor, &mut poll)];
    answers.sort_by_key(|(id, _)| *id);
    assert!(matches!(&answers[0], (ReplicaId(2), Supply::Chunk { index: 0, .. })));
    assert!(matches!(&answers[1], (ReplicaId(3), Supply::Nothing(Wanted::Chunk { index: 9999, .. }))));
    assert!(!donor.is_giving());
    let metrics = &donor.metrics;
    assert_eq!((metrics.donated_chunks.get(), metrics.donations_refused.get()), (1, 1));
    assert_eq!(metrics.donated_bytes.get(), u64::from(manifest.chunks[0].length));
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    // So slow that nothing but the first leaves.
    let (mut donor, _poll, manifest) = donor(1);
    (0..100).for_each(|_| donor.give(ReplicaId(2), chunk(&manifest, 0), VIEW).unwrap());
    let dropped = donor.metrics.donations_refused.get();
    let most = 100 - 2 * DONOR_QUESTIONS_MAX as u64;
    assert!((most - 2..=most).contains(&dropped), "{dropped}");
    donor.give(ReplicaId(3), chunk(&manifest, 0), VIEW).unwrap();
    assert_eq!(donor.metrics.donations_refused.get(), dropped, "another one finds room all the same");
}

#[test]
fn an_offer_does_not_wait_until_what_left_before_is_paid_for() {
    let (mut donor, mut poll, manifest) = donor(1);
    donor.give(ReplicaId(2), chunk(&manifest, 0), VIEW).unwrap();
    donor.give(ReplicaId(2), chunk(&manifest, 1), VIEW).unwrap();
    next(&mut donor, &mut poll);
    donor.give(ReplicaId(3), offer(manifest.instance, manifest.root()), VIEW).unwrap();
    assert!(matches!(next(&mut donor, &mut poll), (ReplicaId(3), Supply::Snapshot { .. })));
}

#[test]
fn what_comes_from_memory_waits_for_its_turn_as_well_and_a_refusal_does_not() {
    let (mut donor, mut poll, manifest) = donor(1);
    let batches = || Supply::Batches(vec![batch(1, 1000)]);
    assert_eq!(donor.pass(ReplicaId(2), batches()).unwrap(), None);
    assert_eq!(next(&mut donor, &mut poll), (ReplicaId(2), batches()));
    assert_eq!(donor.pass(ReplicaId(2), batches()).unwrap(), None);
    let nothing = Supply::Nothing(wanted(&chunk(&manifest, 0), VIEW));
    assert_eq!(donor.pass(ReplicaId(3), nothing.clone()).unwrap(), Some(nothing));
    // An offer is given next: the thread has looked at what waits, and left it.
    donor.give(ReplicaId(3), offer(manifest.instance, manifest.root()), VIEW).unwrap();
    assert!(matches!(next(&mut donor, &mut poll), (ReplicaId(3), Supply::Snapshot { .. })));
    assert!(donor.next().is_none() && donor.is_giving());
    assert_eq!(donor.metrics.donated_bytes.get() / 1000, 1, "and the head of a manifest");
}

#[test]
fn a_share_and_an_end_are_heard_while_the_thread_waits() {
    let (mut donor, mut poll, manifest) = donor(1);
    donor.give(ReplicaId(2), chunk(&manifest, 0), VIEW).unwrap();
    donor.give(ReplicaId(2), chunk(&manifest, 1), VIEW).unwrap();
    next(&mut donor, &mut poll);
    donor.limit(Share::LEAST);
    assert_eq!(donor.metrics.donor_share.get(), 100);
    // It would wait for days.
    let begun = Instant::now();
    drop(donor);
    assert!(begun.elapsed() < WAIT);
}

#[test]
fn an_answer_costs_about_what_it_holds() {
    assert_eq!(bytes_in(&Supply::Nothing(Wanted::Snapshot { view: VIEW, above: InstanceId(0) })), 64);
    let bytes = Bytes::from(vec![0; 1000]);
    assert_eq!(bytes_in(&Supply::Chunk { instance: InstanceId(1), index: 0, bytes }), 1000);
}
