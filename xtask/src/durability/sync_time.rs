//! T3: the time until the third of four processes that sync 4 KiB at the same moment is done. That is the least that a
//! quorum of replicas on one disk waits for.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::{SYNCER_FLAG, median};
use crate::process::Process;

/// Processes that sync, and which of them is waited for.
const SYNCERS: usize = 4;
const THIRD: usize = 2;
/// What each of them writes at once.
const WRITE_BYTES: usize = 4096;
/// Writes into a file until it begins anew; the file is filled before, so that a sync has no lengths to write.
const WRITES: u64 = 2048;
/// Measurements of one round.
const SAMPLES: usize = 300;
/// By then all children know when to begin.
const NOTICE: Duration = Duration::from_millis(3);

/// Four children of this program.
pub(super) struct Syncers {
    children: Vec<(Process, BufReader<std::process::ChildStdout>)>,
}

impl Syncers {
    /// Starts them, with their files below `scratch`.
    pub(super) fn start(scratch: &Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let start = |syncer: usize| {
            let mut command = Command::new(&program);
            command.args(["durability", SYNCER_FLAG]).arg(scratch.join(format!("synced-{syncer}")));
            let mut process = Process::start("syncer", command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
            let stdout = process.child().stdout.take().context("stdout is not piped")?;
            Ok((process, BufReader::new(stdout)))
        };
        Ok(Self { children: (0..SYNCERS).map(start).collect::<Result<_>>()? })
    }

    /// The median over many syncs, in microseconds.
    pub(super) fn third_us(&mut self) -> Result<f64> {
        let thirds = (0..SAMPLES).map(|_| self.once()).collect::<Result<Vec<_>>>()?;
        Ok(median(&thirds))
    }

    fn once(&mut self) -> Result<f64> {
        let at = now_ns() + NOTICE.as_nanos();
        for (process, _) in &mut self.children {
            let stdin = process.child().stdin.as_mut().context("stdin is not piped")?;
            writeln!(stdin, "{at}").context("a syncer is gone")?;
        }
        let mut begins = Vec::new();
        let mut ends = Vec::new();
        for (_, answers) in &mut self.children {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            let Some((begin, end)) = line.trim().split_once(' ') else { bail!("a syncer says {line:?}") };
            begins.push(begin.parse::<u128>()?);
            ends.push(end.parse::<u128>()?);
        }
        ends.sort_unstable();
        let begin = begins.into_iter().min().context("no syncer")?;
        let third = ends.get(THIRD).context("too few syncers")?.saturating_sub(begin);
        Ok(third as f64 / 1000.0)
    }
}

/// What a child does: it syncs whenever it is told a time, and tells when it began and ended.
pub(super) fn serve(path: &Path) -> Result<()> {
    let file = filled(path)?;
    let block = [7; WRITE_BYTES];
    let mut offsets = (0..WRITES).map(|write| write * WRITE_BYTES as u64).cycle();
    for line in std::io::stdin().lock().lines() {
        let at: u128 = line?.parse()?;
        let wait = at.saturating_sub(now_ns());
        thread::sleep(Duration::from_nanos(u64::try_from(wait)?));
        let begin = now_ns();
        file.write_all_at(&block, offsets.next().unwrap_or(0))?;
        file.sync_data()?;
        println!("{begin} {}", now_ns());
    }
    Ok(())
}

/// A file that has all its blocks.
fn filled(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    for write in 0..WRITES {
        file.write_all_at(&[0; WRITE_BYTES], write * WRITE_BYTES as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// The clock that all processes share.
fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
