//! `regency counter`: the counter service from the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use regency_services::counter::{Answer, Operation};

use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;
use crate::session::{Retry, Session};

/// Read and add to the counter service
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency counter demo add 5\n  regency counter demo get")]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add to the counter and print the sum
    #[command(after_help = "Example:\n  regency counter demo add 5", allow_negative_numbers = true)]
    Add {
        /// What to add
        amount: i64,
    },
    /// Print the counter
    #[command(after_help = "Example:\n  regency counter demo get")]
    Get,
}

/// Runs the operation and prints the counter.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (operation, retry) = match arguments.action {
        Action::Add { amount } => (Operation::Add(amount), Retry::Unsafe),
        Action::Get => (Operation::Get, Retry::Safe),
    };
    let mut session = Session::open(&arguments.directory, "counter")?;
    let result = session.invoke(operation.encode(), retry)?;
    match Answer::decode(&result) {
        Some(Answer::Value(value)) => {
            output::line(&value.to_string())?;
            Ok(ExitStatus::Done)
        }
        Some(Answer::Overflow) => Err(Failure::new(
            ErrorCode::Refused,
            "the sum would leave the range of 64 bits",
            "nothing was added; add less",
        )),
        Some(Answer::Malformed) | None => Err(Failure::new(
            ErrorCode::WrongService,
            "the answer is not of the counter service",
            "check that client and replicas are of the same version",
        )),
    }
}
