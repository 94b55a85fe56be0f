//! What is sent, and what becomes of it: by correct replicas and clients, and by the adversary.

use bytes::Bytes;

use super::{Happening, World};
use crate::adversary::Deed;
use crate::coverage::Point;
use crate::invariants::Violation;
use crate::network::{Flight, Place};
use crate::shrink::reduction::Kind;

impl World<'_> {
    /// Gives a frame to the network.
    pub(super) fn send(&mut self, from: Place, to: Place, frame: Bytes) {
        if self.is_blocked(from, to, &frame) {
            return;
        }
        let is_owned = |place| matches!(place, Place::Replica(id) if self.plan.byzantine.contains(&id));
        if self.plan.is_rushing && (is_owned(from) || is_owned(to)) {
            // The adversary's part of the network is quick, and loses nothing.
            return self.agenda.add(self.now + 1, Happening::Arrive(Flight { from, to, frame }));
        }
        let agenda = &mut self.agenda;
        let mut arrive = |at, flight| agenda.add(at, Happening::Arrive(flight));
        let fate = self.network.send(self.now, Flight { from, to, frame }, &mut arrive);
        for (happened, point) in [
            (fate.lost, Point::FrameLost),
            (fate.twice, Point::FrameTwice),
            (fate.again, Point::FrameAgain),
            (fate.late, Point::FrameLate),
        ] {
            if happened {
                self.points.insert(point);
            }
        }
        if fate.lost && !fate.cut {
            self.note_among_liars(Point::LossAmongLiars);
        }
    }

    /// Notes what happened while as many replicas lied as the cluster tolerates, and had begun to.
    pub(super) fn note_among_liars(&mut self, point: Point) {
        if self.plan.byzantine.len() == self.plan.view.faults() && self.deeds > 0 {
            self.points.insert(point);
        }
    }

    /// Whether the round that a frame belongs to fails on this link.
    fn is_blocked(&self, from: Place, to: Place, frame: &Bytes) -> bool {
        let (Place::Replica(a), Place::Replica(b), Some(rounds)) = (from, to, &self.plan.rounds) else {
            return false;
        };
        if self.now >= self.plan.heal_at {
            return false;
        }
        rounds.blocked(a, b, frame).is_some_and(|number| {
            let flight = Flight { from, to, frame: frame.clone() };
            self.plan.choices.decide(Kind::Rounds, number, true, self.now, &flight)
        })
    }

    /// Whether the adversary really sends what it wants to.
    fn is_done(&mut self, flight: &Flight) -> bool {
        self.deeds += 1;
        let is_done = self.plan.choices.decide(Kind::Deeds, self.deeds, true, self.now, flight);
        if !is_done && !self.plan.is_rushing {
            self.network.pass_over(self.now, flight.clone());
        }
        is_done
    }

    /// Does what the adversary wants done.
    pub(super) fn carry_out(&mut self, deeds: Vec<Deed>) -> Result<(), Violation> {
        for deed in deeds {
            match deed {
                Deed::Send { from, to, frame } => {
                    let flight = Flight { from: Place::Replica(from), to, frame };
                    if self.is_done(&flight) {
                        self.send(flight.from, to, flight.frame);
                    }
                }
                Deed::Later { after, from, to, frame } => {
                    let flight = Flight { from: Place::Replica(from), to, frame };
                    if !self.is_done(&flight) {
                        continue;
                    }
                    if after == 0 {
                        self.send(flight.from, flight.to, flight.frame);
                    } else {
                        self.agenda.add(self.now + after, Happening::Deed(flight));
                    }
                }
                Deed::Donate { from, to, donation } => {
                    let supply = self.truth(donation);
                    let mut more = Vec::new();
                    self.adversary.donate(from, to, supply, &self.keyring, &mut more);
                    self.carry_out(more)?;
                }
                Deed::Wake(at) => self.agenda.add(at.max(self.now + 1), Happening::Adversary),
                Deed::Reached(point) => {
                    self.points.insert(point);
                }
            }
        }
        Ok(())
    }
}
