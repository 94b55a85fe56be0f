//! The authenticity walk: which requests their clients really sent, where nothing is signed [REQ-3].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Replica, broadcast, report, requests, send};
use crate::action::{Action, Misbehaviour, Origin, Reason};
use crate::ids::{ClientId, Digest, InstanceId, ReplicaId};
use crate::limits::{ANNOUNCE_MAX, FORWARD_MAX};
use crate::message::{Body, Message, Request, RequestKind};
use crate::mutants::{Mutant, is_active};
use crate::ordering::candidate::Source;
use crate::ordering::instance::Proposal;
use crate::requests::Hold;
use crate::sessions::Known;
use crate::time::Timestamp;
use crate::view::{Clients, RequestAuth};

impl Replica {
    /// Whether requests are authenticated by the channel that they came on.
    fn has_channel_auth(&self) -> bool {
        self.view.request_auth() == RequestAuth::Channel
    }

    /// Whether a pending request counts as *oldest* and for *progress* [STOP-1, REQ-3].
    pub(super) fn counts(&self, request: &Digest) -> bool {
        !self.has_channel_auth() || self.announcements.announced(request) >= self.view.quorum()
    }

    /// Whether so many members announced a request that one of them is correct.
    pub(super) fn is_vouched(&self, request: &Digest) -> bool {
        self.has_channel_auth() && self.announcements.announced(request) >= self.view.weak()
    }

    /// What keeps an authentic request from being proposed; has it announced if others must hear of it.
    pub(super) fn announcement_hold(&mut self, request: &Request) -> Hold {
        if !self.has_channel_auth() {
            return Hold::None;
        }
        let digest = request.digest();
        if !self.must_be_announced(&request.client()) {
            // What others said came before the request itself.
            if self.announcements.announced(&digest) > 0 || self.announcements.lacked(&digest) > 0 {
                self.announce(digest);
            }
            return Hold::None;
        }
        self.announce(digest);
        if self.counts(&request.digest()) { Hold::None } else { Hold::Unannounced }
    }

    /// A request whose session has opened: it may be proposed, or waits for announcements.
    pub(super) fn queue_or_hold(&mut self, request: &Request) {
        match self.announcement_hold(request) {
            Hold::None => self.requests.queue(&request.digest()),
            hold @ (Hold::Early | Hold::Unannounced) => self.requests.set_hold(&request.digest(), hold),
        }
    }

    /// Whether a client's requests are proposed only after a quorum has announced them.
    fn must_be_announced(&self, client: &ClientId) -> bool {
        matches!(self.view.clients(), Clients::Open) || self.announcements.is_suspect(client)
    }

    /// Announces, once, a request that is authentic here.
    fn announce(&mut self, request: Digest) {
        if self.announcements.announce(self.me, request, &self.view, true) {
            self.announcements.queue(request);
        }
    }

    /// A request was forwarded to all, which announces it.
    pub(super) fn note_own_announcement(&mut self, request: Digest) {
        if self.has_channel_auth() {
            self.announcements.announce(self.me, request, &self.view, true);
            self.on_announced(request);
        }
    }

    /// Sends the announcements that have gathered.
    pub(super) fn announce_outgoing(&mut self, actions: &mut Vec<Action>) {
        let outgoing = self.announcements.take_outgoing();
        for digests in outgoing.chunks(ANNOUNCE_MAX) {
            broadcast(Message::Announce(digests.to_vec()), actions);
        }
    }

    /// Announces again what has been pending for a while: an announcement may have been lost [LINK-1].
    pub(super) fn announce_again(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.announcements.len() == 0 {
            return;
        }
        if self.announcements.is_due_for_pruning() {
            let (requests, window) = (&self.requests, &self.window);
            let is_open = |request: &Digest| requests.contains(request) || window.wants(request);
            self.announcements.prune(self.me, &self.view, is_open);
        }
        let since = now.before(self.settings.status_period);
        let mut requests = self.requests.pending_since(since);
        requests.retain(|request| self.announcements.has_announced(self.me, request, &self.view));
        requests.truncate(ANNOUNCE_MAX);
        if !requests.is_empty() {
            broadcast(Message::Announce(requests), actions);
        }
    }

    pub(super) fn on_announce(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        announced: Vec<Digest>,
        actions: &mut Vec<Action>,
    ) {
        if !self.has_channel_auth() {
            return report(from, Reason::UnexpectedAnnounce, actions);
        }
        if self.links.may_vouch(from, self.log.prefix(), now, self.settings.status_period) {
            self.announce_executed(from, &announced, actions);
        }
        for request in announced {
            self.take_announcement(now, from, request, actions);
        }
    }

    /// Announces to a peer that is behind what was executed here and is not certified yet: it has left the pool, but
    /// the peer may need just this announcement to ask for another leader.
    fn announce_executed(&self, peer: ReplicaId, announced: &[Digest], actions: &mut Vec<Action>) {
        let mut unknown: BTreeSet<&Digest> =
            announced.iter().filter(|request| !self.requests.contains(request)).collect();
        let mut executed = Vec::new();
        let mut instance = self.chain.certified().next();
        while instance <= self.log.prefix() && !unknown.is_empty() {
            let batch = self.log.get(instance).map(|decided| &decided.batch);
            let requests = batch.into_iter().flat_map(|batch| &batch.requests);
            executed.extend(requests.filter(|request| unknown.remove(request)));
            instance = instance.next();
        }
        if !executed.is_empty() {
            send(peer, Message::Announce(executed), actions);
        }
    }

    fn take_announcement(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        request: Digest,
        actions: &mut Vec<Action>,
    ) {
        if !self.announcements.announce(from, request, &self.view, false) {
            return;
        }
        // [REQ-3] Who sees an announcement of what is authentic here announces it too.
        if self.is_authentic_here(&request) {
            self.announce(request);
        } else if self.is_vouched(&request) {
            self.believe(now, request, actions);
        }
        self.on_announced(request);
    }

    /// A request has one more announcement: it may be enough to be proposed.
    fn on_announced(&mut self, request: Digest) {
        if self.counts(&request) {
            self.requests.release(&request);
        }
    }

    fn is_authentic_here(&self, request: &Digest) -> bool {
        self.requests.contains(request)
    }

    /// Takes a request as authentic because somebody correct does.
    fn believe(&mut self, now: Timestamp, request: Digest, actions: &mut Vec<Action>) {
        let Some(request) = self.window.unproven(&request).or_else(|| self.announcements.kept(&request))
        else {
            return;
        };
        let body = Body { request, proof: None };
        let filled = self.window.fill(&body, Source::Proven);
        self.take_forwarded(now, &body);
        self.announce(body.request.digest());
        self.on_filled(now, &filled, actions);
    }

    /// Tells all which requests of a proposal lack proof here.
    pub(super) fn tell_lack(
        &mut self,
        now: Timestamp,
        id: InstanceId,
        digest: Digest,
        actions: &mut Vec<Action>,
    ) {
        if !self.has_channel_auth() {
            return;
        }
        let candidate = self.window.get(id).and_then(|open| open.candidates.get(&digest));
        let lacked: Vec<Digest> = candidate
            .into_iter()
            .flat_map(|candidate| candidate.open())
            .map(|(request, _)| request)
            .collect();
        for request in &lacked {
            if self.announcements.lack(self.me, *request, &self.view, true) {
                self.on_lacked(now, *request, actions);
            }
        }
        for requests in lacked.chunks(ANNOUNCE_MAX) {
            broadcast(Message::Lack(requests.to_vec()), actions);
        }
    }

    pub(super) fn on_lack(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        lacked: Vec<Digest>,
        actions: &mut Vec<Action>,
    ) {
        if !self.has_channel_auth() {
            return report(from, Reason::UnexpectedAnnounce, actions);
        }
        if !self.links.may_answer(from) {
            return report(from, Reason::FetchTooMuch, actions);
        }
        for request in lacked {
            if self.announcements.lack(from, request, &self.view, false) {
                self.on_lacked(now, request, actions);
            }
            if self.is_authentic_here(&request) {
                // Said once it is known; said again to whoever asks again.
                self.announcements.announce(self.me, request, &self.view, true);
                self.announcements.queue(request);
            }
        }
    }

    /// One more member lacks proof of a request: `f+1` of them make its client suspect.
    pub(super) fn on_lacked(&mut self, now: Timestamp, request: Digest, actions: &mut Vec<Action>) {
        if self.announcements.lacked(&request) < self.view.certifying() || is_active(Mutant::StandingIgnored)
        {
            return;
        }
        let body = self.requests.body(&request).map(|body| body.request);
        let body = body.or_else(|| self.window.unproven(&request));
        let Some(client) = body.map(|request| request.client()) else { return };
        if !self.announcements.is_suspect(&client) {
            actions.push(Action::Report(Misbehaviour {
                by: Origin::Client(client),
                reason: Reason::ClientSuspect,
            }));
            for held in self.requests.hold_back(&client) {
                self.announce(held);
                self.on_announced(held);
            }
        }
        self.announcements.suspect(client, now.plus(self.settings.standing_period));
    }

    /// Clients whose standing is good again need no announcements.
    pub(super) fn clear_suspects(&mut self, now: Timestamp) {
        if matches!(self.view.clients(), Clients::Open) {
            return;
        }
        for client in self.announcements.clear_suspects(now) {
            self.requests.let_go(&client);
        }
    }

    /// As the leader: gives its own term away when too many lack proof of what it proposed, and nobody has it. That
    /// is quicker than waiting for their timers, and costs nobody else's term [STOP-2].
    pub(super) fn yield_to_lacks(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.announcements.len() == 0 || self.leader() != self.me || !self.change.is_live() {
            return;
        }
        let is_stuck = |request: &Digest| {
            self.announcements.lacked(request) >= self.view.certifying()
                && self.announcements.announced(request) < self.view.weak()
        };
        let is_stuck = self.window.iter().any(|(_, instance)| match instance.proposal {
            Proposal::Accepted(digest) if now.since(instance.opened) >= self.settings.status_period => {
                let candidate = instance.candidates.get(&digest);
                candidate.is_some_and(|candidate| candidate.batch().requests.iter().any(is_stuck))
            }
            Proposal::None | Proposal::Early(_) | Proposal::Accepted(_) | Proposal::Invalid(_) => false,
        });
        if is_stuck {
            self.stop(now, self.change.regency.next(), actions);
        }
    }

    pub(super) fn on_forward(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        bodies: Vec<Body>,
        actions: &mut Vec<Action>,
    ) {
        if bodies.len() > FORWARD_MAX || !self.links.may_forward(from, bodies.len()) {
            return report(from, Reason::ForwardTooMuch, actions);
        }
        for body in bodies {
            let request = &body.request;
            let is_valid = requests::check(request, &self.view, &self.settings).is_ok();
            if !is_valid || (!self.has_channel_auth() && body.proof.is_none()) {
                report(from, Reason::BadForward, actions);
                continue;
            }
            if self.has_channel_auth() {
                // [REQ-3] A forward counts as an announcement; its body is kept until it is believed.
                let digest = request.digest();
                self.announcements.announce(from, digest, &self.view, false);
                if self.is_authentic_here(&digest) {
                    self.announce(digest);
                } else if is_of_use(&self.sessions.lookup(request)) {
                    self.announcements.keep(from, request);
                    if self.is_vouched(&digest) {
                        self.believe(now, digest, actions);
                    }
                }
                self.on_announced(digest);
            } else {
                self.take_forwarded(now, &body);
                self.on_authentic(now, &body, actions);
            }
        }
    }

    /// Takes into the pool a request that did not come from its client: nobody waits here for an answer.
    fn take_forwarded(&mut self, now: Timestamp, body: &Body) {
        let request = &body.request;
        let known = self.sessions.lookup(request);
        if !is_of_use(&known) {
            return;
        }
        let is_early = known == Known::NoSession && request.kind() != RequestKind::Open;
        if is_early && request.session().instance() <= self.log.prefix() {
            return;
        }
        // Over a bound the request stays with whoever forwarded it, and its client tries again.
        let body = Body { request: Arc::clone(request), proof: body.proof.clone() };
        let _is_full = self.pool(now, &body, false, is_early).is_err();
    }
}

/// Whether a request may still be executed.
fn is_of_use(known: &Known) -> bool {
    match known {
        Known::New | Known::NoSession => true,
        Known::Executing | Known::Answered(_) | Known::Reused | Known::BelowFloor => false,
    }
}
