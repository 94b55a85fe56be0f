//! Everything that comes out of the core: effects as data, whose order is meaning.

use std::sync::Arc;

use crate::ids::{ClientId, Digest, InstanceId, LogPosition, Regency, ReplicaId, ViewId};
use crate::message::{Message, Reply, Request, Statement};
use crate::record::Record;
use crate::snapshot::SnapshotHead;
use crate::state_transfer::donation::{Donation, Transfer};
use crate::time::Timestamp;

/// An effect that the shell carries out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send over authenticated channels; what finds no channel is dropped, the core sends again [LINK-1].
    Send {
        /// To whom.
        to: Recipients,
        /// What.
        message: Message,
        /// The record that must be durable before it leaves, and all before it [VOTE-1]; 0: it leaves at once.
        after: LogPosition,
    },
    /// Append to this replica's log; answered by [`Event::Durable`](crate::event::Event::Durable) when it is on disk,
    /// if the durability is [`Durability::Sync`](crate::record::Durability::Sync).
    Append {
        /// Its number: one more than that of the record before.
        position: LogPosition,
        /// What.
        record: Record,
    },
    /// Remove the records below this one from the log, in the background; what is left suffices for a recovery.
    Cut(LogPosition),
    /// This replica's state differs from the one that a quorum signed at this instance [CKPT-2]. It does not serve until
    /// it has that state from others: say so loudly, and let the snapshot of that instance go.
    Diverged(InstanceId),
    /// Read something for another replica, and send it [ST-3].
    Donate {
        /// To whom.
        to: ReplicaId,
        /// What.
        donation: Donation,
    },
    /// Keep something of another replica's state, or take it over [ST-3].
    Transfer(Transfer),
    /// What votes of an earlier life can have been for is past: what is on record from here on is everything. A replica
    /// that lost its votes has none lost any more [RECOVER-2].
    Remembered,
    /// Freeze the service's state as it is after the delivery executed last, write both in the background, and make
    /// it durable; answered by [`Event::Snapshotted`](crate::event::Event::Snapshotted) [CKPT-1].
    Snapshot {
        /// The core's part.
        head: Box<SnapshotHead>,
        /// The record that must be durable first, and all before it: or else a restart would find a state whose
        /// decisions are not on record, and could not give their batches to those that lack them [VOTE-1].
        after: LogPosition,
    },
    /// Sign with this replica's key, off the critical path; answered by [`Event::Signed`](crate::event::Event::Signed).
    Sign(Statement),
    /// Execute; answered by [`Event::Executed`](crate::event::Event::Executed). Deliveries come in the total order.
    Execute(Delivery),
    /// Send to a client over the channel on which its session (for an OPEN: its nonce) was last heard.
    Reply {
        /// The client.
        client: ClientId,
        /// The answer.
        reply: Reply,
    },
    /// Somebody broke a rule: count it, and log it within reason.
    Report(Misbehaviour),
}

/// To which members a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// All other members of the view.
    All,
    /// One of them.
    One(ReplicaId),
}

/// One decided batch on its way to the service: what remains of it after exactly-once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The instance that decided it.
    pub instance: InstanceId,
    /// The view of the instance.
    pub view: ViewId,
    /// The regency in which it was decided here; not equal at all replicas, so nothing for the service's state.
    pub regency: Regency,
    /// Ordered time: equal everywhere, grows with every instance [PROPOSE-4].
    pub timestamp: Timestamp,
    /// The chain at the instance; randomness for the service is derived from it [PROPOSE-4].
    pub chain: Digest,
    /// The operations for the service, in order. Never an OPEN, never one executed before.
    pub operations: Vec<Arc<Request>>,
}

/// Who broke which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misbehaviour {
    /// Who.
    pub by: Origin,
    /// What was wrong.
    pub reason: Reason,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A member of the view.
    Replica(ReplicaId),
    /// A client.
    Client(ClientId),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a message was dropped; each has a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name in metrics and logs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// A message from somebody who is no member.
    NotAMember => "not_a_member",
    /// A message of another view.
    WrongView => "wrong_view",
    /// A vote or proposal of a regency beyond the next one, or a STOP for the first, which nothing precedes.
    WrongRegency => "wrong_regency",
    /// PROPOSE from a replica that does not lead the regency.
    NotTheLeader => "not_the_leader",
    /// An instance beyond the early buffer.
    TooFarAhead => "too_far_ahead",
    /// A second, different PROPOSE for one instance and regency.
    SecondProposal => "second_proposal",
    /// A second, different vote for one instance, epoch and phase.
    SecondVote => "second_vote",
    /// A proposal with more requests or bytes than a batch may have.
    BatchTooLarge => "batch_too_large",
    /// A proposal with two requests of one place, or one digest twice.
    RequestTwice => "request_twice",
    /// A proposal whose timestamp is too far from the own clock.
    TimestampSkewed => "timestamp_skewed",
    /// A proposal that carries a request that is no valid request of this view.
    InvalidRequest => "invalid_request",
    /// A body that nobody asked for, or that a proposal does not name.
    UnexpectedBody => "unexpected_body",
    /// A batch that nobody asked for, or that does not have the digest or bodies asked for.
    UnexpectedBatch => "unexpected_batch",
    /// DECIDED for another digest than the one decided here.
    ConflictingDecision => "conflicting_decision",
    /// A chain signature or certificate for another chain than the own.
    ConflictingChain => "conflicting_chain",
    /// A certificate with too few, unknown or repeated signers.
    BadCertificate => "bad_certificate",
    /// A fetch of more than the limit, or too often.
    FetchTooMuch => "fetch_too_much",
    /// A request of a client that the view does not list.
    UnknownClient => "unknown_client",
    /// A request without the signature that the view wants.
    Unsigned => "unsigned",
    /// A request over the size limit.
    RequestTooLarge => "request_too_large",
    /// A sequence outside the session's window.
    SequenceOutsideWindow => "sequence_outside_window",
    /// A different request under a used sequence.
    SequenceReused => "sequence_reused",
    /// A sequence below the session's floor.
    BelowFloor => "below_floor",
    /// A request for a session that does not exist any more.
    SessionExpired => "session_expired",
    /// A client with more pending than it may have.
    ClientBusy => "client_busy",
    /// A STOPDATA that no correct replica sends, or in another's name.
    BadStopData => "bad_stop_data",
    /// A SYNC that does not begin its regency.
    BadSync => "bad_sync",
    /// A second, different SYNC of one leader.
    SecondSync => "second_sync",
    /// A SYNC whose leader selected otherwise than its statements say.
    WrongSelection => "wrong_selection",
    /// A PROPOSE for an instance that the regency's SYNC has proposed.
    BelowSync => "below_sync",
    /// More forwarded requests than a peer may send.
    ForwardTooMuch => "forward_too_much",
    /// A forwarded request that no correct replica forwards.
    BadForward => "bad_forward",
    /// ANNOUNCE or LACK where requests are signed: there is no use for them.
    UnexpectedAnnounce => "unexpected_announce",
    /// A client whose requests reach some replicas only [REQ-3].
    ClientSuspect => "client_suspect",
    /// A leader that proposes much later than it could.
    SlowLeader => "slow_leader",
    /// A part of a state or log that nobody asked for.
    UnexpectedSupply => "unexpected_supply",
    /// A part of a state or log that is not what a certificate says: its sender is no donor any more.
    BadSupply => "bad_supply",
    /// An OPEN outside its time.
    OpenExpired => "open_expired",
}
