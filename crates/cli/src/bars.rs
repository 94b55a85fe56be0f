//! Progress bars on stderr, one for each replica that gets something from others; nothing if nobody looks at it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The bars that are on the screen.
pub(crate) struct Bars {
    screen: MultiProgress,
    is_seen: bool,
    bars: BTreeMap<u16, ProgressBar>,
}

impl Bars {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { screen: MultiProgress::new(), is_seen: can_draw(&io::stderr()), bars: BTreeMap::new() }
    }

    /// Whether stderr is a terminal on which one can draw.
    pub(crate) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Draws these, by replica, in place of what was there; whether there is anything to see.
    pub(crate) fn show(&mut self, bars: impl Iterator<Item = (u16, String)>) -> bool {
        let shown: BTreeMap<u16, String> = bars.filter(|_| self.is_seen).collect();
        self.bars.retain(|id, bar| {
            let stays = shown.contains_key(id);
            if !stays {
                bar.finish_and_clear();
                self.screen.remove(bar);
            }
            stays
        });
        for (id, text) in shown {
            let screen = &self.screen;
            let bar = self
                .bars
                .entry(id)
                .or_insert_with(|| screen.add(ProgressBar::no_length().with_style(plain())));
            bar.set_message(format!("replica {id} {text}"));
            bar.tick();
        }
        !self.bars.is_empty()
    }

    /// What writes lines to stderr above the bars.
    pub(crate) fn above(&self) -> Above {
        Above(self.screen.clone())
    }

    /// Takes them away while something else is written.
    pub(crate) fn clear(&mut self) {
        self.show(std::iter::empty());
    }
}

/// Writes to stderr, and has the bars drawn again below.
#[derive(Clone)]
pub(crate) struct Above(MultiProgress);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether this is a terminal on which one can draw.
pub(crate) fn can_draw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// The message alone.
fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}
