//! The command line against a running cluster: what it prints, and what it ends with.

use anyhow::{Result, ensure};

use super::Bench;
use crate::shape::{Kind, check};

/// A call, what it prints on stdout, and what it ends with.
type Call = (&'static [&'static str], &'static str, i32);

/// Calls of `regency kv DIR`, in order.
const CALLS: [Call; 12] = [
    (&["put", "fruit/apple", "red"], "", 0),
    (&["put", "fruit/pear", "green"], "", 0),
    (&["get", "fruit/apple"], "red\n", 0),
    (&["get", "fruit/plum"], "", 1),
    (&["increment", "count"], "1\n", 0),
    (&["increment", "count", "41"], "42\n", 0),
    (&["increment", "fruit/apple"], "", 1),
    (&["scan", "fruit/"], "fruit/apple\tred\nfruit/pear\tgreen\n", 0),
    (&["delete", "fruit/apple"], "", 0),
    (&["get", "fruit/apple"], "", 1),
    (&["scan", "fruit/"], "fruit/pear\tgreen\n", 0),
    (&["nonsense"], "", 2),
];

/// What `regency status --json` prints for each replica.
const REPLICA_FIELDS: [(&str, Kind); 18] = [
    ("id", Kind::Integer),
    ("address", Kind::Text),
    ("admin", Kind::Text),
    ("reachable", Kind::Truth),
    ("state", Kind::Text),
    ("view", Kind::Integer),
    ("regency", Kind::Integer),
    ("leader", Kind::Integer),
    ("decided", Kind::Integer),
    ("executed", Kind::Integer),
    ("chain", Kind::Text),
    ("stable_checkpoint", Kind::Integer),
    ("pending_requests", Kind::Integer),
    ("sessions", Kind::Integer),
    ("pid", Kind::Integer),
    ("resident_bytes", Kind::Integer),
    ("cpu_seconds", Kind::Number),
    ("uptime_seconds", Kind::Number),
];

pub(super) fn run(bench: &Bench<'_>) -> Result<()> {
    for (words, expected, exit) in CALLS {
        let mut arguments = vec!["kv", bench.cluster.directory()];
        arguments.extend(words);
        let output = bench.binary.output(&arguments)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let found = output.status.code();
        ensure!(found == Some(exit), "kv {words:?} ended with {found:?}, not {exit}: {stdout}{stderr}");
        // What `put` and `delete` say on success is for people and may change.
        if !expected.is_empty() || words.first() == Some(&"get") {
            ensure!(stdout == expected, "kv {words:?} printed {stdout:?}, not {expected:?}");
        }
    }
    status(bench)?;
    wrong_use(bench)
}

fn status(bench: &Bench<'_>) -> Result<()> {
    ensure!(bench.cluster.is_whole()?, "status --check says degraded");
    let status = bench.cluster.status()?;
    check(&status, &[("cluster", Kind::Text)])?;
    let replicas = status["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(replicas.len() == 4, "status shows {} replicas", replicas.len());
    for replica in replicas {
        check(replica, &REPLICA_FIELDS)?;
        ensure!(replica["reachable"] == true && replica["state"] == "normal", "not normal: {replica}");
    }
    // Replicas at the same place of the order have the same history.
    for a in replicas {
        for b in replicas {
            let same = a["executed"] != b["executed"] || a["chain"] == b["chain"];
            ensure!(same, "replicas {} and {} differ at {}", a["id"], b["id"], a["executed"]);
        }
    }
    Ok(())
}

/// Mistakes end in one line with a code and the next step.
fn wrong_use(bench: &Bench<'_>) -> Result<()> {
    let elsewhere = bench.scratch.join("nothing-here");
    let elsewhere = elsewhere.to_string_lossy();
    let three = bench.scratch.join("three");
    let three = three.to_string_lossy();
    let calls: [(&[&str], i32, &str); 4] = [
        (&["status", &elsewhere], 6, "E1"),
        (&["replica", &elsewhere], 6, "E1"),
        (&["init", &three, "--replicas", "3", "--faults", "1"], 6, "E104"),
        (&["counter", bench.cluster.directory(), "get"], 6, "E1"),
    ];
    for (arguments, exit, code) in calls {
        let output = bench.binary.output(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let found = output.status.code();
        ensure!(found == Some(exit), "{arguments:?} ended with {found:?}, not {exit}: {stderr}");
        ensure!(stderr.contains(code), "{arguments:?} does not say {code}: {stderr}");
    }
    Ok(())
}
