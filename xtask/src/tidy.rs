//! What the compiler and clippy cannot see: sizes, documentation, links, rule numbers, purity of the core.

mod behaviours;
mod decisions;
mod documents;
mod errors;
mod readme;
mod rules;
mod sources;

use std::fmt;

use anyhow::{Result, bail};

use crate::repository::Repository;

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    path: String,
    /// The line, from 1; 0 for the file as a whole.
    line: usize,
    /// What is wrong, and what to do.
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

type Check = fn(&Repository) -> Result<Vec<Finding>>;

/// Every check by name.
const CHECKS: [(&str, Check); 8] = [
    ("sources", sources::check),
    ("purity", sources::check_purity),
    ("rules", rules::check),
    ("links", documents::check),
    ("decisions", decisions::check),
    ("behaviours", behaviours::check),
    ("errors and metrics", errors::check),
    ("readme", readme::check),
];

/// Runs all checks, prints every finding, fails if there is one.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let mut count = 0;
    for (name, check) in CHECKS {
        for finding in check(repository)? {
            println!("{name}: {finding}");
            count += 1;
        }
    }
    if count > 0 {
        bail!("{count} findings");
    }
    println!("tidy: {} checks, nothing found", CHECKS.len());
    Ok(())
}
