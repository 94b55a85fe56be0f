//! Runs the README's `console` blocks as a newcomer would, in an empty directory.
//!
//! A line `$ command` is run; the lines below it, up to the next one, are what it must print, where `…` stands for
//! anything. Two kinds of command are special: the one that starts a cluster runs on behind the others, and the test
//! suite is left to `.ci/run`, which a tidy check compares with the README.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Process, Scratch, free_base_port, free_port, wait_until};
use crate::repository::Repository;

/// The ports that the README's commands use.
const REDIS_PORT: u16 = 6379;
const BASE_PORT: u16 = 7000;
/// How long the cluster may take to serve, the build included.
const READY_LIMIT: Duration = Duration::from_secs(900);

/// One command of the README with what it must print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    printed: Vec<String>,
}

/// Runs them all, in order, in one directory.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let steps = steps(&repository.read("README.md")?);
    ensure!(!steps.is_empty(), "README.md has no console block");
    let scratch = Scratch::new("readme")?;
    let ports = Ports::choose()?;
    let mut behind: Vec<Process> = Vec::new();
    let mut count = 0;
    for step in &steps {
        if step.command.starts_with("cargo test") || step.command.starts_with("git clone") {
            continue;
        }
        let command = ports.apply(&step.command);
        println!("readme: $ {command}");
        if command.contains(" cluster ") {
            behind.push(start(repository, scratch.path(), &command)?);
            await_cluster(repository, scratch.path(), &ports)?;
        } else {
            perform(repository, scratch.path(), &command, &step.printed)?;
        }
        count += 1;
    }
    for mut process in behind {
        let status = process.stop(Duration::from_secs(20))?;
        ensure!(status.success(), "the cluster of the README ended with {status}");
    }
    scratch.discard();
    println!("readme: {count} commands do what it says");
    Ok(())
}

/// The commands of all `console` blocks.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), printed: Vec::new() });
            } else if let Some(step) = steps.last_mut() {
                step.printed.push(line.to_owned());
            }
        }
    }
    steps
}

/// The README's own ports where they are free, others where they are not.
struct Ports {
    redis: u16,
    base: u16,
}

impl Ports {
    fn choose() -> Result<Self> {
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let all_free =
            is_free(REDIS_PORT) && (0..4).all(|i| is_free(BASE_PORT + i) && is_free(BASE_PORT + 100 + i));
        if all_free {
            return Ok(Self { redis: REDIS_PORT, base: BASE_PORT });
        }
        let (redis, base) = (free_port()?, free_base_port(4)?);
        println!(
            "readme: its ports are in use here; {redis} and {base} stand in for {REDIS_PORT} and {BASE_PORT}"
        );
        Ok(Self { redis, base })
    }

    fn apply(&self, command: &str) -> String {
        if self.redis == REDIS_PORT {
            return command.to_owned();
        }
        let mut command = command.replace(&REDIS_PORT.to_string(), &self.redis.to_string());
        if command.starts_with("redis-cli ") {
            command = command.replacen("redis-cli", &format!("redis-cli -p {}", self.redis), 1);
        }
        if command.contains(" cluster ") {
            command.push_str(&format!(" --base-port {}", self.base));
        }
        command
    }
}

/// The command with the repository's path where a newcomer, who stands in it, needs none.
fn shell(repository: &Repository, folder: &Path, command: &str) -> Command {
    let root = repository.root().display();
    let target = repository.target();
    let command = command
        .replace("cargo run ", &format!("cargo run --quiet --locked --manifest-path {root}/Cargo.toml "))
        .replace("target/release/", &format!("{}/release/", target.display()));
    let mut shell = Command::new("bash");
    // `exec` makes the process that we stop the one that the command starts.
    shell.arg("-c").arg(format!("exec {command}")).current_dir(folder);
    shell.env("NO_COLOR", "1").stdin(Stdio::null());
    shell
}

fn start(repository: &Repository, folder: &Path, command: &str) -> Result<Process> {
    let log = std::fs::File::create(folder.join("cluster.log"))?;
    let mut shell = shell(repository, folder, command);
    Process::start("the cluster of the README", shell.stdout(log.try_clone()?).stderr(log))
}

/// Waits until the cluster's own check finds nothing wrong and the front takes connections.
fn await_cluster(repository: &Repository, folder: &Path, ports: &Ports) -> Result<()> {
    let binary = repository.target().join("release/regency");
    let serves = || {
        let check = Command::new(&binary)
            .args(["status", "demo", "--check"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let whole = check.is_ok_and(|status| status.success());
        Ok(whole && std::net::TcpStream::connect(("127.0.0.1", ports.redis)).is_ok())
    };
    wait_until(READY_LIMIT, serves).with_context(|| {
        let log = std::fs::read_to_string(folder.join("cluster.log")).unwrap_or_default();
        format!("the cluster of the README does not serve: {log}")
    })
}

fn perform(repository: &Repository, folder: &Path, command: &str, printed: &[String]) -> Result<()> {
    let output = shell(repository, folder, command).output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{command}` ended with {}: {stdout}{stderr}", output.status);
    let found: Vec<&str> = stdout.lines().collect();
    if !matches(printed, &found) {
        bail!("`{command}` printed\n{stdout}where the README says\n{}", printed.join("\n"));
    }
    Ok(())
}

/// Whether what was printed is what is shown; a line `…` stands for any lines, `…` in a line for any text.
fn matches(shown: &[String], found: &[&str]) -> bool {
    match shown.split_first() {
        None => found.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=found.len()).any(|skip| matches(rest, &found[skip..]))
        }
        Some((line, rest)) => {
            found.split_first().is_some_and(|(first, others)| is_like(line, first) && matches(rest, others))
        }
    }
}

fn is_like(shown: &str, found: &str) -> bool {
    match shown.split_once('…') {
        None => shown.trim_end() == found.trim_end(),
        Some((before, after)) => found
            .strip_prefix(before)
            .is_some_and(|rest| rest.ends_with(after.rsplit('…').next().unwrap_or(after))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_blocks_become_steps() {
        let readme = "```console\n$ a b\nout\n$ c\n```\n```sh\n$ d\n```\n";
        let expected = [
            Step { command: "a b".to_owned(), printed: vec!["out".to_owned()] },
            Step { command: "c".to_owned(), printed: Vec::new() },
        ];
        assert_eq!(steps(readme), expected);
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert!(matches(&shown(&["a … c", "…"]), &["a b c", "x", "y"]));
        assert!(!matches(&shown(&["a"]), &["a", "b"]));
        assert!(!matches(&shown(&["a … c"]), &["a b d"]));
    }
}
