//! The commands by name: how many arguments each takes, and who answers it.

use super::parser::Arguments;

/// Who answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The store, by an ordered operation.
    Store(StoreVerb),
    /// The front, from what it knows of itself and of the connection.
    Front(FrontVerb),
    /// The connection's state changes at once, inside MULTI as well.
    Control(ControlVerb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreVerb {
    Append,
    DbSize,
    Decr,
    DecrBy,
    Del,
    Exists,
    Expire,
    ExpireAt,
    Flush,
    Get,
    GetDel,
    GetSet,
    Incr,
    IncrBy,
    Keys,
    MGet,
    MSet,
    MSetNx,
    Persist,
    PExpire,
    PExpireAt,
    PSetEx,
    PTtl,
    Scan,
    Set,
    SetEx,
    SetNx,
    StrLen,
    Ttl,
    Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrontVerb {
    Auth,
    Client,
    Command,
    Config,
    Echo,
    Hello,
    Info,
    Ping,
    Select,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlVerb {
    Discard,
    Exec,
    Multi,
    Quit,
    Reset,
    Unwatch,
    Watch,
}

/// What COMMAND tells of a command, and what the front needs to know before it looks at the arguments.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// Arguments with the name; if negative, at least as many as without the sign.
    pub(super) arity: i8,
    pub(super) kind: Kind,
    pub(super) flags: &'static [&'static str],
    /// The first and the last argument that is a key, and the step between keys; zeros if there is none.
    pub(super) keys: (i8, i8, i8),
}

impl Entry {
    /// Whether the command can be called with `arguments`.
    pub(super) fn fits(&self, arguments: &Arguments<'_>) -> bool {
        let (count, arity) = (arguments.len(), usize::from(self.arity.unsigned_abs()));
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// Whether the command is there for connections that have not authenticated themselves.
    pub(super) fn needs_no_password(&self) -> bool {
        match self.kind {
            Kind::Store(_) => false,
            Kind::Front(verb) => matches!(verb, FrontVerb::Auth | FrontVerb::Hello),
            Kind::Control(verb) => matches!(verb, ControlVerb::Quit | ControlVerb::Reset),
        }
    }
}

/// The command called `name`, in letters of either case.
pub(super) fn find(name: &[u8]) -> Option<&'static Entry> {
    let mut lower = [0; 16];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let place = TABLE.binary_search_by(|entry| entry.name.as_bytes().cmp(lower)).ok()?;
    TABLE.get(place)
}

const READ: &[&str] = &["readonly"];
const READ_FAST: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write"];
const WRITE_FAST: &[&str] = &["write", "fast"];
const GROW: &[&str] = &["write", "denyoom"];
const GROW_FAST: &[&str] = &["write", "denyoom", "fast"];
const CONTROL: &[&str] = &["noscript", "loading", "stale", "fast"];
const OPEN: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth"];
const ADMIN: &[&str] = &["noscript", "loading", "stale"];
const NONE: (i8, i8, i8) = (0, 0, 0);
const ONE: (i8, i8, i8) = (1, 1, 1);
const ALL: (i8, i8, i8) = (1, -1, 1);
const PAIRS: (i8, i8, i8) = (1, -1, 2);

const fn store(
    name: &'static str,
    arity: i8,
    verb: StoreVerb,
    flags: &'static [&'static str],
    keys: (i8, i8, i8),
) -> Entry {
    Entry { name, arity, kind: Kind::Store(verb), flags, keys }
}

const fn front(name: &'static str, arity: i8, verb: FrontVerb, flags: &'static [&'static str]) -> Entry {
    Entry { name, arity, kind: Kind::Front(verb), flags, keys: NONE }
}

const fn control(name: &'static str, arity: i8, verb: ControlVerb, keys: (i8, i8, i8)) -> Entry {
    Entry { name, arity, kind: Kind::Control(verb), flags: CONTROL, keys }
}

/// All commands, by name.
pub(super) static TABLE: [Entry; 49] = [
    store("append", 3, StoreVerb::Append, GROW_FAST, ONE),
    front("auth", -2, FrontVerb::Auth, OPEN),
    front("client", -2, FrontVerb::Client, ADMIN),
    front("command", -1, FrontVerb::Command, ADMIN),
    front("config", -2, FrontVerb::Config, ADMIN),
    store("dbsize", 1, StoreVerb::DbSize, READ_FAST, NONE),
    store("decr", 2, StoreVerb::Decr, GROW_FAST, ONE),
    store("decrby", 3, StoreVerb::DecrBy, GROW_FAST, ONE),
    store("del", -2, StoreVerb::Del, WRITE, ALL),
    control("discard", 1, ControlVerb::Discard, NONE),
    front("echo", 2, FrontVerb::Echo, CONTROL),
    control("exec", 1, ControlVerb::Exec, NONE),
    store("exists", -2, StoreVerb::Exists, READ_FAST, ALL),
    store("expire", -3, StoreVerb::Expire, WRITE_FAST, ONE),
    store("expireat", -3, StoreVerb::ExpireAt, WRITE_FAST, ONE),
    store("flushall", -1, StoreVerb::Flush, WRITE, NONE),
    store("flushdb", -1, StoreVerb::Flush, WRITE, NONE),
    store("get", 2, StoreVerb::Get, READ_FAST, ONE),
    store("getdel", 2, StoreVerb::GetDel, WRITE_FAST, ONE),
    store("getset", 3, StoreVerb::GetSet, GROW_FAST, ONE),
    front("hello", -1, FrontVerb::Hello, OPEN),
    store("incr", 2, StoreVerb::Incr, GROW_FAST, ONE),
    store("incrby", 3, StoreVerb::IncrBy, GROW_FAST, ONE),
    front("info", -1, FrontVerb::Info, ADMIN),
    store("keys", 2, StoreVerb::Keys, READ, NONE),
    store("mget", -2, StoreVerb::MGet, READ_FAST, ALL),
    store("mset", -3, StoreVerb::MSet, GROW, PAIRS),
    store("msetnx", -3, StoreVerb::MSetNx, GROW, PAIRS),
    control("multi", 1, ControlVerb::Multi, NONE),
    store("persist", 2, StoreVerb::Persist, WRITE_FAST, ONE),
    store("pexpire", -3, StoreVerb::PExpire, WRITE_FAST, ONE),
    store("pexpireat", -3, StoreVerb::PExpireAt, WRITE_FAST, ONE),
    front("ping", -1, FrontVerb::Ping, CONTROL),
    store("psetex", 4, StoreVerb::PSetEx, GROW, ONE),
    store("pttl", 2, StoreVerb::PTtl, READ_FAST, ONE),
    control("quit", -1, ControlVerb::Quit, NONE),
    control("reset", 1, ControlVerb::Reset, NONE),
    store("scan", -2, StoreVerb::Scan, READ, NONE),
    front("select", 2, FrontVerb::Select, CONTROL),
    store("set", -3, StoreVerb::Set, GROW, ONE),
    store("setex", 4, StoreVerb::SetEx, GROW, ONE),
    store("setnx", 3, StoreVerb::SetNx, GROW_FAST, ONE),
    store("strlen", 2, StoreVerb::StrLen, READ_FAST, ONE),
    store("touch", -2, StoreVerb::Exists, READ_FAST, ALL),
    store("ttl", 2, StoreVerb::Ttl, READ_FAST, ONE),
    store("type", 2, StoreVerb::Type, READ_FAST, ONE),
    store("unlink", -2, StoreVerb::Del, WRITE_FAST, ALL),
    control("unwatch", 1, ControlVerb::Unwatch, NONE),
    control("watch", -2, ControlVerb::Watch, ALL),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_every_command_is_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for entry in &TABLE {
            let found = find(entry.name.to_ascii_uppercase().as_bytes()).unwrap();
            assert_eq!(found.name, entry.name);
        }
        assert!(find(b"").is_none());
        assert!(find(b"subscribe").is_none());
        assert!(find(&[b'x'; 100]).is_none());
    }
}
