//! Configuration: what the files of a deployment say, checked before anything starts.
//!
//! `cluster.toml` is the genesis view, public and equal everywhere; `replica-N/replica.toml` and
//! `client/client.toml` are one process's own. Whoever has one of the types here has a configuration that is
//! complete and free of contradictions: files are parsed into them or refused with a
//! [`Failure`](crate::failure::Failure) that names key, line and next step.

mod client;
mod cluster;
mod document;
mod genesis;
mod replica;
mod settings;

pub use client::ClientConfig;
pub use cluster::Cluster;
pub use genesis::{Genesis, GenesisReplica, durability_name, parse_durability};
pub use regency_protocol::record::Durability;
pub use replica::{
    DISK_RESERVE_BYTES, LogFormat, ReplicaConfig, ReplicaFile, SCRUB_BYTES_PER_SECOND,
    TRANSFER_BYTES_PER_SECOND,
};
pub use settings::parse_settings;

/// The name of the genesis file in a cluster's directory.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// The name of a replica's own file in its directory.
pub const REPLICA_FILE: &str = "replica.toml";
/// The name of a client's own file in its directory.
pub const CLIENT_FILE: &str = "client.toml";
/// The name of a key file in the directory of its owner.
pub const KEY_FILE: &str = "key";
/// The name of a replica's data directory in its directory.
pub const DATA_DIRECTORY: &str = "data";
/// The name of the client's directory in a cluster's directory.
pub const CLIENT_DIRECTORY: &str = "client";

/// The name of a replica's directory in a cluster's directory.
#[must_use]
pub fn replica_directory(id: regency_protocol::ids::ReplicaId) -> String {
    format!("replica-{id}")
}
