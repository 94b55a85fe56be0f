//! What the store does beyond single operations: transactions, versions, bounds, and its service.

use std::time::Duration;

use regency::protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId, ViewId};
use regency::protocol::time::Timestamp;
use regency::{Bytes, Context, Service};
use regency_services::kv::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use regency_services::kv::{
    Answer, Deadline, ExpireCondition, KvService, Observed, Operation, Precondition, Put, PutCondition,
    PutExpiry, QueuedOperations, Refusal, Reply, RequestWriter, Scan,
};

/// A service, and the place of the next request.
#[derive(Default)]
struct World {
    service: KvService,
    now: u64,
    instance: u64,
}

impl World {
    fn send(&mut self, request: &[u8]) -> Bytes {
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
        self.service.execute(&context, request)
    }

    /// The answers to a pipeline, as text.
    fn run(&mut self, operations: &[Operation<'_>]) -> Vec<String> {
        let reply = self.send(&pipeline(operations));
        match Reply::decode(&reply).unwrap() {
            Reply::Pipeline(answers) => answers.iter().map(|answer| format!("{answer:?}")).collect(),
            other => panic!("{other:?} answers no pipeline"),
        }
    }

    fn observe(&mut self, key: &[u8]) -> Observed {
        let reply = self.send(&RequestWriter::single(&Operation::Observe { keys: vec![key] }));
        match Reply::decode(&reply).unwrap() {
            Reply::Pipeline(answers) => match answers.as_slice() {
                [Answer::Versions(versions)] => versions[0],
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Whether a transaction that depends on `key` being as `observed` commits.
    fn commits(&mut self, key: &[u8], observed: Observed) -> bool {
        let queued = QueuedOperations::default();
        let reply = self.send(&queued.transaction([Precondition { key, observed }].into_iter()));
        match Reply::decode(&reply).unwrap() {
            Reply::Committed(answers) => answers.is_empty(),
            Reply::Conflict => false,
            other => panic!("{other:?}"),
        }
    }
}

fn pipeline(operations: &[Operation<'_>]) -> Bytes {
    let mut writer = RequestWriter::default();
    assert!(operations.iter().all(|operation| writer.push(operation, usize::MAX)));
    writer.finish()
}

fn expire(key: &[u8], seconds: u64) -> Operation<'_> {
    let deadline = Deadline::After(Duration::from_secs(seconds));
    Operation::Expire { key, deadline, condition: ExpireCondition::Always }
}

#[test]
fn every_change_of_a_key_breaks_a_transaction_that_depends_on_it() {
    let changes: [Operation<'_>; 8] = [
        Operation::put(b"k", b"1"),
        Operation::Increment { key: b"k", by: 0 },
        Operation::Append { key: b"k", value: b"" },
        Operation::CompareAndSet { key: b"k", expected: Some(b"1"), new: Some(b"1") },
        Operation::Delete { keys: vec![b"k"] },
        Operation::Take { key: b"k" },
        Operation::Clear,
        expire(b"k", 100),
    ];
    for change in changes {
        let mut world = World::default();
        world.run(&[Operation::put(b"k", b"1")]);
        let observed = world.observe(b"k");
        assert!(world.commits(b"k", observed));
        world.run(std::slice::from_ref(&change));
        assert!(!world.commits(b"k", observed), "{change:?}");
    }
}

#[test]
fn reading_a_key_or_changing_another_breaks_no_transaction() {
    let mut world = World::default();
    world.run(&[Operation::put(b"k", b"1"), Operation::put(b"other", b"1")]);
    let observed = world.observe(b"k");
    world.run(&[
        Operation::Get { key: b"k" },
        Operation::put(b"other", b"2"),
        Operation::Persist { key: b"k" },
        Operation::Put(Put {
            key: b"k",
            value: b"2",
            condition: PutCondition::IfAbsent,
            expiry: PutExpiry::Never,
            returns_old: false,
        }),
    ]);
    assert!(world.commits(b"k", observed));
}

#[test]
fn two_changes_in_one_request_have_different_versions() {
    let mut world = World::default();
    let reply = world.send(&pipeline(&[
        Operation::put(b"k", b"1"),
        Operation::Observe { keys: vec![b"k"] },
        Operation::put(b"k", b"1"),
        Operation::Observe { keys: vec![b"k"] },
    ]));
    let Reply::Pipeline(answers) = Reply::decode(&reply).unwrap() else { panic!("no pipeline") };
    assert_ne!(answers[1], answers[3]);
}

#[test]
fn an_absent_key_is_as_it_was_when_it_is_absent_again() {
    let mut world = World::default();
    assert_eq!(world.observe(b"k"), Observed::Absent);
    world.run(&[Operation::put(b"k", b"1")]);
    assert!(!world.commits(b"k", Observed::Absent));
    world.run(&[Operation::Delete { keys: vec![b"k"] }]);
    assert!(world.commits(b"k", Observed::Absent));
}

#[test]
fn expiry_breaks_a_transaction_that_depends_on_the_key() {
    let mut world = World::default();
    world.run(&[Operation::put(b"k", b"1"), expire(b"k", 1)]);
    let observed = world.observe(b"k");
    world.now += 999_999;
    assert!(world.commits(b"k", observed));
    world.now += 1;
    assert!(!world.commits(b"k", observed));
    assert!(world.commits(b"k", Observed::Absent));
}

#[test]
fn a_refused_operation_leaves_the_rest_of_its_transaction_alone() {
    let mut world = World::default();
    let mut queued = QueuedOperations::default();
    for operation in [
        Operation::put(b"k", b"text"),
        Operation::Increment { key: b"k", by: 1 },
        Operation::Append { key: b"k", value: b"!" },
    ] {
        assert!(queued.push(&operation, usize::MAX));
    }
    let reply = world.send(&queued.transaction([].into_iter()));
    let expected = vec![Answer::Done, Answer::Refused(Refusal::NotAnInteger), Answer::Count(5)];
    assert_eq!(Reply::decode(&reply), Ok(Reply::Committed(expected)));
}

#[test]
fn expired_keys_are_collected_though_nobody_asks_for_them() {
    let mut world = World::default();
    let names: Vec<_> = (0..200_u32).map(|name| name.to_string().into_bytes()).collect();
    for name in &names {
        world.run(&[Operation::put(name, b"value"), expire(name, 1)]);
    }
    assert!(world.service.store().bytes() > 0);
    world.now += 1_000_000;
    assert_eq!(world.run(&[Operation::Count]), ["Count(0)"], "expired keys do not count, collected or not");
    for _ in 0..3 {
        world.run(&[Operation::Count]);
    }
    assert_eq!(world.service.store().bytes(), 0);
}

#[test]
fn a_pipeline_whose_answers_do_not_fit_ends_before_the_first_that_does_not() {
    let mut world = World::default();
    let value = vec![b'x'; VALUE_BYTES_MAX];
    world.run(&[Operation::put(b"k", &value)]);
    let many = vec![Operation::Take { key: b"absent" }; 1]
        .into_iter()
        .chain(std::iter::repeat_n(Operation::Get { key: b"k" }, 5))
        .chain([Operation::Delete { keys: vec![b"k"] }])
        .collect::<Vec<_>>();
    let answers = world.run(&many);
    assert_eq!(answers.len(), 4, "one absent and three values");
    assert_eq!(
        world.run(&[Operation::Exists { keys: vec![b"k"] }]),
        ["Count(1)"],
        "the rest was not executed"
    );
    let keys = vec![&b"k"[..]; 5];
    assert_eq!(world.run(&[Operation::GetMany { keys }]), ["Refused(AnswerTooLong)"]);
}

#[test]
fn scans_of_everything_are_bounded_for_each_request() {
    let mut world = World::default();
    for block in 0..100_u32 {
        let names: Vec<_> = (0..1000).map(|name| format!("{block:03}-{name:04}").into_bytes()).collect();
        world.run(&names.iter().map(|name| Operation::put(name, b"")).collect::<Vec<_>>());
    }
    let all = Operation::Keys { pattern: b"*-absent" };
    let answers = world.run(&vec![all; 1000]);
    assert!(answers.len() < 10, "{} scans of 100,000 keys in one request", answers.len());
    let page = Operation::Scan(Scan {
        prefix: b"",
        after: None,
        pattern: None,
        visits: u32::MAX,
        with_values: false,
    });
    let reply = world.send(&RequestWriter::single(&page));
    let Ok(Reply::Pipeline(answers)) = Reply::decode(&reply) else { panic!("no pipeline") };
    let [Answer::Page { entries, next: Some(_) }] = answers.as_slice() else { panic!("no page") };
    assert_eq!(entries.len(), 4096);
}

#[test]
fn values_and_keys_above_their_limits_are_refused() {
    let mut world = World::default();
    let value = vec![b'x'; VALUE_BYTES_MAX];
    world.run(&[Operation::put(b"k", &value)]);
    assert_eq!(world.run(&[Operation::Append { key: b"k", value: b"x" }]), ["Refused(ValueTooLong)"]);
    let refused = |world: &mut World, operation: Operation<'_>| {
        let reply = world.send(&RequestWriter::single(&operation));
        match Reply::decode(&reply).unwrap() {
            Reply::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let long = vec![b'x'; VALUE_BYTES_MAX + 1];
    assert_eq!(refused(&mut world, Operation::put(b"k", &long)), Refusal::ValueTooLong);
    let key = vec![b'x'; KEY_BYTES_MAX + 1];
    assert_eq!(refused(&mut world, Operation::Get { key: &key }), Refusal::KeyTooLong);
}

#[test]
fn bytes_of_another_service_are_refused() {
    let mut world = World::default();
    for garbage in [&b""[..], b"\x00", b"garbage", &[1, 1, 255, 255, 255, 255], &[1; 100]] {
        let reply = world.send(garbage);
        assert!(matches!(Reply::decode(&reply), Ok(Reply::Refused(_))), "{garbage:?}");
    }
}

#[test]
fn a_snapshot_is_frozen_and_restores_what_later_answers_depend_on() {
    let mut world = World { now: 1_000_000, ..World::default() };
    world.run(&[Operation::put(b"a", b"1"), Operation::put(b"b", b"2"), expire(b"b", 5)]);
    let observed = world.observe(b"b");
    let snapshot = world.service.snapshot();
    world.run(&[Operation::put(b"a", b"later"), Operation::Delete { keys: vec![b"b"] }]);
    let mut image = Vec::new();
    snapshot.write(&mut image).unwrap();

    let mut restored = World { now: world.now, instance: world.instance, ..World::default() };
    restored.run(&[Operation::put(b"c", b"replaced with the rest")]);
    restored.service.restore(&mut &image[..]).unwrap();
    assert!(restored.commits(b"b", observed));
    assert_eq!(
        restored.run(&[Operation::Get { key: b"a" }, Operation::Count, Operation::TimeToLive { key: b"b" }]),
        ["Value([49])", "Count(2)", "TimeToLive(Remaining(5s))"]
    );
    restored.now += 5_000_000;
    assert_eq!(restored.run(&[Operation::Count]), ["Count(1)"]);
}
