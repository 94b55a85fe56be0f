//! A replica's own file, and everything that a replica starts from.
//!
//! `replica.toml` holds what differs from machine to machine; [`ReplicaConfig::load`] joins it with the cluster
//! file and the key, and refuses what does not fit together.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regency_protocol::ids::ReplicaId;

use super::cluster::{Cluster, check_address};
use super::document::Document;
use super::{CLUSTER_FILE, DATA_DIRECTORY, KEY_FILE, REPLICA_FILE};
use crate::failure::{ErrorCode, Failure};
use crate::keys::Seed;

const KEYS: &[&str] = &[
    "id",
    "cluster",
    "key",
    "data",
    "disk_reserve_bytes",
    "transfer_bytes_per_second",
    "scrub_bytes_per_second",
    "listen",
    "admin",
    "log_format",
    "log_level",
];

/// Below so many free bytes a replica stops voting until there is room again, unless its file says otherwise.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// What a replica gives to those that miss something, in bytes a second, unless its file says otherwise.
pub const TRANSFER_BYTES_PER_SECOND: u64 = 200 << 20;
/// How fast a replica reads what lies on its disk to find damage, unless its file says something else.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The format of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The content of a `replica.toml`; what is `None` has the default that the file's comments name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFile {
    /// Which replica of the cluster this is.
    pub id: ReplicaId,
    /// `host:port` to listen on where it is not the address in the cluster file (port forwarding, containers).
    pub listen: Option<String>,
    /// `host:port` of the admin port; without it, what the cluster file says, or none.
    pub admin: Option<String>,
    /// The cluster file, relative to the replica's directory.
    pub cluster: Option<PathBuf>,
    /// The key file, relative to the replica's directory.
    pub key: Option<PathBuf>,
    /// The data directory, relative to the replica's directory.
    pub data: Option<PathBuf>,
    /// Below so many free bytes the replica stops voting until there is room again.
    pub disk_reserve_bytes: Option<u64>,
    /// What the replica gives to those that miss something, in bytes a second; 0 for no limit.
    pub transfer_bytes_per_second: Option<u64>,
    /// How fast it reads what lies on its disk to find damage, in bytes a second; 0 for never.
    pub scrub_bytes_per_second: Option<u64>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`.
    pub log_level: Option<String>,
}

impl ReplicaFile {
    /// A file with defaults for everything but the id.
    #[must_use]
    pub fn new(id: ReplicaId) -> Self {
        Self {
            id,
            listen: None,
            admin: None,
            cluster: None,
            key: None,
            data: None,
            disk_reserve_bytes: None,
            transfer_bytes_per_second: None,
            scrub_bytes_per_second: None,
            log_format: LogFormat::Text,
            log_level: None,
        }
    }

    /// Reads a replica's file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::from_document(&Document::read(path)?)
    }

    fn from_document(document: &Document) -> Result<Self, Failure> {
        let root = document.root(KEYS)?;
        let id = root.required_number("id", "0")?;
        let id = u16::try_from(id).map_err(|_| root.bad("id", "a number from 0 to 65535"))?;
        let path = |key: &str| Ok::<_, Failure>(root.text(key)?.map(PathBuf::from));
        let address = |key: &str| {
            let Some(address) = root.text(key)? else { return Ok(None) };
            check_address(key, address)?;
            Ok::<_, Failure>(Some(address.to_owned()))
        };
        let log_format = root.text("log_format")?.unwrap_or("text");
        Ok(Self {
            id: ReplicaId(id),
            listen: address("listen")?,
            admin: address("admin")?,
            cluster: path("cluster")?,
            key: path("key")?,
            data: path("data")?,
            disk_reserve_bytes: root.number("disk_reserve_bytes")?,
            transfer_bytes_per_second: root.number("transfer_bytes_per_second")?,
            scrub_bytes_per_second: root.number("scrub_bytes_per_second")?,
            log_format: LogFormat::parse(log_format)
                .ok_or_else(|| root.bad("log_format", "\"text\" or \"json\""))?,
            log_level: root.text("log_level")?.map(str::to_owned),
        })
    }

    /// Writes the file; one that exists is overwritten.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        write_file(path, &self.to_toml())
    }

    /// The file's text, every key with a comment, defaults commented out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# One replica of a Regency cluster: what differs from machine to machine.\n\n\
             # Which replica of the cluster file this is.\nid = {}\n",
            self.id
        );
        let mut line = |comment: &str, key: &str, value: Option<String>, default: &str| {
            // Writing to a String cannot fail.
            let _ = match value {
                Some(value) => writeln!(out, "# {comment}\n{key} = {}", quoted(&value)),
                None => writeln!(out, "# {comment}\n# {key} = {}", quoted(default)),
            };
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        line(
            "The cluster file, relative to this directory.",
            "cluster",
            path(&self.cluster),
            "../cluster.toml",
        );
        line("The private key, mode 0600, relative to this directory.", "key", path(&self.key), KEY_FILE);
        line("The data directory, relative to this directory.", "data", path(&self.data), DATA_DIRECTORY);
        let number = |key: &str, value: Option<u64>, default: u64| match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} = {default}"),
        };
        let reserve = number("disk_reserve_bytes", self.disk_reserve_bytes, DISK_RESERVE_BYTES);
        let rate =
            number("transfer_bytes_per_second", self.transfer_bytes_per_second, TRANSFER_BYTES_PER_SECOND);
        let scrub = number("scrub_bytes_per_second", self.scrub_bytes_per_second, SCRUB_BYTES_PER_SECOND);
        line(
            "Where to listen; by default the address in the cluster file.",
            "listen",
            self.listen.clone(),
            "0.0.0.0:7000",
        );
        line(
            "Where /status, /metrics, /healthz and /readyz are served; by default what the cluster file says.",
            "admin",
            self.admin.clone(),
            "127.0.0.1:7100",
        );
        let format = (self.log_format != LogFormat::Text).then(|| self.log_format.name().to_owned());
        line(
            "How log lines are written: \"text\" or \"json\". REGENCY_LOG_FORMAT overrides it.",
            "log_format",
            format,
            "text",
        );
        line(
            "What is logged: error, warn, info, debug, trace, also by module. REGENCY_LOG overrides it.",
            "log_level",
            self.log_level.clone(),
            "info",
        );
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# With fewer free bytes on the data directory's disk the replica stops voting until there is room.\n\
             {reserve}\n\
             # What this replica gives to others that miss something, in bytes a second; 0 for no limit. While ordering \
             suffers it gives less, down to a tenth.\n\
             {rate}\n\
             # How fast this replica reads what lies on its disk, to find damage in time, in bytes a second; 0 for never.\n\
             {scrub}\n"
        );
        out
    }
}

/// Everything that a replica starts from.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Which replica of it this is.
    pub id: ReplicaId,
    /// Its private key: the one whose public half the cluster has for it.
    pub seed: Seed,
    /// `host:port` to listen on.
    pub listen: String,
    /// `host:port` of the admin port; `None` for no admin port.
    pub admin: Option<String>,
    /// The data directory.
    pub data: PathBuf,
    /// Below so many free bytes on its disk the replica stops voting until there is room again.
    pub disk_reserve_bytes: u64,
    /// What it gives to those that miss something, in bytes a second; 0 for no limit.
    pub transfer_bytes_per_second: u64,
    /// How fast it reads what lies on its disk to find damage, in bytes a second; 0 for never.
    pub scrub_bytes_per_second: u64,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: Option<String>,
}

impl ReplicaConfig {
    /// Loads `directory/replica.toml`, the cluster file and the key, and checks that they fit together.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        let file = ReplicaFile::read(&directory.join(REPLICA_FILE))?;
        let cluster_path = match &file.cluster {
            Some(path) => directory.join(path),
            None => default_cluster_path(directory),
        };
        let cluster = Arc::new(Cluster::read(&cluster_path)?);
        let key_path = directory.join(file.key.as_deref().unwrap_or(Path::new(KEY_FILE)));
        let seed = Seed::read(&key_path)?;
        let Some(member) = cluster.view().member(file.id) else {
            return Err(Failure::new(
                ErrorCode::UnknownReplica,
                format!("{} has no replica {}", cluster_path.display(), file.id),
                format!("correct id in {}", directory.join(REPLICA_FILE).display()),
            ));
        };
        if member.key != seed.public_key() {
            return Err(Failure::new(
                ErrorCode::WrongKey,
                format!(
                    "key {} has the public half {}, the cluster has {} for replica {}",
                    key_path.display(),
                    seed.public_key(),
                    member.key,
                    file.id
                ),
                "use the key that this replica was created with",
            ));
        }
        let listen = file.listen.unwrap_or_else(|| member.address.clone());
        let admin = file.admin.or_else(|| cluster.admin(file.id).map(str::to_owned));
        let data = directory.join(file.data.as_deref().unwrap_or(Path::new(DATA_DIRECTORY)));
        Ok(Self {
            cluster,
            id: file.id,
            seed,
            listen,
            admin,
            data,
            disk_reserve_bytes: file.disk_reserve_bytes.unwrap_or(DISK_RESERVE_BYTES),
            transfer_bytes_per_second: file.transfer_bytes_per_second.unwrap_or(TRANSFER_BYTES_PER_SECOND),
            scrub_bytes_per_second: file.scrub_bytes_per_second.unwrap_or(SCRUB_BYTES_PER_SECOND),
            log_format: file.log_format,
            log_level: file.log_level,
        })
    }
}

/// The cluster file beside the directory of one of its processes.
pub(super) fn default_cluster_path(directory: &Path) -> PathBuf {
    directory.join("..").join(CLUSTER_FILE)
}

/// Writes a configuration file.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::new(
            ErrorCode::Disk,
            format!("{} cannot be written ({error})", path.display()),
            "check the directory",
        )
    })
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use regency_protocol::limits::Settings;
    use regency_protocol::view::{Mode, RequestAuth};

    use super::super::{Durability, Genesis, GenesisReplica};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut file = ReplicaFile::new(ReplicaId(3));
        let parse = |text: &str| ReplicaFile::from_document(&Document::from_text("replica.toml", text));
        assert_eq!(parse(&file.to_toml()).unwrap(), file);
        file.listen = Some("0.0.0.0:9".into());
        file.admin = Some("localhost:10".into());
        file.data = Some("/var/lib/with \"quotes\"".into());
        file.disk_reserve_bytes = Some(5);
        file.transfer_bytes_per_second = Some(0);
        file.scrub_bytes_per_second = Some(0);
        file.log_format = LogFormat::Json;
        file.log_level = Some("regency=debug".into());
        assert_eq!(parse(&file.to_toml()).unwrap(), file);
        assert!(
            parse("id = 3\nlisen = \"a:1\"").unwrap_err().to_string().contains("did you mean \"listen\"?")
        );
        assert_eq!(parse("id = 3\nadmin = \"nowhere\"").unwrap_err().code(), ErrorCode::BadAddress);
    }

    #[test]
    fn a_directory_loads_only_with_its_own_key_and_id() {
        let root = std::env::temp_dir().join(format!("regency-replica-config-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let seeds: Vec<Seed> = (1..=4).map(|n| Seed::from_bytes([n; 32])).collect();
        let replicas = (0_u16..)
            .zip(&seeds)
            .map(|(id, seed)| GenesisReplica {
                id: ReplicaId(id),
                address: format!("localhost:{}", 7000 + id),
                key: seed.public_key(),
                admin: None,
            })
            .collect();
        let cluster = Cluster::new(Genesis {
            mode: Mode::Bft,
            faults: 1,
            service: "counter".into(),
            durability: Durability::None,
            request_auth: RequestAuth::Signature,
            clients: None,
            replicas,
            settings: Settings::default(),
        })
        .unwrap();
        let directory = root.join("replica-1");
        fs::create_dir_all(&directory).unwrap();
        cluster.write(&root.join(CLUSTER_FILE)).unwrap();
        ReplicaFile::new(ReplicaId(1)).write(&directory.join(REPLICA_FILE)).unwrap();
        assert_eq!(ReplicaConfig::load(&directory).unwrap_err().code(), ErrorCode::KeyUnreadable);
        seeds[1].write(&directory.join(KEY_FILE)).unwrap();
        let config = ReplicaConfig::load(&directory).unwrap();
        assert_eq!(config.listen, "localhost:7001");
        assert_eq!(config.data, directory.join("data"));
        ReplicaFile::new(ReplicaId(2)).write(&directory.join(REPLICA_FILE)).unwrap();
        assert_eq!(ReplicaConfig::load(&directory).unwrap_err().code(), ErrorCode::WrongKey);
        ReplicaFile::new(ReplicaId(9)).write(&directory.join(REPLICA_FILE)).unwrap();
        assert_eq!(ReplicaConfig::load(&directory).unwrap_err().code(), ErrorCode::UnknownReplica);
    }
}
