//! What needs no cluster: the files of one, keys, errors and exit statuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own for a test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("regency-cli-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn regency(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_regency")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line on stderr, with its exit status.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = regency(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    (output.status.code().unwrap(), text.trim_end().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn init_writes_the_files_of_a_cluster() {
    let scratch = Scratch::new("init");
    let demo = scratch.path("demo");
    let output = regency(&["init", text(&demo)]);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("n = 4, f = 1, service kv"), "{output:?}");
    for id in 0..4 {
        let own = demo.join(format!("replica-{id}"));
        assert!(own.join("replica.toml").is_file());
        assert!(own.join("data").is_dir());
        assert_eq!(fs::metadata(own.join("key")).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    let cluster = fs::read_to_string(demo.join("cluster.toml")).unwrap();
    for (port, admin) in [(7000, 7100), (7003, 7103)] {
        assert!(cluster.contains(&format!("\"127.0.0.1:{port}\"")), "{cluster}");
        assert!(cluster.contains(&format!("\"127.0.0.1:{admin}\"")), "{cluster}");
    }
    for key in ["client/key", "admin/key"] {
        assert_eq!(fs::metadata(demo.join(key)).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert!(demo.join("client/client.toml").is_file());
}

#[test]
fn init_replaces_a_cluster_only_with_force_and_nothing_else_ever() {
    let scratch = Scratch::new("force");
    let demo = scratch.path("demo");
    assert!(regency(&["init", text(&demo)]).status.success());
    let first = fs::read_to_string(demo.join("cluster.toml")).unwrap();
    let (status, line) = refusal(&["init", text(&demo)]);
    assert_eq!((status, line.starts_with("E122 ")), (2, true), "{line}");
    assert!(regency(&["init", text(&demo), "--force", "--replicas", "7"]).status.success());
    assert_ne!(fs::read_to_string(demo.join("cluster.toml")).unwrap(), first);
    fs::write(demo.join("thesis.tex"), "years of work").unwrap();
    let (status, line) = refusal(&["init", text(&demo), "--force"]);
    assert_eq!(status, 2);
    assert!(line.contains("thesis.tex is not part of a cluster"), "{line}");
    assert!(demo.join("replica-6/key").is_file());
}

#[test]
fn init_refuses_too_few_replicas() {
    let scratch = Scratch::new("few");
    let demo = scratch.path("demo");
    let few = "E104 n = 3 tolerates f = 0 in bft mode: add a replica (n >= 3f+1) or use --mode cft";
    for arguments in [&["--replicas", "3"][..], &["--replicas", "3", "--faults", "1"]] {
        let (status, line) = refusal(&[&["init", text(&demo)], arguments].concat());
        assert_eq!((status, line.as_str()), (6, few));
    }
    assert!(!demo.exists());
    assert!(regency(&["init", text(&demo), "--replicas", "3", "--mode", "cft"]).status.success());
}

#[test]
fn init_knows_three_durabilities_and_takes_the_safest() {
    let scratch = Scratch::new("durability");
    let levels = [("a", None, "sync"), ("b", Some("async"), "async"), ("c", Some("none"), "none")];
    for (name, flag, expected) in levels {
        let demo = scratch.path(name);
        let mut arguments = vec!["init", text(&demo)];
        arguments.extend(flag.iter().flat_map(|flag| ["--durability", flag]));
        assert!(regency(&arguments).status.success());
        let file = fs::read_to_string(demo.join("cluster.toml")).unwrap();
        assert!(file.contains(&format!("durability = \"{expected}\"")), "{file}");
        assert!(demo.join("replica-0/data/never-voted").is_file());
    }
    assert_eq!(regency(&["init", text(&scratch.path("d")), "--durability", "some"]).status.code(), Some(2));
}

#[test]
fn init_takes_settings_by_their_names() {
    let scratch = Scratch::new("settings");
    let demo = scratch.path("demo");
    let (status, line) = refusal(&["init", text(&demo), "--set", "checkpoint_intervall=500"]);
    assert_eq!(status, 6);
    assert!(line.starts_with("E113 ") && line.contains("\"checkpoint_interval\""), "{line}");
    assert!(regency(&["init", text(&demo), "--set", "checkpoint_interval=500"]).status.success());
    let file = fs::read_to_string(demo.join("cluster.toml")).unwrap();
    assert!(file.contains("\ncheckpoint_interval = 500\n"), "{file}");
}

#[test]
fn init_with_members_holds_no_key_of_theirs() {
    let scratch = Scratch::new("members");
    let demo = scratch.path("demo");
    let mut arguments = vec!["init".to_owned(), text(&demo).to_owned()];
    for id in 0..4 {
        let key = scratch.path(&format!("key-{id}"));
        let generated = regency(&["keys", "generate", text(&key)]);
        assert!(generated.status.success(), "{generated:?}");
        let shown = regency(&["keys", "show", text(&key)]);
        assert_eq!(generated.stdout, shown.stdout);
        arguments.push("--member".to_owned());
        arguments.push(format!("{id}=localhost:{},{}", 9000 + 10 * id, stdout(&shown).trim()));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = regency(&arguments);
    assert!(output.status.success(), "{output:?}");
    let cluster = fs::read_to_string(demo.join("cluster.toml")).unwrap();
    assert!(cluster.contains("\"localhost:9030\"") && cluster.contains("\"localhost:9130\""), "{cluster}");
    assert!(demo.join("replica-3/replica.toml").is_file());
    assert!(!demo.join("replica-3/key").exists());
    let twice = [&arguments[..], &["--force", "--member", arguments[3]]].concat();
    let (status, line) = refusal(&twice);
    assert_eq!((status, line.starts_with("E109 ")), (6, true), "{line}");
}

#[test]
fn keys_are_shown_as_json_too_and_never_overwritten() {
    let scratch = Scratch::new("keys");
    let key = scratch.path("key");
    assert!(regency(&["keys", "generate", text(&key)]).status.success());
    let shown: serde_json::Value =
        serde_json::from_slice(&regency(&["keys", "show", text(&key), "--json"]).stdout).unwrap();
    assert_eq!(shown["public_key"].as_str().unwrap().len(), 64);
    assert_eq!(shown["client"].as_str().unwrap().len(), 64);
    let (status, line) = refusal(&["keys", "generate", text(&key)]);
    assert_eq!((status, line.starts_with("E122 ")), (2, true), "{line}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let (status, line) = refusal(&["keys", "show", text(&key)]);
    let shown = text(&key);
    assert_eq!((status, line), (6, format!("E101 key {shown} has mode 0640: run chmod 600 {shown}")));
}

#[test]
fn wrong_use_is_one_line_with_advice() {
    let advised = [
        (
            &["bench", "--flor"][..],
            "E100 unexpected argument '--flor' found: a similar argument exists: '--floor'",
        ),
        (&[], "E100 a command is missing: see regency --help"),
        (&["inti"], "E100 unrecognized subcommand 'inti': a similar subcommand exists: 'init'"),
    ];
    for (arguments, expected) in advised {
        assert_eq!(refusal(arguments), (2, expected.to_owned()));
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = stdout(&regency(&["--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 3, "{help}");
    for command in commands {
        let output = regency(&[command, "--help"]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("Example:"), "{command}");
    }
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let output = regency(&["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains("regency"), "{shell}");
    }
}

#[test]
fn the_floor_is_measured_with_bare_sockets() {
    let floor = regency(&[
        "bench",
        "--floor",
        "--clients",
        "3",
        "--in-flight",
        "2",
        "--connections",
        "per-client",
        "--warmup",
        "50ms",
        "--duration",
        "200ms",
        "--request-bytes",
        "100",
        "--reply-bytes",
        "100",
        "--json",
    ]);
    assert!(floor.status.success(), "{floor:?}");
    let measured: serde_json::Value = serde_json::from_slice(&floor.stdout).unwrap();
    for exchange in ["echo", "pattern"] {
        let line = &measured[exchange];
        assert!(line["throughput"].as_f64().unwrap() > 0.0, "{measured}");
        for figure in ["mean", "p50", "p99", "p999", "max"] {
            assert!(line["latency_us"][figure].as_f64().unwrap() > 0.0, "{measured}");
        }
    }
}

#[test]
fn a_misspelt_key_of_a_configuration_names_the_right_one() {
    let scratch = Scratch::new("misspelt");
    let demo = scratch.path("demo");
    assert!(regency(&["init", text(&demo)]).status.success());
    let own = demo.join("replica-1");
    let file = own.join("replica.toml");
    fs::write(&file, "id = 1\nlisen = \"127.0.0.1:7001\"\n").unwrap();
    let (status, line) = refusal(&["replica", text(&own)]);
    assert_eq!(status, 6);
    assert!(line.starts_with("E113 ") && line.contains("line 2") && line.contains("\"listen\""), "{line}");
}

#[test]
fn a_replica_refuses_a_key_that_others_can_read_and_a_key_of_another() {
    let scratch = Scratch::new("replica-key");
    let demo = scratch.path("demo");
    assert!(regency(&["init", text(&demo)]).status.success());
    let own = demo.join("replica-2");
    let key = own.join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (status, line) = refusal(&["replica", text(&own)]);
    let shown = text(&key);
    assert_eq!((status, line), (6, format!("E101 key {shown} has mode 0644: run chmod 600 {shown}")));
    fs::copy(demo.join("replica-3/key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (status, line) = refusal(&["replica", text(&own)]);
    assert_eq!((status, line.starts_with("E108 ")), (6, true), "{line}");
}

#[test]
fn the_status_of_a_cluster_that_does_not_run_has_a_row_for_each_replica() {
    let scratch = Scratch::new("status");
    let demo = scratch.path("demo");
    // Nobody listens on ports this low without being root; if somebody does, it is no replica of this cluster.
    assert!(regency(&["init", text(&demo), "--base-port", "1"]).status.success());
    let output = regency(&["status", text(&demo), "--json"]);
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["cluster"].as_str().unwrap().len(), 64);
    let replicas = status["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 4);
    for (id, row) in replicas.iter().enumerate() {
        assert_eq!((row["id"].as_u64(), row["reachable"].as_bool()), (u64::try_from(id).ok(), Some(false)));
        for field in ["state", "view", "leader", "decided", "chain", "stable_checkpoint", "uptime_seconds"] {
            assert!(row[field].is_null(), "{field}: {row}");
        }
    }
    assert_eq!(regency(&["status", text(&demo), "--json", "--check"]).status.code(), Some(4));
}

#[test]
fn a_cluster_that_exists_does_not_change_by_flags() {
    let scratch = Scratch::new("contradiction");
    let demo = scratch.path("demo");
    assert!(regency(&["init", text(&demo)]).status.success());
    let (status, line) = refusal(&["cluster", text(&demo), "--no-ui", "--service", "counter"]);
    assert_eq!((status, line.starts_with("E110 ")), (6, true), "{line}");
    assert!(line.contains("--service"), "{line}");
}

#[test]
fn the_simulator_reports_in_json() {
    let output = regency(&["sim", "--seeds", "20", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["seeds"].as_u64(), &report["failure"]), (Some(20), &serde_json::Value::Null));
    for field in ["schedules", "events", "seconds", "points_reached", "points_total"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
    }
    assert!(report["points_missing"].is_array());
}
