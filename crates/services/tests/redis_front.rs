//! The Redis front over sockets, with a store in place of the cluster. Replies are those of Redis 7.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regency::Bytes;
use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;
use regency_services::kv::{Moment, Request, Store};
use regency_services::redis::{Cluster, Front, FrontError, Options, Password, Unanswered, limits};

/// A cluster in one store, whose time and health the test decides.
#[derive(Clone, Default)]
struct TestCluster(Arc<Mutex<TestState>>);

#[derive(Default)]
struct TestState {
    store: Store,
    requests: u64,
    now: u64,
    failure: Option<Unanswered>,
}

impl TestCluster {
    fn advance(&self, seconds: u64) {
        self.0.lock().unwrap().now += seconds * 1_000_000;
    }

    fn fail(&self, failure: Option<Unanswered>) {
        self.0.lock().unwrap().failure = failure;
    }
}

impl Cluster for TestCluster {
    async fn invoke(&self, request: Bytes) -> Result<Bytes, Unanswered> {
        let state = &mut *self.0.lock().unwrap();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.requests += 1;
        let moment = Moment { timestamp: Timestamp(state.now), instance: InstanceId(state.requests) };
        Ok(state.store.execute(moment, &Request::decode(&request).unwrap()).into())
    }
}

struct World {
    cluster: TestCluster,
    front: Front,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let cluster = TestCluster::default();
        let front = Front::bind(loopback(), cluster.clone(), options).unwrap();
        Self { cluster, front }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.front.local_addr()).unwrap()
    }

    /// All that a connection answers to `commands` and the end of its input.
    fn talk(&self, commands: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(commands.as_ref()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(stream)
    }

    /// Asserts that each line of commands, sent alone, gets the reply next to it.
    #[track_caller]
    fn check(&self, dialogue: &[(&str, &str)]) {
        for (command, reply) in dialogue {
            assert_eq!(self.talk(format!("{command}\r\n")), *reply, "{command}");
        }
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn read_all(mut stream: TcpStream) -> String {
    let mut replies = Vec::new();
    // An end by reset is an end, too: it comes when the front closes while bytes are on their way to it.
    let _ = stream.read_to_end(&mut replies);
    String::from_utf8(replies).unwrap()
}

fn with_password() -> Options {
    Options { password: Some(Password::new(b"secret")), ..Options::default() }
}

#[test]
fn strings_are_set_and_read_as_in_redis() {
    World::new().check(&[
        ("GET k", "$-1\r\n"),
        ("SET k v", "+OK\r\n"),
        ("get k", "$1\r\nv\r\n"),
        ("SET k w NX", "$-1\r\n"),
        ("SET k w XX GET", "$1\r\nv\r\n"),
        ("SET other w XX", "$-1\r\n"),
        ("SET other w NX GET", "$-1\r\n"),
        ("GET other", "$1\r\nw\r\n"),
        ("SETNX k x", ":0\r\n"),
        ("GETSET k x", "$1\r\nw\r\n"),
        ("GETDEL k", "$1\r\nx\r\n"),
        ("EXISTS k other other", ":2\r\n"),
        ("MSET a 1 b 2", "+OK\r\n"),
        ("MSETNX b 3 c 3", ":0\r\n"),
        ("MGET a b c", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"),
        ("APPEND a 23", ":3\r\n"),
        ("STRLEN a", ":3\r\n"),
        ("TYPE a", "+string\r\n"),
        ("TYPE c", "+none\r\n"),
        ("DBSIZE", ":3\r\n"),
        ("KEYS [ab]", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("DEL a b c", ":2\r\n"),
        ("UNLINK a", ":0\r\n"),
        ("FLUSHALL ASYNC", "+OK\r\n"),
        ("DBSIZE", ":0\r\n"),
    ]);
}

#[test]
fn numbers_are_counted_as_in_redis() {
    World::new().check(&[
        ("INCR n", ":1\r\n"),
        ("INCRBY n 10", ":11\r\n"),
        ("DECR n", ":10\r\n"),
        ("DECRBY n 20", ":-10\r\n"),
        ("INCRBY n x", "-ERR value is not an integer or out of range\r\n"),
        ("DECRBY n -9223372036854775808", "-ERR decrement would overflow\r\n"),
        ("SET n 9223372036854775807", "+OK\r\n"),
        ("INCR n", "-ERR increment or decrement would overflow\r\n"),
        ("SET n text", "+OK\r\n"),
        ("INCR n", "-ERR value is not an integer or out of range\r\n"),
        ("GET n", "$4\r\ntext\r\n"),
    ]);
}

#[test]
fn times_to_live_run_in_ordered_time() {
    let world = World::new();
    world.check(&[
        ("SET k v EX 100", "+OK\r\n"),
        ("TTL k", ":100\r\n"),
        ("PTTL k", ":100000\r\n"),
        ("SETEX other 7 v", "+OK\r\n"),
        ("PSETEX third 7500 v", "+OK\r\n"),
        ("TTL third", ":8\r\n"),
        ("TTL nothing", ":-2\r\n"),
    ]);
    world.cluster.advance(8);
    world.check(&[
        ("MGET k other third", "*3\r\n$1\r\nv\r\n$-1\r\n$-1\r\n"),
        ("TTL k", ":92\r\n"),
        ("EXPIRE k 50 GT", ":0\r\n"),
        ("EXPIRE k 50 LT", ":1\r\n"),
        ("EXPIRE k 60 NX", ":0\r\n"),
        ("PEXPIRE k 60000 XX", ":1\r\n"),
        ("SET k w KEEPTTL", "+OK\r\n"),
        ("PERSIST k", ":1\r\n"),
        ("PERSIST k", ":0\r\n"),
        ("TTL k", ":-1\r\n"),
        ("EXPIRE k -1", ":1\r\n"),
        ("EXISTS k", ":0\r\n"),
        ("SET k v EX 0", "-ERR invalid expire time in 'set' command\r\n"),
        ("SET k v EX 9223372036854775807", "-ERR invalid expire time in 'set' command\r\n"),
        ("EXPIRE k 10 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"),
        ("EXPIRE k 10 FOO", "-ERR Unsupported option FOO\r\n"),
    ]);
}

#[test]
fn errors_have_the_texts_of_redis() {
    World::new().check(&[
        ("FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("MSET a", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("SET k v NX XX", "-ERR syntax error\r\n"),
        ("SET k v EX 1 KEEPTTL", "-ERR syntax error\r\n"),
        ("SET k v EX x", "-ERR value is not an integer or out of range\r\n"),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SCAN x", "-ERR invalid cursor\r\n"),
        ("SCAN 12345", "-ERR invalid cursor\r\n"),
        ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?\r\n",
        ),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
    ]);
}

#[test]
fn a_pipeline_is_one_request_and_is_answered_in_order() {
    let world = World::new();
    let replies = world.talk("SET k 1\r\nPING\r\nINCR k\r\nFOO\r\nGET k\r\nECHO x\r\n");
    let unknown = "-ERR unknown command 'FOO', with args beginning with: \r\n";
    assert_eq!(replies, format!("+OK\r\n+PONG\r\n:2\r\n{unknown}$1\r\n2\r\n$1\r\nx\r\n"));
    assert_eq!(world.front.stats().requests, 1);
    assert_eq!(world.front.stats().commands, 6);
    assert_eq!(world.front.stats().commands_refused, 1);
}

#[test]
fn a_pipeline_longer_than_a_request_is_answered_in_order() {
    let world = World::new();
    let commands: String = (0..5000).map(|number| format!("SET k{number} {number}\r\n")).collect();
    assert_eq!(world.talk(commands), "+OK\r\n".repeat(5000));
    let commands: String = (0..5000).map(|number| format!("GET k{number}\r\n")).collect();
    let expected: String =
        (0..5000).map(|number| format!("${}\r\n{number}\r\n", number.to_string().len())).collect();
    assert_eq!(world.talk(commands), expected);
}

#[test]
fn answers_that_do_not_fit_one_reply_come_in_several() {
    let world = World::new();
    let value = "x".repeat(200 << 10);
    assert_eq!(
        world.talk(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len())),
        "+OK\r\n"
    );
    let replies = world.talk("GET k\r\nPING\r\n".repeat(20));
    assert_eq!(replies, format!("${}\r\n{value}\r\n+PONG\r\n", value.len()).repeat(20));
    assert!(world.front.stats().requests >= 5, "four values fit a reply");
    let many = "-ERR the answer would be longer than 921600 bytes: ask for less at once\r\n";
    assert_eq!(world.talk("MGET k k k k k k\r\n"), many);
}

#[test]
fn a_transaction_is_executed_as_a_whole_or_not_at_all() {
    let world = World::new();
    world.check(&[
        (
            "MULTI\r\nSET a 1\r\nINCR a\r\nPING\r\nGET a\r\nEXEC",
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n:2\r\n+PONG\r\n$1\r\n2\r\n",
        ),
        (
            "MULTI\r\nSET a 9\r\nGET\r\nEXEC\r\nGET a",
            "+OK\r\n+QUEUED\r\n-ERR wrong number of arguments for 'get' command\r\n\
             -EXECABORT Transaction discarded because of previous errors.\r\n$1\r\n2\r\n",
        ),
        (
            "MULTI\r\nSET a x FOO\r\nINCR a\r\nSELECT 7\r\nEXEC",
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-ERR syntax error\r\n:3\r\n\
             -ERR DB index is out of range\r\n",
        ),
        ("MULTI\r\nSET a 9\r\nDISCARD\r\nGET a", "+OK\r\n+QUEUED\r\n+OK\r\n$1\r\n3\r\n"),
        ("MULTI\r\nMULTI\r\nEXEC", "+OK\r\n-ERR MULTI calls can not be nested\r\n*0\r\n"),
        ("SET b 1\r\nMULTI\r\nGET b\r\nEXEC\r\nGET b", "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n$1\r\n1\r\n"),
        ("MULTI\r\nAUTH x\r\nEXEC", "+OK\r\n-ERR Command not allowed inside a transaction\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"),
    ]);
}

#[test]
fn a_transaction_is_not_executed_if_a_watched_key_has_changed() {
    let world = World::new();
    world.check(&[
        ("WATCH a\r\nMULTI\r\nSET a 1\r\nEXEC", "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        ("WATCH a\r\nSET a 2\r\nMULTI\r\nSET a 3\r\nEXEC", "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n"),
        ("WATCH a\r\nSET a 2\r\nUNWATCH\r\nMULTI\r\nEXEC", "+OK\r\n+OK\r\n+OK\r\n+OK\r\n*0\r\n"),
        (
            "WATCH a\r\nSET a 2\r\nMULTI\r\nDISCARD\r\nMULTI\r\nEXEC",
            "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n*0\r\n",
        ),
        ("MULTI\r\nWATCH a\r\nEXEC", "+OK\r\n-ERR WATCH inside MULTI is not allowed\r\n*0\r\n"),
    ]);
    let mut watching = world.connect();
    watching.write_all(b"WATCH a\r\n").unwrap();
    let mut reply = [0; 5];
    watching.read_exact(&mut reply).unwrap();
    assert_eq!(world.talk("SET a 4\r\n"), "+OK\r\n");
    watching.write_all(b"MULTI\r\nSET a 5\r\nEXEC\r\nGET a\r\nQUIT\r\n").unwrap();
    assert_eq!(read_all(watching), "+OK\r\n+QUEUED\r\n*-1\r\n$1\r\n4\r\n+OK\r\n");
}

#[test]
fn the_third_version_of_the_protocol_has_nulls_and_maps() {
    let world = World::new();
    let replies = world.talk("GET k\r\nHELLO 3 SETNAME me\r\nGET k\r\nCLIENT GETNAME\r\nCONFIG GET save\r\nWATCH k\r\nSET k v\r\nMULTI\r\nEXEC\r\nRESET\r\nGET absent\r\n");
    let hello = "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    let rest = "_\r\n$2\r\nme\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n+OK\r\n+OK\r\n+OK\r\n_\r\n+RESET\r\n$-1\r\n";
    assert_eq!(replies, format!("$-1\r\n{hello}{rest}"));
}

#[test]
fn a_scan_finds_every_key_once() {
    let world = World::new();
    let commands: String =
        (0..100).map(|number| format!("SET key:{number:03} v\r\nSET other:{number} v\r\n")).collect();
    world.talk(commands);
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let reply = world.talk(format!("SCAN {cursor} MATCH key:* COUNT 7\r\n"));
        let mut lines = reply.lines().filter(|line| !line.starts_with(['*', '$']));
        cursor = lines.next().unwrap().to_owned();
        found.extend(lines.map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    let expected: Vec<_> = (0..100).map(|number| format!("key:{number:03}")).collect();
    assert_eq!(found, expected);
    assert_eq!(world.talk("SCAN 0 TYPE list\r\n"), "*2\r\n$1\r\n0\r\n*0\r\n");
}

#[test]
fn what_tools_ask_first_is_answered() {
    let world = World::new();
    world.talk("SET k v\r\n");
    let info = world.talk("INFO\r\n");
    for line in ["redis_version:7.0.15", "role:master", "loading:0", "db0:keys=1"] {
        assert!(info.lines().any(|found| found == line), "{line} is not in {info}");
    }
    assert!(!world.talk("INFO server\r\n").contains("Keyspace"));
    assert!(world.talk("COMMAND\r\n").starts_with("*49\r\n*10\r\n$6\r\nappend\r\n:3\r\n"));
    assert_eq!(world.talk("COMMAND COUNT\r\n"), ":49\r\n");
    assert_eq!(world.talk("COMMAND INFO nothing\r\n"), "*1\r\n*-1\r\n");
    assert!(world.talk("COMMAND DOCS get\r\n").starts_with("*2\r\n$3\r\nget\r\n"));
    assert_eq!(world.talk("CLIENT SETINFO LIB-NAME redis-py\r\n"), "+OK\r\n");
    assert!(world.talk("CLIENT LIST\r\n").contains("addr=127.0.0.1:"));
    assert!(world.talk("CLIENT ID\r\n").starts_with(':'));
    assert_eq!(world.talk("CONFIG GET append*\r\n"), "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n");
    assert_eq!(world.talk("CLIENT REPLY OFF\r\n"), "-ERR CLIENT REPLY is not supported by this front\r\n");
}

#[test]
fn nothing_is_served_before_the_password_is_shown() {
    let world = World::with(with_password());
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    world.check(&[
        ("GET k", "-NOAUTH Authentication required.\r\n"),
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("AUTH wrong", wrong),
        ("AUTH bob secret", wrong),
        ("AUTH secret\r\nGET k", "+OK\r\n$-1\r\n"),
        (
            "AUTH default secret\r\nPING\r\nRESET\r\nPING",
            "+OK\r\n+PONG\r\n+RESET\r\n-NOAUTH Authentication required.\r\n",
        ),
    ]);
    assert!(world.talk("HELLO 3\r\n").starts_with("-NOAUTH HELLO must be called"));
    assert!(world.talk("HELLO 3 AUTH default secret\r\nPING\r\n").ends_with("*0\r\n+PONG\r\n"));
    assert_eq!(world.front.stats().wrong_passwords, 2);
    assert_eq!(world.talk("*11\r\n"), "-ERR Protocol error: unauthenticated multibulk length\r\n");
}

#[test]
fn guessing_passwords_ends_the_connection() {
    let world = World::with(with_password());
    let replies = world.talk("AUTH guess\r\n".repeat(100));
    assert_eq!(replies.lines().count(), limits::WRONG_PASSWORDS_MAX as usize);
}

#[test]
fn an_address_that_others_can_reach_needs_a_password() {
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = Front::bind(everywhere, TestCluster::default(), Options::default());
    assert!(matches!(refused, Err(FrontError::PasswordNeeded(_))));
}

#[test]
fn a_cluster_that_does_not_answer_is_an_error_for_each_command() {
    let world = World::new();
    world
        .cluster
        .fail(Some(Unanswered::OutcomeUnknown { cause: "no quorum: 1 of 3 replies in 5 s".to_owned() }));
    let unknown = "-TRYAGAIN no quorum: 1 of 3 replies in 5 s (the command may have been executed: read before you repeat it)\r\n";
    assert_eq!(world.talk("SET k v\r\nPING\r\nGET k\r\n"), format!("{unknown}+PONG\r\n{unknown}"));
    assert_eq!(
        world.talk("MULTI\r\nSET k v\r\nEXEC\r\nPING\r\n"),
        format!("+OK\r\n+QUEUED\r\n{unknown}+PONG\r\n")
    );
    world.cluster.fail(Some(Unanswered::Busy { retry_after: Duration::from_millis(50) }));
    let busy = "-BUSY the cluster is overloaded and did not execute the command: retry in 50 ms\r\n";
    assert_eq!(world.talk("WATCH k\r\n"), busy);
    assert_eq!(world.front.stats().requests_failed, 3);
    world.cluster.fail(None);
    assert_eq!(world.talk("GET k\r\n"), "$-1\r\n");
}

#[test]
fn bytes_that_are_no_command_end_the_connection() {
    let world = World::new();
    assert_eq!(
        world.talk("SET k v\r\n*1\r\n$x\r\nPING\r\n"),
        "+OK\r\n-ERR Protocol error: invalid bulk length\r\n",
    );
    assert_eq!(
        world.talk("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999999\r\n"),
        "-ERR Protocol error: invalid bulk length\r\n"
    );
    assert_eq!(world.talk("\"a\r\nPING\r\n"), "-ERR Protocol error: unbalanced quotes in request\r\n");
    assert_eq!(world.front.stats().protocol_errors, 3);
}

#[test]
fn keys_values_and_commands_that_are_too_long_are_refused_alone() {
    let world = World::new();
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let set = |key: &str, value: &str| format!("*3\r\n{}{}{}PING\r\n", bulk("SET"), bulk(key), bulk(value));
    let (key, value) = ("x".repeat(5 << 10), "x".repeat(250 << 10));
    let refused = world.talk(set(&key, "v"));
    assert_eq!(refused, "-ERR key exceeds maximum allowed size (4096 bytes)\r\n+PONG\r\n");
    let refused = world.talk(set("k", &value));
    assert_eq!(refused, "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n+PONG\r\n");
    let many = format!("MGET{}\r\nPING\r\n", " k".repeat(16_385));
    assert_eq!(world.talk(many), "-ERR too many keys in one command (at most 16384)\r\n+PONG\r\n");
    let half = bulk(&"x".repeat(150 << 10));
    let refused = world.talk(format!("*5\r\n{}{}{half}{}{half}PING\r\n", bulk("MSET"), bulk("a"), bulk("b")));
    assert_eq!(
        refused,
        "-ERR the command is larger than a request of the cluster may be (262144 bytes)\r\n+PONG\r\n"
    );
}

#[test]
fn connections_above_the_limit_are_told_so() {
    let world = World::with(Options { connections_max: 1, ..Options::default() });
    let mut first = world.connect();
    first.write_all(b"PING\r\n").unwrap();
    first.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(read_all(world.connect()), "-ERR max number of clients reached\r\n");
    assert_eq!(world.front.stats().connections_refused, 1);
    assert_eq!(world.front.stats().connections, 1);
}

#[test]
fn who_does_not_end_a_command_is_dropped() {
    let world = World::with(Options { command_timeout: Duration::from_millis(50), ..Options::default() });
    let mut stream = world.connect();
    stream.write_all(b"*2\r\n$3\r\nGET").unwrap();
    assert_eq!(read_all(stream), "");
    assert_eq!(world.front.stats().slow_writers, 1);
}

#[test]
fn who_does_not_read_replies_is_dropped() {
    let world = World::with(Options { write_timeout: Duration::from_millis(50), ..Options::default() });
    let value = "x".repeat(200 << 10);
    world.talk(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()));
    let mut stream = world.connect();
    // More than the buffers between the two hold: the front must stop reading and then give up writing.
    let ended = (0..100_000).any(|_| stream.write_all(&b"GET k\r\n".repeat(100)).is_err());
    assert!(ended);
    assert_eq!(world.front.stats().slow_readers, 1);
}

#[test]
fn stopping_ends_the_connections() {
    let world = World::new();
    let mut idle = world.connect();
    idle.write_all(b"PING\r\n").unwrap();
    idle.read_exact(&mut [0; 7]).unwrap();
    let address = world.front.local_addr();
    world.front.stop();
    assert_eq!(read_all(idle), "");
    assert!(TcpStream::connect(address).is_err());
}
