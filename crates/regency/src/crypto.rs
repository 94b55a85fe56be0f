//! Ed25519 keys and signatures, judged by one rule everywhere: ZIP-215 [REQ-3].
//!
//! Replicas check signatures alone and in batches, today and after a restart; if two ways of checking judged one
//! crafted signature differently, a client could split the replicas with it. So every check in the project goes
//! through this file, the one inside TLS included.

use std::collections::HashMap;
use std::fmt;

use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use regency_protocol::digest;
use regency_protocol::ids::{ClientId, PublicKey, Signature};
use thiserror::Error;

/// Decompressed keys that a [`Verifier`] keeps at most.
pub const CACHED_KEYS_MAX: usize = 8192;
/// Signatures that are checked one by one rather than halved further when a batch fails.
const BISECTION_MIN: usize = 4;

/// The operating system gave no random bytes.
#[derive(Debug, Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct EntropyError(#[from] getrandom::Error);

/// A private key: it signs, and proves who one is on a channel.
#[derive(Clone)]
pub struct SigningKey(ed25519_zebra::SigningKey);

impl SigningKey {
    /// The key that belongs to a seed of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_zebra::SigningKey::from_bytes(&seed))
    }

    /// A new key from the operating system's randomness.
    pub fn generate() -> Result<Self, EntropyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self::from_seed(seed))
    }

    /// The seed: what a key file holds. Keep it secret.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        *self.0.as_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(VerificationKeyBytes::from(&self.0).into())
    }

    /// The client that this key makes its holder [REQ-1].
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        digest::client_id(&self.public())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

/// Whether `signature` is `key`'s over `message`.
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerificationKey::try_from(key.0).is_ok_and(|key| key.verify(&to_zebra(signature), message).is_ok())
}

/// One signature to be checked.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Who claims to have signed.
    pub key: PublicKey,
    /// What.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// Checks signatures, many at a time, and remembers the decompressed keys of those who sign often.
#[derive(Default)]
pub struct Verifier {
    keys: HashMap<PublicKey, VerificationKey>,
}

impl Verifier {
    /// A verifier that knows no keys yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `signature` is `key`'s over `message`; spares the decompression of a key seen before.
    pub fn verify(&mut self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        self.cached(key).is_some_and(|key| key.verify(&to_zebra(signature), message).is_ok())
    }

    /// The verdict on each of `items`, in order: all in one equation, and in ever smaller ones if that fails.
    pub fn verify_batch(&mut self, items: &[Signed]) -> Vec<bool> {
        if let [item] = items {
            return vec![self.verify(&item.key, &item.message, &item.signature)];
        }
        let prepared: Vec<batch::Item> = items
            .iter()
            .map(|item| {
                let key = VerificationKeyBytes::from(item.key.0);
                (key, to_zebra(&item.signature), &item.message).into()
            })
            .collect();
        let mut verdicts = vec![true; items.len()];
        judge(&prepared, &mut verdicts);
        verdicts
    }

    fn cached(&mut self, key: &PublicKey) -> Option<VerificationKey> {
        if let Some(known) = self.keys.get(key) {
            return Some(*known);
        }
        let decompressed = VerificationKey::try_from(key.0).ok()?;
        if self.keys.len() >= CACHED_KEYS_MAX {
            // Whoever floods with keys pays with everybody's decompressions, 5 µs each, and with nothing else.
            self.keys.clear();
        }
        self.keys.insert(*key, decompressed);
        Some(decompressed)
    }
}

/// Judges `items` together; halves a batch that fails until the culprits stand alone.
fn judge(items: &[batch::Item], verdicts: &mut [bool]) {
    if items.len() < BISECTION_MIN {
        for (item, verdict) in items.iter().zip(verdicts) {
            *verdict = item.clone().verify_single().is_ok();
        }
        return;
    }
    let mut together = batch::Verifier::new();
    for item in items {
        together.queue(item.clone());
    }
    if together.verify(rand::rng()).is_ok() {
        verdicts.fill(true);
        return;
    }
    let half = items.len() / 2;
    let (left, right) = verdicts.split_at_mut(half);
    judge(&items[..half], left);
    judge(&items[half..], right);
}

fn to_zebra(signature: &Signature) -> ed25519_zebra::Signature {
    ed25519_zebra::Signature::from_bytes(&signature.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn signed(seed: u8, message: &[u8]) -> Signed {
        let key = key(seed);
        Signed { key: key.public(), message: message.to_vec(), signature: key.sign(message) }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let item = signed(1, b"text");
        assert!(verify(&item.key, b"text", &item.signature));
        assert!(!verify(&item.key, b"test", &item.signature));
        assert!(!verify(&key(2).public(), b"text", &item.signature));
    }

    #[test]
    fn a_batch_names_exactly_the_bad_ones() {
        let mut verifier = Verifier::new();
        for bad in [vec![], vec![0], vec![16], vec![3, 4, 5], (0..17).collect::<Vec<usize>>()] {
            let mut items: Vec<Signed> = (0..17).map(|i| signed(i % 5, &[i; 40])).collect();
            for index in &bad {
                items[*index].message.push(0);
            }
            let verdicts = verifier.verify_batch(&items);
            for (index, verdict) in verdicts.iter().enumerate() {
                assert_eq!(*verdict, !bad.contains(&index));
            }
        }
        assert!(verifier.verify_batch(&[]).is_empty());
    }

    #[test]
    fn crafted_keys_and_signatures_are_judged_alike_alone_and_in_batches() {
        // Small-order points, with canonical and other encodings: the classic way to split verifiers.
        let mut small_order = vec![[0_u8; 32]; 6];
        small_order[1][0] = 1;
        small_order[2][31] = 0x80;
        small_order[3] = [0xff; 32];
        small_order[3][0] = 0xec;
        small_order[3][31] = 0x7f;
        small_order[4] = [0xff; 32];
        small_order[4][0] = 0xee;
        small_order[4][31] = 0x7f;
        small_order[5][0] = 1;
        small_order[5][31] = 0x80;
        let mut items = Vec::new();
        for a in &small_order {
            for r in &small_order {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(r);
                items.push(Signed {
                    key: PublicKey(*a),
                    message: b"Zcash".to_vec(),
                    signature: Signature(signature),
                });
            }
        }
        let mut verifier = Verifier::new();
        let together = verifier.verify_batch(&items);
        let alone: Vec<bool> =
            items.iter().map(|item| verify(&item.key, &item.message, &item.signature)).collect();
        let cached: Vec<bool> =
            items.iter().map(|item| verifier.verify(&item.key, &item.message, &item.signature)).collect();
        assert_eq!(together, alone);
        assert_eq!(cached, alone);
        assert!(alone.iter().any(|verdict| *verdict), "some of them pass under ZIP-215");
    }

    #[test]
    fn the_key_cache_is_bounded() {
        let mut verifier = Verifier::new();
        let item = signed(1, b"text");
        let decompressed = verifier.cached(&item.key).unwrap();
        for number in 0..u64::try_from(CACHED_KEYS_MAX).unwrap() {
            let mut unused = [0xaa; 32];
            unused[..8].copy_from_slice(&number.to_le_bytes());
            verifier.keys.insert(PublicKey(unused), decompressed);
        }
        let other = signed(2, b"text");
        assert!(verifier.verify(&other.key, b"text", &other.signature));
        assert!(verifier.keys.len() <= CACHED_KEYS_MAX);
        assert!(verifier.verify(&item.key, b"text", &item.signature));
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let shown = format!("{:?}", key(7));
        assert!(!shown.contains("0707"));
        assert_eq!(key(7).seed(), [7; 32]);
        assert_ne!(SigningKey::generate().unwrap().seed(), SigningKey::generate().unwrap().seed());
    }
}
