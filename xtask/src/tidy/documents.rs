//! Links between documents resolve: the file exists, and so does the heading. No merge is left half done.

use anyhow::Result;

use super::Finding;
use crate::repository::{Repository, Source};

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for source in repository.sources(".", "md")? {
        for (line, target) in links(&source.text) {
            if let Some(what) = broken(repository, &source, target) {
                findings.push(Finding::new(&source.path, line, what));
            }
        }
        if let Some(line) = conflict(&source.text) {
            findings.push(Finding::new(&source.path, line, "a conflict of a merge stands here: resolve it"));
        }
    }
    Ok(findings)
}

/// The line of the first mark that a merge has left.
fn conflict(text: &str) -> Option<usize> {
    let is_mark = |line: &str| ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
    text.lines().position(is_mark).map(|index| index + 1)
}

/// Every link's line and target, those in fenced blocks left out.
pub(super) fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| (index + 1, target)));
        }
    }
    found
}

/// What is wrong with a link's target; `None` if nothing is.
fn broken(repository: &Repository, source: &Source, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let file = if path.is_empty() { source.path.clone() } else { format!("{folder}/{path}") };
    let file = file.trim_start_matches('/');
    if !repository.has(file) {
        return Some(format!("link to {target}: no such file"));
    }
    if heading.is_empty() {
        return None;
    }
    let text = repository.read(file).ok()?;
    let known = text.lines().filter(|line| line.starts_with('#')).map(anchor).any(|known| known == heading);
    (!known).then(|| format!("link to {target}: no such heading"))
}

/// The anchor of a heading, as forges make it: lower case, spaces to hyphens, punctuation dropped.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_fences() {
        let text = "see [a](a.md) and [b](b.md#x)\n```\n[c](c.md)\n```\n[d](d.md)\n";
        assert_eq!(links(text), [(1, "a.md"), (1, "b.md#x"), (5, "d.md")]);
    }

    #[test]
    fn a_half_done_merge_is_found() {
        assert_eq!(conflict("# A\n\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> d\n"), Some(3));
        assert_eq!(conflict("> a\n\nb << c\n=======\n"), None);
    }

    #[test]
    fn anchors_drop_punctuation() {
        assert_eq!(anchor("## 3. Requests and sessions"), "3-requests-and-sessions");
    }
}
