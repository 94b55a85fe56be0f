//! A membership and the thresholds that follow from it: the one home of every count that decides.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::ids::{ClientId, ClusterId, PublicKey, Regency, ReplicaId, Signature, ViewId};
use crate::mutants::{Mutant, is_active};

/// Which faults a view tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Byzantine: up to `f` replicas may lie.
    Bft,
    /// Crash-only: up to `f` replicas may stop.
    Cft,
}

/// How a request proves that its client sent it [REQ-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestAuth {
    /// By the client's signature, alone or over a bundle.
    Signature,
    /// By the client's own authenticated channel.
    Channel,
}

/// Who may be a client of the view [REQ-1].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Only these keys.
    Listed(BTreeMap<ClientId, PublicKey>),
    /// Any key.
    Open,
}

/// One replica of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identifier, unique in the view.
    pub id: ReplicaId,
    /// `host:port`, a name or an address.
    pub address: String,
    /// The key that its channels and signatures are checked against.
    pub key: PublicKey,
}

/// A numbered membership with everything that must be equal at all replicas.
#[derive(Clone, Debug)]
pub struct View {
    cluster: ClusterId,
    id: ViewId,
    mode: Mode,
    faults: usize,
    members: Vec<Member>,
    clients: Clients,
    request_auth: RequestAuth,
}

/// Why a membership cannot be a view.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ViewError {
    /// Too few members for the faults to tolerate.
    #[error("n = {members} is too small for f = {faults} in {mode:?} mode: at least {needed} are needed")]
    TooFewMembers {
        /// How many there are.
        members: usize,
        /// How many may fail.
        faults: usize,
        /// Of which kind.
        mode: Mode,
        /// How many there must be.
        needed: usize,
    },
    /// More members than the protocol's limit.
    #[error("{0} members are more than the limit of {limit}", limit = crate::limits::MEMBERS_MAX)]
    TooManyMembers(usize),
    /// Two members with one identifier.
    #[error("replica id {0} stands twice")]
    DuplicateId(ReplicaId),
    /// Two members with one address.
    #[error("address {0} stands twice")]
    DuplicateAddress(String),
    /// Two members, or a member and a client, with one key.
    #[error("the key of replica {0} stands twice")]
    DuplicateKey(ReplicaId),
}

/// What a [`View`] is made of.
#[derive(Clone, Debug)]
pub struct ViewParts {
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// The view's number.
    pub id: ViewId,
    /// Which faults it tolerates.
    pub mode: Mode,
    /// How many.
    pub faults: usize,
    /// Its replicas, in any order.
    pub members: Vec<Member>,
    /// Its clients.
    pub clients: Clients,
    /// How requests are authenticated.
    pub request_auth: RequestAuth,
}

impl View {
    /// Checks, [Q-2] and uniqueness; sorts the members by id.
    pub fn new(parts: ViewParts) -> Result<Self, ViewError> {
        let ViewParts { cluster, id, mode, faults, mut members, clients, request_auth } = parts;
        let n = members.len();
        let needed = match mode {
            Mode::Bft => faults.saturating_mul(3).saturating_add(1),
            Mode::Cft => faults.saturating_mul(2).saturating_add(1),
        };
        if n > crate::limits::MEMBERS_MAX {
            return Err(ViewError::TooManyMembers(n));
        }
        if n < needed {
            return Err(ViewError::TooFewMembers { members: n, faults, mode, needed });
        }
        members.sort_by_key(|member| member.id);
        let mut addresses = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let mut previous = None;
        for member in &members {
            if previous == Some(member.id) {
                return Err(ViewError::DuplicateId(member.id));
            }
            previous = Some(member.id);
            if !addresses.insert(member.address.as_str()) {
                return Err(ViewError::DuplicateAddress(member.address.clone()));
            }
            let as_client = crate::digest::client_id(&member.key);
            let listed = matches!(&clients, Clients::Listed(keys) if keys.contains_key(&as_client));
            if listed || !keys.insert(member.key) {
                return Err(ViewError::DuplicateKey(member.id));
            }
        }
        Ok(Self { cluster, id, mode, faults, members, clients, request_auth })
    }

    /// The most faults that `n` members tolerate in `mode`.
    #[must_use]
    pub fn faults_max(mode: Mode, n: usize) -> usize {
        match mode {
            Mode::Bft => n.saturating_sub(1) / 3,
            Mode::Cft => n.saturating_sub(1) / 2,
        }
    }

    /// The cluster's identity.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The view's number.
    #[must_use]
    pub fn id(&self) -> ViewId {
        self.id
    }

    /// Which faults the view tolerates.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// `f`: how many members may be faulty.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.faults
    }

    /// `n`: how many members there are.
    #[must_use]
    pub fn n(&self) -> usize {
        self.members.len()
    }

    /// The members, sorted by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.position(id).and_then(|position| self.members.get(position))
    }

    /// The rank of a member among all, from 0.
    #[must_use]
    pub fn position(&self, id: ReplicaId) -> Option<usize> {
        self.members.binary_search_by_key(&id, |member| member.id).ok()
    }

    /// The clients of the view.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Whether the view lets this client send requests.
    #[must_use]
    pub fn admits(&self, client: &ClientId) -> bool {
        match &self.clients {
            Clients::Open => true,
            Clients::Listed(keys) => keys.contains_key(client),
        }
    }

    /// How requests are authenticated.
    #[must_use]
    pub fn request_auth(&self) -> RequestAuth {
        self.request_auth
    }

    /// How many equal votes decide: any two such sets share a correct replica.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "f < n <= MEMBERS_MAX")]
    pub fn quorum(&self) -> usize {
        let quorum = match self.mode {
            Mode::Bft => (self.n() + self.faults + 1).div_ceil(2),
            Mode::Cft => self.n() / 2 + 1,
        };
        if is_active(Mutant::QuorumTooSmall) {
            return quorum - 1;
        }
        if is_active(Mutant::QuorumTwoFPlusOne) {
            return 2 * self.faults + 1;
        }
        quorum
    }

    /// How many equal statements contain one of a correct replica, for replies and vouching.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "f < n <= MEMBERS_MAX")]
    pub fn weak(&self) -> usize {
        match self.mode {
            Mode::Bft => self.faults + 1,
            Mode::Cft => 1,
        }
    }

    /// How many signatures make a chain certificate, and how many STOPs are joined: `f+1` in both modes.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "f < n <= MEMBERS_MAX")]
    pub fn certifying(&self) -> usize {
        self.faults + 1
    }

    /// Whether the signers of a certificate are at least `needed`, all of them members, by increasing id and so each
    /// once. Their signatures are the shell's business.
    pub(crate) fn has_signers(&self, signers: &[(ReplicaId, Signature)], needed: usize) -> bool {
        signers.len() >= needed
            && signers.iter().all(|(signer, _)| self.member(*signer).is_some())
            && signers.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b))
    }

    /// `members[(view + regency) mod n]`.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "rank < n, and n is at least 1"
    )]
    pub fn leader_of(&self, regency: Regency) -> ReplicaId {
        let n = self.members.len() as u128;
        let rank = (u128::from(self.id.0) + u128::from(regency.0)) % n;
        self.members[usize::try_from(rank).unwrap_or(0)].id
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn view(mode: Mode, n: u16, faults: usize) -> Result<View, ViewError> {
        let members = (0..n)
            .map(|id| Member {
                id: ReplicaId(id),
                address: format!("host-{id}:7000"),
                key: PublicKey([u8::try_from(id).unwrap() + 1; 32]),
            })
            .collect();
        View::new(ViewParts {
            cluster: ClusterId([7; 32]),
            id: ViewId(0),
            mode,
            faults,
            members,
            clients: Clients::Open,
            request_auth: RequestAuth::Signature,
        })
    }

    #[test]
    fn quorums_are_those_of_the_rule() {
        let counts: Vec<_> = [(4, 1), (5, 1), (6, 1), (7, 2), (10, 3), (13, 4)]
            .map(|(n, f)| view(Mode::Bft, n, f).unwrap())
            .iter()
            .map(|view| (view.n(), view.quorum(), view.weak()))
            .collect();
        assert_eq!(counts, [(4, 3, 2), (5, 4, 2), (6, 4, 2), (7, 5, 3), (10, 7, 4), (13, 9, 5)]);
    }

    #[test]
    fn any_two_quorums_share_a_correct_replica() {
        for n in 1..=31_u16 {
            let n_size = usize::from(n);
            for faults in 0..=View::faults_max(Mode::Bft, n_size) {
                let view = view(Mode::Bft, n, faults).unwrap();
                assert!(2 * view.quorum() > n_size + faults);
                assert!(view.quorum() <= n_size - faults, "f silent replicas must not block");
            }
            for faults in 0..=View::faults_max(Mode::Cft, n_size) {
                let view = view(Mode::Cft, n, faults).unwrap();
                assert!(2 * view.quorum() > n_size);
                assert!(view.quorum() <= n_size - faults);
            }
        }
    }

    #[test]
    fn too_few_members_are_refused() {
        let refused = view(Mode::Bft, 3, 1).unwrap_err();
        assert_eq!(refused, ViewError::TooFewMembers { members: 3, faults: 1, mode: Mode::Bft, needed: 4 });
        assert!(view(Mode::Cft, 3, 1).is_ok());
    }

    #[test]
    fn the_leader_rotates_with_the_regency() {
        let view = view(Mode::Bft, 4, 1).unwrap();
        let leaders: Vec<_> = (0..5).map(|r| view.leader_of(Regency(r)).0).collect();
        assert_eq!(leaders, [0, 1, 2, 3, 0]);
        assert_eq!(view.leader_of(Regency(u64::MAX)).0, 3);
    }
}
