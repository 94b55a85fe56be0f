//! Checkpoints: when they are due, who signed which state, and which one is stable [CKPT-1, CKPT-2].

use std::collections::BTreeMap;

use crate::ids::{Digest, InstanceId, ReplicaId, Signature, ViewId};
use crate::limits::Settings;
use crate::message::{CheckpointCertificate, CheckpointSignature, Request};
use crate::mutants::{Mutant, is_active};
use crate::snapshot::SnapshotHead;
use crate::view::View;

/// Signatures that are kept of one replica: of more, that for the lowest instance gives way.
const OPEN_MAX: usize = 4;
/// How often an own signature is sent again while it is not stable: more would keep an idle cluster awake for ever.
const RESENDS_MAX: u32 = 50;

/// The highest level: of so many checkpoints, as a power of two, a replica with a slow disk takes one.
const LEVEL_MAX: u32 = 6;

/// What is signed: the chain and the root of the state after an instance.
type State = (Digest, Digest);

/// The checkpoints above the stable one, and that.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    view: ViewId,
    /// Instances, and canonical bytes of their requests, delivered since the last one that was due.
    instances: u64,
    bytes: usize,
    /// How many have been due since the beginning: equal everywhere, and part of snapshots.
    number: u64,
    /// Of the checkpoints that are due this replica takes those whose number has so many trailing zero bits. Where
    /// writing one takes longer than the next one is away, replicas would otherwise each take others, and none would
    /// ever be signed by a quorum.
    level: u32,
    /// How many have been due while the last one was being written.
    spanned: u64,
    /// The one that is delivered, but not executed: nothing is delivered after it until it is.
    due: Option<InstanceId>,
    /// The one whose snapshot is being written, with the chain there.
    pending: Option<(InstanceId, Digest)>,
    /// This replica's newest snapshot that is on disk.
    own: Option<(InstanceId, State)>,
    /// This replica's newest signature, and how often it may yet be sent again.
    signed: Option<(CheckpointSignature, u32)>,
    signatures: BTreeMap<InstanceId, BTreeMap<ReplicaId, (State, Signature)>>,
    stable: Option<CheckpointCertificate>,
    /// The highest stable one that is on record.
    recorded: InstanceId,
}

impl Checkpoints {
    pub(crate) fn new(view: ViewId) -> Self {
        Self {
            view,
            instances: 0,
            bytes: 0,
            number: 0,
            level: 0,
            spanned: 0,
            due: None,
            pending: None,
            own: None,
            signed: None,
            signatures: BTreeMap::new(),
            stable: None,
            recorded: InstanceId(0),
        }
    }

    /// Counts a delivered batch: whether one is due follows from the order alone, so it is equal everywhere.
    pub(crate) fn on_delivered<'a>(
        &mut self,
        instance: InstanceId,
        requests: impl Iterator<Item = &'a Request>,
        settings: &Settings,
    ) {
        let bytes = requests.fold(0_usize, |sum, request| sum.saturating_add(request.encoded().len()));
        self.instances = self.instances.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.instances >= settings.checkpoint_interval || self.bytes >= settings.checkpoint_bytes {
            (self.instances, self.bytes) = (0, 0);
            self.number = self.number.saturating_add(1);
            self.due = Some(instance);
        }
    }

    /// Whether a checkpoint's instance is delivered and not executed.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// `instance` is executed: whether a snapshot is to be taken of the state after it.
    pub(crate) fn on_executed(&mut self, instance: InstanceId, chain: Digest, is_wanted: bool) -> bool {
        if self.due != Some(instance) {
            return false;
        }
        self.due = None;
        let is_turn = self.number.trailing_zeros() >= self.level;
        if self.pending.is_some() {
            // One that is still being written is not held up.
            self.spanned = self.spanned.saturating_add(1);
            self.level = self.level.saturating_add(u32::from(is_turn)).min(LEVEL_MAX);
            return false;
        }
        if !is_turn || !is_wanted {
            return false;
        }
        self.spanned = 0;
        self.pending = Some((instance, chain));
        true
    }

    /// Whether a snapshot is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.pending.is_some()
    }

    /// How many checkpoints have been due.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The snapshot of `instance` is on disk; returns the chain to be signed with it.
    pub(crate) fn on_written(&mut self, instance: InstanceId, root: Digest) -> Option<Digest> {
        let (_, chain) = self.pending.take_if(|(pending, _)| *pending == instance)?;
        let half = 1_u64.checked_shl(self.level.saturating_sub(1)).unwrap_or(u64::MAX);
        if self.spanned < half {
            self.level = self.level.saturating_sub(1);
        }
        self.own = Some((instance, (chain, root)));
        Some(chain)
    }

    /// A snapshot that was found on disk at the start.
    pub(crate) fn restore(&mut self, head: &SnapshotHead, root: Digest) {
        self.own = Some((head.instance, (head.chain, root)));
        self.number = head.checkpoint;
    }

    /// This replica has taken over the state of a stable checkpoint, with its snapshot.
    pub(crate) fn adopt(&mut self, certificate: &CheckpointCertificate, number: u64) {
        self.own = Some((certificate.instance, (certificate.chain, certificate.root)));
        (self.instances, self.bytes, self.number) = (0, 0, number);
        (self.due, self.pending) = (None, None);
        self.install(certificate.clone());
    }

    /// This replica's newest snapshot is again as a quorum signed it, or has given way to a later one.
    pub(crate) fn repaired(&mut self, certificate: CheckpointCertificate) {
        if self.own.is_none_or(|(own, _)| own <= certificate.instance) {
            self.own = Some((certificate.instance, (certificate.chain, certificate.root)));
        }
        self.install(certificate);
    }

    /// This replica's own snapshot is not that of its checkpoint: it has none.
    pub(crate) fn disown(&mut self) {
        (self.own, self.due, self.pending, self.signed) = (None, None, None, None);
    }

    /// This replica's newest snapshot.
    pub(crate) fn own(&self) -> InstanceId {
        self.own.map_or(InstanceId(0), |(instance, _)| instance)
    }

    /// Notes this replica's own signature; returns the message to send.
    pub(crate) fn signed(
        &mut self,
        instance: InstanceId,
        (chain, root): State,
        signature: Signature,
    ) -> CheckpointSignature {
        let own = CheckpointSignature { view: self.view, instance, chain, root, signature };
        self.signed = Some((own, RESENDS_MAX));
        own
    }

    /// This replica's newest signature, if it is not stable and may be sent again [LINK-1].
    pub(crate) fn resend(&mut self) -> Option<CheckpointSignature> {
        let stable = self.stable();
        let (own, left) = self.signed.as_mut().filter(|(own, left)| own.instance > stable && *left > 0)?;
        *left = left.saturating_sub(1);
        Some(*own)
    }

    /// Whether a signature is to be sent again.
    pub(crate) fn is_open(&self) -> bool {
        self.signed.is_some_and(|(own, left)| own.instance > self.stable() && left > 0)
    }

    /// The instance of the stable checkpoint, 0 if there is none.
    pub(crate) fn stable(&self) -> InstanceId {
        self.stable.as_ref().map_or(InstanceId(0), |certificate| certificate.instance)
    }

    /// The stable checkpoint.
    pub(crate) fn certificate(&self) -> Option<&CheckpointCertificate> {
        self.stable.as_ref()
    }

    /// The stable checkpoint, once for its record.
    pub(crate) fn take_unrecorded(&mut self) -> Option<CheckpointCertificate> {
        let certificate = self.stable.clone().filter(|stable| stable.instance > self.recorded)?;
        self.recorded = certificate.instance;
        Some(certificate)
    }

    /// Counts a verified signature of a member; true if it made a checkpoint stable.
    pub(crate) fn add(&mut self, from: ReplicaId, signed: &CheckpointSignature, view: &View) -> bool {
        if signed.instance <= self.stable() {
            return false;
        }
        let state = (signed.chain, signed.root);
        let signers = self.signatures.entry(signed.instance).or_default();
        signers.entry(from).or_insert((state, signed.signature));
        let threshold = if is_active(Mutant::StableWithWeak) { view.weak() } else { view.quorum() };
        let equal = signers.iter().filter(|(_, (other, _))| *other == state);
        let signatures: Vec<(ReplicaId, Signature)> =
            equal.map(|(signer, (_, signature))| (*signer, *signature)).take(threshold).collect();
        if signatures.len() >= threshold {
            return self.install(CheckpointCertificate {
                view: self.view,
                instance: signed.instance,
                chain: signed.chain,
                root: signed.root,
                signatures,
            });
        }
        self.forget_lowest(from);
        false
    }

    /// Keeps to the bound of what is kept of one replica: a liar must not drive out what others have signed.
    fn forget_lowest(&mut self, from: ReplicaId) {
        let signed = self.signatures.iter().filter(|(_, signers)| signers.contains_key(&from));
        let instances: Vec<InstanceId> = signed.map(|(instance, _)| *instance).collect();
        let surplus = instances.len().saturating_sub(OPEN_MAX);
        for instance in instances.into_iter().take(surplus) {
            if let Some(signers) = self.signatures.get_mut(&instance) {
                signers.remove(&from);
            }
        }
        self.signatures.retain(|_, signers| !signers.is_empty());
    }

    /// Takes a certificate whose signatures are verified and whose signers are enough; true if it is new.
    pub(crate) fn install(&mut self, certificate: CheckpointCertificate) -> bool {
        if certificate.instance <= self.stable() {
            return false;
        }
        self.signatures = self.signatures.split_off(&certificate.instance.next());
        self.stable = Some(certificate);
        true
    }

    /// Whether this replica's state differs from a stable one: then it must not serve [CKPT-2].
    pub(crate) fn differs(&self) -> bool {
        let (Some(stable), Some((instance, state))) = (&self.stable, self.own) else { return false };
        stable.instance == instance && state != (stable.chain, stable.root)
    }

    /// How many signatures are kept.
    pub(crate) fn len(&self) -> usize {
        self.signatures.values().map(BTreeMap::len).sum()
    }
}

/// Whether a certificate has a quorum of signers, all of them members, each once [CKPT-2].
pub(crate) fn has_quorum(certificate: &CheckpointCertificate, view: &View) -> bool {
    let needed = if is_active(Mutant::StableWithWeak) { view.weak() } else { view.quorum() };
    view.has_signers(&certificate.signatures, needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Mode;
    use crate::view::tests::view;

    fn signed(instance: u64, root: u8) -> CheckpointSignature {
        let (chain, root) = (Digest([1; 32]), Digest([root; 32]));
        let signature = Signature([0; 64]);
        CheckpointSignature { view: ViewId(0), instance: InstanceId(instance), chain, root, signature }
    }

    /// Replicas whose disks take longer than one checkpoint is away come to take the same ones.
    #[test]
    fn slow_disks_take_checkpoints_that_the_others_take_too() {
        let settings = Settings { checkpoint_interval: 1, ..Settings::default() };
        let spans = [0, 1, 2, 3, 5];
        let mut all: Vec<_> = spans.iter().map(|_| Checkpoints::new(ViewId(0))).collect();
        let mut taken = vec![Vec::new(); spans.len()];
        for number in 1..200_u64 {
            let instance = InstanceId(number);
            for ((checkpoints, span), taken) in all.iter_mut().zip(spans).zip(&mut taken) {
                if let Some((pending, _)) = checkpoints.pending
                    && pending.0 + span < number
                {
                    checkpoints.on_written(pending, Digest([0; 32]));
                }
                checkpoints.on_delivered(instance, std::iter::empty(), &settings);
                if checkpoints.on_executed(instance, Digest([0; 32]), true) {
                    taken.push(number);
                }
            }
        }
        assert_eq!(taken[0].len(), 199, "a quick disk takes all");
        let is_common = |number: &&u64| taken.iter().all(|taken| taken.contains(number));
        let common = taken[4].iter().filter(|number| **number > 50).filter(is_common).count();
        assert!(common >= 10, "{taken:?}");
    }

    #[test]
    fn a_quorum_that_signed_one_state_makes_it_stable() {
        let view = view(Mode::Bft, 4, 1).unwrap();
        let mut checkpoints = Checkpoints::new(ViewId(0));
        assert!(!checkpoints.add(ReplicaId(0), &signed(10, 7), &view));
        assert!(!checkpoints.add(ReplicaId(1), &signed(10, 8), &view));
        assert!(!checkpoints.add(ReplicaId(2), &signed(10, 7), &view));
        assert!(!checkpoints.add(ReplicaId(2), &signed(10, 7), &view), "each counts once");
        assert!(checkpoints.add(ReplicaId(3), &signed(10, 7), &view));
        let certificate = checkpoints.certificate().unwrap();
        assert!(has_quorum(certificate, &view) && certificate.root == Digest([7; 32]));
        assert_eq!((checkpoints.stable(), checkpoints.len()), (InstanceId(10), 0));
    }

    #[test]
    fn many_signatures_of_one_replica_drive_out_its_own_only() {
        let view = view(Mode::Bft, 4, 1).unwrap();
        let mut checkpoints = Checkpoints::new(ViewId(0));
        checkpoints.add(ReplicaId(0), &signed(10, 7), &view);
        checkpoints.add(ReplicaId(1), &signed(10, 7), &view);
        for instance in 11..100 {
            checkpoints.add(ReplicaId(3), &signed(instance, 9), &view);
        }
        assert_eq!(checkpoints.len(), 2 + OPEN_MAX);
        assert!(checkpoints.add(ReplicaId(2), &signed(10, 7), &view));
    }

    #[test]
    fn a_checkpoint_is_due_by_instances_or_by_bytes() {
        let settings = Settings { checkpoint_interval: 3, checkpoint_bytes: 1000, ..Settings::default() };
        let mut checkpoints = Checkpoints::new(ViewId(0));
        let large = Request::open(crate::ids::ClientId([1; 32]), 1, crate::time::Timestamp(0));
        let mut due = Vec::new();
        for instance in 1..=8 {
            let count = if instance == 5 { 100 } else { 0 };
            checkpoints.on_delivered(InstanceId(instance), std::iter::repeat_n(&large, count), &settings);
            due.extend(checkpoints.is_due().then_some(instance));
            checkpoints.on_executed(InstanceId(instance), Digest([0; 32]), false);
        }
        assert_eq!(due, [3, 5, 8]);
    }
}
