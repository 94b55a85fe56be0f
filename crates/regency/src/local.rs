//! A whole cluster inside this process, for examples and for tests of a service: real replicas, real sockets on free
//! ports of the loopback interface, keys made up on the spot.
//!
//! ```
//! use std::io::Read;
//!
//! use regency::client::blocking::Client;
//! use regency::{Bytes, Context, Frozen, LocalCluster, RestoreError, Service, Snapshot};
//!
//! struct Counter(i64);
//!
//! impl Service for Counter {
//!     fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
//!         self.0 += operation.try_into().map_or(0, i64::from_le_bytes);
//!         Bytes::copy_from_slice(&self.0.to_le_bytes())
//!     }
//!
//!     fn snapshot(&self) -> Box<dyn Snapshot> {
//!         Frozen::image(self.0.to_le_bytes())
//!     }
//!
//!     fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
//!         self.0 = i64::from_le_bytes(Frozen::read(source)?);
//!         Ok(())
//!     }
//! }
//!
//! let cluster = LocalCluster::start(|| Counter(0))?;
//! let client = Client::connect(&cluster.client())?;
//! client.invoke(40_i64.to_le_bytes().to_vec())?;
//! assert_eq!(client.invoke(2_i64.to_le_bytes().to_vec())?, 42_i64.to_le_bytes()[..]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It tolerates a lying replica, but not the death of the process: for that, run each replica on a host of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::Settings;
use regency_protocol::view::{Mode, RequestAuth, View};

use crate::client::ClientConfig;
use crate::config::{
    Cluster, DISK_RESERVE_BYTES, Durability, Genesis, GenesisReplica, LogFormat, ReplicaConfig,
    SCRUB_BYTES_PER_SECOND, TRANSFER_BYTES_PER_SECOND,
};
use crate::crypto::SigningKey;
use crate::failure::{ErrorCode, Failure};
use crate::keys::Seed;
use crate::replica::{Replica, ReplicaHandle, prepare_data};
use crate::service::Service;

/// What a [`LocalCluster`] is made of.
#[derive(Clone, Debug)]
pub struct LocalPlan {
    /// How many replicas there are; they tolerate as many faults as that allows.
    pub replicas: u16,
    /// How requests prove where they come from.
    pub request_auth: RequestAuth,
    /// The settings that are equal everywhere.
    pub settings: Settings,
}

impl Default for LocalPlan {
    fn default() -> Self {
        Self { replicas: 4, request_auth: RequestAuth::Signature, settings: Settings::default() }
    }
}

/// Replicas in this process; they stop when it is dropped.
pub struct LocalCluster {
    cluster: Arc<Cluster>,
    client: Seed,
    seeds: BTreeMap<ReplicaId, Seed>,
    /// The ports of replicas that have not run yet, held so that nobody else takes them.
    listeners: BTreeMap<ReplicaId, TcpListener>,
    running: BTreeMap<ReplicaId, ReplicaHandle>,
    directory: PathBuf,
}

impl LocalCluster {
    /// Four replicas, each with a service that `service` makes; clients sign their requests.
    pub fn start<S: Service>(service: impl FnMut() -> S) -> Result<Self, Failure> {
        Self::start_as(LocalPlan::default(), service)
    }

    /// The same by a plan.
    pub fn start_as<S: Service>(plan: LocalPlan, mut service: impl FnMut() -> S) -> Result<Self, Failure> {
        let mut cluster = Self::new(plan)?;
        for id in cluster.replicas() {
            cluster.run(id, service())?;
        }
        Ok(cluster)
    }

    /// A cluster of which nothing runs yet.
    pub fn new(plan: LocalPlan) -> Result<Self, Failure> {
        let mut seeds = BTreeMap::new();
        let mut listeners = BTreeMap::new();
        let mut replicas = Vec::new();
        for id in (0..plan.replicas).map(ReplicaId) {
            let seed = Seed::generate()?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| internal(&error))?;
            let address = listener.local_addr().map_err(|error| internal(&error))?.to_string();
            replicas.push(GenesisReplica { id, address, key: seed.public_key(), admin: None });
            seeds.insert(id, seed);
            listeners.insert(id, listener);
        }
        let client = Seed::generate()?;
        let cluster = Cluster::new(Genesis {
            mode: Mode::Bft,
            faults: View::faults_max(Mode::Bft, replicas.len()),
            service: "local".into(),
            durability: Durability::None,
            request_auth: plan.request_auth,
            clients: Some(vec![client.public_key()]),
            replicas,
            settings: plan.settings,
        })?;
        let directory = std::env::temp_dir().join(format!("regency-local-{}", cluster.id()));
        let running = BTreeMap::new();
        Ok(Self { cluster: Arc::new(cluster), client, seeds, listeners, running, directory })
    }

    /// The replicas of the cluster, running or not.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.seeds.keys().copied().collect()
    }

    /// Runs one replica, for the first time or again.
    pub fn run(&mut self, id: ReplicaId, service: impl Service) -> Result<(), Failure> {
        let (Some(seed), Some(member)) = (self.seeds.get(&id), self.cluster.view().member(id)) else {
            return Err(internal(&format!("there is no replica {id}")));
        };
        let data = self.directory.join(format!("replica-{id}"));
        if self.listeners.contains_key(&id) {
            prepare_data(&data, self.cluster.id(), id)?;
        }
        let config = ReplicaConfig {
            cluster: self.cluster.clone(),
            id,
            seed: seed.clone(),
            listen: member.address.clone(),
            admin: None,
            data,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            transfer_bytes_per_second: TRANSFER_BYTES_PER_SECOND,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
            log_format: LogFormat::Text,
            log_level: None,
        };
        let mut builder = Replica::builder(config).service(service);
        if let Some(listener) = self.listeners.remove(&id) {
            builder = builder.listener(listener);
        }
        self.running.insert(id, builder.start()?);
        Ok(())
    }

    /// A replica that runs.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaHandle> {
        self.running.get(&id)
    }

    /// Stops one replica, if it runs.
    pub fn stop(&mut self, id: ReplicaId) -> Result<(), Failure> {
        self.running.remove(&id).map_or(Ok(()), ReplicaHandle::stop)
    }

    /// What the cluster's one listed client starts from.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let key = SigningKey::from_seed(*self.client.as_bytes());
        ClientConfig::new(self.cluster.view().clone(), self.cluster.settings().clone(), key)
    }

    /// What all its replicas and clients agree on.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.running.clear();
        // What is left in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn internal(error: &impl ToString) -> Failure {
    Failure::new(ErrorCode::System, error.to_string(), "try again")
}
