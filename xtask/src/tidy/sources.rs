//! Checks of the Rust sources: size, opening line, words that must not stay, purity of the core.

use anyhow::Result;

use super::Finding;
use crate::repository::{Repository, Source};

/// A file is one noun under this many lines.
const LINES_MAX: usize = 600;

/// What must not stay in the tree, and why.
const LEFTOVERS: [(&str, &str); 7] = [
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("TODO", "do it, or file an issue"),
    ("FIXME", "fix it, or file an issue"),
    ("XXX", "say what is wrong, in an issue"),
    ("#[ignore", "a test runs or does not exist; what needs other programs is `cargo xtask external`"),
    ("dbg!", "remove it"),
];

/// Parts of a type's or module's name that say nothing.
const EMPTY_NAMES: [&str; 4] = ["Manager", "Util", "Helper", "Common"];

/// What the core must not name: each would make it depend on more than its events.
const IMPURE: [&str; 20] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "std::thread::",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::sync::atomic",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io::stdin",
    "tokio",
    "rand::",
    "getrandom",
];

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in ["crates", "xtask", "fuzz"] {
        if repository.has(folder) {
            for source in repository.sources(folder, "rs")? {
                check_source(&source, &mut findings);
            }
        }
    }
    Ok(findings)
}

pub(super) fn check_purity(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for source in repository.sources("crates/protocol/src", "rs")? {
        impurities(&source, &mut findings);
    }
    Ok(findings)
}

fn check_source(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.as_str();
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding::new(path, 0, format!("{lines} lines; split it below {LINES_MAX}")));
    }
    if !source.text.starts_with("//!") {
        findings.push(Finding::new(path, 1, "begin with //!: what the file owns and who calls it"));
    }
    // This file names what it looks for.
    if path == "xtask/src/tidy/sources.rs" {
        return;
    }
    for (index, line) in source.text.lines().enumerate() {
        for (word, advice) in LEFTOVERS {
            if line.contains(word) {
                findings.push(Finding::new(path, index + 1, format!("`{word}`: {advice}")));
            }
        }
        if let Some(name) = declared_name(line)
            && let Some(part) = EMPTY_NAMES.iter().find(|part| name.contains(**part))
        {
            findings.push(Finding::new(path, index + 1, format!("`{name}`: `{part}` says nothing")));
        }
    }
}

/// The name of the type or trait that a line declares.
fn declared_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let keyword = words.find(|word| !word.starts_with("pub"))?;
    if !["struct", "enum", "trait", "type"].contains(&keyword) {
        return None;
    }
    words.next()?.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

fn impurities(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in IMPURE {
            if code.contains(word) {
                let what =
                    format!("`{word}` in the core: time, randomness and effects are arguments and data");
                findings.push(Finding::new(&source.path, index + 1, what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "crates/protocol/src/x.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn impure_words_are_found_in_code_only() {
        let mut findings = Vec::new();
        impurities(&source("//! no HashMap here\nuse std::collections::HashMap;\n"), &mut findings);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
    }

    #[test]
    fn leftovers_and_long_files_are_found() {
        let mut findings = Vec::new();
        check_source(&source("//! x\nfn f() { todo!() }\npub(crate) struct LinkManager;\n"), &mut findings);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
        findings.clear();
        check_source(&source(&format!("//! x\n{}", "\n".repeat(LINES_MAX))), &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
