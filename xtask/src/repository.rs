//! The repository's tree: where it is, and which of its files the checks read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 7] = [".git", "target", "demo", "corpus", "artifacts", "node_modules", "__pycache__"];

/// The root of the work tree that `cargo xtask` was called in.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
}

/// One text file, with its path relative to the root.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/` between the parts.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Repository {
    /// The tree that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask lies in the repository's root")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// The root's path.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |set| self.root.join(set))
    }

    /// Whether a file or folder is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// One file's text.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    /// Every file below `folder` whose name ends with `.extension`, sorted by path.
    pub(crate) fn sources(&self, folder: &str, extension: &str) -> Result<Vec<Source>> {
        let mut found = Vec::new();
        self.collect(&self.root.join(folder), extension, &mut found)?;
        found.sort_by(|a: &Source, b: &Source| a.path.cmp(&b.path));
        Ok(found)
    }

    fn collect(&self, folder: &Path, extension: &str, found: &mut Vec<Source>) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !SKIPPED.contains(&name) {
                    self.collect(&path, extension, found)?;
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let relative = path.strip_prefix(&self.root).unwrap_or(&path);
                found.push(Source { path: relative.to_string_lossy().replace('\\', "/"), text });
            }
        }
        Ok(())
    }
}
