//! How transcripts tell of state transfer, and what donors say in them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use regency_protocol::action::{Action, Recipients};
use regency_protocol::event::Event;
use regency_protocol::ids::{Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
use regency_protocol::manifest::{Chunk, Manifest};
use regency_protocol::message::{
    Batch, ChainCertificate, CheckpointCertificate, Message, Status, Supply, Wanted,
};
use regency_protocol::record::RecordedBatch;
use regency_protocol::state_transfer::donation::{Donation, Transfer};

use super::Scene;

pub(super) fn wanted_line(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Digests { from, last, .. } => format!("digests {from} to {last}?"),
        Wanted::Batches { from, last, .. } => format!("batches {from} to {last}?"),
        Wanted::Snapshot { above, .. } => format!("snapshot above {above}?"),
        Wanted::Page { instance, page, .. } => format!("page {page} of snapshot {instance}?"),
        Wanted::Chunk { instance, index, .. } => format!("chunk {index} of snapshot {instance}?"),
    }
}

pub(super) fn supply_line(supply: &Supply) -> String {
    match supply {
        Supply::Digests { from, digests } => format!("{} digests from {from}", digests.len()),
        Supply::Batches(batches) => {
            let instances: Vec<_> = batches.iter().map(|one| one.batch.instance.to_string()).collect();
            format!("batches {}", instances.join(" "))
        }
        Supply::Snapshot { certificate, .. } => format!("snapshot {}", certificate.instance),
        Supply::Page { instance, page, .. } => format!("page {page} of snapshot {instance}"),
        Supply::Chunk { instance, index, .. } => format!("chunk {index} of snapshot {instance}"),
        Supply::Nothing(wanted) => format!("nothing for {}", wanted_line(wanted)),
    }
}

pub(super) fn donation_line(to: ReplicaId, donation: &Donation) -> String {
    let what = match donation {
        Donation::Snapshot { certificate, .. } => format!("snapshot {}", certificate.instance),
        Donation::Page { instance, page, .. } => format!("page {page} of snapshot {instance}"),
        Donation::Chunk { instance, index, .. } => format!("chunk {index} of snapshot {instance}"),
        Donation::Batches { from, last, position } => {
            format!("batches {from} to {last} from record {position} on")
        }
    };
    format!("read for {to}: {what}")
}

pub(super) fn transfer_line(transfer: &Transfer) -> String {
    match transfer {
        Transfer::Begin(manifest) => {
            format!("begin snapshot {} of {} chunks", manifest.instance, manifest.chunks.len())
        }
        Transfer::Put { instance, index, .. } => format!("keep chunk {index} of snapshot {instance}"),
        Transfer::Install { instance, .. } => format!("install snapshot {instance}"),
        Transfer::Replace { instance, .. } => format!("replace snapshot {instance}"),
    }
}

/// A snapshot of chunks of one byte each.
pub(crate) fn manifest(instance: u64, chunks: &[u8]) -> Manifest {
    let chunks = chunks.iter().map(|byte| Chunk::of(&[*byte]).unwrap()).collect();
    Manifest { instance: InstanceId(instance), chunks }
}

/// The certificate of a quorum of four over a snapshot.
pub(crate) fn stable(manifest: &Manifest, chain: Digest) -> CheckpointCertificate {
    let signatures = (0..3).map(|id| (ReplicaId(id), Signature([0; 64]))).collect();
    let (view, instance, root) = (ViewId(0), manifest.instance, manifest.root());
    CheckpointCertificate { view, instance, chain, root, signatures }
}

impl Scene {
    /// What was done so far is no part of the transcript.
    pub(crate) fn skip(&mut self) {
        self.actions.clear();
    }

    /// A replica says that it is at `decided`, keeps nothing below in memory, and has its log from `logged_from` on.
    pub(crate) fn ahead(&mut self, from: u16, decided: u64, logged_from: u64) {
        self.handle(Event::Connected(ReplicaId(from)));
        let status = Status {
            view: ViewId(0),
            regency: Regency(0),
            is_live: true,
            decided: InstanceId(decided),
            retained_from: InstanceId(decided),
            logged_from: InstanceId(logged_from),
            stable: InstanceId(0),
            certified: InstanceId(decided),
            sent: self.now(),
        };
        self.from(from, Message::Status(status));
    }

    /// Somebody shows that the chain is certified at an instance.
    pub(crate) fn certified(&mut self, from: u16, instance: u64, chain: Digest) {
        let signatures = (0..2).map(|id| (ReplicaId(id), Signature([0; 64]))).collect();
        let (view, instance) = (ViewId(0), InstanceId(instance));
        self.from(from, Message::ChainCertificate(ChainCertificate { view, instance, chain, signatures }));
    }

    pub(crate) fn supply(&mut self, from: u16, supply: Supply) {
        self.from(from, Message::Supply(supply));
    }

    /// A donor sends batches without requests.
    pub(crate) fn supply_batches(&mut self, from: u16, batches: &[Arc<Batch>]) {
        let recorded = |batch: &Arc<Batch>| RecordedBatch { batch: Arc::clone(batch), requests: Vec::new() };
        self.supply(from, Supply::Batches(batches.iter().map(recorded).collect()));
    }

    /// One donor gives a snapshot over a line on which answer after answer waits for the one before, a chunk for `millis`;
    /// others give nothing. After how many of them it is all here, if it is.
    pub(crate) fn give_slowly(
        &mut self,
        donor: u16,
        manifest: &Manifest,
        chain: Digest,
        millis: u64,
    ) -> Option<u32> {
        let mut line = VecDeque::new();
        let mut held = vec![false; manifest.chunks.len()];
        for time in 1..=1000 {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Send { to: Recipients::One(to), message: Message::Fetch(wanted), .. }
                        if to == ReplicaId(donor) =>
                    {
                        line.push_back(wanted);
                    }
                    Action::Transfer(Transfer::Begin(begun)) => {
                        let (instance, held) = (begun.instance, held.clone());
                        self.handle(Event::TransferBegun { instance, held });
                    }
                    Action::Transfer(Transfer::Put { instance, index, .. }) => {
                        held[usize::try_from(index).unwrap()] = true;
                        self.handle(Event::ChunkKept { instance, index });
                    }
                    Action::Transfer(Transfer::Install { .. }) => return Some(time),
                    _ => {}
                }
            }
            let instance = manifest.instance;
            let (supply, takes) = match line.pop_front() {
                Some(Wanted::Snapshot { .. }) => {
                    let certificate = stable(manifest, chain);
                    (Some(Supply::Snapshot { certificate, head: manifest.head() }), 0)
                }
                Some(Wanted::Page { page, .. }) => {
                    let chunks = manifest.page(usize::try_from(page).unwrap()).unwrap().to_vec();
                    (Some(Supply::Page { instance, page, chunks }), 0)
                }
                Some(Wanted::Chunk { index, .. }) => {
                    let byte = u8::try_from(index).unwrap();
                    (Some(Supply::Chunk { instance, index, bytes: Bytes::from(vec![byte]) }), millis)
                }
                Some(wanted) => (Some(Supply::Nothing(wanted)), 0),
                None => (None, millis),
            };
            self.pass(takes);
            supply.into_iter().for_each(|supply| self.supply(donor, supply));
        }
        None
    }
}
