//! A data directory's files, and harm to them at places that a seed decides.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kind::{Harm, Target};
use crate::random::Random;

/// What a disk loses or mixes up at once.
const BLOCK_BYTES: u64 = 4096;
/// A small file has so many blocks.
const SMALL_BLOCKS: u64 = 4;
/// The most bits that are flipped at once.
const FLIPS_MAX: u64 = 8;
/// Attempts to find two blocks that differ.
const SWAPS_MAX: usize = 20;

/// A data directory of a replica that does not run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    /// It itself.
    pub(super) own: &'a Path,
    /// An older copy of it.
    pub(super) old: &'a Path,
    /// That of another replica, which may run.
    pub(super) other: &'a Path,
}

impl Files<'_> {
    /// Does the harm to one file of this sort; says what was done.
    pub(super) fn harm(&self, harm: Harm, target: Target, random: &mut Random) -> Result<String> {
        match harm {
            Harm::Old => self.put(self.old, target, random),
            Harm::Foreign => self.put(self.other, target, random),
            Harm::Flip | Harm::Cut | Harm::Zero | Harm::Swap | Harm::Remove => {
                let path = self.own.join(pick(self.own, target, random)?);
                let region = 0..used_bytes(&path)?;
                harm_file(&path, harm, region, random)
            }
        }
    }

    /// Does harm to the newest log segment within a part of what is used of it: `part` of `parts`, the last tenth left
    /// out, so that there is always something good behind it.
    pub(super) fn harm_log_part(
        &self,
        harm: Harm,
        part: u64,
        parts: u64,
        random: &mut Random,
    ) -> Result<String> {
        let newest = names(self.own, Target::Segment)?.pop().context("no log segment")?;
        let path = self.own.join(newest);
        let used = used_bytes(&path)?;
        let records = BLOCK_BYTES.min(used)..used - used / 10;
        let length = (records.end.saturating_sub(records.start)) / parts;
        let begin = records.start + part * length;
        harm_file(&path, harm, begin..begin + length, random)
    }

    /// Copies a file of this sort from elsewhere: under its name, or under that of another one that is here.
    fn put(&self, from: &Path, target: Target, random: &mut Random) -> Result<String> {
        let source = pick(from, target, random)?;
        let here = names(self.own, target)?;
        let is_misplaced = !here.contains(&source) && random.below(2) == 0;
        let name = random.pick(&here).filter(|_| is_misplaced).unwrap_or(&source);
        fs::copy(from.join(&source), self.own.join(name))
            .with_context(|| format!("cannot copy {}", from.join(&source).display()))?;
        Ok(format!("{source} of {} as {name}", from.display()))
    }
}

/// Replaces a folder by a copy of another; blocks of zeros take no room in it.
pub(super) fn replace_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let options = ["-r", "--preserve=mode", "--sparse=always"].map(PathBuf::from);
    let arguments = options.into_iter().chain([from.to_owned(), to.to_owned()]).collect::<Vec<_>>();
    crate::process::run("cp", &arguments)?;
    Ok(())
}

/// Appends bytes to the newest log segment that no replica has written, as a power failure may leave them.
pub(super) fn tear_tail(data: &Path, random: &mut Random) -> Result<()> {
    let newest = names(data, Target::Segment)?.pop().context("no log segment")?;
    let path = data.join(newest);
    let bytes: Vec<u8> = (0..512).map(|_| random.number().to_le_bytes()[0] | 1).collect();
    let at = used_bytes(&path)?.next_multiple_of(8);
    OpenOptions::new().write(true).open(&path)?.write_all_at(&bytes, at)?;
    Ok(())
}

/// The files of this sort, in order.
fn names(folder: &Path, target: Target) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if target.is(&name) && !name.ends_with(".draft") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn pick(folder: &Path, target: Target, random: &mut Random) -> Result<String> {
    let names = names(folder, target)?;
    random.pick(&names).cloned().with_context(|| format!("no {target:?} in {}", folder.display()))
}

/// Bytes up to the last one that is not zero.
fn used_bytes(path: &Path) -> Result<u64> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
}

fn harm_file(path: &Path, harm: Harm, region: Range<u64>, random: &mut Random) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if harm == Harm::Remove {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        return Ok(format!("{name} removed"));
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let done = match harm {
        Harm::Flip => flip(&file, &region, random)?,
        Harm::Cut => {
            let length = spot(&region, random);
            file.set_len(length)?;
            format!("cut to {length} bytes")
        }
        Harm::Zero => {
            let block = block_at(&file, spot(&region, random))?;
            file.write_all_at(&vec![0; to_usize(block.end - block.start)], block.start)?;
            format!("zeroed {block:?}")
        }
        Harm::Swap => swap(&file, &region, random)?,
        Harm::Old | Harm::Remove | Harm::Foreign => bail!("{harm:?} is no harm within a file"),
    };
    Ok(format!("{name} {done}"))
}

fn flip(file: &File, region: &Range<u64>, random: &mut Random) -> Result<String> {
    let mut places = Vec::new();
    for _ in 0..=random.below(FLIPS_MAX) {
        let at = spot(region, random);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, at)?;
        places.push(at);
    }
    Ok(format!("flipped bits at {places:?}"))
}

fn swap(file: &File, region: &Range<u64>, random: &mut Random) -> Result<String> {
    for _ in 0..SWAPS_MAX {
        let one = block_at(file, spot(region, random))?;
        let other = block_at(file, spot(region, random))?;
        let (first, second) = (content(file, &one)?, content(file, &other)?);
        if first != second && first.len() == second.len() {
            file.write_all_at(&second, one.start)?;
            file.write_all_at(&first, other.start)?;
            return Ok(format!("swapped {one:?} and {other:?}"));
        }
    }
    flip(file, region, random)
}

fn content(file: &File, block: &Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; to_usize(block.end - block.start)];
    file.read_exact_at(&mut bytes, block.start)?;
    Ok(bytes)
}

/// The block in which a byte lies.
fn block_at(file: &File, at: u64) -> Result<Range<u64>> {
    let length = file.metadata()?.len();
    let block =
        if length > SMALL_BLOCKS * BLOCK_BYTES { BLOCK_BYTES } else { (length / SMALL_BLOCKS).max(1) };
    let begin = at / block * block;
    Ok(begin..(begin + block).min(length))
}

/// A place in a region: often in its first or last block, where what matters most stands.
fn spot(region: &Range<u64>, random: &mut Random) -> u64 {
    let length = region.end.saturating_sub(region.start);
    let edge = length.min(BLOCK_BYTES);
    region.start
        + match random.below(4) {
            0 => random.below(edge),
            1 => length - edge + random.below(edge),
            _ => random.below(length),
        }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Scratch;

    #[test]
    fn each_harm_changes_a_file_as_the_seed_says() {
        let scratch = Scratch::new("damage-files").unwrap();
        let whole: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        for harm in [Harm::Flip, Harm::Cut, Harm::Zero, Harm::Swap] {
            let harmed = |seed| {
                let path = scratch.path().join("log-000000000001");
                fs::write(&path, &whole).unwrap();
                let region = 0..used_bytes(&path).unwrap();
                harm_file(&path, harm, region, &mut Random::new(seed)).unwrap();
                fs::read(&path).unwrap()
            };
            assert_ne!(harmed(3), whole, "{harm:?}");
            assert_eq!(harmed(3), harmed(3), "{harm:?}");
        }
        scratch.discard();
    }

    #[test]
    fn parts_of_a_log_are_disjoint_and_end_before_its_last_records() {
        let scratch = Scratch::new("damage-parts").unwrap();
        let path = scratch.path().join("log-000000000001");
        let whole = vec![1; 100_000];
        let files = Files { own: scratch.path(), old: scratch.path(), other: scratch.path() };
        let mut end = 4096;
        for part in 0..4 {
            fs::write(&path, &whole).unwrap();
            files.harm_log_part(Harm::Flip, part, 4, &mut Random::new(part)).unwrap();
            let after = fs::read(&path).unwrap();
            let first = after.iter().position(|byte| *byte != 1).unwrap();
            let last = after.iter().rposition(|byte| *byte != 1).unwrap();
            assert!(end <= first && last < 90_000, "{part}: {first} to {last}");
            end = last + 1;
        }
        scratch.discard();
    }
}
