//! `regency cluster`: every replica of a directory as a process of its own on this machine, and the Redis front.

mod children;
mod live;

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use regency::config::{CLUSTER_FILE, Cluster, DATA_DIRECTORY, KEY_FILE, durability_name, replica_directory};
use regency::protocol::ids::ReplicaId;
use regency::replica::{IdleData, Life};

use crate::bars::Bars;
use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};
use crate::init::{self, Plan, REDIS_LOG_FILE};
use crate::status::Status;
use crate::{child, output, replica};
use children::{Children, Event, Role};
use live::Live;

/// How long processes may take until they serve, without being seen to come on meanwhile.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the replicas are asked how far they are until then.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// How often the live table is drawn.
const REDRAW_PERIOD: Duration = Duration::from_secs(1);
/// A child that ends is not started again sooner than this after its last start.
const RESTART_PERIOD: Duration = Duration::from_secs(1);
/// The name of a replica's log in its directory.
const LOG_FILE: &str = "log";

/// Run all replicas of a cluster on this machine
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency cluster demo --redis 127.0.0.1:6379")]
pub(crate) struct Arguments {
    /// The directory of the cluster; created, with the flags of init, if there is none
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Also serve Redis clients, at this address
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,
    /// The password for Redis clients: the first line of this file
    #[arg(long, value_name = "FILE", requires = "redis")]
    redis_password_file: Option<PathBuf>,
    /// One line when it serves, no live table
    #[arg(long)]
    no_ui: bool,
    /// Start a process that ends by itself again
    #[arg(long)]
    restart: bool,
    /// Begin anew: same replicas and keys, a new cluster id, an empty state
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    plan: Plan,
}

/// Runs everything until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    replica::refuse_mutants()?;
    let directory = &arguments.directory;
    let cluster = open(arguments)?;
    if arguments.redis.is_some() && cluster.service() != "kv" {
        return Err(Failure::new(
            ErrorCode::WrongService,
            format!(
                "{} runs the service {}, which has no Redis front",
                directory.display(),
                cluster.service()
            ),
            "leave --redis out, or use a directory with --service kv",
        ));
    }
    let n = cluster.view().n();
    let mut children = Children::new()?;
    for member in cluster.view().members() {
        let own = directory.join(replica_directory(member.id));
        let role = Role {
            name: format!("replica {}", member.id),
            arguments: vec!["replica".into(), own.clone().into()],
            log: own.join(LOG_FILE),
        };
        children.start(role)?;
    }
    if let Some(ended) = wait_until_ready(&mut children, 0..n, &cluster)? {
        return Ok(ended);
    }
    if let Some(address) = &arguments.redis {
        children.start(redis_role(arguments, address))?;
        if let Some(ended) = wait_until_ready(&mut children, n..n + 1, &cluster)? {
            return Ok(ended);
        }
    }
    let outcome = serve(arguments, &cluster, &mut children);
    for name in children.stop() {
        eprintln!("{name} did not stop in time and was killed");
    }
    outcome
}

/// The cluster of the directory: read, created, or begun anew.
fn open(arguments: &Arguments) -> Result<Cluster, Failure> {
    let directory = &arguments.directory;
    let file = directory.join(CLUSTER_FILE);
    if !file.exists() {
        let cluster = init::create(directory, &arguments.plan, false)?;
        eprintln!("created {}: {}", directory.display(), init::describe(&cluster));
        return Ok(cluster);
    }
    let cluster = Cluster::read(&file)?;
    if let Some(flag) = arguments.plan.contradiction(&cluster)? {
        return Err(Failure::new(
            ErrorCode::Contradiction,
            format!(
                "{} exists and {flag} says otherwise ({})",
                directory.display(),
                init::describe(&cluster)
            ),
            format!("leave {flag} out, or choose another directory"),
        ));
    }
    let foreign = |id| !directory.join(replica_directory(id)).join(KEY_FILE).is_file();
    if let Some(member) = cluster.view().members().iter().find(|member| foreign(member.id)) {
        return Err(Failure::new(
            ErrorCode::KeyUnreadable,
            format!("the key of replica {} is not in {}", member.id, directory.display()),
            "this command runs all replicas on one machine; start each with `regency replica` on its own",
        ));
    }
    if arguments.fresh {
        return fresh(directory, &cluster);
    }
    let lost = votes_lost(directory, &cluster)?;
    if lost > cluster.view().faults() {
        let shown = directory.display();
        return Err(Failure::new(
            ErrorCode::VotesLost,
            format!(
                "{lost} replicas of {shown} have lived before and, with durability {}, lost their votes and the \
                 state: more than f = {}",
                durability_name(cluster.durability()),
                cluster.view().faults()
            ),
            format!(
                "run `regency cluster {shown} --fresh` to begin anew with the same keys and an empty state"
            ),
        ));
    }
    Ok(cluster)
}

/// The same replicas and keys as another cluster, with nothing of the old one.
///
/// The cluster file first: with the old one and new marks, replicas would vote again where they voted before.
fn fresh(directory: &Path, cluster: &Cluster) -> Result<Cluster, Failure> {
    let held = hold_all(directory, cluster)?;
    let renewed = cluster.renewed()?;
    renewed.write(&directory.join(CLUSTER_FILE))?;
    held.into_iter().try_for_each(|(id, data)| data.renew(renewed.id(), id))?;
    eprintln!("begun anew: {}", init::describe(&renewed));
    Ok(renewed)
}

/// How many replicas would come back without their votes.
fn votes_lost(directory: &Path, cluster: &Cluster) -> Result<usize, Failure> {
    let mut lost = 0;
    for (id, data) in hold_all(directory, cluster)? {
        if data.life(cluster.id(), id, cluster.durability())? == Life::VotesLost {
            lost += 1;
        }
    }
    Ok(lost)
}

/// The data directories of all replicas, none of which runs.
fn hold_all(directory: &Path, cluster: &Cluster) -> Result<Vec<(ReplicaId, IdleData)>, Failure> {
    let members = cluster.view().members().iter();
    let data = |id| directory.join(replica_directory(id)).join(DATA_DIRECTORY);
    members.map(|member| Ok((member.id, IdleData::hold(&data(member.id))?))).collect()
}

fn redis_role(arguments: &Arguments, address: &str) -> Role {
    let mut words =
        vec!["redis".into(), arguments.directory.clone().into(), "--listen".into(), address.into()];
    if let Some(file) = &arguments.redis_password_file {
        words.extend(["--password-file".into(), file.clone().into()]);
    }
    Role {
        name: "the Redis front".to_owned(),
        arguments: words,
        log: arguments.directory.join(REDIS_LOG_FILE),
    }
}

/// Waits until the processes of these numbers serve, or, if time is up, as many as a quorum. A status if that is not to
/// be: one ended, or the user stops.
fn wait_until_ready(
    children: &mut Children,
    whose: Range<usize>,
    cluster: &Cluster,
) -> Result<Option<ExitStatus>, Failure> {
    let count = whose.len();
    let mut until = Instant::now() + START_TIMEOUT;
    let mut ready = 0;
    let mut told = String::new();
    let mut advance = Vec::new();
    let mut bars = Bars::new();
    while ready < count {
        // Whatever is written next begins on a line of its own.
        let event = children.next_event(until.min(Instant::now() + LOOK_PERIOD));
        if !matches!(event, Event::Nothing) {
            bars.clear();
        }
        match event {
            Event::Ready(number) if whose.contains(&number) => ready += 1,
            Event::Ready(number) => eprintln!("{} serves now", children.name(number)),
            Event::Stop => return Ok(Some(ExitStatus::Done)),
            Event::Ended(number, status) => {
                let name = children.name(number).to_owned();
                // A child's own failure says best what to do.
                let Some(line) = children.last_words(number) else {
                    return Err(ended(&name, status));
                };
                eprintln!("{line} ({name})");
                return Ok(Some(exit_status(status)));
            }
            Event::Nothing => {
                let status = Status::ask(cluster);
                let lacks = status.lacks().collect::<Vec<_>>().join("; ");
                let is_shown = bars.show(status.bars());
                if !is_shown && !lacks.is_empty() && lacks != told {
                    eprintln!("{lacks}");
                }
                let now = Instant::now();
                if now >= until {
                    bars.clear();
                }
                if now >= until && ready >= cluster.view().quorum() {
                    eprintln!("{ready} of {count} replicas serve: enough to begin with");
                    return Ok(None);
                }
                if now >= until {
                    return Err(Failure::new(
                        ErrorCode::Degraded,
                        format!(
                            "{ready} of {count} processes serve, and for {} s nothing has changed ({lacks})",
                            START_TIMEOUT.as_secs()
                        ),
                        "see the logs in the replicas' directories",
                    ));
                }
                // Who comes on is waited for only as long as nothing can begin without it.
                let is_needed = whose.start == 0 && ready < cluster.view().quorum();
                let before = std::mem::replace(&mut advance, status.advance());
                if is_needed && before != advance {
                    until = now + START_TIMEOUT;
                }
                told = lacks;
            }
        }
    }
    Ok(None)
}

/// Says that the cluster serves, and watches until the user stops it.
fn serve(arguments: &Arguments, cluster: &Cluster, children: &mut Children) -> Outcome {
    let n = cluster.view().n();
    let next = next_commands(arguments, cluster)?;
    let mut live = None;
    if arguments.no_ui || !Live::is_possible() {
        let redis = arguments.redis.as_ref().map(|address| format!(" redis={address}")).unwrap_or_default();
        // First what to do then: who waits for the line on stdout may look there at once.
        eprint!("{next}");
        output::line(&format!("ready replicas={n}{redis}"))?;
    } else {
        live = Some(Live::new(next));
    }
    let mut started = vec![Instant::now(); n + 1];
    let mut due: Vec<(Instant, usize)> = Vec::new();
    loop {
        if let Some(live) = &mut live {
            live.draw(cluster)?;
        }
        let now = Instant::now();
        for (_, number) in due.extract_if(.., |(at, _)| *at <= now) {
            children.restart(number)?;
            if let Some(started) = started.get_mut(number) {
                *started = now;
            }
        }
        let soonest = due.iter().map(|(at, _)| *at).min();
        let until = soonest.map_or(now + REDRAW_PERIOD, |at| at.min(now + REDRAW_PERIOD));
        match children.next_event(until) {
            Event::Stop => return Ok(ExitStatus::Done),
            Event::Nothing => {}
            Event::Ready(number) => {
                tell(&mut live, format!("{} serves now", children.name(number)));
            }
            Event::Ended(number, status) => {
                let name = children.name(number).to_owned();
                let failure = ended(&name, status);
                tell(&mut live, failure::line(&failure));
                if arguments.restart {
                    let at = started.get(number).map_or(now, |started| *started + RESTART_PERIOD);
                    due.push((at, number));
                } else if children.running() == 0 {
                    return Err(failure);
                }
            }
        }
    }
}

/// A line about a child, above the table if there is one.
fn tell(live: &mut Option<Live>, line: String) {
    match live {
        Some(live) => live.tell(line),
        None => eprintln!("{line}"),
    }
}

fn ended(name: &str, status: Option<std::process::ExitStatus>) -> Failure {
    let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    Failure::new(
        ErrorCode::ChildEnded,
        format!("{name} ended by itself ({how})"),
        "see its log; --restart starts such a process again",
    )
}

/// The status that a child ended with, as ours.
fn exit_status(status: Option<std::process::ExitStatus>) -> ExitStatus {
    match status.and_then(|status| status.code()) {
        Some(0) => ExitStatus::Done,
        Some(2) => ExitStatus::Usage,
        Some(3) => ExitStatus::NoQuorum,
        Some(4) => ExitStatus::Degraded,
        Some(5) => ExitStatus::NotAuthorised,
        Some(6) => ExitStatus::Configuration,
        Some(7) => ExitStatus::Safety,
        Some(_) | None => ExitStatus::Failed,
    }
}

/// What to type next, a command a line.
fn next_commands(arguments: &Arguments, cluster: &Cluster) -> Result<String, Failure> {
    let binary = child::own_binary()?;
    let binary = binary.display();
    let directory = arguments.directory.display();
    let mut next = String::from("next:\n");
    let mut add = |line: String| {
        next.push_str("  ");
        next.push_str(&line);
        next.push('\n');
    };
    if let Some(address) = &arguments.redis {
        add(format!("redis-cli{} set greeting hello", redis_flags(address)));
    }
    match cluster.service() {
        "kv" if arguments.redis.is_some() => add(format!("{binary} kv {directory} get greeting")),
        "kv" => add(format!("{binary} kv {directory} put greeting hello")),
        "counter" => add(format!("{binary} counter {directory} add 1")),
        _ => add(format!("{binary} bench {directory}")),
    }
    add(format!("{binary} status {directory}"));
    Ok(next)
}

/// What redis-cli needs to find an address that is not its default.
fn redis_flags(address: &str) -> String {
    let socket = address.parse::<SocketAddr>().ok().or_else(|| address.to_socket_addrs().ok()?.next());
    match socket {
        Some(socket) if socket.port() == 6379 && socket.ip().is_loopback() => String::new(),
        Some(socket) if socket.ip().is_loopback() => format!(" -p {}", socket.port()),
        Some(socket) => format!(" -h {} -p {}", socket.ip(), socket.port()),
        None => String::new(),
    }
}
