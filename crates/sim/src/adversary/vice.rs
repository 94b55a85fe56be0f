//! The vices of owned replicas. A seed gives them some; each takes its turn at what an honest core would send.

use std::collections::BTreeSet;

use crate::random::Stream;

macro_rules! vices {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// One way to break the rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Vice {
            $($(#[$doc])* $name,)*
        }

        impl Vice {
            /// Every vice there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the report.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

vices! {
    /// Any message is altered, mutated, dropped or repeated now and then.
    Alter => "vice: any message altered",
    /// As leader: another batch for some, with votes of all owned replicas that fit.
    Equivocate => "vice: equivocation in any regency",
    /// WRITE and ACCEPT for two digests.
    DoubleVotes => "vice: double votes",
    /// ACCEPT at once, whatever has been written.
    HastyAccepts => "vice: ACCEPT before any quorum",
    /// Some replicas never get a vote.
    WithheldVotes => "vice: votes withheld from some",
    /// Votes come when a change is under way, or long after.
    LateVotes => "vice: votes at the last moment",
    /// Votes of the past again, as they were or relabelled.
    StaleVotes => "vice: stale votes again",
    /// As leader: proposals for some only.
    WithheldProposals => "vice: proposals withheld from some",
    /// As leader: proposals only after most of the timeout.
    SlowDrip => "vice: slow drip",
    /// One client's requests are not seen.
    Censor => "vice: censoring of a client",
    /// As leader: empty, oversized and non-canonical batches, and wrong timestamps.
    BadBatches => "vice: bad batches",
    /// DECIDED for what was not decided so.
    FalseDecisions => "vice: decisions relabelled",
    /// STOPDATA: claims for instances that nobody has begun.
    FutureClaims => "vice: STOPDATA with future instances",
    /// STOPDATA: claims beyond `span`.
    BeyondSpan => "vice: STOPDATA beyond span",
    /// STOPDATA: a certificate relabelled for another instance.
    TransplantedBase => "vice: STOPDATA with a transplanted certificate",
    /// STOPDATA: a base without enough signatures.
    BaselessBase => "vice: STOPDATA with an uncertified base",
    /// STOPDATA: everything ever seen stands in the write set.
    StuffedWriteSet => "vice: STOPDATA with a stuffed write set",
    /// STOPDATA: the own lock is denied.
    HiddenLock => "vice: STOPDATA with a hidden lock",
    /// STOPDATA: a lock that it never had, in the last epoch.
    FalseLock => "vice: STOPDATA with a false lock",
    /// STOPDATA: a lock in epoch 0 where there was none.
    LockInEpochZero => "vice: STOPDATA with a lock in epoch 0",
    /// STOPDATA of an earlier regency under the present one.
    StaleStopData => "vice: STOPDATA relabelled",
    /// STOPDATA in another's name.
    BorrowedName => "vice: STOPDATA in another's name",
    /// A different STOPDATA for each recipient.
    ManyStatements => "vice: many STOPDATAs",
    /// SYNC: just the statements that suit.
    BiasedSync => "vice: SYNC with a biased subset",
    /// SYNC: another subset for each follower.
    DividedSync => "vice: SYNC different for each follower",
    /// SYNC: results that do not follow.
    LyingResults => "vice: SYNC with lying results",
    /// SYNC: one sender several times.
    RepeatedSenders => "vice: SYNC with repeated senders",
    /// SYNC: statements of others that they never made.
    ForgedStatements => "vice: SYNC with forged statements",
    /// SYNC: fewer statements than a quorum.
    MeagreSync => "vice: SYNC with too few statements",
    /// SYNC for some only, or none.
    WithheldSync => "vice: SYNC withheld",
    /// STOPs without end, for any regency.
    StopStorm => "vice: STOP storm",
    /// A STOP that nobody else has a reason for.
    LoneStop => "vice: lone STOP",
    /// As leader: gives its term away right after a proposal.
    Resign => "vice: resignation in the middle of a vote",
    /// As many questions as one may ask, in every period.
    Flood => "vice: flood at the quota",
    /// LACK and ANNOUNCE for what it knows better.
    FalseAnnouncements => "vice: false LACK and ANNOUNCE",
    /// As donor: digests and batches that are not what was decided, after some that are.
    FalseLog => "vice: false log given",
    /// As donor: tables of contents that do not lead to the root, or announce more than there is.
    FalseContents => "vice: false table of contents given",
    /// As donor: an old state under a later instance, or under signatures that nobody gave.
    RelabelledState => "vice: old state relabelled",
    /// As donor: chunks with other bytes, fewer or more.
    FalseChunks => "vice: false chunks given",
    /// As donor: says nothing.
    SilentDonor => "vice: donor that does not answer",
    /// As donor: says that it has nothing.
    DenyingDonor => "vice: donor that denies what it has",
    /// As donor: keeps what others cut, and gives as little and as late as is just no reason to leave it.
    SlowDonor => "vice: donor that gives slowly",
}

impl Vice {
    /// Those that show while a regency changes.
    const OF_CHANGE: &'static [Self] = &[
        Self::FutureClaims,
        Self::BeyondSpan,
        Self::TransplantedBase,
        Self::BaselessBase,
        Self::StuffedWriteSet,
        Self::HiddenLock,
        Self::FalseLock,
        Self::LockInEpochZero,
        Self::StaleStopData,
        Self::BorrowedName,
        Self::ManyStatements,
        Self::BiasedSync,
        Self::DividedSync,
        Self::LyingResults,
        Self::RepeatedSenders,
        Self::ForgedStatements,
        Self::MeagreSync,
        Self::WithheldSync,
    ];

    /// Those of donors: the last ones.
    const OF_DONORS: &'static [Self] = Self::ALL.split_at(Self::OF_ORDERING.len()).1;
    const OF_ORDERING: &'static [Self] = Self::ALL.split_at(35).0;

    /// A few vices of donors, and perhaps another one.
    pub(crate) fn of_donors(stream: &mut Stream) -> BTreeSet<Self> {
        let mut chosen: BTreeSet<Self> =
            (0..stream.between(1, 3)).map(|_| stream.pick(Self::OF_DONORS)).collect();
        if stream.percent(30) {
            chosen.insert(stream.pick(Self::OF_ORDERING));
        }
        chosen
    }

    /// A few vices; with `of_change` some of those that show in a leader change are among them.
    pub(crate) fn choose(of_change: bool, stream: &mut Stream) -> BTreeSet<Self> {
        let mut chosen = BTreeSet::new();
        for _ in 0..stream.between(1, 4) {
            chosen.insert(stream.pick(Self::OF_ORDERING));
        }
        if of_change {
            for _ in 0..stream.between(1, 3) {
                chosen.insert(stream.pick(Self::OF_CHANGE));
            }
            for vice in [Self::Equivocate, Self::WithheldVotes, Self::Resign] {
                if stream.percent(35) {
                    chosen.insert(vice);
                }
            }
        }
        chosen
    }
}
