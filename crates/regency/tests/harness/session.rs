//! A client made by hand: its requests go to all replicas, an answer counts when `weak` of them gave the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use regency::crypto::SigningKey;
use regency::protocol::codec::Wire;
use regency::protocol::digest::signing_bytes;
use regency::protocol::ids::{Sequence, SessionId};
use regency::protocol::message::{Bundle, ClientMessage, Outcome, Refusal, ReplicaMessage, Reply, Request};
use regency::protocol::time::Timestamp;

use super::PATIENCE;
use super::channel::Channel;
use super::cluster::TestCluster;

/// An open session with a channel to each running replica.
pub struct Session {
    key: SigningKey,
    cluster: regency::protocol::ids::ClusterId,
    pub channels: BTreeMap<u16, Channel>,
    pub id: SessionId,
    pub next: u64,
    weak: usize,
}

impl Session {
    /// Opens a session of `key`.
    pub fn open(cluster: &TestCluster, key: SigningKey, nonce: u64) -> Self {
        let channels = cluster.replicas.keys().map(|id| (*id, Channel::client(cluster, *id, &key))).collect();
        let mut session = Self {
            key,
            cluster: cluster.view().cluster(),
            channels,
            id: SessionId::NONE,
            next: 1,
            weak: cluster.view().weak(),
        };
        let request = Request::open(session.key.client_id(), nonce, soon());
        let place = (SessionId::NONE, Sequence(nonce));
        session.send(vec![Arc::new(request)]);
        let Outcome::Result(id) = session.outcome(place) else { panic!("the session was not opened") };
        session.id = SessionId(u64::from_le_bytes(id.as_ref().try_into().unwrap()));
        session
    }

    /// Adds to the counter and waits for the sum.
    pub fn add(&mut self, delta: u64) -> u64 {
        let sequence = self.next;
        self.next += 1;
        match self.invoke(sequence, &delta.to_le_bytes()) {
            Outcome::Result(sum) => u64::from_le_bytes(sum.as_ref().try_into().unwrap()),
            other => panic!("no result: {other:?}"),
        }
    }

    /// Sends one operation under this sequence and waits for what comes of it.
    pub fn invoke(&mut self, sequence: u64, operation: &[u8]) -> Outcome {
        self.send(vec![self.request(sequence, operation)]);
        self.outcome((self.id, Sequence(sequence)))
    }

    pub fn request(&self, sequence: u64, operation: &[u8]) -> Arc<Request> {
        let place = (self.id, Sequence(sequence));
        Arc::new(Request::ordered(self.key.client_id(), place.0, place.1, Sequence(sequence), operation))
    }

    /// Sends requests as one signed bundle to all replicas.
    pub fn send(&mut self, requests: Vec<Arc<Request>>) {
        let frame = self.bundle(requests, &self.key.clone());
        self.channels.values_mut().for_each(|channel| channel.send(&frame));
    }

    /// The frame of a bundle that `signer` signs.
    pub fn bundle(&self, requests: Vec<Arc<Request>>, signer: &SigningKey) -> Vec<u8> {
        let mut bundle = Bundle { signature: None, whole_results: false, requests };
        let statement = bundle.statement().unwrap();
        bundle.signature = Some(signer.sign(&signing_bytes(&self.cluster, &statement)));
        ClientMessage::Bundle(bundle).to_frame().to_vec()
    }

    /// What `weak` replicas say of a request.
    pub fn outcome(&mut self, (session, sequence): (SessionId, Sequence)) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let mut said: BTreeMap<u16, Outcome> = BTreeMap::new();
        while Instant::now() < until {
            for (id, channel) in &mut self.channels {
                let Ok(frame) = channel.receive(Duration::from_millis(2)) else { continue };
                for reply in replies(&frame) {
                    if (reply.session, reply.sequence) == (session, sequence) {
                        said.insert(*id, reply.outcome);
                    }
                }
            }
            for outcome in said.values() {
                if said.values().filter(|other| *other == outcome).count() >= self.weak {
                    return outcome.clone();
                }
            }
        }
        panic!("no quorum of replies for {session} {sequence}: {said:?}");
    }

    /// What one replica alone says of a request.
    pub fn outcome_at(&mut self, replica: u16, sequence: u64) -> Outcome {
        let channel = self.channels.get_mut(&replica).unwrap();
        loop {
            let frame = channel.receive(PATIENCE).expect("a reply");
            // By session too: the late answer to an OPEN carries its nonce where others carry their sequence.
            let place = (self.id, Sequence(sequence));
            let mut of_request =
                replies(&frame).into_iter().filter(|reply| (reply.session, reply.sequence) == place);
            if let Some(reply) = of_request.next() {
                return reply.outcome;
            }
        }
    }
}

pub fn replies(frame: &[u8]) -> Vec<Reply> {
    let ReplicaMessage::Replies { replies, .. } =
        ReplicaMessage::decode(regency::Bytes::copy_from_slice(frame)).unwrap();
    replies
}

/// Whether an outcome is this refusal.
pub fn is_refusal(outcome: &Outcome, refusal: Refusal) -> bool {
    *outcome == Outcome::Refused(refusal)
}

/// A time that an OPEN may be valid until.
pub fn soon() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::default().plus(now + Duration::from_secs(60))
}
