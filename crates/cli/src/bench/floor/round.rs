//! One ordering round after the other, with the messages of the real one and none of its checks.
//!
//! Owned by a floor replica, which passes in what arrives and sends what comes out. Votes are counted per
//! replica; replies leave in the order of the instances.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::frame::{Frame, Place};

/// The replica that proposes.
pub(super) const LEADER: u16 = 0;

/// What leaves.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// To every other replica.
    Peers(Frame),
    /// To the connection that the request came from.
    Reply(usize, Place),
}

/// Where one instance is.
#[derive(Debug, Default)]
struct Instance {
    requests: Option<Vec<Place>>,
    /// Replicas that sent WRITE, a bit each.
    writes: u128,
    /// Replicas that sent ACCEPT, a bit each.
    accepts: u128,
    is_accepted: bool,
}

/// The ordering of one replica.
#[derive(Debug)]
pub(super) struct Round {
    me: u16,
    quorum: u32,
    window: u64,
    batch_requests_max: usize,
    /// The last instance proposed here.
    proposed: u64,
    /// The last instance whose requests were answered.
    executed: u64,
    instances: BTreeMap<u64, Instance>,
    /// At the leader: what is not proposed yet.
    pending: VecDeque<Place>,
    /// Requests that are not answered yet, with their connection.
    arrived: HashMap<Place, usize>,
    /// Requests that were decided before they arrived here.
    decided_early: HashSet<Place>,
}

impl Round {
    /// A round in which nothing has happened.
    pub(super) fn new(me: u16, quorum: usize) -> Self {
        let settings = regency::protocol::limits::Settings::default();
        Self {
            me,
            quorum: u32::try_from(quorum).unwrap_or(u32::MAX),
            window: settings.window,
            batch_requests_max: settings.batch_requests_max,
            proposed: 0,
            executed: 0,
            instances: BTreeMap::new(),
            pending: VecDeque::new(),
            arrived: HashMap::new(),
            decided_early: HashSet::new(),
        }
    }

    /// A client's request came over `connection`.
    pub(super) fn on_request(&mut self, connection: usize, place: Place, outputs: &mut Vec<Output>) {
        if self.decided_early.remove(&place) {
            outputs.push(Output::Reply(connection, place));
            return;
        }
        self.arrived.insert(place, connection);
        if self.me == LEADER {
            self.pending.push_back(place);
        }
    }

    /// Proposes what is at hand, if the window has room. Called when there is no input left.
    pub(super) fn propose(&mut self, outputs: &mut Vec<Output>) {
        while !self.pending.is_empty() && self.proposed < self.executed + self.window {
            self.proposed += 1;
            let count = self.pending.len().min(self.batch_requests_max);
            let requests: Vec<_> = self.pending.drain(..count).collect();
            outputs
                .push(Output::Peers(Frame::Propose { instance: self.proposed, requests: requests.clone() }));
            self.on_propose(self.proposed, requests, outputs);
        }
    }

    /// The leader's proposal.
    pub(super) fn on_propose(&mut self, number: u64, requests: Vec<Place>, outputs: &mut Vec<Output>) {
        self.instances.entry(number).or_default().requests = Some(requests);
        outputs.push(Output::Peers(Frame::Write(number)));
        self.on_write(self.me, number, outputs);
        self.execute(outputs);
    }

    /// A first vote.
    pub(super) fn on_write(&mut self, from: u16, number: u64, outputs: &mut Vec<Output>) {
        if number <= self.executed {
            return;
        }
        let instance = self.instances.entry(number).or_default();
        instance.writes |= 1 << from;
        if instance.writes.count_ones() >= self.quorum && !instance.is_accepted {
            instance.is_accepted = true;
            outputs.push(Output::Peers(Frame::Accept(number)));
            self.on_accept(self.me, number, outputs);
        }
    }

    /// A second vote.
    pub(super) fn on_accept(&mut self, from: u16, number: u64, outputs: &mut Vec<Output>) {
        if number <= self.executed {
            return;
        }
        self.instances.entry(number).or_default().accepts |= 1 << from;
        self.execute(outputs);
    }

    /// Answers what is decided, in the order of the instances.
    fn execute(&mut self, outputs: &mut Vec<Output>) {
        while let Some(entry) = self.instances.first_entry() {
            let is_decided = *entry.key() == self.executed + 1
                && entry.get().accepts.count_ones() >= self.quorum
                && entry.get().requests.is_some();
            if !is_decided {
                return;
            }
            self.executed += 1;
            for place in entry.remove().requests.unwrap_or_default() {
                match self.arrived.remove(&place) {
                    Some(connection) => outputs.push(Output::Reply(connection, place)),
                    None => {
                        self.decided_early.insert(place);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { client: 1, sequence: 1 };

    #[test]
    fn a_quorum_of_both_votes_answers() {
        let mut round = Round::new(LEADER, 3);
        let mut outputs = Vec::new();
        round.on_request(9, PLACE, &mut outputs);
        round.propose(&mut outputs);
        let proposal = Frame::Propose { instance: 1, requests: vec![PLACE] };
        assert_eq!(outputs, [Output::Peers(proposal), Output::Peers(Frame::Write(1))]);
        outputs.clear();
        round.on_write(1, 1, &mut outputs);
        round.on_write(1, 1, &mut outputs);
        assert_eq!(outputs, []);
        round.on_write(2, 1, &mut outputs);
        assert_eq!(outputs, [Output::Peers(Frame::Accept(1))]);
        outputs.clear();
        round.on_accept(3, 1, &mut outputs);
        round.on_accept(1, 1, &mut outputs);
        assert_eq!(outputs, [Output::Reply(9, PLACE)]);
    }

    #[test]
    fn votes_may_come_before_proposal_and_request() {
        let mut round = Round::new(2, 3);
        let mut outputs = Vec::new();
        for from in [0, 1, 3] {
            round.on_write(from, 1, &mut outputs);
            round.on_accept(from, 1, &mut outputs);
        }
        round.on_propose(1, vec![PLACE], &mut outputs);
        assert_eq!(outputs, [Output::Peers(Frame::Accept(1)), Output::Peers(Frame::Write(1))]);
        outputs.clear();
        round.on_request(4, PLACE, &mut outputs);
        assert_eq!(outputs, [Output::Reply(4, PLACE)]);
    }
}
