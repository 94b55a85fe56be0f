//! What the sessions of one connection group want sent in one turn of the event loop, put into few frames.

use std::sync::Arc;

use regency_protocol::action::Recipients;
use regency_protocol::codec::Wire;
use regency_protocol::digest;
use regency_protocol::ids::{ClusterId, ReplicaId};
use regency_protocol::limits::{BUNDLE_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX};
use regency_protocol::message::{Bundle, ClientMessage, Request};

use super::Signatures;
use crate::crypto::SigningKey;

/// What a bundle's header and the lengths in it take at most.
const BUNDLE_OVERHEAD_BYTES: usize = 4 << 10;

/// How bundles are made.
pub(super) struct Bundling {
    /// `None` where the channel is the authentication [REQ-3].
    pub(super) signer: Option<Signer>,
    pub(super) signatures: Signatures,
}

/// Signs bundles.
pub(super) struct Signer {
    pub(super) key: SigningKey,
    pub(super) cluster: ClusterId,
}

/// Requests that wait for the end of the turn.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Vec<Waiting>,
}

struct Waiting {
    to: Recipients,
    whole_results: bool,
    request: Arc<Request>,
}

/// A frame and whom it is for.
pub(super) struct Outgoing {
    pub(super) to: Recipients,
    pub(super) frame: Vec<u8>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, to: Recipients, whole_results: bool, request: Arc<Request>) {
        self.waiting.push(Waiting { to, whole_results, request });
    }

    /// Forgets what is meant for this replica alone; it has gone.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        self.waiting.retain(|waiting| waiting.to != Recipients::One(replica));
    }

    /// Encodes everything, each request once for all its receivers, in the order of its coming.
    pub(super) fn take(&mut self, bundling: &Bundling, mut send: impl FnMut(Outgoing)) {
        let mut waiting = self.waiting.drain(..).peekable();
        while let Some(Waiting { to, whole_results, request }) = waiting.next() {
            let mut bytes = BUNDLE_OVERHEAD_BYTES + request.encoded().len();
            let mut requests = vec![request];
            let requests_max = match bundling.signatures {
                Signatures::PerRequest => 1,
                Signatures::PerBundle => BUNDLE_REQUESTS_MAX,
            };
            while let Some(next) = waiting.next_if(|next| {
                bytes += next.request.encoded().len();
                (next.to, next.whole_results) == (to, whole_results)
                    && requests.len() < requests_max
                    && bytes <= CLIENT_FRAME_BYTES_MAX
            }) {
                requests.push(next.request);
            }
            let mut bundle = Bundle { signature: None, whole_results, requests };
            if let (Some(signer), Some(statement)) = (&bundling.signer, bundle.statement()) {
                let signed = digest::signing_bytes(&signer.cluster, &statement);
                bundle.signature = Some(signer.key.sign(&signed));
            }
            let mut frame = Vec::with_capacity(bytes);
            ClientMessage::Bundle(bundle).encode(&mut frame);
            send(Outgoing { to, frame });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use regency_protocol::ids::{ClientId, Sequence, SessionId};

    use super::*;

    fn request(sequence: u64, bytes: usize) -> Arc<Request> {
        let payload = vec![0; bytes];
        Arc::new(Request::ordered(ClientId([1; 32]), SessionId(1), Sequence(sequence), Sequence(0), &payload))
    }

    fn bundles(outbox: &mut Outbox, signatures: Signatures) -> Vec<(Recipients, Bundle)> {
        let key = SigningKey::from_seed([1; 32]);
        let signer = Some(Signer { key, cluster: ClusterId([2; 32]) });
        let mut out = vec![];
        outbox.take(&Bundling { signer, signatures }, |outgoing| {
            assert!(outgoing.frame.len() <= CLIENT_FRAME_BYTES_MAX);
            let ClientMessage::Bundle(bundle) = ClientMessage::decode(Bytes::from(outgoing.frame)).unwrap();
            out.push((outgoing.to, bundle));
        });
        out
    }

    #[test]
    fn one_turn_makes_one_bundle_with_one_signature() {
        let mut outbox = Outbox::default();
        (0..100).for_each(|sequence| outbox.push(Recipients::All, false, request(sequence, 10)));
        let bundles = bundles(&mut outbox, Signatures::PerBundle);
        let [(Recipients::All, bundle)] = &bundles[..] else { panic!("one bundle") };
        assert_eq!(bundle.requests.len(), 100);
        let signed = digest::signing_bytes(&ClusterId([2; 32]), &bundle.statement().unwrap());
        let key = SigningKey::from_seed([1; 32]).public();
        assert!(crate::crypto::verify(&key, &signed, &bundle.signature.unwrap()));
        assert!(outbox.is_empty());
    }

    #[test]
    fn bundles_are_bounded_in_number_and_bytes_and_split_by_receiver() {
        let mut outbox = Outbox::default();
        (0..300).for_each(|sequence| outbox.push(Recipients::All, false, request(sequence, 1)));
        (300..310).for_each(|sequence| outbox.push(Recipients::All, false, request(sequence, 256 << 10)));
        outbox.push(Recipients::One(ReplicaId(1)), false, request(310, 1));
        outbox.push(Recipients::One(ReplicaId(1)), true, request(311, 1));
        outbox.push(Recipients::One(ReplicaId(2)), true, request(312, 1));
        outbox.forget(ReplicaId(2));
        let bundles = bundles(&mut outbox, Signatures::PerBundle);
        let sizes: Vec<usize> = bundles.iter().map(|(_, bundle)| bundle.requests.len()).collect();
        assert_eq!(sizes, [256, 44 + 7, 3, 1, 1]);
        let sequences = bundles.iter().flat_map(|(_, bundle)| &bundle.requests);
        assert!(sequences.map(|request| request.sequence().0).eq(0..312), "each once, in order");
    }

    #[test]
    fn a_signature_per_request_when_asked_for() {
        let mut outbox = Outbox::default();
        (0..3).for_each(|sequence| outbox.push(Recipients::All, false, request(sequence, 1)));
        let bundles = bundles(&mut outbox, Signatures::PerRequest);
        assert_eq!(bundles.len(), 3);
        assert!(bundles.iter().all(|(_, bundle)| bundle.signature.is_some()));
    }
}
