//! A campaign of a few thousand seeds comes by every named point: what it never reached was never tested.

use regency_sim::{Options, Scenario, run};

const SEEDS: u64 = 8000;
/// Few of those are about state transfer, whose points need some more.
const TRANSFER_SEEDS: u64 = 200;

#[test]
fn a_campaign_comes_by_every_point() {
    let mut report = run(&Options { seeds: SEEDS, ..Options::default() }).unwrap();
    assert_eq!(report.failure, None);
    let transfers =
        Options { seeds: TRANSFER_SEEDS, scenario: Some(Scenario::Transfer), ..Options::default() };
    report.points.extend(run(&transfers).unwrap().points);
    assert_eq!(report.points_missing(), Vec::<&str>::new());
    assert_eq!(report.points_reached(), report.points_total());
    assert_eq!(report.schedules, report.seeds + SEEDS / 100, "one seed in a hundred runs twice");
}
