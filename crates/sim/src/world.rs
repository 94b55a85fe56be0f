//! One schedule from beginning to end: virtual time, the agenda, and everybody who lives on it.
//!
//! The files below are the world's hands: what a core asks for (`actions`), what goes wrong (`faults`), what is
//! sent (`sending`), the clients, inputs that drain, and the reckoning at the end (`verdict`).

mod actions;
mod clients;
mod disk;
mod drain;
mod faults;
mod notices;
mod sending;
mod telling;
mod transfer;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::{ClientId, Digest, InstanceId, ReplicaId};
use regency_protocol::message::Message;

use crate::adversary::Adversary;
use crate::agenda::{Agenda, Moment};
use crate::client::Client;
use crate::coverage::Point;
use crate::history::History;
use crate::invariants::agreement::Ledger;
use crate::invariants::exactly_once::ExactlyOnce;
use crate::invariants::one_vote::OneVote;
use crate::invariants::total_order::TotalOrder;
use crate::invariants::unique_proposals::UniqueProposals;
use crate::invariants::validity::Validity;
use crate::invariants::{Violation, memory};
use crate::network::{Flight, Network, Place};
use crate::node::{Inbound, Node};
use crate::plan::{Fault, Plan};
use crate::random::Stream;
use crate::rogue::RogueClient;
use crate::signatures::Keyring;
use crate::store::Store;
use crate::trace::Trace;

use notices::{Notices, Occasion};
use telling::describe;

/// How long after the healing a schedule may go on while calls are owed an answer.
pub(crate) const AFTERMATH: Moment = 60_000_000;
/// How long it may go on otherwise.
const SHORT_AFTERMATH: Moment = 2_000_000;
/// How long a snapshot is left alone that waits for records.
const RECORDS_PAUSE: Moment = 500;
/// Events of one schedule, at most: more means that something feeds itself.
const EVENTS_MAX: u64 = 3_000_000;
/// What holds even with more than `f` liars.
const BEYOND: &[&str] = &["memory", "codec", "quiescence"];
/// Ticks at one moment, at most: more means that a timer does not move on.
const TICKS_AT_ONCE_MAX: u32 = 100;

/// Something on the agenda.
#[derive(Debug)]
enum Happening {
    /// A frame arrives.
    Arrive(Flight),
    /// A replica's own machine says something to its core.
    /// Boxed, so that the agenda has little to move.
    Own { replica: ReplicaId, life: u32, event: Box<Event> },
    /// A replica's disk has done what it was given, or could not.
    Committed { replica: ReplicaId, life: u32 },
    /// A replica wants a tick.
    Wake { replica: ReplicaId, life: u32 },
    /// A replica's input has drained.
    Drained { replica: ReplicaId, life: u32 },
    /// A client's turn has come: a timer, or a new call.
    Client(usize),
    /// The dishonest client's turn has come.
    Rogue,
    /// The adversary's turn has come.
    Adversary,
    /// Something that the adversary put off is sent.
    Deed(Flight),
    /// Something goes wrong.
    Fault(Fault),
    /// Nothing goes wrong any more.
    Heal,
}

/// What became of a schedule.
pub(crate) struct Outcome {
    /// How many events it had.
    pub(crate) events: u64,
    /// Whether replicas lied in it.
    pub(crate) is_byzantine: bool,
    /// The points that it came by.
    pub(crate) points: BTreeSet<Point>,
    /// The invariant that broke.
    pub(crate) violation: Option<Violation>,
    /// The hash over everything that happened, if one was wanted.
    pub(crate) hash: Option<[u8; 32]>,
}

impl Outcome {
    /// Something panicked on the way.
    pub(crate) fn panicked() -> Self {
        let violation = Some(Violation::new("panic", "the core or the client panicked"));
        Self { events: 0, is_byzantine: false, points: BTreeSet::new(), violation, hash: None }
    }
}

/// Everything there is.
pub(crate) struct World<'a> {
    plan: Plan,
    keyring: Keyring,
    now: Moment,
    events: u64,
    /// After how many events nobody wants to know any more.
    events_wanted: u64,
    agenda: Agenda<Happening>,
    network: Network,
    nodes: BTreeMap<ReplicaId, Node>,
    adversary: Adversary,
    clients: Vec<Client>,
    rogue: RogueClient,
    client_places: BTreeMap<ClientId, usize>,
    /// The random numbers of machines: services, signers, restarts.
    machines: Stream,
    history: History,
    ledger: Ledger,
    total_order: TotalOrder,
    exactly_once: ExactlyOnce,
    validity: Validity,
    one_vote: OneVote,
    unique_proposals: UniqueProposals,
    /// The roots of all snapshots, by instance, and the correct replicas that have them on disk.
    roots: BTreeMap<InstanceId, Digest>,
    takers: BTreeMap<InstanceId, BTreeSet<ReplicaId>>,
    /// The highest checkpoint that was stable anywhere.
    stable: InstanceId,
    /// What makes one stable, whatever a mutant makes of it.
    quorum: usize,
    points: BTreeSet<Point>,
    notices: Notices,
    trace: Trace<'a>,
    /// Requests, votes and proposals seen before, to notice when they are sent again.
    sent_before: BTreeSet<(ReplicaId, u8, InstanceId)>,
    /// How much the adversary has sent.
    deeds: u64,
    /// How many turns the dishonest client has had.
    rogue_turns: u64,
}

impl<'a> World<'a> {
    /// A world as the plan wants it, with everything that is planned on its agenda.
    pub(crate) fn new(plan: Plan, trace: Trace<'a>) -> Self {
        let seed = plan.seed;
        let keyring = Keyring::new(seed, plan.view.clone());
        let ids = plan.view.members().iter().map(|member| member.id);
        let nodes: BTreeMap<_, _> =
            ids.filter(|id| !plan.byzantine.contains(id)).map(|id| (id, Node::new(&plan, id))).collect();
        let clients: Vec<_> = (0..plan.clients.len()).map(|number| Client::new(&plan, number)).collect();
        let rogue = RogueClient::new(&plan);
        let mut client_places: BTreeMap<_, _> =
            clients.iter().enumerate().map(|(number, client)| (client.id(), number)).collect();
        client_places.insert(rogue.id(), clients.len());
        let mut world = Self {
            network: Network::new(
                plan.weather,
                plan.healed,
                plan.choices.clone(),
                Stream::new(seed, "network"),
            ),
            adversary: Adversary::new(&plan),
            machines: Stream::new(seed, "machines"),
            exactly_once: ExactlyOnce::new(plan.settings.session_window),
            history: History::default(),
            ledger: Ledger::default(),
            total_order: TotalOrder::default(),
            validity: Validity::default(),
            one_vote: OneVote::default(),
            unique_proposals: UniqueProposals::default(),
            roots: BTreeMap::new(),
            takers: BTreeMap::new(),
            stable: InstanceId(0),
            quorum: plan.view.quorum(),
            points: BTreeSet::new(),
            notices: Notices::default(),
            sent_before: BTreeSet::new(),
            deeds: 0,
            rogue_turns: 0,
            agenda: Agenda::new(),
            now: 0,
            events: 0,
            events_wanted: u64::MAX,
            nodes,
            clients,
            rogue,
            client_places,
            keyring,
            plan,
            trace,
        };
        world.prepare();
        world
    }

    /// The same, but cut short after so many events: what has not broken by then counts as whole.
    pub(crate) fn up_to(self, events: u64) -> Self {
        Self { events_wanted: events, ..self }
    }

    /// Puts on the agenda what is known in advance.
    fn prepare(&mut self) {
        let ids: Vec<ReplicaId> = self.plan.view.members().iter().map(|member| member.id).collect();
        for &a in &ids {
            for &b in &ids {
                if a != b && self.nodes.contains_key(&a) {
                    let at = self.machines.below(2000);
                    let event = Box::new(Event::Connected(b));
                    self.agenda.add(at, Happening::Own { replica: a, life: 0, event });
                }
            }
        }
        for (at, fault) in self.plan.faults.clone() {
            self.agenda.add(at, Happening::Fault(fault));
        }
        self.agenda.add(self.plan.heal_at, Happening::Heal);
        for number in 0..self.clients.len() {
            let at = self.machines.below(3000);
            self.agenda.add(at, Happening::Client(number));
        }
        if self.plan.rogue_acts > 0 {
            self.agenda.add(1000, Happening::Rogue);
        }
        if !self.plan.byzantine.is_empty() {
            self.agenda.add(500, Happening::Adversary);
        }
        self.note_size();
    }

    /// Runs; a broken assertion of the core is a finding like any other.
    pub(crate) fn run_guarded(self) -> Outcome {
        let world = AssertUnwindSafe(self);
        catch_unwind(|| { world }.0.run()).unwrap_or_else(|_| Outcome::panicked())
    }

    /// Runs until nothing happens any more, the time is up, or an invariant breaks.
    pub(crate) fn run(mut self) -> Outcome {
        let mut violation = match self.run_agenda() {
            Ok(()) if self.is_cut_short() => None,
            Ok(()) => self.verdict().err(),
            Err(violation) => Some(violation),
        };
        violation = violation.filter(|violation| self.counts(violation));
        if self.trace.is_on() {
            for node in self.nodes.values() {
                let line = format!("at the end: replica {}: {:?}", node.id(), node.status());
                self.trace.line(self.now, format_args!("{line}"));
            }
        }
        if let Some(violation) = &violation {
            self.say(format_args!("BROKEN {}: {}", violation.invariant, violation.detail));
        }
        let hash = self.trace.digest();
        let is_byzantine = !self.plan.byzantine.is_empty();
        Outcome { events: self.events, is_byzantine, points: self.points, violation, hash }
    }

    fn run_agenda(&mut self) -> Result<(), Violation> {
        let end = self.plan.heal_at + AFTERMATH;
        while let Some((at, happening)) = self.agenda.next() {
            if at > end {
                return Ok(());
            }
            self.now = at;
            self.events += 1;
            if self.is_cut_short() {
                return Ok(());
            }
            if self.events > EVENTS_MAX {
                return Err(Violation::new("quiescence", format!("{EVENTS_MAX} events and no end")));
            }
            if self.trace.is_on() {
                self.say(format_args!("{}", describe(&happening)));
            }
            let happened = self.happen(happening);
            self.forgiven(happened)?;
            if self.is_over() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_cut_short(&self) -> bool {
        self.events > self.events_wanted
    }

    /// Whether a broken invariant is a finding: with more than `f` liars nothing is promised, but that no replica
    /// falls over or fills up.
    fn counts(&self, violation: &Violation) -> bool {
        self.is_promised() || BEYOND.contains(&violation.invariant)
    }

    /// Whether there are no more liars than the cluster tolerates.
    fn is_promised(&self) -> bool {
        self.plan.byzantine.len() <= self.plan.view.faults()
    }

    /// What is left of a check: nothing, where its failure is no finding.
    fn forgiven<T: Default>(&self, checked: Result<T, Violation>) -> Result<T, Violation> {
        match checked {
            Err(violation) if !self.counts(&violation) => Ok(T::default()),
            checked => checked,
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Arrive(flight) => self.arrive(flight),
            Happening::Own { replica, life, event } => {
                if self.is_living(replica, life) {
                    return self.own_event(replica, *event);
                }
                Ok(())
            }
            Happening::Committed { replica, life } => {
                if self.is_living(replica, life) {
                    return self.committed(replica);
                }
                Ok(())
            }
            Happening::Wake { replica, life } => {
                if self.is_living(replica, life) {
                    return self.wake(replica);
                }
                Ok(())
            }
            Happening::Drained { replica, life } => {
                if self.is_living(replica, life) {
                    return self.drained(replica);
                }
                Ok(())
            }
            Happening::Client(number) => self.client_turn(number),
            Happening::Rogue => self.rogue_turn(),
            Happening::Adversary => {
                let mut deeds = Vec::new();
                self.adversary.on_turn(self.now, &self.keyring, &mut deeds);
                self.carry_out(deeds)
            }
            Happening::Deed(Flight { from, to, frame }) => {
                self.send(from, to, frame);
                Ok(())
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
        }
    }

    fn is_living(&self, replica: ReplicaId, life: u32) -> bool {
        self.nodes.get(&replica).is_some_and(|node| node.life == life)
    }

    fn arrive(&mut self, flight: Flight) -> Result<(), Violation> {
        match flight.to {
            Place::Client(number) => self.client_frame(number, flight),
            Place::Replica(id) if self.plan.byzantine.contains(&id) => {
                let mut deeds = Vec::new();
                self.adversary.on_frame(self.now, id, &flight, &self.keyring, &mut deeds);
                self.carry_out(deeds)
            }
            Place::Replica(id) => {
                let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
                match node.admit(Inbound::Frame(flight)) {
                    Some(Inbound::Frame(flight)) => self.receive(id, flight),
                    Some(Inbound::Event(_)) | None => Ok(()),
                }
            }
        }
    }

    /// A frame reaches a running replica: the shell's part of the work, then the core's.
    fn receive(&mut self, to: ReplicaId, flight: Flight) -> Result<(), Violation> {
        match flight.from {
            Place::Client(number) => self.receive_from_client(to, number, flight.frame),
            Place::Replica(from) => self.receive_from_replica(to, from, flight.frame),
        }
    }

    fn receive_from_replica(
        &mut self,
        to: ReplicaId,
        from: ReplicaId,
        frame: Bytes,
    ) -> Result<(), Violation> {
        let is_correct = self.nodes.contains_key(&from);
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) if is_correct => {
                let detail = format!("replica {to} cannot read a frame of correct replica {from}: {error}");
                return Err(Violation::new("codec", detail));
            }
            Err(_) => return Ok(()),
        };
        match self.keyring.verify_message(from, message) {
            Some(message) => self.tell(to, Event::Message { from, message }),
            None if is_correct => {
                let detail = format!("replica {to} gets a bad signature from correct replica {from}");
                Err(Violation::new("accusation", detail))
            }
            None => Ok(()),
        }
    }

    /// The replica's own machine says something.
    fn own_event(&mut self, replica: ReplicaId, event: Event) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        if matches!(event, Event::Snapshotted { .. })
            && node.store.as_ref().is_some_and(Store::waits_for_records)
        {
            self.add_own(self.now + RECORDS_PAUSE, replica, event);
            return Ok(());
        }
        let stable = node.status().stable_checkpoint;
        if let (Event::Snapshotted { instance, .. }, Some(store)) = (&event, node.store.as_mut()) {
            store.end_snapshot(stable);
            self.takers.entry(*instance).or_default().insert(replica);
        }
        match node.admit(Inbound::Event(event)) {
            Some(Inbound::Event(event)) => self.tell(replica, event),
            Some(Inbound::Frame(_)) | None => Ok(()),
        }
    }

    fn wake(&mut self, replica: ReplicaId) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&replica) else { return Ok(()) };
        if node.wake_at != Some(now) || !node.is_up() {
            return Ok(());
        }
        node.wake_at = None;
        if node.deadline(now).is_none_or(|deadline| deadline > now) {
            self.arm(replica);
            return Ok(());
        }
        if node.count_tick(now) > TICKS_AT_ONCE_MAX {
            return Err(Violation::new("quiescence", format!("replica {replica} ticks without end")));
        }
        self.tell(replica, Event::Tick)
    }

    /// Tells a running replica's core, does what it asks for, and checks what it keeps.
    fn tell(&mut self, replica: ReplicaId, event: Event) -> Result<(), Violation> {
        let is_input = !matches!(event, Event::InputDrained);
        let occasion = Occasion::of(&event);
        if let Event::Durable(position) = event {
            self.release(replica, position)?;
        }
        let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_up()) else { return Ok(()) };
        let mut actions = Vec::new();
        node.handle(self.now, event, &mut actions);
        if is_input {
            self.expect_drain(replica);
        } else if actions.is_empty() {
            // The end of inputs, and nothing to do: what was looked at after the last of them holds.
            self.arm(replica);
            return Ok(());
        }
        let Some(node) = self.nodes.get(&replica) else { return Ok(()) };
        let status = node.status();
        self.notices.on_step(self.now, replica, occasion, &status, &self.plan.view, &mut self.points);
        memory::check(replica, &status, &self.plan.settings, &self.plan.view)?;
        if self.is_promised() {
            self.ledger.check_chain(replica, status.executed, status.chain)?;
        }
        self.check_stable(replica, status.stable_checkpoint)?;
        self.perform(replica, actions)?;
        self.arm(replica);
        Ok(())
    }

    /// Sees to it that the replica is woken at its next deadline.
    fn arm(&mut self, replica: ReplicaId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&replica).filter(|node| node.is_alive()) else { return };
        let Some(deadline) = node.deadline(now) else { return };
        if node.wake_at.is_none_or(|wake_at| deadline < wake_at) {
            node.wake_at = Some(deadline);
            self.agenda.add(deadline, Happening::Wake { replica, life: node.life });
        }
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, line);
    }

    fn note_size(&mut self) {
        use regency_protocol::view::{Mode, RequestAuth};
        let view = &self.plan.view;
        let sizes = [
            (view.request_auth() == RequestAuth::Channel, Point::ChannelAuth),
            (view.mode() == Mode::Cft, Point::CrashOnly),
            (view.n() == 5, Point::FiveReplicas),
            (view.n() >= 7, Point::ManyReplicas),
            (self.plan.settings.window == 1, Point::WindowOfOne),
            (view.n() == 6, Point::SixReplicas),
            (view.n() == 10, Point::TenReplicas),
            (view.n() == 13, Point::ThirteenReplicas),
            (self.keyring.is_real(), Point::RealSignatures),
            (self.plan.byzantine.len() > view.faults(), Point::BeyondFaults),
            (self.plan.is_rushing, Point::Rushing),
            (
                self.nodes.values().any(|node| node.store.as_ref().is_some_and(Store::is_real)),
                Point::LogInFiles,
            ),
        ];
        self.points.extend(sizes.iter().filter(|(is_so, _)| *is_so).map(|(_, point)| *point));
    }
}
