//! Linearizability: results are those of the one order, and the order agrees with real time.
//!
//! The order is known, so no search is needed: every result must be that of the call's place, a call that ended
//! before another began must stand before it, and what was refused must not stand there at all.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Violation;
use super::agreement::Executed;
use crate::agenda::Moment;
use crate::history::{Call, End, History};

/// Checks what clients saw against what was executed.
pub(crate) fn check(history: &History, order: &[Executed]) -> Result<(), Violation> {
    let mut results: BTreeMap<Bytes, &Bytes> = BTreeMap::new();
    let mut latest_start: Option<(Moment, Bytes)> = None;
    for executed in order {
        for (operation, result) in executed.delivery.operations.iter().zip(&executed.results) {
            let payload = operation.payload();
            let Some(call) = history.call(&payload) else { continue };
            if results.insert(payload.clone(), result).is_some() {
                return Err(broken(&payload, call, "ran twice"));
            }
            check_order(&payload, call, &mut latest_start)?;
        }
    }
    for (payload, call) in history.calls() {
        let Some((_, end)) = &call.end else { continue };
        match (end, results.get(payload)) {
            (End::Result(_) | End::Executed(_), None) => {
                return Err(broken(payload, call, "was answered, but never executed"));
            }
            (End::Result(seen), Some(result)) if seen != *result => {
                return Err(broken(payload, call, "was answered with another result than its place has"));
            }
            (End::Refused(_) | End::GaveUp { sent: false }, Some(_)) => {
                return Err(broken(payload, call, "was refused, but executed"));
            }
            (End::Result(_) | End::Executed(_), Some(_))
            | (End::Refused(_) | End::GaveUp { sent: false }, None)
            | (End::Expired | End::GaveUp { sent: true }, _) => {}
        }
    }
    Ok(())
}

/// What stands after a call must not have ended before that call began.
fn check_order(
    payload: &Bytes,
    call: &Call,
    latest_start: &mut Option<(Moment, Bytes)>,
) -> Result<(), Violation> {
    if let (Some((ended, End::Result(_))), Some((started, before))) = (&call.end, &latest_start)
        && ended < started
    {
        let detail = format!("ended at {ended}, but stands after {before:x}, begun at {started}");
        return Err(broken(payload, call, &detail));
    }
    if latest_start.as_ref().is_none_or(|(started, _)| call.invoked > *started) {
        *latest_start = Some((call.invoked, payload.clone()));
    }
    Ok(())
}

fn broken(payload: &Bytes, call: &Call, what: &str) -> Violation {
    let client = call.client;
    Violation::new("linearizability", format!("call {payload:x} of client {client} {what}: {:?}", call.end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use regency_protocol::action::Delivery;
    use regency_protocol::ids::{ClientId, Digest, InstanceId, Regency, Sequence, SessionId, ViewId};
    use regency_protocol::message::{Refusal, Request};
    use regency_protocol::time::Timestamp;

    use super::*;

    /// An order of one-byte payloads, each with its own payload as its result.
    fn order(payloads: &[u8]) -> Vec<Executed> {
        let operations = payloads.iter().zip(1..).map(|(payload, sequence)| {
            let (session, sequence, floor) = (SessionId(1), Sequence(sequence), Sequence(1));
            Arc::new(Request::ordered(ClientId([1; 32]), session, sequence, floor, &[*payload]))
        });
        let delivery = Delivery {
            instance: InstanceId(1),
            view: ViewId(0),
            regency: Regency(0),
            timestamp: Timestamp(1),
            chain: Digest([0; 32]),
            operations: operations.collect(),
        };
        vec![Executed { delivery, results: payloads.iter().map(|p| Bytes::from(vec![*p])).collect() }]
    }

    /// Calls by (payload, begun, ended, end).
    fn history(calls: &[(u8, Moment, Moment, End)]) -> History {
        let mut history = History::default();
        for (payload, begun, ended, end) in calls {
            let payload = Bytes::from(vec![*payload]);
            history.begin(payload.clone(), 0, *begun, 1000);
            history.end(&payload, *ended, end.clone());
        }
        history
    }

    fn result(byte: u8) -> End {
        End::Result(Bytes::from(vec![byte]))
    }

    #[test]
    fn overlapping_calls_may_stand_in_any_order() {
        let history = history(&[(1, 0, 10, result(1)), (2, 5, 15, result(2))]);
        assert_eq!(check(&history, &order(&[2, 1])), Ok(()));
        assert_eq!(check(&history, &order(&[1, 2])), Ok(()));
    }

    #[test]
    fn a_call_that_ended_before_another_began_stands_before_it() {
        let history = history(&[(1, 0, 4, result(1)), (2, 5, 15, result(2))]);
        assert_eq!(check(&history, &order(&[1, 2])), Ok(()));
        assert!(check(&history, &order(&[2, 1])).is_err());
    }

    #[test]
    fn a_wrong_a_lost_and_a_repeated_result_are_noticed() {
        assert!(check(&history(&[(1, 0, 4, result(9))]), &order(&[1])).is_err());
        assert!(check(&history(&[(1, 0, 4, result(1))]), &order(&[])).is_err());
        assert!(check(&history(&[(1, 0, 4, result(1))]), &order(&[1, 1])).is_err());
    }

    #[test]
    fn a_refused_call_must_not_run_and_an_unknown_one_may() {
        let refused = || End::Refused(Refusal::TooLarge);
        let unknown = || End::GaveUp { sent: true };
        assert!(check(&history(&[(1, 0, 4, refused())]), &order(&[1])).is_err());
        assert!(check(&history(&[(1, 0, 4, refused())]), &order(&[])).is_ok());
        assert!(check(&history(&[(1, 0, 4, unknown())]), &order(&[1])).is_ok());
        assert!(check(&history(&[(1, 0, 4, unknown())]), &order(&[])).is_ok());
    }
}
