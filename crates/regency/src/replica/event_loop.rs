//! One thread, all stages: read, verify, order, execute, reply, write; then wait.
//!
//! A turn takes whatever has arrived, works all of it off, and writes once per connection. No message crosses a
//! thread, no lock is taken but that of the log's queue, and nothing waits for a timer while there is work. The core
//! decides; this file carries out [EXEC-1, VOTE-1]: with durability `sync` a vote leaves in the turn that hears that
//! its record is durable, with `async` when its record is written, with `none` in the turn in which it is made.

mod figures;
mod transfers;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use mio::Waker;
use regency_protocol::action::{Action, Misbehaviour, Recipients};
use regency_protocol::digest::signing_bytes;
use regency_protocol::event::{ClientRequest, Event, Verified};
use regency_protocol::ids::{ClientId, InstanceId, LogPosition, PublicKey};
use regency_protocol::message::{
    Bundle, BundleProof, Message, Outcome, Refusal, Reply, Request, RequestKind, Statement,
};
use regency_protocol::replica::{Replica as Core, ReplicaConfig as CoreConfig};
use regency_protocol::snapshot::SnapshotHead;
use regency_protocol::time::Timestamp;
use regency_protocol::view::{RequestAuth, View};
use tracing::{info, warn};

use super::clock::Clock;
use super::conduct::Conduct;
use super::connection::ConnectionId;
use super::data_directory::DataDirectory;
use super::disk_thread::DISK_WAIT;
use super::donor::Donor;
use super::executor::Executor;
use super::held::Held;
use super::inbound::Inbound;
use super::journal::{Journal, Obstacle};
use super::load::Load;
use super::network::Network;
use super::phases::Phases;
use super::progress::Progress;
use super::recovery::Recovered;
use super::routes::Routes;
use super::scrubber::{Findings, Pace, Scrubber};
use super::snapshots::Snapshots;
use super::status::Readiness;
use super::verifier::Verifier;
use super::{Command, Identity, Shared};
use crate::crypto::SigningKey;
use crate::failure::Failure;
use crate::logging::Quieter;
use crate::metrics::{Fault, Metrics, Phase};
use crate::service::Validator;
use crate::snapshot::Snapshot;

/// How long the loop waits at most without anything to wait for: a bound for what it may have overlooked.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What a loop is made of.
pub(super) struct Parts {
    pub(super) identity: Identity,
    pub(super) view: Arc<View>,
    pub(super) key: SigningKey,
    pub(super) network: Network,
    pub(super) conduct: Conduct,
    pub(super) core: CoreConfig,
    pub(super) disk_reserve_bytes: u64,
    pub(super) transfer_bytes_per_second: u64,
    pub(super) scrub: Pace,
    pub(super) waker: Arc<Waker>,
    pub(super) executor: Executor,
    pub(super) validator: Option<Validator>,
    pub(super) routes: Routes,
    pub(super) metrics: Arc<Metrics>,
    pub(super) commands: Receiver<Command>,
    pub(super) shared: Arc<Shared>,
}

/// A replica's loop and all that it owns.
pub(super) struct EventLoop {
    identity: Identity,
    view: Arc<View>,
    key: SigningKey,
    network: Network,
    conduct: Conduct,
    core: Core,
    journal: Journal,
    snapshots: Snapshots,
    /// A state that is not written yet: the records of its decisions are not durable.
    frozen: Option<(LogPosition, Box<SnapshotHead>, Box<dyn Snapshot>)>,
    directory: DataDirectory,
    /// Whether the core has said that lost votes do not matter any more, and no mark says so.
    is_to_remember: bool,
    donor: Donor,
    load: Load,
    scrubber: Scrubber,
    /// What it has found.
    damage: Findings,
    progress: Progress,
    /// What must wait until its record is durable.
    held: Held,
    /// Why no input is taken just now.
    obstacle: Option<Obstacle>,
    disk_reserve_bytes: u64,
    executor: Executor,
    validator: Option<Validator>,
    verifier: Verifier,
    routes: Routes,
    clock: Clock,
    /// The time of the turn: what arrived together happens together.
    now: Timestamp,
    phases: Phases,
    metrics: Arc<Metrics>,
    quieter: Quieter,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    started: Instant,
    inbox: Vec<Inbound>,
    verdicts: Vec<bool>,
    actions: Vec<Action>,
    to_sign: Vec<Statement>,
    /// Whether the core has been told that there is nothing else, since it was last told something.
    is_settled: bool,
    told: Option<Readiness>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl EventLoop {
    /// A loop before its first turn.
    pub(super) fn new(
        parts: Parts,
        recovered: Recovered,
        directory: DataDirectory,
        started: Instant,
    ) -> Result<Self, Failure> {
        let verifier = Verifier::new(parts.view.clone());
        let mut clock = Clock::start();
        let now = Instant::now();
        let donor = Donor::new(
            directory.open_disk(),
            directory.identity(),
            parts.transfer_bytes_per_second,
            parts.waker,
            parts.metrics.clone(),
        );
        let scrubber = Scrubber::start(directory.open_disk(), directory.identity(), parts.scrub)?;
        Ok(Self {
            identity: parts.identity,
            view: parts.view,
            key: parts.key,
            network: parts.network,
            conduct: parts.conduct,
            core: recovered.core,
            journal: recovered.journal,
            snapshots: recovered.snapshots,
            frozen: None,
            directory,
            is_to_remember: false,
            donor,
            load: Load::new(now),
            scrubber,
            damage: Findings::default(),
            progress: Progress::new(now),
            held: Held::new(recovered.durable),
            obstacle: None,
            disk_reserve_bytes: parts.disk_reserve_bytes,
            executor: parts.executor,
            validator: parts.validator,
            verifier,
            routes: parts.routes,
            now: clock.now(),
            clock,
            phases: Phases::new(),
            metrics: parts.metrics,
            quieter: Quieter::default(),
            commands: parts.commands,
            shared: parts.shared,
            started,
            inbox: Vec::new(),
            verdicts: Vec::new(),
            actions: recovered.actions,
            to_sign: Vec::new(),
            is_settled: true,
            told: None,
        })
    }

    /// Runs until it is told to stop; returns the log, to be closed, and the directory in which it lies.
    pub(super) fn run(mut self) -> Result<(Journal, DataDirectory), Failure> {
        // What the recovery left to do.
        self.carry_out()?;
        self.hand_over()?;
        loop {
            let flow = if self.obstacle.is_some() { self.wait_for_disk()? } else { self.wait()? };
            if flow == Flow::Stop {
                self.flush();
                self.network.stop();
                info!("stopped");
                return Ok((self.journal, self.directory));
            }
            if self.obstacle.is_none() {
                self.turn()?;
            }
        }
    }

    /// Waits for input, or for something to be due.
    fn wait(&mut self) -> Result<Flow, Failure> {
        let wait = self.until_deadline();
        self.network.wait(Some(wait)).map_err(super::no_system)?;
        Ok(self.on_commands())
    }

    /// Waits for the disk: meanwhile no input is taken and no time passes for the core, so that nothing piles up.
    fn wait_for_disk(&mut self) -> Result<Flow, Failure> {
        match self.commands.recv_timeout(DISK_WAIT) {
            Ok(Command::Status(answer)) => answer(self.report()),
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(Flow::Stop),
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.hand_over()?;
        Ok(Flow::On)
    }

    fn until_deadline(&mut self) -> Duration {
        let dues = [self.core.next_deadline(), self.conduct.due()];
        let wait =
            dues.into_iter().flatten().min().map_or(WAIT_MAX, |deadline| deadline.since(self.clock.now()));
        let records =
            self.journal.due().map_or(WAIT_MAX, |due| due.saturating_duration_since(Instant::now()));
        wait.min(records).min(WAIT_MAX)
    }

    /// Takes what has arrived, and works all of it off.
    fn turn(&mut self) -> Result<(), Failure> {
        self.metrics.turns.inc();
        let mut inbox = std::mem::take(&mut self.inbox);
        self.network.read(&mut inbox);
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let checked = self.verifier.checked();
        self.verifier.judge(&inbox, &mut verdicts);
        self.metrics.signatures_checked.inc_by(self.verifier.checked() - checked);
        self.now = self.clock.now();
        let lines_changed =
            inbox.iter().any(|inbound| matches!(inbound, Inbound::Connected(_) | Inbound::Disconnected(_)));
        self.hear_disk()?;
        for (inbound, is_genuine) in inbox.drain(..).zip(verdicts.drain(..)) {
            self.deliver(inbound, is_genuine);
        }
        self.inbox = inbox;
        self.verdicts = verdicts;
        self.carry_out()?;
        // The service may have taken its time.
        self.now = self.clock.now();
        let is_due = self.core.next_deadline().is_some_and(|deadline| deadline <= self.now);
        if is_due {
            self.handle(Event::Tick);
        }
        self.settle()?;
        self.send_donations();
        self.conduct.release(self.now, |to, message| self.network.send_to(to, message));
        self.hand_over()?;
        self.flush();
        self.sign()?;
        if lines_changed || is_due {
            self.tell_readiness();
        }
        self.look_at_transfers()
    }

    /// Takes what the disk has done since: held messages leave, and the core hears of it.
    fn hear_disk(&mut self) -> Result<(), Failure> {
        let (durable, _) = self.journal.progress()?;
        if self.held.advance(durable) {
            while let Some((to, message)) = self.held.next() {
                let network = &mut self.network;
                self.conduct.on_send(self.now, to, message, |to, message| network.send_to(to, message));
            }
            self.handle(Event::Durable(durable));
            self.write_snapshot()?;
        }
        self.hear_snapshots()
    }

    /// Hands over the records of the turn: before anything of the turn leaves.
    fn hand_over(&mut self) -> Result<(), Failure> {
        self.journal.hand_over()?;
        let (_, obstacle) = self.journal.progress()?;
        if self.is_to_remember && obstacle.is_none() {
            // What it rests on is written.
            self.directory.remember()?;
            self.is_to_remember = false;
        }
        let obstacle = obstacle.or_else(|| self.snapshots.obstacle());
        let before = std::mem::replace(&mut self.obstacle, obstacle);
        if before != obstacle {
            self.tell_readiness();
        }
        Ok(())
    }

    /// Writes what waits; nothing while there is no room for the records that it may rest on.
    fn flush(&mut self) {
        if self.obstacle != Some(Obstacle::Full) {
            self.network.flush();
        }
    }

    /// Signs what the turn wants signed: after its votes and replies have left.
    fn sign(&mut self) -> Result<(), Failure> {
        if self.to_sign.is_empty() {
            return Ok(());
        }
        let mut statements = std::mem::take(&mut self.to_sign);
        for statement in statements.drain(..) {
            let signature = self.key.sign(&signing_bytes(&self.view.cluster(), &statement));
            self.handle(Event::Signed { statement, signature });
        }
        self.to_sign = statements;
        self.finish_turn()
    }

    /// Carries out what has come up after the turn's input.
    fn finish_turn(&mut self) -> Result<(), Failure> {
        self.carry_out()?;
        self.settle()?;
        self.hand_over()?;
        self.flush();
        Ok(())
    }

    /// Lets the core propose after whatever it was told, results and signatures included: they may make room.
    fn settle(&mut self) -> Result<(), Failure> {
        while !self.is_settled {
            self.handle(Event::InputDrained);
            self.carry_out()?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        self.is_settled = matches!(event, Event::InputDrained);
        self.core.handle(self.now, event, &mut self.actions);
    }

    fn deliver(&mut self, inbound: Inbound, is_genuine: bool) {
        match inbound {
            Inbound::Connected(peer) => self.handle(Event::Connected(peer)),
            Inbound::Disconnected(peer) => self.handle(Event::Disconnected(peer)),
            Inbound::Peer { from, message } => {
                if !is_genuine {
                    self.complain(Fault::BadPeerSignature, &format!("replica {from} sent a false signature"));
                } else if !self.is_acceptable(&message) {
                    let cause = format!("replica {from} sent a request that the service refuses");
                    self.complain(Fault::RejectedByService, &cause);
                } else {
                    if let Message::Propose(propose) = &message {
                        self.enter_phase(propose.batch.instance, Phase::Propose);
                    }
                    self.handle(Event::Message { from, message: Verified::vouch(message) });
                }
            }
            Inbound::Client { connection, client, key, bundle } => {
                self.on_bundle(connection, client, key, bundle, is_genuine);
            }
        }
    }

    fn on_bundle(
        &mut self,
        connection: ConnectionId,
        client: ClientId,
        key: PublicKey,
        bundle: Bundle,
        is_genuine: bool,
    ) {
        let Bundle { signature, whole_results, requests } = bundle;
        if !is_genuine {
            self.complain(Fault::BadClientSignature, &format!("client {client} sent a false signature"));
            for request in &requests {
                self.refuse(connection, request, Refusal::BadSignature);
            }
            return;
        }
        // With authentic channels nobody asks for the signature: it was not checked.
        let wants_proof = self.view.request_auth() == RequestAuth::Signature;
        let proof = signature.filter(|_| wants_proof).map(|signature| {
            let digests = requests.iter().map(|request| request.digest()).collect();
            Arc::new(BundleProof { key, requests: digests, signature })
        });
        for request in requests {
            if !self.is_valid(&request) {
                self.complain(Fault::RejectedByService, "a client's request was refused by the service");
                self.refuse(connection, &request, Refusal::Rejected);
                continue;
            }
            self.routes.heard(&request, connection);
            let request = ClientRequest { request, proof: proof.clone(), whole_result: whole_results };
            self.handle(Event::Request(Verified::vouch(request)));
        }
    }

    fn refuse(&mut self, connection: ConnectionId, request: &Request, refusal: Refusal) {
        let reply = Reply {
            session: request.session(),
            sequence: request.sequence(),
            outcome: Outcome::Refused(refusal),
        };
        self.network.reply(connection, reply);
    }

    /// Whether the service lets a request be ordered [REQ-7].
    fn is_valid(&self, request: &Request) -> bool {
        match (&self.validator, request.kind()) {
            (Some(validator), RequestKind::Ordered) => validator(&request.client(), &request.payload()),
            (Some(_), RequestKind::Open) | (None, _) => true,
        }
    }

    /// Whether the service lets all requests in a peer's message be ordered.
    fn is_acceptable(&self, message: &Message) -> bool {
        if self.validator.is_none() {
            return true;
        }
        message.bodies().iter().all(|body| self.is_valid(&body.request))
    }

    /// Carries out actions, and those that follow from them, in order.
    fn carry_out(&mut self) -> Result<(), Failure> {
        let mut actions = Vec::new();
        while !self.actions.is_empty() {
            std::mem::swap(&mut actions, &mut self.actions);
            for action in actions.drain(..) {
                self.carry_out_one(action)?;
            }
        }
        if self.actions.capacity() < actions.capacity() {
            self.actions = actions;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::Send { to: Recipients::One(to), message: Message::Supply(supply), .. } => {
                self.pass(to, supply)?;
            }
            Action::Send { to, message, after } => {
                match &message {
                    Message::Propose(propose) => self.enter_phase(propose.batch.instance, Phase::Propose),
                    Message::Write(vote) => self.enter_phase(vote.instance, Phase::Write),
                    Message::Accept(vote) => self.enter_phase(vote.instance, Phase::Accept),
                    _ => {}
                }
                if let Some((to, message)) = self.held.admit(to, message, after) {
                    let network = &mut self.network;
                    self.conduct.on_send(self.now, to, message, |to, message| network.send_to(to, message));
                }
            }
            Action::Append { position, record } => self.journal.append(position, &record)?,
            Action::Cut(below) => self.journal.cut(below),
            Action::Snapshot { head, after } => self.take_snapshot(head, after)?,
            Action::Diverged(instance) => self.on_diverged(instance)?,
            Action::Donate { to, donation } => self.give(to, donation)?,
            Action::Transfer(step) => self.take_step(step)?,
            Action::Remembered => self.is_to_remember = true,
            Action::Reply { client, reply } => match self.routes.find(client, &reply) {
                Some(connection) if self.network.reply(connection, reply) => {}
                Some(_) | None => {
                    self.metrics.replies_unroutable.inc();
                }
            },
            Action::Execute(delivery) => {
                self.enter_phase(delivery.instance, Phase::Execute);
                let execution = self.executor.execute(&delivery);
                self.metrics.observe_phase(Phase::Execute, execution.time);
                self.metrics.batches.inc();
                self.metrics.operations.inc_by(delivery.operations.len() as u64);
                self.metrics.batch_operations.observe(delivery.operations.len() as f64);
                let results = execution.results;
                self.handle(Event::Executed { instance: delivery.instance, results });
            }
            Action::Sign(statement) => self.to_sign.push(statement),
            Action::Report(Misbehaviour { by, reason }) => {
                self.metrics.count_reason(reason);
                if let Some(left_out) = self.quieter.admits(reason.label(), Instant::now()) {
                    warn!(?by, reason = reason.label(), left_out, "a message was dropped");
                }
            }
        }
        Ok(())
    }

    /// Freezes the state as it is now, and lets it be written in the background as soon as its records are durable.
    fn take_snapshot(&mut self, head: Box<SnapshotHead>, after: LogPosition) -> Result<(), Failure> {
        let begun = Instant::now();
        let image = self.executor.snapshot();
        self.metrics.snapshot_freeze_seconds.observe(begun.elapsed().as_secs_f64());
        self.frozen = Some((after, head, image));
        self.write_snapshot()
    }

    /// Has the frozen state written if the log has come so far [VOTE-1].
    fn write_snapshot(&mut self) -> Result<(), Failure> {
        let durable = self.held.durable();
        match self.frozen.take_if(|(after, ..)| *after <= durable) {
            Some((_, head, image)) => self.snapshots.write(head, image, self.core.status().stable_checkpoint),
            None => Ok(()),
        }
    }

    fn enter_phase(&mut self, instance: InstanceId, phase: Phase) {
        if let Some((left, time)) = self.phases.enter(instance, phase, Instant::now()) {
            self.metrics.observe_phase(left, time);
            match left {
                Phase::Write | Phase::Accept => self.load.observe(time),
                Phase::Propose | Phase::Execute => {}
            }
        }
    }

    fn complain(&mut self, fault: Fault, cause: &str) {
        self.metrics.count_fault(fault);
        if let Some(left_out) = self.quieter.admits(fault.label(), Instant::now()) {
            warn!(reason = fault.label(), left_out, "{cause}");
        }
    }

    fn on_commands(&mut self) -> Flow {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Status(answer) => answer(self.report()),
                Command::Stop => return Flow::Stop,
            }
        }
        Flow::On
    }
}
