//! Sessions stay: where no session idles and there is room for all, no honest client hears that its session ended.

use super::Violation;
use crate::history::{End, History};

/// Checks that no call ended with its session [REQ-6].
pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut calls = history.calls();
    match calls.find(|(_, call)| matches!(call.end, Some((_, End::Expired)))) {
        None => Ok(()),
        Some((payload, call)) => {
            let detail = format!("client {} is told that the session of call {payload:x} ended", call.client);
            Err(Violation::new("sessions", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_session_that_ends_is_noticed() {
        let check = |end| {
            let mut history = History::default();
            let payload = Bytes::from_static(b"a");
            history.begin(payload.clone(), 0, 10, 20);
            history.end(&payload, 15, end);
            check(&history)
        };
        assert!(check(End::Expired).is_err());
        assert!(check(End::GaveUp { sent: true }).is_ok());
    }
}
