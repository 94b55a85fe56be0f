//! Calling a cluster: [`Client`] for asynchronous code, [`blocking::Client`] for the rest, [`driver`] for programs that
//! want to run inside the event loop.
//!
//! ```no_run
//! use regency::client::{Client, ClientConfig};
//!
//! # async fn call() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::from_directory("demo")?).await?;
//! let value = client.invoke(1_i64.to_le_bytes().to_vec()).await?;
//! # Ok(())
//! # }
//! ```

pub mod blocking;
mod calls;
mod connection;
pub mod driver;
mod error;
mod handle;
mod outbox;
mod resolver;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use error::ClientError;
pub use handle::{Call, Client};
pub use regency_protocol::client::Retry;
use regency_protocol::limits::Settings;
use regency_protocol::view::View;

use crate::config;
use crate::crypto::SigningKey;
use crate::failure::Failure;

/// How long a call may take unless somebody says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Sessions of a client unless somebody says otherwise.
const SESSIONS_DEFAULT: usize = 4;

/// Everything that a client starts from.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster's members and their keys.
    pub view: Arc<View>,
    /// The cluster's limits.
    pub settings: Arc<Settings>,
    /// Who the client is.
    pub key: SigningKey,
    /// How many sessions it opens; each may have `session_window` calls in flight.
    pub sessions: usize,
    /// Which sessions share connections.
    pub connections: Connections,
    /// What a signature covers, in a cluster that wants them.
    pub signatures: Signatures,
    /// How long a call may take unless the caller says otherwise.
    pub deadline: Duration,
    /// When requests are sent again.
    pub retry: Retry,
}

/// Which sessions share connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// All: one connection to each replica. Requests and answers of a turn travel together.
    Shared,
    /// None: each session has its own connection to each replica.
    PerSession,
}

/// What a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// All requests that leave together.
    PerBundle,
    /// One request.
    PerRequest,
}

impl ClientConfig {
    /// A client that holds `key`, with defaults.
    #[must_use]
    pub fn new(view: Arc<View>, settings: Arc<Settings>, key: SigningKey) -> Self {
        Self {
            view,
            settings,
            key,
            sessions: SESSIONS_DEFAULT,
            connections: Connections::Shared,
            signatures: Signatures::PerBundle,
            deadline: DEADLINE_DEFAULT,
            retry: Retry::default(),
        }
    }

    /// The client of a directory that `regency init` has made, or of such a directory's `client` directory.
    pub fn from_directory(directory: impl AsRef<Path>) -> Result<Self, Failure> {
        let directory = directory.as_ref();
        let own = directory.join(config::CLIENT_FILE);
        let client = if own.exists() { directory.to_owned() } else { directory.join("client") };
        Ok(config::ClientConfig::load(&client)?.into())
    }
}

impl From<config::ClientConfig> for ClientConfig {
    fn from(loaded: config::ClientConfig) -> Self {
        let key = SigningKey::from_seed(*loaded.seed.as_bytes());
        let (view, settings) = (loaded.cluster.view().clone(), loaded.cluster.settings().clone());
        Self { deadline: loaded.deadline, ..Self::new(view, settings, key) }
    }
}
