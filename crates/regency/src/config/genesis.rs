//! What a cluster starts with, and the id that follows from it.

use regency_protocol::digest::{Domain, Hasher};
use regency_protocol::ids::{ClusterId, PublicKey, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::record::Durability;
use regency_protocol::view::{Clients, Mode, RequestAuth, View};

use super::settings;
use crate::failure::{ErrorCode, Failure};

/// The version of the cluster file's format and of the id's derivation.
pub(super) const FORMAT: u64 = 1;

/// The durability of this name.
pub fn parse_durability(name: &str) -> Result<Durability, Failure> {
    [Durability::Sync, Durability::Async, Durability::None]
        .into_iter()
        .find(|durability| durability_name(*durability) == name)
        .ok_or_else(|| {
            Failure::new(
                ErrorCode::BadValue,
                format!("durability = \"{name}\" is not possible"),
                "use \"sync\", \"async\" or \"none\"",
            )
        })
}

/// How files and output call a durability.
#[must_use]
pub fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Async => "async",
        Durability::None => "none",
    }
}

/// One replica of a genesis view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisReplica {
    /// Its identifier.
    pub id: ReplicaId,
    /// `host:port` where it listens for replicas and clients.
    pub address: String,
    /// Its public key.
    pub key: PublicKey,
    /// `host:port` of its admin port, where that is known; a hint, not part of the cluster's identity.
    pub admin: Option<String>,
}

/// What a cluster starts with, before it is checked.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// Which faults are tolerated.
    pub mode: Mode,
    /// How many; [`View::faults_max`] is the most.
    pub faults: usize,
    /// The service that every replica runs.
    pub service: String,
    /// How durable it is.
    pub durability: Durability,
    /// How requests are authenticated.
    pub request_auth: RequestAuth,
    /// The keys of the listed clients; `None` lets any key in.
    pub clients: Option<Vec<PublicKey>>,
    /// The replicas.
    pub replicas: Vec<GenesisReplica>,
    /// The protocol's settings.
    pub settings: Settings,
}

/// How files and output call a way of authentication.
#[must_use]
pub(super) fn request_auth_name(auth: RequestAuth) -> &'static str {
    match auth {
        RequestAuth::Signature => "signature",
        RequestAuth::Channel => "channel",
    }
}

/// The digest of everything that must be equal everywhere: each part with its length, settings by name.
pub(super) fn identity(
    view: &View,
    settings: &Settings,
    service: &str,
    durability: Durability,
    generation: u64,
) -> ClusterId {
    let text = |hasher: Hasher, text: &str| hasher.number(text.len() as u64).bytes(text.as_bytes());
    let mut hasher = Hasher::new(Domain::Cluster).number(FORMAT).number(generation);
    hasher = hasher.number(match view.mode() {
        Mode::Bft => 0,
        Mode::Cft => 1,
    });
    hasher = hasher.number(view.faults() as u64);
    hasher = text(hasher, service);
    hasher = text(hasher, durability_name(durability));
    hasher = text(hasher, request_auth_name(view.request_auth()));
    hasher = hasher.number(view.n() as u64);
    for member in view.members() {
        hasher = text(hasher.number(member.id.0.into()), &member.address).bytes(&member.key.0);
    }
    match view.clients() {
        Clients::Open => hasher = hasher.number(0),
        Clients::Listed(keys) => {
            hasher = hasher.number(1).number(keys.len() as u64);
            for key in keys.values() {
                hasher = hasher.bytes(&key.0);
            }
        }
    }
    for (name, value) in settings::values(settings) {
        hasher = text(hasher, name).number(value);
    }
    ClusterId(hasher.finish().0)
}
