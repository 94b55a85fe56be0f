//! The ordered structure under the store: a B+ tree whose copies share what neither has changed since.
//!
//! A clone costs one reference. Whoever changes a tree afterwards copies the branches on the way that the clone
//! still holds, each at most once, and never the records; without a clone everything is changed in place. The
//! tree's shape depends on its history and shows nowhere: what is read is records in the order of their keys.

use std::ops::Bound;
use std::slice;
use std::sync::Arc;

use super::leaf::{Leaf, LeafRecords, RECORDS_MAX, split_place};
use super::record::Record;
use super::separators::Separators;

/// Children of a branch at most.
const CHILDREN_MAX: usize = 64;
/// A node with fewer is joined with a neighbour, if both together leave room for more or one of them is empty.
const NODE_LOW: usize = RECORDS_MAX / 4;
const JOINED_MAX: usize = RECORDS_MAX * 3 / 4;

/// Records by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    root: Arc<Branch>,
    len: usize,
}

/// All keys below the child `i + 1` are at least the separator `i`, those below the child `i` are less.
#[derive(Clone, Debug, Default)]
struct Branch {
    separators: Separators,
    children: Children,
}

/// Never empty; all of one height.
#[derive(Clone, Debug)]
enum Children {
    Leaves(Vec<Leaf>),
    Branches(Vec<Arc<Branch>>),
}

/// The upper part of a node that became too large, and where it begins.
struct Split<N> {
    separator: Vec<u8>,
    upper: N,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        let mut branch = &*self.root;
        loop {
            let place = branch.separators.count_up_to(key);
            match &branch.children {
                Children::Branches(branches) => branch = &branches[place],
                Children::Leaves(leaves) => return leaves[place].get(key),
            }
        }
    }

    /// A record to be changed; its key stays.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Record> {
        let mut branch = Arc::make_mut(&mut self.root);
        loop {
            let place = branch.separators.count_up_to(key);
            match &mut branch.children {
                Children::Branches(branches) => branch = Arc::make_mut(&mut branches[place]),
                Children::Leaves(leaves) => return leaves[place].get_mut(key),
            }
        }
    }

    /// Sets a key; answers the record that was there.
    pub(super) fn insert(&mut self, record: Record) -> Option<Record> {
        let (before, split) = Arc::make_mut(&mut self.root).insert(record);
        if let Some(Split { separator, upper }) = split {
            let lower = std::mem::take(&mut self.root);
            let mut separators = Separators::default();
            separators.insert(0, &separator);
            let children = Children::Branches(vec![lower, Arc::new(upper)]);
            self.root = Arc::new(Branch { separators, children });
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key that may be there.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Record> {
        // What is not there must not make anybody copy anything.
        self.get(key)?;
        let removed = Arc::make_mut(&mut self.root).remove(key);
        while let Children::Branches(branches) = &self.root.children
            && let [only] = branches.as_slice()
        {
            self.root = only.clone();
        }
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Records from `from` on, in order.
    pub(super) fn range(&self, from: Bound<&[u8]>) -> Records<'_> {
        let mut records = Records { branches: Vec::new(), leaves: [].iter(), leaf: LeafRecords::default() };
        records.descend(&self.root, from);
        records
    }

    /// Visits all records in order, and lets go of each leaf as soon as it has been visited: from then on whoever
    /// shares it changes it in place again.
    pub(super) fn consume<E>(self, mut visit: impl FnMut(&Record) -> Result<(), E>) -> Result<(), E> {
        let mut leaves = Vec::with_capacity(self.len / NODE_LOW + 1);
        self.root.push_leaves(&mut leaves);
        drop(self.root);
        leaves.into_iter().try_for_each(|leaf| leaf.range(Bound::Unbounded).try_for_each(&mut visit))
    }
}

impl Branch {
    fn insert(&mut self, record: Record) -> (Option<Record>, Option<Split<Self>>) {
        let place = self.separators.count_up_to(record.key());
        match &mut self.children {
            Children::Leaves(leaves) => {
                let (before, upper) = leaves[place].insert(record);
                let Some(upper) = upper else { return (before, None) };
                let last = leaves[place].last().map(Record::key).unwrap_or_default();
                let first = upper.range(Bound::Unbounded).next().map(Record::key).unwrap_or_default();
                self.separators.insert(place, Separators::between(last, first));
                leaves.insert(place + 1, upper);
                (before, self.split_if_full(place + 1))
            }
            Children::Branches(branches) => {
                let (before, split) = Arc::make_mut(&mut branches[place]).insert(record);
                let Some(Split { separator, upper }) = split else { return (before, None) };
                self.separators.insert(place, &separator);
                branches.insert(place + 1, Arc::new(upper));
                (before, self.split_if_full(place + 1))
            }
        }
    }

    /// Splits what has too many children, of which that at `place` is new.
    fn split_if_full(&mut self, place: usize) -> Option<Split<Self>> {
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let middle = split_place(place, CHILDREN_MAX);
        let children = self.children.split_off(middle);
        let separators = self.separators.split_off(middle);
        let separator = self.separators.remove(middle - 1);
        Some(Split { separator, upper: Self { separators, children } })
    }

    fn remove(&mut self, key: &[u8]) -> Option<Record> {
        let place = self.separators.count_up_to(key);
        let removed = match &mut self.children {
            Children::Leaves(leaves) => leaves[place].remove(key),
            Children::Branches(branches) => Arc::make_mut(&mut branches[place]).remove(key),
        };
        self.join_if_low(place);
        removed
    }

    /// Joins the child at `place` with a neighbour, if it has become small and there is room.
    fn join_if_low(&mut self, place: usize) {
        let lens = |lower: usize| self.children.len_of(lower).zip(self.children.len_of(lower + 1));
        if self.children.len_of(place).is_none_or(|len| len >= NODE_LOW) {
            return;
        }
        let fits = |lower: &usize| {
            lens(*lower).is_some_and(|(lower, upper)| lower == 0 || upper == 0 || lower + upper <= JOINED_MAX)
        };
        let Some(lower) = place.checked_sub(1).into_iter().chain([place]).find(fits) else { return };
        let separator = self.separators.remove(lower);
        match &mut self.children {
            Children::Leaves(leaves) => {
                let upper = leaves.remove(lower + 1);
                leaves[lower].append(upper);
            }
            Children::Branches(branches) => {
                let upper = Arc::unwrap_or_clone(branches.remove(lower + 1));
                Arc::make_mut(&mut branches[lower]).append(&separator, upper);
            }
        }
    }

    fn append(&mut self, separator: &[u8], upper: Self) {
        self.separators.append(separator, &upper.separators);
        match (&mut self.children, upper.children) {
            (Children::Leaves(lower), Children::Leaves(upper)) => lower.extend(upper),
            (Children::Branches(lower), Children::Branches(upper)) => lower.extend(upper),
            (Children::Leaves(_), Children::Branches(_)) | (Children::Branches(_), Children::Leaves(_)) => {
                unreachable!("all children of a branch have one height")
            }
        }
    }

    fn push_leaves(&self, into: &mut Vec<Leaf>) {
        match &self.children {
            Children::Leaves(leaves) => into.extend_from_slice(leaves),
            Children::Branches(branches) => branches.iter().for_each(|branch| branch.push_leaves(into)),
        }
    }
}

impl Default for Children {
    fn default() -> Self {
        Self::Leaves(vec![Leaf::default()])
    }
}

impl Children {
    fn len(&self) -> usize {
        match self {
            Self::Leaves(leaves) => leaves.len(),
            Self::Branches(branches) => branches.len(),
        }
    }

    /// Records or children of the child at `place`.
    fn len_of(&self, place: usize) -> Option<usize> {
        match self {
            Self::Leaves(leaves) => leaves.get(place).map(Leaf::len),
            Self::Branches(branches) => branches.get(place).map(|branch| branch.children.len()),
        }
    }

    fn split_off(&mut self, place: usize) -> Self {
        match self {
            Self::Leaves(leaves) => Self::Leaves(leaves.split_off(place)),
            Self::Branches(branches) => Self::Branches(branches.split_off(place)),
        }
    }
}

/// Records in order; see [`Tree::range`].
pub(super) struct Records<'a> {
    /// What is still to come on each level above the leaves, the root's first.
    branches: Vec<slice::Iter<'a, Arc<Branch>>>,
    leaves: slice::Iter<'a, Leaf>,
    leaf: LeafRecords<'a>,
}

impl<'a> Records<'a> {
    /// Goes down to the first record below `branch` that is not before `from`.
    fn descend(&mut self, mut branch: &'a Branch, from: Bound<&[u8]>) {
        loop {
            let place = match from {
                Bound::Included(key) | Bound::Excluded(key) => branch.separators.count_up_to(key),
                Bound::Unbounded => 0,
            };
            match &branch.children {
                Children::Branches(branches) => {
                    self.branches.push(branches[place + 1..].iter());
                    branch = &branches[place];
                }
                Children::Leaves(leaves) => {
                    self.leaves = leaves[place + 1..].iter();
                    self.leaf = leaves[place].range(from);
                    return;
                }
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a Record;

    fn next(&mut self) -> Option<&'a Record> {
        loop {
            if let Some(record) = self.leaf.next() {
                return Some(record);
            }
            if let Some(leaf) = self.leaves.next() {
                self.leaf = leaf.range(Bound::Unbounded);
                continue;
            }
            match self.branches.last_mut()?.next() {
                Some(branch) => self.descend(branch, Bound::Unbounded),
                None => drop(self.branches.pop()),
            }
        }
    }
}
