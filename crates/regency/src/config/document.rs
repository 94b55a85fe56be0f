//! One TOML file being read: values by key, errors by line, wrong keys with the right one suggested.
//!
//! A [`Section`] knows all its keys when it is opened, so that a misspelt key is reported as such and not as the
//! absence of another.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::failure::{ErrorCode, Failure};

/// Longest configuration file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A key this far from a known one is no misspelling of it.
const SUGGESTION_DISTANCE_MAX: usize = 3;

/// A file's text and name.
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let unreadable = |cause: String| {
            Failure::new(
                ErrorCode::FileUnreadable,
                format!("{shown} cannot be read ({cause})"),
                "check the path, or create it with `regency init`",
            )
        };
        let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("{size} bytes are more than {FILE_BYTES_MAX}")));
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// A text that is not in a file.
    pub(super) fn from_text(name: &str, text: &str) -> Self {
        Self { path: name.into(), text: text.into() }
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file as a section that may have the keys `known`.
    pub(super) fn root(&self, known: &'static [&'static str]) -> Result<Section<'_>, Failure> {
        let table = DeTable::parse(&self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line(span.start));
            Failure::new(
                ErrorCode::FileUnreadable,
                format!("{} line {line} is no TOML ({})", self.path.display(), error.message()),
                "correct the line",
            )
        })?;
        Section::open(self, 1, table.into_inner(), known)
    }

    /// The number of the line, from 1, that holds the byte at `offset`.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn failure(&self, code: ErrorCode, line: usize, cause: &str, next: impl Into<String>) -> Failure {
        Failure::new(code, format!("{cause}, line {line} of {}", self.path.display()), next)
    }
}

/// A table of a file.
pub(super) struct Section<'d> {
    document: &'d Document,
    line: usize,
    table: DeTable<'d>,
}

impl<'d> Section<'d> {
    fn open(
        document: &'d Document,
        line: usize,
        table: DeTable<'d>,
        known: &'static [&'static str],
    ) -> Result<Self, Failure> {
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        if let Some(first) = unknown.min_by_key(|key| key.span().start) {
            let key = first.get_ref();
            let next = match nearest(key, known) {
                Some(right) => format!("did you mean \"{right}\"?"),
                None => format!("remove it, or use one of: {}", known.join(", ")),
            };
            let cause = format!("unknown key \"{key}\"");
            return Err(document.failure(
                ErrorCode::UnknownKey,
                document.line(first.span().start),
                &cause,
                next,
            ));
        }
        Ok(Self { document, line, table })
    }

    /// An error about the section as a whole.
    pub(super) fn failure(&self, code: ErrorCode, cause: &str, next: impl Into<String>) -> Failure {
        self.document.failure(code, self.line, cause, next)
    }

    /// The error that says that `key` has a value that it cannot have.
    pub(super) fn bad(&self, key: &str, wanted: &str) -> Failure {
        let line = self.table.get(key).map_or(self.line, |value| self.document.line(value.span().start));
        let shown = self.table.get(key).map_or_else(String::new, |value| shown(value.get_ref()));
        let cause = format!("{key} = {shown} is not possible");
        self.document.failure(ErrorCode::BadValue, line, &cause, format!("write {wanted}"))
    }

    /// The error that says that `key` is absent.
    pub(super) fn missing(&self, key: &str, wanted: &str) -> Failure {
        let cause = format!("{key} is missing");
        self.document.failure(ErrorCode::MissingKey, self.line, &cause, format!("add {key} = {wanted}"))
    }

    /// The text under `key`.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        value.get_ref().as_str().map(Some).ok_or_else(|| self.bad(key, "text in quotes"))
    }

    /// The text under `key`, which must be there.
    pub(super) fn required_text(&self, key: &str, wanted: &str) -> Result<&str, Failure> {
        self.text(key)?.ok_or_else(|| self.missing(key, wanted))
    }

    /// The whole number under `key`.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Failure> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let parsed = value
            .get_ref()
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        parsed.map(Some).ok_or_else(|| self.bad(key, "a whole number that is not negative"))
    }

    /// The whole number under `key`, which must be there.
    pub(super) fn required_number(&self, key: &str, wanted: &str) -> Result<u64, Failure> {
        self.number(key)?.ok_or_else(|| self.missing(key, wanted))
    }

    /// Takes the table under `key` out of this one.
    pub(super) fn take_table(
        &mut self,
        key: &str,
        known: &'static [&'static str],
    ) -> Result<Option<Section<'d>>, Failure> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        let line = self.document.line(value.span().start);
        match value.into_inner() {
            DeValue::Table(table) => Section::open(self.document, line, table, known).map(Some),
            _ => Err(self.not_a_table(key, line, &format!("[{key}]"))),
        }
    }

    /// Takes the tables under `key`, each written as `[[key]]`, out of this one.
    pub(super) fn take_tables(
        &mut self,
        key: &str,
        known: &'static [&'static str],
    ) -> Result<Vec<Section<'d>>, Failure> {
        let Some(value) = self.table.remove(key) else { return Ok(Vec::new()) };
        let line = self.document.line(value.span().start);
        let wanted = format!("[[{key}]]");
        let DeValue::Array(items) = value.into_inner() else {
            return Err(self.not_a_table(key, line, &wanted));
        };
        let mut sections = Vec::with_capacity(items.len());
        for item in items {
            let line = self.document.line(Spanned::span(&item).start);
            match item.into_inner() {
                DeValue::Table(table) => {
                    sections.push(Section::open(self.document, line, table, known)?);
                }
                _ => return Err(self.not_a_table(key, line, &wanted)),
            }
        }
        Ok(sections)
    }

    fn not_a_table(&self, key: &str, line: usize, wanted: &str) -> Failure {
        let cause = format!("{key} is no table");
        self.document.failure(ErrorCode::BadValue, line, &cause, format!("write it as {wanted}"))
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            format!("({})", value.type_str())
        }
    }
}

/// The known key that `wrong` is most likely a misspelling of.
fn nearest<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|right| (distance(wrong, right), *right))
        .filter(|(distance, right)| *distance <= SUGGESTION_DISTANCE_MAX && *distance < right.len())
        .min()
        .map(|(_, right)| right)
}

/// How many characters must be inserted, removed or replaced to make `a` of `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a_char) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b_char) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(a_char != *b_char);
            diagonal = *cell;
            *cell = replaced.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_names_line_and_right_key() {
        let document = Document::from_text("c.toml", "a = 1\n\nmax_bach = 2\n");
        let refused = document.root(&["a", "max_batch"]).err().unwrap().to_string();
        assert_eq!(refused, "E113 unknown key \"max_bach\", line 3 of c.toml: did you mean \"max_batch\"?");
    }

    #[test]
    fn a_key_like_no_other_gets_the_list() {
        let document = Document::from_text("c.toml", "colour = 1\n");
        let refused = document.root(&["id", "key"]).err().unwrap().to_string();
        assert_eq!(
            refused,
            "E113 unknown key \"colour\", line 1 of c.toml: remove it, or use one of: id, key"
        );
    }

    #[test]
    fn a_wrong_type_names_line_and_value() {
        let document = Document::from_text("c.toml", "id = \"zero\"\nkey = 3\n[t]\nn = -4\n");
        let mut root = document.root(&["id", "key", "t"]).unwrap();
        let refused = root.number("id").unwrap_err().to_string();
        assert_eq!(
            refused,
            "E111 id = \"zero\" is not possible, line 1 of c.toml: write a whole number that is not negative"
        );
        assert_eq!(root.text("key").unwrap_err().code(), ErrorCode::BadValue);
        let table = root.take_table("t", &["n"]).unwrap().unwrap();
        assert!(table.number("n").unwrap_err().to_string().contains("n = -4 is not possible, line 4"));
    }

    #[test]
    fn broken_toml_names_its_line() {
        let document = Document::from_text("c.toml", "a = 1\nb = = 2\n");
        let refused = document.root(&["a", "b"]).err().unwrap();
        assert_eq!(refused.code(), ErrorCode::FileUnreadable);
        assert!(refused.to_string().contains("line 2"), "{refused}");
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(distance("max_bach", "max_batch"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
