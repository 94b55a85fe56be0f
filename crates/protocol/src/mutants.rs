//! Broken variants of the rules, chosen at run time, that the simulator must catch.
//!
//! Without the feature `mutants` nothing of it exists: [`is_active`] is `false` at compile time.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// One rule broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])* $variant,)*
        }

        impl Mutant {
            /// Every mutant there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// `quorum` is one too small.
    QuorumTooSmall => "quorum-too-small",
    /// `quorum` is `2f+1`, whatever `n` is: unsafe at n = 5.
    QuorumTwoFPlusOne => "quorum-2f-plus-1",
    /// Votes are counted per message, not per replica.
    VotesPerMessage => "votes-per-message",
    /// A digest is decided, and skipped in execution, although its batch is not at hand.
    DecideWithoutBody => "decide-without-body",
    /// Sequences outside `[floor, floor + W)` are executed.
    SequenceUnchecked => "sequence-unchecked",
    /// Two requests of one place in a batch are both executed.
    RequestTwiceExecuted => "request-twice-executed",
    /// A client counts replies per message, not per replica.
    RepliesPerMessage => "replies-per-message",
    /// Selection does not look at locks: everything is free.
    LocksIgnored => "locks-ignored",
    /// Of several bound values the one of the lowest epoch is taken.
    LowestEpochBound => "lowest-epoch-bound",
    /// Locks of the highest epoch are not looked at.
    HighestLockIgnored => "highest-lock-ignored",
    /// Condition (1) of SYNC-2 is dropped: one lock binds, whatever the others have locked.
    BoundWithoutQuorum => "bound-without-quorum",
    /// Condition (2) of SYNC-2 is dropped: a lock binds although nobody else says that it wrote it.
    BoundWithoutWrites => "bound-without-writes",
    /// A STOPDATA counts although its signature is false.
    StopDataUnsigned => "stopdata-unsigned",
    /// One replica's STOPDATA counts as often as it stands in a SYNC.
    SendersRepeat => "senders-repeat",
    /// A chain certificate's signatures do not cover its instance.
    CertificateUnbound => "certificate-unbound",
    /// A STOPDATA's signature does not cover its regency.
    RegencyUnsigned => "regency-unsigned",
    /// ACCEPTs of different epochs are counted together.
    AcceptsAcrossEpochs => "accepts-across-epochs",
    /// After install, votes of the epoch before are still cast and counted until SYNC comes.
    OldEpochVotes => "old-epoch-votes",
    /// What the leader says in SYNC wins over what selection says.
    LeaderOverBound => "leader-over-bound",
    /// One STOP is joined, whoever sends it.
    SingleStop => "single-stop",
    /// The request timer begins anew with every decision.
    TimerResetByProgress => "timer-reset-by-progress",
    /// The timeout does not double with regencies without progress.
    BackoffNever => "backoff-never",
    /// The write set holds the last WRITE only.
    WriteSetLastOnly => "write-set-last-only",
    /// A lock in epoch 0 is told as no lock.
    NoLockIsEpochZero => "no-lock-is-epoch-zero",
    /// What was executed is not voted for again in later epochs.
    ExecutedNotRevoted => "executed-not-revoted",
    /// An instance that is both free and bound is taken as free.
    FreePreferred => "free-preferred",
    /// The batches that SYNC re-proposes must have a timestamp near the own clock.
    TimestampOnBound => "timestamp-on-bound",
    /// Proposals and votes that come early are dropped.
    EarlyDropped => "early-dropped",
    /// ACCEPTs of epochs below the installed one do not decide.
    OlderAcceptsIgnored => "older-accepts-ignored",
    /// A quorum of WRITEs of an older epoch makes a lock.
    OlderWritesLock => "older-writes-lock",
    /// A base needs no signatures.
    BaseUncertified => "base-uncertified",
    /// Claims beyond `span` above the base are accepted.
    ClaimsBeyondSpan => "claims-beyond-span",
    /// A request whose session's place is not executed yet is told that the session expired.
    ExpiredTooEarly => "expired-too-early",
    /// LACKs do not make a client suspect.
    StandingIgnored => "standing-ignored",
    /// The log is cut at damage as if it were a torn tail.
    LogCutAtDamage => "log-cut-at-damage",
    /// A snapshot is written over the one before it.
    SnapshotInPlace => "snapshot-in-place",
    /// A sync that failed is tried again, and counts if it then succeeds.
    FailedSyncRetried => "failed-sync-retried",
    /// Votes leave, and count, before their records are on disk.
    SendBeforeSync => "send-before-sync",
    /// A restarted replica does not read its votes.
    VotesDroppedAtBoot => "votes-dropped-at-boot",
    /// A WRITE is recorded without the bodies of its batch.
    WriteWithoutBodies => "write-without-bodies",
    /// A restarted leader goes on proposing in the regency that it led.
    RestartedLeaderProposes => "restarted-leader-proposes",
    /// The chain is signed before the batches are on disk.
    ChainBeforeBatches => "chain-before-batches",
    /// A checkpoint is stable with `weak` signatures.
    StableWithWeak => "stable-with-weak",
    /// The log is cut below a checkpoint that is not stable.
    CutBelowUnstable => "cut-below-unstable",
    /// A replica that lost its votes states that it has none.
    AmnesiacStates => "amnesiac-states",
    /// A replica that lost its votes answers another's question about lost votes.
    AmnesiacAnswers => "amnesiac-answers",
    /// A replica that finds nothing on disk takes that for its first start.
    EmptyIsFirstStart => "empty-is-first-start",
    /// The results of executed requests are left out of snapshots.
    ResultsNotInSnapshot => "results-not-in-snapshot",
    /// A donor's digests and batches are taken although no certificate covers them.
    SuffixUnverified => "suffix-unverified",
    /// A table of contents is taken although the certified root does not cover it.
    ManifestUnchecked => "manifest-unchecked",
    /// A checkpoint's signatures do not cover its instance.
    RootUnbound => "root-unbound",
    /// The first chunk, in which the results of executed requests lie, is not checked.
    ReplyCacheUnverified => "reply-cache-unverified",
    /// A snapshot is taken only if two donors offer the same one.
    EqualPositionsNeeded => "equal-positions-needed",
    /// A transfer begins from nothing, whatever is here.
    TransferFromZero => "transfer-from-zero",
    /// Donors that are as few as may lie are waited for, however little they give.
    SlowDonorsEndured => "slow-donors-endured",
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
pub fn is_active(_mutant: Mutant) -> bool {
    false
}
