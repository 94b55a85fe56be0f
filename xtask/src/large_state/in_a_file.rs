//! A state that no memory holds: what it takes to get it from others.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{LIMIT, REPLICAS, Subject, check_flags, mib, number};
use crate::binary::Binary;
use crate::failover::replicas::Replicas;
use crate::process::{Scratch, wait_until};
use crate::repository::Repository;

/// The program that the replicas run.
const EXAMPLE: &str = "state_in_a_file";
/// MiB that one operation appends.
const PIECE: u64 = 1;
/// The replica that gets everything back.
const WIPED: usize = 3;
/// What its process may take: the state is in a file.
const MEMORY_MAX: u64 = 150 << 20;

/// Measures and checks.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    check_flags(arguments, &["--mib"])?;
    let size = number(arguments, "--mib", 4096)?;
    let binary = Binary::release(repository)?;
    let program = Binary::example(repository, EXAMPLE)?;
    let scratch = Scratch::new("in-a-file")?;
    // Two checkpoints on the way: each of them is as large as the state is by then.
    let interval = (size / PIECE / 2).max(1);
    let setting = format!("checkpoint_interval={interval}");
    // Nobody keeps what led to the state: it is little.
    let settings = [setting.as_str(), "retained_instances=192", "retained_bytes=1"];
    let setup = super::setup("null", &settings);
    let replicas = Replicas::start_program(&binary, scratch.path(), &setup, &program)?;
    let mut subject = Subject { binary, replicas };
    let client = format!("{}/client", subject.replicas.directory());
    let begun = Instant::now();
    // Who still writes the first snapshot would not begin the second one.
    for (half, checkpoint) in [(size / 2, interval), (size - size / 2, 2 * interval)] {
        let appended = program.output(&["append", &client, &half.to_string(), &PIECE.to_string()])?;
        ensure!(appended.status.success(), "append failed: {}", String::from_utf8_lossy(&appended.stderr));
        for replica in 0..REPLICAS {
            let is_stable = || Ok(subject.figure(replica, "stable_checkpoint")? >= checkpoint);
            wait_until(LIMIT, is_stable).with_context(|| format!("replica {replica} has no checkpoint"))?;
        }
    }
    println!("in a file: {size} MiB appended and on disk in {:.1} s", begun.elapsed().as_secs_f64());
    let donors = (0..WIPED).map(|donor| subject.memory(donor)).collect::<Result<Vec<_>>>()?;
    let begun = subject.wipe(WIPED)?;
    subject.await_level(WIPED, LIMIT)?;
    let time = begun.elapsed().as_secs_f64();
    let peak = subject.memory(WIPED)?.peak()?;
    let donor = donors.iter().map(|donor| donor.peak()).collect::<Result<Vec<_>>>()?;
    println!(
        "in a file: {size} MiB back in {time:.1} s, {:.0} MB/s; {:.0} MiB of memory at most, a donor {:.0} MiB",
        (size << 20) as f64 / time / 1e6,
        mib(peak),
        mib(donor.into_iter().max().unwrap_or_default())
    );
    ensure!(subject.has_taken_over(WIPED)?, "it did not take the state over");
    subject.replicas.await_agreement(REPLICAS)?;
    ensure!(peak <= MEMORY_MAX, "more than {:.0} MiB", mib(MEMORY_MAX));
    drop(subject);
    scratch.discard();
    Ok(())
}
