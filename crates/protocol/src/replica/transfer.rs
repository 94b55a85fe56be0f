//! The transfer walk: a replica that misses what nobody sends it by itself asks for it, and gives to those that ask
//! [ST-1 to ST-4].

use std::time::Duration;

use super::{Replica, TransferPhase, TransferStatus, send};
use crate::action::Action;
use crate::ids::{Digest, InstanceId, ReplicaId};
use crate::limits::DIGESTS_MAX;
use crate::message::{CheckpointCertificate, Message, Wanted};
use crate::state_transfer::donation::Transfer;
use crate::state_transfer::requester::{Gap, Offers, Phase};
use crate::state_transfer::snapshot_fetch::SnapshotFetch;
use crate::time::Timestamp;

/// A prefix that stands still for so many `status_period`s below a certificate is not healed by the links.
const STALL_PERIODS: u32 = 8;
/// Offers are waited for during so many; twice as long after each time that brought no state, so often at most.
const OFFER_PERIODS: u32 = 2;
const OFFER_DOUBLINGS_MAX: u32 = 6;
/// What nobody had is asked for again after so many.
const RETRY_PERIODS: u32 = 8;
/// For so long a snapshot is preferred to a log that the few who have it gave too slowly.
const SLOW_LOG_REST: Duration = Duration::from_secs(30);

impl Replica {
    /// The shell says which chunks of the snapshot it has already.
    pub(super) fn on_transfer_begun(&mut self, now: Timestamp, instance: InstanceId, held: &[bool]) {
        if let Some(fetch) = self.snapshot_fetch(instance) {
            fetch.begun(held);
            self.transfer.begin(now);
        }
    }

    pub(super) fn on_chunk_kept(&mut self, now: Timestamp, instance: InstanceId, index: u32) {
        self.transfer.progress = now;
        if let Some(fetch) = self.snapshot_fetch(instance) {
            fetch.kept(index);
        }
    }

    /// Whether something is missing that the links do not heal [ST-1].
    fn has_gap(&mut self, now: Timestamp) -> bool {
        if self.transfer.diverged.is_some() {
            return true;
        }
        let prefix = self.log.prefix();
        if self.certified_place().is_none() {
            self.transfer.stalled = None;
            return false;
        }
        let (of_help, left) = self.helpers();
        if left > 0 && (of_help == 0 || left >= self.view.certifying()) {
            return true;
        }
        match self.transfer.stalled {
            Some((at, since)) if at == prefix && self.links.connected() > 0 => {
                now >= since.plus(self.settings.status_period.saturating_mul(STALL_PERIODS))
            }
            Some(_) | None => {
                self.transfer.stalled = Some((prefix, now));
                false
            }
        }
    }

    /// How many peers with a channel are ahead and keep in memory what is missing here first, and how many do not.
    pub(super) fn helpers(&self) -> (usize, usize) {
        let missing = self.log.prefix().next();
        // What a peer said before it went away helps nobody.
        let ahead = self.links.ahead(self.log.prefix()).filter(|(id, _)| self.links.is_connected(*id));
        ahead.fold((0_usize, 0_usize), |(of_help, left), (_, status)| {
            if status.retained_from <= missing {
                (of_help.saturating_add(1), left)
            } else {
                (of_help, left.saturating_add(1))
            }
        })
    }

    /// Whether a transfer is under way, or may be called for.
    pub(super) fn minds_transfer(&self) -> bool {
        self.transfer.is_active()
            || self.transfer.diverged.is_some()
            || self.transfer.damaged.is_some()
            || self.transfer.stalled.is_some()
            || self.certified_place().is_some()
    }

    /// The highest place above the prefix that a certificate covers.
    fn certified_place(&self) -> Option<(InstanceId, Digest)> {
        let chain = self.chain.certificate().map(|certificate| (certificate.instance, certificate.chain));
        let stable = self.checkpoints.certificate().map(|stable| (stable.instance, stable.chain));
        chain.max(stable).filter(|(instance, _)| *instance > self.log.prefix())
    }

    /// Decides what to fetch, and asks for it.
    pub(super) fn drive_transfer(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.transfer.donors.expire(now);
        for wanted in self.transfer.donors.take_returned() {
            self.give_back(wanted);
        }
        let prefix = self.log.prefix();
        let is_level = self.transfer.diverged.is_none() && self.certified_place().is_none();
        for until in [&mut self.transfer.no_log_until, &mut self.transfer.no_snapshot_until] {
            if *until <= now {
                *until = Timestamp(0);
            }
        }
        let is_done = match &mut self.transfer.phase {
            Phase::Idle => false,
            Phase::Digests(gap) => gap.last <= prefix,
            Phase::Log(fetch) => fetch.advance(prefix),
            Phase::Offers(_) | Phase::Snapshot(_) if self.transfer.is_repair => false,
            Phase::Offers(_) => is_level,
            Phase::Snapshot(fetch) => {
                self.transfer.diverged.is_none() && !fetch.is_installing() && fetch.instance() <= prefix
            }
        };
        if is_done {
            self.transfer.note_success();
            self.set_phase(now, Phase::Idle);
        }
        if is_level && matches!(self.transfer.phase, Phase::Idle) && self.transfer.damaged.is_none() {
            self.transfer.note_success();
        }
        let is_free = matches!(self.transfer.phase, Phase::Idle) || self.transfer.is_repair;
        if is_free && self.has_gap(now) {
            self.leave_phase();
            self.begin_transfer(now);
        }
        self.drive_repair(now);
        self.look_at_pace(now);
        // A phase may lead to the next one at once.
        for _ in 0..3 {
            if !self.ask(now, actions) {
                break;
            }
        }
    }

    /// Gives the phase up if nothing comes, or if few donors bring too little.
    fn look_at_pace(&mut self, now: Timestamp) {
        let is_log = matches!(self.transfer.phase, Phase::Digests(_) | Phase::Log(_));
        let is_full = is_log && self.executor_is_full();
        self.transfer.note_full(now, is_full);
        let is_few = self.has_few_donors();
        self.transfer.note_few(now, is_few);
        let is_slow = is_few && self.transfer.is_too_slow(now);
        if is_slow || self.patience_ends().is_some_and(|end| end <= now) {
            self.transfer.note_given_up();
            self.give_up(now);
        }
        if is_slow && is_log {
            self.transfer.slow_log_until = now.plus(SLOW_LOG_REST);
        }
    }

    /// What is fetched does not come: something else may.
    fn give_up(&mut self, now: Timestamp) {
        if self.transfer.is_repair {
            self.transfer.no_snapshot_until =
                now.plus(self.settings.status_period.saturating_mul(RETRY_PERIODS));
            return self.set_phase(now, Phase::Idle);
        }
        if let Phase::Snapshot(fetch) = &self.transfer.phase {
            let instance = fetch.instance();
            self.transfer.spurn(instance);
        } else {
            self.transfer.no_log_until = now.plus(self.settings.status_period.saturating_mul(RETRY_PERIODS));
        }
        self.set_phase(now, Phase::Idle);
        self.begin_transfer(now);
    }

    /// Until when the phase goes on without anything good.
    fn patience_ends(&self) -> Option<Timestamp> {
        let few = self.has_few_donors();
        Some(self.transfer.progress.plus(self.transfer.patience(few)?))
    }

    /// Whether no more donors are left than may lie.
    fn has_few_donors(&self) -> bool {
        let count = match &self.transfer.phase {
            Phase::Digests(_) | Phase::Log(_) => {
                let trusted = |id: &ReplicaId| !self.transfer.donors.is_banned(*id);
                self.log_donors(self.log.prefix().next()).filter(trusted).count()
            }
            Phase::Idle | Phase::Offers(_) | Phase::Snapshot(_) => self.snapshot_donors().count(),
        };
        count <= self.view.faults()
    }

    /// The peers with a channel that have not said that they lack the snapshot, and have not lied.
    fn snapshot_donors(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.links.ids().filter(|id| {
            self.links.is_connected(*id)
                && !self.transfer.lacking.contains(id)
                && !self.transfer.donors.is_banned(*id)
        })
    }

    fn begin_transfer(&mut self, now: Timestamp) {
        let from = self.log.prefix().next();
        if self.transfer.diverged.is_none()
            && now >= self.transfer.no_log_until.max(self.transfer.slow_log_until)
            && let Some((last, chain)) = self.certified_place()
            && last.0.saturating_sub(from.0) < DIGESTS_MAX as u64
            && self.has_log_donor(now, from)
        {
            let gap = Gap { from, base: self.log.chain(), last, chain };
            return self.set_phase(now, Phase::Digests(gap));
        }
        if now >= self.transfer.no_snapshot_until {
            let above = match self.transfer.diverged {
                Some(stable) => InstanceId(stable.0.saturating_sub(1)),
                None => self.log.prefix(),
            };
            let due = self.offers_due(now);
            self.set_phase(now, Phase::Offers(Offers::new(above, due)));
        }
    }

    /// Until when offers of snapshots are waited for that are asked for now.
    pub(super) fn offers_due(&self, now: Timestamp) -> Timestamp {
        let doublings = self.transfer.offer_rounds.min(OFFER_DOUBLINGS_MAX);
        let periods = OFFER_PERIODS.checked_shl(doublings).unwrap_or(OFFER_PERIODS);
        now.plus(self.settings.status_period.saturating_mul(periods))
    }

    pub(super) fn set_phase(&mut self, now: Timestamp, phase: Phase) {
        self.leave_phase();
        self.transfer.phase = phase;
        self.transfer.begin(now);
    }

    pub(super) fn leave_phase(&mut self) {
        self.transfer.phase = Phase::Idle;
        self.transfer.is_repair = false;
        self.transfer.donors.take_back_all();
        // They belong to the phase before.
        self.transfer.donors.take_returned();
        self.transfer.lacking.clear();
        self.transfer.stalled = None;
    }

    fn has_log_donor(&self, now: Timestamp, from: InstanceId) -> bool {
        self.log_donors(from).any(|id| self.transfer.donors.may_ask(id, now))
    }

    /// The peers with a channel that say that they have the log from `from` on.
    fn log_donors(&self, from: InstanceId) -> impl Iterator<Item = ReplicaId> + '_ {
        self.links
            .ahead(self.log.prefix())
            .filter(move |(id, status)| {
                let least = status.logged_from.min(status.retained_from);
                self.links.is_connected(*id) && least <= from
            })
            .map(|(id, _)| id)
    }

    /// Asks whoever may be asked for what the phase needs; true if the phase has changed.
    fn ask(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        match &self.transfer.phase {
            Phase::Idle => false,
            Phase::Digests(gap) => {
                let gap = *gap;
                self.ask_for_digests(now, &gap, actions)
            }
            Phase::Log(_) => self.ask_for_batches(now, actions),
            Phase::Offers(_) => self.ask_for_offers(now, actions),
            Phase::Snapshot(_) => self.ask_for_parts(now, actions),
        }
    }

    fn put_question(&mut self, now: Timestamp, donor: ReplicaId, wanted: Wanted, actions: &mut Vec<Action>) {
        self.transfer.donors.asked(wanted, donor, now);
        send(donor, Message::Fetch(wanted), actions);
    }

    fn ask_for_digests(&mut self, now: Timestamp, gap: &Gap, actions: &mut Vec<Action>) -> bool {
        let wanted = self.digests_wanted(gap);
        if self.transfer.donors.is_open(&wanted) {
            return false;
        }
        match self.transfer.donors.pick(now, self.log_donors(gap.from)) {
            Some(donor) => {
                self.put_question(now, donor, wanted, actions);
                false
            }
            // Nobody has the log that is missing here: a snapshot must do.
            None => {
                self.give_up(now);
                true
            }
        }
    }

    fn ask_for_batches(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let missing = self.log.prefix().next();
        loop {
            let donor = self.transfer.donors.pick(now, self.log_donors(missing));
            let Some(donor) = donor else { break };
            let Some(wanted) = self.next_question(now, donor) else { return false };
            self.put_question(now, donor, wanted, actions);
        }
        let is_hopeless = self.transfer.donors.open().next().is_none() && !self.executor_is_full();
        if is_hopeless {
            self.give_up(now);
        }
        is_hopeless
    }

    fn ask_for_offers(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let view = self.view.id();
        let peers: Vec<ReplicaId> = self.links.ids().filter(|id| self.links.is_connected(*id)).collect();
        let Phase::Offers(offers) = &mut self.transfer.phase else { return false };
        let wanted = Wanted::Snapshot { view, above: offers.above };
        if !offers.is_asked && now < offers.due {
            for peer in peers {
                if !self.transfer.donors.is_banned(peer) {
                    offers.is_asked = true;
                    offers.asked.insert(peer);
                    self.transfer.donors.expect(peer);
                    send(peer, Message::Fetch(wanted), actions);
                }
            }
        }
        if now < offers.due && (!offers.is_complete() || offers.is_empty()) {
            return false;
        }
        self.transfer.offer_rounds = self.transfer.offer_rounds.saturating_add(1);
        let is_repair = self.transfer.is_repair;
        // What lies ahead of this replica is nothing to be repaired with.
        let is_of_use =
            |certificate: &CheckpointCertificate| !is_repair || certificate.instance <= self.executed.0;
        let best =
            self.transfer.best_offer(self.view.faults()).filter(|(certificate, _)| is_of_use(certificate));
        match best.and_then(|(certificate, head)| SnapshotFetch::new(certificate, head)) {
            Some(fetch) => {
                self.set_phase(now, Phase::Snapshot(Box::new(fetch)));
                self.transfer.is_repair = is_repair;
                true
            }
            None => {
                let retry = self.settings.status_period.saturating_mul(RETRY_PERIODS);
                self.transfer.no_snapshot_until = now.plus(retry);
                self.transfer.no_log_until = now;
                self.set_phase(now, Phase::Idle);
                false
            }
        }
    }

    fn ask_for_parts(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        if let Phase::Snapshot(fetch) = &mut self.transfer.phase
            && let Some(manifest) = fetch.empty_manifest()
        {
            actions.push(Action::Transfer(Transfer::Begin(manifest)));
        }
        loop {
            let donor = self.transfer.donors.pick(now, self.snapshot_donors());
            let Phase::Snapshot(fetch) = &mut self.transfer.phase else { return false };
            let (instance, root) = (fetch.instance(), fetch.root());
            if fetch.is_complete() {
                if self.transfer.is_repair {
                    fetch.install();
                    actions.push(Action::Transfer(Transfer::Replace { instance, root }));
                } else if self.executing.is_empty() {
                    fetch.install();
                    actions.push(Action::Transfer(Transfer::Install { instance, root }));
                }
                return false;
            }
            let Some(donor) = donor else {
                // Whoever may be asked has none of it any more: the target has moved on.
                let is_gone = fetch.has_unasked()
                    && self.transfer.donors.open().next().is_none()
                    && self.snapshot_donors().next().is_none();
                if is_gone {
                    // Who offers what it then lacks is not asked again at once.
                    let pause = self.settings.status_period.saturating_mul(RETRY_PERIODS);
                    if self.transfer.has_just_begun(now, pause) {
                        self.transfer.no_snapshot_until = now.plus(pause);
                    }
                    self.give_up(now);
                }
                return is_gone;
            };
            let Some(wanted) = self.next_question(now, donor) else { return false };
            self.put_question(now, donor, wanted, actions);
        }
    }

    /// What `donor`, which may be asked, is asked: what nobody was asked for yet, or else what another one lets lie.
    fn next_question(&mut self, now: Timestamp, donor: ReplicaId) -> Option<Wanted> {
        if let Some(wanted) = self.unasked() {
            return Some(wanted);
        }
        if !self.transfer.donors.take_over(donor, now) {
            return None;
        }
        for wanted in self.transfer.donors.take_returned() {
            self.give_back(wanted);
        }
        self.unasked()
    }

    /// The next range of the log, or part of a snapshot, that nobody was asked for.
    fn unasked(&mut self) -> Option<Wanted> {
        let view = self.view.id();
        match &mut self.transfer.phase {
            Phase::Log(fetch) => {
                let (from, last) = fetch.next_range()?;
                Some(Wanted::Batches { view, from, last })
            }
            Phase::Snapshot(fetch) => {
                let (instance, root) = (fetch.instance(), fetch.root());
                if let Some(page) = fetch.next_page() {
                    return Some(Wanted::Page { instance, root, page });
                }
                let index = fetch.next_chunk()?;
                Some(Wanted::Chunk { instance, root, index })
            }
            Phase::Idle | Phase::Digests(_) | Phase::Offers(_) => None,
        }
    }

    /// A question was not answered: somebody else is asked.
    pub(super) fn give_back(&mut self, wanted: Wanted) {
        match (&mut self.transfer.phase, wanted) {
            (Phase::Log(fetch), Wanted::Batches { from, last, .. }) => fetch.give_back(from, last),
            (Phase::Snapshot(fetch), Wanted::Page { instance, page, .. }) if instance == fetch.instance() => {
                fetch.give_back_page(page);
            }
            (Phase::Snapshot(fetch), Wanted::Chunk { instance, index, .. })
                if instance == fetch.instance() =>
            {
                fetch.give_back_chunk(index);
            }
            (
                Phase::Idle | Phase::Digests(_) | Phase::Log(_) | Phase::Offers(_) | Phase::Snapshot(_),
                Wanted::Digests { .. }
                | Wanted::Batches { .. }
                | Wanted::Snapshot { .. }
                | Wanted::Page { .. }
                | Wanted::Chunk { .. },
            ) => {}
        }
    }

    /// When the transfer has something to do if nothing else happens.
    pub(super) fn transfer_deadline(&self) -> Option<Timestamp> {
        match &self.transfer.phase {
            Phase::Idle if !self.minds_transfer() => None,
            Phase::Idle => {
                let patience = self.settings.status_period.saturating_mul(STALL_PERIODS);
                let stalled = self.transfer.stalled.map(|(_, since)| since.plus(patience));
                let retries = [self.transfer.no_log_until, self.transfer.no_snapshot_until];
                retries.into_iter().filter(|until| *until > Timestamp(0)).min().or(stalled)
            }
            Phase::Offers(offers) => Some(offers.due),
            Phase::Digests(_) | Phase::Log(_) | Phase::Snapshot(_) => {
                self.transfer.donors.next_deadline().into_iter().chain(self.patience_ends()).min()
            }
        }
    }

    /// Where a transfer stands, for people.
    pub(super) fn transfer_status(&self) -> Option<TransferStatus> {
        let (phase, target, (done, total)) = match &self.transfer.phase {
            Phase::Idle => {
                let diverged = self.transfer.diverged?;
                (TransferPhase::Waiting, diverged, (0, 0))
            }
            Phase::Digests(gap) => (TransferPhase::Digests, gap.last, (0, 0)),
            Phase::Log(fetch) => (TransferPhase::Log, fetch.last(), fetch.progress()),
            Phase::Offers(offers) => {
                let target = self.certified_place().map_or(offers.above, |(instance, _)| instance);
                (TransferPhase::Offers, target, (0, 0))
            }
            Phase::Snapshot(fetch) if fetch.is_installing() => {
                (TransferPhase::Install, fetch.instance(), fetch.progress())
            }
            Phase::Snapshot(fetch) => (TransferPhase::Snapshot, fetch.instance(), fetch.progress()),
        };
        Some(TransferStatus { phase, target, done, total, donors: self.transfer.donors.len() })
    }
}
