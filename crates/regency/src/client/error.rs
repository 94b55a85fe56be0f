//! Why a call or a client failed.

use std::time::Duration;

use regency_protocol::client::{CallError, SubmitError};
use regency_protocol::ids::ReplicaId;
use regency_protocol::message::Refusal;
use thiserror::Error;

use crate::failure::{ErrorCode, Failure};
use crate::transport::RefusalCode;

/// What became of a call that has no result, or of a client that could not connect.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    /// Not enough replicas said the same in time.
    #[error(
        "no quorum: {replies} of {needed} replies in {} ({refused} refused): {}",
        seconds(.waited),
        if *.sent { "outcome unknown" } else { "not executed" }
    )]
    NoQuorum {
        /// How many replicas sent a result.
        replies: usize,
        /// How many equal ones are needed.
        needed: usize,
        /// How many refused.
        refused: usize,
        /// Whether the request was sent at all.
        sent: bool,
        /// How long the call waited.
        waited: Duration,
    },
    /// Enough replicas refused the operation: it was not executed and will not be.
    #[error("refused: {}", reason(.0))]
    Refused(Refusal),
    /// The operation was executed, but its result cannot be had.
    #[error("executed, but the result is not available: {}", reason(.0))]
    ResultUnavailable(Refusal),
    /// The session ended while the request was under way.
    #[error("the session expired: outcome unknown")]
    SessionExpired,
    /// The operation is larger than the cluster takes.
    #[error("an operation of {bytes} bytes is over the limit of {limit} (request_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// So many calls wait already that this one was not taken: it is not executed.
    #[error("{0} calls wait already: not executed")]
    Overloaded(usize),
    /// Enough replicas do not let this client in.
    #[error("replica {replica} refuses the connection: {text}")]
    NotAdmitted {
        /// One of them.
        replica: ReplicaId,
        /// Its reason.
        code: RefusalCode,
        /// The same in its words.
        text: String,
        /// Whether the request was sent before.
        sent: bool,
    },
    /// So many addresses are served under other keys than the view's that no answer can count.
    #[error("the server at {address} does not hold the key of replica {replica}")]
    WrongKey {
        /// One of the replicas.
        replica: ReplicaId,
        /// Its address.
        address: String,
        /// Whether the request was sent before.
        sent: bool,
    },
    /// The client was closed before the call ended.
    #[error("the client is closed: {}", if *.sent { "outcome unknown" } else { "not executed" })]
    Closed {
        /// Whether the request was sent before.
        sent: bool,
    },
    /// The process could not set up what a client needs.
    #[error("{0}")]
    Setup(String),
}

impl ClientError {
    /// Whether the operation has been, or may yet be, executed. If not, a retry cannot execute it twice.
    #[must_use]
    pub fn may_be_executed(&self) -> bool {
        match self {
            Self::NoQuorum { sent, .. }
            | Self::NotAdmitted { sent, .. }
            | Self::WrongKey { sent, .. }
            | Self::Closed { sent } => *sent,
            Self::ResultUnavailable(_) | Self::SessionExpired => true,
            Self::Refused(_) | Self::TooLarge { .. } | Self::Overloaded(_) | Self::Setup(_) => false,
        }
    }

    /// What a call's end means after it has waited for so long.
    pub(crate) fn of_call(error: CallError, waited: Duration) -> Self {
        match error {
            CallError::NoQuorum { replies, needed, refused, sent } => {
                Self::NoQuorum { replies, needed, refused, sent, waited }
            }
            CallError::Refused(refusal) => Self::Refused(refusal),
            CallError::ResultUnavailable(refusal) => Self::ResultUnavailable(refusal),
            CallError::SessionExpired => Self::SessionExpired,
        }
    }

    /// The same problem for a call that was, or was not, sent.
    pub(crate) fn with_sent(mut self, was_sent: bool) -> Self {
        match &mut self {
            Self::NoQuorum { sent, .. }
            | Self::NotAdmitted { sent, .. }
            | Self::WrongKey { sent, .. }
            | Self::Closed { sent } => *sent = was_sent,
            Self::Refused(_)
            | Self::ResultUnavailable(_)
            | Self::SessionExpired
            | Self::TooLarge { .. }
            | Self::Overloaded(_)
            | Self::Setup(_) => {}
        }
        self
    }
}

impl From<SubmitError> for ClientError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::WindowFull(calls) => Self::Overloaded(usize::try_from(calls).unwrap_or(usize::MAX)),
            SubmitError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::NoQuorum { replies, needed, refused, sent, waited } => {
                let waited = seconds(&waited);
                let cause =
                    format!("no quorum: {replies} of {needed} replies in {waited} ({refused} refused)");
                let next = if sent {
                    "outcome unknown, retry is safe where doing it twice is"
                } else {
                    "not executed, retry is safe: check with `regency status` which replicas serve"
                };
                Self::new(ErrorCode::NoQuorum, cause, next)
            }
            ClientError::SessionExpired => {
                Self::new(ErrorCode::NoQuorum, text, "retry is safe where doing it twice is")
            }
            ClientError::NotAdmitted { code, .. } => {
                let (code, next) = match code {
                    RefusalCode::UnknownClient => {
                        (ErrorCode::UnknownClient, "use the key of a listed client")
                    }
                    RefusalCode::WrongCluster => {
                        (ErrorCode::WrongCluster, "use this cluster's own cluster.toml")
                    }
                    RefusalCode::WrongKey | RefusalCode::UnknownReplica => {
                        (ErrorCode::WrongKey, "use a client's key, not a replica's")
                    }
                    RefusalCode::UnsupportedVersion => (ErrorCode::NotOffered, "use the replicas' version"),
                    RefusalCode::TooManyConnections | RefusalCode::Stopping => {
                        (ErrorCode::NoQuorum, "try again")
                    }
                };
                Self::new(code, text, next)
            }
            ClientError::WrongKey { .. } => Self::new(
                ErrorCode::WrongKey,
                text,
                "check the addresses in cluster.toml: another cluster is there",
            ),
            ClientError::TooLarge { .. } => Self::new(ErrorCode::BadValue, text, "send less at once"),
            ClientError::Refused(_) | ClientError::ResultUnavailable(_) => {
                Self::new(ErrorCode::Refused, text, "change the operation, or the cluster's settings")
            }
            ClientError::Overloaded(_) => Self::new(ErrorCode::Refused, text, "keep fewer calls in flight"),
            ClientError::Closed { .. } => Self::new(ErrorCode::System, text, "connect again"),
            ClientError::Setup(_) => Self::new(ErrorCode::System, text, "check the limits of this process"),
        }
    }
}

/// `5 s`, `0.3 s`.
fn seconds(duration: &Duration) -> String {
    let tenths = duration.as_millis().div_ceil(100);
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Busy { .. } => "the client has as much pending as it may",
        Refusal::TooFarAhead => "the sequence is outside the session's window",
        Refusal::SessionExpired => "the session has expired",
        Refusal::TooLarge => "the operation is too large",
        Refusal::UnknownClient => "the view does not list this client",
        Refusal::OpenExpired => {
            "the session could not be opened in time: does the clock agree with the replicas'?"
        }
        Refusal::SessionsExhausted => "there is no room for another session",
        Refusal::BadSignature => "the signature is missing or wrong",
        Refusal::Rejected => "the service does not accept this operation",
        Refusal::ResultTooLarge => "the result is over the limit (result_bytes_max)",
        Refusal::ResultDiscarded => "it was dropped to make room for later ones",
        Refusal::SequenceReused => "another request was executed under its number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_missing_quorum_says_what_was_heard_and_what_that_means() {
        let error = CallError::NoQuorum { replies: 1, needed: 3, refused: 2, sent: true };
        let error = ClientError::of_call(error, Duration::from_millis(5000));
        assert_eq!(error.to_string(), "no quorum: 1 of 3 replies in 5 s (2 refused): outcome unknown");
        assert!(error.may_be_executed());
        let unsent = error.with_sent(false);
        assert!(unsent.to_string().ends_with("not executed") && !unsent.may_be_executed());
        assert_eq!(seconds(&Duration::from_millis(299)), "0.3 s");
    }

    #[test]
    fn on_the_command_line_each_error_has_its_code() {
        let waited = Duration::from_secs(5);
        let error = ClientError::NoQuorum { replies: 1, needed: 3, refused: 2, sent: true, waited };
        let shown = Failure::from(error).to_string();
        assert!(
            shown.starts_with("E112 no quorum: 1 of 3 replies in 5 s (2 refused): outcome unknown"),
            "{shown}"
        );
        let error = ClientError::NotAdmitted {
            replica: ReplicaId(0),
            code: RefusalCode::UnknownClient,
            text: "unknown client".into(),
            sent: false,
        };
        assert_eq!(Failure::from(error).code(), ErrorCode::UnknownClient);
    }
}
