//! Liveness: once the network has healed, with a correct leader and enough correct replicas, every call that its
//! client still waits for is answered, and every correct replica that can comes to the same point.

use super::Violation;
use crate::agenda::Moment;
use crate::history::{End, History};

/// How long after the healing a call's deadline must lie for an answer to be owed.
pub(crate) const GRACE: Moment = 5_000_000;

/// Checks that every call that was owed an answer has one.
pub(crate) fn check(history: &History, healed: Moment) -> Result<(), Violation> {
    for (payload, call) in history.calls() {
        let is_owed = call.deadline.saturating_sub(healed.max(call.invoked)) >= GRACE;
        let is_open = matches!(&call.end, None | Some((_, End::GaveUp { .. })));
        if is_owed && is_open {
            let detail = format!("call {payload:x} of client {} has no answer: {:?}", call.client, call.end);
            return Err(Violation::new("liveness", detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_calls_with_time_left_are_owed_an_answer() {
        let payload = Bytes::from_static(b"a");
        let call = |deadline, end: Option<End>| {
            let mut history = History::default();
            history.begin(payload.clone(), 0, 10, deadline);
            if let Some(end) = end {
                history.end(&payload, 20, end);
            }
            check(&history, 100)
        };
        assert!(call(100 + GRACE, None).is_err());
        assert!(call(99 + GRACE, None).is_ok());
        assert!(call(100 + GRACE, Some(End::GaveUp { sent: true })).is_err());
        assert!(call(100 + GRACE, Some(End::Result(Bytes::new()))).is_ok());
    }
}
