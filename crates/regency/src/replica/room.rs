//! Whether a disk has room for more than the reserve, looked at now and then.

use std::time::{Duration, Instant};

use regency_storage::StorageError;
use regency_storage::log::Log;

/// The reserve of a disk, and what was found when it was looked at last.
#[derive(Clone, Debug)]
pub(super) struct Room {
    reserve_bytes: u64,
    looked: Option<(Instant, bool)>,
}

impl Room {
    /// How long a look counts.
    pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(200);

    /// Nobody has looked yet.
    pub(super) fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, looked: None }
    }

    /// Whether the reserve of the log's disk is untouched.
    pub(super) fn is_enough(&mut self, log: &Log) -> Result<bool, StorageError> {
        if let Some((_, is_enough)) = self.looked.filter(|(at, _)| at.elapsed() < Self::LOOK_PERIOD) {
            return Ok(is_enough);
        }
        let is_enough = log.free_bytes()? >= self.reserve_bytes;
        self.looked = Some((Instant::now(), is_enough));
        Ok(is_enough)
    }
}
