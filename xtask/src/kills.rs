//! Real replicas of a durable cluster that are killed without a warning, alone or all at once, under load, and come
//! back by themselves, as [`Trial`] wants it: one half of the kills under the load of `regency bench`, the other under
//! that of clients of the Redis front.

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::failover::replicas::Replicas;
use crate::process::Scratch;
use crate::random::Random;
use crate::repository::Repository;
use crate::trial::clients::{Bench, Redis};
use crate::trial::{self, Aim, REPLICAS, Strike, Trial};

/// A kill is repeated on one that is just coming back, once in so many times.
const REPEAT_ONE_IN: u64 = 4;

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    single: usize,
    whole: usize,
    seed: u64,
}

/// Kills replicas as the arguments say.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    let plan = parse(arguments)?;
    println!("kills: seed {}", plan.seed);
    let binary = Binary::release(repository)?;
    let mut random = Random::new(plan.seed);
    let scratch = Scratch::new("kills")?;
    let replicas = Replicas::start(&binary, scratch.path(), &trial::SETUP)?;
    let clients = Bench::new(binary.clone(), scratch.path().join("record"));
    let (single, whole) = (plan.single.div_ceil(2), plan.whole.div_ceil(2));
    Trial::new("kills", replicas, Box::new(clients), Random::new(random.number()))
        .run(single, whole, &mut Kills)?;
    let replicas = Replicas::start(&binary, scratch.path(), &Redis::SETUP)?;
    let clients = Redis::new(&binary, &replicas)?;
    let (single, whole) = (plan.single - single, plan.whole - whole);
    Trial::new("kills, Redis", replicas, Box::new(clients), random).run(single, whole, &mut Kills)?;
    scratch.discard();
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Plan> {
    let mut plan = Plan { single: 300, whole: 60, seed: u64::from(std::process::id()) };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if *flag == "--quick" {
            plan = Plan { single: 20, whole: 5, ..plan };
            continue;
        }
        let value = rest.next().with_context(|| format!("{flag} wants a number"))?;
        match *flag {
            "--single" => plan.single = value.parse()?,
            "--whole" => plan.whole = value.parse()?,
            "--seed" => plan.seed = value.parse()?,
            _ => bail!("no such flag: {flag}"),
        }
    }
    Ok(plan)
}

/// SIGKILL.
struct Kills;

impl Strike for Kills {
    fn strike(&mut self, replicas: &mut Replicas, random: &mut Random, aim: Aim) -> Result<()> {
        match aim {
            Aim::One => {
                let victim = random.place(REPLICAS);
                loop {
                    replicas.kill(victim)?;
                    trial::pause(random);
                    replicas.restart(victim)?;
                    if random.below(REPEAT_ONE_IN) > 0 {
                        return Ok(());
                    }
                    trial::pause(random);
                }
            }
            Aim::All => {
                (0..REPLICAS).try_for_each(|replica| replicas.kill(replica))?;
                (0..REPLICAS).try_for_each(|replica| replicas.restart(replica))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_how_much_and_by_which_seed() {
        let plan = parse(&["--quick", "--seed", "7"]).unwrap();
        assert_eq!(plan, Plan { single: 20, whole: 5, seed: 7 });
        let aims = Aim::shuffled(plan.single, plan.whole, &mut Random::new(plan.seed));
        assert_eq!(aims, Aim::shuffled(plan.single, plan.whole, &mut Random::new(plan.seed)));
        assert_eq!(aims.iter().filter(|aim| **aim == Aim::All).count(), 5);
        assert!(parse(&["--some"]).is_err());
    }
}
