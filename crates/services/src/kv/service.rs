//! The store as a service of the cluster.

use std::io::Read;

use bytes::Bytes;
use regency::{Context, RestoreError, Service, Snapshot};

use super::answer::Refusal;
use super::image::{self, StoreSnapshot};
use super::reply::ReplyWriter;
use super::request::Request;
use super::store::{Moment, Store};

/// A [`Store`] that executes encoded [`Request`]s.
///
/// Bytes that are no request are answered by [`Reply::Refused`](super::Reply::Refused).
#[derive(Clone, Debug, Default)]
pub struct KvService {
    store: Store,
}

impl KvService {
    /// The store as of the last executed request.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Service for KvService {
    fn execute(&mut self, context: &Context, operation: &[u8]) -> Bytes {
        let moment = Moment { timestamp: context.timestamp, instance: context.instance };
        Bytes::from(match Request::decode(operation) {
            Ok(request) => self.store.execute(moment, &request),
            Err(error) => ReplyWriter::refused(Refusal::from(error)),
        })
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(StoreSnapshot::of(&self.store))
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        // What is replaced goes first: there is no room for both.
        self.store = Store::default();
        self.store = image::read(source)?;
        Ok(())
    }
}
