//! What the work since an earlier commit costs when nothing fails: clusters of both, measured in turn. Wants a quiet
//! machine.

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::cluster::{Cluster, Plan};
use crate::measure::{bench, median, p50_us, rate, ratios, spread};
use crate::process::Scratch;
use crate::repository::Repository;

/// How often everything is measured.
const ROUNDS: usize = 5;
/// What may be lost.
const LOSS_MAX: f64 = 0.03;

/// One load, at the service `null` with durability `none`.
struct Load {
    name: &'static str,
    request_auth: &'static str,
    arguments: &'static [&'static str],
}

const SHARED: &[&str] = &["--in-flight", "16", "--connections", "shared"];
const LOADS: [Load; 6] = [
    Load { name: "channel, shared, 100 x 16, 0/0 bytes", request_auth: "channel", arguments: SHARED },
    Load {
        name: "channel, shared, 100 x 16, 1024/1024 bytes",
        request_auth: "channel",
        arguments: &[
            "--in-flight",
            "16",
            "--connections",
            "shared",
            "--request-bytes",
            "1024",
            "--reply-bytes",
            "1024",
        ],
    },
    Load { name: "channel, per client, 100 x 1", request_auth: "channel", arguments: &[] },
    Load { name: "channel, one client", request_auth: "channel", arguments: &["--clients", "1"] },
    Load { name: "signature, shared, 100 x 16", request_auth: "signature", arguments: SHARED },
    Load { name: "signature, per client, 100 x 1", request_auth: "signature", arguments: &[] },
];

/// Measures this tree against a commit.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    let (commit, rounds) = match arguments {
        [commit] => (*commit, ROUNDS),
        [commit, "--rounds", rounds] => (*commit, rounds.parse().context("--rounds wants a number")?),
        _ => bail!("paired takes a commit, and --rounds N"),
    };
    let (new, old) = (Binary::release(repository)?, Binary::of_commit(repository, commit)?);
    let scratch = Scratch::new("paired")?;
    println!(
        "| what | throughput, part of {commit}'s | median latency, part of {commit}'s | lost |\n|---|---|---|---|"
    );
    for load in &LOADS {
        let mut figures = [Figures::default(), Figures::default()];
        for round in 0..rounds {
            // Who comes first may be better off.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                figures[which].measure([&old, &new][which], &scratch, load)?;
            }
        }
        let [old, new] = figures;
        let (rates, latencies) = (ratios(&new.rates, &old.rates), ratios(&new.latencies, &old.latencies));
        let lost = median(&rates) < 1.0 - LOSS_MAX || median(&latencies) > 1.0 + LOSS_MAX;
        let verdict = if lost { "more than 3%" } else { "no more than 3%" };
        println!("| {} | {} | {} | {verdict} |", load.name, spread(&rates, 2), spread(&latencies, 2));
    }
    scratch.discard();
    Ok(())
}

/// What one of the two reached.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    latencies: Vec<f64>,
}

impl Figures {
    /// A cluster of its own for each measurement: what one has left behind slows no other down.
    fn measure(&mut self, binary: &Binary, scratch: &Scratch, load: &Load) -> Result<()> {
        let folder = scratch.path().join("cluster");
        std::fs::create_dir(&folder)?;
        let plan =
            Plan { service: "null", request_auth: load.request_auth, durability: "none", redis: false };
        let cluster = Cluster::start(binary, &folder, plan)?;
        let measured = bench(binary, &cluster, load.arguments)?;
        self.rates.push(rate(&measured)?);
        self.latencies.push(p50_us(&measured)?);
        cluster.stop()?;
        std::fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
