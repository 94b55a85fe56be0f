//! Ordering: the window of instances in flight, their proposals, candidates and votes.

pub(crate) mod candidate;
pub(crate) mod instance;
pub(crate) mod votes;
pub(crate) mod window;
