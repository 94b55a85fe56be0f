//! `regency init`: writes the files of a new cluster.
//!
//! `cluster.toml` is written last: a directory without it is no cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use regency::config::{
    CLIENT_DIRECTORY, CLUSTER_FILE, ClientConfig, Cluster, DATA_DIRECTORY, Durability, Genesis,
    GenesisReplica, KEY_FILE, REPLICA_FILE, ReplicaFile, durability_name, parse_settings, replica_directory,
};
use regency::keys::{Seed, parse_hex};
use regency::protocol::ids::{PublicKey, ReplicaId};
use regency::protocol::view::{Clients, Mode, RequestAuth, View};
use regency::replica::{IdleData, prepare_data};

use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;

/// A replica's admin port is this far above its own.
const ADMIN_PORT_DISTANCE: u16 = 100;
/// Replicas of a cluster unless said otherwise.
const REPLICAS_DEFAULT: u16 = 4;
/// Where replicas run unless said otherwise.
const HOST_DEFAULT: &str = "127.0.0.1";
/// Where replica 0 listens unless said otherwise.
const BASE_PORT_DEFAULT: u16 = 7000;
/// The file of the Redis front's log.
pub(crate) const REDIS_LOG_FILE: &str = "redis.log";
/// The directory of the administrator's key.
const ADMIN_DIRECTORY: &str = "admin";

/// Write the files of a new cluster
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency init demo --replicas 4 --service kv\n  \
    regency init prod --member 0=a.example:7000,PUBKEY --member 1=b.example:7000,PUBKEY …")]
pub(crate) struct Arguments {
    /// The directory to create
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    plan: Plan,
    /// Replace a cluster that is there already: its keys and data are lost
    #[arg(long)]
    force: bool,
}

/// What a new cluster is made of; what is not said has the default that the help names.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How many replicas [default: 4]
    #[arg(long, conflicts_with = "members")]
    replicas: Option<u16>,
    /// How many of them may be faulty [default: the most that their number allows]
    #[arg(long)]
    faults: Option<usize>,
    /// Faulty replicas may lie (bft) or only stop (cft) [default: bft]
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
    /// What the replicas run [default: kv]
    #[arg(long, value_enum)]
    service: Option<ServiceName>,
    /// When votes leave: on disk (sync), written (async), or at once and lost at a stop (none) [default: sync]
    #[arg(long, value_enum)]
    durability: Option<DurabilityName>,
    /// How requests prove who sent them [default: signature]
    #[arg(long, value_enum)]
    request_auth: Option<RequestAuthName>,
    /// Who may send requests: the client listed in the cluster file, or any key [default: listed]
    #[arg(long, value_enum)]
    clients: Option<ClientsName>,
    /// A setting of cluster.toml other than its default; once for each
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where all replicas run [default: 127.0.0.1]
    #[arg(long, conflicts_with = "members")]
    host: Option<String>,
    /// Replica i listens on this port + i, its admin port is 100 above that [default: 7000]
    #[arg(long, conflicts_with = "members")]
    base_port: Option<u16>,
    /// A replica whose host made its own key (`regency keys generate`); once for each
    #[arg(long = "member", value_name = "ID=HOST:PORT,PUBKEY")]
    members: Vec<NewMember>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    Bft,
    Cft,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServiceName {
    Kv,
    Counter,
    Null,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityName {
    Sync,
    Async,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RequestAuthName {
    Signature,
    Channel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClientsName {
    Listed,
    Open,
}

/// A replica as `--member` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NewMember {
    id: ReplicaId,
    host: String,
    port: u16,
    key: PublicKey,
}

impl FromStr for NewMember {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (id, rest) = text.split_once('=')?;
            let (address, key) = rest.rsplit_once(',')?;
            let (host, port) = address.rsplit_once(':')?;
            Some((id, host, port, key))
        };
        let (id, host, port, key) = parts().ok_or("write ID=HOST:PORT,PUBKEY")?;
        Ok(Self {
            id: ReplicaId(id.parse().map_err(|_| format!("the id {id:?} is not a number up to 65535"))?),
            host: host.to_owned(),
            port: port.parse().map_err(|_| format!("{port:?} is not a port"))?,
            key: PublicKey(parse_hex(key).ok_or("a public key is 64 hex digits (`regency keys show`)")?),
        })
    }
}

/// Writes the files and says what is there.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let directory = &arguments.directory;
    let cluster = create(directory, &arguments.plan, arguments.force)?;
    output::line(&format!("created {}: {}", directory.display(), describe(&cluster)))?;
    let next = if arguments.plan.members.is_empty() {
        format!("next: regency cluster {}", directory.display())
    } else {
        format!(
            "next: copy {} and its replica's directory to each host, put the key into that directory, \
             run `regency replica DIR/replica-ID` there",
            directory.join(CLUSTER_FILE).display()
        )
    };
    eprintln!("{next}");
    Ok(ExitStatus::Done)
}

/// One line about a cluster.
pub(crate) fn describe(cluster: &Cluster) -> String {
    let view = cluster.view();
    format!(
        "n = {}, f = {}, service {}, durability {}, cluster {}",
        view.n(),
        view.faults(),
        cluster.service(),
        durability_name(cluster.durability()),
        cluster.id()
    )
}

/// Writes the files of a new cluster.
pub(crate) fn create(directory: &Path, plan: &Plan, force: bool) -> Result<Cluster, Failure> {
    let (members, seeds) = plan.members()?;
    let mode = plan.mode();
    let client = Seed::generate()?;
    let replicas = members.iter().map(NewMember::genesis).collect::<Result<Vec<_>, _>>()?;
    let cluster = Cluster::new(Genesis {
        mode,
        faults: plan.faults(mode, members.len()),
        service: plan.service().to_owned(),
        durability: plan.durability(),
        request_auth: plan.request_auth(),
        clients: plan.is_listed().then(|| vec![client.public_key()]),
        replicas,
        settings: parse_settings(&plan.settings)?,
    })?;
    clear(directory, force)?;
    for (index, member) in members.iter().enumerate() {
        let own = directory.join(replica_directory(member.id));
        prepare_data(&own.join(DATA_DIRECTORY), cluster.id(), member.id)?;
        ReplicaFile::new(member.id).write(&own.join(REPLICA_FILE))?;
        if let Some(seed) = seeds.get(index) {
            seed.write(&own.join(KEY_FILE))?;
        }
    }
    let own = directory.join(CLIENT_DIRECTORY);
    make_directory(&own)?;
    client.write(&own.join(KEY_FILE))?;
    ClientConfig::write_default(&own)?;
    let own = directory.join(ADMIN_DIRECTORY);
    make_directory(&own)?;
    Seed::generate()?.write(&own.join(KEY_FILE))?;
    cluster.write(&directory.join(CLUSTER_FILE))?;
    Ok(cluster)
}

impl Plan {
    /// The members, and the private keys of those that are made here.
    fn members(&self) -> Result<(Vec<NewMember>, Vec<Seed>), Failure> {
        if !self.members.is_empty() {
            return Ok((self.members.clone(), Vec::new()));
        }
        let mut members = Vec::new();
        let mut seeds = Vec::new();
        let host = self.host.as_deref().unwrap_or(HOST_DEFAULT);
        let base_port = self.base_port.unwrap_or(BASE_PORT_DEFAULT);
        for id in 0..self.replicas.unwrap_or(REPLICAS_DEFAULT) {
            let seed = Seed::generate()?;
            members.push(NewMember {
                id: ReplicaId(id),
                host: host.to_owned(),
                port: port_above(base_port, id)?,
                key: seed.public_key(),
            });
            seeds.push(seed);
        }
        Ok((members, seeds))
    }

    /// How many faults are asked for. Not asked and none tolerated is a mistake, so ask for one and be refused.
    fn faults(&self, mode: Mode, n: usize) -> usize {
        self.faults.unwrap_or_else(|| View::faults_max(mode, n).max(1))
    }

    fn durability(&self) -> Durability {
        match self.durability {
            Some(DurabilityName::Sync) | None => Durability::Sync,
            Some(DurabilityName::Async) => Durability::Async,
            Some(DurabilityName::None) => Durability::None,
        }
    }

    fn mode(&self) -> Mode {
        match self.mode {
            Some(ModeName::Bft) | None => Mode::Bft,
            Some(ModeName::Cft) => Mode::Cft,
        }
    }

    fn service(&self) -> &'static str {
        match self.service {
            Some(ServiceName::Kv) | None => "kv",
            Some(ServiceName::Counter) => "counter",
            Some(ServiceName::Null) => "null",
        }
    }

    fn request_auth(&self) -> RequestAuth {
        match self.request_auth {
            Some(RequestAuthName::Signature) | None => RequestAuth::Signature,
            Some(RequestAuthName::Channel) => RequestAuth::Channel,
        }
    }

    fn is_listed(&self) -> bool {
        match self.clients {
            Some(ClientsName::Listed) | None => true,
            Some(ClientsName::Open) => false,
        }
    }

    /// The first flag that was given and says something else than a cluster that exists.
    pub(crate) fn contradiction(&self, cluster: &Cluster) -> Result<Option<&'static str>, Failure> {
        let view = cluster.view();
        let addresses = |flag: &NewMember| {
            let address = format!("{}:{}", flag.host, flag.port);
            view.member(flag.id).is_some_and(|member| member.address == address && member.key == flag.key)
        };
        let is_on = |host: Option<&str>, port: Option<u16>| {
            view.members().iter().all(|member| {
                let (own, own_port) = member.address.rsplit_once(':').unwrap_or_default();
                let expected = port.map(|port| u32::from(port) + u32::from(member.id.0));
                host.is_none_or(|host| host == own)
                    && expected.is_none_or(|expected| own_port.parse() == Ok(expected))
            })
        };
        let clients_listed = matches!(view.clients(), Clients::Listed(_));
        let settings = parse_settings(&self.settings)?;
        let flags = [
            ("--replicas", self.replicas.is_none_or(|n| usize::from(n) == view.n())),
            ("--faults", self.faults.is_none_or(|faults| faults == view.faults())),
            ("--mode", self.mode.is_none() || self.mode() == view.mode()),
            ("--service", self.service.is_none() || self.service() == cluster.service()),
            ("--durability", self.durability.is_none() || self.durability() == cluster.durability()),
            ("--request-auth", self.request_auth.is_none() || self.request_auth() == view.request_auth()),
            ("--clients", self.clients.is_none() || self.is_listed() == clients_listed),
            ("--set", self.settings.is_empty() || settings == **cluster.settings()),
            ("--host", is_on(self.host.as_deref(), None)),
            ("--base-port", is_on(None, self.base_port)),
            ("--member", self.members.iter().all(addresses)),
        ];
        Ok(flags.into_iter().find_map(|(flag, agrees)| (!agrees).then_some(flag)))
    }
}

impl NewMember {
    fn genesis(&self) -> Result<GenesisReplica, Failure> {
        let admin = port_above(self.port, ADMIN_PORT_DISTANCE)?;
        Ok(GenesisReplica {
            id: self.id,
            address: format!("{}:{}", self.host, self.port),
            key: self.key,
            admin: Some(format!("{}:{admin}", self.host)),
        })
    }
}

fn port_above(port: u16, distance: u16) -> Result<u16, Failure> {
    port.checked_add(distance).ok_or_else(|| {
        Failure::new(
            ErrorCode::BadAddress,
            format!("port {port} + {distance} is above 65535"),
            "use a lower --base-port (the admin ports are 100 above the replicas')",
        )
    })
}

/// Makes room: nothing that is not a cluster's is ever removed.
fn clear(directory: &Path, force: bool) -> Result<(), Failure> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return make_directory(directory),
        Err(error) => return Err(failure::system(&format!("reading {}", directory.display()), &error)),
    };
    let paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failure::system(&format!("reading {}", directory.display()), &error))?;
    if paths.is_empty() {
        return Ok(());
    }
    let shown = directory.display();
    if !force {
        return Err(Failure::new(
            ErrorCode::Exists,
            format!("{shown} exists and is not empty"),
            "choose another directory, or --force to replace the cluster in it, with its keys and data",
        ));
    }
    if let Some(foreign) = paths.iter().find(|path| !is_ours(path)) {
        return Err(Failure::new(
            ErrorCode::Exists,
            format!("{} is not part of a cluster", foreign.display()),
            format!("move it out of {shown}, or choose another directory"),
        ));
    }
    // No replica of the old cluster may run on files that are gone.
    let data = paths.iter().map(|path| path.join(DATA_DIRECTORY)).filter(|data| data.is_dir());
    let _held = data.map(|data| IdleData::hold(&data)).collect::<Result<Vec<_>, _>>()?;
    for path in paths {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| failure::system(&format!("removing {}", path.display()), &error))?;
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.rsplit('-').next().and_then(|id| id.parse().ok());
    [CLUSTER_FILE, CLIENT_DIRECTORY, ADMIN_DIRECTORY, REDIS_LOG_FILE].contains(&name)
        || id.is_some_and(|id| replica_directory(ReplicaId(id)) == name)
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| failure::system(&format!("creating {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_from_one_word() {
        let key = "0a".repeat(32);
        let member: NewMember = format!("3=[::1]:7003,{key}").parse().unwrap();
        let expected =
            NewMember { id: ReplicaId(3), host: "[::1]".into(), port: 7003, key: PublicKey([10; 32]) };
        assert_eq!(member, expected);
        for wrong in ["", "3", "3=a:1", "3=a:1,abc", "x=a:1,", "3=a:99999,", "70000=a:1,"] {
            assert!(format!("{wrong}{key}x").parse::<NewMember>().is_err(), "{wrong}");
            assert!(wrong.parse::<NewMember>().is_err(), "{wrong}");
        }
    }
}
