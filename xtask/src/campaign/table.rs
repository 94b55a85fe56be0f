//! docs/campaigns.md: a row for each run, and what the runs of each core add up to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Sum, line};
use crate::repository::Repository;

const PATH: &str = "docs/campaigns.md";

const HEAD: &str = "# Campaigns

What `cargo xtask campaign` has run. A seed decides a whole schedule; *core* is the git tree of crates/protocol/src, and
runs of the same core add up. A run that was interrupted is continued with `--from` and the seed after its last.

| date | commit | core | kind | seeds | schedules | with liars | events | seconds | result |
|---|---|---|---|---|---|---|---|---|---|
";

const SUMS: &str = "
## By core

| core | kind | seeds | schedules | events |
|---|---|---|---|---|
";

/// What stands where a run does not say how many of its schedules had liars.
const UNKNOWN: &str = "-";

/// What stands from here on is written by hand, and stays.
const BY_HAND: &str = "\n## Real replicas\n";

/// All runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    rows: Vec<Row>,
    /// The part that is written by hand.
    by_hand: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    date: String,
    commit: String,
    core: String,
    kind: String,
    from: u64,
    seeds: u64,
    schedules: u64,
    /// In how many replicas lied; runs of old were not asked.
    byzantine: Option<u64>,
    events: u64,
    seconds: u64,
    result: String,
}

impl Row {
    /// A run that begins now.
    pub(super) fn begin(repository: &Repository, kind: &str, from: u64) -> Result<Self> {
        let changed = line(repository, "git", &["status", "--porcelain", "--", "crates/protocol/src"])?;
        let mark = if changed.is_empty() { "" } else { "+changes" };
        let commit = line(repository, "git", &["rev-parse", "--short=10", "HEAD"])?;
        let core = line(repository, "git", &["rev-parse", "--short=10", "HEAD:crates/protocol/src"])?;
        Ok(Self {
            date: line(repository, "date", &["-u", "+%F"])?,
            commit,
            core: format!("{core}{mark}"),
            kind: kind.to_owned(),
            from,
            seeds: 0,
            schedules: 0,
            byzantine: Some(0),
            events: 0,
            seconds: 0,
            result: String::new(),
        })
    }

    /// The run as far as it has come.
    pub(super) fn with(&self, sum: &Sum, elapsed: Duration) -> Self {
        let result = sum.failure.clone().unwrap_or_else(|| "no violation".to_owned());
        Self {
            seeds: sum.seeds,
            schedules: sum.schedules,
            byzantine: Some(sum.byzantine),
            events: sum.events,
            seconds: elapsed.as_secs(),
            result,
            ..self.clone()
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (date, commit, core, kind, seeds, schedules, byzantine, events, seconds, result) = match cells[..]
        {
            // A row of old: it does not say how many schedules had liars.
            [a, b, c, d, e, f, g, h, i] => (a, b, c, d, e, f, UNKNOWN, g, h, i),
            [a, b, c, d, e, f, g, h, i, j] => (a, b, c, d, e, f, g, h, i, j),
            _ => return None,
        };
        let (first, last) = seeds.split_once('–')?;
        let from: u64 = first.parse().ok()?;
        Some(Self {
            date: date.to_owned(),
            commit: commit.to_owned(),
            core: core.to_owned(),
            kind: kind.to_owned(),
            from,
            seeds: (last.parse::<u64>().ok()? + 1).checked_sub(from)?,
            schedules: schedules.parse().ok()?,
            byzantine: if byzantine == UNKNOWN { None } else { Some(byzantine.parse().ok()?) },
            events: events.parse().ok()?,
            seconds: seconds.parse().ok()?,
            result: result.to_owned(),
        })
    }

    fn line(&self) -> String {
        let Self { date, commit, core, kind, from, seeds, schedules, byzantine, events, seconds, result } =
            self;
        let last = from + seeds - 1;
        let byzantine = byzantine.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
        format!(
            "| {date} | {commit} | {core} | {kind} | {from}–{last} | {schedules} | {byzantine} | {events} | \
             {seconds} | {result} |"
        )
    }

    fn is_same_run(&self, other: &Self) -> bool {
        (&self.commit, &self.core, &self.kind, self.from)
            == (&other.commit, &other.core, &other.kind, other.from)
    }
}

impl Table {
    /// What the document says; nothing if there is none.
    pub(super) fn read(repository: &Repository) -> Result<Self> {
        if !repository.has(PATH) {
            return Ok(Self::default());
        }
        Ok(Self::parse(&repository.read(PATH)?))
    }

    fn parse(text: &str) -> Self {
        let (own, by_hand) = text.find(BY_HAND).map_or((text, ""), |at| text.split_at(at));
        Self { rows: own.lines().filter_map(Row::parse).collect(), by_hand: by_hand.to_owned() }
    }

    /// Adds a run, or replaces what it had come to before.
    pub(super) fn put(&mut self, row: Row) {
        if row.seeds == 0 {
            return;
        }
        match self.rows.iter_mut().find(|old| old.is_same_run(&row)) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
    }

    /// Writes the document.
    pub(super) fn write(&self, repository: &Repository) -> Result<()> {
        fs::write(repository.root().join(PATH), self.text()).with_context(|| format!("cannot write {PATH}"))
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        let mut sums: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
        for row in &self.rows {
            text.push_str(&row.line());
            text.push('\n');
            let sum = sums.entry((&row.core, &row.kind)).or_default();
            *sum = (sum.0 + row.seeds, sum.1 + row.schedules, sum.2 + row.events);
        }
        text.push_str(SUMS);
        for ((core, kind), (seeds, schedules, events)) in sums {
            let _ = writeln!(text, "| {core} | {kind} | {seeds} | {schedules} | {events} |");
        }
        text.push_str(&self.by_hand);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(core: &str, from: u64, seeds: u64) -> Row {
        Row {
            date: "2026-01-01".to_owned(),
            commit: "c".to_owned(),
            core: core.to_owned(),
            kind: "short".to_owned(),
            from,
            seeds,
            schedules: seeds + 1,
            byzantine: Some(seeds),
            events: 9,
            seconds: 1,
            result: "no violation".to_owned(),
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let by_hand = format!("{BY_HAND}\n| what | result |\n|---|---|\n| kills | none lost |\n");
        let table = Table { rows: vec![row("a", 1, 10), row("b", 11, 10)], by_hand };
        assert_eq!(Table::parse(&table.text()), table);
    }

    #[test]
    fn a_row_that_does_not_tell_of_liars_is_read_and_says_so() {
        let old = "| 2026-01-01 | c | a | short | 1–10 | 11 | 9 | 1 | no violation |";
        let read = Row::parse(old).unwrap();
        assert_eq!(read, Row { byzantine: None, ..row("a", 1, 10) });
        assert!(read.line().contains("| 11 | - | 9 |"));
        assert_eq!(Row::parse(&read.line()), Some(read));
    }

    #[test]
    fn runs_of_one_core_add_up_and_one_run_has_one_row() {
        let mut table = Table::default();
        table.put(row("a", 1, 5));
        table.put(row("a", 1, 10));
        table.put(row("a", 11, 10));
        table.put(row("b", 1, 10));
        assert_eq!(table.rows.len(), 3);
        assert!(table.text().contains("| a | short | 20 | 22 | 18 |"));
    }
}
