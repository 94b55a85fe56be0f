//! One connection, without its socket: bytes in, requests out, replies of the cluster in, bytes out.
//!
//! The caller's contract: [`Session::take`] until it says `Waiting`. `Reply` and every call of
//! [`Session::on_reply`] put bytes into `out`, which are written before anything else; `Ask` is answered by
//! [`Session::on_reply`], and if that gives a request again, so is this one. One request is open at a time, so
//! the order of replies is the order of commands.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::command::{self, ControlVerb, Entry, Kind};
use super::error::{CommandError, Unanswered, refusal_text};
use super::limits::LOCAL_REPLY_BYTES_MAX;
use super::parser::{Arguments, Parser, ParserLimits, ProtocolError};
use super::plan::{Plan, Slot};
use super::render::{FOREIGN_ANSWER, Rendering, render};
use super::resp::{Protocol, RespWriter};
use super::shared::{ClientRecord, Shared, count};
use super::transaction::{Queue, Watched};
use super::translate::{self, Translation, translate};
use crate::kv::{Answer, Operation, Reply, RequestWriter};

/// What a connection wants after it has looked at its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// More input; or, if [`Session::is_closing`], its end.
    Waiting,
    /// That its bytes are written.
    Reply,
    /// That the cluster is asked this.
    Ask(Bytes),
}

/// Whether a command was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Yes, and the next one may come.
    Yes,
    /// Yes, and it must be answered before the next one comes.
    Last,
    /// No: what was taken before must be answered first.
    No,
}

/// The request that is open.
#[derive(Debug)]
enum Asked {
    /// Operations, and where each begins; those before `done` have been answered.
    Pipeline { request: Bytes, starts: Vec<usize>, done: usize },
    /// A transaction, and what is to be answered if it is executed.
    Transaction(Plan),
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) record: ClientRecord,
    pub(super) is_authenticated: bool,
    pub(super) wrong_passwords: u32,
    pub(super) is_closing: bool,
    parser: Parser,
    /// The operations that have been taken and not asked.
    writer: RequestWriter,
    /// A transaction that has been taken and not asked.
    executing: Option<(Bytes, Plan)>,
    plan: Plan,
    asked: Option<Asked>,
    watched: Watched,
    /// Keys whose versions have been asked for.
    observing: Vec<Box<[u8]>>,
    queue: Option<Queue>,
}

impl Session {
    pub(super) fn new(id: u64, address: SocketAddr, shared: &Shared) -> Self {
        let record = ClientRecord {
            id,
            address,
            connected: Instant::now(),
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
            protocol: Protocol::V2,
        };
        shared.clients().insert(id, record.clone());
        Self {
            record,
            is_authenticated: shared.options().password.is_none(),
            wrong_passwords: 0,
            is_closing: false,
            parser: Parser::default(),
            writer: RequestWriter::default(),
            executing: None,
            plan: Plan::default(),
            asked: None,
            watched: Watched::default(),
            observing: Vec::new(),
            queue: None,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.record.protocol
    }

    /// Whether the input ends inside a command.
    pub(super) fn is_inside_command(&self) -> bool {
        self.parser.is_inside_command()
    }

    /// Takes commands from `input`: as many as one request has room for.
    pub(super) fn take(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, shared: &Shared) -> Turn {
        let mut parser = std::mem::take(&mut self.parser);
        let mut consumed = 0;
        while !self.is_closing && self.plan.ready_bytes() <= LOCAL_REPLY_BYTES_MAX {
            let rest = input.get(consumed..).unwrap_or_default();
            match parser.parse(rest, &self.parser_limits(shared)) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    let taken = self.on_command(&parser.arguments(rest), shared);
                    if taken != Taken::No {
                        consumed += length;
                    }
                    if taken != Taken::Yes {
                        break;
                    }
                }
                Err(error) => self.on_protocol_error(error, shared),
            }
        }
        self.parser = parser;
        input.advance(consumed);
        self.turn(out)
    }

    /// Takes the cluster's reply to what was asked, and asks on if it does not answer everything.
    pub(super) fn on_reply(
        &mut self,
        reply: Result<&[u8], Unanswered>,
        out: &mut Vec<u8>,
        shared: &Shared,
    ) -> Option<Bytes> {
        let asked = self.asked.take()?;
        let decoded = match &reply {
            Err(unanswered) => Err(unanswered.to_string()),
            Ok(bytes) => match Reply::decode(bytes) {
                Ok(Reply::Refused(refusal)) => Err(refusal_text(refusal)),
                Ok(reply) => Ok(reply),
                Err(_) => Err(FOREIGN_ANSWER.to_owned()),
            },
        };
        match (asked, decoded) {
            (Asked::Pipeline { request, starts, done }, Ok(Reply::Pipeline(answers)))
                if !answers.is_empty() =>
            {
                for answer in &answers {
                    self.write_ready(out);
                    self.on_answer(answer, out, shared);
                }
                let done = done + answers.len();
                if let Some(start) = starts.get(done) {
                    let rest = RequestWriter::rest(&request, *start, starts.len() - done);
                    self.asked = Some(Asked::Pipeline { request, starts, done });
                    return Some(rest);
                }
            }
            (Asked::Transaction(plan), Ok(Reply::Committed(answers))) => {
                self.write_ready(out);
                self.write_transaction(plan, &answers, out, shared);
            }
            (Asked::Transaction(_), Ok(Reply::Conflict)) => {
                self.write_ready(out);
                RespWriter::new(out, self.protocol()).nil_array();
            }
            (Asked::Pipeline { .. }, outcome) => {
                let text = outcome.err().unwrap_or_else(|| FOREIGN_ANSWER.to_owned());
                self.write_errors(&text, out);
            }
            (Asked::Transaction(_), outcome) => {
                self.write_ready(out);
                let text = outcome.err().unwrap_or_else(|| FOREIGN_ANSWER.to_owned());
                RespWriter::new(out, self.protocol()).error(&text);
            }
        }
        self.write_ready(out);
        self.plan.rest();
        None
    }

    fn parser_limits(&self, shared: &Shared) -> ParserLimits {
        if self.is_authenticated {
            ParserLimits::authenticated(shared.options().request_bytes_max)
        } else {
            ParserLimits::unauthenticated()
        }
    }

    fn turn(&mut self, out: &mut Vec<u8>) -> Turn {
        if self.writer.count() > 0 {
            let starts = self.writer.starts();
            let request = self.writer.finish();
            self.asked = Some(Asked::Pipeline { request: request.clone(), starts, done: 0 });
            return Turn::Ask(request);
        }
        if let Some((request, plan)) = self.executing.take() {
            self.asked = Some(Asked::Transaction(plan));
            return Turn::Ask(request);
        }
        if self.plan.is_empty() {
            return Turn::Waiting;
        }
        self.write_ready(out);
        self.plan.rest();
        Turn::Reply
    }

    fn on_protocol_error(&mut self, error: ProtocolError, shared: &Shared) {
        count(&shared.counters.protocol_errors);
        self.is_closing = true;
        self.reply(|resp| resp.error(&format!("ERR {error}")));
    }

    fn on_command(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Taken {
        if arguments.is_empty() {
            return Taken::Yes;
        }
        let taken = match self.checked(arguments) {
            Ok(entry) => self.on_entry(entry, arguments, shared),
            Err(error) => Err(error),
        };
        let taken = match taken {
            // Its error is for the transaction to tell, in the place of its answer.
            Err(error) if self.queue.is_some() && error.is_of_execution() => {
                self.answer(|resp| resp.error(&error.to_string()))
            }
            taken => taken,
        };
        let taken = taken.unwrap_or_else(|error| {
            self.refuse(&error, shared);
            Taken::Yes
        });
        if taken != Taken::No {
            count(&shared.counters.commands);
        }
        taken
    }

    /// What is called, if it may be called so by this connection.
    fn checked(&mut self, arguments: &Arguments<'_>) -> Result<&'static Entry, CommandError> {
        let refused = match command::find(arguments.at(0)) {
            None => CommandError::unknown(arguments),
            Some(entry) if !entry.fits(arguments) => CommandError::Arity(entry.name),
            Some(entry) if !self.is_authenticated && !entry.needs_no_password() => {
                CommandError::NotAuthenticated
            }
            Some(entry) => return Ok(entry),
        };
        self.break_transaction();
        Err(refused)
    }

    fn on_entry(
        &mut self,
        entry: &'static Entry,
        arguments: &Arguments<'_>,
        shared: &Shared,
    ) -> Result<Taken, CommandError> {
        match entry.kind {
            Kind::Control(verb) => self.on_control(verb, arguments, shared),
            Kind::Front(verb) => self.on_front_command(verb, arguments, shared),
            Kind::Store(verb) => match translate(verb, arguments) {
                Err(error) => Err(error),
                Ok(Translation::Ask(operation, rendering)) => self.ask(&operation, rendering, shared),
                Ok(Translation::EmptyPage) => self.answer(|resp| {
                    resp.array(2);
                    resp.bulk(b"0");
                    resp.array(0);
                }),
                Ok(Translation::Scan { cursor: 0, scan }) => {
                    self.ask(&Operation::Scan(scan), Rendering::Page, shared)
                }
                Ok(Translation::Scan { cursor, mut scan }) => {
                    let after = shared.cursors().find(cursor).map(Box::<[u8]>::from);
                    let after = after.ok_or(CommandError::Cursor)?;
                    scan.after = Some(&after);
                    self.ask(&Operation::Scan(scan), Rendering::Page, shared)
                }
            },
        }
    }

    fn on_control(
        &mut self,
        verb: ControlVerb,
        arguments: &Arguments<'_>,
        shared: &Shared,
    ) -> Result<Taken, CommandError> {
        match verb {
            ControlVerb::Multi if self.queue.is_some() => return Err(CommandError::NestedMulti),
            ControlVerb::Multi => self.queue = Some(Queue::default()),
            ControlVerb::Exec => return self.execute(),
            ControlVerb::Discard => {
                self.queue.take().ok_or(CommandError::DiscardWithoutMulti)?;
                self.watched = Watched::default();
            }
            ControlVerb::Watch => return self.watch(arguments, shared),
            // Inside MULTI it is queued, and at EXEC there is nothing left to unwatch.
            ControlVerb::Unwatch if self.queue.is_some() => return self.answer(|resp| resp.status("OK")),
            ControlVerb::Unwatch => self.watched = Watched::default(),
            ControlVerb::Quit => self.is_closing = true,
            ControlVerb::Reset => return Ok(self.reset(shared)),
        }
        self.reply(|resp| resp.status("OK"));
        Ok(Taken::Yes)
    }

    fn execute(&mut self) -> Result<Taken, CommandError> {
        if self.writer.count() > 0 {
            return Ok(Taken::No);
        }
        let queue = self.queue.take().ok_or(CommandError::ExecWithoutMulti)?;
        let watched = std::mem::take(&mut self.watched);
        if queue.is_broken() {
            return Err(CommandError::TransactionBroken);
        }
        match queue.finish(&watched) {
            (Some(request), plan) => {
                self.executing = Some((request, plan));
                Ok(Taken::Last)
            }
            (None, mut plan) => {
                self.reply(|resp| {
                    resp.array(plan.len());
                    while !plan.is_empty() {
                        resp.raw(plan.take());
                    }
                });
                Ok(Taken::Yes)
            }
        }
    }

    /// The versions must be known before a transaction can depend on them, so nothing is taken after it.
    fn watch(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Result<Taken, CommandError> {
        if self.queue.is_some() {
            return Err(CommandError::WatchInsideMulti);
        }
        let keys = translate::keys(arguments)?;
        self.watched.check(&keys)?;
        let observing = keys.iter().map(|key| Box::from(*key)).collect();
        Ok(match self.ask(&Operation::Observe { keys }, Rendering::Watch, shared)? {
            Taken::No => Taken::No,
            Taken::Yes | Taken::Last => {
                self.observing = observing;
                Taken::Last
            }
        })
    }

    /// Everything as at the beginning of the connection.
    fn reset(&mut self, shared: &Shared) -> Taken {
        if self.writer.count() > 0 {
            return Taken::No;
        }
        self.queue = None;
        self.watched = Watched::default();
        self.is_authenticated = shared.options().password.is_none();
        self.record.protocol = Protocol::V2;
        self.record.name.clear();
        self.publish(shared);
        self.reply(|resp| resp.status("RESET"));
        Taken::Yes
    }

    /// Lets the other connections see what has changed about this one.
    pub(super) fn publish(&self, shared: &Shared) {
        shared.clients().insert(self.record.id, self.record.clone());
    }

    /// Whether operations have been taken whose replies are to be written in the protocol of now.
    pub(super) fn has_operations(&self) -> bool {
        self.writer.count() > 0
    }

    pub(super) fn is_queueing(&self) -> bool {
        self.queue.is_some()
    }

    /// Asks the store, now or at EXEC.
    pub(super) fn ask(
        &mut self,
        operation: &Operation<'_>,
        rendering: Rendering,
        shared: &Shared,
    ) -> Result<Taken, CommandError> {
        let request_bytes_max = shared.options().request_bytes_max;
        if let Some(queue) = &mut self.queue {
            let pushed = queue.push(operation, rendering, &self.watched, request_bytes_max);
            pushed.inspect_err(|_| queue.refuse())?;
            self.reply(|resp| resp.status("QUEUED"));
            return Ok(Taken::Yes);
        }
        if self.writer.push(operation, request_bytes_max) {
            self.plan.ask(rendering);
            Ok(Taken::Yes)
        } else if self.writer.count() > 0 {
            Ok(Taken::No)
        } else {
            Err(CommandError::TooLarge(request_bytes_max))
        }
    }

    /// Answers without the cluster, now or at EXEC.
    pub(super) fn answer(&mut self, write: impl FnOnce(&mut RespWriter<'_>)) -> Result<Taken, CommandError> {
        let protocol = self.protocol();
        let Some(queue) = &mut self.queue else {
            self.plan.reply(protocol, write);
            return Ok(Taken::Yes);
        };
        queue.reply(protocol, write).inspect_err(|_| queue.refuse())?;
        self.reply(|resp| resp.status("QUEUED"));
        Ok(Taken::Yes)
    }

    /// Answers without the cluster, now.
    pub(super) fn reply(&mut self, write: impl FnOnce(&mut RespWriter<'_>)) {
        self.plan.reply(self.protocol(), write);
    }

    /// As in Redis, a command that cannot be queued breaks the transaction that it was meant for.
    pub(super) fn break_transaction(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.refuse();
        }
    }

    fn refuse(&mut self, error: &CommandError, shared: &Shared) {
        count(&shared.counters.commands_refused);
        self.reply(|resp| resp.error(&error.to_string()));
    }

    /// Writes what is ready before the next operation.
    fn write_ready(&mut self, out: &mut Vec<u8>) {
        while let Some(Slot::Ready(_)) = self.plan.first() {
            out.extend_from_slice(self.plan.take());
        }
    }

    fn write_errors(&mut self, text: &str, out: &mut Vec<u8>) {
        self.observing.clear();
        loop {
            self.write_ready(out);
            if self.plan.is_empty() {
                return;
            }
            self.plan.take();
            RespWriter::new(out, self.protocol()).error(text);
        }
    }

    /// Writes the answer to the first operation of the plan.
    fn on_answer(&mut self, answer: &Answer<'_>, out: &mut Vec<u8>, shared: &Shared) {
        let Some(Slot::Operation(rendering)) = self.plan.first() else { return };
        self.plan.take();
        if let (Rendering::Watch, Answer::Versions(versions)) = (rendering, answer) {
            for (key, observed) in self.observing.drain(..).zip(versions) {
                self.watched.add(key, *observed);
            }
        }
        let mut resp = RespWriter::new(out, self.protocol());
        let info = |sections: super::info::Sections, keys| sections.text(shared, keys);
        render(answer, rendering, &mut resp, &mut shared.cursors(), &info);
    }

    /// Writes the answers of a transaction that was executed, with the replies that were queued among them.
    fn write_transaction(&mut self, plan: Plan, answers: &[Answer<'_>], out: &mut Vec<u8>, shared: &Shared) {
        RespWriter::new(out, self.protocol()).array(plan.len());
        // The plan of the connection is empty: the transaction was the last thing that it took.
        self.plan = plan;
        for answer in answers {
            self.write_ready(out);
            self.on_answer(answer, out, shared);
        }
        self.write_ready(out);
        self.write_errors(FOREIGN_ANSWER, out);
    }
}
