//! Broken variants of the rules, chosen at run time, that the simulator must catch.
//!
//! Without the feature `mutants` nothing of it exists: [`is_active`] is `false` at compile time.

/// One rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// `quorum` is one too small.
    QuorumTooSmall,
    /// `quorum` is `2f+1`, whatever `n` is: unsafe at n = 5.
    QuorumTwoFPlusOne,
    /// Votes are counted per message, not per replica.
    VotesPerMessage,
    /// A digest is decided, and skipped in execution, although its batch is not at hand.
    DecideWithoutBody,
    /// Sequences outside `[floor, floor + W)` are executed.
    SequenceUnchecked,
    /// Two requests of one place in a batch are both executed.
    RequestTwiceExecuted,
    /// A client counts replies per message, not per replica.
    RepliesPerMessage,
}

impl Mutant {
    /// Every mutant there is.
    pub const ALL: &'static [Self] = &[
        Self::QuorumTooSmall,
        Self::QuorumTwoFPlusOne,
        Self::VotesPerMessage,
        Self::DecideWithoutBody,
        Self::SequenceUnchecked,
        Self::RequestTwiceExecuted,
        Self::RepliesPerMessage,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QuorumTooSmall => "quorum-too-small",
            Self::QuorumTwoFPlusOne => "quorum-2f-plus-1",
            Self::VotesPerMessage => "votes-per-message",
            Self::DecideWithoutBody => "decide-without-body",
            Self::SequenceUnchecked => "sequence-unchecked",
            Self::RequestTwiceExecuted => "request-twice-executed",
            Self::RepliesPerMessage => "replies-per-message",
        }
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule on this thread from now on, or none.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.with(|active| active.set(mutant));
}

/// Whether `mutant` is the rule broken on this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_active(mutant: Mutant) -> bool {
    ACTIVE.with(|active| active.get() == Some(mutant))
}

/// Without the feature no rule is broken.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub(crate) fn is_active(_mutant: Mutant) -> bool {
    false
}
