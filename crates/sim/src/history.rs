//! What the honest clients of a schedule asked for and saw.

use std::collections::BTreeMap;

use bytes::Bytes;
use regency_protocol::message::Refusal;

use crate::agenda::Moment;

/// Every call, by its payload: no two calls of a schedule have the same one.
#[derive(Default)]
pub(crate) struct History(BTreeMap<Bytes, Call>);

/// One call of a client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Which client.
    pub(crate) client: usize,
    /// When it was made.
    pub(crate) invoked: Moment,
    /// When the client gives up.
    pub(crate) deadline: Moment,
    /// What came of it, and when.
    pub(crate) end: Option<(Moment, End)>,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Executed, with this result.
    Result(Bytes),
    /// Executed, but the result is not to be had.
    Executed(Refusal),
    /// Not executed, and never will be.
    Refused(Refusal),
    /// Perhaps executed: its session is gone.
    Expired,
    /// Nobody knows at the deadline; perhaps executed if it was sent.
    GaveUp {
        /// Whether it was.
        sent: bool,
    },
}

impl History {
    /// A client makes a call.
    pub(crate) fn begin(&mut self, payload: Bytes, client: usize, invoked: Moment, deadline: Moment) {
        self.0.insert(payload, Call { client, invoked, deadline, end: None });
    }

    /// A call ends; says whether it was open.
    pub(crate) fn end(&mut self, payload: &Bytes, now: Moment, end: End) -> bool {
        match self.0.get_mut(payload) {
            Some(call) if call.end.is_none() => {
                call.end = Some((now, end));
                true
            }
            Some(_) | None => false,
        }
    }

    /// The call with this payload.
    pub(crate) fn call(&self, payload: &Bytes) -> Option<&Call> {
        self.0.get(payload)
    }

    /// All calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&Bytes, &Call)> {
        self.0.iter()
    }
}
