//! The services behind four real replicas, each on its thread, with real sockets, keys and clients between.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regency::config::{
    Cluster, DISK_RESERVE_BYTES, Durability, Genesis, GenesisReplica, LogFormat, ReplicaConfig,
    SCRUB_BYTES_PER_SECOND, TRANSFER_BYTES_PER_SECOND,
};
use regency::crypto::SigningKey;
use regency::keys::Seed;
use regency::protocol::ids::ReplicaId;
use regency::protocol::limits::Settings;
use regency::protocol::view::{Mode, RequestAuth};
use regency::replica::prepare_data;
use regency::{Client, ClientConfig, Replica, ReplicaHandle, Service};
use regency_services::counter::{self, Counter};
use regency_services::kv::{KvClient, KvError, KvService, Page, Refusal, Swap};
use regency_services::null::{self, Null};
use regency_services::redis::{Front, Options};
use tokio::runtime::{Builder, Runtime};

struct TestCluster {
    cluster: Arc<Cluster>,
    replicas: Vec<ReplicaHandle>,
    directory: PathBuf,
    runtime: Runtime,
}

impl TestCluster {
    /// Four replicas of `service`; `name` is that of the test.
    fn start<S: Service + Default>(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("regency-services-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let replicas = (0..)
            .zip(&listeners)
            .map(|(id, listener)| GenesisReplica {
                id: ReplicaId(id),
                address: listener.local_addr().unwrap().to_string(),
                key: replica_key(id).public(),
                admin: None,
            })
            .collect();
        let cluster = Cluster::new(Genesis {
            mode: Mode::Bft,
            faults: 1,
            service: name.to_owned(),
            durability: Durability::None,
            request_auth: RequestAuth::Channel,
            clients: Some(vec![client_key().public()]),
            replicas,
            settings: Settings::default(),
        });
        let cluster = Arc::new(cluster.unwrap());
        let replicas = (0..)
            .zip(listeners)
            .map(|(id, listener)| {
                let config = ReplicaConfig {
                    cluster: cluster.clone(),
                    id: ReplicaId(id),
                    seed: Seed::from_bytes(replica_key(id).seed()),
                    listen: listener.local_addr().unwrap().to_string(),
                    admin: None,
                    data: directory.join(id.to_string()),
                    disk_reserve_bytes: DISK_RESERVE_BYTES,
                    transfer_bytes_per_second: TRANSFER_BYTES_PER_SECOND,
                    scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
                    log_format: LogFormat::Text,
                    log_level: None,
                };
                prepare_data(&config.data, cluster.id(), config.id).unwrap();
                Replica::builder(config).service(S::default()).listener(listener).start().unwrap()
            })
            .collect();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { cluster, replicas, directory, runtime }
    }

    fn client(&self, deadline: Duration) -> Client {
        let (view, settings) = (self.cluster.view().clone(), self.cluster.settings().clone());
        let config = ClientConfig { deadline, ..ClientConfig::new(view, settings, client_key()) };
        self.runtime.block_on(Client::connect(config)).unwrap()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.replicas.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn replica_key(id: u16) -> SigningKey {
    SigningKey::from_seed([u8::try_from(id).unwrap() + 1; 32])
}

fn client_key() -> SigningKey {
    SigningKey::from_seed([100; 32])
}

fn talk(front: &Front, commands: &str) -> String {
    let mut stream = TcpStream::connect(front.local_addr()).unwrap();
    stream.write_all(commands.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

#[test]
fn a_cluster_counts() {
    let cluster = TestCluster::start::<Counter>("counter");
    let client = cluster.client(PATIENCE);
    cluster.runtime.block_on(async {
        for sum in [5, 10, 15] {
            let reply = client.invoke(counter::Operation::Add(5).encode()).await.unwrap();
            assert_eq!(counter::Answer::decode(&reply), Some(counter::Answer::Value(sum)));
        }
        let reply = client.invoke(b"garbage".to_vec()).await.unwrap();
        assert_eq!(counter::Answer::decode(&reply), Some(counter::Answer::Malformed));
    });
}

#[test]
fn a_cluster_replies_with_as_much_as_is_asked_for() {
    let cluster = TestCluster::start::<Null>("null");
    let client = cluster.client(PATIENCE);
    cluster.runtime.block_on(async {
        for (request, reply) in [(0, 0), (100, 100), (1024, 1024), (0, 500_000)] {
            assert_eq!(client.invoke(null::operation(request, reply)).await.unwrap().len(), reply);
        }
    });
}

#[test]
fn a_cluster_keeps_keys_and_values() {
    let cluster = TestCluster::start::<KvService>("kv");
    let store = KvClient::new(cluster.client(PATIENCE));
    cluster.runtime.block_on(async {
        assert_eq!(store.get(b"k").await.unwrap(), None);
        store.put(b"k", b"text").await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap().as_deref(), Some(&b"text"[..]));
        assert_eq!(store.increment(b"k", 1).await, Err(KvError::Refused(Refusal::NotAnInteger)));
        assert_eq!(store.increment(b"n", 7).await, Ok(7));
        assert_eq!(store.compare_and_set(b"n", Some(b"7"), Some(b"8")).await, Ok(Swap::Done));
        let mismatch = Swap::Mismatch(Some(b"8".to_vec().into()));
        assert_eq!(store.compare_and_set(b"n", Some(b"7"), None).await, Ok(mismatch));
        assert_eq!(store.count().await, Ok(2));
        let page = store.scan(b"", None, 1).await.unwrap();
        assert_eq!(page.entries, [(b"k".to_vec().into(), b"text".to_vec().into())]);
        let last = store.scan(b"", page.next.as_deref(), 10).await.unwrap();
        assert_eq!(last, Page { entries: vec![(b"n".to_vec().into(), b"8".to_vec().into())], next: None });
        assert_eq!(store.delete(b"k").await, Ok(true));
        assert_eq!(store.delete(b"k").await, Ok(false));
    });
}

#[test]
fn the_redis_front_speaks_for_a_cluster_and_says_when_it_has_no_quorum() {
    let mut cluster = TestCluster::start::<KvService>("redis");
    let client = cluster.client(PATIENCE);
    let address = "127.0.0.1:0".parse().unwrap();
    let front = Front::bind(address, client, Options::default()).unwrap();
    let commands =
        "SET k 1\r\nINCR k\r\nWATCH k\r\nMULTI\r\nGET k\r\nDEL k\r\nEXEC\r\nDBSIZE\r\nSETEX k 100 v\r\n";
    let replies = "+OK\r\n:2\r\n+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n2\r\n:1\r\n:0\r\n+OK\r\n";
    assert_eq!(talk(&front, commands), replies);
    front.stop();

    // One replica may fail; two are one too many.
    cluster.replicas.pop().unwrap().stop().unwrap();
    let client = cluster.client(Duration::from_secs(1));
    let front = Front::bind(address, client, Options::default()).unwrap();
    assert_eq!(talk(&front, "GET k\r\n"), "$1\r\nv\r\n");
    cluster.replicas.pop().unwrap().stop().unwrap();
    let reply = talk(&front, "SET k 2\r\nPING\r\n");
    assert!(reply.starts_with("-TRYAGAIN no quorum: "), "{reply}");
    assert!(reply.ends_with("\r\n+PONG\r\n"), "{reply}");
    front.stop();
}
