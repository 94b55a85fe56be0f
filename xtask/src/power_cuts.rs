//! Replicas of a durable cluster whose file systems are shut down under them, one or all at once, under load. They come
//! back on what a power failure would have left, as [`Trial`] wants it.
//!
//! Each replica's data lie on a file system of their own, so that no replica's sync covers what another one has
//! written. What a cut takes is what the kernel had not yet given to the device; a device that loses what it has
//! acknowledged is the simulator's business.

mod disks;

use anyhow::{Context, Result, bail, ensure};

use self::disks::Disks;
use crate::binary::Binary;
use crate::failover::replicas::Replicas;
use crate::process::Scratch;
use crate::random::Random;
use crate::repository::Repository;
use crate::trial::clients::Bench;
use crate::trial::{self, Aim, REPLICAS, Strike, Trial};

/// One cut in so many is of all disks at once.
const WHOLE_ONE_IN: usize = 4;
/// In one cut of so many the replica lives on for a while on a disk that is gone.
const LINGER_ONE_IN: u64 = 2;
/// What a replica ends with when its disk fails.
const STOPPED_FOR_SAFETY: i32 = 7;
/// What a replica writes when it cuts a torn tail off.
const TORN: &str = "log=Torn";

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    cuts: usize,
    seed: u64,
}

/// Cuts the power as the arguments say.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    let plan = parse(arguments)?;
    disks::check_means()?;
    println!("power cuts: seed {}", plan.seed);
    let binary = Binary::release(repository)?;
    disks::unmount_left(&std::env::temp_dir().join("regency-power-cuts-"))?;
    let scratch = Scratch::new("power-cuts")?;
    // Unmounted after the replicas have ended, and before the scratch folder goes.
    let disks = Disks::new(scratch.path(), REPLICAS)?;
    let mut cuts = Cuts { disks, lingered: 0 };
    let mut replicas = Replicas::init(&binary, scratch.path(), &trial::SETUP)?;
    for replica in 0..REPLICAS {
        cuts.disks.take_in(replica, &replicas.home(replica))?;
    }
    let logs: Vec<_> = (0..REPLICAS).map(|replica| replicas.log(replica)).collect();
    replicas.launch(None)?;
    replicas.await_service()?;
    let whole = plan.cuts / WHOLE_ONE_IN;
    let clients = Box::new(Bench::new(binary, scratch.path().join("record")));
    let trial = Trial::new("power cuts", replicas, clients, Random::new(plan.seed));
    trial.run(plan.cuts - whole, whole, &mut cuts)?;
    let texts = logs.iter().map(std::fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    let torn: usize = texts.iter().map(|text| text.matches(TORN).count()).sum();
    println!("power cuts: {torn} torn tails cut; {} times a replica stopped by itself first", cuts.lingered);
    drop(cuts);
    scratch.discard();
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Plan> {
    let mut plan = Plan { cuts: 40, seed: u64::from(std::process::id()) };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if *flag == "--quick" {
            plan.cuts = 8;
            continue;
        }
        let value = rest.next().with_context(|| format!("{flag} wants a number"))?;
        match *flag {
            "--cuts" => plan.cuts = value.parse()?,
            "--seed" => plan.seed = value.parse()?,
            _ => bail!("no such flag: {flag}"),
        }
    }
    Ok(plan)
}

/// File systems that are shut down under the replicas.
struct Cuts {
    disks: Disks,
    /// Replicas that had stopped by themselves when they were to be killed.
    lingered: usize,
}

impl Strike for Cuts {
    fn strike(&mut self, replicas: &mut Replicas, random: &mut Random, aim: Aim) -> Result<()> {
        let victims = match aim {
            Aim::One => vec![random.place(REPLICAS)],
            Aim::All => (0..REPLICAS).collect(),
        };
        self.disks.shut_down(&victims)?;
        if random.below(LINGER_ONE_IN) == 0 {
            trial::pause(random);
        }
        for victim in &victims {
            if let Some(status) = replicas.ending(*victim)? {
                let is_safe = status.code() == Some(STOPPED_FOR_SAFETY);
                ensure!(is_safe, "replica {victim} ended with {status} when its disk was gone");
                self.lingered += 1;
            }
            replicas.kill(*victim)?;
        }
        trial::pause(random);
        victims.iter().try_for_each(|victim| self.disks.mount_again(*victim))?;
        victims.iter().try_for_each(|victim| replicas.restart(*victim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_how_many_cuts() {
        assert_eq!(parse(&["--cuts", "12", "--seed", "3"]).unwrap(), Plan { cuts: 12, seed: 3 });
        assert!(parse(&["--cuts"]).is_err());
        assert!(parse(&["--some", "1"]).is_err());
    }
}
