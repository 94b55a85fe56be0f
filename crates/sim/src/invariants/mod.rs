//! What must hold whatever happens, one invariant a file; the world tells them what it sees at every step.

pub(crate) mod accusation;
pub(crate) mod agreement;
pub(crate) mod exactly_once;
pub(crate) mod linearizability;
pub(crate) mod liveness;
pub(crate) mod memory;
pub(crate) mod one_vote;
pub(crate) mod sessions;
pub(crate) mod total_order;
pub(crate) mod unique_proposals;
pub(crate) mod validity;

/// An invariant that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant's name, as in the report.
    pub(crate) invariant: &'static str,
    /// Who did what.
    pub(crate) detail: String,
}

impl Violation {
    /// `invariant` is broken as `detail` says.
    pub(crate) fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}
