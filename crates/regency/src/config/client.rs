//! A client's own file, and everything that a client starts from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::Cluster;
use super::document::Document;
use super::replica::{default_cluster_path, quoted, write_file};
use super::{CLIENT_FILE, KEY_FILE};
use crate::failure::{ErrorCode, Failure};
use crate::keys::Seed;

const KEYS: &[&str] = &["cluster", "key", "deadline_ms"];

/// How long a call may take unless the file or the caller says otherwise.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Everything that a client starts from.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The client's private key.
    pub seed: Seed,
    /// How long a call may take when the caller does not say.
    pub deadline: Duration,
}

impl ClientConfig {
    /// A client of `cluster` with defaults; a client that the cluster does not list is refused.
    pub fn new(cluster: Arc<Cluster>, seed: Seed) -> Result<Self, Failure> {
        if !cluster.view().admits(&seed.client_id()) {
            return Err(Failure::new(
                ErrorCode::UnknownClient,
                format!("cluster {} does not list the client key {}", cluster.id(), seed.public_key()),
                "use a listed key",
            ));
        }
        Ok(Self { cluster, seed, deadline: DEADLINE_DEFAULT })
    }

    /// Loads `directory/client.toml`, the cluster file and the key, and checks that they fit together.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        let document = Document::read(&directory.join(CLIENT_FILE))?;
        let root = document.root(KEYS)?;
        let path = |key: &str| Ok::<_, Failure>(root.text(key)?.map(PathBuf::from));
        let cluster_path = match path("cluster")? {
            Some(path) => directory.join(path),
            None => default_cluster_path(directory),
        };
        let key_path = directory.join(path("key")?.unwrap_or_else(|| KEY_FILE.into()));
        let deadline = match root.number("deadline_ms")? {
            Some(0) => return Err(root.bad("deadline_ms", "at least 1")),
            Some(millis) => Duration::from_millis(millis),
            None => DEADLINE_DEFAULT,
        };
        let cluster = Arc::new(Cluster::read(&cluster_path)?);
        let config = Self::new(cluster, Seed::read(&key_path)?)?;
        Ok(Self { deadline, ..config })
    }

    /// Writes a `client.toml` with defaults, every key with a comment; one that exists is overwritten.
    pub fn write_default(directory: &Path) -> Result<(), Failure> {
        let text = format!(
            "# A client of a Regency cluster.\n\n\
             # The cluster file, relative to this directory.\n# cluster = {}\n\
             # The private key, mode 0600, relative to this directory.\n# key = {}\n\
             # How long a call may take unless the caller says otherwise, in milliseconds.\n# deadline_ms = {}\n",
            quoted("../cluster.toml"),
            quoted(KEY_FILE),
            DEADLINE_DEFAULT.as_millis(),
        );
        write_file(&directory.join(CLIENT_FILE), &text)
    }
}
