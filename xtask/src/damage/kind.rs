//! The kinds of damage, and what is demanded of a replica that suffers each.

use std::fmt;

/// What happens to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    /// Some bits are others.
    Flip,
    /// The file ends early.
    Cut,
    /// A block is zeros.
    Zero,
    /// Two blocks stand in each other's place.
    Swap,
    /// An older copy is put back.
    Old,
    /// The file is gone.
    Remove,
    /// A file of another replica is put in.
    Foreign,
}

impl Harm {
    const ALL: [Self; 7] =
        [Self::Flip, Self::Cut, Self::Zero, Self::Swap, Self::Old, Self::Remove, Self::Foreign];
    /// Those that need no second file.
    pub(super) const ALONE: [Self; 5] = [Self::Flip, Self::Cut, Self::Zero, Self::Swap, Self::Remove];
}

/// Which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Segment,
    SnapshotData,
    Manifest,
    /// The small ones: identity, the marks of a life, the log's begin.
    Mark,
}

impl Target {
    const ALL: [Self; 4] = [Self::Segment, Self::SnapshotData, Self::Manifest, Self::Mark];

    /// Whether a file of this name is one; lock and drafts are none of them.
    pub(super) fn is(self, name: &str) -> bool {
        match self {
            Self::Segment => name.starts_with("log-0"),
            Self::SnapshotData => name.ends_with(".data"),
            Self::Manifest => name.ends_with(".manifest"),
            Self::Mark => ["identity", "running", "clean-stop", "never-voted", "log-begin"].contains(&name),
        }
    }
}

/// What one case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// One file of one replica, while the others serve.
    File(Harm, Target),
    /// The whole data directory of one replica is that of an earlier time: it has forgotten votes.
    OldDirectory,
    /// With all replicas down: the log of one, and a snapshot's file of each other one.
    Everywhere,
    /// With all replicas down: the log of each, in another place of each.
    EveryLog,
}

/// What must come of it, besides that nobody is told anything wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// The replica takes part again, and agrees.
    Heal,
    /// That, or it says clearly why it does not start.
    HealOrRefuse,
    /// Nothing more.
    Safety,
}

impl Kind {
    /// Every kind, as often as it stands in a round of cases: the log is what votes lie in.
    pub(super) fn round() -> Vec<Self> {
        let mut kinds = vec![Self::OldDirectory, Self::Everywhere, Self::Everywhere, Self::EveryLog];
        for harm in Harm::ALL {
            kinds.extend(Target::ALL.map(|target| Self::File(harm, target)));
            kinds.push(Self::File(harm, Target::Segment));
        }
        kinds
    }

    /// What it takes to have borne it.
    pub(super) fn demand(self) -> Demand {
        match self {
            // A directory that says that it is another's, or nobody's, is refused on purpose.
            Self::File(_, Target::Mark) | Self::File(Harm::Foreign, _) => Demand::HealOrRefuse,
            Self::File(_, Target::Segment | Target::SnapshotData | Target::Manifest) | Self::Everywhere => {
                Demand::Heal
            }
            // It counts in f for as long as what it forgot matters.
            Self::OldDirectory => Demand::Safety,
            // More than f have lost their votes.
            Self::EveryLog => Demand::Safety,
        }
    }

    /// Whether a replica may take part afterwards although it has forgotten votes: then the cluster is not used again.
    pub(super) fn is_spent(self) -> bool {
        matches!(self, Self::OldDirectory | Self::EveryLog)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (harm, target) = match self {
            Self::File(harm, target) => (harm, target),
            Self::OldDirectory => return f.write_str("an old data directory put back"),
            Self::Everywhere => return f.write_str("one log and all other replicas' snapshots"),
            Self::EveryLog => return f.write_str("every replica's log"),
        };
        let what = match target {
            Target::Segment => "log segment",
            Target::SnapshotData => "snapshot",
            Target::Manifest => "manifest",
            Target::Mark => "mark",
        };
        match harm {
            Harm::Flip => write!(f, "bits flipped in a {what}"),
            Harm::Cut => write!(f, "{what} cut short"),
            Harm::Zero => write!(f, "block of a {what} zeroed"),
            Harm::Swap => write!(f, "blocks of a {what} swapped"),
            Harm::Old => write!(f, "old {what} put back"),
            Harm::Remove => write!(f, "{what} removed"),
            Harm::Foreign => write!(f, "{what} of another replica put in"),
        }
    }
}

/// How a replica has borne it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It takes part and agrees with the others, by what was left on its disk.
    Recovered,
    /// It does so by what the others gave it: its disk alone was not enough.
    Healed,
    /// It follows, and does not vote or is behind: the state that it tells.
    Apart(String),
    /// It does not start, with this error code.
    Refused(String),
}

impl Fate {
    /// Whether the replica takes part again.
    pub(super) fn takes_part(&self) -> bool {
        match self {
            Self::Recovered | Self::Healed => true,
            Self::Apart(_) | Self::Refused(_) => false,
        }
    }

    /// Whether it is enough.
    pub(super) fn meets(&self, demand: Demand) -> bool {
        match (self, demand) {
            (Self::Recovered | Self::Healed, _)
            | (_, Demand::Safety)
            | (Self::Refused(_), Demand::HealOrRefuse) => true,
            (Self::Apart(_), Demand::Heal | Demand::HealOrRefuse) | (Self::Refused(_), Demand::Heal) => false,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered => f.write_str("recovered"),
            Self::Healed => f.write_str("healed"),
            Self::Apart(state) => f.write_str(state),
            Self::Refused(code) => write!(f, "refused with {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_harm_meets_every_sort_of_file() {
        let round = Kind::round();
        for harm in Harm::ALL {
            for target in Target::ALL {
                assert!(round.contains(&Kind::File(harm, target)), "{harm:?} {target:?}");
            }
        }
    }

    #[test]
    fn a_refusal_is_enough_where_the_directory_seems_to_be_anothers() {
        let refused = Fate::Refused("E121".to_owned());
        assert!(refused.meets(Kind::File(Harm::Foreign, Target::Segment).demand()));
        assert!(!refused.meets(Kind::File(Harm::Flip, Target::Segment).demand()));
        assert!(!Fate::Apart("state-lost".to_owned()).meets(Kind::Everywhere.demand()));
        assert!(Fate::Apart("state-lost".to_owned()).meets(Kind::EveryLog.demand()));
    }

    #[test]
    fn locks_and_drafts_are_left_alone() {
        for name in
            ["lock", "identity.draft", "log-000000000002.draft", "snapshot-0000000000000050.data.draft"]
        {
            assert!(!Target::ALL.iter().any(|target| target.is(name) && !name.ends_with(".draft")), "{name}");
        }
        assert!(Target::Segment.is("log-000000000017") && !Target::Segment.is("log-begin"));
    }
}
