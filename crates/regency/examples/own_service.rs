//! Your own service: names that belong to who claims them first, until they are released or the time is up.
//!
//! Shows typed operations, ordered time, the caller's identity, refusal before ordering, and checkpoints.
//!
//! `cargo run -p regency --example own_service`

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use regency::client::{ClientError, blocking::Client};
use regency::protocol::ids::ClientId;
use regency::protocol::message::Refusal;
use regency::protocol::time::Timestamp;
use regency::{Bytes, Context, Frozen, LocalCluster, RestoreError, Service, Snapshot, Validator};

/// How long a claim lasts.
const LEASE: Duration = Duration::from_secs(60);
/// Every input has a limit.
const NAME_BYTES_MAX: usize = 64;
/// So has what comes from another replica.
const IMAGE_BYTES_MAX: usize = 1 << 30;

/// What a client asks for, as bytes: one letter, then the name.
enum Operation {
    Claim(String),
    Release(String),
}

impl Operation {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, name) = bytes.split_first()?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?.to_owned();
        match kind {
            _ if name.len() > NAME_BYTES_MAX => None,
            b'c' => Some(Self::Claim(name)),
            b'r' => Some(Self::Release(name)),
            _ => None,
        }
    }
}

/// The state: only ordered maps, no clocks, no randomness, so that all replicas stay equal.
#[derive(Default)]
struct Names {
    owners: BTreeMap<String, (ClientId, Timestamp)>,
}

impl Service for Names {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        // Time is what the replicas have agreed on for this operation.
        self.owners.retain(|_, (_, until)| *until > context.timestamp);
        match Operation::decode(operation) {
            Some(Operation::Claim(name)) => {
                let lease = (context.client, context.timestamp.plus(LEASE));
                let (owner, _) = self.owners.entry(name).or_insert(lease);
                Bytes::from_static(if *owner == context.client { b"yours" } else { b"taken" })
            }
            Some(Operation::Release(name)) => match self.owners.get(&name) {
                Some((owner, _)) if *owner == context.client => {
                    self.owners.remove(&name);
                    Bytes::from_static(b"released")
                }
                Some(_) | None => Bytes::from_static(b"not yours"),
            },
            None => Bytes::from_static(b"malformed"),
        }
    }

    /// What is malformed is refused by every replica before it is ordered, and costs the cluster nothing.
    fn validator(&self) -> Option<Validator> {
        Some(Box::new(|_client, operation| Operation::decode(operation).is_some()))
    }

    /// The whole state, for replicas that come back or join: equal states must give equal bytes.
    fn snapshot(&self) -> Box<dyn Snapshot> {
        let mut image = Vec::new();
        for (name, (owner, until)) in &self.owners {
            image.extend_from_slice(&owner.0);
            image.extend_from_slice(&until.0.to_le_bytes());
            image.push(name.len() as u8);
            image.extend_from_slice(name.as_bytes());
        }
        Frozen::image(image)
    }

    /// Bytes that are no image are refused, and never cause a panic.
    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        let image = Frozen::read_up_to(source, IMAGE_BYTES_MAX)?;
        let mut rest = &image[..];
        self.owners.clear();
        while !rest.is_empty() {
            let (owner, after) = rest.split_first_chunk().ok_or(RestoreError::Truncated)?;
            let (until, after) = after.split_first_chunk().ok_or(RestoreError::Truncated)?;
            let (length, after) = after.split_first().ok_or(RestoreError::Truncated)?;
            let (name, after) = after.split_at_checked((*length).into()).ok_or(RestoreError::Truncated)?;
            let name = str::from_utf8(name).map_err(|_| RestoreError::Invalid("a name is no text"))?;
            let lease = (ClientId(*owner), Timestamp(u64::from_le_bytes(*until)));
            if name.len() > NAME_BYTES_MAX || self.owners.insert(name.to_owned(), lease).is_some() {
                return Err(RestoreError::Invalid("a name is too long or there twice"));
            }
            rest = after;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::start(Names::default)?;
    let client = Client::connect(&cluster.client())?;
    for operation in ["cada", "cada", "rada", "rbob"] {
        println!("{operation}: {:?}", client.invoke(operation)?);
    }
    match client.invoke("nonsense") {
        Err(ClientError::Refused(Refusal::Rejected)) => println!("nonsense: refused, and not executed"),
        other => println!("nonsense: {other:?}"),
    }
    Ok(())
}
