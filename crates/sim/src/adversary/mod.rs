//! The adversary: it owns up to `f` replicas, sees everything that reaches them, and sends whatever it wants in
//! their names. It lives outside the core; where it needs a core that looks honest, it runs one of its own.

mod directed;
mod distortion;
mod equivocator;
mod false_donor;
mod forgery;
mod held_votes;
mod memory;
mod noise;
mod puppet;
mod slow_donor;
mod strings;
mod vice;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use regency_protocol::action::{Action, Recipients};
use regency_protocol::codec::Wire;
use regency_protocol::event::Event;
use regency_protocol::ids::{ClientId, ReplicaId};
use regency_protocol::message::{ClientMessage, Message, ReplicaMessage, Supply};
use regency_protocol::state_transfer::donation::Donation;

use crate::agenda::Moment;
use crate::coverage::Point;
use crate::network::{Flight, Place};
use crate::plan::{Plan, Strategy};
use crate::random::Stream;
use crate::signatures::Keyring;

use directed::Directed;
use equivocator::Equivocator;
use noise::Noise;
use puppet::Puppet;
use strings::Strings;
pub use vice::Vice;

/// How often the adversary looks at the clock.
const TURN: Moment = 5_000;

/// What the adversary wants done.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Send a frame in the name of one of its own.
    Send {
        /// In whose name.
        from: ReplicaId,
        /// To whom.
        to: Place,
        /// What.
        frame: Bytes,
    },
    /// Send it after a while.
    Later {
        /// After how long.
        after: Moment,
        /// In whose name.
        from: ReplicaId,
        /// To whom.
        to: Place,
        /// What.
        frame: Bytes,
    },
    /// Read something from the disk of a correct replica, as one of its own would from its own disk, and ask it what
    /// becomes of that on its way.
    Donate {
        /// In whose name.
        from: ReplicaId,
        /// To whom.
        to: ReplicaId,
        /// What.
        donation: Donation,
    },
    /// Give it a turn then.
    Wake(Moment),
    /// It has brought this about.
    Reached(Point),
}

/// Everything that the adversary is and owns.
pub(crate) struct Adversary {
    owned: BTreeSet<ReplicaId>,
    clients: Vec<ClientId>,
    mind: Mind,
    noise: Noise,
    stream: Stream,
}

/// How it goes about it.
enum Mind {
    Idle,
    /// A puppet for each owned replica, on strings; the script may lead as long as regency 0 lasts.
    Distort {
        puppets: Vec<Puppet>,
        strings: Box<Strings>,
        script: Option<Box<Equivocator>>,
    },
    /// Two puppets for each owned replica, those of one side next to each other.
    Twins(Vec<Puppet>),
    /// One idea, carried out without puppets of this file.
    Directed(Box<Directed>),
}

impl Adversary {
    /// The adversary of the plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut stream = Stream::new(plan.seed, "adversary");
        let everybody: BTreeSet<ReplicaId> = plan.view.members().iter().map(|member| member.id).collect();
        let mind = match plan.strategy {
            Strategy::None => Mind::Idle,
            Strategy::Rounds | Strategy::StopStorm | Strategy::Censor => {
                Directed::new(plan).map_or(Mind::Idle, |directed| Mind::Directed(Box::new(directed)))
            }
            Strategy::Equivocate | Strategy::Distort => {
                let puppets = plan.byzantine.iter().map(|id| Puppet::new(plan, *id, everybody.clone(), 0));
                let is_scripted = plan.strategy == Strategy::Equivocate;
                Mind::Distort {
                    puppets: puppets.collect(),
                    strings: Box::new(Strings::new(plan)),
                    script: is_scripted.then(|| Box::new(Equivocator::new(plan))),
                }
            }
            Strategy::Twins => {
                let mut correct: Vec<ReplicaId> = everybody.difference(&plan.byzantine).copied().collect();
                stream.shuffle(&mut correct);
                let near = correct.split_off(stream.index(correct.len()));
                let sides = [correct, near].map(|side| &BTreeSet::from_iter(side) | &plan.byzantine);
                let puppets = plan.byzantine.iter().flat_map(|id| {
                    let ahead = [0, 1 + id.0 % 7];
                    sides.clone().into_iter().zip(ahead).map(|(side, ahead)| (*id, side, ahead))
                });
                let puppets = puppets.map(|(id, side, ahead)| Puppet::new(plan, id, side, ahead.into()));
                Mind::Twins(puppets.collect())
            }
        };
        let clients = (0..=plan.clients.len()).map(|number| plan.client_id(number)).collect();
        Self { owned: plan.byzantine.clone(), clients, mind, noise: Noise::new(plan), stream }
    }

    /// A frame reaches one of its own.
    pub(crate) fn on_frame(
        &mut self,
        now: Moment,
        to: ReplicaId,
        flight: &Flight,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        if let Mind::Directed(directed) = &mut self.mind {
            return directed.on_frame(now, flight, keyring, deeds);
        }
        match flight.from {
            Place::Replica(from) => {
                let Ok(message) = Message::decode(flight.frame.clone()) else { return };
                self.noise.note(&message);
                let mut message = message;
                if let Mind::Distort { strings, script, .. } = &mut self.mind {
                    strings.note(now, from, &message, deeds);
                    if let Message::Forward(bodies) = &mut message {
                        bodies.retain(|body| !strings.is_censored(&body.request.client(), deeds));
                    }
                    if let Some(script) = script {
                        script.on_message(&message);
                    }
                }
                let Some(message) = keyring.verify_message(from, message) else { return };
                let event = Event::Message { from, message };
                self.tell(now, to, Some(from), vec![event], keyring, deeds);
            }
            Place::Client(_) => {
                let Ok(ClientMessage::Bundle(bundle)) = ClientMessage::decode(flight.frame.clone()) else {
                    return;
                };
                let Some(requests) = keyring.open_bundle(bundle) else { return };
                let mut events = Vec::new();
                for request in requests {
                    match &mut self.mind {
                        Mind::Idle | Mind::Directed(_) => return,
                        Mind::Twins(_) => {}
                        Mind::Distort { strings, script, .. } => {
                            if strings.is_censored(&request.request.client(), deeds) {
                                continue;
                            }
                            if let Some(script) = script {
                                script.on_request(to, &request, &self.clients, deeds);
                            } else if let Some(distortion) = strings.distortion() {
                                distortion.answer_at_once(to, &request.request, &self.clients, deeds);
                            }
                        }
                    }
                    events.push(Event::Request(request));
                }
                self.tell(now, to, None, events, keyring, deeds);
            }
        }
    }

    /// What one of its own gives to another replica, if it were honest.
    pub(crate) fn donate(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        supply: Supply,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        let message = Message::Supply(supply);
        match &mut self.mind {
            Mind::Distort { strings, .. } => strings.send(from, to, &message, keyring, deeds),
            Mind::Twins(_) => {
                deeds.push(Deed::Send { from, to: Place::Replica(to), frame: message.to_frame() });
            }
            Mind::Idle | Mind::Directed(_) => {}
        }
    }

    /// Time has passed.
    pub(crate) fn on_turn(&mut self, now: Moment, keyring: &Keyring, deeds: &mut Vec<Deed>) {
        let mut out = VecDeque::new();
        match &mut self.mind {
            Mind::Idle => return,
            Mind::Directed(directed) => directed.on_turn(now, keyring, deeds),
            Mind::Distort { puppets, .. } | Mind::Twins(puppets) => {
                for (index, puppet) in puppets.iter_mut().enumerate() {
                    if puppet.is_due(now) {
                        out.extend(
                            puppet.take(now, vec![Event::Tick], keyring).into_iter().map(|a| (index, a)),
                        );
                    }
                }
            }
        }
        self.act(now, out, keyring, deeds);
        if let Mind::Distort { script: Some(script), .. } = &mut self.mind {
            script.on_turn(now, deeds);
        }
        self.noise.on_turn(now, deeds);
        deeds.push(Deed::Wake(now + TURN));
    }

    /// Tells the puppets of `to` that are in touch with `from`, and lets them act.
    fn tell(
        &mut self,
        now: Moment,
        to: ReplicaId,
        from: Option<ReplicaId>,
        events: Vec<Event>,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        let mut out = VecDeque::new();
        let (Mind::Distort { puppets, .. } | Mind::Twins(puppets)) = &mut self.mind else { return };
        for (index, puppet) in puppets.iter_mut().enumerate() {
            let is_in_touch = from.is_none_or(|from| puppet.knows(from));
            if puppet.id() == to && is_in_touch {
                out.extend(puppet.take(now, events.clone(), keyring).into_iter().map(|a| (index, a)));
            }
        }
        self.act(now, out, keyring, deeds);
    }

    /// Carries out what puppets want, each in its own way.
    fn act(
        &mut self,
        now: Moment,
        mut out: VecDeque<(usize, Action)>,
        keyring: &Keyring,
        deeds: &mut Vec<Deed>,
    ) {
        // Owned replicas talk to each other without the network; bounded, in case they never stop.
        for _ in 0..1000 {
            let Some((index, action)) = out.pop_front() else { return };
            let (puppets, mut strings, script) = match &mut self.mind {
                Mind::Distort { puppets, strings, script } => (puppets, Some(strings), script.as_deref()),
                Mind::Twins(puppets) => (puppets, None, None),
                Mind::Idle | Mind::Directed(_) => return,
            };
            let Some(me) = puppets.get(index).map(Puppet::id) else { return };
            match action {
                Action::Send { to, message, .. } => {
                    let friends = match to {
                        Recipients::One(to) => vec![to],
                        Recipients::All => puppets[index].friends(),
                    };
                    for to in friends {
                        if self.owned.contains(&to) {
                            let sides = if strings.is_some() { 1 } else { 2 };
                            let other = puppets.iter().position(|puppet| puppet.id() == to);
                            let Some(other) = other.map(|first| first + index % sides) else { continue };
                            let Some(message) = keyring.verify_message(me, message.clone()) else { continue };
                            let events = vec![Event::Message { from: me, message }];
                            let more = puppets[other].take(now, events, keyring);
                            out.extend(more.into_iter().map(|action| (other, action)));
                        } else if let Some(strings) = &mut strings {
                            if !script.is_some_and(|script| script.speaks_for(&message)) {
                                strings.send(me, to, &message, keyring, deeds);
                            }
                        } else {
                            let frame = message.to_frame();
                            deeds.push(Deed::Send { from: me, to: Place::Replica(to), frame });
                        }
                    }
                }
                Action::Reply { client, reply } => {
                    let Some(number) = self.clients.iter().position(|id| *id == client) else { continue };
                    let view = puppets[index].view();
                    let replies = match &mut strings {
                        Some(strings) => strings.replies(reply, deeds),
                        None if self.stream.percent(80) => vec![reply],
                        None => Vec::new(),
                    };
                    let frame = ReplicaMessage::Replies { view, replies }.to_frame();
                    deeds.push(Deed::Send { from: me, to: Place::Client(number), frame });
                }
                Action::Donate { to, donation } => deeds.push(Deed::Donate { from: me, to, donation }),
                // Liars keep no log: they never mean to come back as they were.
                Action::Sign(_)
                | Action::Append { .. }
                | Action::Cut(_)
                | Action::Snapshot { .. }
                | Action::Diverged(_)
                | Action::Transfer(_)
                | Action::Remembered
                | Action::Execute(_)
                | Action::Report(_) => {}
            }
        }
    }
}
