//! Host names to addresses, on a thread of its own: a lookup may block for seconds.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use mio::Waker;
use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::MEMBERS_MAX;

use crate::failure::{ErrorCode, Failure};

/// What came of a lookup: the first address, or why there is none.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Whose address it is.
    pub(super) replica: ReplicaId,
    /// The address.
    pub(super) address: Result<SocketAddr, String>,
}

/// Questions to the thread and its answers.
#[derive(Debug)]
pub(super) struct Resolver {
    questions: SyncSender<(ReplicaId, String)>,
    answers: Receiver<Resolved>,
}

impl Resolver {
    /// Starts the thread; it wakes `waker` for every answer and ends with the resolver.
    pub(super) fn start(waker: Arc<Waker>) -> Result<Self, Failure> {
        // At most one question per member is open.
        let (questions, asked) = sync_channel::<(ReplicaId, String)>(MEMBERS_MAX);
        let (answer, answers) = sync_channel(MEMBERS_MAX);
        let run = move || {
            for (replica, name) in asked {
                let address = look_up(&name);
                if answer.send(Resolved { replica, address }).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("resolver".into()).spawn(run).map_err(|error| {
            Failure::new(
                ErrorCode::System,
                format!("no thread for name lookups ({error})"),
                "check the limits of this process",
            )
        })?;
        Ok(Self { questions, answers })
    }

    /// Asks for the address of `replica`; an address that is a number is answered at once.
    pub(super) fn ask(&self, replica: ReplicaId, name: &str) -> Option<SocketAddr> {
        if let Ok(address) = name.parse() {
            return Some(address);
        }
        // A full queue means that the last question of this member is not answered yet: the caller asks again.
        let _ = self.questions.try_send((replica, name.to_owned()));
        None
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&self) -> Option<Resolved> {
        self.answers.try_recv().ok()
    }
}

/// The first address of a name; IPv4 before IPv6, which is the less surprising order on most networks.
pub(super) fn look_up(name: &str) -> Result<SocketAddr, String> {
    let addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| "the name has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_no_lookup_and_a_name_is_looked_up() {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let resolver = Resolver::start(waker).unwrap();
        assert_eq!(resolver.ask(ReplicaId(1), "127.0.0.1:7"), "127.0.0.1:7".parse().ok());
        assert_eq!(resolver.ask(ReplicaId(2), "localhost:7"), None);
        let resolved = resolver.answers.recv().unwrap();
        assert_eq!(resolved.replica, ReplicaId(2));
        assert!(resolved.address.unwrap().ip().is_loopback());
    }
}
