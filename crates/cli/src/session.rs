//! A session with a cluster, opened from the client's directory; what single commands call through.

use std::path::Path;

use regency::Bytes;
use regency::client::{ClientConfig, ClientError, blocking};
use regency::config::{self, CLIENT_DIRECTORY};

use crate::failure::{ErrorCode, Failure};

/// What a second execution of an operation would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// No harm.
    Safe,
    /// Something else than one execution.
    Unsafe,
}

/// An open session.
pub(crate) struct Session {
    client: blocking::Client,
}

impl Session {
    /// Opens one with the key of `directory`; the cluster must run `service`.
    pub(crate) fn open(directory: &Path, service: &str) -> Result<Self, Failure> {
        let loaded = config::ClientConfig::load(&directory.join(CLIENT_DIRECTORY))?;
        check_service(directory, loaded.cluster.service(), service)?;
        let mut config: ClientConfig = loaded.into();
        // One command makes one call at a time.
        config.sessions = 1;
        Self::connect(&config)
    }

    /// Opens one.
    pub(crate) fn connect(config: &ClientConfig) -> Result<Self, Failure> {
        let client = blocking::Client::connect(config).map_err(|error| failure_of(&error, Retry::Safe))?;
        Ok(Self { client })
    }

    /// Has one operation ordered and executed.
    pub(crate) fn invoke(&mut self, operation: Bytes, retry: Retry) -> Result<Bytes, Failure> {
        self.client.invoke(operation).map_err(|error| failure_of(&error, retry))
    }
}

/// Refuses a cluster that runs another service than the command speaks.
pub(crate) fn check_service(directory: &Path, actual: &str, needed: &str) -> Result<(), Failure> {
    if actual == needed {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::WrongService,
        format!("{} runs the service {actual}, not {needed}", directory.display()),
        format!("use a cluster created with --service {needed}"),
    ))
}

/// What a client's error means for the user of a command.
pub(crate) fn failure_of(error: &ClientError, retry: Retry) -> Failure {
    let next = match (error.may_be_executed(), retry) {
        (false, _) => "check that the replicas run (`regency status`) and try again",
        (true, Retry::Safe) => "retry is safe",
        (true, Retry::Unsafe) => "read what is there before you try again",
    };
    let code = match error {
        ClientError::NoQuorum { .. } | ClientError::SessionExpired | ClientError::Closed { .. } => {
            ErrorCode::NoQuorum
        }
        ClientError::Refused(_)
        | ClientError::ResultUnavailable(_)
        | ClientError::TooLarge { .. }
        | ClientError::Overloaded(_) => ErrorCode::Refused,
        ClientError::NotAdmitted { .. } => ErrorCode::UnknownClient,
        ClientError::WrongKey { .. } => ErrorCode::WrongKey,
        ClientError::Setup(_) => ErrorCode::System,
    };
    // The error ends with what is known of the outcome; the next step belongs to it.
    match error.to_string().rsplit_once(": ") {
        Some((cause, outcome)) if code == ErrorCode::NoQuorum => {
            Failure::new(code, cause, format!("{outcome}, {next}"))
        }
        Some(_) | None => Failure::new(code, error.to_string(), next),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_missing_quorum_says_whether_a_retry_is_safe() {
        let missing = ClientError::NoQuorum {
            replies: 1,
            needed: 3,
            refused: 2,
            sent: true,
            waited: Duration::from_secs(5),
        };
        assert_eq!(
            failure_of(&missing, Retry::Safe).to_string(),
            "E112 no quorum: 1 of 3 replies in 5 s (2 refused): outcome unknown, retry is safe"
        );
        assert!(failure_of(&missing, Retry::Unsafe).to_string().ends_with("before you try again"));
    }
}
