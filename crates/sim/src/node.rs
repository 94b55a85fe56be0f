//! One correct replica in the world: its core, its clock, and what its machine does around it.

use std::sync::Arc;

use regency_protocol::action::Action;
use regency_protocol::event::Event;
use regency_protocol::ids::ReplicaId;
use regency_protocol::record::Durability;
use regency_protocol::replica::{Replica, ReplicaConfig, ReplicaStatus, Start};
use regency_protocol::time::Timestamp;

use crate::agenda::{Moment, Place};
use crate::network::Flight;
use crate::plan::Plan;

/// When every clock began to count, in µs since the epoch.
const EPOCH: u64 = 1_000_000_000_000;

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
            replica: core(plan, id, Start::Fresh),
            clock_offset: plan.clock_offsets.get(&id).copied().unwrap_or_default(),
            standing: Standing::Up,
            life: 0,
            votes_lost: false,
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
    }

    /// It starts again, knowing only that it lived before.
    pub(crate) fn restart(&mut self, plan: &Plan) {
        self.replica = core(plan, self.id, Start::StateLost);
        self.standing = Standing::Up;
        self.votes_lost = true;
        self.service_busy_until = 0;
    }

    /// Whether it runs.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up)
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
        Some(local.0.saturating_sub(EPOCH + self.clock_offset).max(now))
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
        clock(now, self.clock_offset)
    }
}

/// What a clock that is ahead by `offset` shows.
pub(crate) fn clock(now: Moment, offset: Moment) -> Timestamp {
    Timestamp(EPOCH + offset + now)
}

/// The moment at which a clock without offset shows `time`.
pub(crate) fn moment(time: Timestamp) -> Moment {
    time.0.saturating_sub(EPOCH)
}

/// A core as the plan wants it.
pub(crate) fn core(plan: &Plan, me: ReplicaId, start: Start) -> Replica {
    Replica::new(ReplicaConfig {
        view: Arc::clone(&plan.view),
        me,
        settings: Arc::clone(&plan.settings),
        start,
        durability: Durability::None,
        eager_instances: plan.eager_instances,
    })
}
