//! docs/operations.md lists every error code with its exit status, and every metric.

use anyhow::Result;

use super::Finding;
use crate::repository::Repository;

const DOCUMENT: &str = "docs/operations.md";
/// Where the codes are declared, as `Name = 101, Exit;`.
const CODES: &str = "crates/regency/src/failure.rs";
/// Where the metrics are registered.
const METRICS: &str = "crates/regency/src/metrics.rs";

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let document = repository.read(DOCUMENT)?;
    for (code, exit) in codes(&repository.read(CODES)?) {
        let row = format!("| E{code} | {exit} |");
        if !document.contains(&row) {
            findings.push(Finding::new(DOCUMENT, 0, format!("a row that begins with `{row}` is missing")));
        }
    }
    if repository.has(METRICS) {
        for name in metrics(&repository.read(METRICS)?) {
            let name = format!("`regency_{name}");
            if !document.contains(&format!("{name}`")) && !document.contains(&format!("{name}_total`")) {
                findings.push(Finding::new(DOCUMENT, 0, format!("the metric {name}` is missing")));
            }
        }
    }
    Ok(findings)
}

/// Every code with the number of its exit status.
fn codes(source: &str) -> Vec<(u16, u8)> {
    let statements = source.lines().filter_map(|line| line.trim().strip_suffix(';'));
    statements
        .filter_map(|statement| {
            let (_, rest) = statement.split_once(" = ")?;
            let (number, exit) = rest.split_once(", ")?;
            Some((number.parse().ok()?, exit_number(source, exit)?))
        })
        .collect()
}

/// The number that the enum of exit statuses gives to a name.
fn exit_number(source: &str, name: &str) -> Option<u8> {
    let prefix = format!("{name} = ");
    source.lines().find_map(|line| line.trim().strip_prefix(&prefix)?.strip_suffix(',')?.parse().ok())
}

/// The names given to `register`, `counter` and `gauge`.
fn metrics(source: &str) -> Vec<&str> {
    let calls = source.split(['(', '\n']).map(str::trim_start).filter_map(|rest| rest.strip_prefix('"'));
    calls
        .filter_map(|rest| rest.split_once("\", \"").or_else(|| rest.split_once("\",")))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_number_of_their_exit_status() {
        let source = "    Failed = 1,\n    Usage = 2,\n    Disk = 119, Failed;\n    Exists = 122, Usage;\n";
        assert_eq!(codes(source), [(119, 1), (122, 2)]);
    }

    #[test]
    fn metrics_are_found_by_their_registration() {
        let source =
            "registry.register(\n  \"link_faults\",\n  \"Help\", x);\ncounter(\"turns\", \"Turns of it\");\n";
        assert_eq!(metrics(source), ["link_faults", "turns"]);
    }
}
