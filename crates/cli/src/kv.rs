//! `regency kv`: the key-value service from the command line, one operation or interactively.

mod interactive;
mod load;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use regency_services::kv::limits::SCAN_VISITS_MAX;
use regency_services::kv::{Answer, Operation, Reply, RequestWriter, Scan};

use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;
use crate::session::{Retry, Session};

/// Read and write the key-value service
#[derive(Debug, Args)]
#[command(after_help = "Without an operation: reads them from stdin, one a line.\n\n\
    Example:\n  regency kv demo put greeting hello\n  regency kv demo get greeting\n  regency kv demo scan user:")]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(subcommand)]
    action: Option<Action>,
}

/// One operation.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print the value of a key; exit with 1 if there is none
    #[command(after_help = "Example:\n  regency kv demo get greeting")]
    Get {
        /// The key
        key: OsString,
    },
    /// Set a key
    #[command(after_help = "Example:\n  regency kv demo put greeting hello")]
    Put {
        /// The key
        key: OsString,
        /// Its value
        value: OsString,
    },
    /// Delete a key; exit with 1 if there was none
    #[command(after_help = "Example:\n  regency kv demo delete greeting")]
    Delete {
        /// The key
        key: OsString,
    },
    /// Add to the number at a key, 0 if absent, and print the sum
    #[command(after_help = "Example:\n  regency kv demo increment visits 5", allow_negative_numbers = true)]
    Increment {
        /// The key
        key: OsString,
        /// What to add
        #[arg(default_value_t = 1)]
        by: i64,
    },
    /// Set a key if its value is the expected one; exit with 1 if it is not
    #[command(after_help = "Example:\n  regency kv demo cas leader alice bob")]
    Cas {
        /// The key
        key: OsString,
        /// The value that it must have
        expected: OsString,
        /// The value that it gets
        value: OsString,
    },
    /// Print keys and values in order, KEY<TAB>VALUE
    #[command(after_help = "Example:\n  regency kv demo scan user:")]
    Scan {
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: OsString,
    },
    /// Print how many keys there are
    #[command(after_help = "Example:\n  regency kv demo count")]
    Count,
    /// Set the keys of a file of lines KEY<TAB>VALUE (- for stdin)
    #[command(after_help = "Example:\n  regency kv demo load users.tsv")]
    Load {
        /// The file
        file: PathBuf,
    },
}

/// Runs one operation, or those of stdin.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut store = Store { session: Session::open(&arguments.directory, "kv")? };
    match &arguments.action {
        Some(action) => store.run(action),
        None => interactive::run(&mut store),
    }
}

/// The service, seen through one session.
struct Store {
    session: Session,
}

impl Store {
    fn run(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Get { key } => self.get(key.as_bytes()),
            Action::Put { key, value } => {
                let put = Operation::put(key.as_bytes(), value.as_bytes());
                self.ask(&put, |answer| match answer {
                    Answer::Done => Some(Ok(ExitStatus::Done)),
                    _ => None,
                })
            }
            Action::Delete { key } => {
                let delete = Operation::Delete { keys: vec![key.as_bytes()] };
                self.ask(&delete, |answer| match answer {
                    Answer::Count(0) => Some(Ok(ExitStatus::Failed)),
                    Answer::Count(_) => Some(Ok(ExitStatus::Done)),
                    _ => None,
                })
            }
            Action::Increment { key, by } => {
                let increment = Operation::Increment { key: key.as_bytes(), by: *by };
                self.ask(&increment, |answer| match answer {
                    Answer::Integer(sum) => Some(printed(&sum.to_string())),
                    _ => None,
                })
            }
            Action::Cas { key, expected, value } => self.compare_and_set(key, expected, value),
            Action::Scan { prefix } => self.scan(prefix.as_bytes()),
            Action::Count => self.ask(&Operation::Count, |answer| match answer {
                Answer::Count(count) => Some(printed(&count.to_string())),
                _ => None,
            }),
            Action::Load { file } => load::run(self, file),
        }
    }

    fn get(&mut self, key: &[u8]) -> Outcome {
        self.ask(&Operation::Get { key }, |answer| match answer {
            Answer::Value(value) => Some(output::bytes(&[value, b"\n"]).map(|()| ExitStatus::Done)),
            Answer::Absent => Some(Ok(ExitStatus::Failed)),
            _ => None,
        })
    }

    fn compare_and_set(&mut self, key: &OsStr, expected: &OsStr, value: &OsStr) -> Outcome {
        let operation = Operation::CompareAndSet {
            key: key.as_bytes(),
            expected: Some(expected.as_bytes()),
            new: Some(value.as_bytes()),
        };
        self.ask(&operation, |answer| match answer {
            Answer::Done => Some(Ok(ExitStatus::Done)),
            Answer::Mismatch { current } => {
                let current = match current {
                    Some(current) => format!("is {:?}", String::from_utf8_lossy(current)),
                    None => "is absent".to_owned(),
                };
                Some(Err(Failure::new(
                    ErrorCode::Refused,
                    format!("key {key:?} {current}, not {expected:?}: nothing was changed"),
                    "read it again and decide",
                )))
            }
            _ => None,
        })
    }

    /// Prints page after page: keys that are set meanwhile may be missed, those that stay are all there.
    fn scan(&mut self, prefix: &[u8]) -> Outcome {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let scan = Operation::Scan(Scan {
                prefix,
                after: after.as_deref(),
                pattern: None,
                visits: SCAN_VISITS_MAX,
                with_values: true,
            });
            let page = self.ask(&scan, |answer| match answer {
                Answer::Page { entries, next } => {
                    Some(print_page(entries).map(|()| next.as_deref().map(<[u8]>::to_vec)))
                }
                _ => None,
            })?;
            after = page;
            if after.is_none() {
                return Ok(ExitStatus::Done);
            }
        }
    }

    /// Has one operation executed and its answer read; `read` says `None` to an answer of the wrong kind.
    fn ask<T>(
        &mut self,
        operation: &Operation<'_>,
        read: impl FnOnce(&Answer<'_>) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let result = self.session.invoke(RequestWriter::single(operation), retry(operation))?;
        let answer = match Reply::decode(&result) {
            Ok(Reply::Pipeline(answers)) => answers.into_iter().next(),
            Ok(Reply::Refused(refusal)) => return Err(refused(&refusal.to_string())),
            Ok(Reply::Committed(_) | Reply::Conflict) | Err(_) => None,
        };
        match &answer {
            Some(Answer::Refused(refusal)) => Err(refused(&refusal.to_string())),
            Some(answer) => read(answer).unwrap_or_else(|| Err(strange())),
            None => Err(strange()),
        }
    }
}

/// What a second execution does. Only what adds, or compares, is not the same the second time.
fn retry(operation: &Operation<'_>) -> Retry {
    match operation {
        Operation::Increment { .. } | Operation::CompareAndSet { .. } | Operation::Append { .. } => {
            Retry::Unsafe
        }
        _ => Retry::Safe,
    }
}

fn printed(text: &str) -> Outcome {
    output::line(text)?;
    Ok(ExitStatus::Done)
}

fn print_page(entries: &[regency_services::kv::PageEntry<'_>]) -> Result<(), Failure> {
    for entry in entries {
        let value = entry.value.as_deref().unwrap_or_default();
        output::bytes(&[&entry.key, b"\t", value, b"\n"])?;
    }
    Ok(())
}

fn refused(why: &str) -> Failure {
    Failure::new(ErrorCode::Refused, format!("the store refused: {why}"), "nothing was changed")
}

fn strange() -> Failure {
    Failure::new(
        ErrorCode::WrongService,
        "the answer is not of the key-value service",
        "check that client and replicas are of the same version",
    )
}
