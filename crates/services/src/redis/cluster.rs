//! The cluster behind a front: what it asks of a client, and what a client's errors mean to Redis clients.

use std::future::Future;
use std::time::Duration;

use regency::protocol::message::Refusal;
use regency::{Bytes, Client, ClientError};

use super::error::Unanswered;

/// When to try again after the client had no room for another call.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// The cluster behind a front.
pub trait Cluster: Clone + Send + Sync + 'static {
    /// Has `request` ordered and executed once, and returns the reply that a quorum of replicas gave.
    fn invoke(&self, request: Bytes) -> impl Future<Output = Result<Bytes, Unanswered>> + Send;
}

impl Cluster for Client {
    async fn invoke(&self, request: Bytes) -> Result<Bytes, Unanswered> {
        Client::invoke(self, request).await.map_err(Unanswered::from)
    }
}

impl From<ClientError> for Unanswered {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Refusal::Busy { retry_after }) => Self::Busy { retry_after },
            ClientError::Overloaded(_) => Self::Busy { retry_after: OVERLOAD_PAUSE },
            error if error.may_be_executed() => Self::OutcomeUnknown { cause: error.to_string() },
            error => Self::NotExecuted { cause: error.to_string() },
        }
    }
}
