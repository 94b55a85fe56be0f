//! The core built for a target that has no clock, no threads and no files: what compiles there uses none.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repository::Repository;

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the core for [`TARGET`] where it is installed; else says that it is not.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let folder = String::from_utf8(output.stdout)?;
    if !std::path::Path::new(folder.trim()).exists() {
        println!(
            "purity: {TARGET} is not installed here; clippy and tidy check the core's purity without it"
        );
        return Ok(());
    }
    let status = Command::new(env!("CARGO"))
        .current_dir(repository.root())
        .args(["build", "--locked", "--package", "regency-protocol", "--target", TARGET])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the core does not build for {TARGET}");
    println!("purity: the core builds for {TARGET}");
    Ok(())
}
