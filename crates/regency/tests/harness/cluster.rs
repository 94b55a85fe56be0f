//! A cluster of replicas, each on its own thread, that tests start, stop and restart one by one.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use regency::config::{
    Cluster, DISK_RESERVE_BYTES, Durability, Genesis, GenesisReplica, LogFormat, ReplicaConfig,
    TRANSFER_BYTES_PER_SECOND,
};
use regency::crypto::SigningKey;
use regency::keys::Seed;
use regency::protocol::ids::ReplicaId;
use regency::protocol::limits::Settings;
use regency::protocol::view::{Mode, RequestAuth, View};
use regency::replica::{Patience, StatusReport, prepare_data};
use regency::{Bytes, Context, Frozen, Replica, ReplicaHandle, RestoreError, Service, Snapshot};

use super::proxy::Proxy;
use super::{PATIENCE, eventually};

/// Adds what it is given; answers with the sum.
#[derive(Default)]
pub struct Counter(u64);

impl Service for Counter {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        let delta = operation.try_into().map(u64::from_le_bytes).unwrap_or(0);
        self.0 = self.0.wrapping_add(delta);
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Frozen::image(self.0.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0 = u64::from_le_bytes(Frozen::read(source)?);
        Ok(())
    }
}

/// What a cluster is started with.
pub struct Plan {
    pub request_auth: RequestAuth,
    pub clients_are_listed: bool,
    pub settings: Settings,
    pub durability: Durability,
    /// Whether replicas and clients reach each replica through a relay that can be cut.
    pub behind_proxies: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            request_auth: RequestAuth::Signature,
            clients_are_listed: true,
            settings: Settings::default(),
            durability: Durability::None,
            behind_proxies: false,
        }
    }
}

/// How long replicas leave their disks alone between two readings.
const SCRUB_REST: Duration = Duration::from_millis(20);

/// Four replicas of a counter.
pub struct TestCluster {
    pub cluster: Arc<Cluster>,
    configs: Vec<ReplicaConfig>,
    listeners: BTreeMap<u16, TcpListener>,
    pub replicas: BTreeMap<u16, ReplicaHandle>,
    proxies: BTreeMap<u16, Proxy>,
    directory: PathBuf,
}

pub fn replica_key(id: u16) -> SigningKey {
    SigningKey::from_seed([u8::try_from(id).unwrap() + 1; 32])
}

/// The key of a listed client.
pub fn client_key(number: u8) -> SigningKey {
    SigningKey::from_seed([100 + number; 32])
}

/// A key that no cluster knows.
pub fn stranger_key() -> SigningKey {
    SigningKey::from_seed([250; 32])
}

impl TestCluster {
    /// A cluster of which nothing runs yet.
    pub fn new(plan: Plan) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("regency-test-{}-{number}", std::process::id()));
        let listeners: BTreeMap<u16, TcpListener> =
            (0..4).map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
        let listen = |id: u16| listeners[&id].local_addr().unwrap();
        let proxied = listeners.keys().filter(|_| plan.behind_proxies);
        let proxies: BTreeMap<u16, Proxy> = proxied.map(|id| (*id, Proxy::start(listen(*id)))).collect();
        let replicas = listeners
            .keys()
            .map(|id| GenesisReplica {
                id: ReplicaId(*id),
                address: proxies.get(id).map_or_else(|| listen(*id), |proxy| proxy.address).to_string(),
                key: replica_key(*id).public(),
                admin: None,
            })
            .collect();
        let listed = (0..10).map(|number| client_key(number).public()).collect();
        let cluster = Cluster::new(Genesis {
            mode: Mode::Bft,
            faults: 1,
            service: "counter".into(),
            durability: plan.durability,
            request_auth: plan.request_auth,
            clients: plan.clients_are_listed.then_some(listed),
            replicas,
            settings: plan.settings,
        });
        let cluster = Arc::new(cluster.unwrap());
        let configs = cluster
            .view()
            .members()
            .iter()
            .map(|member| ReplicaConfig {
                cluster: cluster.clone(),
                id: member.id,
                seed: Seed::from_bytes(replica_key(member.id.0).seed()),
                listen: listen(member.id.0).to_string(),
                admin: None,
                data: directory.join(format!("replica-{}", member.id)),
                disk_reserve_bytes: DISK_RESERVE_BYTES,
                transfer_bytes_per_second: TRANSFER_BYTES_PER_SECOND,
                // Whatever a test does, no disk is found damaged that is not.
                scrub_bytes_per_second: 64 << 20,
                log_format: LogFormat::Text,
                log_level: None,
            })
            .collect();
        Self { cluster, configs, listeners, replicas: BTreeMap::new(), proxies, directory }
    }

    /// A cluster that runs.
    pub fn start(plan: Plan) -> Self {
        let mut cluster = Self::new(plan);
        (0..4).for_each(|id| cluster.start_replica(id));
        cluster.wait_connected();
        cluster
    }

    /// Starts one replica, for the first time or again.
    pub fn start_replica(&mut self, id: u16) {
        self.start_replica_with(id, Counter::default());
    }

    /// Starts one replica with a service of the test's own.
    pub fn start_replica_with(&mut self, id: u16, service: impl Service) {
        self.start_replica_patient(id, service, Patience::default());
    }

    /// Starts one replica that waits for slow connections no longer than this.
    pub fn start_replica_patient(&mut self, id: u16, service: impl Service, patience: Patience) {
        let mut config = self.configs[usize::from(id)].clone();
        config.admin = Some("127.0.0.1:0".into());
        let mut builder = Replica::builder(config).service(service).patience(patience).scrub_rest(SCRUB_REST);
        if let Some(listener) = self.listeners.remove(&id) {
            let config = &self.configs[usize::from(id)];
            prepare_data(&config.data, config.cluster.id(), config.id).unwrap();
            builder = builder.listener(listener);
        }
        self.replicas.insert(id, builder.start().unwrap());
    }

    pub fn config(&self, id: u16) -> ReplicaConfig {
        self.configs[usize::from(id)].clone()
    }

    pub fn stop_replica(&mut self, id: u16) {
        self.replicas.remove(&id).unwrap().stop().unwrap();
    }

    /// Waits until every running replica has channels to all other running ones.
    pub fn wait_connected(&self) {
        let others = self.replicas.len() as u64 - 1;
        for id in self.replicas.keys() {
            eventually("all replicas are connected", || self.status(*id).peers_connected == others);
        }
    }

    pub fn status(&self, id: u16) -> StatusReport {
        self.replicas[&id].status(PATIENCE).unwrap()
    }

    /// Resets every connection between replicas, and those of clients.
    pub fn cut_connections(&self) {
        self.proxies.values().for_each(Proxy::cut);
    }

    pub fn view(&self) -> &View {
        self.cluster.view()
    }

    pub fn address(&self, id: u16) -> std::net::SocketAddr {
        self.cluster.view().member(ReplicaId(id)).unwrap().address.parse().unwrap()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.replicas.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
