//! Which change of a key a client has seen.

use regency::protocol::ids::InstanceId;

/// The place of a key's last change: unique for every change of any key, and growing.
///
/// Setting a key to the value that it has, and changing its deadline, are changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The instance that ordered the change.
    pub instance: InstanceId,
    /// The number of the change within the instance, from 0.
    pub change: u32,
}

/// What [`Operation::Observe`](super::Operation::Observe) saw at a key, and a transaction may demand.
///
/// Absence has no history: a key that was absent when observed, then put and deleted, counts as unchanged.
/// A transaction cannot tell the difference, since all that it relied on, that there is no such key, holds when
/// it is executed. A key that was present and deleted, expired or put again has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// There was no such key.
    Absent,
    /// The key's last change.
    Present(Version),
}
