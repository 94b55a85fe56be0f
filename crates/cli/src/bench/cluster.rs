//! The benchmark of a running cluster: prepares it, measures, watches the replicas, and reports.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use regency::client::driver::Driver;
use regency::client::{ClientConfig, Connections, Signatures};
use regency::config::{self, CLIENT_DIRECTORY, Cluster, durability_name};
use regency::protocol::view::RequestAuth;
use serde::Serialize;

use super::floor::CpuSeconds;
use super::latency::LatencyMicros;
use super::measure::{Counted, Mark, Measure, MeasureError, Plan};
use super::workload::{Workload, WorkloadName};
use crate::failure::{self, ErrorCode, Failure};
use crate::session::{self, Retry};
use crate::status::Status;

/// How often the replicas' memory is looked at.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// Marks that may wait: there are two.
const MARKS_MAX: usize = 2;

/// What to measure.
#[derive(Clone, Debug)]
pub(super) struct Bench<'a> {
    /// The cluster's directory.
    pub(super) directory: &'a Path,
    /// What the clients ask for.
    pub(super) workload: WorkloadName,
    /// Percent of reads, where the workload has them.
    pub(super) read_percent: u32,
    /// Sessions.
    pub(super) clients: usize,
    /// Bytes of a request.
    pub(super) request_bytes: usize,
    /// Bytes of a reply.
    pub(super) reply_bytes: usize,
    /// Records of a kv workload.
    pub(super) records: u64,
    /// Whether all sessions use the same connections.
    pub(super) is_shared: bool,
    /// Whether a signature covers all requests that leave together.
    pub(super) is_bundled: bool,
    /// Where to write every acknowledged operation.
    pub(super) record: Option<&'a Path>,
    /// How the clients behave.
    pub(super) plan: Plan,
}

/// What came out, for `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    connections: &'static str,
    clients: usize,
    in_flight: usize,
    request_bytes: usize,
    reply_bytes: usize,
    read_percent: u32,
    rate: Option<f64>,
    operations: u64,
    errors: u64,
    seconds: f64,
    throughput: f64,
    latency_us: LatencyMicros,
    longest_gap_ms: f64,
    timeline: Vec<u64>,
    cpu_seconds: CpuSeconds,
    replica_resident_bytes_max: Option<u64>,
    replicas: usize,
    durability: &'static str,
    request_auth: &'static str,
    signatures: Option<&'static str>,
    #[serde(skip)]
    last_error: Option<String>,
}

/// What the replicas used while the clients were counted.
#[derive(Debug, Default)]
struct Watched {
    cpu_seconds: f64,
    resident_bytes_max: Option<u64>,
}

impl Bench<'_> {
    /// Measures.
    pub(super) fn run(&self) -> Result<Report, Failure> {
        let loaded = config::ClientConfig::load(&self.directory.join(CLIENT_DIRECTORY))?;
        let cluster = loaded.cluster.clone();
        session::check_service(self.directory, cluster.service(), self.workload.service())?;
        self.check_limits(&cluster)?;
        let workload = Workload::new(
            self.workload,
            self.read_percent,
            self.request_bytes,
            self.reply_bytes,
            self.records,
        );
        let mut client: ClientConfig = loaded.into();
        client.sessions = self.clients;
        client.connections = if self.is_shared { Connections::Shared } else { Connections::PerSession };
        client.signatures = if self.is_bundled { Signatures::PerBundle } else { Signatures::PerRequest };
        self.prepare(&workload, &client)?;
        let record =
            self.record.map(File::create).transpose().map_err(|error| failure::system("--record", &error))?;
        let (counted, watched) = self.measure(&cluster, &client, workload, record)?;
        Ok(self.report(&cluster, counted, &watched))
    }

    /// What the replicas would refuse is refused here, with the flag to change.
    fn check_limits(&self, cluster: &Cluster) -> Result<(), Failure> {
        let settings = cluster.settings();
        let window = usize::try_from(settings.session_window).unwrap_or(usize::MAX);
        let sessions = settings.sessions_max.min(settings.client_sessions_max);
        let over = |flag: &str, value: usize, limit: usize, key: &str| {
            let cause = format!("{flag} {value} is above the cluster's {key} = {limit}");
            Err(failure::usage(cause, format!("use at most {limit}")))
        };
        if self.plan.in_flight > window {
            return over("--in-flight", self.plan.in_flight, window, "session_window");
        }
        if self.clients > sessions {
            return over("--clients", self.clients, sessions, "client_sessions_max");
        }
        if self.request_bytes > settings.request_bytes_max {
            return over(
                "--request-bytes",
                self.request_bytes,
                settings.request_bytes_max,
                "request_bytes_max",
            );
        }
        if self.reply_bytes > settings.result_bytes_max {
            return over("--reply-bytes", self.reply_bytes, settings.result_bytes_max, "result_bytes_max");
        }
        Ok(())
    }

    /// Writes the records that the workload reads.
    fn prepare(&self, workload: &Workload, client: &ClientConfig) -> Result<(), Failure> {
        let bytes_max = client.settings.request_bytes_max.min(client.settings.batch_bytes_max / 2);
        let requests = workload.preparation(bytes_max);
        if requests.is_empty() {
            return Ok(());
        }
        eprintln!("writing {} records", self.records);
        let mut session = session::Session::connect(&ClientConfig { sessions: 1, ..client.clone() })?;
        requests.into_iter().try_for_each(|request| session.invoke(request, Retry::Safe).map(drop))
    }

    /// Runs the clients on a thread of their own and watches the replicas meanwhile.
    fn measure(
        &self,
        cluster: &Cluster,
        client: &ClientConfig,
        workload: Workload,
        record: Option<File>,
    ) -> Result<(Counted, Watched), Failure> {
        let (sender, marks) = sync_channel(MARKS_MAX);
        let app = Measure::new(self.plan.clone(), workload, self.clients, record, sender);
        let driver = Driver::new(client).map_err(|error| session::failure_of(&error, Retry::Safe))?;
        eprintln!(
            "opening {} sessions, warming up {:?}, counting {:?}",
            self.clients, self.plan.warmup, self.plan.duration
        );
        let outcome = std::thread::scope(|scope| {
            let clients = scope.spawn(move || driver.run(app));
            let watched = watch(cluster, &marks);
            (clients.join(), watched)
        });
        match outcome {
            (Ok(app), watched) => {
                let counted = app.map_err(MeasureError::Client).and_then(Measure::finish);
                Ok((counted.map_err(|error| failure_of(&error))?, watched))
            }
            (Err(panic), _) => std::panic::resume_unwind(panic),
        }
    }

    fn report(&self, cluster: &Cluster, counted: Counted, watched: &Watched) -> Report {
        let operations = counted.latency.count();
        let seconds = counted.elapsed.as_secs_f64();
        let request_auth = cluster.view().request_auth();
        Report {
            workload: self.workload.name(),
            connections: if self.is_shared { "shared" } else { "per-client" },
            clients: self.clients,
            in_flight: self.plan.in_flight,
            request_bytes: self.request_bytes,
            reply_bytes: self.reply_bytes,
            read_percent: self.read_percent,
            rate: self.plan.rate,
            operations,
            errors: counted.errors,
            seconds,
            throughput: operations as f64 / seconds,
            latency_us: counted.latency.micros(),
            longest_gap_ms: counted.longest_gap.as_secs_f64() * 1e3,
            timeline: counted.timeline,
            cpu_seconds: CpuSeconds { replicas: watched.cpu_seconds, client: counted.cpu.as_secs_f64() },
            replica_resident_bytes_max: watched.resident_bytes_max,
            replicas: cluster.view().n(),
            durability: durability_name(cluster.durability()),
            request_auth: match request_auth {
                RequestAuth::Signature => "signature",
                RequestAuth::Channel => "channel",
            },
            signatures: match request_auth {
                RequestAuth::Signature => Some(if self.is_bundled { "bundle" } else { "request" }),
                RequestAuth::Channel => None,
            },
            last_error: counted.last_error,
        }
    }
}

/// Looks at the replicas from the first mark to the second.
fn watch(cluster: &Cluster, marks: &Receiver<Mark>) -> Watched {
    let mut watched = Watched::default();
    let mut cpu_before = None;
    loop {
        let mark = match marks.recv_timeout(WATCH_PERIOD) {
            Ok(mark) => Some(mark),
            Err(RecvTimeoutError::Timeout) if cpu_before.is_none() => continue,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return watched,
        };
        let status = Status::ask(cluster);
        watched.resident_bytes_max = watched.resident_bytes_max.max(status.largest("resident_bytes"));
        match mark {
            Some(Mark::Begin) => cpu_before = Some(status.sum("cpu_seconds")),
            Some(Mark::End) => {
                watched.cpu_seconds = (status.sum("cpu_seconds") - cpu_before.unwrap_or_default()).max(0.0);
                return watched;
            }
            None => {}
        }
    }
}

fn failure_of(error: &MeasureError) -> Failure {
    match error {
        MeasureError::Client(error) => session::failure_of(error, Retry::Safe),
        MeasureError::Record(_) => {
            Failure::new(ErrorCode::Disk, error.to_string(), "check the path and the disk")
        }
        MeasureError::Opening { .. } => Failure::new(
            ErrorCode::NoQuorum,
            error.to_string(),
            "check that the replicas run (`regency status`), and that the sessions of earlier runs leave room \
             (client_sessions_max and session_idle in cluster.toml)",
        ),
        MeasureError::Failing(_) => {
            Failure::new(ErrorCode::Refused, error.to_string(), "see the replicas' logs")
        }
    }
}

impl Report {
    /// For people.
    pub(super) fn table(&self) -> String {
        let latency = &self.latency_us;
        let memory = self
            .replica_resident_bytes_max
            .map_or("unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)));
        let mut text = format!(
            "workload     {}, {} clients x {} in flight, {} connections, {}/{} bytes\n\
             cluster      {} replicas, durability {}, request auth {}{}\n\
             throughput   {:.0} operations/s ({} in {:.1} s, {} errors)\n\
             latency µs   mean {}, p50 {}, p99 {}, p99.9 {}, max {}\n\
             longest gap  {:.1} ms\n\
             processor    replicas {:.1} s, clients {:.1} s\n\
             memory       {memory} in the largest replica",
            self.workload,
            self.clients,
            self.in_flight,
            self.connections,
            self.request_bytes,
            self.reply_bytes,
            self.replicas,
            self.durability,
            self.request_auth,
            self.signatures.map(|name| format!(" (one for each {name})")).unwrap_or_default(),
            self.throughput,
            self.operations,
            self.seconds,
            self.errors,
            latency.mean,
            latency.p50,
            latency.p99,
            latency.p999,
            latency.max,
            self.longest_gap_ms,
            self.cpu_seconds.replicas,
            self.cpu_seconds.client,
        );
        if let Some(error) = &self.last_error {
            text.push_str("\nlast error   ");
            text.push_str(error);
        }
        text
    }
}
