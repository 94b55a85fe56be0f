//! Validity: only what a client sent is executed.

use std::collections::BTreeSet;

use regency_protocol::ids::Digest;
use regency_protocol::message::Request;

use super::Violation;

/// Every request that a client, honest or not, has sent.
#[derive(Default)]
pub(crate) struct Validity(BTreeSet<Digest>);

impl Validity {
    /// A client sends this; says whether it does so for the first time.
    pub(crate) fn on_send(&mut self, request: &Request) -> bool {
        self.0.insert(request.digest())
    }

    /// A correct replica executes this.
    pub(crate) fn on_execute(&self, request: &Request) -> Result<(), Violation> {
        if self.0.contains(&request.digest()) {
            return Ok(());
        }
        Err(Violation::new("validity", format!("{:?} was executed, but no client sent it", request.place())))
    }
}

#[cfg(test)]
mod tests {
    use regency_protocol::ids::{ClientId, Sequence, SessionId};

    use super::*;

    #[test]
    fn what_nobody_sent_must_not_run() {
        let request =
            |payload| Request::ordered(ClientId([1; 32]), SessionId(1), Sequence(1), Sequence(1), payload);
        let mut validity = Validity::default();
        validity.on_send(&request(b"a"));
        assert!(validity.on_execute(&request(b"a")).is_ok());
        assert!(validity.on_execute(&request(b"b")).is_err());
    }
}
