//! The same commands to a real Redis and to the front: the same replies, in RESP2 and in RESP3.

use anyhow::{Context, Result, bail};

use super::Bench;
use super::redis_server::RedisServer;
use super::table::{RAW, SCRIPTS, words};
use crate::resp::Connection;

pub(super) fn run(bench: &Bench<'_>) -> Result<()> {
    let server = RedisServer::start(bench.scratch)?;
    let front = bench.cluster.redis_port()?;
    let mut differences = Vec::new();
    let mut compared = 0;
    for version in ["2", "3"] {
        for (name, script) in SCRIPTS {
            let expected = play(server.port(), version, script)?;
            let found = play(front, version, script).with_context(|| format!("{name}, RESP{version}"))?;
            compared += expected.len();
            for ((line, expected), found) in script.lines().zip(&expected).zip(&found) {
                if expected != found {
                    let what = format!("{name}, RESP{version}, {line}: Redis {expected}, front {found}");
                    differences.push(what);
                }
            }
        }
    }
    for (name, bytes, replies) in RAW {
        let expected = send(server.port(), bytes, replies)?;
        let found = send(front, bytes, replies).with_context(|| format!("raw bytes: {name}"))?;
        compared += replies;
        if expected != found {
            differences.push(format!("raw bytes, {name}: Redis {expected:?}, front {found:?}"));
        }
    }
    if !differences.is_empty() {
        bail!("{} of {compared} replies differ:\n  {}", differences.len(), differences.join("\n  "));
    }
    println!("external: {compared} replies equal those of redis-server");
    Ok(())
}

/// Plays a script on a connection of its own, on an empty database.
fn play(port: u16, version: &str, script: &str) -> Result<Vec<String>> {
    let mut connection = Connection::open(port)?;
    connection.call(&words("FLUSHALL"))?;
    // What HELLO answers tells the server's name and version: not for comparison.
    connection.call(&words(&format!("HELLO {version}")))?;
    script
        .lines()
        .map(|line| match line.strip_prefix('~') {
            Some(line) => Ok(Connection::sorted(&connection.call(&words(line))?)),
            None => connection.call(&words(line)),
        })
        .collect()
}

fn send(port: u16, bytes: &[u8], replies: usize) -> Result<Vec<String>> {
    let mut connection = Connection::open(port)?;
    connection.send(bytes)?;
    (0..replies).map(|_| connection.reply()).collect()
}
