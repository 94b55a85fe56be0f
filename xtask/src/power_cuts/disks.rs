//! File systems of our own, each an image file behind a loop device, that can be shut down at once and come back with
//! what their journal makes of it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::{Process, is_running, run};

/// Room of a file system; the image takes only what is used.
const IMAGE_BYTES: u64 = 1 << 30;
/// What must be there, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 4] =
    [("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("umount", "mount"), ("xfs_io", "xfsprogs")];

/// Fails with what is missing, if anything is.
pub(super) fn check_means() -> Result<()> {
    for (program, package) in PROGRAMS {
        let call = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(call.is_ok(), "{program} is missing: install the package {package}");
    }
    let id = run("id", &["-u"])?;
    ensure!(
        String::from_utf8_lossy(&id.stdout).trim() == "0",
        "power cuts need loop mounts, and those need root: run this as root"
    );
    Ok(())
}

/// Unmounts what a campaign has left that was killed: mounts below folders that begin with `prefix` and a process number
/// that nobody has any more.
pub(super) fn unmount_left(prefix: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    for folder in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let rest = prefix.to_str().and_then(|prefix| folder.strip_prefix(prefix));
        let owner = rest.and_then(|rest| rest.split('/').next()).and_then(|owner| owner.parse().ok());
        if owner.is_some_and(|owner| !is_running(owner)) {
            run("umount", &[folder])?;
        }
    }
    Ok(())
}

/// A file system for each replica; unmounted when it is dropped.
#[derive(Debug)]
pub(super) struct Disks {
    mounts: Vec<Mount>,
}

impl Disks {
    /// Makes and mounts so many below `scratch`.
    pub(super) fn new(scratch: &Path, disks: usize) -> Result<Self> {
        let mounts = (0..disks).map(|disk| Mount::new(scratch, disk)).collect::<Result<_>>()?;
        Ok(Self { mounts })
    }

    /// Moves the data directory of the replica in `home`, which has never run, to its disk.
    pub(super) fn take_in(&self, disk: usize, home: &Path) -> Result<()> {
        let data = self.mount(disk)?.folder.join("data");
        run("mv", &[home.join("data").as_path(), data.as_path()])?;
        let configuration = home.join("replica.toml");
        let mut file = OpenOptions::new().append(true).open(&configuration)?;
        writeln!(file, "data = \"{}\"", data.display())
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        // What `init` had synced was synced elsewhere.
        run("sync", &["-f".as_ref(), data.as_os_str()])?;
        Ok(())
    }

    /// Shuts file systems down at the same moment: what is not on the device now never gets there.
    pub(super) fn shut_down(&self, disks: &[usize]) -> Result<()> {
        let start = |disk: &usize| {
            let mut command = Command::new("xfs_io");
            command.args(["-x", "-c", "shutdown"]).arg(&self.mount(*disk)?.folder);
            Process::start("xfs_io", command.stdin(Stdio::null()))
        };
        let mut calls = disks.iter().map(start).collect::<Result<Vec<_>>>()?;
        for call in &mut calls {
            let status = call.child().wait()?;
            ensure!(status.success(), "xfs_io could not shut a file system down: {status}");
        }
        Ok(())
    }

    /// Brings a file system back that was shut down and that nobody uses.
    pub(super) fn mount_again(&mut self, disk: usize) -> Result<()> {
        let mount = self.mounts.get_mut(disk).context("no such disk")?;
        mount.leave()?;
        mount.enter()
    }

    fn mount(&self, disk: usize) -> Result<&Mount> {
        self.mounts.get(disk).context("no such disk")
    }
}

/// One file system.
#[derive(Debug)]
struct Mount {
    image: PathBuf,
    folder: PathBuf,
    is_mounted: bool,
}

impl Mount {
    fn new(scratch: &Path, disk: usize) -> Result<Self> {
        let (image, folder) =
            (scratch.join(format!("disk-{disk}.image")), scratch.join(format!("disk-{disk}")));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()])?;
        let mut mount = Self { image, folder, is_mounted: false };
        mount.enter()?;
        Ok(mount)
    }

    fn enter(&mut self) -> Result<()> {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.folder.as_os_str()])
            .context("no loop mount: power cuts need a kernel that allows them")?;
        self.is_mounted = true;
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        run("umount", &[&self.folder])?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.is_mounted {
            return;
        }
        // Somebody who looks at it holds it: then it goes when he leaves.
        let gone = run("umount", &[&self.folder])
            .or_else(|_| run("umount", &["-l".as_ref(), self.folder.as_os_str()]));
        if let Err(error) = gone {
            eprintln!("cannot unmount {}: {error:#}", self.folder.display());
        }
    }
}
