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
