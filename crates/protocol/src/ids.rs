//! Newtypes for everything that is numbered or named.
//!
//! Owned by nobody, used by all; they keep a regency from being passed where an instance is meant.

use std::cmp::Ordering;
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next number; stays at the largest one there is.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// This number plus `distance`; stays at the largest one there is.
            #[must_use]
            pub fn plus(self, distance: $inner) -> Self {
                Self(self.0.saturating_add(distance))
            }

            /// The number before this one; stays at zero.
            #[must_use]
            pub fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A replica's identifier, unique in its view.
    ReplicaId(u16)
);
number!(
    /// The number of a view (a membership); the genesis view is 0.
    ViewId(u64)
);
number!(
    /// The period of one leader within a view. Inside one instance it is called the epoch.
    Regency(u64)
);
number!(
    /// The number of one consensus: 1, 2, … without gaps; 0 means "before the first".
    InstanceId(u64)
);
number!(
    /// A request's number within its session. In an OPEN it carries the nonce.
    Sequence(u64)
);
number!(
    /// The number of a record in a replica's own log: 1, 2, … without gaps; 0 means "before the first".
    LogPosition(u64)
);

/// A session's identifier: the place of its OPEN in the total order (REQ-6). Zero names no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// What a request carries that belongs to no session yet: an OPEN.
    pub const NONE: Self = Self(0);
    /// Bits of an identifier that hold the position inside the batch.
    const POSITION_BITS: u32 = 16;

    /// The session opened by the request at `position` of the batch decided by `instance`.
    #[must_use]
    pub fn at(instance: InstanceId, position: u16) -> Self {
        Self((instance.0 << Self::POSITION_BITS) | u64::from(position))
    }

    /// The instance whose batch held the OPEN.
    #[must_use]
    pub fn instance(self) -> InstanceId {
        InstanceId(self.0 >> Self::POSITION_BITS)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance(), self.0 & ((1 << Self::POSITION_BITS) - 1))
    }
}

/// 32 bytes shown as hex.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The bytes as words that compare as the bytes do. The maps of the hot path are keyed by digests: a comparison of
/// words is a few instructions, one of bytes a call.
#[inline]
fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| chunks.get(index).map_or(0, |chunk| u64::from_be_bytes(*chunk)))
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 32]);

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                words(&self.0).cmp(&words(&other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                write_hex(f, &self.0[..4])?;
                write!(f, "…)")
            }
        }
    };
}

bytes32!(
    /// The identity of a cluster: the digest of its genesis view.
    ClusterId
);
bytes32!(
    /// A client's identifier, derived from its public key (REQ-1).
    ClientId
);
bytes32!(
    /// An Ed25519 public key.
    PublicKey
);
bytes32!(
    /// A domain-separated BLAKE3 hash.
    Digest
);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(")?;
        write_hex(f, &self.0[..4])?;
        write!(f, "…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_compare_as_their_bytes_do() {
        let mut digests = Vec::new();
        for byte in [0, 7, 8, 15, 16, 23, 24, 31] {
            for value in [1, 127, 128, 255] {
                let mut bytes = [3; 32];
                bytes[byte] = value;
                digests.push(Digest(bytes));
            }
        }
        for left in &digests {
            for right in &digests {
                assert_eq!(left.cmp(right), left.0.cmp(&right.0));
            }
        }
    }
}
