//! `regency redis`: a front for Redis clients, itself a client of the cluster.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Args;
use regency::config::{self, CLIENT_DIRECTORY, LogFormat};
use regency::{Client, ClientConfig, logging};
use regency_services::redis::{Front, FrontError, Options, Password};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{self, ErrorCode, ExitStatus, Failure, Outcome};
use crate::session::{self, Retry};
use crate::{child, output};

/// Bytes of a password file.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;
/// Log lines unless the environment says otherwise.
const LOG_LEVEL: &str = "warn";

/// Serve Redis clients
#[derive(Debug, Args)]
#[command(after_help = "Prints one line when it serves. SIGTERM or Ctrl-C stops it.\n\n\
    Example:\n  regency redis demo --listen 127.0.0.1:6379")]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where to listen; an address beyond loopback needs a password
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6379")]
    listen: String,
    /// The password that clients must give: the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    child::end_with_parent()?;
    logging::start(LogFormat::Text, Some(LOG_LEVEL))?;
    let loaded = config::ClientConfig::load(&arguments.directory.join(CLIENT_DIRECTORY))?;
    session::check_service(&arguments.directory, loaded.cluster.service(), "kv")?;
    let config: ClientConfig = loaded.into();
    let password = arguments.password_file.as_deref().map(read_password).transpose()?;
    let options =
        Options { password, request_bytes_max: config.settings.request_bytes_max, ..Options::default() };
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| failure::system("listening for signals", &error))?;
    // It need not reach the cluster now: commands wait for it, and fail if it does not come.
    let client =
        Client::start_unconnected(&config).map_err(|error| session::failure_of(&error, Retry::Safe))?;
    let front = Front::bind(address(&arguments.listen)?, client, options).map_err(failure_of)?;
    if child::has_parent() {
        child::end_with_stdin();
    }
    output::line(&format!("ready redis={}", front.local_addr()))?;
    // The first signal ends it; there is nothing else to wait for.
    let _ = signals.forever().next();
    front.stop();
    Ok(ExitStatus::Done)
}

fn address(listen: &str) -> Result<SocketAddr, Failure> {
    let resolved = listen.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| {
        Failure::new(
            ErrorCode::BadAddress,
            format!("{listen:?} is no address to listen on"),
            "write host:port, for example 127.0.0.1:6379",
        )
    })
}

fn read_password(path: &Path) -> Result<Password, Failure> {
    let shown = path.display();
    let unreadable = |cause: String| {
        Failure::new(
            ErrorCode::FileUnreadable,
            format!("password file {shown} {cause}"),
            "write the password into its first line",
        )
    };
    let cannot = |error: std::io::Error| unreadable(format!("cannot be read ({error})"));
    if std::fs::metadata(path).map_err(cannot)?.len() > PASSWORD_FILE_BYTES_MAX {
        return Err(unreadable(format!("is longer than {PASSWORD_FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Password::new(line.as_bytes())),
        Some(_) | None => Err(unreadable("has no first line".to_owned())),
    }
}

fn failure_of(error: FrontError) -> Failure {
    match &error {
        FrontError::PasswordNeeded(_) => {
            Failure::new(ErrorCode::Usage, format!("{error}"), "give --password-file, or listen on 127.0.0.1")
        }
        FrontError::Listen { source, address } if source.kind() == std::io::ErrorKind::AddrInUse => {
            let cause = format!("address {address} is in use by another process");
            Failure::new(ErrorCode::AddressInUse, cause, "stop it, or use another port")
        }
        FrontError::Listen { .. } => {
            Failure::new(ErrorCode::BadAddress, error.to_string(), "use another address")
        }
        FrontError::Thread(_) => {
            Failure::new(ErrorCode::System, error.to_string(), "check the limits of this process")
        }
    }
}
