//! Builds the fuzz targets with coverage instrumentation, on the stable toolchain, and runs them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repository::Repository;

/// What libFuzzer needs to see which branches and comparisons an input reaches.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// No input may make a target use more.
const RESIDENT_MEGABYTES_MAX: &str = "-rss_limit_mb=1024";
/// Longer than most messages, short enough to mutate quickly.
const INPUT_BYTES_MAX: &str = "-max_len=4096";

/// Runs `target`, or `all`, for `seconds` each. A crash leaves its input in `fuzz/artifacts`.
pub(crate) fn run(repository: &Repository, target: &str, seconds: &str) -> Result<()> {
    seconds.parse::<u32>().with_context(|| format!("{seconds} is no number of seconds"))?;
    let known = targets(repository)?;
    let chosen: Vec<&String> = known.iter().filter(|known| target == "all" || *known == target).collect();
    ensure!(!chosen.is_empty(), "no fuzz target {target}: there are {}", known.join(", "));
    let host = host()?;
    let folder = repository.root().join("fuzz");
    let status = Command::new(env!("CARGO"))
        .current_dir(&folder)
        // Naming the target keeps build scripts and macros free of instrumentation.
        .args(["build", "--quiet", "--release", "--locked", "--bins", "--target", &host])
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .status()
        .context("cannot run cargo")?;
    let advice = "if a crate got a new dependency: cargo update --workspace --manifest-path fuzz/Cargo.toml";
    ensure!(status.success(), "the fuzz targets do not build ({advice})");
    for name in chosen {
        let corpus = folder.join("corpus").join(name);
        let artifacts = folder.join("artifacts").join(name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let binary = folder.join("target").join(&host).join("release").join(name);
        let log = folder.join("artifacts").join(format!("{name}.log"));
        let status = Command::new(&binary)
            .arg(&corpus)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([RESIDENT_MEGABYTES_MAX, INPUT_BYTES_MAX])
            .stderr(fs::File::create(&log)?)
            .status()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let printed = fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            status.success(),
            "{name} found something, see {}:\n{}",
            log.display(),
            last_lines(&printed, 25)
        );
        println!("fuzz {name}: {}", printed.lines().last().unwrap_or("nothing printed"));
    }
    Ok(())
}

/// The names of all targets, sorted.
fn targets(repository: &Repository) -> Result<Vec<String>> {
    let sources = repository.sources("fuzz/fuzz_targets", "rs")?;
    let stem = |path: &str| path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned();
    Ok(sources.iter().map(|source| stem(&source.path)).collect())
}

/// The machine's own target triple.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let printed = String::from_utf8(output.stdout)?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
