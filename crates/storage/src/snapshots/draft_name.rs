//! How the two files of a transfer are called, and what a crash may have left of them.
//!
//! A name tells instance and root, so that two drafts never share a file; the manifest in the file has the last word.

use regency_protocol::ids::InstanceId;

use super::{DATA, DRAFT, MANIFEST, data_name, manifest_name};
use crate::disk::Disk;
use crate::error::{DiskOperation, OnFile, StorageError};
use crate::manifest::Manifest;

const PREFIX: &str = "transfer-";
/// Digits of an instance in a name.
const INSTANCE_DIGITS: usize = 16;
/// Bytes of the root in a name.
const ROOT_BYTES: usize = 8;

/// The name of one draft, without what tells its two files apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DraftName {
    /// The instance of its snapshot.
    pub(super) instance: InstanceId,
    stem: String,
}

impl DraftName {
    /// The name of the draft of this snapshot.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let root: String =
            manifest.root().0.iter().take(ROOT_BYTES).map(|byte| format!("{byte:02x}")).collect();
        let instance = manifest.instance;
        Self { instance, stem: format!("{PREFIX}{:0INSTANCE_DIGITS$}-{root}", instance.0) }
    }

    /// All drafts of which `names` has at least one file.
    pub(super) fn all(names: &[String]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for name in names.iter().filter_map(|name| Self::parse(name)) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }

    /// Whether a file is a draft's manifest that was not written to its end.
    pub(super) fn is_unfinished(file: &str) -> bool {
        file.strip_suffix(DRAFT).is_some_and(|file| Self::parse(file).is_some())
    }

    /// The file with the manifest.
    pub(super) fn manifest(&self) -> String {
        format!("{}{MANIFEST}", self.stem)
    }

    /// The file with the chunks.
    pub(super) fn data(&self) -> String {
        format!("{}{DATA}", self.stem)
    }

    /// Removes the files of some drafts, durably.
    pub(super) fn remove(disk: &dyn Disk, drafts: &[Self]) -> Result<(), StorageError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let names = disk.list().on(DiskOperation::List, ".")?;
        let files = drafts.iter().flat_map(|draft| [draft.manifest(), draft.data()]);
        for name in files.filter(|name| names.contains(name)) {
            disk.remove(&name).on(DiskOperation::Remove, &name)?;
        }
        disk.sync_directory().on(DiskOperation::SyncDirectory, ".")
    }

    /// Gives data back their draft's name that a crash left between an installation's two renames.
    pub(super) fn reclaim(
        disk: &dyn Disk,
        drafts: &[Self],
        names: &mut Vec<String>,
    ) -> Result<(), StorageError> {
        for draft in drafts {
            let (data, installed) = (draft.data(), data_name(draft.instance));
            let is_half_installed = names.contains(&draft.manifest())
                && !names.contains(&data)
                && names.contains(&installed)
                && !names.contains(&manifest_name(draft.instance));
            if is_half_installed {
                disk.rename(&installed, &data).on(DiskOperation::Rename, &installed)?;
                disk.sync_directory().on(DiskOperation::SyncDirectory, &data)?;
                names.retain(|name| *name != installed);
                names.push(data);
            }
        }
        Ok(())
    }

    fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(MANIFEST).or_else(|| file.strip_suffix(DATA))?;
        let (digits, root) = stem.strip_prefix(PREFIX)?.split_once('-')?;
        let is_number = digits.len() >= INSTANCE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_root = root.len() == ROOT_BYTES * 2
            && root.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let instance = digits.parse().ok().filter(|_| is_number && is_root).map(InstanceId)?;
        Some(Self { instance, stem: stem.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_one_form_are_drafts() {
        let name = DraftName::of(&Manifest { instance: InstanceId(17), chunks: Vec::new() });
        let files = [name.manifest(), name.data()];
        assert!(DraftName::all(&files) == vec![name.clone()] && name.instance == InstanceId(17));
        assert!(name.manifest().starts_with("transfer-0000000000000017-"));
        assert!(DraftName::is_unfinished(&format!("{}{DRAFT}", name.manifest())));
        for other in [
            "transfer-17-0123456789abcdef.data",
            "transfer-+000000000000017-0123456789abcdef.data",
            "transfer-0000000000000017-0123456789abcdeF.data",
            "transfer-0000000000000017-0123456789abcde.data",
            "transfer-0000000000000017.data",
            "transfer-0000000000000017-0123456789abcdef.data.draft",
            "snapshot-0000000000000017.data",
        ] {
            assert_eq!(DraftName::all(&[other.to_owned()]), [], "{other}");
        }
        assert!(!DraftName::is_unfinished("snapshot-0000000000000017.manifest.draft"));
    }
}
