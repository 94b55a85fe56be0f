//! The tree against an ordinary ordered map, with clones that are held for a while.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;

use super::record::Record;
use super::tree::Tree;
use super::version::Version;

type Model = BTreeMap<Vec<u8>, u32>;

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Change(u16),
    Remove(u16),
    /// Removes what lies between two keys.
    Sweep(u16, u16),
    /// Inserts keys in order.
    Fill(u16),
    Freeze,
    Thaw,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..2000_u16).prop_map(Step::Insert),
        4 => (0..2000_u16).prop_map(Step::Change),
        8 => (0..2000_u16).prop_map(Step::Remove),
        1 => (0..2000_u16, 0..600_u16).prop_map(|(from, count)| Step::Sweep(from, count)),
        2 => (0..2000_u16).prop_map(Step::Fill),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
    ]
}

/// Keys of several lengths: some begin as others end, some differ only far behind.
fn key(number: u16) -> Vec<u8> {
    let digits = format!("{number:05}");
    match number % 4 {
        0 => digits.trim_end_matches('0').as_bytes().to_vec(),
        1 => format!("00000000000000{digits}").into_bytes(),
        2 => format!("{digits}{digits}").into_bytes(),
        _ => digits.into_bytes(),
    }
}

fn record(key: &[u8], change: u32) -> Record {
    Record::new(key, b"value", Version { instance: InstanceId(1), change }, Timestamp::NEVER)
}

fn content<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<(Vec<u8>, u32)> {
    records.map(|record| (record.key().to_vec(), record.version().change)).collect()
}

fn expected(model: &Model, from: Bound<Vec<u8>>) -> Vec<(Vec<u8>, u32)> {
    model.range((from, Bound::Unbounded)).map(|(key, change)| (key.clone(), *change)).collect()
}

fn change_of(record: Option<Record>) -> Option<u32> {
    record.map(|record| record.version().change)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_tree_holds_what_a_map_holds_and_a_clone_stays_as_it_was(
        steps in prop::collection::vec(steps(), 1..400),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let mut frozen: Vec<(Tree, Model)> = Vec::new();
        for (change, step) in (0..).zip(steps) {
            match step {
                Step::Insert(number) => {
                    let key = key(number);
                    prop_assert_eq!(change_of(tree.insert(record(&key, change))), model.insert(key, change));
                }
                Step::Change(number) => {
                    let key = key(number);
                    let place = tree.get_mut(&key);
                    prop_assert_eq!(place.is_some(), model.contains_key(&key));
                    if let Some(record) = place {
                        record.set_deadline(Timestamp(1), Version { instance: InstanceId(1), change });
                        model.insert(key, change);
                    }
                }
                Step::Remove(number) => {
                    let key = key(number);
                    prop_assert_eq!(change_of(tree.remove(&key)), model.remove(&key));
                }
                Step::Sweep(from, count) => {
                    for number in from..from + count {
                        let key = key(number);
                        prop_assert_eq!(change_of(tree.remove(&key)), model.remove(&key));
                    }
                }
                Step::Fill(from) => {
                    for number in from..from + 150 {
                        tree.insert(record(&key(number), change));
                        model.insert(key(number), change);
                    }
                }
                Step::Freeze => frozen.push((tree.clone(), model.clone())),
                Step::Thaw => if let Some((tree, model)) = frozen.pop() {
                    let mut records = Vec::new();
                    tree.consume(|record| {
                        records.push((record.key().to_vec(), record.version().change));
                        Ok::<(), ()>(())
                    }).unwrap();
                    prop_assert_eq!(records, expected(&model, Bound::Unbounded));
                }
            }
            prop_assert_eq!(tree.len(), model.len());
        }
        for (tree, model) in frozen.iter().chain([&(tree, model)]) {
            prop_assert_eq!(content(tree.range(Bound::Unbounded)), expected(model, Bound::Unbounded));
            for number in (0..2000).step_by(97) {
                let key = key(number);
                let found = tree.get(&key).map(|record| record.version().change);
                prop_assert_eq!(found, model.get(&key).copied());
                prop_assert_eq!(
                    content(tree.range(Bound::Included(&key)).take(70)),
                    &expected(model, Bound::Included(key.clone()))[..].iter().take(70).cloned().collect::<Vec<_>>()[..]
                );
                prop_assert_eq!(
                    content(tree.range(Bound::Excluded(&key))),
                    expected(model, Bound::Excluded(key.clone()))
                );
            }
        }
    }
}

#[test]
fn a_tree_that_is_emptied_in_any_order_is_empty() {
    for stride in [1_u32, 7, 1999] {
        let mut tree = Tree::default();
        (0..10_000).for_each(|number| drop(tree.insert(record(&number_key(number), number))));
        let held = tree.clone();
        for number in 0..10_000 {
            let number = number * stride % 10_000;
            assert_eq!(change_of(tree.remove(&number_key(number))), Some(number));
        }
        assert_eq!((tree.len(), tree.range(Bound::Unbounded).count()), (0, 0));
        assert_eq!((held.len(), held.range(Bound::Unbounded).count()), (10_000, 10_000));
    }
}

fn number_key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}
