//! One correct replica in the world: its core, its clock, and what its machine does around it.

use std::collections::VecDeque;
use std::sync::Arc;

use regency_protocol::action::{Action, Delivery, Recipients};
use regency_protocol::event::Event;
use regency_protocol::ids::{InstanceId, LogPosition, ReplicaId};
use regency_protocol::limits::Settings;
use regency_protocol::message::Message;
use regency_protocol::record::{Durability, Record};
use regency_protocol::replica::{ReplayError, Replica, ReplicaConfig, ReplicaStatus, Start};
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::time::Timestamp;

use crate::agenda::{Moment, Place};
use crate::network::Flight;
use crate::plan::Plan;
use crate::service::Lists;
use crate::store::{Image, Store};

/// When every clock began to count, in µs since the epoch.
const EPOCH: u64 = 1_000_000_000_000;

/// Clocks go in steps of so many µs, each a little ahead of the next: no two of them ever show the same, so that no two
/// leaders can propose equal batches by chance. There are fewer replicas than µs in a step.
const CLOCK_STEP: Moment = 16;

/// Frames that wait for a replica that stands still; more are lost, as when its buffers are full.
const INBOX_MAX: usize = 2000;

/// How a replica's machine is doing.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It runs.
    Up,
    /// It stands still; what arrives waits.
    Paused(Vec<Inbound>),
    /// It is off.
    Down,
}

/// What can happen to a replica while it stands still.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    /// A frame arrived.
    Frame(Flight),
    /// Its own service, signer or links have something to say.
    Event(Event),
}

/// The moment at which a replica's input will have drained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// Its place on the agenda.
    pub(crate) place: Place,
    /// Whether it stands there: it does not as long as the core would do nothing.
    pub(crate) is_entered: bool,
}

/// A message that waits for a record.
pub(crate) struct Held {
    /// The record that must be durable first.
    pub(crate) after: LogPosition,
    /// Since when.
    pub(crate) since: Moment,
    /// To whom it goes.
    pub(crate) to: Recipients,
    /// What it is.
    pub(crate) message: Message,
}

/// A correct replica.
pub(crate) struct Node {
    id: ReplicaId,
    replica: Replica,
    clock_offset: Moment,
    /// How its machine is doing.
    pub(crate) standing: Standing,
    /// How often it has started; what was meant for an earlier life is void.
    pub(crate) life: u32,
    /// Whether it has forgotten votes.
    pub(crate) votes_lost: bool,
    /// Whether its disk was exchanged for an older copy: it counts in `f`, without knowing.
    pub(crate) is_rolled_back: bool,
    /// Its disk, if it has one.
    pub(crate) store: Option<Store>,
    /// Its service, and the instance that was executed last.
    pub(crate) service: Lists,
    pub(crate) executed: InstanceId,
    /// What waits for its disk.
    pub(crate) held: VecDeque<Held>,
    /// After how many more effects it ends.
    pub(crate) effects_left: Option<u64>,
    /// When it is to be woken next.
    pub(crate) wake_at: Option<Moment>,
    /// When its input will have drained.
    pub(crate) drain: Option<Drain>,
    /// When its service will be done with all that it was given.
    pub(crate) service_busy_until: Moment,
    /// Ticks since its clock last moved: a timer that does not move on would spin.
    idle_ticks: (Moment, u32),
}

impl Node {
    /// The replica before its first event.
    pub(crate) fn new(plan: &Plan, id: ReplicaId) -> Self {
        Self {
            id,
            replica: Replica::new(config(plan, id, Start::Fresh, plan.disk.durability)),
            clock_offset: clock_offset(plan, id),
            standing: Standing::Up,
            life: 0,
            votes_lost: false,
            is_rolled_back: false,
            store: store(plan, id),
            service: Lists::default(),
            executed: InstanceId(0),
            held: VecDeque::new(),
            effects_left: None,
            wake_at: None,
            drain: None,
            service_busy_until: 0,
            idle_ticks: (0, 0),
        }
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    /// It ends.
    pub(crate) fn crash(&mut self) {
        self.standing = Standing::Down;
        self.life += 1;
        self.wake_at = None;
        self.drain = None;
        self.effects_left = None;
        self.held.clear();
    }

    /// It starts again, knowing only that it lived before.
    pub(crate) fn restart(&mut self, plan: &Plan) {
        self.begin_life(Replica::new(config(plan, self.id, Start::StateLost, plan.disk.durability)));
        self.votes_lost = true;
        self.store.iter_mut().for_each(Store::begin_anew);
    }

    /// It starts again from a snapshot, or from nothing; its log follows.
    ///
    /// # Errors
    ///
    /// A snapshot that cannot be read.
    pub(crate) fn restore(&mut self, plan: &Plan, image: Option<&Image>) -> Result<(), String> {
        let config = config(plan, self.id, Start::Fresh, plan.disk.durability);
        let head = match image {
            None => None,
            Some(image) => {
                let head = SnapshotHead::decode(image.head.clone()).map_err(|error| error.to_string())?;
                Some((head, image.root))
            }
        };
        self.begin_life(Replica::restore(config, head));
        if let Some(image) = image {
            self.service = Lists::restore(&image.service).ok_or("the service's part cannot be read")?;
            self.executed = image.instance;
        }
        Ok(())
    }

    fn begin_life(&mut self, replica: Replica) {
        self.replica = replica;
        self.standing = Standing::Up;
        self.service = Lists::default();
        self.executed = InstanceId(0);
        self.service_busy_until = 0;
    }

    /// It reads the next record of its log.
    ///
    /// # Errors
    ///
    /// A record that does not follow from those before.
    pub(crate) fn replay(
        &mut self,
        position: LogPosition,
        record: Record,
        actions: &mut Vec<Action>,
    ) -> Result<(), ReplayError> {
        self.store.iter_mut().for_each(|store| store.note_read(position, &record));
        self.replica.replay(position, record, actions)
    }

    /// Its log is read: it takes part again.
    pub(crate) fn resume(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.replica.resume(self.clock(now), actions);
    }

    /// Its service executes.
    pub(crate) fn execute(&mut self, delivery: &Delivery) -> Vec<bytes::Bytes> {
        self.executed = delivery.instance;
        delivery.operations.iter().map(|operation| self.service.execute(&operation.payload())).collect()
    }

    /// Whether a message must wait for a record.
    pub(crate) fn must_wait(&self, after: LogPosition) -> bool {
        self.store.as_ref().is_some_and(|store| after > store.durable())
    }

    /// Whether it runs.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up)
    }

    /// Whether it runs or stands still.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.standing, Standing::Down)
    }

    /// Takes in what arrives while it stands still; returns it if it runs.
    pub(crate) fn admit(&mut self, inbound: Inbound) -> Option<Inbound> {
        match &mut self.standing {
            Standing::Up => Some(inbound),
            Standing::Paused(inbox) => {
                // What its own machine says is not lost for want of room in a socket.
                if inbox.len() < INBOX_MAX || matches!(inbound, Inbound::Event(_)) {
                    inbox.push(inbound);
                }
                None
            }
            Standing::Down => None,
        }
    }

    /// The core takes one event.
    pub(crate) fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        self.replica.handle(self.clock(now), event, actions);
    }

    /// Whether the core would do anything if it were told that its input has drained.
    pub(crate) fn waits_for_drain(&self) -> bool {
        self.replica.waits_for_drain()
    }

    /// When the core wants a tick, if it does.
    pub(crate) fn deadline(&self, now: Moment) -> Option<Moment> {
        let local = self.replica.next_deadline()?;
        let step = local.0.saturating_sub(EPOCH + self.clock_offset).next_multiple_of(CLOCK_STEP);
        Some(step.max(now))
    }

    /// Counts a tick; says how many have come at this very moment.
    pub(crate) fn count_tick(&mut self, now: Moment) -> u32 {
        self.idle_ticks = if self.idle_ticks.0 == now { (now, self.idle_ticks.1 + 1) } else { (now, 1) };
        self.idle_ticks.1
    }

    /// The core's figures.
    pub(crate) fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }

    fn clock(&self, now: Moment) -> Timestamp {
        clock(now - now % CLOCK_STEP, self.clock_offset)
    }
}

/// By how much the clock of a correct replica is ahead: about as planned, but by what no other is.
fn clock_offset(plan: &Plan, id: ReplicaId) -> Moment {
    let planned = plan.clock_offsets.get(&id).copied().unwrap_or_default();
    let place = plan.view.members().iter().take_while(|member| member.id != id).count() as Moment;
    planned - planned % CLOCK_STEP + place
}

/// What a clock that is ahead by `offset` shows.
pub(crate) fn clock(now: Moment, offset: Moment) -> Timestamp {
    Timestamp(EPOCH + offset + now)
}

/// The moment at which a clock without offset shows `time`.
pub(crate) fn moment(time: Timestamp) -> Moment {
    time.0.saturating_sub(EPOCH)
}

/// A core of the adversary's: it waits for no disk.
pub(crate) fn core(plan: &Plan, me: ReplicaId, settings: Arc<Settings>) -> Replica {
    let durability = if plan.disk.is_kept() { Durability::Async } else { Durability::None };
    Replica::new(ReplicaConfig { settings, ..config(plan, me, Start::Fresh, durability) })
}

/// A core as the plan wants it.
fn config(plan: &Plan, me: ReplicaId, start: Start, durability: Durability) -> ReplicaConfig {
    ReplicaConfig {
        view: Arc::clone(&plan.view),
        me,
        settings: Arc::clone(&plan.settings),
        start,
        durability,
        eager_instances: plan.eager_instances,
    }
}

/// The disk of a replica, empty.
fn store(plan: &Plan, id: ReplicaId) -> Option<Store> {
    match plan.disk {
        disk if !disk.is_kept() => None,
        disk if disk.is_real && disk.durability == Durability::Sync => {
            let seed = plan.seed.wrapping_mul(1000).wrapping_add(id.0.into());
            Some(Store::real(plan.view.cluster(), id, seed))
        }
        _ => Some(Store::light()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn no_two_clocks_ever_show_the_same_and_a_deadline_is_met_in_its_step() {
        let mut plan = Plan::new(1, Some(Scenario::Calm)).1;
        // Not even when nothing else sets them apart.
        plan.clock_offsets.clear();
        let mut shown = BTreeSet::new();
        for member in plan.view.members() {
            let node = Node::new(&plan, member.id);
            assert!((0..1000).step_by(16).all(|now| shown.insert(node.clock(now))));
            assert_eq!(node.clock(5), node.clock(15));
            if let Some(deadline) = node.deadline(0) {
                let wanted = node.replica.next_deadline().unwrap();
                assert!(node.clock(deadline) >= wanted && node.clock(deadline.saturating_sub(1)) < wanted);
            }
        }
    }
}
