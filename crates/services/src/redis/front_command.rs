//! The commands that the front answers itself: about the connection, about the commands, about the front.

use super::command::{Entry, FrontVerb, Kind, TABLE, find};
use super::error::{CommandError, shown};
use super::info::{REDIS_VERSION, Sections};
use super::limits::{NAME_BYTES_MAX, WRONG_PASSWORDS_MAX};
use super::parser::Arguments;
use super::render::Rendering;
use super::resp::{Protocol, RespWriter};
use super::session::{Session, Taken};
use super::shared::{ClientRecord, Shared, count};
use crate::kv::limits::VALUE_BYTES_MAX;
use crate::kv::{Operation, Pattern, parse_integer};

type Outcome = Result<Taken, CommandError>;

impl Session {
    pub(super) fn on_front_command(
        &mut self,
        verb: FrontVerb,
        arguments: &Arguments<'_>,
        shared: &Shared,
    ) -> Outcome {
        match verb {
            FrontVerb::Auth => self.on_auth(arguments, shared),
            FrontVerb::Client => self.on_client(arguments, shared),
            FrontVerb::Command => self.on_list_commands(arguments),
            FrontVerb::Config => self.on_config(arguments, shared),
            FrontVerb::Echo => self.answer(|resp| resp.bulk(arguments.at(1))),
            FrontVerb::Hello => self.on_hello(arguments, shared),
            FrontVerb::Info => {
                let sections = Sections::of(arguments);
                if sections.need_keys() {
                    return self.ask(&Operation::Count, Rendering::Info(sections), shared);
                }
                self.answer(|resp| resp.text(&sections.text(shared, 0)))
            }
            FrontVerb::Ping => match arguments.len() {
                1 => self.answer(|resp| resp.status("PONG")),
                2 => self.answer(|resp| resp.bulk(arguments.at(1))),
                _ => Err(CommandError::Arity("ping")),
            },
            FrontVerb::Select => match parse_integer(arguments.at(1)) {
                Some(0) => self.answer(|resp| resp.status("OK")),
                Some(_) => Err(CommandError::Database),
                None => Err(CommandError::NotAnInteger),
            },
        }
    }

    /// `AUTH [username] password`.
    fn on_auth(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Outcome {
        if self.is_queueing() {
            self.break_transaction();
            return Err(CommandError::NotInTransaction);
        }
        match arguments.len() {
            2 => self.authenticate(b"default", arguments.at(1), shared)?,
            3 => self.authenticate(arguments.at(1), arguments.at(2), shared)?,
            _ => return Err(CommandError::Syntax),
        }
        self.answer(|resp| resp.status("OK"))
    }

    fn authenticate(&mut self, user: &[u8], shown: &[u8], shared: &Shared) -> Result<(), CommandError> {
        let password = shared.options().password.as_ref().ok_or(CommandError::NoPasswordConfigured)?;
        // The password is compared in any case, so that the time does not tell which of the two was wrong.
        let is_right = password.is(shown);
        if is_right && user == b"default" {
            self.is_authenticated = true;
            return Ok(());
        }
        count(&shared.counters.wrong_passwords);
        self.wrong_passwords += 1;
        self.is_closing |= self.wrong_passwords >= WRONG_PASSWORDS_MAX;
        Err(CommandError::WrongPassword)
    }

    /// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
    fn on_hello(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Outcome {
        if self.is_queueing() {
            self.break_transaction();
            return Err(CommandError::NotInTransaction);
        }
        if self.has_operations() {
            return Ok(Taken::No);
        }
        let protocol = match arguments.len() {
            1 => self.protocol(),
            _ => match parse_integer(arguments.at(1)).ok_or(CommandError::ProtocolNotAnInteger)? {
                2 => Protocol::V2,
                3 => Protocol::V3,
                _ => return Err(CommandError::UnsupportedProtocol),
            },
        };
        let mut name = None;
        let mut options = arguments.from(2).iter();
        while let Some(option) = options.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            let wrong = || CommandError::HelloOption(shown(option));
            if is("AUTH") {
                let user = options.next().ok_or_else(wrong)?;
                let password = options.next().ok_or_else(wrong)?;
                self.authenticate(user, password, shared)?;
            } else if is("SETNAME") {
                let argument = options.next().ok_or_else(wrong)?;
                name = Some(checked_name(argument).ok_or(CommandError::ClientName)?);
            } else {
                return Err(wrong());
            }
        }
        if !self.is_authenticated {
            return Err(CommandError::HelloNotAuthenticated);
        }
        self.record.protocol = protocol;
        self.record.name = name.unwrap_or_else(|| std::mem::take(&mut self.record.name));
        self.publish(shared);
        let id = signed(self.record.id);
        self.reply(|resp| write_hello(resp, protocol, id));
        Ok(Taken::Yes)
    }

    fn on_client(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Outcome {
        let subcommand = arguments.at(1);
        let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
        let id = signed(self.record.id);
        if is("ID") {
            self.answer(|resp| resp.integer(id))
        } else if is("GETNAME") {
            let name = self.record.name.clone();
            self.answer(|resp| if name.is_empty() { resp.nil() } else { resp.bulk(name.as_bytes()) })
        } else if is("SETNAME") {
            arity(arguments, 3, "client|setname")?;
            self.record.name = checked_name(arguments.at(2)).ok_or(CommandError::ClientName)?;
            self.publish(shared);
            self.answer(|resp| resp.status("OK"))
        } else if is("SETINFO") {
            arity(arguments, 4, "client|setinfo")?;
            self.set_library(arguments.at(2), arguments.at(3))?;
            self.publish(shared);
            self.answer(|resp| resp.status("OK"))
        } else if is("INFO") {
            let line = self.record.line();
            self.answer(|resp| resp.text(&line))
        } else if is("LIST") {
            let lines: String = shared.clients().values().map(ClientRecord::line).collect();
            self.answer(|resp| resp.text(&lines))
        } else if is("REPLY") {
            Err(CommandError::Unsupported("CLIENT REPLY"))
        } else if is("NO-EVICT") || is("NO-TOUCH") {
            self.answer(|resp| resp.status("OK"))
        } else {
            Err(CommandError::unknown_subcommand("CLIENT", subcommand))
        }
    }

    fn set_library(&mut self, option: &[u8], value: &[u8]) -> Result<(), CommandError> {
        if option.eq_ignore_ascii_case(b"LIB-NAME") {
            self.record.library = checked_name(value).ok_or(CommandError::LibraryName("lib-name"))?;
        } else if option.eq_ignore_ascii_case(b"LIB-VER") {
            self.record.library_version = checked_name(value).ok_or(CommandError::LibraryName("lib-ver"))?;
        } else {
            return Err(CommandError::UnrecognizedOption(shown(option)));
        }
        Ok(())
    }

    fn on_config(&mut self, arguments: &Arguments<'_>, shared: &Shared) -> Outcome {
        let subcommand = arguments.at(1);
        if subcommand.eq_ignore_ascii_case(b"SET") {
            return Err(CommandError::Unsupported("CONFIG SET"));
        }
        if !subcommand.eq_ignore_ascii_case(b"GET") {
            return Err(CommandError::unknown_subcommand("CONFIG", subcommand));
        }
        if arguments.len() < 3 {
            return Err(CommandError::Arity("config|get"));
        }
        let options = shared.options();
        let parameters = [
            ("appendonly", "no".to_owned()),
            ("databases", "1".to_owned()),
            ("maxclients", options.connections_max.to_string()),
            ("maxmemory", crate::kv::limits::STORE_BYTES_MAX.to_string()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("port", shared.port().to_string()),
            ("proto-max-bulk-len", VALUE_BYTES_MAX.min(options.request_bytes_max).to_string()),
            ("save", String::new()),
            ("timeout", "0".to_owned()),
        ];
        let wanted: Vec<_> = parameters
            .iter()
            .filter(|(name, _)| {
                let patterns = arguments.from(2);
                patterns
                    .iter()
                    .any(|text| Pattern::new(&text.to_ascii_lowercase()).matches(name.as_bytes()).0)
            })
            .collect();
        self.answer(|resp| {
            resp.map(wanted.len());
            for (name, value) in wanted {
                resp.bulk(name.as_bytes());
                resp.bulk(value.as_bytes());
            }
        })
    }

    fn on_list_commands(&mut self, arguments: &Arguments<'_>) -> Outcome {
        let subcommand = arguments.at(1);
        let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
        let names = arguments.from(2);
        if arguments.len() == 1 || is("INFO") && names.is_empty() {
            self.answer(|resp| {
                resp.array(TABLE.len());
                TABLE.iter().for_each(|entry| write_entry(resp, entry));
            })
        } else if is("COUNT") {
            self.answer(|resp| resp.integer(signed(TABLE.len() as u64)))
        } else if is("INFO") {
            self.answer(|resp| {
                resp.array(names.len());
                for name in names.iter() {
                    match find(name) {
                        Some(entry) => write_entry(resp, entry),
                        None => resp.nil_array(),
                    }
                }
            })
        } else if is("LIST") {
            self.answer(|resp| {
                resp.array(TABLE.len());
                TABLE.iter().for_each(|entry| resp.bulk(entry.name.as_bytes()));
            })
        } else if is("DOCS") {
            let entries: Vec<_> = if names.is_empty() {
                TABLE.iter().collect()
            } else {
                names.iter().filter_map(find).collect()
            };
            self.answer(|resp| {
                resp.map(entries.len());
                entries.into_iter().for_each(|entry| write_docs(resp, entry));
            })
        } else {
            Err(CommandError::unknown_subcommand("COMMAND", subcommand))
        }
    }
}

fn write_hello(resp: &mut RespWriter<'_>, protocol: Protocol, id: i64) {
    resp.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        resp.bulk(name.as_bytes());
        resp.bulk(value.as_bytes());
    }
    for (name, value) in [("proto", protocol.number()), ("id", id)] {
        resp.bulk(name.as_bytes());
        resp.integer(value);
    }
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        resp.bulk(name.as_bytes());
        resp.bulk(value.as_bytes());
    }
    resp.bulk(b"modules");
    resp.array(0);
}

/// What COMMAND and COMMAND INFO tell of one command, in the form of Redis 7.
fn write_entry(resp: &mut RespWriter<'_>, entry: &Entry) {
    resp.array(10);
    resp.bulk(entry.name.as_bytes());
    resp.integer(i64::from(entry.arity));
    resp.set(entry.flags.len());
    entry.flags.iter().for_each(|flag| resp.status(flag));
    let (first, last, step) = entry.keys;
    [first, last, step].into_iter().for_each(|number| resp.integer(i64::from(number)));
    // Access control categories, tips, key specifications, subcommands: there are none to tell.
    resp.set(0);
    (0..3).for_each(|_| resp.array(0));
}

fn write_docs(resp: &mut RespWriter<'_>, entry: &Entry) {
    let group = match entry.kind {
        Kind::Store(_) => "string",
        Kind::Front(_) => "connection",
        Kind::Control(_) => "transactions",
    };
    resp.bulk(entry.name.as_bytes());
    resp.map(1);
    resp.bulk(b"group");
    resp.bulk(group.as_bytes());
}

fn arity(arguments: &Arguments<'_>, count: usize, name: &'static str) -> Result<(), CommandError> {
    if arguments.len() == count { Ok(()) } else { Err(CommandError::Arity(name)) }
}

/// A name that may stand in a line of CLIENT LIST.
fn checked_name(name: &[u8]) -> Option<String> {
    let is_fit = name.len() <= NAME_BYTES_MAX && name.iter().all(u8::is_ascii_graphic);
    is_fit.then(|| shown(name))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
