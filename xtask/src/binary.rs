//! The `regency` binary in the builds that the recipes run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::repository::Repository;

/// A built `regency`.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    path: PathBuf,
    /// The network namespace that it runs in, if it is not the usual one.
    namespace: Option<String>,
}

impl Binary {
    /// The release build: what users run.
    pub(crate) fn release(repository: &Repository) -> Result<Self> {
        build(repository, &[])?;
        Ok(Self { path: uplifted(repository), namespace: None })
    }

    /// The release build with the mutants.
    pub(crate) fn mutants(repository: &Repository) -> Result<Self> {
        Self::featured(repository, "mutants")
    }

    /// The release build whose replicas do wrong when they are told to.
    pub(crate) fn adversity(repository: &Repository) -> Result<Self> {
        Self::featured(repository, "adversity")
    }

    /// The release build of a commit, from a work tree of its own.
    pub(crate) fn of_commit(repository: &Repository, commit: &str) -> Result<Self> {
        let root = repository.root().to_string_lossy();
        let revision = format!("{commit}^{{commit}}");
        let found = process::run("git", &["-C", &root, "rev-parse", "--verify", &revision])?;
        let commit = String::from_utf8(found.stdout)?.trim().to_owned();
        let tree = repository.target().join("commits").join(&commit);
        if !tree.exists() {
            let tree = tree.to_string_lossy();
            process::run("git", &["clone", "--quiet", "--shared", "--no-checkout", &root, &tree])?;
        }
        let shown = tree.to_string_lossy();
        process::run("git", &["-C", &shown, "checkout", "--quiet", &commit])?;
        let target = tree.join("target");
        cargo(&tree, &["--package", "regency-cli", "--target-dir", &target.to_string_lossy()])?;
        Ok(Self { path: target.join("release/regency"), namespace: None })
    }

    /// The release build of an example of the library.
    pub(crate) fn example(repository: &Repository, name: &str) -> Result<Self> {
        cargo(repository.root(), &["--package", "regency", "--example", name])?;
        Ok(Self { path: repository.target().join("release/examples").join(name), namespace: None })
    }

    /// A release build with a feature, kept beside the plain one so that neither overwrites the other.
    fn featured(repository: &Repository, feature: &str) -> Result<Self> {
        let plain = uplifted(repository);
        let aside = repository.target().join("release/regency.plain");
        let has_plain = fs::rename(&plain, &aside).is_ok();
        build(repository, &["--features", feature])?;
        let folder = repository.target().join(feature);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("regency");
        fs::copy(&plain, &path).with_context(|| format!("cannot copy {}", plain.display()))?;
        if has_plain {
            fs::rename(&aside, &plain).context("cannot put the plain build back")?;
        }
        Ok(Self { path, namespace: None })
    }

    /// The same one in a network namespace.
    pub(crate) fn inside(&self, namespace: &str) -> Self {
        Self { path: self.path.clone(), namespace: Some(namespace.to_owned()) }
    }

    /// A call of it, not started yet.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(&self.path),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.path);
                command
            }
        };
        command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    /// Runs it to its end.
    pub(crate) fn output<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("cannot run {}", self.path.display()))
    }
}

fn build(repository: &Repository, more: &[&str]) -> Result<()> {
    cargo(repository.root(), &[&["--package", "regency-cli"], more].concat())
}

fn cargo(tree: &Path, what: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(tree)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(what)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo build failed");
    Ok(())
}

fn uplifted(repository: &Repository) -> PathBuf {
    repository.target().join("release/regency")
}
