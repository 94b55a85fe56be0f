//! Checks and campaigns of the repository: `cargo xtask <recipe>`.
//!
//! `just` recipes and `.ci/run` only call these, so that one place says what each check means.

mod bench_smoke;
mod binary;
mod campaign;
mod cluster;
mod damage;
mod durability;
mod external;
mod failover;
mod fuzz;
mod kills;
mod large_state;
mod measure;
mod paired;
mod power_cuts;
mod process;
mod purity;
mod random;
mod readme;
mod repository;
mod resp;
mod shape;
mod sim_smoke;
mod tidy;
mod trial;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail, ensure};

use crate::repository::Repository;

const USAGE: &str = "usage: cargo xtask <recipe>

  tidy          file sizes, documentation, links, rules, purity of the core
  purity        the core built for a target without clock, threads and files
  sim-smoke     50,000 fixed seeds, some of them twice, and every mutant
  campaign [--from S] [--short N] [--long N] [--no-mutants]
                1,000,000 short seeds and 10,000 long ones, or as many as told, into docs/campaigns.md;
                then a search for what kills each mutant, from the first seed on
  external      tests that need redis-cli, redis-benchmark, redis-server and Python
  failover [--quick]
                real replicas under load whose leader is killed, paused, slow or lying
  kills [--quick | --single N --whole N] [--seed S]
                replicas killed without a warning under load, one (300) or all at once (60), with all that clients
                were told checked after their return: the clients of bench, then those of the Redis front
  power-cuts [--quick | --cuts N] [--seed S]
                the same with file systems that are shut down under the replicas (40 times), one or all at once;
                needs root, loop mounts and xfs_io
  damage [--quick | --cases N] [--seed S] [--no-heal]
                damage to the files of stopped replicas (200 cases): no wrong answer, and it heals; with --no-heal it
                need not
  durability [--rounds N]
                what durability costs, against none, against etcd (etcd-server, etcd-client) and against the disk;
                wants a quiet machine
  paired COMMIT [--rounds N]
                what the work since a commit costs when nothing fails, both measured in turn; wants a quiet machine
  recovery [--mib N] [--records N]
                a replica that comes back from a large snapshot (1024 MiB) and a long log (100,000 records)
  transfers [--quick | --mib N --cycles N --cycles-mib N] [--seed S]
                replicas that slept, were restarted or lost everything, under load, with a large state (1024 MiB; 0:
                none of that), and donors that lie; then as many (50) that lose everything, one after the other, in a
                cluster of their own (256 MiB)
  in-a-file [--mib N]
                a replica that lost everything, whose service keeps a state (4096 MiB) in a file: what memory it takes
                to get it back
  partitions [--mib N] [--cycles N] [--seed S]
                the same on machines of their own, whose links are cut and mended all the time; needs root, network
                namespaces and nft
  bench-smoke   short benchmark runs; checks the JSON
  readme        the README's commands in an empty directory
  fuzz [TARGET [SECONDS]]
                one fuzz target, or all of them, for so many seconds each (60)
  ci            everything, as .ci/run does it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let repository = Repository::find()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tidy"] => tidy::run(&repository),
        ["purity"] => purity::run(&repository),
        ["sim-smoke"] => sim_smoke::run(&repository),
        ["campaign", arguments @ ..] => campaign::run(&repository, arguments),
        ["external"] => external::run(&repository),
        ["failover"] => failover::run(&repository, false),
        ["failover", "--quick"] => failover::run(&repository, true),
        ["kills", arguments @ ..] => kills::run(&repository, arguments),
        ["power-cuts", arguments @ ..] => power_cuts::run(&repository, arguments),
        ["damage", arguments @ ..] => damage::run(&repository, arguments),
        ["durability", arguments @ ..] => durability::run(&repository, arguments),
        ["paired", arguments @ ..] => paired::run(&repository, arguments),
        ["recovery", arguments @ ..] => large_state::recovery::run(&repository, arguments),
        ["in-a-file", arguments @ ..] => large_state::in_a_file::run(&repository, arguments),
        ["partitions", arguments @ ..] => large_state::partitions::run(&repository, arguments),
        ["transfers", arguments @ ..] => large_state::transfers::run(&repository, arguments),
        ["bench-smoke"] => bench_smoke::run(&repository),
        ["readme"] => readme::run(&repository),
        ["fuzz"] => fuzz::run(&repository, "all", "60"),
        ["fuzz", target] => fuzz::run(&repository, target, "60"),
        ["fuzz", target, seconds] => fuzz::run(&repository, target, seconds),
        ["ci"] => ci(&repository),
        _ => bail!("{USAGE}"),
    }
}

fn ci(repository: &Repository) -> Result<()> {
    let status = Command::new("bash").arg(".ci/run").current_dir(repository.root()).status()?;
    ensure!(status.success(), ".ci/run failed");
    Ok(())
}
