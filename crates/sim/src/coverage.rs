//! Named points that a campaign should come by: what was never reached was never tested.

use regency_protocol::action::Reason;

use crate::adversary::Vice;

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Something worth having happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$doc])* $name,)*
            /// The adversary gave in to this vice.
            Did(Vice),
            /// The core reported a broken rule for this reason.
            Reported(Reason),
        }

        impl Point {
            /// Those that are not reasons.
            const PLAIN: &'static [(Self, &'static str)] = &[$((Self::$name, $label),)*];
        }
    };
}

points! {
    /// A batch with more than one request was executed.
    LargeBatch => "large batch",
    /// A batch without operations for the service was executed.
    EmptyBatch => "empty batch",
    /// A leader had three instances or more in flight.
    SeveralInFlight => "several instances in flight",
    /// A frame was lost.
    FrameLost => "frame lost",
    /// A frame arrived twice.
    FrameTwice => "frame twice",
    /// A frame of the past arrived again.
    FrameAgain => "old frame again",
    /// A frame took much longer than others.
    FrameLate => "frame late",
    /// A link worked in one direction only.
    OneWayPartition => "one-way partition",
    /// Replicas were separated both ways.
    Partition => "partition",
    /// A partition came and went several times.
    FlappingPartition => "flapping partition",
    /// A client and some replicas lost sight of each other.
    ClientCutOff => "client cut off",
    /// A channel broke and came back.
    ConnectionReset => "connection reset",
    /// Two replicas lost each other, and noticed.
    Severed => "channel lost for a while",
    /// A follower stood still for a while.
    FollowerPaused => "follower paused",
    /// The leader stood still for a while.
    LeaderPaused => "leader paused",
    /// A follower crashed.
    FollowerCrashed => "follower crashed",
    /// The leader crashed.
    LeaderCrashed => "leader crashed",
    /// A crashed replica started again without its votes.
    RestartedStateLost => "restarted without votes",
    /// A replica without votes executed what others decided.
    StateLostExecutes => "state-lost replica executes",
    /// A replica came from behind to the end after the network healed.
    CaughtUp => "caught up after healing",
    /// A replica fell behind what others retain.
    FellBehind => "fell behind what is retained",
    /// A batch was asked for.
    BatchFetched => "batch fetched",
    /// Bodies were asked for.
    BodiesFetched => "bodies fetched",
    /// A decision was vouched for.
    DecisionVouched => "decision vouched for",
    /// A vote was sent again.
    VoteAgain => "vote sent again",
    /// A chain certificate was formed.
    Certificate => "chain certificate",
    /// A leader proposed two batches for one instance.
    Equivocation => "equivocating proposal",
    /// An adversary voted for both proposals, each towards those who got it.
    ColludingVotes => "colluding votes for two proposals",
    /// A replica that does not lead proposed something.
    FalseLeader => "proposal by a follower",
    /// A replica asked for far more than it may.
    FetchFlood => "flood of fetches",
    /// An adversary repeated its votes.
    StuffedVotes => "one replica's votes repeated",
    /// An adversary lied in a reply.
    LyingReply => "lying reply",
    /// An adversary altered a message of the protocol.
    AlteredMessage => "altered message",
    /// An adversary proposed a forged request.
    ForgedRequest => "forged request proposed",
    /// An adversary proposed one place twice.
    PlaceTwice => "one place proposed twice",
    /// A client sent different requests under one place.
    ConflictingRequests => "conflicting requests of a client",
    /// A client sent to too few replicas, always the same.
    FewReached => "client that sends to some replicas only",
    /// A client sent the same bundle again.
    RequestReplayed => "request replayed by its client",
    /// A client left a gap among its sequences.
    SequenceGap => "gap among sequences",
    /// A client asked for hundreds of sessions at once.
    SessionFlood => "flood of sessions",
    /// A client asked for more than a thousand sessions in a row.
    LongSessionFlood => "long flood of sessions",
    /// Votes held back came when they just made a quorum.
    VotesAtTheEdge => "votes at the quorum's edge",
    /// A replica refused with `Busy`.
    Busy => "busy",
    /// A replica refused a sequence outside the window.
    TooFarAhead => "sequence too far ahead",
    /// A session was expired.
    SessionExpired => "session expired",
    /// A large result came from one replica whole, from others as a digest.
    ResultByDigest => "result by digest",
    /// A client sent a request again.
    RequestAgain => "request sent again",
    /// A client gave up.
    GaveUp => "client gave up",
    /// Requests travelled as a bundle of several.
    Bundle => "bundle of several requests",
    /// A cluster in which requests are authentic by their channel.
    ChannelAuth => "channel authentication",
    /// A crash-only cluster.
    CrashOnly => "crash-only cluster",
    /// Five replicas, f = 1: `2f+1` would be too few.
    FiveReplicas => "five replicas",
    /// Seven replicas or more.
    ManyReplicas => "seven replicas or more",
    /// The smallest window.
    WindowOfOne => "window of one",
    /// A replica installed a regency.
    RegencyInstalled => "regency installed",
    /// A regency began somewhere.
    RegencyBegan => "regency began",
    /// A replica went over a regency that it never installed.
    RegencySkipped => "regency skipped",
    /// A replica learned a regency from SYNC alone.
    RegencyFromSync => "regency learned from SYNC alone",
    /// A regency was left before its SYNC came.
    RegencyNeverBegan => "regency left before it began",
    /// A second change came while nothing had been decided since the first.
    ChangeWithoutProgress => "second leader change before progress",
    /// A replica without votes learned of a regency.
    StateLostLearnsRegency => "restarted replica learned the regency",
    /// A leader that was asked to go went.
    OldLeaderFollows => "old leader follows",
    /// Everybody had led once.
    LeadersComeRound => "every member has led",
    /// A regency was installed while requests were pending.
    PendingAtInstall => "requests pending at install",
    /// A regency was installed while nothing was pending.
    IdleAtInstall => "nothing pending at install",
    /// Enough STOPs were joined.
    StopJoined => "STOP joined",
    /// The leader's own STOP was joined.
    LeaderStopJoined => "STOP of the leader itself joined",
    /// A STOP for a regency that nobody can reach came, and nothing followed.
    FarStop => "STOP for a regency out of reach",
    /// No SYNC came in time.
    SyncTimedOut => "SYNC timed out",
    /// A leader was given up for want of progress.
    LeaderGivenUp => "leader given up",
    /// A SYNC that begins nothing was answered with a STOP.
    BadSyncAnswered => "bad SYNC answered with STOP",
    /// A timeout doubled.
    BackedOff => "backoff",
    /// A timeout doubled more than twice.
    BackedOffFar => "backoff above 2",
    /// Progress ended a backoff.
    BackoffEnded => "backoff ended by progress",
    /// ACCEPTs of a regency below the installed one decided.
    OldAcceptsDecide => "old regency's ACCEPT quorum decided after install",
    /// Something was decided between install and SYNC.
    DecidedDuringChange => "decided between install and SYNC",
    /// Something was decided after a change.
    DecidedLater => "decided after a leader change",
    /// Something was decided after three changes.
    DecidedMuchLater => "decided after three leader changes",
    /// A request came when the leader had long been dead and nobody had missed it.
    IdleWithDeadLeader => "idle cluster with dead leader",
    /// A leader of a later regency proposed something of its own.
    ProposedLater => "proposal after a leader change",
    /// In an open cluster without signatures: a request was proposed when a quorum had announced it.
    ProposedAfterAnnouncements => "request proposed after quorum of announcements",
    /// An executed instance was voted for in a later regency.
    ExecutedVotedAgain => "executed instance voted for again",
    /// What a SYNC proposed was locked anew.
    LockedAgain => "bound instance locked again",
    /// A new leader fetched what is bound before its SYNC.
    FetchedBeforeSync => "bound batch fetched before SYNC",
    /// A follower fetched what is bound after the SYNC.
    FetchedAfterSync => "bound batch fetched after SYNC",
    /// A STOPDATA was sent again.
    StatedAgain => "STOPDATA sent again",
    /// A SYNC was relayed by another than its leader.
    SyncRelayed => "SYNC relayed",
    /// A request was forwarded.
    RequestForwarded => "request forwarded",
    /// A request was announced.
    RequestAnnounced => "request announced",
    /// A replica lacked proof of a proposed request.
    ProofLacked => "proof of a request lacked",
    /// A STOPDATA without any vote.
    NothingStated => "STOPDATA without votes",
    /// A STOPDATA with a WRITE, but no lock.
    WrittenOnlyStated => "STOPDATA with a WRITE and no lock",
    /// A STOPDATA with a lock of epoch 0.
    FirstLockStated => "STOPDATA with a lock in epoch 0",
    /// A STOPDATA with a lock of a later epoch.
    LaterLockStated => "STOPDATA with a lock in a later epoch",
    /// A STOPDATA with two digests in one write set.
    TwoWritesStated => "STOPDATA with two digests written",
    /// A SYNC that binds nothing.
    AllFree => "selection found everything free",
    /// A SYNC that binds several instances.
    SeveralBound => "selection bound several instances",
    /// A SYNC that needed more statements than a quorum.
    MoreThanAQuorum => "SYNC with more than a quorum of statements",
    /// A SYNC above a certificate.
    SyncAboveCertificate => "SYNC above a certificate",
    /// A SYNC bound what its leader had decided.
    DecidedIsBound => "selection bound what the leader has decided",
    /// A free instance below a bound one.
    FreeBelowBound => "selection found an instance free below a bound one",
    /// A value locked in an earlier regency was bound.
    BoundFromEarlier => "selection bound a value locked in an earlier regency",
    /// A value locked two regencies ago was bound.
    BoundFromTwoAgo => "selection bound a value locked two regencies ago",
    /// A value locked three regencies ago or more was bound.
    BoundFromLongAgo => "selection bound a value locked three regencies ago",
    /// A value locked in another epoch than 0 was bound.
    BoundFromLaterEpoch => "selection bound a value locked after the first regency",
    /// An instance was bound and free at once.
    BoundAndFree => "selection found an instance bound and free",
    /// One lock was enough to bind.
    BoundByOneLock => "selection bound a value by one lock",
    /// Two values were locked for one instance.
    RivalLocks => "selection between two locked values",
    /// A bound value was written again after the lock that binds it.
    WrittenAfterLock => "selection bound a value written after its lock",
    /// A new leader died before its SYNC.
    DiedBeforeSync => "leader died before SYNC",
    /// A leader of a later regency died.
    LaterLeaderDied => "leader of a later regency died",
    /// A leader died with nothing to do.
    DiedIdle => "idle leader died",
    /// A leader died with a proposal that nobody had written.
    DiedAfterPropose => "leader died between PROPOSE and WRITE",
    /// A leader died with a proposal that nobody had accepted.
    DiedAfterWrite => "leader died between WRITE and ACCEPT",
    /// A leader died before it knew what was decided.
    DiedAfterAccept => "leader died between ACCEPT and decision",
    /// Six replicas, f = 1.
    SixReplicas => "six replicas",
    /// Ten replicas, f = 3.
    TenReplicas => "ten replicas",
    /// Thirteen replicas, f = 4.
    ThirteenReplicas => "thirteen replicas",
    /// Keys and signatures were real ones.
    RealSignatures => "real signatures",
    /// More liars than the protocol is made for.
    BeyondFaults => "more than f liars",
    /// A correct replica stood still while `f` others lied.
    PauseAmongLiars => "f liars and a pause",
    /// A link failed while `f` replicas lied.
    PartitionAmongLiars => "f liars and a partition",
    /// A correct replica started again while `f` others lied.
    RestartAmongLiars => "f liars and a restart",
    /// A frame was lost on a link that worked while `f` replicas lied.
    LossAmongLiars => "f liars and loss",
    /// The adversary's frames, and those to it, took no time.
    Rushing => "rushing adversary",
    /// Replicas kept a real log, in files.
    LogInFiles => "log in files",
    /// A replica died between two effects of one event.
    DiedBetweenEffects => "died between two effects",
    /// A replica died while it wrote a snapshot.
    DiedInSnapshot => "died while a snapshot was written",
    /// Nobody ran.
    ClusterDown => "whole cluster down",
    /// A replica came back with votes for what is not decided.
    RecoveredWithVotes => "recovered with votes",
    /// A replica came back from a snapshot.
    RecoveredFromSnapshot => "recovered from a snapshot",
    /// A replica came back before it had anything on disk.
    RecoveredEmpty => "recovered with an empty log",
    /// A replica came back into a later regency.
    RecoveredLater => "recovered in a later regency",
    /// A replica came back that had not waited for its disk.
    RecoveredWithoutSync => "recovered what was written without a sync",
    /// A replica executed again what others had made a checkpoint of.
    ReplayedOverCheckpoint => "replay over a checkpoint",
    /// A leader came back and gave its term away.
    TermGivenAway => "restarted leader gave its term away",
    /// The end of a log never was whole.
    TornTail => "torn tail",
    /// A log was damaged.
    DamageFound => "damaged log",
    /// A disk was exchanged for an older copy.
    RolledBack => "older copy of a disk",
    /// A disk failed.
    DiskFailed => "disk failed",
    /// A disk was full.
    DiskFull => "disk full",
    /// A vote waited for a slow disk.
    VoteHeldBack => "vote held back by a slow disk",
    /// A checkpoint became stable.
    CheckpointStable => "checkpoint stable",
    /// A log was cut.
    LogCut => "log cut",
    /// A donor read batches from its log.
    LogDonated => "log read for another replica",
    /// A donor had a snapshot to offer.
    SnapshotOffered => "snapshot offered",
    /// A donor sent a chunk.
    ChunkDonated => "chunk read for another replica",
    /// A donor did not have what it was asked for.
    DonorLacks => "donor without what was asked for",
    /// A transfer found chunks on its own disk.
    ChunksAdopted => "chunks found on the own disk",
    /// A replica took a snapshot of others over.
    SnapshotInstalled => "snapshot of others installed",
    /// A replica that lost its votes learned what they cannot have been for.
    VotesBounded => "lost votes bounded",
    /// A replica died while it fetched a state.
    DiedInTransfer => "died in a transfer",
    /// A damaged snapshot was put right from others while its replica ran.
    SnapshotRepaired => "damaged snapshot put right",
    /// A disk was exchanged for an empty one.
    Wiped => "disk wiped",
    /// A disk said that a write was done, which it was not.
    WriteLost => "write lost",
    /// Or which it had done elsewhere.
    WriteMisdirected => "write misdirected",
    /// More replicas than `f` had lost their votes at once.
    TooManyForgot => "more than f without votes",
}

impl Point {
    /// Reasons that no schedule can reach yet, or only a broken core would report.
    const fn is_reachable(reason: Reason) -> bool {
        !matches!(
            reason,
            Reason::NotAMember | Reason::UnknownClient | Reason::RequestTooLarge | Reason::OpenExpired
        )
    }

    /// Every point there is.
    pub const ALL: &'static [Self] = &Self::every();

    const COUNT: usize = {
        let mut count = Self::PLAIN.len() + Vice::ALL.len();
        let mut at = 0;
        while at < Reason::ALL.len() {
            if Self::is_reachable(Reason::ALL[at]) {
                count += 1;
            }
            at += 1;
        }
        count
    };

    const fn every() -> [Self; Self::COUNT] {
        let mut every = [Self::LargeBatch; Self::COUNT];
        let mut next = 0;
        while next < Self::PLAIN.len() {
            every[next] = Self::PLAIN[next].0;
            next += 1;
        }
        let mut at = 0;
        while at < Vice::ALL.len() {
            every[next] = Self::Did(Vice::ALL[at]);
            next += 1;
            at += 1;
        }
        let mut at = 0;
        while at < Reason::ALL.len() {
            if Self::is_reachable(Reason::ALL[at]) {
                every[next] = Self::Reported(Reason::ALL[at]);
                next += 1;
            }
            at += 1;
        }
        every
    }

    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported(reason) => reason.label(),
            Self::Did(vice) => vice.label(),
            plain => Self::PLAIN.iter().find(|(point, _)| *point == plain).map_or("", |(_, name)| name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(!names.contains(""));
    }
}
