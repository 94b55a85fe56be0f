//! Replicas that lost everything, and whose links are cut and mended again and again while they get it back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::namespaces::{self, Namespaces, Way};
use super::{CLIENTS, RATE, REPLICAS, Subject, check_flags, number, under_load};
use crate::binary::Binary;
use crate::failover::replicas::Replicas;
use crate::process::Scratch;
use crate::random::Random;
use crate::repository::Repository;

/// Cuts while one replica comes back.
const CUTS: usize = 5;
/// So soon after the last of them it takes part.
const BACK_LIMIT: Duration = Duration::from_secs(60);

/// Cuts and mends, as the arguments say.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    check_flags(arguments, &["--mib", "--cycles", "--seed"])?;
    let size = number(arguments, "--mib", 256)?;
    let cycles = number(arguments, "--cycles", 10)?;
    let seed = number(arguments, "--seed", u64::from(std::process::id()))?;
    namespaces::check_means()?;
    println!("partitions: seed {seed}");
    let mut random = Random::new(seed);
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("partitions")?;
    // Removed after the processes in them have ended.
    let machines = Namespaces::new(REPLICAS)?;
    let mut subject = {
        let setup = super::setup("kv", &["checkpoint_interval=2000", super::MANY_SESSIONS]);
        let replicas = Replicas::start_on(&binary, scratch.path(), &setup, &machines)?;
        Subject::filled(binary.inside(&machines.hub()), replicas, size)?
    };
    let rate = subject.load(CLIENTS, 5)? * RATE;
    let mut longest = Duration::ZERO;
    for cycle in 1..=cycles {
        let victim = random.place(REPLICAS);
        let (time, reached) = under_load(&mut subject, 25, Some(rate), |subject| {
            come_back(subject, &machines, victim, &mut random)
        })?;
        longest = longest.max(time);
        println!(
            "partitions: {cycle} of {cycles}: back {:.1} s after the last cut; clients kept {:.0}% of the load",
            time.as_secs_f64(),
            reached / rate * 100.0
        );
    }
    subject.replicas.await_agreement(REPLICAS)?;
    println!(
        "partitions: {cycles} cycles of {CUTS} cuts, none stuck, back within {:.1} s; all agree",
        longest.as_secs_f64()
    );
    drop(subject);
    scratch.discard();
    Ok(())
}

/// Lets some time pass, in milliseconds.
fn pass(random: &mut Random, least: u64, most: u64) {
    thread::sleep(Duration::from_millis(least + random.below(most - least)));
}

/// Wipes a replica, cuts its links while it gets everything back, and waits until it takes part; how long that took
/// after the last cut.
fn come_back(
    subject: &mut Subject,
    machines: &Namespaces,
    victim: usize,
    random: &mut Random,
) -> Result<Duration> {
    subject.wipe(victim)?;
    let others: Vec<usize> = (0..REPLICAS).filter(|other| *other != victim).collect();
    for _ in 0..CUTS {
        pass(random, 50, 600);
        let way = [Way::Out, Way::In, Way::Both][random.place(3)];
        let far = random.place(others.len() + 1);
        match others.get(far) {
            Some(other) => machines.cut(victim, *other, way)?,
            None => others.iter().try_for_each(|other| machines.cut(victim, *other, way))?,
        }
        pass(random, 100, 1500);
        machines.heal(victim)?;
    }
    let begun = Instant::now();
    subject.await_level(victim, BACK_LIMIT).context("it is stuck")?;
    ensure!(subject.has_taken_over(victim)?, "it did not take the state over");
    Ok(begun.elapsed())
}
