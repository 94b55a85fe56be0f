//! Decision records: numbered without gaps, each with its three parts.

use anyhow::Result;

use super::Finding;
use crate::repository::Repository;

const FOLDER: &str = "docs/decisions";

/// What every record says.
const PARTS: [&str; 3] = ["## Context", "## Decision", "## Consequences"];

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut expected = 1;
    for record in repository.sources(FOLDER, "md")? {
        let name = record.path.rsplit('/').next().unwrap_or_default();
        let number = name.split('-').next().and_then(|digits| digits.parse::<usize>().ok());
        if number != Some(expected) {
            let what = format!("expected record {expected:04}: numbers have no gaps and are never reused");
            findings.push(Finding::new(&record.path, 0, what));
        }
        expected = number.unwrap_or(expected) + 1;
        let title = format!("# {:04}: ", expected - 1);
        if !record.text.starts_with(&title) {
            findings.push(Finding::new(&record.path, 1, format!("begin with `{title}`")));
        }
        for part in PARTS {
            if !record.text.lines().any(|line| line == part) {
                findings.push(Finding::new(&record.path, 0, format!("`{part}` is missing")));
            }
        }
    }
    Ok(findings)
}
