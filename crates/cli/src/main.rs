//! The one binary, `regency`: a file per command.

mod admin;
mod bars;
mod bench;
mod child;
mod cluster;
mod completions;
mod counter;
mod duration;
mod failure;
mod init;
mod keys;
mod kv;
mod log;
mod output;
mod process;
mod redis;
mod replica;
mod session;
mod sim;
mod status;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use failure::{ExitStatus, Failure, Outcome};

/// Byzantine fault-tolerant state machine replication
#[derive(Debug, Parser)]
#[command(name = "regency", version, propagate_version = true, infer_long_args = false)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 wrong use, 3 no quorum and outcome unknown, 4 degraded, \
    5 not authorised, 6 configuration, 7 stopped for safety.\n\n\
    Example:\n  regency cluster demo --redis 127.0.0.1:6379"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Replica(replica::Arguments),
    Cluster(cluster::Arguments),
    Status(status::Arguments),
    Kv(kv::Arguments),
    Counter(counter::Arguments),
    Redis(redis::Arguments),
    Keys(keys::Arguments),
    Log(log::Arguments),
    Sim(sim::Arguments),
    Bench(bench::Arguments),
    Completions(completions::Arguments),
    #[command(hide = true)]
    FloorReplica(bench::floor::replica::Arguments),
}

fn main() -> ExitCode {
    let outcome = match CommandLine::try_parse() {
        Ok(line) => dispatch(line.command),
        Err(error) => on_parse_error(&error),
    };
    match outcome {
        Ok(status) => ExitCode::from(status as u8),
        Err(failure) => {
            eprintln!("{}", failure::line(&failure));
            ExitCode::from(failure.exit_status() as u8)
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Replica(arguments) => replica::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Kv(arguments) => kv::run(&arguments),
        Command::Counter(arguments) => counter::run(&arguments),
        Command::Redis(arguments) => redis::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::FloorReplica(arguments) => bench::floor::replica::run(&arguments),
    }
}

/// Help and version were asked for and go to stdout; the rest becomes one line with a code.
fn on_parse_error(error: &clap::Error) -> Outcome {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::bytes(&[error.render().to_string().as_bytes()])?;
            Ok(ExitStatus::Done)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(failure::usage("a command is missing", "see regency --help"))
        }
        _ => Err(parse_failure(error)),
    }
}

/// What clap complains of, as one line with a code.
fn parse_failure(error: &clap::Error) -> Failure {
    let (cause, next) = cause_and_advice(&error.render().to_string());
    failure::usage(cause, next)
}

/// What clap complains of, and its advice if it has one; without the usage that follows.
fn cause_and_advice(text: &str) -> (String, String) {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = text.strip_prefix("error: ").unwrap_or(text);
    let mut paragraphs = told.split("\n\n");
    let cause = one_line(paragraphs.next().unwrap_or(told));
    let advice =
        paragraphs.map(one_line).find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    (cause, advice.unwrap_or_else(|| "see regency --help".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_clap_says_becomes_a_cause_and_a_next_step() {
        let error = CommandLine::try_parse_from(["regency", "bench", "--flor"]).unwrap_err();
        let (cause, next) = cause_and_advice(&error.render().to_string());
        assert_eq!(cause, "unexpected argument '--flor' found");
        assert_eq!(next, "a similar argument exists: '--floor'");
    }
}
