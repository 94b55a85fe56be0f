//! What happened, as one hash over all events and actions, and as lines to read when a seed is replayed.

use std::fmt::Arguments;

/// Where the schedule's story goes.
pub(crate) enum Trace<'a> {
    /// Nowhere: the fast case.
    Off,
    /// Into a hash, to compare two runs of one seed.
    Hash(Box<blake3::Hasher>),
    /// To a reader.
    Lines(&'a mut dyn std::io::Write),
}

impl Trace<'_> {
    /// A hash with nothing in it.
    pub(crate) fn hash() -> Self {
        Self::Hash(Box::default())
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Hash(_) | Self::Lines(_) => true,
        }
    }

    /// Takes one line of the story down. A reader that does not read misses it: the story goes on.
    pub(crate) fn line(&mut self, at: u64, line: Arguments<'_>) {
        match self {
            Self::Off => {}
            Self::Hash(hasher) => {
                hasher.update(format!("{at} {line}").as_bytes());
            }
            Self::Lines(reader) => {
                let _ = writeln!(reader, "{:>4}.{:06} {line}", at / 1_000_000, at % 1_000_000);
            }
        }
    }

    /// The hash over all lines; `None` where none was kept.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Hash(hasher) => Some(*hasher.finalize().as_bytes()),
            Self::Off | Self::Lines(_) => None,
        }
    }
}
