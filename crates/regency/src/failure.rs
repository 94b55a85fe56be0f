//! Errors that a person reads: a code, the cause and the next step in one line.
//!
//! The one home of codes and exit statuses. Libraries below the command line return [`Failure`] where the reader
//! is an operator (configuration, keys, start-up); the binary prints it and exits with [`ErrorCode::exit_status`].

use std::fmt;

use thiserror::Error;

/// What the process ends with; the numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong use.
    Usage = 2,
    /// No quorum answered: the outcome is unknown.
    NoQuorum = 3,
    /// It works, but not all of it.
    Degraded = 4,
    /// Not authorised.
    NotAuthorised = 5,
    /// The configuration is wrong.
    Configuration = 6,
    /// Stopped, because going on would not be safe.
    Safety = 7,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $exit:ident;)*) => {
        /// What went wrong; the numbers are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What a process that ends with this error exits with.
            #[must_use]
            pub fn exit_status(self) -> ExitStatus {
                match self {
                    $(Self::$name => ExitStatus::$exit,)*
                }
            }
        }
    };
}

codes! {
    /// A command line that does not parse or contradicts itself.
    Usage = 100, Usage;
    /// A private key file that others can read.
    KeyMode = 101, Configuration;
    /// A key file that is missing or cannot be read.
    KeyUnreadable = 102, Configuration;
    /// A configuration file that is missing or cannot be read or parsed.
    FileUnreadable = 103, Configuration;
    /// Too few replicas for the faults to tolerate.
    TooFewMembers = 104, Configuration;
    /// Another process listens on the address.
    AddressInUse = 105, Configuration;
    /// A data directory of another cluster.
    WrongCluster = 106, Configuration;
    /// A data directory that another process uses.
    DirectoryInUse = 107, Configuration;
    /// A key that is not the one that the cluster has for this replica.
    WrongKey = 108, Configuration;
    /// An id, address or key that stands twice.
    Duplicate = 109, Configuration;
    /// Settings that contradict each other.
    Contradiction = 110, Configuration;
    /// A value of the wrong kind, or out of range.
    BadValue = 111, Configuration;
    /// Too few replicas answered.
    NoQuorum = 112, NoQuorum;
    /// A key that no configuration file of this kind has.
    UnknownKey = 113, Configuration;
    /// A key that must be there.
    MissingKey = 114, Configuration;
    /// A cluster file whose content does not have the id that it states.
    ClusterChanged = 115, Configuration;
    /// A client that the cluster does not list.
    UnknownClient = 116, NotAuthorised;
    /// An address that cannot be resolved or bound.
    BadAddress = 117, Configuration;
    /// Something that this version does not offer.
    NotOffered = 118, Usage;
    /// The disk refused to read or write.
    Disk = 119, Failed;
    /// A replica that the cluster does not have.
    UnknownReplica = 120, Configuration;
    /// A data directory of another replica.
    WrongReplica = 121, Configuration;
    /// A file or directory that would be overwritten.
    Exists = 122, Usage;
    /// A thread, socket or signal that the system did not give.
    System = 123, Failed;
    /// An operation that the cluster or its service refused.
    Refused = 124, Failed;
    /// A cluster that runs another service than the command needs.
    WrongService = 125, Configuration;
    /// A cluster in which not every replica serves in the same view and regency.
    Degraded = 126, Degraded;
    /// A child process that ended by itself.
    ChildEnded = 127, Failed;
    /// Replicas that have lived before and lost their votes.
    VotesLost = 128, Safety;
    /// A build with mutants that was asked to serve.
    MutantBuild = 129, Safety;
    /// An invariant that the simulator saw break.
    InvariantBroken = 130, Failed;
    /// A replica that found one of its own invariants broken and stopped.
    Invariant = 131, Safety;
    /// A log that is damaged where no crash can have torn it.
    LogDamaged = 132, Failed;
    /// A disk that failed to write or to sync.
    DiskFailed = 133, Safety;
    /// A replica whose state is not that of the others.
    Diverged = 134, Safety;
    /// A disk with less room than the reserve.
    DiskFull = 135, Safety;
    /// A state that a quorum signed and the service does not take over.
    StateRefused = 136, Safety;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", *self as u16)
    }
}

/// An error for a person: `E101 key replica-2/key has mode 0644: run chmod 600 replica-2/key`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{code} {cause}: {next}")]
pub struct Failure {
    code: ErrorCode,
    cause: String,
    next: String,
}

impl Failure {
    /// What went wrong and what to do next; neither ends with a full stop.
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), next: next.into() }
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What went wrong.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> &str {
        &self.next
    }

    /// What a process that ends with it exits with.
    #[must_use]
    pub fn exit_status(&self) -> ExitStatus {
        self.code.exit_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_code_cause_and_next_step() {
        let failure = Failure::new(ErrorCode::KeyMode, "key k has mode 0644", "run chmod 600 k");
        assert_eq!(failure.to_string(), "E101 key k has mode 0644: run chmod 600 k");
        assert_eq!(failure.exit_status(), ExitStatus::Configuration);
        assert_eq!(ErrorCode::NoQuorum.exit_status() as u8, 3);
    }

    #[test]
    fn codes_are_distinct() {
        let mut numbers: Vec<u16> = ErrorCode::ALL.iter().map(|code| *code as u16).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
    }
}
