//! Seeds that once found something. Each must hold for good; what was wrong is told with it.

use regency_sim::{Options, Scenario, run};

fn holds(seed: u64, scenario: Scenario) {
    let report = run(&Options { from: seed, seeds: 1, scenario: Some(scenario), ..Options::default() });
    assert_eq!(report.unwrap().failure, None);
}

/// A replica decided by others' ACCEPTs without having voted; one of those others crashed before its votes had
/// reached everybody; the rest was one vote short for ever.
#[test]
fn a_decided_replica_votes_late_for_those_who_still_need_it() {
    holds(245, Scenario::Crashes);
    holds(985, Scenario::Mixed);
}

/// More than `f` liars had brought the cluster to the last regency there is; a replica that had lost that one's
/// leader wanted to leave it at once, for ever, and its timer never moved on.
#[test]
fn the_last_regency_is_not_left_in_a_loop() {
    holds(548, Scenario::BeyondFaults);
    holds(839, Scenario::BeyondFaults);
}
