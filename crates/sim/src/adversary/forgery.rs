//! STOPDATA and SYNC as no correct replica makes them, under keys that the adversary owns.

use std::collections::BTreeMap;
use std::sync::Arc;

use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId, Signature};
use regency_protocol::leader_change::sync::Outcome;
use regency_protocol::message::{ChainCertificate, Claim, Lock, SignedStopData, Statement, StopData, Sync};

use super::memory::Memory;
use super::vice::Vice;
use crate::random::Stream;
use crate::signatures::{Keyring, Signer};

/// What forging needs to know.
pub(super) struct Forger<'a> {
    pub(super) me: ReplicaId,
    pub(super) owned: &'a [ReplicaId],
    pub(super) members: &'a [ReplicaId],
    pub(super) quorum: usize,
    pub(super) span: u64,
    pub(super) memory: &'a Memory,
    pub(super) keyring: &'a Keyring,
    pub(super) stream: &'a mut Stream,
}

impl Forger<'_> {
    /// What becomes of an owned replica's statement under one vice; `None` if it has nothing to go by.
    pub(super) fn stop_data(&mut self, vice: Vice, honest: &SignedStopData) -> Option<SignedStopData> {
        let mut data = StopData::clone(&honest.data);
        match vice {
            Vice::FutureClaims => {
                let last = data.claims.last().map_or(data.base_instance(), |claim| claim.instance);
                let instance = InstanceId(last.0.saturating_add(self.stream.between(1, 3)));
                let claim = self.false_claim(instance, data.regency);
                data.claims.push(claim);
            }
            Vice::BeyondSpan => {
                let far = self.stream.pick(&[1, 2, 1000, 1 << 40, u64::MAX / 2]);
                let instance = data.base_instance().plus(self.span).plus(far);
                let claim = self.false_claim(instance, data.regency);
                data.claims.push(claim);
            }
            Vice::TransplantedBase => {
                let mut base = data.base.clone().or_else(|| self.memory.certificate().cloned())?;
                base.instance = InstanceId(base.instance.0.saturating_add(self.stream.between(1, 5)));
                data.claims.retain(|claim| claim.instance > base.instance);
                data.base = Some(base);
            }
            Vice::BaselessBase => {
                data.base = Some(self.uncertified_base(&data));
                let base = data.base_instance();
                data.claims.retain(|claim| claim.instance > base);
            }
            Vice::StuffedWriteSet => self.stuff(&mut data),
            Vice::HiddenLock => {
                if self.stream.percent(50) {
                    data.claims.clear();
                } else {
                    data.claims.iter_mut().for_each(|claim| claim.lock = Lock::None);
                    data.claims.retain(|claim| !claim.write_set.is_empty());
                }
            }
            Vice::FalseLock => {
                let last = data.regency.0.checked_sub(1)?;
                self.lock_falsely(&mut data, last);
            }
            Vice::LockInEpochZero => self.lock_falsely(&mut data, 0),
            Vice::StaleStopData => {
                let old = self.memory.statements().filter(|old| old.sender == self.me);
                let old = old.filter(|old| old.data.regency < data.regency).last()?;
                let content = StopData { regency: data.regency, ..StopData::clone(&old.data) };
                if self.stream.percent(50) {
                    // Under the signature of old.
                    return Some(SignedStopData { data: Arc::new(content), ..old.clone() });
                }
                data = content;
            }
            Vice::BorrowedName => return self.in_anothers_name(honest),
            Vice::ManyStatements => {
                let vice = self.stream.pick(&[Vice::HiddenLock, Vice::FalseLock, Vice::StuffedWriteSet]);
                return self.stop_data(vice, honest);
            }
            Vice::Alter
            | Vice::Equivocate
            | Vice::DoubleVotes
            | Vice::HastyAccepts
            | Vice::WithheldVotes
            | Vice::LateVotes
            | Vice::StaleVotes
            | Vice::WithheldProposals
            | Vice::SlowDrip
            | Vice::Censor
            | Vice::BadBatches
            | Vice::FalseDecisions
            | Vice::BiasedSync
            | Vice::DividedSync
            | Vice::LyingResults
            | Vice::RepeatedSenders
            | Vice::ForgedStatements
            | Vice::MeagreSync
            | Vice::WithheldSync
            | Vice::StopStorm
            | Vice::LoneStop
            | Vice::Resign
            | Vice::Flood
            | Vice::FalseLog
            | Vice::FalseContents
            | Vice::RelabelledState
            | Vice::FalseChunks
            | Vice::SilentDonor
            | Vice::DenyingDonor
            | Vice::SlowDonor
            | Vice::FalseAnnouncements => return None,
        }
        Some(self.signed(honest.sender, data))
    }

    /// What becomes of an owned leader's SYNC under one vice; `None` if that is not for a SYNC.
    pub(super) fn sync(&mut self, vice: Vice, honest: &Sync) -> Option<Sync> {
        let mut sync = honest.clone();
        // Everything that was stated for this regency, not just what the puppet made do with.
        let mut all: BTreeMap<ReplicaId, SignedStopData> =
            sync.set.iter().map(|stated| (stated.sender, stated.clone())).collect();
        for stated in self.memory.statements().filter(|stated| stated.data.regency == sync.regency) {
            all.entry(stated.sender).or_insert_with(|| stated.clone());
        }
        match vice {
            Vice::BiasedSync | Vice::DividedSync => {
                for owned in self.owned {
                    let vice = self.stream.pick(&[Vice::HiddenLock, Vice::FalseLock, Vice::StuffedWriteSet]);
                    let own = all.get(owned).cloned().unwrap_or_else(|| self.empty(*owned, sync.regency));
                    let forged = self.stop_data(vice, &own);
                    all.insert(*owned, forged.unwrap_or(own));
                }
                sync.set = self.subset(vice, all);
                self.select_again(&mut sync);
            }
            Vice::LyingResults => self.lie(&mut sync),
            Vice::RepeatedSenders => {
                let own = all.get(&self.me).cloned().unwrap_or_else(|| self.empty(self.me, sync.regency));
                let own = self.stop_data(Vice::HiddenLock, &own).unwrap_or(own);
                sync.set = vec![own; self.quorum];
                if self.stream.percent(50) {
                    let others = all.into_values().filter(|stated| stated.sender != self.me);
                    let keep = self.stream.index(self.quorum);
                    sync.set.truncate(self.quorum - keep.min(self.quorum - 2));
                    sync.set.extend(others.take(keep));
                }
                self.select_again(&mut sync);
            }
            Vice::ForgedStatements => {
                sync.set = all.into_values().collect();
                for place in 0..sync.set.len() {
                    if sync.set[place].sender == self.me {
                        continue;
                    }
                    let vice = self.stream.pick(&[Vice::HiddenLock, Vice::FalseLock]);
                    let signature = sync.set[place].signature;
                    let stale = self.memory.statements().filter(|old| {
                        old.sender == sync.set[place].sender && old.data.regency < sync.regency
                    });
                    if let Some(old) = stale.last()
                        && self.stream.percent(60)
                    {
                        // What it stated before, under this regency: its signature is true for that one.
                        let data = StopData { regency: sync.regency, ..StopData::clone(&old.data) };
                        sync.set[place] = SignedStopData { data: Arc::new(data), ..old.clone() };
                    } else if let Some(forged) = self.stop_data(vice, &sync.set[place].clone()) {
                        sync.set[place] = SignedStopData { signature, ..forged };
                    }
                }
                self.select_again(&mut sync);
            }
            Vice::MeagreSync => {
                let keep = self.stream.index(self.quorum);
                self.stream.shuffle(&mut sync.set);
                sync.set.truncate(keep);
                self.select_again(&mut sync);
            }
            Vice::Alter
            | Vice::Equivocate
            | Vice::DoubleVotes
            | Vice::HastyAccepts
            | Vice::WithheldVotes
            | Vice::LateVotes
            | Vice::StaleVotes
            | Vice::WithheldProposals
            | Vice::SlowDrip
            | Vice::Censor
            | Vice::BadBatches
            | Vice::FalseDecisions
            | Vice::FutureClaims
            | Vice::BeyondSpan
            | Vice::TransplantedBase
            | Vice::BaselessBase
            | Vice::StuffedWriteSet
            | Vice::HiddenLock
            | Vice::FalseLock
            | Vice::LockInEpochZero
            | Vice::StaleStopData
            | Vice::BorrowedName
            | Vice::ManyStatements
            | Vice::WithheldSync
            | Vice::StopStorm
            | Vice::LoneStop
            | Vice::Resign
            | Vice::Flood
            | Vice::FalseLog
            | Vice::FalseContents
            | Vice::RelabelledState
            | Vice::FalseChunks
            | Vice::SilentDonor
            | Vice::DenyingDonor
            | Vice::SlowDonor
            | Vice::FalseAnnouncements => return None,
        }
        let leader = self.keyring.members().leader_of(sync.regency);
        sync.signature = self.keyring.sign(Signer::Replica(leader), &sync.statement());
        Some(sync)
    }

    fn signed(&self, sender: ReplicaId, data: StopData) -> SignedStopData {
        let signature = self.keyring.sign(Signer::Replica(self.me), &data.statement());
        let own = self.owned.contains(&sender);
        let signature =
            if own { self.keyring.sign(Signer::Replica(sender), &data.statement()) } else { signature };
        SignedStopData { sender, data: Arc::new(data), signature }
    }

    /// A statement that nothing was ever voted for.
    fn empty(&self, sender: ReplicaId, regency: Regency) -> SignedStopData {
        let data = StopData { view: self.keyring.members().id(), regency, base: None, claims: Vec::new() };
        self.signed(sender, data)
    }

    /// A claim of a lock and a WRITE that never were.
    fn false_claim(&mut self, instance: InstanceId, regency: Regency) -> Claim {
        let epoch = Regency(self.stream.below(regency.0.max(1)));
        let digest = self.other_digest(instance, None);
        let lock = if self.stream.percent(70) { Lock::At { epoch, digest } } else { Lock::None };
        Claim { instance, lock, write_set: vec![(epoch, digest)] }
    }

    /// A digest that was once seen for `instance`, other than `digest`; or one that nobody has a batch for.
    fn other_digest(&mut self, instance: InstanceId, digest: Option<Digest>) -> Digest {
        let seen: Vec<Digest> = self.memory.digests(instance).filter(|seen| Some(*seen) != digest).collect();
        if seen.is_empty() || self.stream.percent(10) {
            return Digest([0xee; 32]);
        }
        self.stream.pick(&seen)
    }

    /// For every instance that it knows anything of: a lock at `epoch` for another digest, and WRITEs to match.
    fn lock_falsely(&mut self, data: &mut StopData, epoch: u64) {
        let base = data.base_instance();
        let mut claims = BTreeMap::new();
        for claim in &data.claims {
            claims.insert(claim.instance, claim.clone());
        }
        for instance in self.memory.instances().filter(|instance| *instance > base) {
            claims.entry(instance).or_insert(Claim { instance, lock: Lock::None, write_set: Vec::new() });
        }
        let epoch = Regency(epoch);
        for (instance, claim) in &mut claims {
            let held = match claim.lock {
                Lock::None => None,
                Lock::At { digest, .. } => Some(digest),
            };
            let digest = self.other_digest(*instance, held);
            *claim = Claim {
                instance: *instance,
                lock: Lock::At { epoch, digest },
                write_set: vec![(epoch, digest)],
            };
        }
        let last = base.plus(self.span);
        data.claims = claims.into_values().filter(|claim| claim.instance <= last).collect();
    }

    /// Vouches for everything that was ever seen.
    fn stuff(&mut self, data: &mut StopData) {
        let (base, regency) = (data.base_instance(), data.regency.0);
        let last = base.plus(self.span);
        let mut claims = Vec::new();
        for instance in self.memory.instances().filter(|id| *id > base && *id <= last) {
            let lock = data.claim(instance).map_or(Lock::None, |claim| claim.lock);
            let lock = if self.stream.percent(50) { lock } else { Lock::None };
            let mut digests: Vec<Digest> = self.memory.digests(instance).collect();
            self.stream.shuffle(&mut digests);
            let least = match lock {
                Lock::None => 0,
                Lock::At { epoch, .. } => epoch.0,
            };
            // One per epoch, or as many as there are: the second is no possible write set.
            let crowded = self.stream.percent(20);
            let mut write_set: Vec<(Regency, Digest)> = Vec::new();
            for (age, digest) in digests.into_iter().enumerate() {
                let Some(epoch) = regency.checked_sub(1 + if crowded { 0 } else { age as u64 }) else {
                    break;
                };
                if epoch < least || write_set.len() > 40 {
                    break;
                }
                write_set.push((Regency(epoch), digest));
            }
            write_set.reverse();
            if lock != Lock::None || !write_set.is_empty() {
                claims.push(Claim { instance, lock, write_set });
            }
        }
        data.claims = claims;
    }

    /// A place in a chain of its own, signed by its owners alone, or by nobody.
    fn uncertified_base(&mut self, data: &StopData) -> ChainCertificate {
        let instance = InstanceId(data.base_instance().0.saturating_add(self.stream.between(1, 8)));
        let chain = Digest([0xcc; 32]);
        let statement = Statement::Chain { view: data.view, instance, chain };
        let mut signers: Vec<ReplicaId> = self.owned.to_vec();
        signers.sort_unstable();
        let mut signatures: Vec<(ReplicaId, Signature)> =
            signers.into_iter().map(|id| (id, self.keyring.sign(Signer::Replica(id), &statement))).collect();
        match self.stream.below(3) {
            0 => {}
            1 => signatures.clear(),
            // One signer often enough.
            _ => signatures = vec![signatures[0]; self.quorum],
        }
        ChainCertificate { view: data.view, instance, chain, signatures }
    }

    fn in_anothers_name(&mut self, honest: &SignedStopData) -> Option<SignedStopData> {
        let regency = honest.data.regency;
        let stated: Vec<&SignedStopData> = self
            .memory
            .statements()
            .filter(|stated| stated.data.regency == regency && !self.owned.contains(&stated.sender))
            .collect();
        if stated.is_empty() || self.stream.percent(50) {
            let others: Vec<ReplicaId> =
                self.members.iter().copied().filter(|id| !self.owned.contains(id)).collect();
            return Some(SignedStopData { sender: self.stream.pick(&others), ..honest.clone() });
        }
        let victim = stated[self.stream.index(stated.len())].clone();
        let data = StopData { claims: Vec::new(), ..StopData::clone(&victim.data) };
        Some(SignedStopData { data: Arc::new(data), ..victim })
    }

    /// A quorum of what there is: those that suit first, or any.
    fn subset(&mut self, vice: Vice, all: BTreeMap<ReplicaId, SignedStopData>) -> Vec<SignedStopData> {
        let mut set: Vec<SignedStopData> = all.into_values().collect();
        self.stream.shuffle(&mut set);
        if vice == Vice::BiasedSync {
            let locks = |stated: &SignedStopData| {
                stated.data.claims.iter().filter(|claim| claim.lock != Lock::None).count()
            };
            let owned = |stated: &SignedStopData| self.owned.contains(&stated.sender);
            set.sort_by_key(|stated| (!owned(stated), locks(stated)));
        } else if let Some(place) = set.iter().position(|stated| stated.sender == self.me) {
            set.swap(0, place);
        }
        set.truncate(self.quorum);
        set.sort_by_key(|stated| stated.sender);
        set
    }

    fn select_again(&self, sync: &mut Sync) {
        let data: Vec<&StopData> = sync.set.iter().map(|stated| &*stated.data).collect();
        if let Some(outcome) = Outcome::select(&data, self.keyring.members()) {
            sync.results = outcome.bound.into_iter().collect();
        }
    }

    fn lie(&mut self, sync: &mut Sync) {
        match self.stream.below(3) {
            0 => sync.results.clear(),
            1 => {
                for place in 0..sync.results.len() {
                    let (instance, digest) = sync.results[place];
                    sync.results[place].1 = self.other_digest(instance, Some(digest));
                }
            }
            _ => {
                let last = sync.results.last().map_or(0, |(instance, _)| instance.0);
                let instance = InstanceId(last.saturating_add(1));
                sync.results.push((instance, self.other_digest(instance, None)));
            }
        }
    }
}
