//! What the world notices about leader change, from the replicas' figures and from what they send: for coverage
//! only, nothing is checked here.

use std::collections::{BTreeMap, BTreeSet};

use regency_protocol::event::Event;
use regency_protocol::ids::{InstanceId, Regency, ReplicaId};
use regency_protocol::leader_change::selection::{Selection, select};
use regency_protocol::leader_change::sync::empty_batch;
use regency_protocol::message::{Lock, Message, StopData, Sync};
use regency_protocol::replica::{ReplicaState, ReplicaStatus};
use regency_protocol::view::{Clients, RequestAuth, View};

use crate::agenda::Moment;
use crate::coverage::Point;

/// A leader that has been dead for so long was not missed before.
const UNNOTICED: Moment = 200_000;
/// A regency that nobody can have reached.
const FAR: Regency = Regency(1 << 62);

/// What a replica is told, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) enum Occasion {
    /// Somebody's STOP.
    Stop { from: ReplicaId, regency: Regency },
    /// A SYNC.
    Sync,
    /// An ACCEPT of this epoch.
    Accept(Regency),
    /// A client's request.
    Request,
    /// Time has passed.
    Tick,
    /// Anything else.
    Other,
}

impl Occasion {
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Message { from, message } => match &**message {
                Message::Stop(stop) => Self::Stop { from: *from, regency: stop.regency },
                Message::Sync(_) => Self::Sync,
                Message::Accept(vote) => Self::Accept(vote.regency),
                Message::Propose(_)
                | Message::Write(_)
                | Message::Decided(_)
                | Message::FetchBatch(_)
                | Message::BatchAnswer(_)
                | Message::FetchBodies(_)
                | Message::Bodies(_)
                | Message::Status(_)
                | Message::ChainSignature(_)
                | Message::CheckpointSignature(_)
                | Message::CheckpointCertificate(_)
                | Message::Recover(_)
                | Message::Fetch(_)
                | Message::Supply(_)
                | Message::RecoverAnswer(_)
                | Message::ChainCertificate(_)
                | Message::StopData(_)
                | Message::Forward(_)
                | Message::Announce(_)
                | Message::Echo(_)
                | Message::Lack(_) => Self::Other,
            },
            Event::Request(_) => Self::Request,
            Event::Tick => Self::Tick,
            Event::Connected(_)
            | Event::Disconnected(_)
            | Event::Executed { .. }
            | Event::Signed { .. }
            | Event::Durable(_)
            | Event::Snapshotted { .. }
            | Event::TransferBegun { .. }
            | Event::ChunkKept { .. }
            | Event::Restored(_)
            | Event::Repaired(_)
            | Event::Damaged(_)
            | Event::InputDrained => Self::Other,
        }
    }
}

/// What has been noticed so far.
#[derive(Default)]
pub(super) struct Notices {
    /// The figures of each correct replica after its last step.
    last: BTreeMap<ReplicaId, ReplicaStatus>,
    /// The decided prefix of each when it installed its regency.
    at_install: BTreeMap<ReplicaId, InstanceId>,
    /// The highest proposal of each correct leader, and the highest WRITE and ACCEPT of a follower.
    proposed: BTreeMap<ReplicaId, (Regency, InstanceId)>,
    written: (Regency, InstanceId),
    accepted: (Regency, InstanceId),
    /// When dead replicas died.
    died: BTreeMap<ReplicaId, Moment>,
    synced: BTreeSet<Regency>,
    stated: BTreeSet<(ReplicaId, Regency)>,
    /// The last instance that any SYNC proposed.
    last_bound: InstanceId,
}

impl Notices {
    /// A replica was told something, and now stands like this.
    pub(super) fn on_step(
        &mut self,
        now: Moment,
        replica: ReplicaId,
        occasion: Occasion,
        status: &ReplicaStatus,
        view: &View,
        points: &mut BTreeSet<Point>,
    ) {
        let Some(before) = self.last.insert(replica, *status) else { return };
        if status.regency > before.regency {
            self.note_install(replica, occasion, &before, status, view, points);
        }
        if status.wanted_regency > before.wanted_regency {
            points.extend(match occasion {
                Occasion::Stop { from, .. } if from == before.leader => Some(Point::LeaderStopJoined),
                Occasion::Stop { .. } => Some(Point::StopJoined),
                Occasion::Tick if before.state == ReplicaState::LeaderChange => Some(Point::SyncTimedOut),
                Occasion::Tick => Some(Point::LeaderGivenUp),
                Occasion::Sync => Some(Point::BadSyncAnswered),
                Occasion::Accept(_) | Occasion::Request | Occasion::Other => None,
            });
        }
        if let Occasion::Stop { regency, .. } = occasion
            && regency >= FAR
            && status.regency == before.regency
        {
            points.insert(Point::FarStop);
        }
        if before.state == ReplicaState::LeaderChange && status.state == ReplicaState::Normal {
            points.insert(Point::RegencyBegan);
        }
        if status.backoff != before.backoff {
            points.insert(if status.backoff > 0 { Point::BackedOff } else { Point::BackoffEnded });
            if status.backoff > 2 {
                points.insert(Point::BackedOffFar);
            }
        }
        if status.decided > before.decided {
            self.note_decision(occasion, status, points);
        }
        if let (Occasion::Request, Some(died)) = (occasion, self.died.get(&status.leader))
            && before.pending_requests == 0
            && died + UNNOTICED < now
        {
            points.insert(Point::IdleWithDeadLeader);
        }
    }

    fn note_install(
        &mut self,
        replica: ReplicaId,
        occasion: Occasion,
        before: &ReplicaStatus,
        status: &ReplicaStatus,
        view: &View,
        points: &mut BTreeSet<Point>,
    ) {
        let last = self.at_install.insert(replica, status.decided);
        let notes = [
            (true, Point::RegencyInstalled),
            (status.regency.0 > before.regency.0 + 1, Point::RegencySkipped),
            (matches!(occasion, Occasion::Sync), Point::RegencyFromSync),
            (before.state == ReplicaState::LeaderChange, Point::RegencyNeverBegan),
            (last == Some(status.decided) && status.pending_requests > 0, Point::ChangeWithoutProgress),
            (status.state == ReplicaState::StateLost, Point::StateLostLearnsRegency),
            (before.leader == replica, Point::OldLeaderFollows),
            (status.regency.0 >= view.n() as u64, Point::LeadersComeRound),
            (status.pending_requests > 0, Point::PendingAtInstall),
            (status.pending_requests == 0, Point::IdleAtInstall),
        ];
        points.extend(notes.into_iter().filter_map(|(is_so, point)| is_so.then_some(point)));
    }

    fn note_decision(&self, occasion: Occasion, status: &ReplicaStatus, points: &mut BTreeSet<Point>) {
        let is_old = matches!(occasion, Occasion::Accept(epoch) if epoch < status.regency);
        let notes = [
            (is_old, Point::OldAcceptsDecide),
            (status.state == ReplicaState::LeaderChange, Point::DecidedDuringChange),
            (status.regency > Regency(0), Point::DecidedLater),
            (status.regency > Regency(2), Point::DecidedMuchLater),
        ];
        points.extend(notes.into_iter().filter_map(|(is_so, point)| is_so.then_some(point)));
    }

    /// A correct replica sends this.
    pub(super) fn on_send(
        &mut self,
        from: ReplicaId,
        message: &Message,
        view: &View,
        points: &mut BTreeSet<Point>,
    ) {
        let Some(status) = self.last.get(&from).copied() else { return };
        match message {
            Message::Propose(propose) => {
                self.proposed.insert(from, (propose.regency, propose.batch.instance));
                if propose.regency > Regency(0) {
                    points.insert(Point::ProposedLater);
                }
                let is_announced = view.request_auth() == RequestAuth::Channel
                    && matches!(view.clients(), Clients::Open)
                    && !propose.batch.requests.is_empty();
                if is_announced {
                    points.insert(Point::ProposedAfterAnnouncements);
                }
            }
            Message::Write(vote) => {
                if from != view.leader_of(vote.regency) {
                    self.written = self.written.max((vote.regency, vote.instance));
                }
                if vote.regency > Regency(0) && vote.instance <= status.executed {
                    points.insert(Point::ExecutedVotedAgain);
                }
            }
            Message::Accept(vote) => {
                if from != view.leader_of(vote.regency) {
                    self.accepted = self.accepted.max((vote.regency, vote.instance));
                }
                if vote.regency > Regency(0) && vote.instance <= self.last_bound {
                    points.insert(Point::LockedAgain);
                }
            }
            Message::FetchBatch(fetch) => {
                if status.state == ReplicaState::LeaderChange {
                    points.insert(Point::FetchedBeforeSync);
                } else if status.regency > Regency(0) && fetch.instance <= self.last_bound {
                    points.insert(Point::FetchedAfterSync);
                }
            }
            Message::StopData(stated) => {
                if !self.stated.insert((from, stated.data.regency)) {
                    points.insert(Point::StatedAgain);
                }
                note_statement(&stated.data, points);
            }
            Message::Sync(sync) => {
                if view.leader_of(sync.regency) != from {
                    points.insert(Point::SyncRelayed);
                } else if self.synced.insert(sync.regency) {
                    self.note_sync(sync, &status, view, points);
                }
            }
            Message::Forward(_) => {
                points.insert(Point::RequestForwarded);
            }
            Message::Announce(_) => {
                points.insert(Point::RequestAnnounced);
            }
            Message::Lack(_) => {
                points.insert(Point::ProofLacked);
            }
            Message::Decided(_)
            | Message::BatchAnswer(_)
            | Message::FetchBodies(_)
            | Message::Bodies(_)
            | Message::Status(_)
            | Message::ChainSignature(_)
            | Message::CheckpointSignature(_)
            | Message::CheckpointCertificate(_)
            | Message::Recover(_)
            | Message::Fetch(_)
            | Message::Supply(_)
            | Message::RecoverAnswer(_)
            | Message::ChainCertificate(_)
            | Message::Stop(_)
            | Message::Echo(_) => {}
        }
    }

    /// What a correct leader has selected.
    fn note_sync(&mut self, sync: &Sync, leader: &ReplicaStatus, view: &View, points: &mut BTreeSet<Point>) {
        let set: Vec<&StopData> = sync.set.iter().map(|stated| &*stated.data).collect();
        let is_based = set.iter().any(|data| data.base.is_some());
        let notes = [
            (sync.results.is_empty(), Point::AllFree),
            (sync.results.len() > 1, Point::SeveralBound),
            (set.len() > view.quorum(), Point::MoreThanAQuorum),
            (is_based, Point::SyncAboveCertificate),
        ];
        points.extend(notes.into_iter().filter_map(|(is_so, point)| is_so.then_some(point)));
        for (instance, digest) in &sync.results {
            self.last_bound = self.last_bound.max(*instance);
            if *instance <= leader.decided {
                points.insert(Point::DecidedIsBound);
            }
            let Selection::Bound { epoch, .. } = select(&set, *instance, view) else {
                if empty_batch(view.id(), *instance).digest() == *digest {
                    points.insert(Point::FreeBelowBound);
                }
                continue;
            };
            let locks: Vec<Lock> = set.iter().map(|data| data.lock(*instance)).collect();
            let unlocked = locks.iter().filter(|lock| **lock == Lock::None).count();
            let bound = Lock::At { epoch, digest: *digest };
            let is_alone = locks.iter().filter(|lock| **lock == bound).count() == 1;
            let has_rival =
                locks.iter().any(|lock| matches!(lock, Lock::At { digest: other, .. } if other != digest));
            let age = sync.regency.0.saturating_sub(epoch.0);
            let is_rewritten = set
                .iter()
                .filter_map(|data| data.claim(*instance))
                .any(|claim| claim.write_set.iter().any(|(at, written)| *at > epoch && written == digest));
            let notes = [
                (age >= 1, Point::BoundFromEarlier),
                (age >= 2, Point::BoundFromTwoAgo),
                (age >= 3, Point::BoundFromLongAgo),
                (epoch > Regency(0), Point::BoundFromLaterEpoch),
                (unlocked >= view.quorum(), Point::BoundAndFree),
                (is_alone, Point::BoundByOneLock),
                (has_rival, Point::RivalLocks),
                (is_rewritten, Point::WrittenAfterLock),
            ];
            points.extend(notes.into_iter().filter_map(|(is_so, point)| is_so.then_some(point)));
        }
    }

    /// A replica dies.
    pub(super) fn on_crash(&mut self, now: Moment, replica: ReplicaId, points: &mut BTreeSet<Point>) {
        self.died.insert(replica, now);
        let Some(status) = self.last.get(&replica).filter(|status| status.leader == replica) else { return };
        if status.state == ReplicaState::LeaderChange {
            points.insert(Point::DiedBeforeSync);
        }
        if status.regency > Regency(0) {
            points.insert(Point::LaterLeaderDied);
        }
        if status.pending_requests == 0 {
            points.insert(Point::DiedIdle);
        }
        let proposed = self.proposed.get(&replica).copied().unwrap_or_default();
        if proposed.0 == status.regency && proposed.1 > status.decided {
            points.insert(if proposed > self.written {
                Point::DiedAfterPropose
            } else if proposed > self.accepted {
                Point::DiedAfterWrite
            } else {
                Point::DiedAfterAccept
            });
        }
    }

    /// It lives again.
    pub(super) fn on_restart(&mut self, replica: ReplicaId) {
        self.died.remove(&replica);
    }
}

/// What a correct replica states.
fn note_statement(data: &StopData, points: &mut BTreeSet<Point>) {
    if data.claims.is_empty() {
        points.insert(Point::NothingStated);
    }
    for claim in &data.claims {
        points.insert(match claim.lock {
            Lock::None => Point::WrittenOnlyStated,
            Lock::At { epoch: Regency(0), .. } => Point::FirstLockStated,
            Lock::At { .. } => Point::LaterLockStated,
        });
        if claim.write_set.len() > 1 {
            points.insert(Point::TwoWritesStated);
        }
    }
}
