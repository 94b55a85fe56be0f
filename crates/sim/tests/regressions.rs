//! Seeds that once found something. Each must hold for good; what was wrong is told with it.

use regency_sim::{Options, Reduction, Scenario, replay_reduced, run};

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

/// With more than `f` liars a replica decided what the others did not, and took their state over: its log contradicted
/// itself, and it lived on although it had refused to start.
#[test]
fn a_replica_whose_log_contradicts_itself_stays_away() {
    holds(182_150, Scenario::BeyondFaults);
}

/// One shrunk schedule a line, as `regency sim --shrink` prints it.
const SHRUNK: &str = include_str!("regressions.txt");

#[test]
fn shrunk_schedules_hold() {
    for line in SHRUNK.lines().filter(|line| !line.starts_with('#')) {
        let [scenario, seed, reduction] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let scenario = Some(Scenario::from_name(scenario).expect(line));
        let options = Options { from: seed.parse().expect(line), seeds: 1, scenario, ..Options::default() };
        let reduction: Reduction = reduction.parse().expect(line);
        let report = replay_reduced(&options, &reduction, None).unwrap();
        assert!(report.events > 0);
        assert_eq!(report.failure, None);
    }
}

/// A replica started again behind a cut, its first words were lost, and all the others were done by the time the link
/// worked again: a new channel is what tells both.
#[test]
fn a_replica_that_starts_again_behind_a_cut_is_heard_when_the_link_works() {
    holds(7287, Scenario::CrashOnly);
}
