//! Replicas that lost everything, or slept, under a load of less than a third of what the cluster can do: how soon they
//! are back, and what the clients notice. And replicas that are restarted under all the load that there can be.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{CLIENTS, LIMIT, RATE, REPLICAS, Subject, check_flags, mib, number, under_load};
use crate::binary::Binary;
use crate::process::{Scratch, wait_until};
use crate::random::Random;
use crate::repository::Repository;

/// What a join must reach, bytes a second from the start of the process to a replica that takes part.
const JOIN_RATE_MIN: f64 = 100e6;
/// What a donor may do wrong, and how many times as long a join may take with `f` of them.
const LIES: [&str; 2] = ["false-chunks", "withhold-chunks"];
const LIES_COST_MAX: f64 = 1.5;
/// What clients keep of the load.
const KEPT_MIN: f64 = 0.7;
/// Seconds over which it is measured what the cluster can do.
const CAPACITY: u64 = 5;
/// So long no checkpoint has become stable: no snapshot is being written any more.
const REST: Duration = Duration::from_secs(20);
/// MiB of the state beside which a replica sleeps: what it misses counts, not what it has.
const SMALL: u64 = 64;
/// Operations that a sleeping replica misses.
const MISSED: f64 = 200_000.0;
/// By then it has caught up.
const CAUGHT_UP_LIMIT: Duration = Duration::from_secs(5);
/// What that may cost anybody in memory.
const MEMORY_MAX: u64 = 64 << 20;

/// The full load before a restart, and how long it goes on after it.
const BUSY: Duration = Duration::from_secs(60);
const BUSY_AFTER: Duration = Duration::from_secs(30);
/// By then who was restarted takes part.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
/// About what a cycle takes, and how long one load lasts at most that accompanies several.
const CYCLE: Duration = Duration::from_secs(4);
const LOAD_MAX: Duration = Duration::from_secs(400);
/// What is left of it all with `--quick`: a join and so many cycles.
const CYCLES_QUICK: u64 = 3;

/// Measures and checks.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    if arguments == ["--quick"] {
        return run_quick(repository);
    }
    check_flags(arguments, &["--mib", "--cycles", "--cycles-mib", "--seed"])?;
    let size = number(arguments, "--mib", 1024)?;
    let cycles = number(arguments, "--cycles", 50)?;
    let seed = number(arguments, "--seed", u64::from(std::process::id()))?;
    println!("transfers: seed {seed}");
    let binary = Binary::release(repository)?;
    if size > 0 {
        measure(repository, &binary, size)?;
    }
    wiped_in_turn(&binary, &[], number(arguments, "--cycles-mib", 256)?, cycles, seed)
}

/// In a cluster of their own replicas are wiped and join again.
fn wiped_in_turn(binary: &Binary, settings: &[&str], size: u64, cycles: u64, seed: u64) -> Result<()> {
    let scratch = Scratch::new("cycles")?;
    let mut subject = Subject::start(binary, scratch.path(), settings, size)?;
    let rate = subject.load(CLIENTS, CAPACITY)? * RATE;
    wipe_and_join(&mut subject, rate, cycles, &mut Random::new(seed))?;
    drop(subject);
    scratch.discard();
    Ok(())
}

/// What a large state, and a replica that was away, cost.
fn measure(repository: &Repository, binary: &Binary, size: u64) -> Result<()> {
    let scratch = Scratch::new("transfers")?;
    let mut subject = Subject::start(binary, scratch.path(), &[], size.min(SMALL))?;
    let capacity = subject.load(CLIENTS, CAPACITY)?;
    let rate = capacity * RATE;
    println!("transfers: {capacity:.0} operations a second; the load is {rate:.0}");
    sleep(&mut subject, rate)?;
    restart(&mut subject)?;
    subject.fill(size)?;
    await_rest(&subject)?;
    let honest = join(&mut subject, size, rate)?;
    let adverse = Binary::adversity(repository)?;
    for lie in LIES {
        join_among_liars(&mut subject, (&adverse, lie), size, rate, honest)?;
    }
    drop(subject);
    scratch.discard();
    Ok(())
}

/// What a check before a commit has time for.
fn run_quick(repository: &Repository) -> Result<()> {
    let binary = Binary::release(repository)?;
    wiped_in_turn(&binary, &["checkpoint_interval=2000"], SMALL, CYCLES_QUICK, 1)
}

/// Waits until the snapshots are written that the filling has brought about: they take turns, and a replica that joins
/// meanwhile gets the next one, too.
fn await_rest(subject: &Subject) -> Result<()> {
    let (mut seen, mut since) = (0, Instant::now());
    wait_until(LIMIT, || {
        let stable = subject.figure(0, "stable_checkpoint")?;
        if stable != seen {
            (seen, since) = (stable, Instant::now());
        }
        Ok(since.elapsed() >= REST)
    })
}

/// One replica with an empty directory gets everything from the others; returns how long that took.
fn join(subject: &mut Subject, size: u64, rate: f64) -> Result<Duration> {
    let (time, reached) = under_load(subject, load_seconds(size), Some(rate), |subject| wiped(subject, 3))?;
    let kept = reached / rate;
    let speed = (size << 20) as f64 / time.as_secs_f64();
    println!(
        "transfers: {size} MiB joined in {:.1} s, {:.0} MB/s; clients kept {:.0}% of the load",
        time.as_secs_f64(),
        speed / 1e6,
        kept * 100.0
    );
    ensure!(speed >= JOIN_RATE_MIN, "less than {:.0} MB/s", JOIN_RATE_MIN / 1e6);
    ensure!(kept >= KEPT_MIN, "clients kept less than {:.0}%", KEPT_MIN * 100.0);
    Ok(time)
}

/// The same, and one of the donors lies.
fn join_among_liars(
    subject: &mut Subject,
    adversity: (&Binary, &str),
    size: u64,
    rate: f64,
    honest: Duration,
) -> Result<()> {
    subject.replicas.kill(0)?;
    subject.replicas.restart_with(0, Some(adversity))?;
    subject.await_level(0, LIMIT)?;
    let (time, _) = under_load(subject, load_seconds(size), Some(rate), |subject| wiped(subject, 3))?;
    subject.replicas.kill(0)?;
    subject.replicas.restart(0)?;
    subject.await_level(0, LIMIT)?;
    let cost = time.as_secs_f64() / honest.as_secs_f64();
    println!(
        "transfers: with a donor that does {}, joined in {:.1} s: {cost:.2} times as long",
        adversity.1,
        time.as_secs_f64()
    );
    ensure!(cost <= LIES_COST_MAX, "more than {LIES_COST_MAX} times as long");
    Ok(())
}

/// Seconds of load that a join needs, even a slow one.
fn load_seconds(size: u64) -> u64 {
    5 + size / 50
}

/// Takes everything from a replica and waits until it takes part again.
fn wiped(subject: &mut Subject, replica: usize) -> Result<Duration> {
    let begun = subject.wipe(replica)?;
    subject.await_level(replica, LIMIT)?;
    let time = begun.elapsed();
    ensure!(subject.has_taken_over(replica)?, "replica {replica} did not take the state over");
    Ok(time)
}

/// Under full load one replica comes back after a minute, and then another is restarted at once.
fn restart(subject: &mut Subject) -> Result<()> {
    let ((away, busy), reached) = under_load(subject, (BUSY + BUSY_AFTER).as_secs(), None, |subject| {
        subject.replicas.kill(3)?;
        thread::sleep(BUSY);
        let away = restarted(subject, 3)?;
        subject.replicas.kill(2)?;
        Ok((away, restarted(subject, 2)?))
    })?;
    println!(
        "transfers: under {reached:.0} operations a second, back {:.1} s after a minute's absence, {:.1} s after a \
         restart",
        away.as_secs_f64(),
        busy.as_secs_f64()
    );
    ensure!(away.max(busy) <= RESTART_LIMIT, "that took longer than {RESTART_LIMIT:?}");
    Ok(())
}

/// Starts a replica again that was killed, and waits until it takes part.
fn restarted(subject: &mut Subject, replica: usize) -> Result<Duration> {
    let begun = Instant::now();
    subject.replicas.restart(replica)?;
    subject.await_level(replica, LIMIT)?;
    Ok(begun.elapsed())
}

/// One replica is stopped in its tracks for a while.
fn sleep(subject: &mut Subject, rate: f64) -> Result<()> {
    let memory = (0..REPLICAS).map(|replica| subject.memory(replica)).collect::<Result<Vec<_>>>()?;
    let before = memory.iter().map(|memory| memory.resident()).collect::<Result<Vec<_>>>()?;
    memory.iter().try_for_each(|memory| memory.forget_peak())?;
    let seconds = (MISSED / rate).ceil() as u64;
    let (time, _) = under_load(subject, seconds + 12, Some(rate), |subject| {
        subject.replicas.signal(3, "STOP")?;
        thread::sleep(Duration::from_secs(seconds));
        subject.replicas.signal(3, "CONT")?;
        let begun = Instant::now();
        subject.await_level(3, LIMIT)?;
        Ok(begun.elapsed())
    })?;
    let peaks = memory.iter().map(|memory| memory.peak()).collect::<Result<Vec<_>>>()?;
    let growth = peaks.iter().zip(&before).map(|(peak, before)| peak.saturating_sub(*before)).max();
    let growth = growth.context("no replicas")?;
    println!(
        "transfers: asleep during {MISSED:.0} operations, caught up after {:.1} s; memory grew by {:.0} MiB at most",
        time.as_secs_f64(),
        mib(growth)
    );
    ensure!(time <= CAUGHT_UP_LIMIT, "that took longer than {CAUGHT_UP_LIMIT:?}");
    ensure!(growth <= MEMORY_MAX, "more memory than {:.0} MiB", mib(MEMORY_MAX));
    Ok(())
}

/// Replicas are wiped and join again, one after the other; in the end all have the same state.
fn wipe_and_join(subject: &mut Subject, rate: f64, cycles: u64, random: &mut Random) -> Result<()> {
    let mut times = Vec::new();
    while (times.len() as u64) < cycles {
        let left = cycles.saturating_sub(times.len() as u64);
        let load = CYCLE.saturating_mul(u32::try_from(left)?).min(LOAD_MAX);
        let (time, _) = under_load(subject, (load + CYCLE).as_secs(), Some(rate), |subject| {
            let begun = Instant::now();
            let mut longest = Duration::ZERO;
            while begun.elapsed() < load && (times.len() as u64) < cycles {
                let time = wiped(subject, random.place(REPLICAS))?;
                longest = longest.max(time);
                times.push(time);
            }
            Ok(longest)
        })?;
        println!(
            "transfers: {} of {cycles} wiped and back, after {:.1} s at most",
            times.len(),
            time.as_secs_f64()
        );
    }
    subject.replicas.await_agreement(REPLICAS)?;
    let rows = subject.replicas.rows()?;
    let stable: Vec<u64> = rows.iter().filter_map(|row| row["stable_checkpoint"].as_u64()).collect();
    ensure!(
        stable.len() == REPLICAS && stable.iter().all(|stable| *stable > 0),
        "no stable checkpoint: {stable:?}"
    );
    println!("transfers: {cycles} cycles, none stuck; all agree, stable checkpoints {stable:?}");
    Ok(())
}
