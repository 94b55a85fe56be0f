//! A schedule that fails shrinks to little that fails in the same way; one that holds is refused.

use std::time::Duration;

use regency_sim::{Options, Scenario, SimError, shrink};

fn one(seed: u64, scenario: Scenario) -> Options {
    Options { from: seed, seeds: 1, scenario: Some(scenario), ..Options::default() }
}

#[test]
fn a_schedule_that_holds_is_refused() {
    let refused = shrink(&one(1, Scenario::Lossy), Duration::from_secs(60), &mut std::io::sink());
    let error = refused.unwrap_err();
    assert!(matches!(error, SimError::NothingBroken(1)));
    assert_eq!(error.to_string(), "seed 1 breaks nothing: there is nothing to shrink");
}

#[cfg(feature = "mutants")]
mod with_mutants {
    use regency_protocol::mutants::Mutant;
    use regency_sim::{Reduction, replay_reduced, run};

    use super::*;

    /// The first seed from `from` on that breaks something.
    fn broken(mutant: Mutant, scenario: Scenario) -> Options {
        let options = Options { seeds: 2000, mutant: Some(mutant), ..one(1, scenario) };
        let failure = run(&options).unwrap().failure.expect("the mutant is killed");
        Options { from: failure.seed, seeds: 1, ..options }
    }

    fn shrinks_to_a_dozen(mutant: Mutant, scenario: Scenario) {
        let options = broken(mutant, scenario);
        let whole = run(&options).unwrap().failure.unwrap();
        let mut progress = Vec::new();
        let shrunk = shrink(&options, Duration::from_secs(60), &mut progress).unwrap();
        assert!(shrunk.is_minimal && !progress.is_empty());
        assert_eq!(shrunk.invariant, whole.invariant);
        assert!(shrunk.events.len() <= 12, "{:#?}", shrunk.events);
        let reduction: Reduction = shrunk.reduction.to_string().parse().unwrap();
        assert_eq!(reduction, shrunk.reduction);
        let again = replay_reduced(&options, &reduction, None).unwrap().failure.unwrap();
        assert_eq!((again.invariant, again.detail), (shrunk.invariant, shrunk.detail));
        assert!(again.events < whole.events);
        assert_eq!(again.replay, shrunk.replay);
        let correct = Options { mutant: None, ..options };
        assert_eq!(replay_reduced(&correct, &reduction, None).unwrap().failure, None);
    }

    #[test]
    fn an_equivocation_shrinks_to_a_dozen_deeds() {
        shrinks_to_a_dozen(Mutant::SequenceUnchecked, Scenario::Equivocation);
    }

    #[test]
    fn lies_to_a_client_shrink_to_a_dozen_deeds() {
        shrinks_to_a_dozen(Mutant::RepliesPerMessage, Scenario::Equivocation);
    }
}
