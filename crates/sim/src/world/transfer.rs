//! What machines do for state transfer: donors read what is on their disks, requesters keep it and take it over.

use bytes::Bytes;
use regency_protocol::action::Recipients;
use regency_protocol::event::{Damage, Event};
use regency_protocol::ids::{InstanceId, LogPosition, ReplicaId};
use regency_protocol::limits::RANGE_MAX;
use regency_protocol::message::{Message, Supply, Wanted};
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::state_transfer::donation::{Donation, Transfer};

use super::World;
use crate::coverage::Point;
use crate::invariants::Violation;
use crate::service::Lists;
use crate::store::Store;

/// The longest that writing a chunk takes, in µs.
const PUT_MAX: u64 = 3_000;

impl World<'_> {
    /// A correct donor reads what another replica wants, and sends it.
    pub(super) fn on_donate(
        &mut self,
        by: ReplicaId,
        to: ReplicaId,
        donation: Donation,
    ) -> Result<(), Violation> {
        let view = self.plan.view.id();
        let Some(node) = self.nodes.get(&by) else { return Ok(()) };
        let supply = supply(node.store.as_ref(), donation, view);
        self.points.insert(match &supply {
            Supply::Digests { .. } | Supply::Batches(_) => Point::LogDonated,
            Supply::Snapshot { .. } | Supply::Page { .. } => Point::SnapshotOffered,
            Supply::Chunk { .. } => Point::ChunkDonated,
            Supply::Nothing(_) => Point::DonorLacks,
        });
        self.on_send(by, Recipients::One(to), &Message::Supply(supply))
    }

    /// What a donor that has it would send: the adversary sees every disk, and gives a state under whatever instance it
    /// is asked for.
    pub(super) fn truth(&self, donation: Donation) -> Supply {
        let view = self.plan.view.id();
        let stores = self.nodes.values().filter_map(|node| node.store.as_ref());
        let found = stores
            .map(|store| supply(Some(store), as_kept(store, &donation), view))
            .find(|found| !matches!(found, Supply::Nothing(_)));
        match (found, donation) {
            (Some(Supply::Page { page, chunks, .. }), Donation::Page { instance, .. }) => {
                Supply::Page { instance, page, chunks }
            }
            (Some(Supply::Chunk { index, bytes, .. }), Donation::Chunk { instance, .. }) => {
                Supply::Chunk { instance, index, bytes }
            }
            (Some(found), _) => found,
            (None, donation) => supply(None, donation, view),
        }
    }

    /// Nobody asks for a part that it has [ST-3].
    pub(super) fn check_fetch(&self, by: ReplicaId, message: &Message) -> Result<(), Violation> {
        let Message::Fetch(Wanted::Chunk { instance, index, .. }) = message else { return Ok(()) };
        let store = self.nodes.get(&by).and_then(|node| node.store.as_ref());
        if store.is_some_and(|store| store.has_come(*instance, *index)) {
            let detail = format!("replica {by} asks for chunk {index} of {instance}, which it has");
            return Err(Violation::new("transfer", detail));
        }
        Ok(())
    }

    /// A requester's machine keeps a part of a state, or takes the whole over.
    pub(super) fn on_transfer(&mut self, by: ReplicaId, transfer: Transfer) -> Result<(), Violation> {
        let soon = self.now + self.machines.between(20, PUT_MAX);
        let Some(store) = self.nodes.get_mut(&by).and_then(|node| node.store.as_mut()) else {
            return Err(Violation::new("transfer", format!("replica {by} has nowhere to put a snapshot")));
        };
        match transfer {
            Transfer::Begin(manifest) => {
                let held = store.begin_transfer(&manifest);
                if held.iter().any(|held| *held) {
                    self.points.insert(Point::ChunksAdopted);
                }
                let instance = manifest.instance;
                self.add_own(soon, by, Event::TransferBegun { instance, held });
            }
            Transfer::Put { instance, index, bytes } => {
                let is_that = |incoming: &&mut crate::store::Incoming| incoming.instance() == instance;
                if let Some(incoming) = store.incoming().filter(is_that) {
                    incoming.put(index, bytes);
                    self.add_own(soon, by, Event::ChunkKept { instance, index });
                }
            }
            Transfer::Install { instance, .. } => self.install(by, instance)?,
            Transfer::Replace { instance, .. } => self.replace(by, instance)?,
        }
        Ok(())
    }

    /// A snapshot that came from others stands in place of a damaged one: it must be that of correct replicas.
    fn replace(&mut self, by: ReplicaId, instance: InstanceId) -> Result<(), Violation> {
        let at = self.now + self.machines.between(50, self.plan.disk.snapshot_max.max(51));
        let expected = self.roots.get(&instance).copied();
        let Some(store) = self.nodes.get_mut(&by).and_then(|node| node.store.as_mut()) else { return Ok(()) };
        let whole = store.take_incoming().and_then(|incoming| incoming.whole());
        let Some(image) = whole.filter(|image| expected == Some(image.root)) else {
            let detail =
                format!("replica {by} at {instance}: what it repairs with is not the state of the others");
            return self.forgiven(Err(Violation::new("transfer", detail)));
        };
        store.keep(image, instance);
        self.points.insert(Point::SnapshotRepaired);
        self.add_own(at, by, Event::Repaired(instance));
        Ok(())
    }

    /// A part of a replica's newest stable snapshot, or a record of its log, cannot be read any more.
    pub(super) fn find_damage(&mut self, replica: ReplicaId) {
        let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_up()) else { return };
        let stable = node.status().stable_checkpoint;
        let Some(store) = node.store.as_mut() else { return };
        let damage = if self.machines.percent(30) {
            Damage::Log(LogPosition(self.machines.between(1, store.last().0.max(1))))
        } else {
            store.spoil(stable, self.machines.index(64));
            Damage::Snapshot(stable)
        };
        self.add_own(self.now, replica, Event::Damaged(damage));
    }

    /// The service of a replica takes a state over that came from others: it must be the one that correct replicas had.
    fn install(&mut self, by: ReplicaId, instance: InstanceId) -> Result<(), Violation> {
        let wrong = |what: &str| Violation::new("transfer", format!("replica {by} at {instance}: {what}"));
        let at = self.now + self.machines.between(50, self.plan.disk.snapshot_max.max(51));
        let expected = self.roots.get(&instance).copied();
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let incoming = node.store.as_mut().and_then(Store::take_incoming);
        let Some(image) = incoming.and_then(|incoming| incoming.whole()) else {
            return self.forgiven(Err(wrong("it takes over what is not all there")));
        };
        let head = SnapshotHead::decode(image.head.clone()).ok();
        let service = Lists::restore(&image.service);
        let (Some(head), Some(service)) = (head, service) else {
            return self.forgiven(Err(wrong("its service refuses the state")));
        };
        let root = image.root;
        node.service = service;
        node.executed = head.instance;
        if let Some(store) = node.store.as_mut() {
            store.keep(image, instance);
        }
        self.points.insert(Point::SnapshotInstalled);
        self.total_order.on_start(by, head.instance);
        self.takers.entry(instance).or_default().insert(by);
        self.add_own(at, by, Event::Restored(Box::new(head)));
        if expected == Some(root) {
            return Ok(());
        }
        self.forgiven(Err(wrong(&format!("its state is {root}, the others had {expected:?}"))))
    }

    /// A replica finds its own state differing: only one whose disk was exchanged, or whose memory lied, may.
    pub(super) fn on_diverged(&mut self, by: ReplicaId, instance: InstanceId) -> Result<(), Violation> {
        if let Some(node) = self.nodes.get_mut(&by) {
            node.store.iter_mut().for_each(|store| store.discard(instance));
            if node.is_rolled_back {
                return Ok(());
            }
        }
        let detail = format!("replica {by} finds its state at {instance} differing");
        self.forgiven(Err(Violation::new("checkpoint", detail)))
    }

    /// A replica that lost its votes has on record what they cannot have been for.
    pub(super) fn on_remembered(&mut self, by: ReplicaId) {
        if let Some(node) = self.nodes.get_mut(&by) {
            node.votes_lost = false;
            self.points.insert(Point::VotesBounded);
        }
    }
}

/// The same, as it would be asked of the one who has this disk.
fn as_kept(store: &Store, donation: &Donation) -> Donation {
    match *donation {
        // The position is one of the liar's own log, which it does not have.
        Donation::Batches { from, last, .. } => Donation::Batches { from, last, position: LogPosition(0) },
        Donation::Page { instance, root, page } => {
            Donation::Page { instance: store.instance_of(&root).unwrap_or(instance), root, page }
        }
        Donation::Chunk { instance, root, index } => {
            Donation::Chunk { instance: store.instance_of(&root).unwrap_or(instance), root, index }
        }
        Donation::Snapshot { .. } => donation.clone(),
    }
}

/// What is on a donor's disk.
fn supply(store: Option<&Store>, donation: Donation, view: regency_protocol::ids::ViewId) -> Supply {
    match donation {
        Donation::Snapshot { certificate, above } => {
            match store.and_then(|store| store.image(certificate.instance, &certificate.root)) {
                Some(image) => Supply::Snapshot { head: image.manifest().head(), certificate },
                None => Supply::Nothing(Wanted::Snapshot { view, above }),
            }
        }
        Donation::Page { instance, root, page } => {
            let manifest = store.and_then(|store| store.image(instance, &root)).map(|image| image.manifest());
            let chunks = manifest.as_ref().and_then(|manifest| manifest.page(usize::try_from(page).ok()?));
            match chunks {
                Some(chunks) => Supply::Page { instance, page, chunks: chunks.to_vec() },
                None => Supply::Nothing(Wanted::Page { instance, root, page }),
            }
        }
        Donation::Chunk { instance, root, index } => {
            let image = store.and_then(|store| store.image(instance, &root));
            let place = usize::try_from(index).unwrap_or(usize::MAX);
            let bytes: Option<Bytes> = image.and_then(|image| image.chunks().nth(place));
            match bytes {
                Some(bytes) => Supply::Chunk { instance, index, bytes },
                None => Supply::Nothing(Wanted::Chunk { instance, root, index }),
            }
        }
        Donation::Batches { from, last, position } => {
            let most = from.plus(RANGE_MAX.saturating_sub(1)).min(last);
            let batches = store.map(|store| store.batches(from, most, position)).unwrap_or_default();
            if batches.is_empty() {
                return Supply::Nothing(Wanted::Batches { view, from, last });
            }
            Supply::Batches(batches)
        }
    }
}
