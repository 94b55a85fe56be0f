//! What is left of a schedule: for each kind of thing that can go wrong, the numbers of those that still do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::agenda::Moment;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// A kind of thing that a schedule can do without, in the order in which they are left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind there is.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the text form.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

kinds! {
    /// Owned replicas, by identifier; without it one is correct.
    Owned => "owned",
    /// Number 0: the adversary's frames take no time.
    Rushing => "rushing",
    /// Vices, by their place in the list of all.
    Vices => "vices",
    /// Settings that are not the default ones, by their place in the list of all.
    Settings => "settings",
    /// Clocks that are ahead, by replica.
    Clocks => "clocks",
    /// Number 0: frames take a random time, not always the shortest.
    Jitter => "jitter",
    /// Faults, each with its end.
    Faults => "faults",
    /// Honest clients' calls: a client's number times 1000, plus the call's.
    Calls => "calls",
    /// Frames that are lost, by their number in the schedule.
    Lost => "lost",
    /// Frames that are late: twice their number, plus 1 for the second copy.
    Late => "late",
    /// Frames that arrive twice.
    Twice => "twice",
    /// Frames with which one of the past comes again.
    Again => "again",
    /// Links that fail for one kind of message in one regency.
    Rounds => "rounds",
    /// The dishonest client's turns.
    Rogue => "rogue",
    /// What the adversary sends.
    Deeds => "deeds",
}

/// What is left of a schedule. By default everything is; one clause for each kind that was looked at.
///
/// Its text has one line, without spaces: `owned:3/faults:1,4/lost:/deeds:7-9/heal:250000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// What is left of each kind; all of it where a kind is not named.
    pub(crate) kept: BTreeMap<Kind, BTreeSet<u64>>,
    /// From when on nothing goes wrong any more, in µs, if that is earlier than planned.
    pub(crate) heal_at: Option<Moment>,
}

/// A text that is no reduction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no part of a reduction")]
pub struct ReductionError(String);

/// Numbers that one clause may hold.
pub(super) const NUMBERS_MAX: u64 = 1_000_000;
/// The text of what leaves nothing out.
const EVERYTHING: &str = "everything";

impl Reduction {
    /// Whether nothing of this kind is left.
    pub(crate) fn is_without(&self, kind: Kind) -> bool {
        self.kept.get(&kind).is_some_and(BTreeSet::is_empty)
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kept.iter().map(|(kind, kept)| format!("{}:{}", kind.name(), ranges(kept)));
        let heal = self.heal_at.map(|at| format!("heal:{at}"));
        let clauses: Vec<String> = kinds.chain(heal).collect();
        f.write_str(if clauses.is_empty() { EVERYTHING } else { "" })?;
        f.write_str(&clauses.join("/"))
    }
}

impl FromStr for Reduction {
    type Err = ReductionError;

    fn from_str(text: &str) -> Result<Self, ReductionError> {
        let mut reduction = Self::default();
        if text == EVERYTHING {
            return Ok(reduction);
        }
        for clause in text.split('/') {
            let wrong = || ReductionError(clause.to_owned());
            let (name, numbers) = clause.split_once(':').ok_or_else(wrong)?;
            if name == "heal" && reduction.heal_at.is_none() {
                reduction.heal_at = Some(numbers.parse().map_err(|_| wrong())?);
                continue;
            }
            let kind = Kind::ALL.iter().find(|kind| kind.name() == name).ok_or_else(wrong)?;
            let kept = parse_ranges(numbers).ok_or_else(wrong)?;
            if reduction.kept.insert(*kind, kept).is_some() {
                return Err(wrong());
            }
        }
        Ok(reduction)
    }
}

/// `1,4-6`.
fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let run = |(first, last): (u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}

fn parse_ranges(text: &str) -> Option<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for run in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let room = NUMBERS_MAX - numbers.len() as u64;
        if first > last || last - first >= room {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let texts = ["everything", "owned:/heal:7", "faults:1,4-6/lost:/deeds:0-1,9", "heal:0", "jitter:"];
        for text in texts {
            let reduction: Reduction = text.parse().unwrap();
            assert_eq!(reduction.to_string(), text);
        }
        let kept = Kind::ALL.iter().map(|kind| (*kind, BTreeSet::from([2, 3, u64::MAX]))).collect();
        let every = Reduction { kept, heal_at: Some(1) };
        assert_eq!(every.to_string().parse(), Ok(every));
    }

    #[test]
    fn a_text_that_says_nothing_or_too_much_is_refused() {
        let texts = [
            "",
            "faults",
            "fault:1",
            "faults:x",
            "faults:3-1",
            "faults:1,",
            "heal:",
            "heal:1/heal:2",
            "lost:1/lost:2",
            "deeds:0-99999999999",
            "deeds:0-600000,700000-1300000",
        ];
        for text in texts {
            assert!(text.parse::<Reduction>().is_err(), "{text}");
        }
    }
}
