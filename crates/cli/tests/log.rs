//! `regency log` over the log of a replica that does not run.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regency::config::ReplicaConfig;
use regency::protocol::ids::LogPosition;
use regency_storage::directory::{BootId, Marks};
use regency_storage::log::{Log, LogSettings};
use regency_storage::{Identity, RealDisk};

fn regency(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_regency")).args(arguments).output().unwrap()
}

fn log(action: &str, directory: &Path) -> (i32, String, String) {
    let output = regency(&["log", action, directory.to_str().unwrap(), "--json"]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The directory of a replica whose log has five records in five groups.
fn replica(name: &str, is_closed: bool) -> (PathBuf, PathBuf) {
    let cluster = std::env::temp_dir().join(format!("regency-cli-{}-log-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&cluster);
    assert!(regency(&["init", cluster.to_str().unwrap()]).status.success());
    let directory = cluster.join("replica-0");
    let config = ReplicaConfig::load(&directory).unwrap();
    fs::create_dir_all(&config.data).unwrap();
    let identity = Identity { cluster: config.cluster.id(), replica: config.id };
    let settings = LogSettings { segment_bytes: 1 << 16, ..LogSettings::default() };
    let disk = Box::new(RealDisk::new(&config.data));
    let (mut log, _) = Log::open(disk, identity, settings, &mut |_, _| {}).unwrap();
    for kind in 1..=5 {
        log.append(&[kind; 100]).unwrap();
        log.commit().unwrap();
    }
    if is_closed {
        log.close().unwrap();
    }
    (directory, config.data.join("log-000000000001"))
}

/// Removes the cluster that `replica` made.
fn remove(directory: &Path) {
    fs::remove_dir_all(directory.parent().unwrap()).unwrap();
}

/// Makes one byte of a file another.
fn spoil(file: &Path, offset: u64) {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[99]).unwrap();
}

#[test]
fn a_good_log_is_verified_and_dumped() {
    let (directory, _) = replica("good", true);
    let (status, out, _) = log("verify", &directory);
    assert_eq!(status, 0);
    let expected = r#"{"first":1,"last":5,"records":5,"bytes":500,"ending":"sealed","file":null"#;
    assert!(out.starts_with(expected), "{out}");
    let (status, out, _) = log("dump", &directory);
    assert_eq!((status, out.lines().count()), (0, 6));
    let expected = r#"{"position":2,"segment":1,"offset":4256,"length":100,"kind":"0x02","chain":""#;
    assert!(out.lines().nth(1).unwrap().starts_with(expected), "{out}");
    assert!(out.lines().last().unwrap().contains(r#""kind":"seal""#), "{out}");
    remove(&directory);
}

#[test]
fn a_log_that_is_shorter_than_its_replica_left_it_fails() {
    let (directory, file) = replica("short", true);
    let config = ReplicaConfig::load(&directory).unwrap();
    let identity = Identity { cluster: config.cluster.id(), replica: config.id };
    let disk = RealDisk::new(file.parent().unwrap());
    let (mut marks, _) = Marks::open(Box::new(disk), identity).unwrap();
    marks.begin_voting(BootId([1; 16])).unwrap();
    marks.stop(LogPosition(9)).unwrap();
    let (status, out, error) = log("verify", &directory);
    assert!(out.contains(r#""last":5,"#) && out.contains(r#""marks":"stopped in order""#), "{out}");
    assert_eq!(status, 1);
    assert!(error.starts_with("E132 the log ends with record 5, and it had 9 "), "{error}");
    remove(&directory);
}

#[test]
fn a_damaged_log_names_segment_and_offset_and_fails() {
    let (directory, file) = replica("damaged", false);
    spoil(&file, 4096 + 160 + 60);
    let (status, out, error) = log("verify", &directory);
    assert_eq!(status, 1);
    assert!(out.contains(r#""ending":"damaged","file":"log-000000000001","offset":4256"#), "{out}");
    assert!(error.starts_with("E132 "), "{error}");
    assert!(error.contains("log-000000000001 at offset 4256 (record 2)"), "{error}");
    let (status, out, _) = log("dump", &directory);
    assert_eq!((status, out.lines().count()), (1, 1));
    remove(&directory);
}

#[test]
fn a_torn_tail_is_told_and_is_no_failure() {
    let (directory, file) = replica("torn", false);
    spoil(&file, 4096 + 4 * 160 + 60);
    let (status, out, _) = log("verify", &directory);
    assert_eq!(status, 0);
    assert!(out.contains(r#""last":4,"records":4,"bytes":400,"ending":"torn""#), "{out}");
    remove(&directory);
}
