//! Signatures on the way in: of clients over bundles, of replicas over places in the chain.
//!
//! Everything that arrived in one turn is judged together, so that its signatures are verified in one batch. A
//! bundle that was verified once, on its client's channel or in a peer's message, is not verified again.

use std::collections::HashSet;
use std::sync::Arc;

use regency_protocol::digest::{bundle_digest, client_id, signing_bytes};
use regency_protocol::ids::{ClientId, Digest, PublicKey, ReplicaId, Signature};
use regency_protocol::message::{Body, BundleProof, Message, Statement};
use regency_protocol::view::{RequestAuth, View};

use super::inbound::Inbound;
use crate::crypto::{self, Signed};

/// Bundles that are remembered as verified, at least; at most twice as many.
const REMEMBERED_BUNDLES: usize = 8192;

/// A bundle that was verified: whose, over what, with which signature.
type Remembered = (ClientId, Digest, Signature);

/// Judges what arrived.
pub(super) struct Verifier {
    view: Arc<View>,
    crypto: crypto::Verifier,
    young: HashSet<Remembered>,
    old: HashSet<Remembered>,
    /// The signatures of this turn, and what each belongs to.
    signed: Vec<Signed>,
    owners: Vec<Owner>,
    checked: u64,
}

/// What a signature belongs to.
struct Owner {
    /// The place in the inbox.
    place: usize,
    /// The bundle to be remembered if it verifies; `None` for a replica's signature.
    bundle: Option<Remembered>,
}

impl Verifier {
    /// A verifier for the signatures of `view`'s members and clients.
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            crypto: crypto::Verifier::new(),
            young: HashSet::new(),
            old: HashSet::new(),
            signed: Vec::new(),
            owners: Vec::new(),
            checked: 0,
        }
    }

    /// Signatures checked so far.
    pub(super) fn checked(&self) -> u64 {
        self.checked
    }

    /// Appends, for each of `inbox` in order, whether all its signatures verify.
    pub(super) fn judge(&mut self, inbox: &[Inbound], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        verdicts.resize(inbox.len(), true);
        for (place, inbound) in inbox.iter().enumerate() {
            let is_plausible = match inbound {
                Inbound::Peer { from, message } => self.collect_message(place, *from, message),
                Inbound::Client { key, bundle, .. } => {
                    // On its own channel a client is authentic anyway [REQ-3].
                    let wants = self.view.request_auth() == RequestAuth::Signature;
                    match (&bundle.signature, bundle.statement()) {
                        (Some(signature), Some(Statement::Bundle { client, requests })) if wants => {
                            self.collect_bundle(place, *key, client, requests, *signature);
                        }
                        _ => {}
                    }
                    true
                }
                Inbound::Connected(_) | Inbound::Disconnected(_) => true,
            };
            if let Some(verdict) = verdicts.get_mut(place) {
                *verdict = is_plausible;
            }
        }
        self.check_collected(verdicts);
    }

    fn check_collected(&mut self, verdicts: &mut [bool]) {
        if self.signed.is_empty() {
            return;
        }
        self.checked += self.signed.len() as u64;
        let outcomes = self.crypto.verify_batch(&self.signed);
        self.signed.clear();
        let mut owners = std::mem::take(&mut self.owners);
        for (is_valid, owner) in outcomes.into_iter().zip(owners.drain(..)) {
            if !is_valid {
                if let Some(verdict) = verdicts.get_mut(owner.place) {
                    *verdict = false;
                }
            } else if let Some(bundle) = owner.bundle {
                self.remember(bundle);
            }
        }
        self.owners = owners;
    }

    fn collect_message(&mut self, place: usize, from: ReplicaId, message: &Message) -> bool {
        let signatures = message.member_signatures(from, &self.view);
        self.collect_bodies(place, message.bodies())
            && signatures
                .iter()
                .all(|signed| self.collect_member(place, signed.signer, &signed.statement, signed.signature))
    }

    fn collect_member(
        &mut self,
        place: usize,
        signer: ReplicaId,
        statement: &Statement,
        signature: Signature,
    ) -> bool {
        let Some(member) = self.view.member(signer) else { return false };
        self.collect(Owner { place, bundle: None }, member.key, statement, signature);
        true
    }

    fn collect_bodies(&mut self, place: usize, bodies: &[Body]) -> bool {
        for body in bodies {
            let Some(proof) = &body.proof else { continue };
            let client = body.request.client();
            let BundleProof { key, requests, signature } = &**proof;
            // [REQ-1] The id is the key's: a proof under another key proves nothing about this client.
            if client_id(key) != client || !requests.contains(&body.request.digest()) {
                return false;
            }
            self.collect_bundle(place, *key, client, bundle_digest(requests), *signature);
        }
        true
    }

    fn collect_bundle(
        &mut self,
        place: usize,
        key: PublicKey,
        client: ClientId,
        requests: Digest,
        signature: Signature,
    ) {
        let bundle = (client, requests, signature);
        if self.young.contains(&bundle) || self.old.contains(&bundle) {
            return;
        }
        // One bundle proves many bodies of a message: it is checked once.
        let last = self.owners.last();
        if last.is_some_and(|last| last.place == place && last.bundle == Some(bundle)) {
            return;
        }
        let owner = Owner { place, bundle: Some(bundle) };
        self.collect(owner, key, &Statement::Bundle { client, requests }, signature);
    }

    fn collect(&mut self, owner: Owner, key: PublicKey, statement: &Statement, signature: Signature) {
        let message = signing_bytes(&self.view.cluster(), statement);
        self.signed.push(Signed { key, message, signature });
        self.owners.push(owner);
    }

    fn remember(&mut self, bundle: Remembered) {
        if self.young.len() >= REMEMBERED_BUNDLES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(bundle);
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClusterId, InstanceId, Sequence, SessionId, ViewId};
    use regency_protocol::message::{Bundle, ChainSignature, Request};
    use regency_protocol::view::{Clients, Member, Mode, ViewParts};

    use super::super::connection::ConnectionId;
    use super::*;
    use crate::crypto::SigningKey;

    fn replica(id: u8) -> SigningKey {
        SigningKey::from_seed([id + 1; 32])
    }

    fn client() -> SigningKey {
        SigningKey::from_seed([100; 32])
    }

    fn verifier(clients: Clients) -> Verifier {
        let member = |id: u8| Member {
            id: ReplicaId(id.into()),
            address: format!("host-{id}:1"),
            key: replica(id).public(),
        };
        Verifier::new(Arc::new(
            View::new(ViewParts {
                cluster: ClusterId([1; 32]),
                id: ViewId(0),
                mode: Mode::Bft,
                faults: 1,
                members: (0..4).map(member).collect(),
                clients,
                request_auth: RequestAuth::Signature,
            })
            .unwrap(),
        ))
    }

    fn listed() -> Clients {
        Clients::Listed([(client().client_id(), client().public())].into())
    }

    fn request(sequence: u64) -> Arc<Request> {
        Arc::new(Request::ordered(client().client_id(), SessionId(9), Sequence(sequence), Sequence(0), b"op"))
    }

    fn sign(key: &SigningKey, statement: &Statement) -> Signature {
        key.sign(&signing_bytes(&ClusterId([1; 32]), statement))
    }

    fn bundle(signer: &SigningKey, sequences: std::ops::Range<u64>) -> Bundle {
        let requests: Vec<_> = sequences.map(request).collect();
        let mut bundle = Bundle { signature: None, whole_results: false, requests };
        bundle.signature = Some(sign(signer, &bundle.statement().unwrap()));
        bundle
    }

    fn from_client(bundle: Bundle) -> Inbound {
        Inbound::Client {
            connection: ConnectionId { slot: 0, serial: 0 },
            client: client().client_id(),
            key: client().public(),
            bundle,
        }
    }

    fn bodies(bundle: &Bundle) -> Vec<Body> {
        let requests = bundle.requests.iter().map(|request| request.digest()).collect();
        let proof =
            Arc::new(BundleProof { key: client().public(), requests, signature: bundle.signature.unwrap() });
        let body = |request: &Arc<Request>| Body { request: request.clone(), proof: Some(proof.clone()) };
        bundle.requests.iter().map(body).collect()
    }

    fn from_peer(message: Message) -> Inbound {
        Inbound::Peer { from: ReplicaId(2), message }
    }

    fn judge(verifier: &mut Verifier, inbox: &[Inbound]) -> Vec<bool> {
        let mut verdicts = Vec::new();
        verifier.judge(inbox, &mut verdicts);
        verdicts
    }

    #[test]
    fn bad_signatures_are_told_from_good_ones_in_one_turn() {
        let mut verifier = verifier(listed());
        let inbox = [
            from_client(bundle(&client(), 0..3)),
            from_client(bundle(&replica(0), 3..6)),
            from_peer(Message::Bodies(bodies(&bundle(&client(), 6..9)))),
            from_peer(Message::Bodies(bodies(&bundle(&replica(1), 9..12)))),
        ];
        assert_eq!(judge(&mut verifier, &inbox), [true, false, true, false]);
        assert_eq!(verifier.checked(), 4, "one signature for each bundle");
    }

    #[test]
    fn a_bundle_is_verified_once() {
        let mut verifier = verifier(listed());
        let good = bundle(&client(), 0..5);
        assert_eq!(judge(&mut verifier, &[from_client(good.clone())]), [true]);
        assert_eq!(judge(&mut verifier, &[from_peer(Message::Bodies(bodies(&good)))]), [true]);
        assert_eq!(verifier.checked(), 1);
        let bad = bundle(&replica(0), 0..5);
        for _ in 0..2 {
            assert_eq!(judge(&mut verifier, &[from_client(bad.clone())]), [false], "not remembered");
        }
        assert_eq!(verifier.checked(), 3);
    }

    #[test]
    fn a_proof_that_does_not_name_its_body_is_refused() {
        let mut verifier = verifier(listed());
        let mut stolen = bodies(&bundle(&client(), 0..2));
        stolen[0].request = request(77);
        assert_eq!(judge(&mut verifier, &[from_peer(Message::Bodies(stolen))]), [false]);
    }

    #[test]
    fn a_body_of_a_client_never_met_is_checked_by_the_key_in_its_proof() {
        let mut verifier = verifier(Clients::Open);
        let sent = bodies(&bundle(&client(), 0..1));
        assert_eq!(judge(&mut verifier, &[from_peer(Message::Bodies(sent.clone()))]), [true]);
        assert_eq!(verifier.checked(), 1);
        let mut foreign = sent;
        let proof =
            BundleProof { key: replica(1).public(), ..(**foreign[0].proof.as_ref().unwrap()).clone() };
        foreign[0].proof = Some(Arc::new(proof));
        assert_eq!(judge(&mut verifier, &[from_peer(Message::Bodies(foreign))]), [false]);
    }

    #[test]
    fn a_chain_signature_counts_only_from_its_signer() {
        let mut verifier = verifier(listed());
        let (view, instance, chain) = (ViewId(0), InstanceId(64), Digest([5; 32]));
        let statement = Statement::Chain { view, instance, chain };
        let by = |id: u8| {
            let signature = sign(&replica(id), &statement);
            from_peer(Message::ChainSignature(ChainSignature { view, instance, chain, signature }))
        };
        // It comes over the channel of replica 2.
        assert_eq!(judge(&mut verifier, &[by(2), by(3)]), [true, false]);
    }
}
