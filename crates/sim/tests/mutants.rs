//! Every broken rule is noticed: by the seed that is known to notice it, which holds while nothing is broken.

#![cfg(feature = "mutants")]

use regency_protocol::mutants::Mutant;
use regency_sim::{Failure, Options, Scenario, run};

/// One mutant a line: its name, and the scenario and seed that kill it, or why none can.
const KILLS: &str = include_str!("kills.txt");
/// A change of the core may turn a seed into another schedule: one of the next ones kills as well, and is to be written
/// down in its place.
const SEEDS: u64 = 2000;

fn lines() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = KILLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [mutant, scenario, seed] => (mutant, scenario, seed),
        _ => panic!("{line}"),
    })
}

fn fails(mutant: Option<Mutant>, scenario: Scenario, from: u64, seeds: u64) -> Option<Failure> {
    let options = Options { from, seeds, scenario: Some(scenario), mutant, ..Options::default() };
    run(&options).unwrap().failure
}

/// The first seed from `from` on that fails with `mutant` and holds without it.
fn kill(mutant: Mutant, scenario: Scenario, from: u64) -> Option<Failure> {
    let mut next = from;
    while next < from + SEEDS {
        let failure = fails(Some(mutant), scenario, next, from + SEEDS - next)?;
        if fails(None, scenario, failure.seed, 1).is_none() {
            return Some(failure);
        }
        next = failure.seed + 1;
    }
    None
}

#[test]
fn every_mutant_is_killed_by_its_seed() {
    let (mut survivors, mut moved) = (Vec::new(), Vec::new());
    for (name, scenario, seed) in
        lines().filter(|(_, scenario, _)| !["equivalent", "storage"].contains(scenario))
    {
        let mutant = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name).expect(name);
        let scenario = Scenario::from_name(scenario).expect(scenario);
        let from = seed.parse().expect(seed);
        match kill(mutant, scenario, from) {
            Some(failure) if failure.seed == from => {}
            Some(failure) => moved.push(format!("{name} {} {}", scenario.name(), failure.seed)),
            None => survivors.push(name),
        }
    }
    assert_eq!(survivors, Vec::<&str>::new());
    assert_eq!(moved, Vec::<String>::new(), "the seeds of kills.txt kill no longer, these do");
}

#[test]
fn every_mutant_has_one_line() {
    let mut named: Vec<&str> = lines().map(|(mutant, _, _)| mutant).collect();
    let mut all: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all);
}
