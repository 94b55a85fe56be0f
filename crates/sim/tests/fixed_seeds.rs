//! A few hundred fixed seeds of every scenario; whatever breaks one of them breaks the build.

use std::collections::BTreeSet;

use regency_sim::{Options, Scenario, run};

fn holds(scenario: Scenario, seeds: u64) {
    let report = run(&Options { seeds, scenario: Some(scenario), ..Options::default() }).unwrap();
    assert_eq!(report.failure, None);
    assert_eq!(report.seeds, seeds);
}

macro_rules! scenarios {
    ($($name:ident => $scenario:ident,)*) => {
        #[test]
        fn every_scenario_has_its_seeds() {
            let listed = BTreeSet::from([$(Scenario::$scenario,)*]);
            assert_eq!(listed, Scenario::ALL.iter().copied().collect());
        }

        $(
            #[test]
            fn $name() {
                let seeds = if Scenario::$scenario == Scenario::Long { 10 } else { 50 };
                holds(Scenario::$scenario, seeds);
            }
        )*
    };
}

scenarios! {
    a_calm_cluster_answers => Calm,
    lost_late_and_repeated_frames_do_no_harm => Lossy,
    partitions_heal => Partitions,
    paused_replicas_catch_up => Pauses,
    crashed_followers_are_not_missed => Crashes,
    a_crashed_leader_leaves_everybody_agreed => LeaderCrash,
    an_equivocating_leader_divides_nobody => Equivocation,
    lying_followers_are_outvoted => Liars,
    a_lying_leader_divides_nobody => LyingLeader,
    twins_divide_nobody => Twins,
    leaders_cut_off_one_after_the_other_are_survived => Depositions,
    liars_that_lead_or_state_lies_divide_nobody => Usurpers,
    too_many_liars_make_nobody_fall_over => BeyondFaults,
    rogue_clients_harm_only_themselves => RogueClients,
    the_smallest_limits_are_enough => Edges,
    a_crash_only_cluster_survives_crashes => CrashOnly,
    everything_at_once_is_survived => Mixed,
    long_runs_under_small_limits_hold => Long,
    rounds_that_reach_some_only_divide_nobody => Rounds,
    rounds_that_fail_in_a_crash_only_cluster_divide_nobody => CrashRounds,
    a_network_slower_than_the_timers_is_waited_for => SlowNetwork,
    locks_older_than_clocks_may_differ_are_proposed_again => OldLocks,
    a_storm_of_stops_from_one_changes_nothing => StopStorm,
    a_leader_that_only_seems_to_work_is_replaced => Censor,
    a_client_that_few_replicas_hear_costs_one_leader => HalfHeard,
    writes_that_others_followed_still_vouch_for_a_lock => Overwritten,
    replicas_that_end_anywhere_come_back_as_they_were => DurableCrash,
    a_cluster_that_ends_at_once_comes_back_with_all_it_knew => WholeCluster,
    replicas_that_miss_too_much_take_it_from_others_of_whom_some_lie => Transfer,
    too_many_that_forget_undo_nothing => Forgotten,
    failing_disks_stop_their_replicas_and_nobody_else => DiskFaults,
}
