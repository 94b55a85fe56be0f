//! Every bound of the front by name.

use std::time::Duration;

/// Bytes of an inline command, its line end left out.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Arguments of one command, its name included.
pub const ARGUMENTS_MAX: usize = 32 << 10;
/// Arguments of a command before the connection is authenticated, as in Redis.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
/// Bytes of an argument before the connection is authenticated, as in Redis.
pub const UNAUTHENTICATED_ARGUMENT_BYTES_MAX: usize = 16 << 10;
/// Bytes of a connection's input that are read before its commands are answered, beyond one largest command.
pub const READ_BYTES: usize = 64 << 10;
/// Bytes of replies that the front makes without the cluster before they are written.
pub const LOCAL_REPLY_BYTES_MAX: usize = 256 << 10;
/// Keys that a connection watches at once.
pub const WATCHED_KEYS_MAX: usize = crate::kv::limits::PRECONDITIONS_MAX;
/// Bytes of the keys that a connection watches at once: they travel with its transaction.
pub const WATCHED_BYTES_MAX: usize = 64 << 10;
/// Wrong passwords after which a connection is closed.
pub const WRONG_PASSWORDS_MAX: u32 = 10;
/// Positions of scans that have not come to their end, of all connections; the oldest one gives way.
pub const CURSORS_MAX: usize = 16 << 10;
/// Bytes of a connection's name and of what its library says about itself.
pub const NAME_BYTES_MAX: usize = 256;
/// Connections unless the options say otherwise.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to read its replies before it is dropped.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take from a command's first byte to its last before it is dropped.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stopping front lets connections end what they are doing.
pub const STOP_GRACE: Duration = Duration::from_secs(1);
