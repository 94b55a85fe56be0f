//! A campaign of a few thousand seeds comes by every named point: what it never reached was never tested.

use regency_sim::{Options, run};

const SEEDS: u64 = 8000;

#[test]
fn a_campaign_comes_by_every_point() {
    let report = run(&Options { seeds: SEEDS, ..Options::default() }).unwrap();
    assert_eq!(report.failure, None);
    assert_eq!(report.points_missing(), Vec::<&str>::new());
    assert_eq!(report.points_reached(), report.points_total());
    assert_eq!(report.schedules, report.seeds + SEEDS / 100, "one seed in a hundred runs twice");
}
