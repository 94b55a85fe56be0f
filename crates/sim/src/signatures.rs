//! Signatures that nobody inside the simulation can forge: a tag over signer and signed bytes under a secret
//! that only the world knows; in one schedule of a hundred they are real Ed25519 signatures. The keyring signs for
//! whoever owns the key, and is the verifier of the shell.

use std::sync::Arc;

use ed25519_zebra::{SigningKey, VerificationKey};
use regency_protocol::digest::{self, signing_bytes};
use regency_protocol::event::{ClientRequest, Verified};
use regency_protocol::ids::{ClientId, ClusterId, PublicKey, ReplicaId, Signature};
use regency_protocol::message::{Body, Bundle, BundleProof, Message, Statement};
use regency_protocol::view::View;

/// One seed in so many uses real cryptography, that which leaves this remainder.
const REAL_EVERY: u64 = 100;
const REAL_REMAINDER: u64 = 37;

/// Who can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signer {
    /// A replica.
    Replica(ReplicaId),
    /// A client.
    Client(ClientId),
}

/// All keys of one simulated cluster.
pub(crate) struct Keyring {
    cluster: ClusterId,
    view: Arc<View>,
    secret: [u8; 32],
    /// One schedule in a hundred signs with real keys: what the tags stand for.
    is_real: bool,
}

impl Keyring {
    /// The keys of the view's members and clients under `seed`.
    pub(crate) fn new(seed: u64, view: Arc<View>) -> Self {
        let is_real = seed % REAL_EVERY == REAL_REMAINDER;
        Self { cluster: view.cluster(), view, secret: *blake3::hash(&seed.to_le_bytes()).as_bytes(), is_real }
    }

    /// Whether keys and signatures are real ones.
    pub(crate) fn is_real(&self) -> bool {
        self.is_real
    }

    /// The membership.
    pub(crate) fn members(&self) -> &View {
        &self.view
    }

    /// The public key of a replica: a name, as nothing is computed with it here.
    pub(crate) fn replica_key(id: ReplicaId) -> PublicKey {
        let mut key = [1; 32];
        key[..2].copy_from_slice(&id.0.to_le_bytes());
        PublicKey(key)
    }

    /// The public key of the client with this number.
    pub(crate) fn client_key(number: usize) -> PublicKey {
        let mut key = [2; 32];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        PublicKey(key)
    }

    /// Signs for the owner of `signer`'s key; whoever calls this must own it.
    pub(crate) fn sign(&self, signer: Signer, statement: &Statement) -> Signature {
        let bytes = signing_bytes(&self.cluster, statement);
        if self.is_real {
            return Signature(self.signing_key(signer).sign(&bytes).to_bytes());
        }
        let mut tag = [0; 64];
        self.hasher(signer).update(&bytes).finalize_xof().fill(&mut tag);
        Signature(tag)
    }

    /// The secret key of `signer`.
    fn signing_key(&self, signer: Signer) -> SigningKey {
        SigningKey::from(*self.hasher(signer).finalize().as_bytes())
    }

    /// A hash that only the world can compute, begun with the signer.
    fn hasher(&self, signer: Signer) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        match signer {
            Signer::Replica(id) => hasher.update(b"replica").update(&id.0.to_le_bytes()),
            Signer::Client(id) => hasher.update(b"client").update(&id.0),
        };
        hasher
    }

    /// Whether `signer` made this signature.
    pub(crate) fn verifies(&self, signer: Signer, statement: &Statement, signature: &Signature) -> bool {
        if self.is_real {
            let key = VerificationKey::from(&self.signing_key(signer));
            let bytes = signing_bytes(&self.cluster, statement);
            return key.verify(&signature.0.into(), &bytes).is_ok();
        }
        self.sign(signer, statement) == *signature
    }

    /// The shell's check of a message that came over the channel of `from`: every signature in it verifies.
    pub(crate) fn verify_message(&self, from: ReplicaId, message: Message) -> Option<Verified<Message>> {
        let signatures = message.member_signatures(from, &self.view);
        let mut signatures = signatures.iter();
        let good = self.verify_bodies(message.bodies())
            && signatures
                .all(|one| self.verifies(Signer::Replica(one.signer), &one.statement, &one.signature));
        good.then(|| Verified::vouch(message))
    }

    fn verify_bodies(&self, bodies: &[Body]) -> bool {
        bodies.iter().all(|body| match &body.proof {
            None => true,
            Some(proof) => self.verify_proof(body.request.client(), proof),
        })
    }

    /// The shell's check of a client's bundle; `None` if its signature does not verify.
    pub(crate) fn open_bundle(&self, bundle: Bundle) -> Option<Vec<Verified<ClientRequest>>> {
        let proof = match bundle.signature {
            None => None,
            Some(signature) => {
                let requests = bundle.requests.iter().map(|request| request.digest()).collect();
                let client = bundle.requests.first()?.client();
                let proof = BundleProof { key: PublicKey(client.0), requests, signature };
                if !self.verify_proof(client, &proof) {
                    return None;
                }
                Some(Arc::new(proof))
            }
        };
        let whole_result = bundle.whole_results;
        let open = |request| Verified::vouch(ClientRequest { request, proof: proof.clone(), whole_result });
        Some(bundle.requests.into_iter().map(open).collect())
    }

    /// Whether `client` signed this bundle.
    fn verify_proof(&self, client: ClientId, proof: &BundleProof) -> bool {
        let requests = digest::bundle_digest(&proof.requests);
        self.verifies(Signer::Client(client), &Statement::Bundle { client, requests }, &proof.signature)
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::Digest;
    use regency_protocol::view::Mode;

    use super::*;
    use crate::plan::cluster;
    use crate::random::Stream;

    #[test]
    fn a_signature_holds_for_one_signer_and_one_statement() {
        let view = cluster::view(1, Mode::Bft, &mut Stream::new(1, "view"));
        let keyring = Keyring::new(1, Arc::new(view));
        let client = ClientId([4; 32]);
        let statement = |byte| Statement::Bundle { client, requests: Digest([byte; 32]) };
        let signature = keyring.sign(Signer::Client(client), &statement(1));
        assert!(keyring.verifies(Signer::Client(client), &statement(1), &signature));
        assert!(!keyring.verifies(Signer::Client(client), &statement(2), &signature));
        assert!(!keyring.verifies(Signer::Client(ClientId([5; 32])), &statement(1), &signature));
        assert!(!keyring.verifies(Signer::Replica(ReplicaId(4)), &statement(1), &signature));
    }
}
