//! docs/behaviours.md names a test for each behaviour that is built; the test must exist.

use anyhow::Result;

use super::Finding;
use super::documents::links;
use crate::repository::Repository;

const PATH: &str = "docs/behaviours.md";

/// How many behaviours there are.
const COUNT: usize = 20;

/// The behaviours that are built, and so must name a test.
const BUILT: [usize; 4] = [5, 15, 16, 17];

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let text = repository.read(PATH)?;
    let mut expected = 1;
    for (index, line) in text.lines().enumerate() {
        let Some(number) = row_number(line) else { continue };
        let mut report = |what: String| findings.push(Finding::new(PATH, index + 1, what));
        if number != expected {
            report(format!("behaviour {number} where {expected} should stand"));
        }
        expected = number + 1;
        let tests = tests(line);
        if BUILT.contains(&number) && tests.is_empty() {
            report(format!("behaviour {number} is built but names no test"));
        }
        for (name, path) in tests {
            match repository.read(&format!("docs/{path}")) {
                Ok(source) if has_test(&source, name) => {}
                Ok(_) => report(format!("{path} has no test `{name}`")),
                Err(_) => report(format!("{path} does not exist")),
            }
        }
    }
    if expected != COUNT + 1 {
        findings.push(Finding::new(PATH, 0, format!("{} behaviours instead of {COUNT}", expected - 1)));
    }
    Ok(findings)
}

/// The number in the first column of a row.
fn row_number(line: &str) -> Option<usize> {
    line.strip_prefix("| ")?.split(' ').next()?.parse().ok()
}

/// The tests that a row names: links whose text is the test's name in backticks.
fn tests(line: &str) -> Vec<(&str, &str)> {
    let names = line.split("[`").skip(1).filter_map(|rest| rest.split_once("`]("));
    let targets = links(line);
    names
        .filter_map(|(name, rest)| {
            let target = targets.iter().find(|(_, target)| rest.starts_with(target))?;
            Some((name, target.1))
        })
        .collect()
}

/// Whether a source has a function of this name under a test attribute, or a row of a macro that makes tests.
fn has_test(source: &str, name: &str) -> bool {
    let declaration = format!("fn {name}(");
    let row = format!("{name} => ");
    if source.contains("#[test]") && source.lines().any(|line| line.trim().starts_with(&row)) {
        return true;
    }
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") && line.contains("test") {
            is_test = true;
        } else if line.contains(&declaration) {
            return is_test;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_its_tests() {
        let row = "| 5 | one replica, many ids | [`a_b`](../crates/x/src/y.rs), [`c`](../z.rs) |";
        assert_eq!(row_number(row), Some(5));
        assert_eq!(tests(row), [("a_b", "../crates/x/src/y.rs"), ("c", "../z.rs")]);
    }

    #[test]
    fn only_functions_under_a_test_attribute_count() {
        let source = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test]\n// why\nasync fn c() {}\n";
        assert!(has_test(source, "a") && has_test(source, "c"));
        assert!(!has_test(source, "b") && !has_test(source, "d"));
    }
}
