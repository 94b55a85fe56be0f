//! Child processes that end with us, and free ports for them.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a command.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The child itself, for its streams.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        signal(self.child.id(), "TERM")?;
        wait_until(limit, || Ok(self.child.try_wait()?.is_some()))
            .with_context(|| format!("{} did not end on SIGTERM", self.name))?;
        Ok(self.child.wait()?)
    }

    /// Kills it without a warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    ensure!(status.success(), "cannot send SIG{name} to process {pid}");
    Ok(())
}

/// Whether a process with this id runs; a zombie does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// Looks at a condition until it holds.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > limit {
            bail!("not within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<Output> {
    let program = program.as_ref();
    let shown = Path::new(program).display();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A base port such that base+i and base+100+i are free for every replica: what `regency init` asks for.
pub(crate) fn free_base_port(replicas: u16) -> Result<u16> {
    // Below the range from which systems hand out ports by themselves; where to begin differs between processes.
    let begin = 20_000 + u16::try_from(std::process::id() % 50).unwrap_or(0) * 200;
    let candidates = (begin..30_000).step_by(200).chain((20_000..begin).step_by(200));
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    candidates
        .into_iter()
        .find(|base| (0..replicas).all(|i| is_free(base + i) && is_free(base + 100 + i)))
        .context("no free range of ports")
}

/// A folder of our own that is removed again, unless something failed in it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// An empty folder.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("regency-{name}-{}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, kept: true })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All went well: nobody needs it any more.
    pub(crate) fn discard(mut self) {
        self.kept = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.kept {
            eprintln!("kept for a look: {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
