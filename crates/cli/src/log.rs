//! `regency log`: reads the log of a replica that does not run, and changes nothing in it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use regency::config::ReplicaConfig;
use regency_storage::directory::{DirectoryLock, Life, Marks};
use regency_storage::log::{Ending, Entry, FrameKind, LogReader};
use regency_storage::{Identity, RealDisk, StorageError};
use serde::Serialize;

use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;

/// Read a stopped replica's log
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  regency log verify demo/replica-0\n  regency log dump demo/replica-0 | tail"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check every record and say how the log ends; exit 1 and name the first bad byte if it is damaged
    #[command(after_help = "Example:\n  regency log verify demo/replica-0 --json")]
    Verify(Log),
    /// Print one line per record: number, segment, offset, length, kind, chain hash
    #[command(after_help = "Example:\n  regency log dump demo/replica-0 | tail")]
    Dump(Log),
}

#[derive(Debug, Args)]
struct Log {
    /// The directory of the replica
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// One record, as `dump` prints it.
#[derive(Serialize)]
struct Line {
    position: u64,
    segment: u64,
    offset: u64,
    length: usize,
    /// The first byte of a record, or `seal`.
    kind: String,
    chain: String,
}

/// The whole log, as `verify` prints it.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    first: u64,
    last: u64,
    records: u64,
    bytes: u64,
    ending: &'static str,
    /// Where it is torn or damaged.
    file: Option<String>,
    offset: Option<u64>,
    cause: Option<String>,
    /// What the marks beside it tell of the replica's life.
    marks: &'static str,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (log, is_dump) = match &arguments.action {
        Action::Verify(log) => (log, false),
        Action::Dump(log) => (log, true),
    };
    let config = ReplicaConfig::load(&log.directory)?;
    let data = config.data.as_path();
    let refused = |error: StorageError| refused(data, &error);
    // A log that grows while it is read would look torn.
    let _lock = DirectoryLock::hold(data).map_err(refused)?;
    let identity = Identity { cluster: config.cluster.id(), replica: config.id };
    let mut reader = LogReader::open(Box::new(RealDisk::new(data)), identity).map_err(refused)?;
    let mut verdict = Verdict::default();
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        verdict.count(&entry);
        if is_dump {
            print(&Line::of(&entry), log.json)?;
        }
    }
    verdict.end(reader.ending());
    let life = Marks::look(&RealDisk::new(data), &identity).map_err(refused)?;
    verdict.marks = match life {
        Life::First => "never voted",
        Life::CleanStop { .. } => "stopped in order",
        Life::Interrupted { .. } => "running",
        Life::VotesLost => "votes lost",
        Life::Unknown => "none that is whole",
    };
    if !is_dump {
        if log.json {
            output::json(&verdict)?;
        } else {
            output::line(&verdict.text())?;
        }
    }
    if let Some(Ending::Damaged(damage)) = reader.ending() {
        return Err(refused(StorageError::Damaged(damage.clone())));
    }
    match life {
        Life::CleanStop { log } if log.0 > verdict.last => Err(Failure::new(
            ErrorCode::LogDamaged,
            format!("the log ends with record {}, and it had {log} when the replica stopped", verdict.last),
            "an older copy, or files were removed: the replica counts as one that lost its votes",
        )),
        Life::First | Life::CleanStop { .. } | Life::Interrupted { .. } | Life::VotesLost | Life::Unknown => {
            Ok(ExitStatus::Done)
        }
    }
}

impl Verdict {
    fn count(&mut self, entry: &Entry<'_>) {
        if entry.kind == FrameKind::Record {
            if self.records == 0 {
                self.first = entry.position.0;
            }
            self.last = entry.position.0;
            self.records += 1;
            self.bytes += entry.payload.len() as u64;
        }
    }

    fn end(&mut self, ending: Option<&Ending>) {
        match ending {
            None | Some(Ending::Absent) => self.ending = "absent",
            Some(Ending::Sealed) => self.ending = "sealed",
            Some(Ending::Open) => self.ending = "open",
            Some(Ending::Torn { file, offset, bytes }) => {
                self.ending = "torn";
                self.file = Some(file.clone());
                self.offset = Some(*offset);
                self.cause = Some(format!("{bytes} bytes of a commit that never was durable"));
            }
            Some(Ending::Damaged(damage)) => {
                self.ending = "damaged";
                self.file = Some(damage.file.clone());
                self.offset = Some(damage.offset);
                self.cause = Some(damage.cause.to_string());
            }
        }
    }

    fn text(&self) -> String {
        let Self { records, first, last, bytes, ending, marks, .. } = self;
        let mut text = match records {
            0 => format!("no records, {ending}"),
            _ => format!("{records} records ({first} to {last}), {bytes} bytes, {ending}"),
        };
        if let (Some(file), Some(offset), Some(cause)) = (&self.file, self.offset, &self.cause) {
            text.push_str(&format!(" at {file} offset {offset}: {cause}"));
        }
        text.push_str(&format!("; marks: {marks}"));
        text
    }
}

impl Line {
    fn of(entry: &Entry<'_>) -> Self {
        let kind = match entry.kind {
            FrameKind::Record => entry.payload.first().map_or("-".to_owned(), |kind| format!("{kind:#04x}")),
            FrameKind::Seal => "seal".to_owned(),
        };
        Self {
            position: entry.position.0,
            segment: entry.segment,
            offset: entry.offset,
            length: entry.payload.len(),
            kind,
            chain: entry.chain.to_string(),
        }
    }
}

fn print(line: &Line, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(line);
    }
    let Line { position, segment, offset, length, kind, chain } = line;
    let chain = chain.get(..8).unwrap_or(chain);
    output::line(&format!("{position:>10} {segment:>6} {offset:>10} {length:>9} {kind:<5} {chain}"))
}

/// What storage refused, for the operator.
fn refused(data: &Path, error: &StorageError) -> Failure {
    let (code, next) = match error {
        StorageError::InUse { .. } => (ErrorCode::DirectoryInUse, "stop the replica first"),
        StorageError::WrongCluster { .. } => (ErrorCode::WrongCluster, "wrong directory?"),
        StorageError::WrongReplica { .. } => (ErrorCode::WrongReplica, "wrong directory?"),
        StorageError::Version { .. } => (ErrorCode::NotOffered, "use the version that wrote it"),
        StorageError::Damaged(_) | StorageError::FileDamaged { .. } => (
            ErrorCode::LogDamaged,
            "check the disk; the replica counts as one that lost its votes, and nothing behind this is read",
        ),
        StorageError::Disk { .. }
        | StorageError::Full { .. }
        | StorageError::TooLong { .. }
        | StorageError::Cut { .. }
        | StorageError::Transfer(_)
        | StorageError::Exists { .. } => (ErrorCode::Disk, "check the path, its owner and the disk"),
    };
    Failure::new(code, format!("{}: {error}", data.display()), next)
}
