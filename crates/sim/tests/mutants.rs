//! Every broken rule is noticed: by seeds that choose their own scenario, and in well under a minute.

#![cfg(feature = "mutants")]

use std::time::Duration;

use regency_protocol::mutants::Mutant;
use regency_sim::{Options, Scenario, run};

/// The invariant that breaks first under `mutant`.
fn breaks(mutant: Mutant, scenario: Option<Scenario>) -> String {
    let time_limit = Some(Duration::from_secs(60));
    let options =
        Options { seeds: 100_000, mutant: Some(mutant), scenario, time_limit, ..Options::default() };
    let report = run(&options).unwrap();
    let failure = report.failure.unwrap_or_else(|| panic!("{} survived", mutant.name()));
    assert!(failure.replay.contains(mutant.name()));
    failure.invariant
}

#[test]
fn every_mutant_is_caught_by_mixed_seeds() {
    for mutant in Mutant::ALL {
        let invariant = breaks(*mutant, None);
        assert!(!["panic", "determinism"].contains(&invariant.as_str()), "{}: {invariant}", mutant.name());
    }
}

#[test]
fn small_quorums_break_agreement() {
    let scenario = Some(Scenario::Equivocation);
    assert_eq!(breaks(Mutant::QuorumTooSmall, scenario), "agreement");
    // Right at n = 4, 7, 10 and 13; wrong at n = 5, which this scenario comes by.
    assert_eq!(breaks(Mutant::QuorumTwoFPlusOne, scenario), "agreement");
    assert_eq!(breaks(Mutant::VotesPerMessage, scenario), "agreement");
}

#[test]
fn a_decision_without_its_batch_breaks_agreement() {
    assert_eq!(breaks(Mutant::DecideWithoutBody, Some(Scenario::Lossy)), "agreement");
}

#[test]
fn broken_sessions_break_exactly_once() {
    assert_eq!(breaks(Mutant::SequenceUnchecked, Some(Scenario::RogueClients)), "exactly-once");
    assert_eq!(breaks(Mutant::RequestTwiceExecuted, Some(Scenario::Equivocation)), "exactly-once");
}

#[test]
fn a_client_that_counts_messages_believes_one_liar() {
    assert_eq!(breaks(Mutant::RepliesPerMessage, Some(Scenario::Liars)), "linearizability");
}
