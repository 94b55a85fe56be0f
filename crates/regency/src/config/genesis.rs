//! What a cluster starts with, and the id that follows from it.

use regency_protocol::digest::{Domain, Hasher};
use regency_protocol::ids::{ClusterId, PublicKey, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::view::{Clients, Mode, RequestAuth, View};

use super::settings;
use crate::failure::{ErrorCode, Failure};

/// The version of the cluster file's format and of the id's derivation.
pub(super) const FORMAT: u64 = 1;

/// How durable votes and operations are before they leave a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In memory only: a replica that stops has lost its votes.
    None,
}

impl Durability {
    /// The level of this name; a known one that does not exist yet is refused with exit status 2.
    pub fn parse(name: &str) -> Result<Self, Failure> {
        match name {
            "none" => Ok(Self::None),
            "sync" | "async" => Err(Failure::new(
                ErrorCode::NotOffered,
                format!(
                    "durability = \"{name}\" is not offered by this version, which keeps everything in memory"
                ),
                "use durability \"none\"",
            )),
            _ => Err(Failure::new(
                ErrorCode::BadValue,
                format!("durability = \"{name}\" is not possible"),
                "use durability \"none\"",
            )),
        }
    }

    /// Its name in files and output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
        }
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
    hasher = text(hasher, durability.name());
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
