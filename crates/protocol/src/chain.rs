//! Chain signatures and certificates: proof that a prefix is decided, off the critical path [CHAIN-1].

use std::collections::BTreeMap;

use crate::ids::{Digest, InstanceId, ReplicaId, Signature, ViewId};
use crate::message::{ChainCertificate, ChainSignature};
use crate::time::Timestamp;
use crate::view::View;

/// The signatures gathered above the highest certificate, and that certificate.
#[derive(Debug)]
pub(crate) struct Chain {
    view: ViewId,
    certificate: Option<ChainCertificate>,
    signatures: BTreeMap<InstanceId, BTreeMap<ReplicaId, (Digest, Signature)>>,
    /// The highest instance that this replica was asked to sign.
    requested: InstanceId,
    /// This replica's newest signature.
    own: Option<ChainSignature>,
    /// When it last signed because somebody else did.
    followed: Option<Timestamp>,
}

impl Chain {
    pub(crate) fn new(view: ViewId) -> Self {
        Self {
            view,
            certificate: None,
            signatures: BTreeMap::new(),
            requested: InstanceId(0),
            own: None,
            followed: None,
        }
    }

    /// The instance of the highest certificate, 0 if there is none.
    pub(crate) fn certified(&self) -> InstanceId {
        self.certificate.as_ref().map_or(InstanceId(0), |certificate| certificate.instance)
    }

    /// The highest certificate.
    pub(crate) fn certificate(&self) -> Option<&ChainCertificate> {
        self.certificate.as_ref()
    }

    /// Whether `instance` should be signed now, because its number or an idle time calls for it.
    pub(crate) fn request(&mut self, instance: InstanceId) -> bool {
        if instance <= self.requested || instance <= self.certified() {
            return false;
        }
        self.requested = instance;
        true
    }

    /// Whether to sign `instance` because a peer did: at most once per `chain_period`.
    pub(crate) fn follow(
        &mut self,
        instance: InstanceId,
        me: ReplicaId,
        now: Timestamp,
        period: std::time::Duration,
    ) -> bool {
        let has_signed = self.signatures.get(&instance).is_some_and(|signers| signers.contains_key(&me));
        let is_too_soon = self.followed.is_some_and(|last| now < last.plus(period));
        if instance <= self.certified() || has_signed || is_too_soon {
            return false;
        }
        self.followed = Some(now);
        self.requested = self.requested.max(instance);
        true
    }

    /// Notes this replica's own signature; returns the message to send.
    pub(crate) fn signed(
        &mut self,
        instance: InstanceId,
        chain: Digest,
        signature: Signature,
    ) -> ChainSignature {
        let own = ChainSignature { view: self.view, instance, chain, signature };
        if self.own.is_none_or(|newest| newest.instance < instance) {
            self.own = Some(own);
        }
        own
    }

    /// This replica's newest signature, while no certificate covers it [LINK-1].
    pub(crate) fn own_uncertified(&self) -> Option<ChainSignature> {
        self.own.filter(|own| own.instance > self.certified())
    }

    /// Counts a verified signature of a member for an uncertified instance within bounds; true if it made a
    /// new certificate. The first of each replica and instance counts.
    pub(crate) fn add(&mut self, from: ReplicaId, signature: &ChainSignature, view: &View) -> bool {
        if signature.instance <= self.certified() {
            return false;
        }
        let signers = self.signatures.entry(signature.instance).or_default();
        signers.entry(from).or_insert((signature.chain, signature.signature));
        let signatures: Vec<(ReplicaId, Signature)> = signers
            .iter()
            .filter(|(_, (chain, _))| *chain == signature.chain)
            .map(|(signer, (_, signature))| (*signer, *signature))
            .take(view.certifying())
            .collect();
        if signatures.len() < view.certifying() {
            return false;
        }
        self.install(ChainCertificate {
            view: self.view,
            instance: signature.instance,
            chain: signature.chain,
            signatures,
        })
    }

    /// Takes a certificate whose signatures are verified and whose signers are enough; true if it is new.
    pub(crate) fn install(&mut self, certificate: ChainCertificate) -> bool {
        if certificate.instance <= self.certified() {
            return false;
        }
        self.signatures = self.signatures.split_off(&certificate.instance.next());
        self.certificate = Some(certificate);
        true
    }

    /// The highest instance that somebody has signed and no certificate covers.
    pub(crate) fn highest_signed(&self) -> Option<InstanceId> {
        self.signatures.last_key_value().map(|(instance, _)| *instance)
    }

    /// How many signatures are kept.
    pub(crate) fn len(&self) -> usize {
        self.signatures.values().map(BTreeMap::len).sum()
    }
}

/// Whether a certificate has enough signers, all of them members, each once [CHAIN-1]. Their signatures are the
/// shell's business.
pub(crate) fn has_signers(certificate: &ChainCertificate, view: &View) -> bool {
    view.has_signers(&certificate.signatures, view.certifying())
}
