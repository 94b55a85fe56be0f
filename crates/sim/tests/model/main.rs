//! An exhaustive check of voting and *selection*: every history that three correct replicas and one arbitrary liar can
//! have, with the real [`select`](regency_protocol::leader_change::selection::select) on real STOPDATAs.
//!
//! Run with `--nocapture` to see how many states there are.

mod histories;
mod liar;

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};

use crate::histories::{AGREEMENT, DECIDES, Histories};

#[test]
fn one_instance_in_three_epochs_is_safe_and_decides() {
    let checker = Histories::new(1, 3).checker().threads(2).spawn_bfs().join();
    println!(
        "1 instance, 3 epochs: all {} states, {} steps",
        checker.unique_state_count(),
        checker.state_count()
    );
    assert!(checker.is_done());
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), 1_447_204, "another model, or another selection");
}

/// As far as it gets: all histories of two instances are too many.
#[test]
fn two_instances_are_safe_and_decide_as_far_as_it_gets() {
    for epochs in [2, 3] {
        let builder = Histories::new(2, epochs).checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
        let checker = builder.timeout(Duration::from_secs(10)).spawn_dfs().join();
        println!("2 instances, {epochs} epochs: {} states, not all", checker.unique_state_count());
        checker.assert_no_discovery(AGREEMENT);
        checker.assert_no_discovery(DECIDES);
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use regency_protocol::mutants::Mutant;

    use super::*;

    /// Which of the properties a broken rule breaks first, and the shortest history that shows it.
    fn breaks(mutant: Mutant) -> &'static str {
        let histories = Histories::new(1, 3).breaking(mutant);
        let checker =
            histories.checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        for property in [AGREEMENT, DECIDES] {
            if let Some(path) = checker.discovery(property) {
                println!("{}: {property} after {:?}", mutant.name(), path.into_actions());
                return property;
            }
        }
        panic!("{} survived {} states", mutant.name(), checker.unique_state_count());
    }

    macro_rules! caught {
        ($($name:ident: $mutant:ident => $property:ident,)*) => {
            $(
                #[test]
                fn $name() {
                    assert_eq!(breaks(Mutant::$mutant), $property);
                }
            )*
        };
    }

    caught! {
        selection_must_look_at_locks: LocksIgnored => AGREEMENT,
        no_lock_is_not_a_lock_in_epoch_zero: NoLockIsEpochZero => AGREEMENT,
        a_lock_needs_a_quorum_without_rivals: BoundWithoutQuorum => AGREEMENT,
        a_lock_needs_others_that_wrote_it: BoundWithoutWrites => AGREEMENT,
        writes_of_older_epochs_must_not_lock: OlderWritesLock => DECIDES,
        accepts_of_different_epochs_must_not_be_counted_together: AcceptsAcrossEpochs => AGREEMENT,
        a_quorum_must_not_be_smaller: QuorumTooSmall => AGREEMENT,
        the_write_set_must_hold_every_digest: WriteSetLastOnly => DECIDES,
    }

    /// [SYNC-2] says so, and this is why no campaign kills these two: where several choices are left each is safe,
    /// and all make the same one.
    #[test]
    fn which_of_several_choices_is_made_is_no_matter_of_safety() {
        for mutant in [Mutant::FreePreferred, Mutant::LowestEpochBound] {
            let checker = Histories::new(1, 3).breaking(mutant).checker().threads(2).spawn_bfs().join();
            println!("{}: all {} states", mutant.name(), checker.unique_state_count());
            assert!(checker.is_done());
            checker.assert_properties();
        }
    }
}
