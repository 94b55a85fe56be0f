//! The store as its users' programs see it: one typed asynchronous call for each operation.

use regency::{Bytes, Client, ClientError};
use thiserror::Error;

use super::answer::{Answer, PageEntry, Refusal};
use super::operation::{Operation, Scan};
use super::reply::Reply;
use super::request::RequestWriter;

/// A client of a cluster that runs [`KvService`](super::KvService). Clones share sessions and connections.
///
/// ```no_run
/// use regency::{Client, ClientConfig};
/// use regency_services::kv::KvClient;
///
/// # async fn visit() -> Result<(), Box<dyn std::error::Error>> {
/// let store = KvClient::new(Client::connect(ClientConfig::from_directory("demo")?).await?);
/// store.put(b"greeting", b"hello").await?;
/// assert_eq!(store.get(b"greeting").await?.as_deref(), Some(&b"hello"[..]));
/// println!("visit number {}", store.increment(b"visits", 1).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KvClient {
    client: Client,
}

/// Why an operation has no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KvError {
    /// The cluster did not answer; [`ClientError::may_be_executed`] says what is known.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store refused the operation and changed nothing.
    #[error("{0}")]
    Refused(Refusal),
    /// The reply is none of the store's: the cluster runs another service, or another version of it.
    #[error("the reply is not one of the key-value store: does the cluster run that service?")]
    ForeignReply,
}

/// Some of the keys with a prefix, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys with their values.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Where the next page goes on; `None` if this was the last one.
    pub next: Option<Bytes>,
}

/// What a compare-and-set did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The value was the expected one, and is the new one now.
    Done,
    /// The value is this one, and stays.
    Mismatch(Option<Bytes>),
}

impl KvClient {
    /// Calls through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.call(&Operation::Get { key }, |answer| match answer {
            Answer::Value(value) => Some(Some(copy(&value))),
            Answer::Absent => Some(None),
            other => foreign(&other),
        })
        .await
    }

    /// Sets `key` to `value`, for ever.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.call(&Operation::put(key, value), |answer| (answer == Answer::Done).then_some(())).await
    }

    /// Deletes `key`; says whether it was there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, KvError> {
        self.call(&Operation::Delete { keys: vec![key] }, |answer| match answer {
            Answer::Count(count) => Some(count > 0),
            other => foreign(&other),
        })
        .await
    }

    /// Sets `key` to `new`, or deletes it, if it has the value `expected`, or is absent.
    pub async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Swap, KvError> {
        self.call(&Operation::CompareAndSet { key, expected, new }, |answer| match answer {
            Answer::Done => Some(Swap::Done),
            Answer::Mismatch { current } => Some(Swap::Mismatch(current.map(|value| copy(&value)))),
            other => foreign(&other),
        })
        .await
    }

    /// Adds `by` to the number at `key`, 0 if absent; the sum.
    pub async fn increment(&self, key: &[u8], by: i64) -> Result<i64, KvError> {
        self.call(&Operation::Increment { key, by }, |answer| match answer {
            Answer::Integer(sum) => Some(sum),
            other => foreign(&other),
        })
        .await
    }

    /// The keys that begin with `prefix`, above `after` (where the page before ended), at most `limit`.
    pub async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Page, KvError> {
        let scan = Scan { prefix, after, pattern: None, visits: limit, with_values: true };
        self.call(&Operation::Scan(scan), |answer| match answer {
            Answer::Page { entries, next } => {
                Some(Page { entries: entries.iter().map(entry).collect(), next: next.map(|key| copy(&key)) })
            }
            other => foreign(&other),
        })
        .await
    }

    /// How many keys there are.
    pub async fn count(&self) -> Result<u64, KvError> {
        self.call(&Operation::Count, |answer| match answer {
            Answer::Count(count) => Some(count),
            other => foreign(&other),
        })
        .await
    }

    /// Has one operation executed; `read` says `None` to an answer that the operation does not draw.
    async fn call<T>(
        &self,
        operation: &Operation<'_>,
        read: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T, KvError> {
        let reply = self.client.invoke(RequestWriter::single(operation)).await?;
        let answers = match Reply::decode(&reply) {
            Ok(Reply::Pipeline(answers)) => answers,
            Ok(Reply::Refused(refusal)) => return Err(KvError::Refused(refusal)),
            Ok(Reply::Committed(_) | Reply::Conflict) | Err(_) => return Err(KvError::ForeignReply),
        };
        match answers.into_iter().next() {
            Some(Answer::Refused(refusal)) => Err(KvError::Refused(refusal)),
            Some(answer) => read(answer).ok_or(KvError::ForeignReply),
            None => Err(KvError::ForeignReply),
        }
    }
}

/// No result: the answer is not one that the operation draws.
fn foreign<T>(_answer: &Answer<'_>) -> Option<T> {
    None
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn entry(entry: &PageEntry<'_>) -> (Bytes, Bytes) {
    (copy(&entry.key), copy(entry.value.as_deref().unwrap_or_default()))
}
