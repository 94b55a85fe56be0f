//! Failures of the command line: `regency`'s, with short ways to those that every command may meet.

use std::io;

pub(crate) use regency::{ErrorCode, ExitStatus, Failure};

/// What a command returns: the status to exit with, or the failure to print.
pub(crate) type Outcome = Result<ExitStatus, Failure>;

/// The operating system refused `what`.
pub(crate) fn system(what: &str, error: &io::Error) -> Failure {
    Failure::new(ErrorCode::System, format!("{what}: {error}"), "see the message of the operating system")
}

/// The command line contradicts itself.
pub(crate) fn usage(cause: impl Into<String>, next: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::Usage, cause, next)
}

/// The line for stderr. Causes come from many places; the promise of one line is kept here.
pub(crate) fn line(failure: &Failure) -> String {
    failure.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(ErrorCode::System, "first\n  second", "third");
        assert_eq!(line(&failure), "E123 first second: third");
    }
}
