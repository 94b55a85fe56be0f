//! The admin port: figures, metrics, health, over HTTP, on a thread of its own.
//!
//! It asks the replica's loop for its figures and waits for them for a bounded time; it takes nothing that changes
//! the replica. Its clients are operators: it is bound to loopback unless the configuration says otherwise.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use regency_protocol::ids::ReplicaId;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};

use crate::failure::{ErrorCode, Failure};
use crate::metrics::Metrics;
use crate::replica::{Readiness, Remote, StatusReport};

/// How long the loop may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that wait for the loop at a time.
const QUESTIONS_MAX: usize = 8;

/// The thread that serves the admin port; it ends when this is dropped.
pub(crate) struct Admin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Asker {
    remote: Remote,
    metrics: Arc<Metrics>,
    questions: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Health {
    alive: bool,
}

impl Admin {
    /// Serves `listener` for the replica that `remote` leads to.
    pub(crate) fn start(
        listener: TcpListener,
        remote: Remote,
        metrics: Arc<Metrics>,
        replica: ReplicaId,
    ) -> Result<Self, Failure> {
        let no_system = |error: std::io::Error| {
            Failure::new(
                ErrorCode::System,
                format!("the admin port cannot be served ({error})"),
                "check the limits of this process",
            )
        };
        listener.set_nonblocking(true).map_err(no_system)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_system)?;
        let asker = Asker { remote, metrics, questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) };
        let router = Router::new()
            .route("/status", get(status))
            .route("/metrics", get(metrics_text))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(asker);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            let server = axum::serve(listener, router);
            // Open connections of operators are cut: nothing that they read is lost by that.
            tokio::select! {
                outcome = server => {
                    if let Err(error) = outcome {
                        tracing::error!("the admin port is not served any more: {error}");
                    }
                }
                _ = stopped => {}
            }
        };
        let thread = thread::Builder::new()
            .name(format!("admin-{replica}"))
            .spawn(move || runtime.block_on(serve))
            .map_err(no_system)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Asker {
    async fn ask(&self) -> Option<StatusReport> {
        let _permit = self.questions.try_acquire().ok()?;
        let (answer, answered) = oneshot::channel();
        if !self.remote.ask_status(Box::new(move |report| drop(answer.send(report)))) {
            return None;
        }
        tokio::time::timeout(ANSWER_TIMEOUT, answered).await.ok()?.ok()
    }
}

fn silent() -> Response {
    let reason = Some("the replica does not answer".to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness { ready: false, reason })).into_response()
}

async fn status(State(asker): State<Asker>) -> Response {
    match asker.ask().await {
        Some(report) => Json(report).into_response(),
        None => silent(),
    }
}

async fn metrics_text(State(asker): State<Asker>) -> Response {
    // Brings the gauges up to date; without an answer they are shown as they were.
    let _ = asker.ask().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], asker.metrics.to_text()).into_response()
}

async fn healthz() -> Json<Health> {
    Json(Health { alive: true })
}

async fn readyz(State(asker): State<Asker>) -> Response {
    match asker.ask().await {
        Some(StatusReport { readiness, .. }) if readiness.ready => Json(readiness).into_response(),
        Some(StatusReport { readiness, .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(readiness)).into_response()
        }
        None => silent(),
    }
}
