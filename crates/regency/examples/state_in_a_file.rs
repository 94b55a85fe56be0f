//! A service whose state is a file: it may be larger than the memory, and is frozen without a copy.
//!
//! ```sh
//! regency init big --service null
//! state_in_a_file replica big/replica-0        # and the other three
//! state_in_a_file append big/client 4096 16    # 4096 MiB, 16 in each operation
//! ```
//!
//! An operation is how many bytes to append, eight of them, little endian; what is appended is as good as random, and
//! the same at every replica. The result is how long the file is.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use regency::client::blocking;
use regency::config::{ClientConfig, ReplicaConfig};
use regency::{Bytes, Context, Replica, RestoreError, Service, Snapshot, logging};

/// Bytes that one operation may append.
const APPENDED_MAX: u64 = 64 << 20;
/// Bytes that are made at once.
const PIECE: usize = 64 << 10;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What was appended, in order.
struct Pile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Pile {
    /// An empty one: what it should hold comes from a snapshot and the log.
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::create(path)?, length: 0 })
    }

    fn append(&mut self, context: &Context, bytes: u64) -> io::Result<()> {
        let mut state = u64::from_le_bytes(context.randomness()[..8].try_into().expect("eight of 32 bytes"));
        let mut piece = vec![0; PIECE];
        let mut left = usize::try_from(bytes).expect("it is below the bound");
        while left > 0 {
            let count = left.min(PIECE);
            for word in piece.chunks_exact_mut(8) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
            }
            self.file.write_all(&piece[..count])?;
            left -= count;
        }
        self.length += bytes;
        Ok(())
    }
}

impl Service for Pile {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        let bytes = operation.try_into().map_or(0, u64::from_le_bytes).min(APPENDED_MAX);
        // A state that cannot be written down is none: better no replica than one that differs.
        self.append(context, bytes).expect("the file takes what is appended");
        Bytes::copy_from_slice(&self.length.to_le_bytes())
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(Frozen { path: self.path.clone(), file: File::open(&self.path), length: self.length })
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        // Beside the old one: snapshots that are being written go on reading that.
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        self.length = io::copy(source, &mut file)?;
        fs::rename(&beside, &self.path)?;
        self.file = file;
        Ok(())
    }
}

/// The file as long as it was: nothing before its end ever changes.
struct Frozen {
    path: PathBuf,
    file: io::Result<File>,
    length: u64,
}

impl Snapshot for Frozen {
    fn write(self: Box<Self>, sink: &mut dyn Write) -> io::Result<()> {
        let file =
            self.file.map_err(|error| io::Error::other(format!("{}: {error}", self.path.display())))?;
        let written = io::copy(&mut file.take(self.length), sink)?;
        if written < self.length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn replica(directory: &Path) -> Outcome<()> {
    let config = ReplicaConfig::load(directory)?;
    logging::start(config.log_format, config.log_level.as_deref())?;
    let handle = Replica::builder(config).service(Pile::new(&directory.join("state"))?).start()?;
    while !handle.has_ended() {
        if handle.wait_ready(Duration::from_millis(200)).ready {
            println!("ready replica={} address={}", handle.id(), handle.address());
            break;
        }
    }
    handle.wait()?;
    Ok(())
}

/// Appends so many MiB, in pieces.
fn append(directory: &Path, mib: u64, piece: u64) -> Outcome<()> {
    let client = blocking::Client::connect(&ClientConfig::load(directory)?.into())?;
    let mut left = mib << 20;
    while left > 0 {
        let bytes = left.min(piece << 20);
        client.invoke(bytes.to_le_bytes().to_vec())?;
        left -= bytes;
    }
    let length = client.invoke(0_u64.to_le_bytes().to_vec())?;
    println!("{} bytes", u64::from_le_bytes(length[..].try_into()?));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["replica", directory] => replica(directory.as_ref()),
        ["append", directory, mib, piece] => match (mib.parse(), piece.parse()) {
            (Ok(mib), Ok(piece)) => append(directory.as_ref(), mib, piece),
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
        },
        _ => Err("state_in_a_file replica DIR/replica-N, or append DIR/client MIB PIECE".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
