//! Real replicas of a durable cluster that are killed without a warning, alone or all at once, under load, and come
//! back by themselves: nothing that a client was told may be lost, nothing may run twice, no state may differ.
//!
//! The clients are those of `regency bench --record`. Checkpoints come often, and each takes equal roots: a replica
//! whose root is not the certified one stops, and the campaign with it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::binary::Binary;
use crate::failover::replicas::{Replicas, Setup, let_pass};
use crate::failover::{begin_load, end_load, history};
use crate::process::Scratch;
use crate::repository::Repository;

const REPLICAS: usize = 4;
/// Clients of the load, each with one operation in flight.
const CLIENTS: u64 = 20;
/// How long one round of load takes.
const ROUND: Duration = Duration::from_secs(12);
/// No blow falls so shortly before a round's end.
const ROUND_REST: Duration = Duration::from_secs(2);
/// The longest pause between a kill and a start, or between two blows.
const PAUSE_MS_MAX: u64 = 300;
/// A kill is repeated on one that is just coming back, once in so many times.
const REPEAT_ONE_IN: u64 = 4;
/// Settings under which checkpoints and cuts of the log come often.
const SETTINGS: &[&str] = &["checkpoint_interval=500", "retained_bytes=16777216"];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    One,
    All,
}

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
    let scratch = Scratch::new("kills")?;
    let setup = Setup {
        replicas: 4,
        request_auth: "signature",
        durability: "sync",
        settings: SETTINGS,
        adversity: None,
    };
    let mut campaign = Campaign {
        replicas: Replicas::start(&binary, scratch.path(), &setup)?,
        binary,
        random: Random(plan.seed),
        operations: 0,
        longest: Duration::ZERO,
    };
    let mut blows = campaign.random.shuffled(plan);
    while !blows.is_empty() {
        campaign.round(scratch.path(), &mut blows)?;
    }
    campaign.end(plan)?;
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

/// A cluster on its way through the blows.
struct Campaign {
    binary: Binary,
    replicas: Replicas,
    random: Random,
    operations: usize,
    longest: Duration,
}

impl Campaign {
    /// One load, the blows that fall into it, and what the clients were told.
    fn round(&mut self, scratch: &Path, blows: &mut Vec<Blow>) -> Result<()> {
        let base = self.replicas.value()?;
        let record = scratch.join("record");
        let mut load = begin_load(&self.binary, &self.replicas, &record, ROUND, CLIENTS)?;
        self.replicas.await_sessions(CLIENTS)?;
        let until = Instant::now() + ROUND.saturating_sub(ROUND_REST);
        let mut struck = 0;
        while Instant::now() < until
            && let Some(blow) = blows.pop()
        {
            self.pause();
            let begun = Instant::now();
            self.strike(blow).with_context(|| format!("after {blow:?}"))?;
            self.longest = self.longest.max(begun.elapsed());
            struck += 1;
        }
        let measured = end_load(&mut load)?;
        let errors = measured["errors"].as_u64().context("errors is no count")?;
        ensure!(errors == 0, "clients were told of {errors} errors");
        self.replicas.await_agreement(REPLICAS)?;
        let mut operations = history::parse(&fs::read_to_string(&record)?).map_err(anyhow::Error::msg)?;
        for operation in &mut operations {
            operation.value = operation
                .value
                .checked_sub(base)
                .context("a value from before the round: something was lost")?;
        }
        history::check(&operations, self.replicas.value()? - base)
            .map_err(|cause| anyhow::anyhow!("no counter answers so: {cause}"))?;
        self.operations += operations.len();
        println!("kills: {struck} blows, {} replies checked, {} blows left", operations.len(), blows.len());
        Ok(())
    }

    fn strike(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::One => {
                let victim = self.random.victim();
                loop {
                    self.replicas.kill(victim)?;
                    self.pause();
                    self.replicas.restart(victim)?;
                    if self.random.below(REPEAT_ONE_IN) > 0 {
                        break;
                    }
                    self.pause();
                }
            }
            Blow::All => {
                (0..REPLICAS).try_for_each(|replica| self.replicas.kill(replica))?;
                for replica in 0..REPLICAS {
                    self.replicas.restart(replica)?;
                }
            }
        }
        self.replicas.await_service()
    }

    /// All at once once more, without load: the same history and the same counter.
    fn end(&mut self, plan: Plan) -> Result<()> {
        let last = self.replicas.value()?;
        self.strike(Blow::All)?;
        self.replicas.await_agreement(REPLICAS)?;
        let found = self.replicas.value()?;
        ensure!(found == last, "the counter was {last} and is {found} after a restart");
        let stable = self.replicas.stable_checkpoint()?;
        ensure!(stable > 0, "no checkpoint became stable: roots were not compared");
        println!(
            "kills: {} single and {} whole, {} replies checked: 0 lost, 0 doubled, 0 diverged; stable checkpoint \
             {stable}; a return took at most {:.1} s",
            plan.single,
            plan.whole,
            self.operations,
            self.longest.as_secs_f64()
        );
        Ok(())
    }

    fn pause(&mut self) {
        let_pass(Duration::from_millis(self.random.below(PAUSE_MS_MAX)));
    }
}

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    /// A number below `bound`, which is not 0 (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn victim(&mut self) -> usize {
        usize::try_from(self.below(REPLICAS as u64)).unwrap_or(0)
    }

    /// The plan's blows in any order.
    fn shuffled(&mut self, plan: Plan) -> Vec<Blow> {
        let mut blows = vec![Blow::One; plan.single];
        blows.resize(plan.single + plan.whole, Blow::All);
        for last in (1..blows.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            blows.swap(last, other);
        }
        blows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_order_of_all_blows() {
        let plan = parse(&["--quick", "--seed", "7"]).unwrap();
        assert_eq!(plan, Plan { single: 20, whole: 5, seed: 7 });
        let blows = Random(plan.seed).shuffled(plan);
        assert_eq!(blows, Random(plan.seed).shuffled(plan));
        assert_eq!(blows.iter().filter(|blow| **blow == Blow::All).count(), 5);
        assert_ne!(blows, Random(8).shuffled(plan));
        assert!(parse(&["--some"]).is_err());
    }
}
