//! No false accusation: a correct replica never does what another correct one would report as an offence.

use regency_protocol::action::{Misbehaviour, Origin, Reason};
use regency_protocol::ids::ReplicaId;

use super::Violation;

/// A correct replica reports something about a correct replica.
pub(crate) fn check(by: ReplicaId, report: &Misbehaviour) -> Result<(), Violation> {
    let Origin::Replica(accused) = report.by else { return Ok(()) };
    let is_offence = match report.reason {
        Reason::NotAMember
        | Reason::WrongView
        | Reason::NotTheLeader
        | Reason::SecondProposal
        | Reason::SecondVote
        | Reason::BatchTooLarge
        | Reason::RequestTwice
        | Reason::InvalidRequest
        | Reason::ConflictingDecision
        | Reason::ConflictingChain
        | Reason::BadCertificate
        | Reason::BadStopData
        | Reason::BadSync
        | Reason::SecondSync
        | Reason::WrongSelection
        | Reason::BelowSync
        | Reason::BadForward
        | Reason::BadSupply
        | Reason::UnexpectedAnnounce => true,
        // What comes late, twice or from far ahead may do so for want of a better network.
        Reason::TooFarAhead
        | Reason::WrongRegency
        | Reason::TimestampSkewed
        | Reason::UnexpectedBody
        | Reason::UnexpectedBatch
        | Reason::UnexpectedSupply
        | Reason::FetchTooMuch
        | Reason::UnknownClient
        | Reason::Unsigned
        | Reason::RequestTooLarge
        | Reason::SequenceOutsideWindow
        | Reason::SequenceReused
        | Reason::BelowFloor
        | Reason::SessionExpired
        | Reason::ClientBusy
        | Reason::OpenExpired
        | Reason::ForwardTooMuch
        | Reason::ClientSuspect
        | Reason::SlowLeader => false,
    };
    if is_offence {
        let detail = format!("replica {by} reports {:?} of correct replica {accused}", report.reason);
        return Err(Violation::new("accusation", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_no_offence_and_a_second_vote_is() {
        let report = |reason| Misbehaviour { by: Origin::Replica(ReplicaId(1)), reason };
        assert!(check(ReplicaId(0), &report(Reason::TooFarAhead)).is_ok());
        assert!(check(ReplicaId(0), &report(Reason::SecondVote)).is_err());
    }
}
