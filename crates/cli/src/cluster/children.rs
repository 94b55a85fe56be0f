//! The processes of one cluster: started, watched, stopped. Nothing of them outlives this.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::child;
use crate::failure::{self, Failure};

/// Events that may wait to be looked at; their senders wait when there are more.
const EVENTS_MAX: usize = 64;
/// How long children may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the end of a log in which its last line is looked for.
const LOG_TAIL_BYTES: usize = 4096;

/// What a child is.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// How it is called in messages.
    pub(super) name: String,
    /// The command line after the binary.
    pub(super) arguments: Vec<OsString>,
    /// Where its stderr goes.
    pub(super) log: PathBuf,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A child said that it serves.
    Ready(usize),
    /// A child ended by itself.
    Ended(usize, Option<ExitStatus>),
    /// The user wants to stop.
    Stop,
    /// Nothing, in the time given.
    Nothing,
}

enum Signalled {
    Line(usize, u32, String),
    Closed(usize, u32),
    Stop,
}

/// All children, by the order of their start.
pub(super) struct Children {
    binary: PathBuf,
    signalled: Receiver<Signalled>,
    sender: SyncSender<Signalled>,
    children: Vec<(Role, Option<Running>)>,
}

struct Running {
    child: Child,
    /// Closed with the child; the child stops when it closes.
    _input: ChildStdin,
}

impl Children {
    /// None yet. From now on SIGINT and SIGTERM are events.
    pub(super) fn new() -> Result<Self, Failure> {
        let (sender, signalled) = sync_channel(EVENTS_MAX);
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| failure::system("listening for signals", &error))?;
        let stop = sender.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                if stop.send(Signalled::Stop).is_err() {
                    return;
                }
            }
        });
        Ok(Self { binary: child::own_binary()?, signalled, sender, children: Vec::new() })
    }

    /// Starts a child with a new log; the number it has from now on.
    pub(super) fn start(&mut self, role: Role) -> Result<usize, Failure> {
        File::create(&role.log)
            .map_err(|error| failure::system(&format!("writing {}", role.log.display()), &error))?;
        let number = self.children.len();
        self.children.push((role, None));
        self.restart(number)?;
        Ok(number)
    }

    /// Starts a child that has ended, with the log that it has.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), Failure> {
        let Some((role, running)) = self.children.get_mut(number) else { return Ok(()) };
        let failed = |error| failure::system(&format!("starting {}", role.name), &error);
        let log = OpenOptions::new().append(true).open(&role.log).map_err(failed)?;
        // A process group of its own: Ctrl-C in the terminal reaches us alone, and we stop it in order.
        let mut child = Command::new(&self.binary)
            .args(&role.arguments)
            .env(child::PARENT, std::process::id().to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failure::system(&role.name, &std::io::Error::other("no pipes")));
        };
        let (id, sender) = (child.id(), self.sender.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(Signalled::Line(number, id, line)).is_err() {
                    return;
                }
            }
            // Nobody listens any more: then nobody needs to know.
            let _ = sender.send(Signalled::Closed(number, id));
        });
        *running = Some(Running { child, _input: input });
        Ok(())
    }

    /// What a child is called.
    pub(super) fn name(&self, number: usize) -> &str {
        self.children.get(number).map_or("", |(role, _)| &role.name)
    }

    /// The last line of a child's log.
    pub(super) fn last_words(&self, number: usize) -> Option<String> {
        let (role, _) = self.children.get(number)?;
        let log = std::fs::read(&role.log).ok()?;
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
        tail.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.children.iter().filter(|(_, running)| running.is_some()).count()
    }

    /// Waits for the next event, but not beyond `until`.
    pub(super) fn next_event(&mut self, until: Instant) -> Event {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (number, id) = match self.signalled.recv_timeout(left) {
                Ok(Signalled::Line(number, id, line))
                    if line.starts_with("ready ") && self.is(number, id) =>
                {
                    return Event::Ready(number);
                }
                Ok(Signalled::Line(..)) => continue,
                Ok(Signalled::Stop) => return Event::Stop,
                Ok(Signalled::Closed(number, id)) => (number, id),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Event::Nothing,
            };
            if self.is(number, id)
                && let Some((_, running)) = self.children.get_mut(number)
                && let Some(mut ended) = running.take()
            {
                return Event::Ended(number, ended.child.wait().ok());
            }
        }
    }

    /// Whether the child of this number is still the process of this id.
    fn is(&self, number: usize, id: u32) -> bool {
        let running = self.children.get(number).and_then(|(_, running)| running.as_ref());
        running.is_some_and(|running| running.child.id() == id)
    }

    /// Stops all: asked first, killed if they do not listen. The names of those that had to be killed.
    pub(super) fn stop(&mut self) -> Vec<String> {
        for (_, running) in self.children.iter().rev() {
            if let Some(running) = running
                && let Some(pid) = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw)
            {
                // It may have ended just now, which is what we want.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let until = Instant::now() + STOP_TIMEOUT;
        while self.running() > 0 {
            if matches!(self.next_event(until), Event::Nothing) {
                break;
            }
        }
        let mut killed = Vec::new();
        for (role, running) in &mut self.children {
            if let Some(mut running) = running.take() {
                let _ = running.child.kill();
                let _ = running.child.wait();
                killed.push(role.name.clone());
            }
        }
        killed
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}
