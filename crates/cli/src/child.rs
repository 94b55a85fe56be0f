//! Child processes: this binary again, ended with its parent whatever happens to that.

use std::io::Read;
use std::path::PathBuf;

use rustix::process::{Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use crate::failure::{self, Failure};

/// The environment variable by which a parent names itself to its children.
pub(crate) const PARENT: &str = "REGENCY_PARENT_PID";

/// Asks the kernel to end this process when its parent, named by [`PARENT`], does. Without one: nothing.
pub(crate) fn end_with_parent() -> Result<(), Failure> {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| failure::system("watching the parent process", &error.into()))?;
    // The parent may have ended before the call above.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        std::process::exit(0);
    }
    Ok(())
}

/// Stops this process, as SIGTERM does, when its stdin closes: the parent holds the other end and never writes.
pub(crate) fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().lock().read(&mut sink), Ok(1..)) {}
        if kill_process(getpid(), Signal::TERM).is_err() {
            std::process::exit(1);
        }
    });
}

/// Whether a parent of the same binary runs this process.
pub(crate) fn has_parent() -> bool {
    std::env::var_os(PARENT).is_some()
}

/// The path of this binary.
pub(crate) fn own_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| failure::system("finding the path of this program", &error))
}
