//! `regency completions`: a completion script for a shell.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::CommandLine;
use crate::failure::{self, ExitStatus, Outcome};

/// Print a completion script
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency completions bash > /etc/bash_completion.d/regency")]
pub(crate) struct Arguments {
    /// For which shell
    shell: Shell,
}

/// Prints the script on stdout.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "regency", &mut script);
    let written = std::io::stdout().write_all(&script);
    written.map_err(|error| failure::system("writing to stdout", &error))?;
    Ok(ExitStatus::Done)
}
