//! The lines to the other members: which are up, which to call, and when to call again.
//!
//! Of two members the one with the higher id calls; a new connection of a member replaces its old one. A call
//! that fails is repeated after a time that doubles, with jitter, so that replicas that come up together do not
//! call in step.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use regency_protocol::ids::{PublicKey, ReplicaId};
use regency_protocol::view::{Member, View};

use super::connection::ConnectionId;

/// The first pause before a call is repeated.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the address of a name is waited for before it is asked for again.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// A line to one member.
#[derive(Debug)]
pub(super) struct Peer {
    /// Whose.
    pub(super) id: ReplicaId,
    /// The key that must answer.
    pub(super) key: PublicKey,
    /// `host:port`, a name or an address.
    pub(super) address: String,
    /// Whether this replica calls; else it is called.
    calls: bool,
    line: Line,
    failures: u32,
}

/// What stands between this replica and a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing; a call is due at this time, if this replica calls.
    Down(Instant),
    /// The address is being looked up, until then at most.
    LookingUp(Instant),
    /// A connection that is no channel yet.
    Calling(ConnectionId),
    /// A channel.
    Up(ConnectionId),
}

/// The lines to all other members, by rank in the view.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    jitter: RandomState,
    draws: u64,
}

impl Peers {
    /// Lines to all members of `view` but `me`, all of them down.
    pub(super) fn new(view: &View, me: ReplicaId, now: Instant) -> Self {
        let others = view.members().iter().filter(|member| member.id != me);
        let peers = others
            .map(|Member { id, address, key }| Peer {
                id: *id,
                key: *key,
                address: address.clone(),
                calls: me > *id,
                line: Line::Down(now),
                failures: 0,
            })
            .collect();
        Self { peers, jitter: RandomState::new(), draws: 0 }
    }

    /// The members whose call is due; they count as being looked up from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<ReplicaId> {
        let mut due = Vec::new();
        for peer in self.peers.iter_mut().filter(|peer| peer.calls) {
            if let Line::Down(at) | Line::LookingUp(at) = peer.line
                && at <= now
            {
                peer.line = Line::LookingUp(now + LOOKUP_MAX);
                due.push(peer.id);
            }
        }
        due
    }

    /// When the next call is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = self.peers.iter().filter(|peer| peer.calls).filter_map(|peer| match peer.line {
            Line::Down(at) | Line::LookingUp(at) => Some(at),
            Line::Calling(_) | Line::Up(_) => None,
        });
        due.min()
    }

    /// The line to `id`.
    pub(super) fn peer(&self, id: ReplicaId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whether `id` has been asked for its address and is not being called yet.
    pub(super) fn is_looked_up(&self, id: ReplicaId) -> bool {
        self.peer(id).is_some_and(|peer| matches!(peer.line, Line::LookingUp(_)))
    }

    /// `connection` is on its way to `id`.
    pub(super) fn on_call(&mut self, id: ReplicaId, connection: ConnectionId) {
        if let Some(peer) = self.get_mut(id) {
            peer.line = Line::Calling(connection);
        }
    }

    /// `connection` is a channel to `id`; returns the one that it replaces.
    pub(super) fn on_up(&mut self, id: ReplicaId, connection: ConnectionId) -> Option<ConnectionId> {
        let peer = self.get_mut(id)?;
        peer.failures = 0;
        let before = std::mem::replace(&mut peer.line, Line::Up(connection));
        match before {
            Line::Up(old) | Line::Calling(old) if old != connection => Some(old),
            Line::Up(_) | Line::Calling(_) | Line::Down(_) | Line::LookingUp(_) => None,
        }
    }

    /// `connection`, or the lookup where there is none, came to nothing; tells whether a channel was lost.
    pub(super) fn on_down(&mut self, id: ReplicaId, connection: Option<ConnectionId>, now: Instant) -> bool {
        let pause = self.pause(id);
        let Some(peer) = self.get_mut(id) else { return false };
        let was_up = match peer.line {
            Line::Up(current) if Some(current) == connection => true,
            Line::Calling(current) if Some(current) == connection => false,
            Line::LookingUp(_) if connection.is_none() => false,
            // An older connection than the one that counts.
            Line::Up(_) | Line::Calling(_) | Line::LookingUp(_) | Line::Down(_) => return false,
        };
        peer.failures = peer.failures.saturating_add(1);
        peer.line = Line::Down(now + pause);
        was_up
    }

    /// `id` can be reached: it is called at once, if this replica calls.
    pub(super) fn on_reachable(&mut self, id: ReplicaId, now: Instant) {
        if let Some(peer) = self.get_mut(id)
            && let Line::Down(at) = &mut peer.line
        {
            *at = now.min(*at);
            peer.failures = 0;
        }
    }

    /// The next call of `id` waits as long as calls ever wait: somebody has to mend something first.
    pub(super) fn on_refused(&mut self, id: ReplicaId) {
        if let Some(peer) = self.get_mut(id) {
            peer.failures = u32::BITS;
        }
    }

    /// The channel to `id`.
    pub(super) fn channel(&self, id: ReplicaId) -> Option<ConnectionId> {
        match self.peer(id)?.line {
            Line::Up(connection) => Some(connection),
            Line::Down(_) | Line::LookingUp(_) | Line::Calling(_) => None,
        }
    }

    /// The channel to the member of this rank among the others.
    pub(super) fn channel_at(&self, rank: usize) -> Option<ConnectionId> {
        match self.peers.get(rank)?.line {
            Line::Up(connection) => Some(connection),
            Line::Down(_) | Line::LookingUp(_) | Line::Calling(_) => None,
        }
    }

    /// How many other members there are.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// To how many of them there is a channel.
    pub(super) fn channels(&self) -> usize {
        self.peers.iter().filter(|peer| matches!(peer.line, Line::Up(_))).count()
    }

    fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }

    /// The pause before the next call of `id`: doubled with each failure, of which half is left to chance.
    fn pause(&mut self, id: ReplicaId) -> Duration {
        let failures = self.peer(id).map_or(0, |peer| peer.failures);
        let full = PAUSE_MIN.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(PAUSE_MAX);
        self.draws = self.draws.wrapping_add(1);
        let chance = u32::try_from(self.jitter.hash_one(self.draws) % 1024).unwrap_or(0);
        full / 2 + full / 2 * chance / 1024
    }
}

/// A call to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Whom.
    pub(super) id: ReplicaId,
    /// Where.
    pub(super) address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClusterId, ViewId};
    use regency_protocol::view::{Clients, Mode, RequestAuth, ViewParts};

    use super::*;

    fn peers(me: u16) -> (Peers, Instant) {
        let member = |id: u16| Member {
            id: ReplicaId(id),
            address: format!("host-{id}:1"),
            key: PublicKey([u8::try_from(id).unwrap() + 1; 32]),
        };
        let view = View::new(ViewParts {
            cluster: ClusterId([1; 32]),
            id: ViewId(0),
            mode: Mode::Bft,
            faults: 1,
            members: (0..4).map(member).collect(),
            clients: Clients::Open,
            request_auth: RequestAuth::Signature,
        })
        .unwrap();
        let now = Instant::now();
        (Peers::new(&view, ReplicaId(me), now), now)
    }

    fn connection(serial: u64) -> ConnectionId {
        ConnectionId { slot: 0, serial }
    }

    #[test]
    fn the_higher_id_calls() {
        let (mut peers, now) = peers(2);
        assert_eq!(peers.take_due(now), [ReplicaId(0), ReplicaId(1)]);
        assert!(peers.take_due(now).is_empty(), "they are being called already");
        assert_eq!(peers.len(), 3);
    }

    #[test]
    fn a_new_connection_replaces_the_old_one() {
        let (mut peers, now) = peers(0);
        assert_eq!(peers.on_up(ReplicaId(3), connection(1)), None);
        assert_eq!(peers.on_up(ReplicaId(3), connection(2)), Some(connection(1)));
        assert!(!peers.on_down(ReplicaId(3), Some(connection(1)), now), "the old one does not count");
        assert_eq!(peers.channel(ReplicaId(3)), Some(connection(2)));
        assert!(peers.on_down(ReplicaId(3), Some(connection(2)), now));
        assert_eq!(peers.channels(), 0);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_success() {
        let (mut peers, mut now) = peers(3);
        let mut longest = Duration::ZERO;
        for serial in 0..20 {
            assert!(peers.take_due(now).contains(&ReplicaId(0)));
            peers.on_call(ReplicaId(0), connection(serial));
            assert!(!peers.on_down(ReplicaId(0), Some(connection(serial)), now));
            let Line::Down(at) = peers.peer(ReplicaId(0)).unwrap().line else { panic!("it is down") };
            longest = longest.max(at - now);
            assert!(at - now <= PAUSE_MAX);
            now = at;
        }
        assert!(longest >= PAUSE_MAX / 2);
        peers.on_up(ReplicaId(0), connection(99));
        peers.on_down(ReplicaId(0), Some(connection(99)), now);
        let Line::Down(at) = peers.peer(ReplicaId(0)).unwrap().line else { panic!("it is down") };
        assert!(at - now <= PAUSE_MIN);
    }
}
