//! `regency replica`: one replica in the foreground.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use regency::config::ReplicaConfig;
use regency::replica::ReplicaBuilder;
use regency::{Replica, ReplicaHandle, Service, logging};
use regency_services::counter::Counter;
use regency_services::kv::KvService;
use regency_services::null::Null;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bars::Bars;
use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};
use crate::{child, output};

/// How often a replica that waits for the others looks whether it should stop.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Run one replica in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Prints one line when it serves. SIGTERM or Ctrl-C stops it.\n\n\
    Example:\n  regency replica demo/replica-0")]
pub(crate) struct Arguments {
    /// The directory of the replica
    #[arg(value_name = "DIR/replica-N")]
    directory: PathBuf,
}

/// Serves until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    refuse_mutants()?;
    child::end_with_parent()?;
    let config = ReplicaConfig::load(&arguments.directory)?;
    let mut bars = Bars::new();
    let above = bars.above();
    logging::start_through(config.log_format, config.log_level.as_deref(), move || above.clone())?;
    let service = service(config.cluster.service())?;
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| failure::system("listening for signals", &error))?;
    let handle = adverse(Replica::builder(config).boxed_service(service))?.start()?;
    let stopper = handle.stopper();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let told = is_stopping.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            told.store(true, Ordering::Release);
            stopper.stop();
        }
    });
    if child::has_parent() {
        child::end_with_stdin();
    }
    announce(&handle, &is_stopping, &mut bars)?;
    // Whatever it has to fetch later is shown as well, if anybody looks.
    while bars.is_seen() && !is_stopping.load(Ordering::Acquire) && !handle.has_ended() {
        std::thread::sleep(LOOK_PERIOD);
        show(&handle, &mut bars);
    }
    bars.clear();
    handle.wait()?;
    Ok(ExitStatus::Done)
}

/// Says on stdout that the replica serves, when it does.
fn announce(handle: &ReplicaHandle, is_stopping: &AtomicBool, bars: &mut Bars) -> Result<(), Failure> {
    // One that has ended is told by whoever waits for it.
    while !is_stopping.load(Ordering::Acquire) && !handle.has_ended() {
        if !handle.wait_ready(LOOK_PERIOD).ready {
            show(handle, bars);
            continue;
        }
        bars.clear();
        // One that ends just now serves nobody: its end is told by whoever waits for it.
        let Ok(status) = handle.status(Duration::from_secs(1)) else { return Ok(()) };
        let admin = handle.admin_address().map_or("none".to_owned(), |address| address.to_string());
        return output::line(&format!(
            "ready replica={} address={} admin={admin} view={}",
            handle.id(),
            handle.address(),
            status.view
        ));
    }
    Ok(())
}

/// Shows how far the replica is with what it fetches from others.
fn show(handle: &ReplicaHandle, bars: &mut Bars) {
    if !bars.is_seen() {
        return;
    }
    let transfer = handle.status(LOOK_PERIOD).ok().and_then(|status| status.transfer);
    let bar = transfer.and_then(|transfer| transfer.line_with_bar());
    bars.show(bar.map(|bar| (handle.id().0, bar)).into_iter());
}

/// The service of this name.
fn service(name: &str) -> Result<Box<dyn Service>, Failure> {
    match name {
        "kv" => Ok(Box::new(KvService::default())),
        "counter" => Ok(Box::new(Counter::default())),
        "null" => Ok(Box::new(Null)),
        _ => Err(Failure::new(
            ErrorCode::WrongService,
            format!("this program has no service {name:?}"),
            "run the program that the cluster was made for; this one has kv, counter and null",
        )),
    }
}

/// By this a test tells a build with the feature `adversity` what to do wrong.
const ADVERSITY: &str = "REGENCY_ADVERSITY";

/// A build that can do wrong serves only where that is wanted.
#[cfg(feature = "adversity")]
fn adverse(builder: ReplicaBuilder) -> Result<ReplicaBuilder, Failure> {
    let told = std::env::var(ADVERSITY).ok();
    match told.as_deref().and_then(regency::replica::Adversity::parse) {
        Some(adversity) => Ok(builder.adversity(adversity)),
        None => Err(Failure::new(
            ErrorCode::MutantBuild,
            format!(
                "this build does wrong on purpose (feature adversity), and {ADVERSITY} = {told:?} says not what"
            ),
            "use a build without it",
        )),
    }
}

/// Only a build with the feature `adversity` can do wrong on purpose.
#[cfg(not(feature = "adversity"))]
fn adverse(builder: ReplicaBuilder) -> Result<ReplicaBuilder, Failure> {
    if std::env::var_os(ADVERSITY).is_none() {
        return Ok(builder);
    }
    Err(Failure::new(
        ErrorCode::NotOffered,
        format!("{ADVERSITY} is set, and this build cannot do wrong on purpose"),
        format!("unset {ADVERSITY}"),
    ))
}

/// A build that can break its own rules must never serve.
pub(crate) fn refuse_mutants() -> Result<(), Failure> {
    if !cfg!(feature = "mutants") {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::MutantBuild,
        "this build can break the protocol's rules on purpose (feature mutants)",
        "use a build without it",
    ))
}
