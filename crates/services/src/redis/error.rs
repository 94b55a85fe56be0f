//! Errors that commands draw, in the words of Redis where it has words for them.

use std::time::Duration;

use thiserror::Error;

use super::parser::Arguments;
use crate::kv::Refusal;
use crate::kv::limits::{KEY_BYTES_MAX, OPERATION_KEYS_MAX, PATTERN_BYTES_MAX};

/// Bytes of the arguments that the error for an unknown command repeats.
const REPEATED_BYTES_MAX: usize = 128;

/// Why a command is refused before anybody is asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum CommandError {
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    Unknown { name: String, arguments: String },
    #[error("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")]
    UnknownSubcommand { command: &'static str, subcommand: String },
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNotExclusive,
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGreaterAndLess,
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    #[error("ERR invalid cursor")]
    Cursor,
    #[error("ERR key exceeds maximum allowed size ({KEY_BYTES_MAX} bytes)")]
    KeyTooLong,
    #[error("ERR pattern exceeds maximum allowed size ({PATTERN_BYTES_MAX} bytes)")]
    PatternTooLong,
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    ValueTooLong,
    #[error("ERR the command is larger than a request of the cluster may be ({0} bytes)")]
    TooLarge(usize),
    #[error("ERR the transaction is larger than a request of the cluster may be ({0} bytes)")]
    TransactionTooLarge(usize),
    #[error("ERR too many keys in one command (at most {OPERATION_KEYS_MAX})")]
    TooManyKeys,
    #[error("ERR too many watched keys")]
    TooManyWatched,
    #[error("ERR Command not allowed inside a transaction")]
    NotInTransaction,
    #[error("ERR MULTI calls can not be nested")]
    NestedMulti,
    #[error("ERR WATCH inside MULTI is not allowed")]
    WatchInsideMulti,
    #[error("ERR EXEC without MULTI")]
    ExecWithoutMulti,
    #[error("ERR DISCARD without MULTI")]
    DiscardWithoutMulti,
    #[error("EXECABORT Transaction discarded because of previous errors.")]
    TransactionBroken,
    #[error("NOAUTH Authentication required.")]
    NotAuthenticated,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
         <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
         the same time"
    )]
    HelloNotAuthenticated,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPassword,
    #[error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?"
    )]
    NoPasswordConfigured,
    #[error("NOPROTO unsupported protocol version")]
    UnsupportedProtocol,
    #[error("ERR Protocol version is not an integer or out of range")]
    ProtocolNotAnInteger,
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    #[error("ERR {0} cannot contain spaces, newlines or special characters.")]
    LibraryName(&'static str),
    #[error("ERR Unrecognized option '{0}'")]
    UnrecognizedOption(String),
    #[error("ERR DB index is out of range")]
    Database,
    #[error("ERR {0} is not supported by this front")]
    Unsupported(&'static str),
}

impl CommandError {
    /// Whether Redis would find it when it executes the command, and so inside MULTI only at EXEC.
    pub(super) fn is_of_execution(&self) -> bool {
        match self {
            Self::Unknown { .. }
            | Self::Arity(_)
            | Self::TooLarge(_)
            | Self::TransactionTooLarge(_)
            | Self::NotInTransaction
            | Self::NestedMulti
            | Self::WatchInsideMulti
            | Self::ExecWithoutMulti
            | Self::DiscardWithoutMulti
            | Self::TransactionBroken
            | Self::NotAuthenticated
            | Self::HelloNotAuthenticated => false,
            Self::UnknownSubcommand { .. }
            | Self::Syntax
            | Self::NotAnInteger
            | Self::DecrementOverflow
            | Self::ExpireTime(_)
            | Self::ExpireNotExclusive
            | Self::ExpireGreaterAndLess
            | Self::UnsupportedOption(_)
            | Self::Cursor
            | Self::KeyTooLong
            | Self::PatternTooLong
            | Self::ValueTooLong
            | Self::TooManyKeys
            | Self::TooManyWatched
            | Self::WrongPassword
            | Self::NoPasswordConfigured
            | Self::UnsupportedProtocol
            | Self::ProtocolNotAnInteger
            | Self::HelloOption(_)
            | Self::ClientName
            | Self::LibraryName(_)
            | Self::UnrecognizedOption(_)
            | Self::Database
            | Self::Unsupported(_) => true,
        }
    }

    /// For a command that is not in the table.
    pub(super) fn unknown(arguments: &Arguments<'_>) -> Self {
        let mut repeated = String::new();
        for argument in arguments.from(1).iter() {
            if repeated.len() >= REPEATED_BYTES_MAX {
                break;
            }
            let room = REPEATED_BYTES_MAX - repeated.len();
            repeated.push_str(&format!("'{}' ", shown(argument.get(..room).unwrap_or(argument))));
        }
        Self::Unknown { name: name_of(arguments.at(0)), arguments: repeated }
    }

    /// For a subcommand that `command`, in capital letters, does not have.
    pub(super) fn unknown_subcommand(command: &'static str, subcommand: &[u8]) -> Self {
        Self::UnknownSubcommand { command, subcommand: name_of(subcommand) }
    }
}

/// Text of what a client sent, for an error that goes back to it.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn name_of(bytes: &[u8]) -> String {
    shown(bytes.get(..REPEATED_BYTES_MAX).unwrap_or(bytes))
}

/// What a refusal of the store is to a Redis client.
pub(super) fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::NotAnInteger => CommandError::NotAnInteger.to_string(),
        Refusal::Overflow => "ERR increment or decrement would overflow".to_owned(),
        Refusal::ValueTooLong => CommandError::ValueTooLong.to_string(),
        Refusal::KeyTooLong => CommandError::KeyTooLong.to_string(),
        Refusal::StoreFull => "OOM command not allowed when used memory > 'maxmemory'.".to_owned(),
        Refusal::Malformed | Refusal::TooManyParts | Refusal::AnswerTooLong | Refusal::TooMuchWork => {
            format!("ERR {refusal}")
        }
    }
}

/// Why the cluster gave no answer to a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unanswered {
    /// It has too much to do, and did not take the request.
    #[error("BUSY the cluster is overloaded and did not execute the command: retry in {} ms", .retry_after.as_millis())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too few replicas answered alike in time: the request may have been executed, or may still be.
    #[error("TRYAGAIN {cause} (the command may have been executed: read before you repeat it)")]
    OutcomeUnknown {
        /// What is known.
        cause: String,
    },
    /// The request was not executed and will not be.
    #[error("ERR {cause} (the command was not executed)")]
    NotExecuted {
        /// Why.
        cause: String,
    },
}
