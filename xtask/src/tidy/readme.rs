//! What the README tells people to type is what CI runs.

use anyhow::Result;

use super::Finding;
use crate::repository::Repository;

const PATH: &str = "README.md";

/// The main job, as the README's first screen has it; `cargo xtask readme` runs it.
const MAIN_COMMAND: &str = "cargo run --release -- cluster demo --redis 127.0.0.1:6379";
/// The tests, as the README's first screen has them; `.ci/run` runs exactly this.
const TEST_COMMAND: &str = "cargo test --workspace";
/// Both commands stand above this line.
const FIRST_SCREEN_LINES: usize = 45;

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let readme = repository.read(PATH)?;
    for command in [MAIN_COMMAND, TEST_COMMAND] {
        let prompt = format!("$ {command}");
        match readme.lines().position(|line| line == prompt) {
            None => findings.push(Finding::new(PATH, 0, format!("`{prompt}` is missing"))),
            Some(line) if line >= FIRST_SCREEN_LINES => {
                findings.push(Finding::new(PATH, line + 1, "move it to the first screen"));
            }
            Some(_) => {}
        }
    }
    let ci = repository.read(".ci/run")?;
    for command in [TEST_COMMAND, "cargo xtask readme", "cargo xtask tidy", "cargo xtask external"] {
        if !ci.contains(command) {
            findings.push(Finding::new(".ci/run", 0, format!("does not run `{command}`")));
        }
    }
    Ok(findings)
}
