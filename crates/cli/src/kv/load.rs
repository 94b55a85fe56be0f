//! `regency kv DIR load FILE`: sets the keys of a file, many in one request, with a progress bar.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use regency_services::kv::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use regency_services::kv::{Answer, Operation, Reply, RequestWriter};

use super::{Store, refused, strange};
use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::session::Retry;

/// Bytes of one request: a good part of the largest that a cluster takes by default.
const REQUEST_BYTES_MAX: usize = 250 << 10;
/// Bytes of one line: key, tab, value, line feed.
const LINE_BYTES_MAX: u64 = (KEY_BYTES_MAX + VALUE_BYTES_MAX + 2) as u64;

/// Sets all keys of the file, in its order.
pub(super) fn run(store: &mut Store, file: &Path) -> Outcome {
    let shown = file.display().to_string();
    let failed = |error: std::io::Error| {
        Failure::new(
            ErrorCode::System,
            format!("{shown} cannot be read ({error})"),
            "check the path and its owner",
        )
    };
    let (input, bytes): (Box<dyn Read>, u64) = if file == Path::new("-") {
        (Box::new(std::io::stdin().lock()), 0)
    } else {
        let opened = File::open(file).map_err(failed)?;
        let bytes = opened.metadata().map_err(failed)?.len();
        (Box::new(opened), bytes)
    };
    let progress = progress(bytes);
    let mut input = BufReader::with_capacity(256 << 10, input);
    let mut batch = Batch::default();
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        number += 1;
        let entry = line.strip_suffix(b"\n").unwrap_or(&line);
        let (key, value) = split(entry).map_err(|cause| {
            Failure::new(
                ErrorCode::Refused,
                format!("{shown}, line {number}: {cause} ({} keys are set)", batch.done),
                "correct the line and load again: setting a key twice does no harm",
            )
        })?;
        if !batch.push(key, value) {
            batch.send(store, &progress)?;
            batch.push(key, value);
        }
        batch.bytes += read as u64;
    }
    batch.send(store, &progress)?;
    progress.finish_and_clear();
    eprintln!("{} keys set", batch.done);
    Ok(ExitStatus::Done)
}

/// Lines that go into one request.
#[derive(Default)]
struct Batch {
    writer: RequestWriter,
    /// Bytes of its lines.
    bytes: u64,
    /// Keys set before.
    done: usize,
}

impl Batch {
    fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.writer.push(&Operation::put(key, value), REQUEST_BYTES_MAX)
    }

    fn send(&mut self, store: &mut Store, progress: &ProgressBar) -> Result<(), Failure> {
        let count = self.writer.count();
        if count == 0 {
            return Ok(());
        }
        let result = store.session.invoke(self.writer.finish(), Retry::Safe)?;
        match Reply::decode(&result) {
            Ok(Reply::Pipeline(answers)) => {
                for answer in &answers {
                    match answer {
                        Answer::Done => {}
                        Answer::Refused(refusal) => return Err(refused(&refusal.to_string())),
                        _ => return Err(strange()),
                    }
                }
                if answers.len() != count {
                    return Err(strange());
                }
            }
            Ok(Reply::Refused(refusal)) => return Err(refused(&refusal.to_string())),
            Ok(Reply::Committed(_) | Reply::Conflict) | Err(_) => return Err(strange()),
        }
        self.done += count;
        progress.inc(std::mem::take(&mut self.bytes));
        Ok(())
    }
}

/// Key and value of a line.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), String> {
    if line.len() as u64 > LINE_BYTES_MAX - 1 {
        return Err(format!("longer than {LINE_BYTES_MAX} bytes"));
    }
    let tab = line.iter().position(|byte| *byte == b'\t').ok_or("no tab between key and value")?;
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("the key is longer than {KEY_BYTES_MAX} bytes"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("the value is longer than {VALUE_BYTES_MAX} bytes"));
    }
    Ok((key, value))
}

/// A bar on stderr where that is a terminal.
fn progress(bytes: u64) -> ProgressBar {
    if bytes == 0 {
        return ProgressBar::no_length();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(bytes);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tab_parts_key_and_value() {
        assert_eq!(split(b"k\tv\tw"), Ok((&b"k"[..], &b"v\tw"[..])));
        assert_eq!(split(b"k\t"), Ok((&b"k"[..], &b""[..])));
        assert!(split(b"no tab").is_err());
        assert!(split(&[&[b'k'; KEY_BYTES_MAX + 1][..], b"\tv"].concat()).is_err());
    }
}
