//! The live table of `regency cluster`: redrawn in place on a terminal, with the latest news above it.

use std::collections::VecDeque;
use std::io::Write;

use regency::config::Cluster;

use crate::bars::can_draw;
use crate::failure::{self, Failure};
use crate::status::Status;

/// News that stay on the screen.
const NEWS_MAX: usize = 5;

/// What is on the screen.
pub(super) struct Live {
    next: String,
    news: VecDeque<String>,
}

impl Live {
    /// Whether stdout is a terminal on which one can draw.
    pub(super) fn is_possible() -> bool {
        can_draw(&std::io::stdout())
    }

    /// Draws nothing yet; `next` will stand below the table.
    pub(super) fn new(next: String) -> Self {
        Self { next, news: VecDeque::new() }
    }

    /// Adds a line of news.
    pub(super) fn tell(&mut self, line: String) {
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(line);
    }

    /// Asks the replicas and draws the table over what was there.
    pub(super) fn draw(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let status = Status::ask(cluster);
        let table = status.table();
        let mut text = String::new();
        for line in &self.news {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&table);
        text.push('\n');
        for (id, bar) in status.bars() {
            text.push_str(&format!("replica {id} {bar}\n"));
        }
        text.push_str(&self.next);
        text.push_str("Ctrl-C stops everything\n");
        let mut out = std::io::stdout().lock();
        // From the corner of the screen: how many lines the last table took depends on the terminal's width.
        write!(out, "\x1b[H\x1b[J{text}")
            .and_then(|()| out.flush())
            .map_err(|error| failure::system("drawing the table", &error))
    }
}
