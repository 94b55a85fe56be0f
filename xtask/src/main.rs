//! Checks and campaigns of the repository: `cargo xtask <recipe>`.
//!
//! `just` recipes and `.ci/run` only call these, so that one place says what each check means.

mod repository;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::repository::Repository;

const USAGE: &str = "usage: cargo xtask <recipe>

  tidy                      file sizes, documentation, links, rules, purity of the core
";

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
        _ => bail!("{USAGE}"),
    }
}
