//! What owned replicas give to those that fetch a state or a log: the truth, bent.

use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::ids::{Digest, InstanceId, ReplicaId, Signature};
use regency_protocol::manifest::{Chunk, ManifestHead};
use regency_protocol::message::{CheckpointCertificate, Statement, Supply, Wanted};
use regency_protocol::record::RecordedBatch;
use regency_protocol::time::Timestamp;

use super::Deed;
use super::strings::Strings;
use super::vice::Vice;
use crate::signatures::{Keyring, Signer};

impl Strings {
    /// What becomes of an honest donor's answer.
    pub(super) fn give(
        &mut self,
        supply: Supply,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) -> Option<Supply> {
        if self.shows(Vice::SilentDonor, deeds) {
            return None;
        }
        if self.has(Vice::DenyingDonor)
            && let Some(wanted) = question(&supply)
            && self.shows(Vice::DenyingDonor, deeds)
        {
            return Some(Supply::Nothing(wanted));
        }
        Some(match supply {
            Supply::Digests { from, digests } if self.shows(Vice::FalseLog, deeds) => {
                Supply::Digests { from, digests: self.false_digests(digests) }
            }
            Supply::Batches(batches) if self.shows(Vice::FalseLog, deeds) => {
                Supply::Batches(self.false_batches(batches))
            }
            Supply::Snapshot { certificate, head } if self.shows(Vice::RelabelledState, deeds) => {
                Supply::Snapshot { certificate: self.misplaced(certificate, keyring), head }
            }
            Supply::Snapshot { certificate, head } if self.shows(Vice::FalseContents, deeds) => {
                Supply::Snapshot { certificate, head: self.false_head(head) }
            }
            Supply::Page { instance, page, chunks } if self.shows(Vice::FalseContents, deeds) => {
                Supply::Page { instance, page, chunks: self.false_page(chunks) }
            }
            Supply::Chunk { instance, index, bytes } if self.shows(Vice::FalseChunks, deeds) => {
                Supply::Chunk { instance, index, bytes: self.false_chunk(&bytes) }
            }
            honest => honest,
        })
    }

    fn false_digests(&mut self, mut digests: Vec<Digest>) -> Vec<Digest> {
        match self.stream.below(3) {
            0 => digests.reverse(),
            1 => {
                digests.pop();
            }
            _ => {
                if let Some(last) = digests.last_mut() {
                    last.0[0] ^= 1;
                }
            }
        }
        digests
    }

    fn false_batches(&mut self, mut batches: Vec<RecordedBatch>) -> Vec<RecordedBatch> {
        match self.stream.below(4) {
            0 => batches.clear(),
            1 => batches.reverse(),
            2 => {
                if let Some(last) = batches.last_mut() {
                    let batch = Arc::make_mut(&mut last.batch);
                    batch.timestamp = Timestamp(batch.timestamp.0.saturating_add(1));
                }
            }
            _ => {
                if let Some(last) = batches.last_mut() {
                    Arc::make_mut(&mut last.batch).requests.clear();
                    last.requests.clear();
                }
            }
        }
        batches
    }

    /// The state under a later instance, or signed by nobody but the owned.
    fn misplaced(
        &mut self,
        mut certificate: CheckpointCertificate,
        keyring: &Keyring,
    ) -> CheckpointCertificate {
        certificate.instance = certificate.instance.plus(self.stream.between(1, 5));
        if self.stream.percent(50) {
            let CheckpointCertificate { view, instance, chain, root, .. } = certificate;
            let statement = Statement::Checkpoint { view, instance, chain, root };
            let own: Vec<(ReplicaId, Signature)> =
                self.owned.iter().map(|id| (*id, keyring.sign(Signer::Replica(*id), &statement))).collect();
            certificate.signatures = own;
        }
        certificate
    }

    fn false_head(&mut self, mut head: ManifestHead) -> ManifestHead {
        match self.stream.below(4) {
            0 => head.total_bytes = u64::MAX,
            1 => head.chunks = u64::MAX,
            2 => head.pages.push(Digest([7; 32])),
            _ => head.pages.iter_mut().for_each(|page| page.0[0] ^= 1),
        }
        head
    }

    fn false_page(&mut self, mut chunks: Vec<Chunk>) -> Vec<Chunk> {
        match self.stream.below(4) {
            0 => chunks.reverse(),
            1 => {
                chunks.pop();
            }
            2 => chunks.iter_mut().for_each(|chunk| chunk.length = 1 << 20),
            _ => chunks.iter_mut().for_each(|chunk| chunk.hash.0[0] ^= 1),
        }
        chunks
    }

    fn false_chunk(&mut self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        match self.stream.below(3) {
            0 => bytes.clear(),
            1 => bytes.push(0),
            _ => {
                let at = self.stream.index(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
        bytes.into()
    }
}

/// The question that this answers, as far as the answer tells.
fn question(supply: &Supply) -> Option<Wanted> {
    match supply {
        Supply::Snapshot { certificate, .. } => {
            Some(Wanted::Snapshot { view: certificate.view, above: InstanceId(0) })
        }
        Supply::Nothing(wanted) => Some(*wanted),
        Supply::Digests { .. } | Supply::Batches(_) | Supply::Page { .. } | Supply::Chunk { .. } => None,
    }
}
