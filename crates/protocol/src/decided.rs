//! The decided suffix kept for stragglers, with the chain over it, bounded by instances and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::digest;
use crate::ids::{ClusterId, Digest, InstanceId};
use crate::limits::{DIGESTS_MAX, Settings};
use crate::message::{Batch, Request};
use crate::time::Timestamp;

/// One decided instance.
#[derive(Clone, Debug)]
pub(crate) struct DecidedBatch {
    /// The batch.
    pub(crate) batch: Arc<Batch>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its requests, in order.
    pub(crate) requests: Vec<Arc<Request>>,
    /// The chain up to and including it.
    pub(crate) chain: Digest,
}

/// The decided instances up to the prefix, the oldest cut off.
#[derive(Debug)]
pub(crate) struct DecidedLog {
    batches: VecDeque<DecidedBatch>,
    bytes: usize,
    /// The digests of the last batches up to the prefix, of those too that are only in the log on disk [ST-3].
    digests: VecDeque<Digest>,
    prefix: InstanceId,
    chain: Digest,
    /// Ordered time of the last instance.
    timestamp: Timestamp,
}

impl DecidedLog {
    pub(crate) fn new(cluster: &ClusterId) -> Self {
        Self {
            batches: VecDeque::new(),
            bytes: 0,
            digests: VecDeque::new(),
            prefix: InstanceId(0),
            chain: digest::chain_genesis(cluster),
            timestamp: Timestamp(0),
        }
    }

    /// A log that goes on after a snapshot.
    pub(crate) fn after(instance: InstanceId, chain: Digest, timestamp: Timestamp) -> Self {
        let (batches, digests) = (VecDeque::new(), VecDeque::new());
        Self { batches, bytes: 0, digests, prefix: instance, chain, timestamp }
    }

    /// Keeps a batch at or below the prefix for stragglers, while the log is read: `instance` is the next one of
    /// those kept, or the first. What does not reach up to the prefix in the end is forgotten by the first push.
    pub(crate) fn remember(&mut self, decided: DecidedBatch, settings: &Settings) {
        let is_next =
            self.batches.back().is_none_or(|last| last.batch.instance.next() == decided.batch.instance);
        if !is_next {
            self.forget();
        }
        self.bytes = self.bytes.saturating_add(weight(&decided.requests));
        self.note_digest(decided.digest);
        self.batches.push_back(decided);
        self.cut(settings);
    }

    /// Forgets what is kept, if it does not reach up to the prefix.
    pub(crate) fn close_gap(&mut self) {
        if self.batches.back().is_some_and(|last| last.batch.instance != self.prefix) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.batches.clear();
        self.digests.clear();
        self.bytes = 0;
    }

    /// Appends the instance after the prefix; returns its chain and its ordered time [PROPOSE-4].
    pub(crate) fn push(
        &mut self,
        batch: Arc<Batch>,
        digest: Digest,
        requests: Vec<Arc<Request>>,
        settings: &Settings,
    ) -> (Digest, Timestamp) {
        self.close_gap();
        self.prefix = self.prefix.next();
        self.chain = digest::chain_next(&self.chain, &digest);
        self.timestamp = batch.timestamp.max(Timestamp(self.timestamp.0.saturating_add(1)));
        self.bytes = self.bytes.saturating_add(weight(&requests));
        self.note_digest(digest);
        self.batches.push_back(DecidedBatch { batch, digest, requests, chain: self.chain });
        self.cut(settings);
        (self.chain, self.timestamp)
    }

    /// The decided prefix.
    pub(crate) fn prefix(&self) -> InstanceId {
        self.prefix
    }

    /// The chain at the prefix.
    pub(crate) fn chain(&self) -> Digest {
        self.chain
    }

    /// Ordered time at the prefix.
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The lowest instance that is still here; one above the prefix if there is none.
    pub(crate) fn retained_from(&self) -> InstanceId {
        InstanceId(self.prefix.0.saturating_sub(self.batches.len() as u64).saturating_add(1))
    }

    /// Bytes of the requests kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A decided instance that is still here.
    pub(crate) fn get(&self, instance: InstanceId) -> Option<&DecidedBatch> {
        let offset = instance.0.checked_sub(self.retained_from().0)?;
        self.batches.get(usize::try_from(offset).ok()?)
    }

    /// The chain at `instance`, where it is known: the genesis chain at 0, if nothing was cut.
    pub(crate) fn chain_at(&self, instance: InstanceId) -> Option<Digest> {
        if instance == self.prefix {
            return Some(self.chain);
        }
        self.get(instance).map(|decided| decided.chain)
    }

    /// The digests of the batches from `first` to `last`, if all of them are known here.
    pub(crate) fn digests(&self, first: InstanceId, last: InstanceId) -> Option<Vec<Digest>> {
        let oldest = self.prefix.0.saturating_sub(self.digests.len() as u64).saturating_add(1);
        let skipped = usize::try_from(first.0.checked_sub(oldest)?).ok()?;
        if last > self.prefix || last < first {
            return None;
        }
        let count = usize::try_from(last.0.saturating_sub(first.0)).ok()?.saturating_add(1);
        Some(self.digests.iter().skip(skipped).take(count).copied().collect())
    }

    fn note_digest(&mut self, digest: Digest) {
        if self.digests.len() >= DIGESTS_MAX {
            self.digests.pop_front();
        }
        self.digests.push_back(digest);
    }

    fn cut(&mut self, settings: &Settings) {
        while self.batches.len() as u64 > settings.retained_instances && self.bytes > settings.retained_bytes
        {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(weight(&oldest.requests));
        }
    }
}

/// What a batch's requests weigh, an estimate of their bookkeeping included.
fn weight(requests: &[Arc<Request>]) -> usize {
    /// Bytes of a parsed request with its digest in the batch and its shared pointer, or of a batch by itself.
    const BOOKKEEPING_BYTES: usize = 256;
    requests.iter().fold(BOOKKEEPING_BYTES, |sum, request| {
        sum.saturating_add(request.encoded().len()).saturating_add(BOOKKEEPING_BYTES)
    })
}
