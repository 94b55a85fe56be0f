//! Replicas that only talk: they let clients in and answer each request at once, without agreeing on anything.
//!
//! They speak the real protocol over real sockets, so what a client makes of answers, lies, silence, resets and
//! refusals can be tested without a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use regency::Bytes;
use regency::client::ClientConfig;
use regency::crypto::{SigningKey, verify};
use regency::protocol::codec::Wire;
use regency::protocol::digest::{Domain, digest, signing_bytes};
use regency::protocol::ids::{ClusterId, PublicKey, ReplicaId, SessionId, ViewId};
use regency::protocol::limits::{CLIENT_FRAME_BYTES_MAX, Settings};
use regency::protocol::message::{
    Bundle, ClientMessage, Outcome, ReplicaMessage, Reply, Request, RequestKind,
};
use regency::protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};
use regency::transport::{Answer, Hello, Link, LinkLimits, RefusalCode, TlsIdentity};

const LIMITS: LinkLimits =
    LinkLimits { frame_bytes_max: CLIENT_FRAME_BYTES_MAX, outbound_bytes_max: 64 << 20 };
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// How a stub answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The operation itself is the result.
    Echo,
    /// The same, by digest unless asked for the whole.
    EchoDigest,
    /// Another result than the others.
    Lie,
    /// Nothing.
    Silent,
    /// Not let in.
    Refuse(RefusalCode),
}

/// A running stub.
pub(crate) struct Stub {
    is_stopping: Arc<AtomicBool>,
    /// Connections are cut when this changes.
    resets: Arc<AtomicU64>,
    pub(crate) signatures: Arc<AtomicU64>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// The key of stub `id`.
pub(crate) fn replica_key(id: u16) -> SigningKey {
    SigningKey::from_seed([u8::try_from(id).unwrap() + 10; 32])
}

/// Addresses that nobody else has just now.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// A view of four stubs at these addresses.
pub(crate) fn view(addresses: &[SocketAddr], auth: RequestAuth) -> Arc<View> {
    let member = |(id, address): (u16, &SocketAddr)| Member {
        id: ReplicaId(id),
        address: address.to_string(),
        key: replica_key(id).public(),
    };
    let parts = ViewParts {
        cluster: ClusterId([3; 32]),
        id: ViewId(0),
        mode: Mode::Bft,
        faults: 1,
        members: (0..).zip(addresses).map(member).collect(),
        clients: Clients::Open,
        request_auth: auth,
    };
    Arc::new(View::new(parts).unwrap())
}

/// A client of that view.
pub(crate) fn config(view: &Arc<View>) -> ClientConfig {
    ClientConfig::new(view.clone(), Arc::new(Settings::default()), SigningKey::from_seed([99; 32]))
}

/// Four stubs on free ports, and their view.
pub(crate) fn cluster(manners: [Manner; 4], auth: RequestAuth) -> (Vec<Stub>, Arc<View>) {
    let addresses = free_addresses(4);
    let stubs = (0..).zip(manners).zip(&addresses);
    let stubs = stubs.map(|((id, manner), address)| Stub::start(*address, id, &replica_key(id), manner));
    (stubs.collect(), view(&addresses, auth))
}

impl Stub {
    pub(crate) fn start(address: SocketAddr, id: u16, key: &SigningKey, manner: Manner) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let mut listener = TcpListener::bind(address).unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        let (is_stopping, resets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let signatures = Arc::new(AtomicU64::new(0));
        let mut state = Loop {
            id: ReplicaId(id),
            identity: TlsIdentity::new(key).unwrap(),
            manner,
            poll,
            listener,
            peers: vec![],
            signatures: signatures.clone(),
        };
        let (stopping, cuts) = (is_stopping.clone(), resets.clone());
        let thread = thread::spawn(move || {
            let mut events = Events::with_capacity(256);
            let mut cut = 0;
            while !stopping.load(Ordering::SeqCst) {
                state.poll.poll(&mut events, None).unwrap();
                if cuts.load(Ordering::SeqCst) != cut {
                    cut = cuts.load(Ordering::SeqCst);
                    state.peers.iter_mut().for_each(|peer| *peer = None);
                }
                for event in &events {
                    match event.token() {
                        LISTENER => state.accept(),
                        WAKER => {}
                        Token(number) => state.serve(number),
                    }
                }
            }
        });
        Self { is_stopping, resets, signatures, waker, thread: Some(thread) }
    }

    /// Cuts all connections.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.waker.wake().unwrap();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Peer {
    link: Link,
    key: Option<PublicKey>,
}

struct Loop {
    id: ReplicaId,
    identity: TlsIdentity,
    manner: Manner,
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    signatures: Arc<AtomicU64>,
}

impl Loop {
    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            self.admit(socket);
        }
    }

    fn admit(&mut self, socket: TcpStream) {
        let mut link = Link::accept(socket, &self.identity, LIMITS).unwrap();
        let token = Token(self.peers.len());
        self.poll.registry().register(&mut link, token, Interest::READABLE | Interest::WRITABLE).unwrap();
        self.peers.push(Some(Peer { link, key: None }));
    }

    fn serve(&mut self, number: usize) {
        let Some(peer) = &mut self.peers[number] else { return };
        let mut frames = Vec::new();
        let read = peer.link.read(usize::MAX, &mut frames);
        let mut stays = read.is_ok();
        for frame in frames {
            if peer.key.is_some() {
                let replies = answer(self.manner, peer.key.as_ref(), frame, &self.signatures);
                if !replies.is_empty() {
                    let message = ReplicaMessage::Replies { view: ViewId(0), replies };
                    peer.link.queue(&message.to_frame()).unwrap();
                }
                continue;
            }
            peer.key = peer.link.peer_key();
            let hello = Hello::decode(&frame).unwrap();
            let reply = match self.manner {
                Manner::Refuse(code) => {
                    stays = false;
                    Answer::refused(code)
                }
                Manner::Echo | Manner::EchoDigest | Manner::Lie | Manner::Silent => {
                    assert_eq!(hello.cluster, ClusterId([3; 32]), "at {}", self.id);
                    Answer::Welcome { view: ViewId(0) }
                }
            };
            peer.link.queue(&reply.encode()).unwrap();
        }
        stays &= peer.link.flush().is_ok();
        if !stays {
            self.peers[number].take().unwrap().link.close();
        }
    }
}

fn answer(manner: Manner, key: Option<&PublicKey>, frame: Bytes, signatures: &AtomicU64) -> Vec<Reply> {
    let ClientMessage::Bundle(bundle) = ClientMessage::decode(frame).unwrap();
    if let Some(signature) = bundle.signature {
        let signed = signing_bytes(&ClusterId([3; 32]), &bundle.statement().unwrap());
        assert!(verify(key.unwrap(), &signed, &signature));
        signatures.fetch_add(1, Ordering::SeqCst);
    }
    if manner == Manner::Silent {
        return vec![];
    }
    bundle.requests.iter().map(|request| reply_to(manner, &bundle, request)).collect()
}

fn reply_to(manner: Manner, bundle: &Bundle, request: &Request) -> Reply {
    let outcome = match (request.kind(), manner) {
        // Equal at all stubs, different for all sessions.
        (RequestKind::Open, _) => {
            Outcome::Result(Bytes::copy_from_slice(&(request.sequence().0 | 1).to_le_bytes()))
        }
        (RequestKind::Ordered, Manner::Lie) => Outcome::Result(Bytes::from_static(b"a lie")),
        (RequestKind::Ordered, Manner::EchoDigest) if !bundle.whole_results => {
            Outcome::ResultDigest(digest(Domain::Result, &request.payload()))
        }
        (RequestKind::Ordered, _) => Outcome::Result(request.payload()),
    };
    let session = match request.kind() {
        RequestKind::Open => SessionId::NONE,
        RequestKind::Ordered => request.session(),
    };
    Reply { session, sequence: request.sequence(), outcome }
}
