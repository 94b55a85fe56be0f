//! Every bound of the store by name. They are equal at all replicas because they are part of the program.

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a value. With a key of the largest size it fits a request of the default size.
pub const VALUE_BYTES_MAX: usize = 240 << 10;
/// Bytes of a pattern of a scan.
pub const PATTERN_BYTES_MAX: usize = 1 << 10;
/// Operations in one request.
pub const OPERATIONS_MAX: usize = 1024;
/// Keys, or pairs of key and value, in one operation.
pub const OPERATION_KEYS_MAX: usize = 16 << 10;
/// Preconditions of one transaction.
pub const PRECONDITIONS_MAX: usize = 1024;
/// Bytes of the answers to one request: below the default `result_bytes_max` of a cluster, with room to spare
/// for the tags between them.
pub const ANSWER_BYTES_MAX: usize = 900 << 10;
/// Work that one request may cause by visiting entries that it does not name, in units of [`VISIT_WORK`].
pub const WORK_MAX: u64 = 1 << 22;
/// Work of visiting one entry in a scan; each step of matching a pattern counts one more.
pub const VISIT_WORK: u64 = 16;
/// Entries that one scan visits at most.
pub const SCAN_VISITS_MAX: u32 = 4096;
/// Expired entries removed before a request is executed.
pub const EXPIRED_PER_REQUEST_MAX: usize = 64;
/// Bytes of all keys and values with [`ENTRY_OVERHEAD_BYTES`] for each.
pub const STORE_BYTES_MAX: u64 = 16 << 30;
/// What an entry is counted for beyond its key and value.
pub const ENTRY_OVERHEAD_BYTES: u64 = 96;
