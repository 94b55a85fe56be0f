//! Tests that need other programs. They fail where a program is missing, and never skip.
//!
//! Four replica processes and the Redis front are started, and driven by what their users have: `redis-cli`,
//! `redis-benchmark`, the Python client `redis`, and the command line. Replies are compared with a real Redis.

mod command_line;
mod comparison;
mod crash;
mod redis_server;
mod redis_tools;
mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::binary::Binary;
use crate::cluster::{Cluster, Plan};
use crate::process::Scratch;
use crate::repository::Repository;

/// What must be installed, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 4] = [
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("redis-server", "redis-server"),
    ("python3", "python3-venv"),
];

/// What the tests share.
pub(crate) struct Bench<'a> {
    repository: &'a Repository,
    binary: &'a Binary,
    cluster: &'a Cluster,
    scratch: &'a Path,
}

type Test = fn(&Bench<'_>) -> Result<()>;

/// Tests that leave the cluster whole.
const TESTS: [(&str, Test); 6] = [
    ("command line", command_line::run),
    ("redis-cli", redis_tools::cli),
    ("redis-benchmark", redis_tools::benchmark),
    ("comparison with redis-server", comparison::run),
    ("Python client", redis_tools::python),
    ("crash of a backup", crash::backup),
];

/// Runs all of them.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    require_programs()?;
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("external")?;
    let plan = Plan { service: "kv", request_auth: "signature", durability: "sync", redis: true };
    let cluster = Cluster::start(&binary, scratch.path(), plan)?;
    let bench = Bench { repository, binary: &binary, cluster: &cluster, scratch: scratch.path() };
    let mut failed = 0;
    for (name, test) in TESTS {
        failed += report(name, || test(&bench));
    }
    failed += report("stop by SIGTERM", || cluster.stop());
    failed += report("death of the parent", || crash::parent(&binary, scratch.path()));
    if failed > 0 {
        bail!("{failed} of the tests with other programs failed");
    }
    scratch.discard();
    Ok(())
}

/// Runs one test and prints how it went; 1 if it failed.
fn report(name: &str, test: impl FnOnce() -> Result<()>) -> usize {
    let begin = Instant::now();
    match test() {
        Ok(()) => {
            println!("external {name}: ok in {:.1} s", begin.elapsed().as_secs_f64());
            0
        }
        Err(error) => {
            println!("external {name}: FAILED: {error:#}");
            1
        }
    }
}

fn require_programs() -> Result<()> {
    for (program, package) in PROGRAMS {
        let started =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            bail!("{program} is missing: apt-get install {package}");
        }
    }
    Ok(())
}
