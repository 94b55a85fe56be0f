//! The answers of donors, each of which is judged before it is used [ST-3].

use super::{Replica, report};
use crate::action::{Action, Reason};
use crate::checkpoint::has_quorum;
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::limits::RANGE_BYTES_MAX;
use crate::manifest::ManifestHead;
use crate::message::{CheckpointCertificate, Supply, Wanted};
use crate::record::RecordedBatch;
use crate::state_transfer::log_fetch::{LogFetch, leads};
use crate::state_transfer::requester::{Gap, Phase};
use crate::state_transfer::snapshot_fetch::{Brought, SnapshotFetch, WrongPart};
use crate::time::Timestamp;

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Something that was missing.
    News,
    /// Nothing that was missing, and nothing wrong.
    Old,
    /// What a certificate contradicts.
    Lie,
}

impl Replica {
    /// A donor answers.
    pub(super) fn on_supply(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        supply: Supply,
        actions: &mut Vec<Action>,
    ) {
        if !self.transfer.donors.answered(from) {
            return report(from, Reason::UnexpectedSupply, actions);
        }
        // What was asked before it was caught may still come.
        if self.transfer.donors.is_banned(from) {
            return;
        }
        let answer = match supply {
            Supply::Nothing(wanted) => {
                match (wanted, &mut self.transfer.phase) {
                    (Wanted::Snapshot { .. }, Phase::Offers(offers)) => {
                        offers.asked.remove(&from);
                    }
                    (Wanted::Snapshot { .. }, _) => {}
                    (
                        Wanted::Page { instance, .. } | Wanted::Chunk { instance, .. },
                        Phase::Snapshot(fetch),
                    ) => {
                        if instance == fetch.instance() {
                            self.transfer.lacking.insert(from);
                        }
                        self.transfer.donors.decline(&wanted, from);
                    }
                    _ => self.transfer.donors.lacks(&wanted, from, now),
                }
                Answer::Old
            }
            Supply::Digests { from: first, digests } => self.on_digests(now, from, first, digests),
            Supply::Batches(batches) => self.on_batches(now, from, batches, actions),
            Supply::Snapshot { certificate, head } => self.on_offer(from, certificate, head),
            Supply::Page { instance, page, chunks } => {
                let brought = self.snapshot_fetch(instance).map(|fetch| fetch.put_page(page, chunks));
                let of = Wanted::Page { instance, root: Digest::default(), page };
                self.on_part(now, from, of, brought, actions)
            }
            Supply::Chunk { instance, index, bytes } => {
                let brought = self.snapshot_fetch(instance).map(|fetch| fetch.put_chunk(index, bytes));
                let of = Wanted::Chunk { instance, root: Digest::default(), index };
                self.on_part(now, from, of, brought, actions)
            }
        };
        match answer {
            Answer::News => self.transfer.progress = now,
            // It may be meant to pass the time.
            Answer::Old => {}
            Answer::Lie => {
                // [ST-3] No donor is believed, and one that was caught is not asked again.
                self.transfer.donors.ban(from);
                report(from, Reason::BadSupply, actions);
            }
        }
    }

    pub(super) fn snapshot_fetch(&mut self, instance: InstanceId) -> Option<&mut SnapshotFetch> {
        match &mut self.transfer.phase {
            Phase::Snapshot(fetch) if fetch.instance() == instance => Some(fetch),
            Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) | Phase::Snapshot(_) => None,
        }
    }

    /// A part of a snapshot has come, and was judged if its snapshot is being fetched; `of` is the question, without its
    /// root, which an answer does not repeat.
    fn on_part(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        of: Wanted,
        brought: Option<Result<Brought, WrongPart>>,
        actions: &mut Vec<Action>,
    ) -> Answer {
        // What is false closes nobody else's question.
        let is_good = matches!(brought, Some(Ok(_)));
        let asked = self.transfer.donors.open().find(|wanted| rootless(wanted) == of).copied();
        let asked = asked.filter(|asked| is_good || self.transfer.donors.is_asked(from, asked));
        if let Some(asked) = &asked {
            self.transfer.donors.close(asked, from, now, 1);
        }
        match brought {
            Some(Ok(Brought::Step(step))) => {
                actions.push(Action::Transfer(step));
                Answer::News
            }
            Some(Ok(Brought::Page)) => Answer::News,
            Some(Ok(Brought::Nothing)) | None => Answer::Old,
            Some(Err(WrongPart)) => {
                asked.into_iter().for_each(|asked| self.give_back(asked));
                Answer::Lie
            }
        }
    }

    fn on_digests(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        first: InstanceId,
        digests: Vec<Digest>,
    ) -> Answer {
        let Phase::Digests(gap) = &self.transfer.phase else { return Answer::Old };
        let gap = *gap;
        let is_all = digests.len() as u64 == gap.last.0.saturating_sub(gap.from.0).saturating_add(1);
        if first != gap.from || !is_all {
            // An answer to an earlier question; whoever sends nothing else is late.
            return Answer::Old;
        }
        let wanted = self.digests_wanted(&gap);
        self.transfer.donors.close(&wanted, from, now, 1);
        if !leads(&gap.base, &digests, &gap.chain) {
            return Answer::Lie;
        }
        self.transfer.phase = Phase::Log(LogFetch::new(gap.from, digests));
        self.transfer.begin(now);
        Answer::News
    }

    pub(super) fn digests_wanted(&self, gap: &Gap) -> Wanted {
        Wanted::Digests { view: self.view.id(), from: gap.from, last: gap.last }
    }

    fn on_batches(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        batches: Vec<RecordedBatch>,
        actions: &mut Vec<Action>,
    ) -> Answer {
        let Phase::Log(fetch) = &mut self.transfer.phase else { return Answer::Old };
        let Some(first) = batches.first().map(|recorded| recorded.batch.instance) else { return Answer::Lie };
        let donors = &self.transfer.donors;
        let asked = donors.open().find_map(|wanted| match wanted {
            Wanted::Batches { from: begin, last, .. } if *begin == first && donors.is_asked(from, wanted) => {
                Some((*wanted, *last))
            }
            Wanted::Batches { .. }
            | Wanted::Digests { .. }
            | Wanted::Snapshot { .. }
            | Wanted::Page { .. }
            | Wanted::Chunk { .. } => None,
        });
        let given = batches.len() as u64;
        let bytes = batches.iter().map(RecordedBatch::bytes).fold(0, usize::saturating_add);
        let answer = match fetch.put(batches) {
            Ok(true) => Answer::News,
            Ok(false) => Answer::Old,
            Err(_) => Answer::Lie,
        };
        if let Some((wanted, last)) = asked {
            let all = last.0.saturating_sub(first.0).saturating_add(1);
            let parts = if bytes < RANGE_BYTES_MAX { all.checked_div(given).unwrap_or(all) } else { 1 };
            self.transfer.donors.close(&wanted, from, now, parts.max(1));
            // A donor sends as many as fit into one answer.
            fetch.give_back(first, last);
        }
        self.advance(now, actions);
        answer
    }

    fn on_offer(
        &mut self,
        from: ReplicaId,
        certificate: CheckpointCertificate,
        head: ManifestHead,
    ) -> Answer {
        let is_certified = certificate.view == self.view.id() && has_quorum(&certificate, &self.view);
        if !is_certified || SnapshotFetch::new(certificate.clone(), head.clone()).is_none() {
            return Answer::Lie;
        }
        if let Phase::Offers(offers) = &mut self.transfer.phase {
            if certificate.instance > offers.above {
                offers.put(from, certificate, head);
            } else {
                offers.asked.remove(&from);
            }
        }
        Answer::Old
    }
}

/// The question for a part of a snapshot, whatever its root.
fn rootless(wanted: &Wanted) -> Wanted {
    let root = Digest::default();
    match *wanted {
        Wanted::Page { instance, page, .. } => Wanted::Page { instance, root, page },
        Wanted::Chunk { instance, index, .. } => Wanted::Chunk { instance, root, index },
        Wanted::Digests { .. } | Wanted::Batches { .. } | Wanted::Snapshot { .. } => *wanted,
    }
}
