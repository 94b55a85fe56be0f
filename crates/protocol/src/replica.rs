//! A replica: `handle` takes an event apart and routes it; components never call each other.
//!
//! The walks stand in the files below: requests on their way in, ordering, delivery, and the links between
//! replicas. Every vote goes through the voting record.

mod amnesia;
mod authenticity;
mod checkpoints;
mod delivery;
mod donation;
mod leader_change;
mod links;
mod ordering;
mod proposals;
mod recovery;
mod repair;
mod requests;
mod supply;
mod suspicion;
mod takeover;
mod transfer;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, Misbehaviour, Origin, Reason, Recipients};
use crate::amnesia::{Asking, Fill};
use crate::announcements::Announcements;
use crate::chain::Chain;
use crate::checkpoint::Checkpoints;
use crate::decided::DecidedLog;
use crate::event::Event;
use crate::ids::{Digest, InstanceId, LogPosition, Regency, ReplicaId, ViewId};
use crate::journal::Journal;
use crate::leader_change::monitor::LeaderMonitor;
use crate::leader_change::state::LeaderChange;
use crate::leader_change::timer::{RequestTimer, ServicePace};
use crate::limits::Settings;
use crate::links::Links;
use crate::message::{Message, Statement};
use crate::ordering::window::Window;
use crate::record::Durability;
use crate::requests::Requests;
use crate::sessions::Sessions;
use crate::state_transfer::requester::Requester;
use crate::time::Timestamp;
use crate::view::View;
pub use crate::voting_record::Start;
use crate::voting_record::VotingRecord;

use delivery::Executing;
use recovery::Replay;
pub use recovery::ReplayError;

/// Deliveries that may wait for the service before ordering waits for it [EXEC-1].
const EXECUTING_MAX: usize = 64;

/// How often a replica asks around at one prefix because of what a single peer has signed.
const STATUS_ROUNDS_MAX: u32 = 50;

/// What a replica is made of.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The membership.
    pub view: Arc<View>,
    /// Which member it is.
    pub me: ReplicaId,
    /// What is equal at all replicas; checked with [`Settings::check`] by whoever read it.
    pub settings: Arc<Settings>,
    /// Whether it lived before and lost its votes.
    pub start: Start,
    /// How durable votes and operations are before they leave; equal at all replicas.
    pub durability: Durability,
    /// Instances in flight up to which a leader proposes whatever is there; beyond it, up to the window, it
    /// proposes full batches only. A matter of speed, not of safety: replicas may differ.
    pub eager_instances: u64,
}

/// A replica as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It takes part.
    Normal,
    /// It waits for the beginning of the regency that it has installed.
    LeaderChange,
    /// It lost its votes: it follows, does not vote, and counts in `f`.
    StateLost,
    /// It fetches what peers do not keep in memory any more, or a state that is not damaged [ST-1].
    Transfer,
    /// Peers do not keep any more what it misses.
    Behind,
}

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferPhase {
    /// Its own state is another one than the certified one, and nobody gives that one just now.
    Waiting,
    /// It asks which batches are missing.
    Digests,
    /// It fetches them.
    Log,
    /// It asks which snapshots there are.
    Offers,
    /// It fetches one.
    Snapshot,
    /// The service takes it over.
    Install,
}

impl TransferPhase {
    /// Every phase there is.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Digests, Self::Log, Self::Offers, Self::Snapshot, Self::Install];

    /// Its name in reports and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Digests => "digests",
            Self::Log => "log",
            Self::Offers => "offers",
            Self::Snapshot => "snapshot",
            Self::Install => "install",
        }
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferStatus {
    /// What it does.
    pub phase: TransferPhase,
    /// The instance that it leads to.
    pub target: InstanceId,
    /// Bytes of the snapshot that are here, or instances of the log.
    pub done: u64,
    /// All of them.
    pub total: u64,
    /// Replicas that give.
    pub donors: usize,
}

/// A replica's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// How it takes part.
    pub state: ReplicaState,
    /// The transfer that is under way.
    pub transfer: Option<TransferStatus>,
    /// Its view.
    pub view: ViewId,
    /// Its regency.
    pub regency: Regency,
    /// That regency's leader.
    pub leader: ReplicaId,
    /// The highest regency that it asked for.
    pub wanted_regency: Regency,
    /// Statements that it keeps for the beginning of a regency that it leads, now or next.
    pub statements: usize,
    /// How often its request timeout has doubled.
    pub backoff: u32,
    /// What rounds of votes take at present, on their bad days.
    pub round: Duration,
    /// The decided prefix.
    pub decided: InstanceId,
    /// The last instance whose results are there.
    pub executed: InstanceId,
    /// The chain at `executed`.
    pub chain: Digest,
    /// The instance of the highest chain certificate.
    pub certified: InstanceId,
    /// Ordered time at the decided prefix.
    pub ordered_time: Timestamp,
    /// Requests that wait to be ordered.
    pub pending_requests: usize,
    /// Bytes of those.
    pub pending_bytes: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Bytes of the results kept for them.
    pub result_bytes: usize,
    /// Instances that are being voted on or kept for later.
    pub open_instances: usize,
    /// Requests that candidates lack.
    pub awaited_bodies: usize,
    /// Instances with a vote on record.
    pub recorded_votes: usize,
    /// Chain signatures above the certificate.
    pub chain_signatures: usize,
    /// The lowest decided instance that is kept.
    pub retained_from: InstanceId,
    /// Bytes of the decided batches that are kept.
    pub retained_bytes: usize,
    /// Members that are known to have lost their votes, this one included.
    pub amnesiacs: usize,
    /// The instance of the stable checkpoint.
    pub stable_checkpoint: InstanceId,
    /// The instance of this replica's newest snapshot on disk.
    pub own_checkpoint: InstanceId,
    /// Checkpoint signatures above the stable one.
    pub checkpoint_signatures: usize,
    /// Instances with records that are not cut off.
    pub recorded_instances: usize,
    /// Requests that are announced or lacked by somebody.
    pub announced_requests: usize,
    /// Peers with a channel.
    pub connected_peers: usize,
}

/// The core of one replica.
#[derive(Debug)]
pub struct Replica {
    view: Arc<View>,
    me: ReplicaId,
    settings: Arc<Settings>,
    eager_instances: u64,
    change: LeaderChange,
    timer: RequestTimer,
    service: ServicePace,
    monitor: LeaderMonitor,
    announcements: Announcements,
    record: VotingRecord,
    journal: Journal,
    replay: Replay,
    /// While this replica has lost its votes: its question to the others.
    asking: Option<Asking>,
    /// The members that have said that they lost theirs.
    amnesiacs: BTreeSet<ReplicaId>,
    fill: Fill,
    checkpoints: Checkpoints,
    transfer: Requester,
    requests: Requests,
    sessions: Sessions,
    window: Window,
    log: DecidedLog,
    chain: Chain,
    links: Links,
    executing: VecDeque<Executing>,
    executed: (InstanceId, Digest),
    /// Up to where this replica may vote, as it was when instances were last looked at.
    vote_edge: InstanceId,
    /// How often STATUS has left at the present prefix.
    status_rounds: (InstanceId, u32),
    /// When STATUS is due; `None` while no work is open [LINK-2].
    status_due: Option<Timestamp>,
    /// When the prefix is to be signed although its number does not call for it [CHAIN-1].
    chain_due: Option<Timestamp>,
}

impl Replica {
    /// A replica before its first event.
    #[must_use]
    pub fn new(config: ReplicaConfig) -> Self {
        let ReplicaConfig { view, me, settings, start, durability, eager_instances } = config;
        let log = DecidedLog::new(&view.cluster());
        Self {
            me,
            // With none it would wait for full batches for ever.
            eager_instances: eager_instances.max(1),
            change: LeaderChange::new(),
            timer: RequestTimer::default(),
            service: ServicePace::default(),
            monitor: LeaderMonitor::default(),
            announcements: Announcements::default(),
            record: VotingRecord::new(view.id(), start),
            journal: Journal::new(durability),
            replay: Replay::default(),
            asking: None,
            amnesiacs: BTreeSet::new(),
            fill: Fill::default(),
            checkpoints: Checkpoints::new(view.id()),
            transfer: Requester::default(),
            requests: Requests::default(),
            sessions: Sessions::default(),
            window: Window::default(),
            executed: (InstanceId(0), log.chain()),
            log,
            chain: Chain::new(view.id()),
            links: Links::new(&view, me),
            executing: VecDeque::new(),
            vote_edge: InstanceId(0),
            status_rounds: (InstanceId(0), 0),
            status_due: None,
            chain_due: None,
            view,
            settings,
        }
    }

    /// Takes one event that happens at `now`, which never goes back, and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Message { from, message } => self.on_message(now, from, message.into_inner(), actions),
            Event::Request(request) => self.on_request(now, request.into_inner(), actions),
            Event::Connected(peer) => self.on_connected(now, peer, actions),
            Event::Disconnected(peer) => self.on_disconnected(now, peer),
            Event::Executed { instance, results } => self.on_executed(now, instance, results, actions),
            Event::Signed { statement, signature } => match statement {
                Statement::Chain { instance, chain, .. } => {
                    self.on_signed(now, instance, chain, signature, actions);
                }
                Statement::StopData { .. } | Statement::Sync { .. } => {
                    self.on_change_signed(now, &statement, signature, actions);
                }
                Statement::Checkpoint { instance, chain, root, .. } => {
                    self.on_checkpoint_signed(instance, (chain, root), signature, actions);
                }
                Statement::Bundle { .. } => {}
            },
            Event::Durable(position) => self.on_durable(now, position, actions),
            Event::Snapshotted { instance, root } => self.on_snapshotted(instance, root, actions),
            Event::TransferBegun { instance, held } => self.on_transfer_begun(now, instance, &held),
            Event::ChunkKept { instance, index } => self.on_chunk_kept(now, instance, index),
            Event::Restored(head) => self.on_restored(now, *head, actions),
            Event::Repaired(instance) => self.on_repaired(now, instance, actions),
            Event::Damaged(damage) => self.on_damaged(damage, actions),
            Event::InputDrained => {
                self.announce_outgoing(actions);
                self.begin_regency(actions);
                self.propose(now, actions);
            }
            Event::Tick => self.on_tick(now, actions),
        }
        if self.asking.is_some() || self.record.is_recovering(self.chain.certified()) {
            self.ask_about_votes(now, actions);
        }
        if self.minds_transfer() {
            self.drive_transfer(now, actions);
        }
        self.arm(now);
    }

    /// Whether `Event::InputDrained` would bring anything about, or might; what does not is no event's work.
    #[must_use]
    pub fn waits_for_drain(&self) -> bool {
        self.announcements.has_outgoing()
            || !self.change.is_live()
            || (self.leader() == self.me && (self.requests.has_unproposed() || self.has_to_fill()))
    }

    /// When `Event::Tick` is due, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let dues = [
            self.status_due,
            self.chain_due,
            self.window.next_fetch(),
            self.timer.due(),
            self.sync_deadline(),
            self.leader_lost_deadline(),
            self.asking_due(),
            self.fill_deadline(),
            self.transfer_deadline(),
        ];
        dues.into_iter().flatten().min()
    }

    /// The replica's figures.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            state: self.state(),
            transfer: self.transfer_status(),
            view: self.view.id(),
            regency: self.change.regency,
            leader: self.leader(),
            wanted_regency: self.change.stops.of(self.me),
            statements: self.change.received.len(),
            backoff: self.timer.backoff(),
            round: self.timer.round(),
            decided: self.log.prefix(),
            executed: self.executed.0,
            chain: self.executed.1,
            certified: self.chain.certified(),
            ordered_time: self.log.timestamp(),
            pending_requests: self.requests.len(),
            pending_bytes: self.requests.bytes(),
            sessions: self.sessions.len(),
            result_bytes: self.sessions.result_bytes(),
            open_instances: self.window.len(),
            awaited_bodies: self.window.waiting(),
            recorded_votes: self.record.len(),
            chain_signatures: self.chain.len(),
            retained_from: self.log.retained_from(),
            retained_bytes: self.log.bytes(),
            amnesiacs: self.amnesiacs.len().saturating_add(usize::from(self.asking.is_some())),
            stable_checkpoint: self.checkpoints.stable(),
            own_checkpoint: self.checkpoints.own(),
            checkpoint_signatures: self.checkpoints.len(),
            recorded_instances: self.journal.len(),
            announced_requests: self.announcements.len(),
            connected_peers: self.links.connected(),
        }
    }

    /// The view that the replica is in.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn on_message(&mut self, now: Timestamp, from: ReplicaId, message: Message, actions: &mut Vec<Action>) {
        if from == self.me || self.view.member(from).is_none() {
            return report(from, Reason::NotAMember, actions);
        }
        match message {
            Message::Propose(propose) => self.on_propose(now, from, propose, actions),
            Message::Write(vote) => self.on_write(now, from, vote, actions),
            Message::Accept(vote) => self.on_accept(now, from, vote, actions),
            Message::Decided(decided) => self.on_decided(now, from, decided, actions),
            Message::FetchBatch(fetch) => self.on_fetch_batch(from, fetch, actions),
            Message::BatchAnswer(answer) => self.on_batch(now, from, answer, actions),
            Message::FetchBodies(fetch) => self.on_fetch_bodies(from, fetch, actions),
            Message::Bodies(bodies) => self.on_bodies(now, from, bodies, actions),
            Message::Status(status) => self.on_status(now, from, status, actions),
            Message::ChainSignature(signature) => self.on_chain_signature(now, from, signature, actions),
            Message::ChainCertificate(certificate) => {
                self.on_chain_certificate(now, from, certificate, actions);
            }
            Message::CheckpointSignature(signed) => self.on_checkpoint_signature(from, signed, actions),
            Message::CheckpointCertificate(certificate) => {
                self.on_checkpoint_certificate(from, certificate, actions);
            }
            Message::Recover(recover) => self.on_recover(now, from, recover, actions),
            Message::RecoverAnswer(answer) => self.on_recover_answer(from, &answer, actions),
            Message::Stop(stop) => self.on_stop(now, from, stop, actions),
            Message::StopData(stated) => self.on_stop_data(now, from, stated, actions),
            Message::Sync(sync) => self.on_sync(now, from, sync, actions),
            Message::Forward(bodies) => self.on_forward(now, from, bodies, actions),
            Message::Echo(sent) => self.on_echo(now, from, sent),
            Message::Announce(requests) => self.on_announce(now, from, requests, actions),
            Message::Lack(requests) => self.on_lack(now, from, requests, actions),
            Message::Fetch(wanted) => self.on_fetch(from, wanted, actions),
            Message::Supply(supply) => self.on_supply(now, from, supply, actions),
        }
    }

    fn leader(&self) -> ReplicaId {
        self.view.leader_of(self.change.regency)
    }

    fn state(&self) -> ReplicaState {
        if self.record.is_recovering(self.chain.certified()) {
            return ReplicaState::StateLost;
        }
        if self.transfer.leads_on() || self.transfer.diverged.is_some() {
            return ReplicaState::Transfer;
        }
        let (of_help, left) = self.helpers();
        if left >= self.view.certifying() && of_help == 0 {
            ReplicaState::Behind
        } else if self.change.is_live() {
            ReplicaState::Normal
        } else {
            ReplicaState::LeaderChange
        }
    }

    /// Arms the timers of whatever work is open.
    fn arm(&mut self, now: Timestamp) {
        if self.status_due.is_none() && self.has_open_work() {
            self.status_due = Some(now.plus(self.settings.status_period));
        }
        let is_uncertified = self.log.prefix() > self.chain.certified();
        match self.chain_due {
            None if is_uncertified => self.chain_due = Some(now.plus(self.settings.chain_period)),
            Some(_) if !is_uncertified => self.chain_due = None,
            None | Some(_) => {}
        }
        if self.requests.len() == 0 {
            self.timer.disarm();
        } else if self.timer.due().is_none() {
            self.timer.arm(now, self.settings.request_timeout_min);
        }
    }

    /// Whether somebody has signed a prefix that is longer than the own, while asking around may still help: a liar
    /// must not keep an idle cluster awake for ever.
    fn is_told_of_more(&self) -> bool {
        let prefix = self.log.prefix();
        let is_tired = self.status_rounds.0 == prefix && self.status_rounds.1 >= STATUS_ROUNDS_MAX;
        !is_tired && self.chain.highest_signed().is_some_and(|signed| signed > prefix)
    }

    /// Whether anything needs messages to go on [LINK-2].
    fn has_open_work(&self) -> bool {
        self.requests.len() > 0
            || !self.change.is_live()
            || self.change.last_bound() > self.log.prefix()
            || self.links.has_regency_below((self.change.regency, self.change.is_live()))
            || self.window.has_work()
            || self.log.prefix() != self.chain.certified()
            || self.is_told_of_more()
            || self.checkpoints.is_open()
            || self.asking.is_some()
            || self.fill.is_open(self.log.prefix())
            || self.transfer.is_active()
            || self.links.has_answered()
            || self.links.ahead(self.log.prefix()).next().is_some()
    }
}

/// Reports a member's misbehaviour.
fn report(from: ReplicaId, reason: Reason, actions: &mut Vec<Action>) {
    actions.push(Action::Report(Misbehaviour { by: Origin::Replica(from), reason }));
}

/// Sends to all other members.
fn broadcast(message: Message, actions: &mut Vec<Action>) {
    broadcast_after(LogPosition(0), message, actions);
}

/// Sends to all other members what rests on the log up to `after`.
fn broadcast_after(after: LogPosition, message: Message, actions: &mut Vec<Action>) {
    actions.push(Action::Send { to: Recipients::All, message, after });
}

/// Sends to one other member.
fn send(to: ReplicaId, message: Message, actions: &mut Vec<Action>) {
    send_after(LogPosition(0), to, message, actions);
}

/// Sends to one other member what rests on the log up to `after`.
fn send_after(after: LogPosition, to: ReplicaId, message: Message, actions: &mut Vec<Action>) {
    actions.push(Action::Send { to: Recipients::One(to), message, after });
}
