//! One connection to a replica under the test's control: any key, any HELLO, any bytes.

use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use regency::Bytes;
use regency::crypto::SigningKey;
use regency::protocol::ids::{ClusterId, ReplicaId};
use regency::transport::{Answer, Hello, Link, LinkError, LinkLimits, RefusalCode, Role, TlsIdentity};

use super::PATIENCE;
use super::cluster::TestCluster;

/// A connection that blocks, for tests.
pub struct Channel {
    link: Link,
    poll: Poll,
    frames: Vec<Bytes>,
    ended: Option<LinkError>,
}

/// Why a channel has nothing more to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing came in time.
    Timeout,
    /// The replica closed the connection.
    Closed,
}

impl Channel {
    /// TLS only: no HELLO was said.
    pub fn connect(cluster: &TestCluster, replica: u16, key: &SigningKey) -> Self {
        let expected = cluster.view().member(ReplicaId(replica)).unwrap().key;
        let socket = TcpStream::connect(cluster.address(replica)).unwrap();
        let identity = TlsIdentity::new(key).unwrap();
        let limits = LinkLimits { frame_bytes_max: 8 << 20, outbound_bytes_max: 64 << 20 };
        let mut link = Link::connect(socket, &identity, &expected, limits).unwrap();
        let poll = Poll::new().unwrap();
        mio::event::Source::register(
            &mut link,
            poll.registry(),
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )
        .unwrap();
        Self { link, poll, frames: Vec::new(), ended: None }
    }

    /// A channel in a role that the replica is asked to believe.
    pub fn open(
        cluster: &TestCluster,
        replica: u16,
        key: &SigningKey,
        role: Role,
    ) -> Result<Self, RefusalCode> {
        let mut channel = Self::connect(cluster, replica, key);
        channel.hello(&Hello::new(cluster.view(), role))?;
        Ok(channel)
    }

    /// A client's channel.
    pub fn client(cluster: &TestCluster, replica: u16, key: &SigningKey) -> Self {
        Self::open(cluster, replica, key, Role::Client).unwrap()
    }

    /// Says HELLO and waits for the answer.
    pub fn hello(&mut self, hello: &Hello) -> Result<(), RefusalCode> {
        self.send(&hello.encode());
        match Answer::decode(&self.receive(PATIENCE).expect("an answer to HELLO")).unwrap() {
            Answer::Welcome { .. } => Ok(()),
            Answer::Refused { code, .. } => Err(code),
        }
    }

    /// A HELLO as a client of another cluster.
    pub fn foreign_hello(cluster: &TestCluster) -> Hello {
        Hello { cluster: ClusterId([0xee; 32]), ..Hello::new(cluster.view(), Role::Client) }
    }

    /// Sends one frame, as far as the replica takes it.
    pub fn send(&mut self, frame: &[u8]) {
        self.link.queue(frame).unwrap();
        self.pump(Duration::ZERO);
    }

    /// Sends one frame and reads nothing.
    pub fn send_unread(&mut self, frame: &[u8]) {
        if self.link.queue(frame).is_ok() {
            // A connection that the replica has closed is what such a test waits for.
            let _ = self.link.flush();
        }
    }

    /// The next frame.
    pub fn receive(&mut self, timeout: Duration) -> Result<Bytes, Silence> {
        let until = Instant::now() + timeout;
        loop {
            if !self.frames.is_empty() {
                return Ok(self.frames.remove(0));
            }
            if self.ended.is_some() {
                return Err(Silence::Closed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Timeout);
            }
            self.pump(left);
        }
    }

    /// Whether the replica closes the connection in time.
    pub fn is_closed_within(&mut self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        while self.ended.is_none() && Instant::now() < until {
            self.pump(Duration::from_millis(20));
        }
        self.ended.is_some()
    }

    /// Writes what waits, waits for the socket, reads what came.
    fn pump(&mut self, wait: Duration) {
        if self.ended.is_some() {
            return;
        }
        let mut events = Events::with_capacity(8);
        let step = self.link.flush().and_then(|_| {
            self.poll.poll(&mut events, Some(wait)).unwrap();
            self.link.read(1 << 20, &mut self.frames)?;
            self.link.flush()
        });
        self.ended = step.err();
    }
}
