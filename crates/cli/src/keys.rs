//! `regency keys`: makes key files and shows their public halves.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use regency::keys::Seed;
use serde::Serialize;

use crate::failure::{ExitStatus, Outcome};
use crate::output;

/// Make a key, or show the public half of one
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency keys generate replica-2/key\n  regency keys show replica-2/key")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a new private key (mode 0600) and print its public half
    #[command(after_help = "Example:\n  regency keys generate replica-2/key")]
    Generate(File),
    /// Print the public half of a private key
    #[command(after_help = "Example:\n  regency keys show demo/client/key --json")]
    Show(File),
}

#[derive(Debug, Args)]
struct File {
    /// The key file
    file: PathBuf,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    file: String,
    public_key: String,
    /// What the key is called where it is a client's.
    client: String,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (file, seed) = match &arguments.action {
        Action::Generate(file) => {
            let seed = Seed::generate()?;
            seed.write(&file.file)?;
            (file, seed)
        }
        Action::Show(file) => (file, Seed::read(&file.file)?),
    };
    let shown = Shown {
        file: file.file.display().to_string(),
        public_key: seed.public_key().to_string(),
        client: seed.client_id().to_string(),
    };
    if file.json {
        output::json(&shown)?;
    } else {
        output::line(&shown.public_key)?;
    }
    Ok(ExitStatus::Done)
}
