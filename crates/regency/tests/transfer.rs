//! Real replicas that lost something: they get it from the others, vote again, and keep what they got.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::cluster::{Plan, TestCluster, client_key};
use harness::{PATIENCE, eventually};
use regency::client::{ClientConfig, blocking};
use regency::config::Durability;
use regency::protocol::limits::Settings;
use regency::replica::Life;
use regency::{Bytes, Context, RestoreError, Service, Snapshot};

/// Bytes that an operation adds.
const OPERATION_BYTES: usize = 50_000;

/// Keeps everything that it is given.
#[derive(Default)]
struct Pile(Vec<u8>);

impl Service for Pile {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        self.0.extend_from_slice(operation);
        Bytes::copy_from_slice(&(self.0.len() as u64).to_le_bytes())
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(Heap(self.0.clone()))
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0.clear();
        source.read_to_end(&mut self.0)?;
        Ok(())
    }
}

struct Heap(Vec<u8>);

impl Snapshot for Heap {
    fn write(self: Box<Self>, sink: &mut dyn Write) -> std::io::Result<()> {
        sink.write_all(&self.0)
    }
}

/// A pile into which something else falls, until it is given a state from elsewhere.
struct Flawed {
    pile: Pile,
    is_flawed: bool,
}

impl Service for Flawed {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        if std::mem::take(&mut self.is_flawed) {
            self.pile.0.push(7);
        }
        self.pile.execute(context, operation)
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.pile.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.pile.restore(source)
    }
}

/// A pile that takes its time for everything.
struct Slow(Pile);

impl Service for Slow {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        std::thread::sleep(Duration::from_millis(3));
        self.0.execute(context, operation)
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0.restore(source)
    }
}

/// A cluster that keeps so many instances in memory and takes checkpoints often.
fn start(durability: Durability, retained_instances: u64) -> TestCluster {
    let settings = Settings {
        window: 2,
        chain_interval: 2,
        span: 6,
        retained_instances,
        retained_bytes: 1,
        checkpoint_interval: 10,
        ..Settings::default()
    };
    let mut cluster = TestCluster::new(Plan { settings, durability, ..Plan::default() });
    (0..4).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    cluster.wait_connected();
    cluster
}

fn client(cluster: &TestCluster) -> blocking::Client {
    let settings = cluster.cluster.settings().clone();
    let mut config = ClientConfig::new(cluster.cluster.view().clone(), settings, client_key(0));
    config.deadline = PATIENCE;
    blocking::Client::connect(&config).unwrap()
}

/// Adds to the pile so often, each time something else.
fn pile(client: &blocking::Client, times: u64) {
    let mut state = times;
    for _ in 0..times {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        let operation: Vec<u8> = (0..OPERATION_BYTES).map(|_| next()).collect();
        client.invoke(operation).unwrap();
    }
}

fn agree(cluster: &TestCluster) {
    eventually("the replicas agree", || {
        let chains: Vec<_> =
            (0..4).map(|id| cluster.status(id)).map(|status| (status.executed, status.chain)).collect();
        chains.windows(2).all(|pair| pair[0] == pair[1])
    });
}

fn wait_normal(cluster: &TestCluster, id: u16) {
    eventually("it takes part again", || cluster.status(id).state == "normal");
}

fn files(cluster: &TestCluster, id: u16, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.config(id).data).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

/// Starts a replica again, and waits until it has what the others have.
fn restart(cluster: &mut TestCluster, client: &blocking::Client, id: u16) {
    cluster.start_replica_with(id, Pile::default());
    cluster.wait_connected();
    // Without a log it may have to wait for the next checkpoint.
    eventually("it has caught up", || {
        pile(client, 1);
        let [it, other] = [id, (id + 1) % 4].map(|id| cluster.status(id).executed);
        it + 2 >= other
    });
    agree(cluster);
}

#[test]
fn a_replica_that_reads_its_log_tells_how_far_it_is() {
    let mut cluster = TestCluster::new(Plan { durability: Durability::Sync, ..Plan::default() });
    (0..4).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    let client = client(&cluster);
    for _ in 0..250 {
        client.invoke(vec![1]).unwrap();
    }
    agree(&cluster);
    cluster.stop_replica(3);
    cluster.start_replica_with(3, Slow(Pile::default()));
    eventually("it says so while it reads", || {
        let status = cluster.status(3);
        let reason = status.readiness.reason.unwrap_or_default();
        status.state == "recovering"
            && reason.contains("reads its log")
            && (1..250).contains(&status.executed)
    });
    agree(&cluster);
}

#[test]
fn a_replica_whose_disk_was_replaced_gets_everything_and_votes_again() {
    for durability in [Durability::Sync, Durability::Async] {
        let mut cluster = start(durability, 10);
        let client = client(&cluster);
        pile(&client, 45);
        agree(&cluster);
        cluster.stop_replica(3);
        pile(&client, 15);
        fs::remove_dir_all(cluster.config(3).data).unwrap();
        restart(&mut cluster, &client, 3);
        assert_eq!(cluster.replicas[&3].life(), Life::VotesLost);
        assert!(cluster.replicas[&3].metrics().transfers.get() > 0, "by a snapshot");
        let given: u64 = (0..3).map(|id| cluster.replicas[&id].metrics().donated_chunks.get()).sum();
        assert!(given > 0);
        // What is asked for before those lines are there comes on the others.
        eventually("most of it came on lines of its own", || {
            cluster.replicas[&3].metrics().bulk_bytes_in.get() > (30 * OPERATION_BYTES) as u64
        });
        pile(&client, 20);
        wait_normal(&cluster, 3);
        // Its votes are needed now, and its log has them.
        cluster.stop_replica(0);
        pile(&client, 12);
        cluster.stop_replica(3);
        cluster.start_replica_with(0, Pile::default());
        pile(&client, 1);
        restart(&mut cluster, &client, 3);
        assert!(matches!(cluster.replicas[&3].life(), Life::Kept { .. }), "{durability:?}");
        assert_eq!(cluster.replicas[&3].metrics().transfers.get(), 0, "what it missed was kept for it");
        wait_normal(&cluster, 3);
    }
}

#[test]
fn a_damaged_log_is_set_aside_and_only_what_is_missing_is_fetched() {
    let mut cluster = start(Durability::Sync, 10);
    let client = client(&cluster);
    pile(&client, 25);
    agree(&cluster);
    cluster.stop_replica(3);
    let log = files(&cluster, 3, "log-0").into_iter().next_back().unwrap();
    damage(&log);
    restart(&mut cluster, &client, 3);
    pile(&client, 20);
    wait_normal(&cluster, 3);
    agree(&cluster);
    cluster.stop_replica(3);
    restart(&mut cluster, &client, 3);
    assert!(matches!(cluster.replicas[&3].life(), Life::Kept { .. }));
}

#[test]
fn who_has_no_log_any_more_has_lost_its_votes() {
    let mut cluster = start(Durability::Sync, 10);
    let client = client(&cluster);
    pile(&client, 25);
    wait_normal(&cluster, 3);
    (0..4).for_each(|id| cluster.stop_replica(id));
    // As after a kill, no mark says how many records there were.
    files(&cluster, 3, "clean-stop").iter().for_each(|file| fs::remove_file(file).unwrap());
    files(&cluster, 3, "log-").iter().for_each(|file| fs::remove_file(file).unwrap());
    cluster.start_replica_with(3, Pile::default());
    eventually("it is state-lost", || cluster.status(3).state == "state-lost");
    (0..3).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    pile(&client, 20);
    wait_normal(&cluster, 3);
    agree(&cluster);
}

#[test]
fn votes_stay_lost_while_nobody_says_what_they_were_for() {
    let mut cluster = start(Durability::Sync, 10);
    let client = client(&cluster);
    pile(&client, 25);
    (0..4).for_each(|id| cluster.stop_replica(id));
    fs::remove_dir_all(cluster.config(3).data).unwrap();
    for _ in 0..2 {
        // Alone it cannot know, so a start in between changes nothing.
        cluster.start_replica_with(3, Pile::default());
        assert_eq!(cluster.replicas[&3].life(), Life::VotesLost);
        eventually("it is state-lost", || cluster.status(3).state == "state-lost");
        cluster.stop_replica(3);
        assert_eq!(files(&cluster, 3, "votes-lost").len(), 1);
    }
    (0..3).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    restart(&mut cluster, &client, 3);
    pile(&client, 20);
    wait_normal(&cluster, 3);
    eventually("nothing is lost", || files(&cluster, 3, "votes-lost").is_empty());
}

/// Turns a bit in the middle of what is written in a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_on_a_running_replicas_disk_is_found_and_goes() {
    let mut cluster = start(Durability::Sync, 10);
    let client = client(&cluster);
    pile(&client, 25);
    let newest = |cluster: &TestCluster, id| {
        let is_of_data = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "data");
        files(cluster, id, "snapshot-").into_iter().rfind(is_of_data)
    };
    eventually("the checkpoint is stable everywhere", || {
        (0..4).all(|id| cluster.status(id).stable_checkpoint == cluster.status(0).executed / 10 * 10)
    });
    let snapshot = newest(&cluster, 3).unwrap();
    let good = fs::read(&snapshot).unwrap();
    damage(&snapshot);
    eventually("the snapshot is as it was, without any request", || {
        cluster.replicas[&3].metrics().repairs.get() == 1 && cluster.status(3).damage.is_empty()
    });
    assert_eq!(fs::read(&snapshot).unwrap(), good);
    assert_eq!(cluster.status(3).state, "normal");

    let log = files(&cluster, 3, "log-0").into_iter().next_back().unwrap();
    damage(&log);
    eventually("it is told", || cluster.status(3).damage.iter().any(|what| what.starts_with("the log")));
    eventually("a checkpoint lies behind it", || {
        pile(&client, 1);
        cluster.status(3).damage.is_empty()
    });
    assert!(!log.exists());
    cluster.stop_replica(3);
    restart(&mut cluster, &client, 3);
    assert!(matches!(cluster.replicas[&3].life(), Life::Kept { .. }), "no vote was lost by it");
}

#[test]
fn too_many_lost_disks_are_named_wherever_the_replicas_were_started() {
    let mut cluster = start(Durability::Sync, 10);
    let client = client(&cluster);
    pile(&client, 25);
    (0..4).for_each(|id| cluster.stop_replica(id));
    for id in 2..4 {
        fs::remove_dir_all(cluster.config(id).data).unwrap();
    }
    (0..4).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    for id in 2..4 {
        eventually("it knows how many there are", || {
            let reason = cluster.status(id).readiness.reason.unwrap_or_default();
            reason.contains("2 of 4 replicas have lost their votes, more than f = 1")
        });
    }
    assert_ne!(cluster.status(0).state, "state-lost");
}

#[test]
fn replicas_that_keep_nothing_on_disk_but_snapshots_help_each_other() {
    // Without a log what lies above the last stable checkpoint comes out of memory alone.
    let mut cluster = start(Durability::None, 60);
    let client = client(&cluster);
    pile(&client, 120);
    cluster.stop_replica(3);
    fs::remove_dir_all(cluster.config(3).data).unwrap();
    restart(&mut cluster, &client, 3);
    assert!(cluster.replicas[&3].metrics().transfers.get() > 0);
    pile(&client, 20);
    wait_normal(&cluster, 3);
    cluster.stop_replica(3);
    restart(&mut cluster, &client, 3);
    assert_eq!(cluster.replicas[&3].life(), Life::VotesLost, "votes are in memory only");
}

#[test]
fn a_state_that_differs_is_replaced_by_the_signed_one_and_the_replica_goes_on() {
    let settings = Settings { checkpoint_interval: 10, ..Settings::default() };
    let mut cluster = TestCluster::new(Plan { settings, durability: Durability::Sync, ..Plan::default() });
    (0..3).for_each(|id| cluster.start_replica_with(id, Pile::default()));
    cluster.start_replica_with(3, Flawed { pile: Pile::default(), is_flawed: true });
    cluster.wait_connected();
    let client = client(&cluster);
    let metrics = cluster.replicas[&3].metrics().clone();
    eventually("it notices", || {
        pile(&client, 1);
        metrics.divergences.get() > 0
    });
    eventually("it has the signed state", || {
        pile(&client, 1);
        metrics.transfers.get() > 0 && cluster.status(3).state == "normal"
    });
    pile(&client, 20);
    agree(&cluster);
    assert_eq!(metrics.divergences.get(), 1, "its state is that of the others from then on");
    let stable = cluster.status(3).stable_checkpoint;
    eventually("it signs as they do", || {
        pile(&client, 1);
        cluster.status(3).stable_checkpoint > stable
    });
}
