//! Damage to the real files of stopped replicas: no client may be told anything wrong, no replica may differ from the
//! others, and what is damaged in one place heals from the others.

mod files;
mod kind;
mod subject;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use self::kind::{Fate, Kind};
use self::subject::{Care, Subject};
use crate::binary::Binary;
use crate::process::Scratch;
use crate::random::Random;
use crate::repository::Repository;

/// Cases without and with `--quick`.
const CASES: usize = 200;
const QUICK_CASES: usize = 20;

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    cases: usize,
    seed: u64,
    care: Care,
}

/// Damages replicas as the arguments say.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<()> {
    let plan = parse(arguments)?;
    println!("damage: seed {}", plan.seed);
    let binary = Binary::release(repository)?;
    let scratch = Scratch::new("damage")?;
    let mut random = Random::new(plan.seed);
    let kinds = cases(plan.cases, &mut random);
    let mut subject = Subject::new(&binary, scratch.path(), random, plan.care)?;
    let mut tally = Tally::default();
    for (number, kind) in kinds.into_iter().enumerate() {
        let fates = subject.bear(kind).with_context(|| format!("case {}: {kind}", number + 1))?;
        tally.add(kind, fates);
    }
    let replies = subject.replies();
    tally.print(replies);
    drop(subject);
    scratch.discard();
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Plan> {
    let mut plan = Plan { cases: CASES, seed: u64::from(std::process::id()), care: Care::Heals };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match *flag {
            "--quick" => plan.cases = QUICK_CASES,
            "--no-heal" => plan.care = Care::Survives,
            "--cases" | "--seed" => {
                let value = rest.next().with_context(|| format!("{flag} wants a number"))?;
                match *flag {
                    "--cases" => plan.cases = value.parse()?,
                    _ => plan.seed = value.parse()?,
                }
            }
            _ => bail!("no such flag: {flag}"),
        }
    }
    Ok(plan)
}

/// Rounds of all kinds, each in an order of its own.
fn cases(count: usize, random: &mut Random) -> Vec<Kind> {
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let mut round = Kind::round();
        random.shuffle(&mut round);
        kinds.extend(round);
    }
    kinds.truncate(count);
    kinds
}

/// What became of the damaged replicas, for each kind.
#[derive(Debug, Default)]
struct Tally {
    kinds: BTreeMap<Kind, (usize, BTreeMap<Fate, usize>)>,
}

impl Tally {
    fn add(&mut self, kind: Kind, fates: Vec<Fate>) {
        let (cases, counts) = self.kinds.entry(kind).or_default();
        *cases += 1;
        for fate in fates {
            *counts.entry(fate).or_default() += 1;
        }
    }

    fn print(&self, replies: usize) {
        let mut fates = BTreeMap::new();
        for (kind, (cases, counts)) in &self.kinds {
            println!("damage: {cases:3} {kind}: {}", listed(counts));
            for (fate, count) in counts {
                *fates.entry(fate.clone()).or_default() += count;
            }
        }
        let cases: usize = self.kinds.values().map(|(cases, _)| cases).sum();
        println!(
            "damage: {cases} cases, {replies} replies checked: 0 wrong, 0 lost, 0 doubled, 0 diverged; of the damaged \
             replicas {}",
            listed(&fates)
        );
    }
}

fn listed(counts: &BTreeMap<Fate, usize>) -> String {
    let fates: Vec<String> = counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
    fates.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_how_much_and_what_is_demanded() {
        let plan = parse(&["--quick", "--no-heal", "--seed", "7"]).unwrap();
        assert_eq!(plan, Plan { cases: 20, seed: 7, care: Care::Survives });
        assert_eq!(parse(&["--cases", "3"]).unwrap().care, Care::Heals);
        assert!(parse(&["--cases"]).is_err());
    }

    #[test]
    fn a_full_campaign_has_every_kind() {
        let kinds = cases(CASES, &mut Random::new(1));
        assert_eq!(kinds.len(), CASES);
        assert!(Kind::round().iter().all(|kind| kinds.contains(kind)));
        assert_eq!(kinds, cases(CASES, &mut Random::new(1)));
    }
}
