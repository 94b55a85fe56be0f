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
