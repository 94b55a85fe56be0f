//! The cluster file: the genesis view and everything that must be equal at all replicas.
//!
//! Public, and the only file that clients and joiners need. Its id is a digest of its content, checked whenever
//! the file is read: a changed file does not pass for the same cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use regency_protocol::digest;
use regency_protocol::ids::{ClientId, ClusterId, PublicKey, ReplicaId, ViewId};
use regency_protocol::limits::Settings;
use regency_protocol::record::Durability;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewError, ViewParts};

use super::document::{Document, Section};
use super::genesis::{
    FORMAT, Genesis, GenesisReplica, durability_name, identity, parse_durability, request_auth_name,
};
use super::settings;
use crate::failure::{ErrorCode, Failure};
use crate::keys::parse_hex;

/// Bytes of a service's name.
const SERVICE_NAME_BYTES_MAX: usize = 64;
/// Bytes of an address.
const ADDRESS_BYTES_MAX: usize = 300;

const KEYS: &[&str] = &[
    "format",
    "cluster",
    "generation",
    "mode",
    "faults",
    "service",
    "durability",
    "request_auth",
    "clients",
    "replica",
    "client",
    "settings",
];
const REPLICA_KEYS: &[&str] = &["id", "address", "key", "admin"];
const CLIENT_KEYS: &[&str] = &["key"];

/// A cluster's genesis, complete and without contradictions.
#[derive(Clone, Debug)]
pub struct Cluster {
    view: Arc<View>,
    settings: Arc<Settings>,
    service: String,
    durability: Durability,
    admins: BTreeMap<ReplicaId, String>,
    generation: u64,
}

impl Cluster {
    /// Checks a genesis; its id follows from its content.
    pub fn new(genesis: Genesis) -> Result<Self, Failure> {
        Self::of_generation(genesis, 0)
    }

    /// The same replicas, clients and settings as another cluster: its id is a new one, so that nothing that was
    /// signed or voted in this one counts there.
    pub fn renewed(&self) -> Result<Self, Failure> {
        let view = &self.view;
        let genesis = Genesis {
            mode: view.mode(),
            faults: view.faults(),
            service: self.service.clone(),
            durability: self.durability,
            request_auth: view.request_auth(),
            clients: match view.clients() {
                Clients::Listed(keys) => Some(keys.values().copied().collect()),
                Clients::Open => None,
            },
            replicas: view.members().iter().map(|member| self.genesis_replica(member)).collect(),
            settings: Settings::clone(&self.settings),
        };
        Self::of_generation(genesis, self.generation.saturating_add(1))
    }

    fn genesis_replica(&self, member: &Member) -> GenesisReplica {
        let Member { id, address, key } = member.clone();
        GenesisReplica { id, address, key, admin: self.admins.get(&id).cloned() }
    }

    fn of_generation(genesis: Genesis, generation: u64) -> Result<Self, Failure> {
        check_service(&genesis.service)?;
        for replica in &genesis.replicas {
            check_address("address", &replica.address)?;
            if let Some(admin) = &replica.admin {
                check_address("admin", admin)?;
            }
        }
        let settings = &genesis.settings;
        settings.check().and_then(|()| settings.check_members(genesis.replicas.len())).map_err(|error| {
            Failure::new(
                ErrorCode::Contradiction,
                format!("[settings] {} = {} contradicts the others", error.key, error.value),
                error.rule,
            )
        })?;
        let clients = match &genesis.clients {
            None => Clients::Open,
            Some(keys) => Clients::Listed(listed(keys)?),
        };
        let mut admins = BTreeMap::new();
        let mut members = Vec::with_capacity(genesis.replicas.len());
        for GenesisReplica { id, address, key, admin } in genesis.replicas {
            members.push(Member { id, address, key });
            if let Some(admin) = admin {
                admins.insert(id, admin);
            }
        }
        let parts = |cluster| ViewParts {
            cluster,
            id: ViewId(0),
            mode: genesis.mode,
            faults: genesis.faults,
            members: members.clone(),
            clients: clients.clone(),
            request_auth: genesis.request_auth,
        };
        // The id is a digest of the checked view, in which the members are sorted.
        let unnamed = View::new(parts(ClusterId::default())).map_err(|error| view_failure(&error))?;
        let cluster = identity(&unnamed, &genesis.settings, &genesis.service, genesis.durability, generation);
        let view = View::new(parts(cluster)).map_err(|error| view_failure(&error))?;
        Ok(Self {
            view: Arc::new(view),
            settings: Arc::new(genesis.settings),
            service: genesis.service,
            durability: genesis.durability,
            admins,
            generation,
        })
    }

    /// Reads a cluster file and checks that its content has the id that it states.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::from_document(&Document::read(path)?)
    }

    fn from_document(document: &Document) -> Result<Self, Failure> {
        let mut root = document.root(KEYS)?;
        let format = root.required_number("format", &FORMAT.to_string())?;
        if format != FORMAT {
            return Err(Failure::new(
                ErrorCode::NotOffered,
                format!("{} has format {format}", document.path().display()),
                format!("use a version of regency that reads it; this one reads format {FORMAT}"),
            ));
        }
        let stated = hex_value(&root, "cluster")?;
        let settings = root.take_table("settings", settings::KEYS)?;
        let settings = settings::read(settings.as_ref())?;
        let replicas = root.take_tables("replica", REPLICA_KEYS)?;
        let replicas = replicas.iter().map(read_replica).collect::<Result<Vec<_>, _>>()?;
        let keys = root.take_tables("client", CLIENT_KEYS)?;
        let keys = keys
            .iter()
            .map(|section| hex_value(section, "key").map(PublicKey))
            .collect::<Result<Vec<_>, _>>()?;
        let clients = match root.text("clients")?.unwrap_or("listed") {
            "listed" => Some(keys),
            "open" if keys.is_empty() => None,
            "open" => {
                return Err(root.failure(
                    ErrorCode::Contradiction,
                    "clients = \"open\" stands beside listed [[client]]s",
                    "remove the one or the other",
                ));
            }
            _ => return Err(root.bad("clients", "\"listed\" or \"open\"")),
        };
        let genesis = Genesis {
            mode: match root.required_text("mode", "\"bft\"")? {
                "bft" => Mode::Bft,
                "cft" => Mode::Cft,
                _ => return Err(root.bad("mode", "\"bft\" or \"cft\"")),
            },
            faults: usize::try_from(root.required_number("faults", "1")?)
                .map_err(|_| root.bad("faults", "a smaller number"))?,
            service: root.required_text("service", "\"kv\"")?.to_owned(),
            durability: parse_durability(root.required_text("durability", "\"sync\"")?)?,
            request_auth: match root.required_text("request_auth", "\"signature\"")? {
                "signature" => RequestAuth::Signature,
                "channel" => RequestAuth::Channel,
                _ => return Err(root.bad("request_auth", "\"signature\" or \"channel\"")),
            },
            clients,
            replicas,
            settings,
        };
        let cluster = Self::of_generation(genesis, root.number("generation")?.unwrap_or(0))?;
        if cluster.view.cluster().0 != stated {
            return Err(Failure::new(
                ErrorCode::ClusterChanged,
                format!(
                    "{} has changed: its content has the id {}, not {}",
                    document.path().display(),
                    cluster.view.cluster(),
                    ClusterId(stated)
                ),
                "restore the file; what a cluster started with cannot be edited",
            ));
        }
        Ok(cluster)
    }

    /// Writes the cluster file; one that exists is overwritten.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        super::replica::write_file(path, &self.to_toml())
    }

    /// The cluster file's text, every key with a comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let view = &self.view;
        let mut out = String::with_capacity(8192);
        let mode = match view.mode() {
            Mode::Bft => "bft",
            Mode::Cft => "cft",
        };
        let request_auth = request_auth_name(view.request_auth());
        let clients = match view.clients() {
            Clients::Listed(_) => "listed",
            Clients::Open => "open",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# The genesis of a Regency cluster: public, equal everywhere, the only file that clients and joining\n\
             # replicas need. It cannot be edited: `cluster` is a digest of everything else but the admin addresses.\n\
             \n\
             # The version of this file's format.\n\
             format = {FORMAT}\n\
             # The cluster's identity.\n\
             cluster = \"{cluster}\"\n\
             # How often these replicas have begun anew with nothing, each time as another cluster.\n\
             generation = {generation}\n\
             # \"bft\": up to `faults` replicas may lie (n >= 3f+1). \"cft\": they may only crash (n >= 2f+1).\n\
             mode = \"{mode}\"\n\
             # How many replicas may be faulty.\n\
             faults = {faults}\n\
             # The service that every replica runs.\n\
             service = \"{service}\"\n\
             # \"sync\": votes leave when they are on disk. \"async\": when they are written; a power failure may lose them.\n\
             # \"none\": nothing is kept, and a replica that stops has lost its votes.\n\
             durability = \"{durability}\"\n\
             # \"signature\": clients sign what they send. \"channel\": the client's own channel authenticates it.\n\
             request_auth = \"{request_auth}\"\n\
             # \"listed\": the [[client]]s below. \"open\": any key.\n\
             clients = \"{clients}\"\n",
            cluster = view.cluster(),
            generation = self.generation,
            faults = view.faults(),
            service = self.service,
            durability = durability_name(self.durability),
        );
        out.push_str(
            "\n# The replicas: id; host:port for replicas and clients; public key; host:port of the admin port (a hint).\n",
        );
        for member in view.members() {
            let Member { id, address, key } = member;
            let _ = write!(out, "[[replica]]\nid = {id}\naddress = \"{address}\"\nkey = \"{key}\"\n");
            if let Some(admin) = self.admins.get(id) {
                let _ = writeln!(out, "admin = \"{admin}\"");
            }
            out.push('\n');
        }
        if let Clients::Listed(keys) = view.clients() {
            out.push_str("# The public keys of the clients.\n");
            for key in keys.values() {
                let _ = write!(out, "[[client]]\nkey = \"{key}\"\n\n");
            }
        }
        out.push_str(
            "# Limits and periods, equal at all replicas. Those that are commented out are the defaults.\n",
        );
        settings::write(&self.settings, &mut out);
        out
    }

    /// The cluster's identity.
    #[must_use]
    pub fn id(&self) -> ClusterId {
        self.view.cluster()
    }

    /// The genesis view.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The protocol's settings.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The name of the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// How durable it is.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// `host:port` of a replica's admin port, where the file says it.
    #[must_use]
    pub fn admin(&self, id: ReplicaId) -> Option<&str> {
        self.admins.get(&id).map(String::as_str)
    }
}

fn listed(keys: &[PublicKey]) -> Result<BTreeMap<ClientId, PublicKey>, Failure> {
    let mut clients = BTreeMap::new();
    for key in keys {
        if clients.insert(digest::client_id(key), *key).is_some() {
            return Err(Failure::new(
                ErrorCode::Duplicate,
                format!("client key {key} stands twice"),
                "remove one of the two",
            ));
        }
    }
    Ok(clients)
}

fn read_replica(section: &Section<'_>) -> Result<GenesisReplica, Failure> {
    let id = section.required_number("id", "0")?;
    let id = u16::try_from(id).map_err(|_| section.bad("id", "a number from 0 to 65535"))?;
    Ok(GenesisReplica {
        id: ReplicaId(id),
        address: section.required_text("address", "\"host:port\"")?.to_owned(),
        key: PublicKey(hex_value(section, "key")?),
        admin: section.text("admin")?.map(str::to_owned),
    })
}

fn hex_value(section: &Section<'_>, key: &str) -> Result<[u8; 32], Failure> {
    let text = section.required_text(key, "\"64 hex digits\"")?;
    parse_hex(text).ok_or_else(|| section.bad(key, "64 hex digits in quotes"))
}

fn check_service(name: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= SERVICE_NAME_BYTES_MAX && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::BadValue,
        format!("service = {name:?} is not possible"),
        format!("use at most {SERVICE_NAME_BYTES_MAX} lower-case letters, digits, - and _"),
    ))
}

/// Refuses what is not `host:port`.
pub(super) fn check_address(key: &str, address: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    let parts = address.rsplit_once(':');
    let fits = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok() && address.chars().all(is_plain)
    });
    if fits && address.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::BadAddress,
        format!("{key} = {address:?} is no address"),
        "write host:port, for example \"127.0.0.1:7000\" or \"[::1]:7000\"",
    ))
}

fn view_failure(error: &ViewError) -> Failure {
    match error {
        ViewError::TooFewMembers { members, mode, needed, .. } => {
            let most = View::faults_max(*mode, *members);
            let (name, rule, other) = match mode {
                Mode::Bft => ("bft", "n >= 3f+1", " or use --mode cft"),
                Mode::Cft => ("cft", "n >= 2f+1", ""),
            };
            let more = match needed.saturating_sub(*members) {
                1 => "a replica".to_owned(),
                more => format!("{more} replicas"),
            };
            Failure::new(
                ErrorCode::TooFewMembers,
                format!("n = {members} tolerates f = {most} in {name} mode"),
                format!("add {more} ({rule}){other}"),
            )
        }
        ViewError::TooManyMembers(_) => {
            Failure::new(ErrorCode::BadValue, error.to_string(), "use fewer replicas")
        }
        ViewError::DuplicateId(_) | ViewError::DuplicateAddress(_) | ViewError::DuplicateKey(_) => {
            Failure::new(ErrorCode::Duplicate, error.to_string(), "give each replica and client its own")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Seed;

    fn key(number: u8) -> PublicKey {
        Seed::from_bytes([number; 32]).public_key()
    }

    fn genesis() -> Genesis {
        let replicas = (0..4_u8)
            .map(|id| GenesisReplica {
                id: ReplicaId(id.into()),
                address: format!("127.0.0.1:700{id}"),
                key: key(id + 1),
                admin: Some(format!("127.0.0.1:710{id}")),
            })
            .collect();
        Genesis {
            mode: Mode::Bft,
            faults: 1,
            service: "counter".into(),
            durability: Durability::None,
            request_auth: RequestAuth::Signature,
            clients: Some(vec![key(100), key(101)]),
            replicas,
            settings: Settings::default(),
        }
    }

    fn parse(text: &str) -> Result<Cluster, Failure> {
        Cluster::from_document(&Document::from_text("cluster.toml", text))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut genesis = genesis();
        genesis.settings.window = 16;
        genesis.settings.fetch_delay = std::time::Duration::from_millis(7);
        let written = Cluster::new(genesis).unwrap();
        let read = parse(&written.to_toml()).unwrap();
        assert_eq!(read.id(), written.id());
        assert_eq!(read.settings(), written.settings());
        assert_eq!(read.view().members(), written.view().members());
        assert_eq!(read.view().clients(), written.view().clients());
        assert_eq!(read.admin(ReplicaId(2)), Some("127.0.0.1:7102"));
        assert_eq!(read.to_toml(), written.to_toml());
    }

    #[test]
    fn a_renewed_cluster_has_the_same_replicas_and_another_id() {
        let first = Cluster::new(genesis()).unwrap();
        let second = first.renewed().unwrap();
        assert_ne!(second.id(), first.id());
        assert_ne!(second.renewed().unwrap().id(), second.id());
        assert_eq!(second.view().members(), first.view().members());
        assert_eq!(second.view().clients(), first.view().clients());
        assert_eq!(parse(&second.to_toml()).unwrap().id(), second.id());
    }

    #[test]
    fn every_key_of_the_file_has_a_comment() {
        let text = Cluster::new(genesis()).unwrap().to_toml();
        for key in KEYS.iter().chain(settings::KEYS) {
            assert!(text.contains(key), "{key} is not in the file");
        }
        assert!(text.contains("# window = 32\n"), "defaults are commented out");
    }

    #[test]
    fn a_changed_file_is_not_the_same_cluster() {
        let text = Cluster::new(genesis()).unwrap().to_toml();
        for (from, to) in [
            ("127.0.0.1:7003", "127.0.0.1:7009"),
            ("# window = 32", "window = 31"),
            ("service = \"counter\"", "service = \"kv\""),
            ("request_auth = \"signature\"", "request_auth = \"channel\""),
        ] {
            let refused = parse(&text.replace(from, to)).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::ClusterChanged, "{from}");
        }
        assert!(parse(&text.replace("127.0.0.1:7103", "127.0.0.1:7999")).is_ok(), "admin is a hint");
    }

    #[test]
    fn the_order_of_replicas_does_not_matter() {
        let mut turned = genesis();
        turned.replicas.reverse();
        assert_eq!(Cluster::new(turned).unwrap().id(), Cluster::new(genesis()).unwrap().id());
    }

    #[test]
    fn too_few_replicas_are_refused_with_the_rule() {
        let mut small = genesis();
        small.replicas.truncate(3);
        let refused = Cluster::new(small).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "E104 n = 3 tolerates f = 0 in bft mode: add a replica (n >= 3f+1) or use --mode cft"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: fn(&mut Genesis)| {
            let mut genesis = genesis();
            change(&mut genesis);
            Cluster::new(genesis).unwrap_err().code()
        };
        assert_eq!(refused(|g| g.replicas[1].id = ReplicaId(0)), ErrorCode::Duplicate);
        assert_eq!(refused(|g| g.replicas[1].address = g.replicas[0].address.clone()), ErrorCode::Duplicate);
        assert_eq!(refused(|g| g.replicas[1].key = g.replicas[0].key), ErrorCode::Duplicate);
        assert_eq!(refused(|g| g.clients = Some(vec![key(9), key(9)])), ErrorCode::Duplicate);
        assert_eq!(refused(|g| g.clients = Some(vec![key(1)])), ErrorCode::Duplicate);
        assert_eq!(refused(|g| g.settings.span = 1), ErrorCode::Contradiction);
        assert_eq!(refused(|g| g.replicas[0].address = "localhost".into()), ErrorCode::BadAddress);
        assert_eq!(refused(|g| g.replicas[0].address = "a b:1".into()), ErrorCode::BadAddress);
        assert_eq!(refused(|g| g.service = "a\nb".into()), ErrorCode::BadValue);
    }

    #[test]
    fn every_durability_is_read_as_it_is_written() {
        for durability in [Durability::Sync, Durability::Async, Durability::None] {
            assert_eq!(parse_durability(durability_name(durability)), Ok(durability));
        }
        assert_eq!(parse_durability("strong").unwrap_err().code(), ErrorCode::BadValue);
    }

    #[test]
    fn wrong_keys_and_values_of_the_file_are_named() {
        let text = Cluster::new(genesis()).unwrap().to_toml();
        let refused = |from: &str, to: &str| parse(&text.replace(from, to)).unwrap_err().to_string();
        assert!(refused("# window = 32", "windw = 32").contains("did you mean \"window\"?"));
        assert!(refused("mode = \"bft\"", "mode = \"bfd\"").starts_with("E111 mode = \"bfd\""));
        assert!(refused("format = 1", "format = 2").starts_with("E118"));
        assert!(refused("faults = 1\n", "").starts_with("E114 faults is missing"));
        assert!(refused("durability = \"none\"", "durability = \"safe\"").starts_with("E111"));
    }
}
