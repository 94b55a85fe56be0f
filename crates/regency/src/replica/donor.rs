//! What this replica gives to others that miss something: read on a thread of its own, at a limited rate [ST-4]. Offers come
//! first.
//!
//! The loop hands over what the core wants given, and fetches what has been read to send it; neither waits for the
//! other. What the core has in memory waits for its turn as well. What finds no room is dropped. The thread begins with the first question, and lets go of what it
//! has open when none has come for a while.

mod log_cursor;
mod pace;
mod shelf;
mod turns;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;
use regency_protocol::ids::{ReplicaId, ViewId};
use regency_protocol::message::Supply;
use regency_protocol::state_transfer::donation::Donation;
use regency_storage::Identity;

use super::load::Share;
use crate::failure::Failure;
use crate::metrics::Metrics;
use pace::Pace;
pub(super) use shelf::OpenDisk;
use shelf::{Shelf, bytes_in};
use turns::Turns;

/// Answers that wait for the loop; beyond it nothing more is read.
const READY_MAX: usize = 8;
/// How long what is open stays open without a question.
const IDLE_PERIOD: Duration = Duration::from_secs(10);

/// What is to be given.
#[derive(Debug)]
enum Order {
    /// Something to be read, and the view in which it was asked for.
    Read { donation: Donation, view: ViewId },
    /// What is in memory.
    Ready(Box<Supply>),
}

/// What both threads see.
#[derive(Debug)]
struct Queue {
    turns: Turns<Order>,
    /// Offers that are wanted, one of each requester: they cost little, and who waits for one decides by it.
    offers: BTreeMap<ReplicaId, Order>,
    ready: VecDeque<(ReplicaId, Supply)>,
    share: Share,
    is_ending: bool,
}

impl Queue {
    /// Lets an order wait; returns what there is no room for.
    fn push(&mut self, requester: ReplicaId, order: Order) -> Option<Order> {
        if !matches!(order, Order::Read { donation: Donation::Snapshot { .. }, .. }) {
            return self.turns.push(requester, order);
        }
        match self.offers.entry(requester) {
            Entry::Vacant(vacant) => {
                vacant.insert(order);
                None
            }
            Entry::Occupied(_) => Some(order),
        }
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.offers.is_empty()
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end of the thread.
pub(super) struct Donor {
    shared: Arc<Shared>,
    /// What the thread will own, until it begins.
    worker: Option<Worker>,
    thread: Option<JoinHandle<()>>,
    /// Questions without an answer so far.
    open: usize,
    metrics: Arc<Metrics>,
}

impl Donor {
    /// A donor that reads `disk`, gives `bytes_per_second` at most, 0 for no limit, and wakes the loop by `waker`.
    pub(super) fn new(
        disk: OpenDisk,
        identity: Identity,
        bytes_per_second: u64,
        waker: Arc<Waker>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let queue = Queue {
            turns: Turns::default(),
            offers: BTreeMap::new(),
            ready: VecDeque::new(),
            share: Share::FULL,
            is_ending: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let worker = Worker {
            replica: identity.replica,
            shelf: Shelf::new(disk, identity),
            pace: Pace::new(bytes_per_second),
            begun: Instant::now(),
            shared: shared.clone(),
            waker,
            metrics: metrics.clone(),
        };
        Self { shared, worker: Some(worker), thread: None, open: 0, metrics }
    }

    /// Has something read for `requester`. What there is no room for is dropped: after a while its question goes to
    /// another donor.
    pub(super) fn give(
        &mut self,
        requester: ReplicaId,
        donation: Donation,
        view: ViewId,
    ) -> Result<(), Failure> {
        self.push(requester, Order::Read { donation, view })
    }

    /// Lets an answer from memory wait for its turn likewise; returns what is to be sent at once, because it costs nothing.
    pub(super) fn pass(&mut self, requester: ReplicaId, supply: Supply) -> Result<Option<Supply>, Failure> {
        if let Supply::Nothing(_) = supply {
            return Ok(Some(supply));
        }
        self.push(requester, Order::Ready(Box::new(supply)))?;
        Ok(None)
    }

    fn push(&mut self, requester: ReplicaId, order: Order) -> Result<(), Failure> {
        if let Some(worker) = self.worker.take() {
            let name = format!("donor-{}", worker.replica);
            let spawned = thread::Builder::new().name(name).spawn(move || worker.run());
            self.thread = Some(spawned.map_err(super::no_system)?);
        }
        if self.shared.lock().push(requester, order).is_some() {
            self.metrics.donations_refused.inc();
        } else {
            self.open += 1;
        }
        self.shared.changed.notify_one();
        Ok(())
    }

    /// The next answer that is ready to be sent, and to whom.
    pub(super) fn next(&mut self) -> Option<(ReplicaId, Supply)> {
        if self.open == 0 {
            return None;
        }
        let (requester, supply) = {
            let mut queue = self.shared.lock();
            let was_full = queue.ready.len() >= READY_MAX;
            let next = queue.ready.pop_front()?;
            if was_full {
                self.shared.changed.notify_one();
            }
            next
        };
        self.open -= 1;
        Some((requester, supply))
    }

    /// Whether something is being given.
    pub(super) fn is_giving(&self) -> bool {
        self.open > 0
    }

    /// From now on no more than this share of the rate may leave.
    pub(super) fn limit(&mut self, share: Share) {
        self.metrics.donor_share.set(i64::from(share.thousandths()));
        self.shared.lock().share = share;
    }
}

impl Drop for Donor {
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // What it was reading nobody gets: the requester asks another.
            let _ = thread.join();
        }
    }
}

/// The thread's end.
struct Worker {
    replica: ReplicaId,
    shelf: Shelf,
    pace: Pace,
    /// The clock of the pace begins here.
    begun: Instant,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn run(mut self) {
        while let Some((requester, order, share)) = self.next() {
            let supply = match order {
                Order::Read { donation, view } => self.shelf.supply(donation, view),
                Order::Ready(supply) => *supply,
            };
            let bytes = bytes_in(&supply);
            self.count(&supply, bytes);
            self.pace.spend(self.begun.elapsed(), bytes, share);
            let is_first = {
                let mut queue = self.shared.lock();
                queue.ready.push_back((requester, supply));
                queue.ready.len() == 1
            };
            // A loop that has not fetched the one before is awake, or has ended.
            if is_first {
                let _ = self.waker.wake();
            }
        }
    }

    /// Waits until something may be read, and room is there for it; nothing when the replica ends.
    fn next(&mut self) -> Option<(ReplicaId, Order, Share)> {
        let shared = self.shared.clone();
        let mut queue = shared.lock();
        loop {
            if queue.is_ending {
                return None;
            }
            let pause = if queue.is_empty() {
                IDLE_PERIOD
            } else if queue.ready.len() >= READY_MAX {
                // Woken when the loop has fetched one.
                IDLE_PERIOD
            } else if let Some((requester, order)) = queue.offers.pop_first() {
                return Some((requester, order, queue.share));
            } else {
                self.pace.wait(self.begun.elapsed())
            };
            if pause.is_zero()
                && let Some((requester, order)) = queue.turns.next()
            {
                return Some((requester, order, queue.share));
            }
            let (held, waited) =
                shared.changed.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner);
            queue = held;
            if waited.timed_out() && queue.is_empty() {
                self.shelf.close();
            }
        }
    }

    fn count(&self, supply: &Supply, bytes: u64) {
        match supply {
            Supply::Nothing(_) => {
                self.metrics.donations_refused.inc();
                return;
            }
            Supply::Chunk { .. } => {
                self.metrics.donated_chunks.inc();
            }
            Supply::Digests { .. } | Supply::Batches(_) | Supply::Snapshot { .. } | Supply::Page { .. } => {}
        }
        self.metrics.donated_bytes.inc_by(bytes);
    }
}

#[cfg(test)]
mod tests;
