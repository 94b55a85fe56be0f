//! What durability costs: `sync` against `none`, against an etcd cluster with as many operations in flight, and against
//! what the disk itself takes, all in one run and in turn. Wants a quiet machine.

mod etcd;
mod grpc;
mod sync_time;

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use self::etcd::Etcd;
use self::sync_time::Syncers;
use crate::binary::Binary;
use crate::cluster::{Cluster, Plan};
use crate::measure::{DURATION, WARMUP, bench, median, p50_us, rate, ratios, settle, spread};
use crate::process::Scratch;
use crate::repository::Repository;

/// How often everything is measured.
const ROUNDS: usize = 5;
/// Operations that are in flight, in Regency as in etcd.
const CLIENTS: usize = 100;
const IN_FLIGHT: usize = 16;
/// What is to be reached.
const SYNC_TO_NONE_MIN: f64 = 0.5;
const SYNC_TO_ETCD_MIN: f64 = 4.0;
const LATENCY_TO_T3_MAX: f64 = 2.5;
/// By this flag a child of ours learns that it is one that syncs.
const SYNCER_FLAG: &str = "--syncer";

/// Measures, or is a child that syncs.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    match arguments {
        [] => measure(repository, ROUNDS),
        ["--rounds", rounds] => measure(repository, rounds.parse().context("--rounds wants a number")?),
        [SYNCER_FLAG, file] => sync_time::serve(Path::new(file)),
        _ => bail!("durability takes --rounds N"),
    }
}

fn measure(repository: &Repository, rounds: usize) -> Result<()> {
    ensure!(rounds > 0, "--rounds wants at least one");
    etcd::check_means()?;
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("durability")?;
    let start = |durability: &'static str| -> Result<Cluster> {
        let folder = scratch.path().join(durability);
        std::fs::create_dir(&folder)?;
        let plan = Plan { service: "null", request_auth: "channel", durability, redis: false };
        Cluster::start(&binary, &folder, plan)
    };
    let (sync, none) = (start("sync")?, start("none")?);
    let etcd = Etcd::start(scratch.path())?;
    let mut syncers = Syncers::start(scratch.path())?;
    let shape = etcd.best_shape(CLIENTS * IN_FLIGHT, WARMUP, DURATION / 2)?;
    let mut figures = Figures::default();
    for round in 1..=rounds {
        // What is compared stands side by side: then what disturbs one disturbs the other as well.
        figures.empty.none.push(throughput(&binary, &none, "0")?);
        figures.empty.sync.push(throughput(&binary, &sync, "0")?);
        settle()?;
        figures.etcd.push(etcd.throughput(shape, WARMUP, DURATION)?);
        figures.kilobyte.sync.push(throughput(&binary, &sync, "1024")?);
        figures.kilobyte.none.push(throughput(&binary, &none, "1024")?);
        figures.single.none.push(latency_us(&binary, &none)?);
        figures.single.sync.push(latency_us(&binary, &sync)?);
        settle()?;
        figures.t3.push(syncers.third_us()?);
        eprintln!("durability: after round {round} of {rounds}");
        figures.print(&shape.to_string(), &mut io::stderr())?;
    }
    figures.print(&shape.to_string(), &mut io::stdout())?;
    sync.stop()?;
    none.stop()?;
    drop((etcd, syncers));
    scratch.discard();
    Ok(())
}

/// Operations a second with all clients.
fn throughput(binary: &Binary, cluster: &Cluster, bytes: &str) -> Result<f64> {
    let (clients, in_flight) = (CLIENTS.to_string(), IN_FLIGHT.to_string());
    let load = ["--clients", &clients, "--in-flight", &in_flight, "--connections", "shared"];
    let sizes = ["--request-bytes", bytes, "--reply-bytes", bytes];
    rate(&bench(binary, cluster, &[&load[..], &sizes[..]].concat())?)
}

/// The median latency of one client.
fn latency_us(binary: &Binary, cluster: &Cluster) -> Result<f64> {
    p50_us(&bench(binary, cluster, &["--clients", "1", "--connections", "per-client"])?)
}

/// One thing with both durabilities.
#[derive(Debug, Default)]
struct Pair {
    sync: Vec<f64>,
    none: Vec<f64>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
struct Figures {
    /// Operations a second at 0/0 and at 1024/1024 bytes.
    empty: Pair,
    kilobyte: Pair,
    etcd: Vec<f64>,
    /// Microseconds of one client.
    single: Pair,
    t3: Vec<f64>,
}

impl Figures {
    fn print(&self, etcd_shape: &str, to: &mut impl Write) -> Result<()> {
        writeln!(to, "| what | measured | against | ratio | to reach |\n|---|---|---|---|---|")?;
        for (name, pair) in [("0/0", &self.empty), ("1024/1024", &self.kilobyte)] {
            let ratios = ratios(&pair.sync, &pair.none);
            writeln!(
                to,
                "| `sync`, {name} bytes, 100 x 16, a second | {} | `none`: {} | {} | at least {SYNC_TO_NONE_MIN}: {} |",
                spread(&pair.sync, 0),
                spread(&pair.none, 0),
                spread(&ratios, 2),
                verdict(median(&ratios) >= SYNC_TO_NONE_MIN)
            )?;
        }
        let to_etcd = ratios(&self.empty.sync, &self.etcd);
        writeln!(
            to,
            "| `sync`, 0/0 bytes, 100 x 16, a second | {} | etcd, {etcd_shape}: {} | {} | at least \
             {SYNC_TO_ETCD_MIN}: {} |",
            spread(&self.empty.sync, 0),
            spread(&self.etcd, 0),
            spread(&to_etcd, 2),
            verdict(median(&to_etcd) >= SYNC_TO_ETCD_MIN)
        )?;
        let Pair { sync, none } = &self.single;
        let added: Vec<f64> = sync.iter().zip(none).map(|(sync, none)| sync - none).collect();
        let to_t3 = ratios(&added, &self.t3);
        writeln!(
            to,
            "| one client, median of `sync` less that of `none`, µs | {}: {} less {} | T3: {} | {} | at most \
             {LATENCY_TO_T3_MAX}: {} |",
            spread(&added, 0),
            spread(sync, 0),
            spread(none, 0),
            spread(&self.t3, 0),
            spread(&to_t3, 2),
            verdict(median(&to_t3) <= LATENCY_TO_T3_MAX)
        )?;
        Ok(())
    }
}

fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "missed" }
}
