//! Images of the store: what is restored behaves as what was frozen, one state has one image, and no bytes harm.

mod draw;

use std::io::{self, Read};

use draw::{Draw, draws};
use proptest::prelude::*;
use regency::protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId, ViewId};
use regency::protocol::time::Timestamp;
use regency::{Bytes, Context, RestoreError, Service, Snapshot};
use regency_services::kv::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use regency_services::kv::{KvService, Operation, RequestWriter};

/// One request: how long after the one before, and what it asks for.
type Step = (u64, Vec<Draw>);

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..15_u64, prop::collection::vec(draws(), 1..5)), 0..most)
}

/// A service, and the place of the next request.
#[derive(Clone, Default)]
struct World {
    service: KvService,
    now: u64,
    instance: u64,
}

impl World {
    fn run(&mut self, (pause, draws): &Step) -> Bytes {
        self.now += pause;
        let operations: Vec<_> = draws.iter().map(|draw| draw.operation(self.now)).collect();
        self.send(&operations)
    }

    fn send(&mut self, operations: &[Operation<'_>]) -> Bytes {
        let mut writer = RequestWriter::default();
        assert!(operations.iter().all(|operation| writer.push(operation, usize::MAX)));
        self.instance += 1;
        let context = Context {
            timestamp: Timestamp(self.now),
            client: ClientId::default(),
            session: SessionId::NONE,
            sequence: Sequence(0),
            view: ViewId(0),
            instance: InstanceId(self.instance),
            position: 0,
            is_last: true,
            chain: Digest::default(),
        };
        self.service.execute(&context, &writer.finish())
    }

    fn image(&self) -> Vec<u8> {
        written(self.service.snapshot())
    }

    /// The same place in a service that was something else before.
    fn restored(&self, image: &[u8]) -> Self {
        let mut world = Self::default();
        world.send(&[Operation::put(b"what was there", b"before")]);
        world.service.restore(&mut &image[..]).unwrap();
        Self { service: world.service, ..*self }
    }
}

fn written(snapshot: Box<dyn Snapshot>) -> Vec<u8> {
    let mut image = Vec::new();
    snapshot.write(&mut image).unwrap();
    image
}

/// Keys and values of several sizes, some with deadlines, some expired.
fn filled(keys: u64) -> World {
    let mut world = World { now: 1_000_000, ..World::default() };
    for number in 0..keys {
        let key = format!("key{:03}", number * 7919 % keys);
        world.send(&[Operation::put(key.as_bytes(), &vec![b'v'; number as usize % 50])]);
        if number % 3 == 0 {
            let time = std::time::Duration::from_micros(number % 7);
            let deadline = regency_services::kv::Deadline::After(time);
            let condition = regency_services::kv::ExpireCondition::Always;
            world.send(&[Operation::Expire { key: key.as_bytes(), deadline, condition }]);
        }
        world.now += 1;
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_restored_answers_as_what_was_frozen(before in steps(40), after in steps(20)) {
        let mut world = World { now: 1_000_000, ..World::default() };
        before.iter().for_each(|step| drop(world.run(step)));
        let image = world.image();
        let mut restored = world.restored(&image);
        prop_assert_eq!(&restored.image(), &image);
        for step in &after {
            prop_assert_eq!(restored.run(step), world.run(step));
            prop_assert_eq!(restored.service.store().bytes(), world.service.store().bytes());
        }
        prop_assert_eq!(restored.image(), world.image());
    }

    #[test]
    fn a_snapshot_stays_as_it_was_whatever_the_store_does(before in steps(30), after in steps(30)) {
        let mut world = World { now: 1_000_000, ..World::default() };
        before.iter().for_each(|step| drop(world.run(step)));
        let (snapshot, image) = (world.service.snapshot(), world.image());
        after.iter().for_each(|step| drop(world.run(step)));
        prop_assert_eq!(written(snapshot), image);
    }

    #[test]
    fn restarts_and_snapshots_in_between_leave_no_trace(
        history in prop::collection::vec((steps(6), any::<bool>()), 1..10),
    ) {
        let mut straight = World { now: 1_000_000, ..World::default() };
        let (mut winding, mut held) = (straight.clone(), Vec::new());
        for (steps, is_restart) in &history {
            for step in steps {
                prop_assert_eq!(winding.run(step), straight.run(step));
            }
            if *is_restart {
                winding = winding.restored(&winding.image());
            } else {
                held.push(winding.service.snapshot());
            }
        }
        prop_assert_eq!(winding.image(), straight.image());
    }

    #[test]
    fn keys_that_came_and_went_leave_no_trace(passing in prop::collection::vec(0..500_u32, 0..200)) {
        let mut world = World { now: 1_000_000, ..World::default() };
        world.send(&[Operation::put(b"250 stays", b"here")]);
        let mut direct = world.clone();
        for number in &passing {
            world.send(&[Operation::put(number.to_string().as_bytes(), b"goes")]);
        }
        for number in &passing {
            world.send(&[Operation::Delete { keys: vec![number.to_string().as_bytes()] }]);
        }
        (world.instance, direct.instance) = (10_000, 10_000);
        world.send(&[Operation::Count]);
        direct.send(&[Operation::Count]);
        prop_assert_eq!(world.image(), direct.image());
    }

    #[test]
    fn damage_gives_an_error_or_a_state(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut image = filled(60).image();
        for (place, byte) in &hits {
            *place.get_mut(&mut image) = *byte;
        }
        for image in [&image[..], &image[..cut.index(image.len())]] {
            let mut service = KvService::default();
            let mut source = Watched { rest: image, asked: 0 };
            if service.restore(&mut source).is_ok() {
                prop_assert_eq!(written(service.snapshot()), image, "another form of a state");
            }
            prop_assert!(source.asked <= 2 * image.len() + (128 << 10), "{} bytes", source.asked);
        }
    }
}

#[test]
fn every_cut_of_an_image_is_an_error() {
    let image = filled(60).image();
    for length in 0..image.len() {
        let refused = KvService::default().restore(&mut &image[..length]);
        assert!(matches!(refused, Err(RestoreError::Truncated)), "{length}: {refused:?}");
    }
    let refused = KvService::default().restore(&mut &[&image[..], b"x"].concat()[..]);
    assert!(matches!(refused, Err(RestoreError::TrailingBytes)), "{refused:?}");
}

#[test]
fn what_is_no_image_of_a_store_is_refused() {
    let image = World::default().image();
    for place in 0..6 {
        let mut other = image.clone();
        other[place] ^= 1;
        let refused = KvService::default().restore(&mut &other[..]);
        assert!(matches!(refused, Err(RestoreError::UnknownFormat)), "{refused:?}");
    }
    let entry = |key: &[u8]| {
        let mut world = World::default();
        world.send(&[Operation::put(key, b"")]);
        world.image()[image.len()..].to_vec()
    };
    let with = |entries: &[Vec<u8>]| {
        let mut image = image.clone();
        let count = image.len() - 8;
        image[count..].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        image.extend(entries.iter().flatten());
        KvService::default().restore(&mut &image[..])
    };
    with(&[entry(b"a"), entry(b"b")]).unwrap();
    for entries in [[entry(b"b"), entry(b"a")], [entry(b"a"), entry(b"a")]] {
        assert!(matches!(with(&entries), Err(RestoreError::Invalid(_))));
    }
}

#[test]
fn lengths_are_believed_only_up_to_their_limits_and_as_far_as_bytes_come() {
    let mut world = World::default();
    world.send(&[Operation::put(b"k", b"v")]);
    let (image, header) = (world.image(), World::default().image().len());
    let claim = |key: usize, value: usize| {
        let mut image = image.clone();
        image[header..header + 2].copy_from_slice(&u16::try_from(key).unwrap().to_le_bytes());
        image[header + 2..header + 6].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
        let mut source = Watched { rest: &image, asked: 0 };
        let refused = KvService::default().restore(&mut source);
        assert!(source.asked <= 128 << 10, "{} bytes for an image of {}", source.asked, image.len());
        refused
    };
    assert!(matches!(claim(KEY_BYTES_MAX, VALUE_BYTES_MAX), Err(RestoreError::Truncated)));
    assert!(matches!(claim(KEY_BYTES_MAX + 1, 0), Err(RestoreError::Invalid(_))));
    assert!(matches!(claim(1, VALUE_BYTES_MAX + 1), Err(RestoreError::Invalid(_))));
    assert!(matches!(claim(1, u32::MAX as usize), Err(RestoreError::Invalid(_))));
    assert!(matches!(claim(0, 1), Err(RestoreError::TrailingBytes)));
}

#[test]
fn a_source_or_sink_that_fails_is_reported() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no disk"))
        }
    }
    impl io::Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("no disk"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(KvService::default().restore(&mut Broken), Err(RestoreError::Read(_))));
    assert!(World::default().service.snapshot().write(&mut Broken).is_err());
}

#[test]
fn large_stores_survive_with_leaves_that_were_shared_split_and_joined() {
    let mut world = filled(5_000);
    let held: Vec<_> = (0..5)
        .map(|round| {
            let snapshot = (world.service.snapshot(), world.image());
            for number in 0..1_000 {
                let key = format!("key{:03}", (number * 37 + round) % 5_000);
                world.send(&[Operation::Delete { keys: vec![key.as_bytes()] }]);
                world.send(&[Operation::put(format!("{key} {round}").as_bytes(), b"new")]);
            }
            snapshot
        })
        .collect();
    let restored = world.restored(&world.image());
    assert_eq!(restored.image(), world.image());
    assert_eq!(restored.service.store().bytes(), world.service.store().bytes());
    for (snapshot, image) in held {
        assert!(written(snapshot) == image, "a snapshot changed");
    }
}

/// Bytes that remember the largest piece that was asked for: as much memory was there to take it.
struct Watched<'a> {
    rest: &'a [u8],
    asked: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.asked = self.asked.max(buffer.len());
        self.rest.read(buffer)
    }
}
