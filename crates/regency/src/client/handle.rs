//! The client for asynchronous code: a handle that any task may clone and call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::calls::{Begin, Calls, Command, Shared};
use super::driver::Driver;
use super::{ClientConfig, ClientError};

/// A client of a cluster. Clones share its sessions and connections; the last one to go closes them.
///
/// A thread of its own does the work, so it needs no particular runtime. Calls beyond what the sessions have room for
/// wait; every call ends at its deadline at the latest.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    next_ticket: AtomicU64,
    deadline: Duration,
    /// Closes when the driver's thread ends.
    ended: watch::Receiver<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It comes back only if the driver has ended.
        let _ = self.shared.push(Command::Close);
    }
}

/// A call under way: a future of its result. Dropped, it is given up, though it may still be executed.
pub struct Call {
    state: State,
}

enum State {
    Failed(ClientError),
    Waiting { result: oneshot::Receiver<Result<Bytes, ClientError>>, ticket: u64, inner: Arc<Inner> },
    Ended,
}

impl Client {
    /// Opens sessions with the cluster; done when the first one is open, failed when that cannot be, or not
    /// within the configuration's deadline.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let (client, ready) = Self::start_driver(&config)?;
        ready.await.unwrap_or(Err(ClientError::Closed { sent: false }))?;
        Ok(client)
    }

    /// As [`Client::connect`], for code that has no asynchronous context.
    pub(super) fn connect_blocking(config: &ClientConfig) -> Result<Self, ClientError> {
        let (client, ready) = Self::start_driver(config)?;
        ready.blocking_recv().unwrap_or(Err(ClientError::Closed { sent: false }))?;
        Ok(client)
    }

    /// A client at once, whether replicas can be reached or not: calls wait for a session until their deadlines.
    pub fn start_unconnected(config: &ClientConfig) -> Result<Self, ClientError> {
        Ok(Self::start_driver(config)?.0)
    }

    #[allow(clippy::type_complexity)]
    fn start_driver(
        config: &ClientConfig,
    ) -> Result<(Self, oneshot::Receiver<Result<(), ClientError>>), ClientError> {
        let driver = Driver::new(config)?;
        let shared = Arc::new(Shared::new(driver.waker()));
        let (ready, is_ready) = oneshot::channel();
        let (alive, ended) = watch::channel(());
        let calls = Calls::new(shared.clone(), config.view.weak(), ready, config.deadline);
        let unclaimed = shared.clone();
        thread::Builder::new()
            .name("regency-client".into())
            .spawn(move || {
                match driver.run(calls) {
                    Ok(calls) => calls.close(),
                    // The app is gone and with it every answer's sender: the callers learn that it is closed.
                    Err(_) => drop(unclaimed.close()),
                }
                drop(alive);
            })
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        let inner = Inner { shared, next_ticket: AtomicU64::new(0), deadline: config.deadline, ended };
        Ok((Self { inner: Arc::new(inner) }, is_ready))
    }

    /// Has the cluster execute `operation`; its result has a quorum behind it.
    pub async fn invoke(&self, operation: impl Into<Bytes>) -> Result<Bytes, ClientError> {
        self.start(operation).await
    }

    /// The same within `deadline` from now.
    pub async fn invoke_with_deadline(
        &self,
        operation: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        self.start_with_deadline(operation, deadline).await
    }

    /// Begins a call without waiting for it; it goes on whether the returned future is polled or not.
    pub fn start(&self, operation: impl Into<Bytes>) -> Call {
        self.start_with_deadline(operation, self.inner.deadline)
    }

    /// The same within `deadline` from now.
    pub fn start_with_deadline(&self, operation: impl Into<Bytes>, deadline: Duration) -> Call {
        let operation = operation.into();
        let permit = match self.inner.shared.permit(operation.len()) {
            Ok(permit) => permit,
            Err(error) => return Call { state: State::Failed(error) },
        };
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (answer, result) = oneshot::channel();
        let begin = Begin { ticket, operation, began: Instant::now(), timeout: deadline, answer, permit };
        match self.inner.shared.push(Command::Begin(begin)) {
            Ok(()) => Call { state: State::Waiting { result, ticket, inner: self.inner.clone() } },
            Err(_) => Call { state: State::Failed(ClientError::Closed { sent: false }) },
        }
    }

    /// Ends all sessions and connections, of all clones; calls that have not ended fail.
    pub async fn close(self) {
        let _ = self.inner.shared.push(Command::Close);
        let mut ended = self.inner.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Call {
    /// Gives the call up. It may be executed all the same.
    pub fn cancel(self) {
        drop(self);
    }

    /// Waits for the result on this thread.
    pub(super) fn wait(mut self) -> Result<Bytes, ClientError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Failed(error) => Err(error),
            State::Waiting { result, .. } => {
                result.blocking_recv().unwrap_or(Err(ClientError::Closed { sent: true }))
            }
            State::Ended => Err(ClientError::Closed { sent: true }),
        }
    }
}

impl Future for Call {
    type Output = Result<Bytes, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            State::Failed(error) => Err(error.clone()),
            State::Waiting { result, .. } => match Pin::new(result).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome.unwrap_or(Err(ClientError::Closed { sent: true })),
            },
            // Polled after its end, against the contract of futures.
            State::Ended => Err(ClientError::Closed { sent: true }),
        };
        self.state = State::Ended;
        Poll::Ready(outcome)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let State::Waiting { ticket, inner, .. } = &self.state {
            let _ = inner.shared.push(Command::Cancel(*ticket));
        }
    }
}
