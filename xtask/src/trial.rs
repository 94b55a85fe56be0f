//! A durable cluster under load that is struck again and again and has to come back by itself: nothing that a client
//! was told may be lost, nothing may run twice, no state may differ. `kills` and `power_cuts` say what a blow is.
//!
//! Checkpoints come often, and each takes equal roots: a replica whose root is not the certified one stops, and the
//! campaign with it.

pub(crate) mod clients;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::clients::Clients;
use crate::failover::history;
use crate::failover::replicas::{Replicas, Setup, let_pass};
use crate::random::Random;

/// Replicas of the cluster.
pub(crate) const REPLICAS: usize = 4;
/// What a trial's cluster is.
pub(crate) const SETUP: Setup<'_> = Setup {
    replicas: 4,
    service: "counter",
    request_auth: "signature",
    durability: "sync",
    // Checkpoints and cuts of the log come often.
    settings: &["checkpoint_interval=500", "retained_bytes=1048576"],
    adversity: None,
};
/// How long one round of load takes.
const ROUND: Duration = Duration::from_secs(12);
/// No blow falls so shortly before a round's end.
const ROUND_REST: Duration = Duration::from_secs(2);
/// The longest pause between a blow and the start after it, or between two blows.
const PAUSE_MS_MAX: u64 = 300;

/// What a blow hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    One,
    All,
}

impl Aim {
    /// So many blows of each sort, in any order.
    pub(crate) fn shuffled(single: usize, whole: usize, random: &mut Random) -> Vec<Self> {
        let mut aims = vec![Self::One; single];
        aims.resize(single + whole, Self::All);
        random.shuffle(&mut aims);
        aims
    }
}

/// Deals blows; afterwards every replica is started again, and nobody has waited for it.
pub(crate) trait Strike {
    /// Deals one.
    fn strike(&mut self, replicas: &mut Replicas, random: &mut Random, aim: Aim) -> Result<()>;
}

/// A cluster on its way through the blows.
pub(crate) struct Trial {
    name: &'static str,
    replicas: Replicas,
    clients: Box<dyn Clients>,
    random: Random,
    operations: usize,
    longest: Duration,
}

impl Trial {
    /// Of a cluster that serves these clients.
    pub(crate) fn new(
        name: &'static str,
        replicas: Replicas,
        clients: Box<dyn Clients>,
        random: Random,
    ) -> Self {
        Self { name, replicas, clients, random, operations: 0, longest: Duration::ZERO }
    }

    /// Deals so many blows to one and to all under load, and one more to all without; then says what came of it.
    pub(crate) fn run(mut self, single: usize, whole: usize, means: &mut impl Strike) -> Result<()> {
        if single + whole == 0 {
            return Ok(());
        }
        let mut aims = Aim::shuffled(single, whole, &mut self.random);
        while !aims.is_empty() {
            self.round(&mut aims, means)?;
        }
        let stable = self.end(means)?;
        println!(
            "{}: {single} single and {whole} whole, {} replies checked: 0 lost, 0 doubled, 0 diverged; stable \
             checkpoint {stable}; a return took at most {:.1} s",
            self.name,
            self.operations,
            self.longest.as_secs_f64()
        );
        Ok(())
    }

    /// One load, the blows that fall into it, and what the clients were told.
    fn round(&mut self, aims: &mut Vec<Aim>, means: &mut impl Strike) -> Result<()> {
        let base = self.value()?;
        self.clients.begin(&self.replicas, ROUND)?;
        let until = Instant::now() + ROUND.saturating_sub(ROUND_REST);
        let mut struck = 0;
        while Instant::now() < until
            && let Some(aim) = aims.pop()
        {
            pause(&mut self.random);
            let begun = Instant::now();
            self.strike(aim, means)?;
            self.longest = self.longest.max(begun.elapsed());
            struck += 1;
        }
        let operations = self.clients.end()?;
        self.replicas.await_agreement(REPLICAS)?;
        let checked = operations.len();
        history::check_since(base, operations, self.value()?)?;
        self.operations += checked;
        println!("{}: {struck} blows, {checked} replies checked, {} blows left", self.name, aims.len());
        Ok(())
    }

    fn value(&self) -> Result<u64> {
        self.clients.value(&self.replicas)
    }

    fn strike(&mut self, aim: Aim, means: &mut impl Strike) -> Result<()> {
        means
            .strike(&mut self.replicas, &mut self.random, aim)
            .and_then(|()| self.replicas.await_service())
            .with_context(|| format!("a blow at {aim:?}"))
    }

    /// All at once once more, without load: the same history and the same counter.
    fn end(&mut self, means: &mut impl Strike) -> Result<u64> {
        let last = self.value()?;
        let stable = self.replicas.stable_checkpoint()?;
        ensure!(stable > 0, "no checkpoint became stable: roots were not compared");
        self.strike(Aim::All, means)?;
        self.replicas.await_agreement(REPLICAS)?;
        let found = self.value()?;
        ensure!(found == last, "the counter was {last} and is {found} after a restart");
        Ok(stable)
    }
}

/// Lets some time pass, as the seed says.
pub(crate) fn pause(random: &mut Random) {
    let_pass(Duration::from_millis(random.below(PAUSE_MS_MAX)));
}
