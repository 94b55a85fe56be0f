//! The clients of a benchmark: an app inside the client driver's event loop, so that measuring costs no wake-ups.
//!
//! Closed loop: each session keeps its calls in flight. Open loop: operations begin when the rate says, and their
//! latency counts from then, whether a session was free or not; so a stall is not hidden by the calls that it
//! kept from being made.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use regency::Bytes;
use regency::client::ClientError;
use regency::client::driver::{App, Completion, Io};
use regency::protocol::ids::Sequence;
use regency::protocol::time::Timestamp;
use serde::Serialize;

use super::latency::Latency;
use super::workload::{Step, Workload};
use crate::process;

/// How long all sessions may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// What one number of the timeline covers.
const TIMELINE_STEP: Duration = Duration::from_millis(100);
/// So many failures without a success end the benchmark.
const FAILURES_MAX: u64 = 1000;

/// How the clients behave.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Calls that each session keeps in flight, or may have in flight.
    pub(super) in_flight: usize,
    /// Operations a second, of all sessions; `None`: as many as there are answers.
    pub(super) rate: Option<f64>,
    /// Time before counting starts.
    pub(super) warmup: Duration,
    /// Time that is counted.
    pub(super) duration: Duration,
    /// How long a call may take.
    pub(super) deadline: Duration,
}

/// What the benchmark has come to; for whoever watches the replicas meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Counting begins.
    Begin,
    /// Counting has ended.
    End,
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Counted {
    /// Latencies of what was completed while counting.
    pub(super) latency: Latency,
    /// Failed calls, and results that the operation cannot have, from the start.
    pub(super) errors: u64,
    /// The last of those failures.
    pub(super) last_error: Option<String>,
    /// How long was counted.
    pub(super) elapsed: Duration,
    /// Completions in each step of the counted time.
    pub(super) timeline: Vec<u64>,
    /// The longest time without a completion.
    pub(super) longest_gap: Duration,
    /// Processor time of this process while counting.
    pub(super) cpu: Duration,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeasureError {
    /// A call cannot succeed.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The record could not be written.
    #[error("the record cannot be written: {0}")]
    Record(#[from] std::io::Error),
    /// Not all sessions could be opened.
    #[error("{open} of {all} sessions are open after {} s", OPEN_TIMEOUT.as_secs())]
    Opening {
        /// How many are open.
        open: usize,
        /// How many there should be.
        all: usize,
    },
    /// Every operation fails.
    #[error("all of {FAILURES_MAX} operations failed, the last one: {0}")]
    Failing(String),
}

/// A call under way.
struct Call {
    sequence: Sequence,
    step: Step,
    /// When the operation began, or should have begun.
    began: Timestamp,
}

enum Phase {
    Opening { until: Timestamp },
    WarmingUp,
    Counting,
    Over,
}

/// The app.
pub(super) struct Measure {
    plan: Plan,
    workload: Workload,
    record: Option<BufWriter<File>>,
    marks: SyncSender<Mark>,
    phase: Phase,
    calls: Vec<Vec<Call>>,
    is_open: Vec<bool>,
    open: usize,
    count_from: Timestamp,
    count_until: Timestamp,
    /// Open loop: operations begun so far.
    begun: u64,
    /// Open loop: when the first one was due.
    rate_from: Timestamp,
    /// Open loop: the session to try first.
    next_session: usize,
    last_completion: Timestamp,
    cpu_before: Duration,
    counted: Counted,
    failure: Option<MeasureError>,
}

#[derive(Serialize)]
struct Recorded<'a> {
    client: usize,
    sequence: u64,
    begin_us: u64,
    end_us: u64,
    operation: &'a str,
    result: &'a str,
}

impl Measure {
    /// Ready to run with this many sessions.
    pub(super) fn new(
        plan: Plan,
        workload: Workload,
        sessions: usize,
        record: Option<File>,
        marks: SyncSender<Mark>,
    ) -> Self {
        let steps = plan.duration.as_nanos().div_ceil(TIMELINE_STEP.as_nanos());
        Self {
            workload,
            record: record.map(BufWriter::new),
            marks,
            phase: Phase::Opening { until: Timestamp::NEVER },
            calls: (0..sessions).map(|_| Vec::with_capacity(plan.in_flight)).collect(),
            is_open: vec![false; sessions],
            open: 0,
            count_from: Timestamp::NEVER,
            count_until: Timestamp::NEVER,
            begun: 0,
            rate_from: Timestamp::NEVER,
            next_session: 0,
            last_completion: Timestamp(0),
            cpu_before: Duration::ZERO,
            counted: Counted {
                latency: Latency::new(),
                errors: 0,
                last_error: None,
                elapsed: Duration::ZERO,
                timeline: vec![0; usize::try_from(steps).unwrap_or(0)],
                longest_gap: Duration::ZERO,
                cpu: Duration::ZERO,
            },
            failure: None,
            plan,
        }
    }

    /// What was counted, once the driver has ended.
    pub(super) fn finish(mut self) -> Result<Counted, MeasureError> {
        if let Some(record) = &mut self.record {
            record.flush()?;
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.counted),
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, failure: impl Into<MeasureError>) {
        self.phase = Phase::Over;
        self.failure.get_or_insert(failure.into());
        // Whoever watches the replicas waits for no more than this.
        let _ = self.marks.try_send(Mark::End);
        io.stop();
    }

    /// Goes on to the next phase if it is time, and begins what is due.
    fn advance(&mut self, io: &mut Io<'_>) {
        let now = io.now();
        match self.phase {
            Phase::Opening { until } if now >= until => {
                let (open, all) = (self.open, self.calls.len());
                return self.fail(io, MeasureError::Opening { open, all });
            }
            Phase::WarmingUp if now >= self.count_from => {
                self.phase = Phase::Counting;
                self.count_from = now;
                self.count_until = now.plus(self.plan.duration);
                self.last_completion = now;
                self.cpu_before = process::own_cpu();
                // Nobody watches any more: the figures are still good.
                let _ = self.marks.send(Mark::Begin);
            }
            Phase::Counting if now >= self.count_until => {
                self.phase = Phase::Over;
                self.counted.cpu = process::own_cpu().saturating_sub(self.cpu_before);
                self.counted.elapsed = now.since(self.count_from);
                self.counted.longest_gap = self.counted.longest_gap.max(now.since(self.last_completion));
                let _ = self.marks.send(Mark::End);
                return io.stop();
            }
            Phase::Opening { .. } | Phase::WarmingUp | Phase::Counting => {}
            Phase::Over => return,
        }
        let due = self.begin_due(io);
        let end_of_phase = match self.phase {
            Phase::Opening { until } => until,
            Phase::WarmingUp => self.count_from,
            Phase::Counting => self.count_until,
            Phase::Over => return,
        };
        io.set_timer(end_of_phase.min(due));
    }

    /// Open loop: begins the operations whose time has come; when the next one is due.
    fn begin_due(&mut self, io: &mut Io<'_>) -> Timestamp {
        let Some(rate) = self.plan.rate else { return Timestamp::NEVER };
        if self.rate_from == Timestamp::NEVER {
            return Timestamp::NEVER;
        }
        loop {
            let due = self.rate_from.plus(Duration::from_secs_f64(self.begun as f64 / rate));
            if due > io.now() {
                return due;
            }
            let sessions = self.calls.len();
            let free = (0..sessions)
                .map(|offset| (self.next_session + offset) % sessions)
                .find(|session| self.calls[*session].len() < self.plan.in_flight);
            // All are busy: it begins late, with the completion that makes room, and counts from its due time.
            let Some(session) = free else { return Timestamp::NEVER };
            self.next_session = session + 1;
            self.begun += 1;
            self.begin(io, session, due);
        }
    }

    /// Begins the next operation of a session.
    fn begin(&mut self, io: &mut Io<'_>, session: usize, began: Timestamp) {
        let step = self.workload.next();
        self.call(io, session, step, began);
    }

    fn call(&mut self, io: &mut Io<'_>, session: usize, step: Step, began: Timestamp) {
        let operation = self.workload.encode(&step);
        match io.submit(session, operation, self.plan.deadline) {
            Ok(sequence) => self.calls[session].push(Call { sequence, step, began }),
            Err(error) => self.fail(io, ClientError::from(error)),
        }
    }

    /// Records what was under way when counting ended: the record has every acknowledged operation.
    fn complete_late(&mut self, now: Timestamp, session: usize, call: &Call, result: Option<&Bytes>) {
        if let Some(result) = result
            && self.workload.follow_up(&call.step).is_none()
        {
            self.complete(now, session, call, result);
        }
    }

    /// Counts the end of an operation.
    fn complete(&mut self, now: Timestamp, session: usize, call: &Call, result: &Bytes) {
        let Some(said) = self.workload.check(&call.step, result) else {
            return self.count_error(format!("{}: a result of the wrong kind", call.step.describe()));
        };
        if let Some(record) = &mut self.record {
            let recorded = Recorded {
                client: session,
                sequence: call.sequence.0,
                begin_us: call.began.0,
                end_us: now.0,
                operation: &call.step.describe(),
                result: &said,
            };
            let written = serde_json::to_writer(&mut *record, &recorded).map_err(std::io::Error::from);
            if let Err(error) = written.and_then(|()| record.write_all(b"\n")) {
                self.failure.get_or_insert(error.into());
            }
        }
        if !matches!(self.phase, Phase::Counting) {
            return;
        }
        self.counted.latency.record(now.since(call.began));
        self.counted.longest_gap = self.counted.longest_gap.max(now.since(self.last_completion));
        self.last_completion = now;
        let step = now.since(self.count_from).as_nanos() / TIMELINE_STEP.as_nanos();
        if let Some(count) = usize::try_from(step).ok().and_then(|step| self.counted.timeline.get_mut(step)) {
            *count += 1;
        }
    }

    fn count_error(&mut self, error: String) {
        self.counted.errors += 1;
        self.counted.last_error = Some(error);
    }

    fn is_futile(&self) -> bool {
        self.counted.errors >= FAILURES_MAX && self.counted.latency.count() == 0
    }
}

impl App for Measure {
    fn on_start(&mut self, io: &mut Io<'_>) {
        let until = io.now().plus(OPEN_TIMEOUT);
        self.phase = Phase::Opening { until };
        io.set_timer(until);
    }

    fn on_ready(&mut self, io: &mut Io<'_>, session: usize) {
        if std::mem::replace(&mut self.is_open[session], true) {
            return;
        }
        self.open += 1;
        let now = io.now();
        if self.plan.rate.is_none() {
            for _ in 0..self.plan.in_flight {
                self.begin(io, session, now);
            }
        }
        if self.open == self.calls.len() && matches!(self.phase, Phase::Opening { .. }) {
            self.phase = Phase::WarmingUp;
            self.count_from = now.plus(self.plan.warmup);
            self.rate_from = now;
            self.advance(io);
        }
    }

    fn on_completed(&mut self, io: &mut Io<'_>, completion: Completion) {
        let Completion { session, sequence, outcome, .. } = completion;
        let calls = &mut self.calls[session];
        let Some(position) = calls.iter().position(|call| call.sequence == sequence) else { return };
        let call = calls.swap_remove(position);
        let now = io.now();
        if matches!(self.phase, Phase::Over) {
            return self.complete_late(now, session, &call, outcome.as_ref().ok());
        }
        match &outcome {
            Ok(result) => match self.workload.follow_up(&call.step) {
                Some(step) => return self.call(io, session, step, call.began),
                None => self.complete(now, session, &call, result),
            },
            Err(error) => self.count_error(error.to_string()),
        }
        if self.failure.is_some() {
            return io.stop();
        }
        if self.is_futile() {
            let last = self.counted.last_error.clone().unwrap_or_default();
            return self.fail(io, MeasureError::Failing(last));
        }
        if self.plan.rate.is_none() {
            self.begin(io, session, now);
        }
        if self.plan.rate.is_some() || now >= self.count_until.min(self.count_from) {
            self.advance(io);
        }
    }

    fn on_hopeless(&mut self, io: &mut Io<'_>, error: &ClientError) {
        self.fail(io, error.clone());
    }

    fn on_timer(&mut self, io: &mut Io<'_>) {
        self.advance(io);
    }
}
