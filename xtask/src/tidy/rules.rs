//! docs/protocol.md states every rule once, and whatever the tree cites as a rule stands there.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Finding;
use crate::repository::Repository;

/// Where the rules are.
pub(super) const RULES: &str = "docs/protocol.md";

/// How a rule's statement begins in [`RULES`].
const STATEMENT: &str = "- **[";

/// The groups of rules and how many each has: numbers are kept for good, so that citations stay true.
const GROUPS: [(&str, usize); 19] = [
    ("Q", 4),
    ("REQ", 7),
    ("PROPOSE", 5),
    ("WRITE", 2),
    ("ACCEPT", 1),
    ("EXEC", 1),
    ("VOTE", 1),
    ("CHAIN", 1),
    ("LINK", 2),
    ("STOP", 3),
    ("STOPDATA", 1),
    ("SYNC", 5),
    ("CKPT", 2),
    ("LOG", 1),
    ("RECOVER", 2),
    ("ST", 4),
    ("VIEW", 6),
    ("CLI", 2),
    ("READ", 1),
];

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let text = repository.read(RULES)?;
    let mut stated: BTreeMap<String, usize> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let Some(rest) = line.strip_prefix(STATEMENT) else { continue };
        let Some((rule, _)) = rest.split_once(']') else { continue };
        if let Some(first) = stated.insert(rule.to_owned(), index + 1) {
            let what = format!("[{rule}] is stated a second time; the first is in line {first}");
            findings.push(Finding::new(RULES, index + 1, what));
        }
    }
    for (group, count) in GROUPS {
        for number in 1..=count {
            let rule = format!("{group}-{number}");
            if !stated.contains_key(&rule) {
                findings.push(Finding::new(RULES, 0, format!("[{rule}] is missing")));
            }
        }
    }
    let mut sources = Vec::new();
    for (folder, extension) in
        [("crates", "rs"), ("xtask", "rs"), ("docs", "md"), (".", "md"), ("crates", "txt")]
    {
        sources.extend(repository.sources(folder, extension)?);
    }
    for source in &sources {
        for (index, line) in source.text.lines().enumerate() {
            for rule in cited(line) {
                if !stated.contains_key(rule) {
                    let what = format!("cites [{rule}], which {RULES} does not state");
                    findings.push(Finding::new(&source.path, index + 1, what));
                }
            }
        }
    }
    Ok(findings)
}

/// The rules that a line cites: `[WRITE-2]`, `[Q-1, Q-2]`.
fn cited(line: &str) -> Vec<&str> {
    line.split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .flat_map(|(inside, _)| inside.split(", "))
        .filter(|word| is_rule(word))
        .collect()
}

/// Whether a word has the form of a rule of one of the groups.
fn is_rule(word: &str) -> bool {
    let Some((group, number)) = word.rsplit_once('-') else { return false };
    GROUPS.iter().any(|(known, _)| *known == group)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_found_alone_and_in_lists() {
        let line = "// [WRITE-2] a quorum locks [Q-1, Q-2]; not [`Foo`] nor [0-9]";
        assert_eq!(cited(line), ["WRITE-2", "Q-1", "Q-2"]);
    }
}
