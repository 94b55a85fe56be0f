//! What goes wrong, and how it heals.

use regency_protocol::event::Event;
use regency_protocol::ids::ReplicaId;
use regency_protocol::record::Durability;
use regency_protocol::replica::ReplicaState;

use super::{Happening, World};
use crate::coverage::Point;
use crate::invariants::Violation;
use crate::network::Place;
use crate::node::{Inbound, Node, Standing};
use crate::plan::Fault;
use crate::store::Store;

/// How long a replica is left alone that cannot start for want of room.
const FULL_PAUSE: u64 = 50_000;

impl World<'_> {
    /// Lets one fault happen.
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::Cut(from, to) => {
                self.network.cut(from, to);
                self.note_cut(from, to);
            }
            Fault::Join(from, to) => {
                self.network.join(from, to);
                if let (Place::Replica(a), Place::Replica(b)) = (from, to)
                    && (self.machines.percent(50) || self.is_new(a) || self.is_new(b))
                {
                    self.reset(a, b);
                }
            }
            Fault::Reset(a, b) => self.reset(a, b),
            Fault::Sever(a, b) => {
                for (one, other) in [(a, b), (b, a)] {
                    self.network.cut(Place::Replica(one), Place::Replica(other));
                    self.add_connection(self.now, one, Event::Disconnected(other));
                }
                self.points.insert(Point::Severed);
            }
            Fault::Mend(a, b) => {
                for (one, other) in [(a, b), (b, a)] {
                    self.network.join(Place::Replica(one), Place::Replica(other));
                    let back = self.now + self.machines.between(10, 2000);
                    self.add_connection(back, one, Event::Connected(other));
                }
            }
            Fault::Pause(replica) => self.pause(replica),
            Fault::Resume(replica) => self.resume(replica)?,
            Fault::Crash(replica) => self.crash(replica),
            Fault::CrashAfter(replica, effects) => {
                if let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_alive()) {
                    node.effects_left = Some(effects);
                }
            }
            Fault::PowerCut(replica) => {
                self.crash(replica);
                if self.plan.disk.durability == Durability::Async
                    && let Some(store) = self.store(replica)
                {
                    // Of what was written nobody knows how much has come to the disk.
                    store.lose();
                }
            }
            Fault::Restart(replica) => self.restart(replica)?,
            Fault::DiskFails(replica) => {
                if self.nodes.get(&replica).is_some_and(Node::is_alive) {
                    self.store(replica).into_iter().for_each(Store::fail);
                }
            }
            Fault::DiskFull(replica) => {
                self.store(replica).into_iter().for_each(|store| store.set_full(true));
            }
            Fault::DiskRoom(replica) => {
                self.store(replica).into_iter().for_each(|store| store.set_full(false));
            }
            Fault::Rot(replica) => {
                self.crash(replica);
                if let Some(store) = self.nodes.get_mut(&replica).and_then(|node| node.store.as_mut()) {
                    store.rot(&mut self.machines);
                }
            }
            Fault::WriteLost(replica) | Fault::WriteMisdirected(replica) => {
                let is_lost = matches!(fault, Fault::WriteLost(_));
                if let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_alive())
                    && let Some(store) = node.store.as_mut()
                {
                    store.lead_astray(is_lost, &mut self.machines);
                    self.points.insert(if is_lost { Point::WriteLost } else { Point::WriteMisdirected });
                }
            }
            Fault::FindDamage(replica) => self.find_damage(replica),
            Fault::Wipe(replica) => {
                self.crash(replica);
                if let Some(node) = self.nodes.get_mut(&replica) {
                    node.votes_lost = true;
                    self.points.insert(Point::Wiped);
                }
                if self.nodes.values().filter(|node| node.votes_lost).count() > self.plan.view.faults() {
                    self.points.insert(Point::TooManyForgot);
                }
            }
            Fault::CopyDisk(replica) => self.store(replica).into_iter().for_each(Store::copy),
            Fault::RollBack(replica) => {
                self.crash(replica);
                if let Some(node) = self.nodes.get_mut(&replica)
                    && node.store.as_mut().is_some_and(Store::put_back)
                {
                    node.is_rolled_back = true;
                }
            }
        }
        Ok(())
    }

    /// The network is fair again, whoever stood still goes on; who crashed for good stays away.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.network.heal();
        for node in self.nodes.values_mut() {
            node.effects_left = None;
            node.store.iter_mut().for_each(|store| store.set_full(false));
        }
        for replica in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.resume(replica)?;
        }
        Ok(())
    }

    fn note_cut(&mut self, from: Place, to: Place) {
        let (Place::Replica(_), Place::Replica(_)) = (from, to) else {
            self.points.insert(Point::ClientCutOff);
            return;
        };
        let is_two_way = self.plan.faults.contains(&(self.now, Fault::Cut(to, from)));
        self.points.insert(if is_two_way { Point::Partition } else { Point::OneWayPartition });
        let cuts = self.plan.faults.iter().filter(|(_, fault)| *fault == Fault::Cut(from, to)).count();
        if cuts > 2 {
            self.points.insert(Point::FlappingPartition);
        }
        self.note_among_liars(Point::PartitionAmongLiars);
    }

    /// The channel between two replicas breaks and comes back.
    fn reset(&mut self, a: ReplicaId, b: ReplicaId) {
        self.points.insert(Point::ConnectionReset);
        for (one, other) in [(a, b), (b, a)] {
            let back = self.now + self.machines.between(100, 5000);
            self.add_connection(self.now, one, Event::Disconnected(other));
            self.add_connection(back, one, Event::Connected(other));
        }
    }

    fn pause(&mut self, replica: ReplicaId) {
        let is_leader = replica == self.plan.leader();
        let Some(node) = self.nodes.get_mut(&replica) else { return };
        if node.is_up() {
            node.standing = Standing::Paused(Vec::new());
            self.points.insert(if is_leader { Point::LeaderPaused } else { Point::FollowerPaused });
            self.note_among_liars(Point::PauseAmongLiars);
        }
    }

    fn resume(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        let Standing::Paused(inbox) = &mut node.standing else { return Ok(()) };
        let inbox = std::mem::take(inbox);
        node.standing = Standing::Up;
        node.wake_at = None;
        node.drain = None;
        for inbound in inbox {
            match inbound {
                Inbound::Frame(flight) => self.receive(replica, flight)?,
                Inbound::Event(event) => self.tell(replica, event)?,
            }
        }
        self.tell(replica, Event::InputDrained)
    }

    /// A replica ends; of what was on its way to its disk some prefix is left.
    pub(super) fn crash(&mut self, replica: ReplicaId) {
        let is_leader = replica == self.plan.leader();
        let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_alive()) else { return };
        if node.status().transfer.is_some() {
            self.points.insert(Point::DiedInTransfer);
        }
        node.crash();
        if let Some(store) = node.store.as_mut() {
            if store.is_writing() {
                self.points.insert(Point::DiedInSnapshot);
            }
            store.crash(&mut self.machines);
        }
        self.notices.on_crash(self.now, replica, &mut self.points);
        self.points.insert(if is_leader { Point::LeaderCrashed } else { Point::FollowerCrashed });
        if self.nodes.values().all(|node| !node.is_alive()) {
            self.points.insert(Point::ClusterDown);
        }
        for other in self.others(replica) {
            let at = self.now + self.machines.below(3000);
            self.add_connection(at, other, Event::Disconnected(replica));
        }
    }

    fn restart(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        // It was to end, and has had too little to do for that.
        if self.nodes.get(&replica).is_some_and(|node| node.effects_left.is_some()) {
            self.crash(replica);
        }
        match self.nodes.get(&replica) {
            Some(node) if node.is_alive() => return Ok(()),
            Some(node) if node.store.as_ref().is_some_and(Store::is_full) => {
                // Its operator makes room first.
                self.agenda.add(self.now + FULL_PAUSE, Happening::Fault(Fault::Restart(replica)));
                return Ok(());
            }
            Some(_) => {}
            None => return Ok(()),
        }
        self.notices.on_restart(replica);
        self.recover(replica)?;
        self.note_among_liars(Point::RestartAmongLiars);
        for other in self.others(replica) {
            let at = self.now + self.machines.between(3000, 6000);
            self.add_connection(at, other, Event::Connected(replica));
            self.add_connection(at, replica, Event::Connected(other));
        }
        Ok(())
    }

    fn store(&mut self, replica: ReplicaId) -> Option<&mut Store> {
        self.nodes.get_mut(&replica)?.store.as_mut()
    }

    fn add_connection(&mut self, at: u64, replica: ReplicaId, event: Event) {
        if let Some(node) = self.nodes.get(&replica) {
            self.agenda.add(at, Happening::Own { replica, life: node.life, event: Box::new(event) });
        }
    }

    /// Whether a replica has started again: a channel made while the link was cut cannot have been one.
    fn is_new(&self, replica: ReplicaId) -> bool {
        self.nodes.get(&replica).is_some_and(|node| node.life > 0)
    }

    /// All members but one.
    pub(super) fn others(&self, replica: ReplicaId) -> Vec<ReplicaId> {
        self.plan.view.members().iter().map(|member| member.id).filter(|id| *id != replica).collect()
    }

    /// Whether a member is of no use to progress: owned, away, without votes, or too far behind.
    pub(super) fn is_out(&self, replica: ReplicaId) -> bool {
        self.nodes.get(&replica).is_none_or(|node| {
            let state = node.status().state;
            let is_left = state == ReplicaState::Behind && !self.plan.disk.is_kept();
            !node.is_up() || node.is_rolled_back || is_left || state == ReplicaState::StateLost
        }) || self.is_cut_off(replica)
    }
}
