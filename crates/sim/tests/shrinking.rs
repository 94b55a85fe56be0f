//! A schedule that fails shrinks to little that fails in the same way; one that holds is refused.

use regency_sim::{Effort, Options, Scenario, SimError, shrink};

fn one(seed: u64, scenario: Scenario) -> Options {
    Options { from: seed, seeds: 1, scenario: Some(scenario), ..Options::default() }
}

#[test]
fn a_schedule_that_holds_is_refused() {
    let refused = shrink(&one(1, Scenario::Lossy), Effort::default(), &mut std::io::sink());
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
        let shrunk = shrink(&options, Effort::default(), &mut progress).unwrap();
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
    fn no_more_work_is_done_than_asked_for() {
        let options = broken(Mutant::SequenceUnchecked, Scenario::Equivocation);
        let whole = run(&options).unwrap().failure.unwrap();
        let effort = Effort { events: whole.events * 3, ..Effort::default() };
        let mut progress = Vec::new();
        let shrunk = shrink(&options, effort, &mut progress).unwrap();
        assert!(!shrunk.is_minimal);
        assert!(!progress.is_empty());
        let again = replay_reduced(&options, &shrunk.reduction, None).unwrap().failure.unwrap();
        // What is left is run once more, for its story.
        assert!(shrunk.run_events <= effort.events + 1 + again.events, "{}", shrunk.run_events);
        assert_eq!(again.invariant, whole.invariant);
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
