//! The tools that Redis users have, against the front: `redis-cli`, `redis-benchmark`, the Python client.

use anyhow::{Context, Result, ensure};

use super::Bench;
use crate::process::run;

/// The release of the Python client that its users install today.
const PYTHON_CLIENT: &str = "redis==8.1.0";
/// Operations of each kind that `redis-benchmark` sends.
const BENCHMARK_REQUESTS: &str = "20000";
/// Far below what it reaches: a stall fails, a busy machine does not.
const BENCHMARK_RATE_MIN: f64 = 500.0;

/// Commands with the replies that `redis-cli` prints.
const SCRIPT: [(&[&str], &str); 16] = [
    (&["ping"], "PONG"),
    (&["flushall"], "OK"),
    (&["set", "greeting", "hello"], "OK"),
    (&["get", "greeting"], "\"hello\""),
    (&["get", "absent"], "(nil)"),
    (&["set", "greeting", "other", "nx"], "(nil)"),
    (&["incr", "n"], "(integer) 1"),
    (&["incrby", "n", "41"], "(integer) 42"),
    (&["mset", "a", "1", "b", "2"], "OK"),
    (&["mget", "a", "absent", "b"], "1) \"1\"\n2) (nil)\n3) \"2\""),
    (&["exists", "a", "b", "absent"], "(integer) 2"),
    (&["expire", "a", "100"], "(integer) 1"),
    (&["ttl", "a"], "(integer) 100"),
    (&["incr", "greeting"], "(error) ERR value is not an integer or out of range"),
    (&["del", "a", "b", "absent"], "(integer) 2"),
    (&["dbsize"], "(integer) 2"),
];

pub(super) fn cli(bench: &Bench<'_>) -> Result<()> {
    let port = bench.cluster.redis_port()?.to_string();
    for (words, expected) in SCRIPT {
        for version in ["-2", "-3"] {
            if version == "-3" && !is_repeatable(words) {
                continue;
            }
            let mut arguments = vec!["-p", port.as_str(), version, "--no-raw"];
            arguments.extend(words);
            let output = run("redis-cli", &arguments)?;
            let printed = String::from_utf8_lossy(&output.stdout);
            ensure!(
                printed.trim_end() == expected,
                "redis-cli {words:?} printed {printed:?}, not {expected:?}"
            );
        }
    }
    let unknown = run("redis-cli", &["-p", &port, "--no-raw", "lpush", "list", "1"])?;
    let printed = String::from_utf8_lossy(&unknown.stdout);
    ensure!(printed.starts_with("(error) ERR unknown command 'lpush'"), "an unknown command: {printed}");
    let refused = run("redis-cli", &["-p", &port, "--no-raw", "auth", "secret"])?;
    let printed = String::from_utf8_lossy(&refused.stdout);
    ensure!(printed.starts_with("(error) ERR AUTH"), "AUTH without a password: {printed}");
    Ok(())
}

/// Whether a command says the same when it is given twice.
fn is_repeatable(words: &[&str]) -> bool {
    !matches!(words.first(), Some(&("incr" | "incrby" | "del"))) || words == ["incr", "greeting"]
}

pub(super) fn benchmark(bench: &Bench<'_>) -> Result<()> {
    let port = bench.cluster.redis_port()?.to_string();
    let arguments =
        ["-p", &port, "-t", "set,get,incr", "-n", BENCHMARK_REQUESTS, "-c", "50", "-P", "16", "--csv"];
    let output = run("redis-benchmark", &arguments)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !printed.contains("ERR") && !complaints.contains("rror"),
        "redis-benchmark: {printed}{complaints}"
    );
    for test in ["SET", "GET", "INCR"] {
        let row = printed.lines().find(|line| line.starts_with(&format!("\"{test}\"")));
        let row = row.with_context(|| format!("redis-benchmark has no row for {test}: {printed}"))?;
        let rate = row.split(',').nth(1).and_then(|field| field.trim_matches('"').parse::<f64>().ok());
        let rate = rate.with_context(|| format!("an odd row {row}"))?;
        ensure!(rate >= BENCHMARK_RATE_MIN, "{rate:.0} {test}s a second");
        println!("external: redis-benchmark {test} {rate:.0} a second");
    }
    Ok(())
}

pub(super) fn python(bench: &Bench<'_>) -> Result<()> {
    let folder = bench.repository.target().join("python");
    let interpreter = folder.join("bin/python");
    if !interpreter.exists() {
        run("python3", &[std::ffi::OsStr::new("-m"), "venv".as_ref(), folder.as_os_str()])
            .context("no virtual environment: apt-get install python3-venv")?;
    }
    run(&interpreter, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_CLIENT])?;
    let script = bench.repository.root().join("xtask/python/redis_client.py");
    let port = bench.cluster.redis_port()?.to_string();
    let output = run(&interpreter, &[script.as_os_str(), port.as_ref()])?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
