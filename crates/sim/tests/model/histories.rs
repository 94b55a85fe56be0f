//! The histories of three correct replicas out of four, as a state machine.
//!
//! A state is what each correct replica has installed and voted for; nothing is ever taken back, so messages need no
//! state of their own: whatever was sent may arrive at any later step, or never. The liar votes for everything, to
//! everybody; its STOPDATA may be another one in every SYNC; a SYNC may rest on any subset, and another one may reach
//! every replica. Leaders may propose either value to whomever they like wherever rules leave it open. That allows
//! more than the rules do (no PROPOSE or SYNC is sent once only), so what holds here holds for them.
//!
//! Replicas are alike: states are kept with the replicas in order, which loses nothing.

use std::cell::RefCell;
use std::collections::HashMap;

use regency_protocol::ids::{ClusterId, PublicKey, Regency, ReplicaId};
use regency_protocol::leader_change::selection::{Selection, select};
use regency_protocol::leader_change::stop_data::{Claim, Lock, StopData};
use regency_protocol::leader_change::sync::Outcome;
use regency_protocol::mutants::Mutant;
use regency_protocol::view::{Clients, Member, Mode, RequestAuth, View, ViewParts};
use stateright::{Model, Property};

use crate::liar::{self, digest, instance_id};

/// No two values are decided for one instance.
pub(crate) const AGREEMENT: &str = "agreement";
/// The statements of all correct replicas together leave nothing undecided.
pub(crate) const DECIDES: &str = "selection decides";

pub(crate) const EPOCHS_MAX: usize = 3;
pub(crate) const INSTANCES_MAX: usize = 2;
const CORRECT: usize = 3;

/// What may be voted for: 0 is nothing, 1 and 2 are batches, 3 is the empty one.
pub(crate) type Value = u8;
pub(crate) const EMPTY: Value = 3;
/// An ACCEPT with this bit is for what was decided before: it counts, and is no lock (decision 0017).
const CONFIRMED: u8 = 8;

/// The votes of one replica for one instance, by epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Votes {
    writes: [Value; EPOCHS_MAX],
    accepts: [u8; EPOCHS_MAX],
}

/// One correct replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Replica {
    /// Which epochs it has installed, one bit each; the first is there from the beginning.
    installed: u8,
    votes: [Votes; INSTANCES_MAX],
}

/// The correct replicas.
pub(crate) type State = [Replica; CORRECT];

/// One step of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It installs an epoch above its own.
    Install(usize, usize),
    /// It sends WRITE in its epoch.
    Write(usize, usize, Value),
    /// It sends ACCEPT in its epoch, and locks.
    Accept(usize, usize, Value),
    /// It sends ACCEPT for what it has decided.
    Confirm(usize, usize, Value),
}

/// What a replica states about one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    lock: Option<(usize, Value)>,
    /// The write set: the value whose last WRITE was in this epoch.
    written: [Value; EPOCHS_MAX],
}

/// What the correct replicas stated for one epoch, each if it has.
type Statements = [Option<[Told; INSTANCES_MAX]>; CORRECT];

/// What some SYNC on top of certain statements allows to be written, a bit for each value.
type Allowed = [u8; INSTANCES_MAX];

/// The state machine.
#[derive(Clone)]
pub(crate) struct Histories {
    instances: usize,
    epochs: usize,
    mutant: Option<Mutant>,
    view: std::sync::Arc<View>,
    /// What the liar can state, by epoch.
    lies: Vec<Vec<StopData>>,
}

thread_local! {
    static ALLOWED: RefCell<HashMap<(usize, Statements), Allowed>> = RefCell::default();
}

impl Histories {
    pub(crate) fn new(instances: usize, epochs: usize) -> Self {
        let members = (0..4_u8).map(|id| Member {
            id: ReplicaId(id.into()),
            address: format!("r{id}:1"),
            key: PublicKey([id; 32]),
        });
        let view = View::new(ViewParts {
            cluster: ClusterId([1; 32]),
            id: regency_protocol::ids::ViewId(0),
            mode: Mode::Bft,
            faults: 1,
            members: members.collect(),
            clients: Clients::Open,
            request_auth: RequestAuth::Signature,
        });
        let lies = (0..epochs).map(|epoch| liar::statements(epoch, instances)).collect();
        Self { instances, epochs, mutant: None, view: std::sync::Arc::new(view.unwrap()), lies }
    }

    /// The same with a broken rule.
    #[cfg(feature = "mutants")]
    pub(crate) fn breaking(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }

    /// Breaks the rule on this thread, whichever of the checker's it is.
    fn activate(&self) {
        #[cfg(feature = "mutants")]
        regency_protocol::mutants::activate(self.mutant);
    }

    fn is_broken(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How many voted so, if `correct` of the correct ones did: the liar always has, too.
    fn has_quorum(&self, correct: usize) -> bool {
        correct + 1 >= self.view.quorum()
    }

    /// [WRITE-1, SYNC-3, PROPOSE-3] What a replica in `epoch` may write.
    fn may_write(&self, state: &State, replica: usize, instance: usize, value: Value) -> bool {
        let epoch = state[replica].epoch();
        if epoch == 0 {
            return value != EMPTY;
        }
        let vouching = count(state, instance, |votes| votes.writes[epoch] == value);
        let is_vouched = vouching > 0 && vouching + 1 >= self.view.weak();
        is_vouched || self.allowed(state, epoch)[instance] & (1 << value) != 0
    }

    /// [WRITE-2]
    fn may_accept(&self, state: &State, replica: usize, instance: usize, value: Value) -> bool {
        let epoch = state[replica].epoch();
        let oldest = if self.is_broken(Mutant::OlderWritesLock) { 0 } else { epoch };
        (oldest..=epoch).any(|at| self.has_quorum(count(state, instance, |votes| votes.writes[at] == value)))
    }

    /// [ACCEPT-1]
    fn is_decided(&self, state: &State, instance: usize, value: Value) -> bool {
        let accepted = |votes: &Votes, at: usize| votes.accepts[at] & !CONFIRMED == value;
        if self.is_broken(Mutant::AcceptsAcrossEpochs) {
            let voted = |votes: &Votes| (0..self.epochs).any(|at| accepted(votes, at));
            return self.has_quorum(count(state, instance, voted));
        }
        (0..self.epochs).any(|at| self.has_quorum(count(state, instance, |votes| accepted(votes, at))))
    }

    /// What a SYNC for `epoch` may allow: of any set of these statements, with or without any of the liar's.
    fn allowed(&self, state: &State, epoch: usize) -> Allowed {
        let told = self.told(state, epoch);
        let known = ALLOWED.with_borrow(|known| known.get(&(epoch, told)).copied());
        known.unwrap_or_else(|| {
            let allowed = self.select_all(epoch, &told);
            ALLOWED.with_borrow_mut(|known| known.insert((epoch, told), allowed));
            allowed
        })
    }

    fn select_all(&self, epoch: usize, told: &Statements) -> Allowed {
        let stated: Vec<StopData> = told.iter().flatten().map(|told| self.stated(epoch, told)).collect();
        let all: Vec<&StopData> = stated.iter().collect();
        let mut sets: Vec<Vec<&StopData>> = vec![all.clone()];
        if all.len() == CORRECT {
            sets.extend((0..CORRECT).map(|left_out| {
                all.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, data)| *data).collect()
            }));
        }
        let mut allowed = [0; INSTANCES_MAX];
        for set in &sets {
            self.allow(set, &mut allowed);
            for lie in &self.lies[epoch] {
                self.allow(&[set.as_slice(), &[lie]].concat(), &mut allowed);
            }
        }
        allowed
    }

    /// What this very set allows.
    fn allow(&self, set: &[&StopData], allowed: &mut Allowed) {
        let Some(outcome) = Outcome::select(set, &self.view) else { return };
        for (instance, allowed) in allowed.iter_mut().enumerate().take(self.instances) {
            let id = instance_id(instance);
            *allowed |= match outcome.bound.get(&id) {
                Some(bound) => (1..=EMPTY)
                    .filter(|value| digest(instance, *value) == *bound)
                    .map(|value| 1 << value)
                    .sum(),
                // Above the last bound one the leader proposes what it likes.
                None => 0b110,
            };
        }
    }

    fn told(&self, state: &State, epoch: usize) -> Statements {
        state.map(|replica| {
            let has_stated = replica.installed & (1 << epoch) != 0;
            has_stated.then(|| replica.votes.map(|votes| self.tell(&votes, epoch)))
        })
    }

    /// [STOPDATA-1] The lock and write set of these votes below `epoch`.
    fn tell(&self, votes: &Votes, epoch: usize) -> Told {
        let is_lock = |at: &usize| votes.accepts[*at] != 0 && votes.accepts[*at] & CONFIRMED == 0;
        let lock = (0..epoch).rev().find(is_lock).map(|at| (at, votes.accepts[at]));
        let first = lock.map_or(0, |(at, _)| at);
        let mut written = [0; EPOCHS_MAX];
        for (at, written) in written.iter_mut().enumerate().take(epoch).skip(first) {
            let is_last = (at + 1..epoch).all(|later| votes.writes[later] != votes.writes[at]);
            if is_last {
                *written = votes.writes[at];
            }
        }
        if self.is_broken(Mutant::WriteSetLastOnly)
            && let Some(last) = written.iter().rposition(|value| *value != 0)
        {
            written[..last].fill(0);
        }
        Told { lock, written }
    }

    fn stated(&self, epoch: usize, told: &[Told; INSTANCES_MAX]) -> StopData {
        let claims = told.iter().enumerate().map(|(instance, told)| {
            let lock = told.lock.map_or(Lock::None, |(epoch, value)| Lock::At {
                epoch: Regency(epoch as u64),
                digest: digest(instance, value),
            });
            let written = told.written.iter().enumerate().filter(|(_, value)| **value != 0);
            let write_set =
                written.map(|(at, value)| (Regency(at as u64), digest(instance, *value))).collect();
            Claim { instance: instance_id(instance), lock, write_set }
        });
        liar::statement(epoch, claims)
    }

    fn agrees(&self, state: &State) -> bool {
        self.activate();
        (0..self.instances)
            .all(|instance| (1..=EMPTY).filter(|value| self.is_decided(state, instance, *value)).count() <= 1)
    }

    fn decides(&self, state: &State) -> bool {
        self.activate();
        (1..self.epochs).all(|epoch| {
            let told = self.told(state, epoch);
            let stated: Vec<StopData> = told.iter().flatten().map(|told| self.stated(epoch, told)).collect();
            let set: Vec<&StopData> = stated.iter().collect();
            let select = |instance| select(&set, instance_id(instance), &self.view);
            set.len() < CORRECT || (0..self.instances).all(|at| select(at) != Selection::Undecided)
        })
    }
}

impl Replica {
    fn epoch(&self) -> usize {
        usize::try_from(self.installed.ilog2()).unwrap()
    }
}

fn count(state: &State, instance: usize, voted: impl Fn(&Votes) -> bool) -> usize {
    state.iter().filter(|replica| voted(&replica.votes[instance])).count()
}

impl Model for Histories {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![[Replica { installed: 1, ..Replica::default() }; CORRECT]]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.activate();
        for (at, replica) in state.iter().enumerate() {
            let epoch = replica.epoch();
            steps.extend((epoch + 1..self.epochs).map(|later| Step::Install(at, later)));
            for instance in 0..self.instances {
                let votes = &replica.votes[instance];
                for value in 1..=EMPTY {
                    let is_decided = self.is_decided(state, instance, value);
                    if votes.writes[epoch] == 0 && (is_decided || self.may_write(state, at, instance, value))
                    {
                        steps.push(Step::Write(at, instance, value));
                    }
                    if votes.accepts[epoch] == 0 && self.may_accept(state, at, instance, value) {
                        steps.push(Step::Accept(at, instance, value));
                    }
                    if votes.accepts[epoch] == 0 && is_decided {
                        steps.push(Step::Confirm(at, instance, value));
                    }
                }
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::Install(at, epoch) => next[at].installed |= 1 << epoch,
            Step::Write(at, instance, value) => {
                let epoch = next[at].epoch();
                next[at].votes[instance].writes[epoch] = value;
            }
            Step::Accept(at, instance, value) => {
                let epoch = next[at].epoch();
                next[at].votes[instance].accepts[epoch] = value;
            }
            Step::Confirm(at, instance, value) => {
                let epoch = next[at].epoch();
                next[at].votes[instance].accepts[epoch] = value | CONFIRMED;
            }
        }
        next.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(AGREEMENT, Self::agrees),
            Property::always(DECIDES, Self::decides),
            // That the model gets anywhere at all.
            Property::sometimes("decided in the last epoch", |model: &Self, state: &State| {
                let accepts = |votes: &Votes| votes.accepts[model.epochs - 1] == 2;
                model.has_quorum(count(state, 0, accepts))
            }),
            Property::sometimes("decided in the first, and again in the last", |model, state| {
                let in_epoch = |at: usize| move |votes: &Votes| votes.accepts[at] == 1;
                let all = |at| model.has_quorum(count(state, 0, in_epoch(at)));
                all(0) && all(model.epochs - 1)
            }),
        ]
    }
}
