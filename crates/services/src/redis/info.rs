//! The text of INFO.

use super::parser::Arguments;
use super::shared::Shared;

/// The version of Redis whose commands and errors the front shows. Clients choose features by it.
pub(super) const REDIS_VERSION: &str = "7.0.15";

const NAMES: [&str; 6] = ["server", "clients", "persistence", "stats", "replication", "keyspace"];
const KEYSPACE: usize = 5;

/// The sections that an INFO asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sections([bool; NAMES.len()]);

impl Sections {
    /// Those named by the arguments; all if none is.
    pub(super) fn of(arguments: &Arguments<'_>) -> Self {
        let named = arguments.from(1);
        let all = ["default", "all", "everything"];
        let is = |name: &str| named.iter().any(|argument| argument.eq_ignore_ascii_case(name.as_bytes()));
        let is_all = named.is_empty() || all.into_iter().any(is);
        Self(NAMES.map(|name| is_all || is(name)))
    }

    /// Whether the cluster must be asked for the number of keys.
    pub(super) fn need_keys(self) -> bool {
        self.0[KEYSPACE]
    }

    /// The text, with `keys` in the keyspace.
    pub(super) fn text(self, shared: &Shared, keys: u64) -> String {
        let stats = shared.stats();
        let uptime = shared.uptime().as_secs();
        let mut out = String::new();
        for (name, wanted) in NAMES.into_iter().zip(self.0) {
            if !wanted {
                continue;
            }
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            let lines = match name {
                "server" => format!(
                    "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nregency_version:{}\r\n\
                     process_id:{}\r\ntcp_port:{}\r\nuptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    std::process::id(),
                    shared.port(),
                    uptime / 86_400,
                ),
                "clients" => format!(
                    "# Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:0\r\n",
                    stats.connections,
                    shared.options().connections_max,
                ),
                "persistence" => "# Persistence\r\nloading:0\r\n".to_owned(),
                "stats" => format!(
                    "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
                     rejected_connections:{}\r\nacl_access_denied_auth:{}\r\nregency_requests:{}\r\n\
                     regency_requests_failed:{}\r\n",
                    stats.connections_accepted,
                    stats.commands,
                    stats.connections_refused,
                    stats.wrong_passwords,
                    stats.requests,
                    stats.requests_failed,
                ),
                "replication" => "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n".to_owned(),
                _keyspace => {
                    let line = if keys == 0 { String::new() } else { format!("db0:keys={keys}\r\n") };
                    format!("# Keyspace\r\n{line}")
                }
            };
            out.push_str(&lines);
        }
        out
    }
}
