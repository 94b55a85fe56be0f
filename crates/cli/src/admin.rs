//! Questions to a replica's admin port: one small HTTP request, answered or given up in time.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long one question may take in all.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// No connection, or one that broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The address means nothing.
    #[error("{0} has no address")]
    Unresolved(String),
    /// Not in time.
    #[error("no answer within {} ms", TIMEOUT.as_millis())]
    Timeout,
    /// Something else answers there.
    #[error("what answers is not an admin port: {0}")]
    Foreign(String),
}

/// `GET path` from `host:port`: the body of a 200, parsed.
pub(crate) fn get(address: &str, path: &str) -> Result<serde_json::Value, AdminError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut last = AdminError::Unresolved(address.to_owned());
    for resolved in address.to_socket_addrs()? {
        let connected = remaining(deadline)
            .and_then(|left| TcpStream::connect_timeout(&resolved, left).map_err(AdminError::from));
        match connected {
            Ok(stream) => return ask(stream, address, path, deadline),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(
    mut stream: TcpStream,
    address: &str,
    path: &str,
    deadline: Instant,
) -> Result<serde_json::Value, AdminError> {
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return parse(&answer),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(AdminError::Timeout),
            Err(error) => return Err(error.into()),
        }
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(AdminError::Foreign(format!("more than {ANSWER_BYTES_MAX} bytes")));
        }
    }
}

fn remaining(deadline: Instant) -> Result<Duration, AdminError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(AdminError::Timeout) } else { Ok(left) }
}

/// The JSON body of a complete answer. It has a content length, as small answers have; chunks are not needed.
fn parse(answer: &[u8]) -> Result<serde_json::Value, AdminError> {
    let foreign = |what: &str| AdminError::Foreign(what.to_owned());
    let head_end =
        answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| foreign("no HTTP"))?;
    let (head, body) = (&answer[..head_end], &answer[head_end + 4..]);
    let head = String::from_utf8_lossy(head);
    let mut status = head.lines().next().unwrap_or_default().split_whitespace().skip(1);
    match status.next() {
        Some("200") => serde_json::from_slice(body).map_err(|error| foreign(&error.to_string())),
        Some(status) => Err(foreign(&format!("HTTP status {status}"))),
        None => Err(foreign("no HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            // What is left unread when the socket closes would reset the connection, and the answer with it.
            let mut question = BufReader::new(stream);
            let _ = question.by_ref().lines().find(|line| line.as_ref().map_or(true, String::is_empty));
            let _ = question.get_mut().write_all(answer.as_bytes());
        });
        address
    }

    #[test]
    fn the_body_of_an_answer_is_parsed() {
        let address = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"id\": 3}");
        assert_eq!(get(&address, "/status").unwrap()["id"], 3);
    }

    #[test]
    fn what_is_not_an_admin_port_is_told_apart() {
        for answer in
            ["HTTP/1.1 404 Not Found\r\n\r\n", "-ERR unknown\r\n", "", "HTTP/1.1 200 OK\r\n\r\nhello"]
        {
            let outcome = get(&answering(answer), "/status");
            assert!(
                matches!(outcome, Err(AdminError::Foreign(_) | AdminError::Io(_))),
                "{answer}: {outcome:?}"
            );
        }
    }

    #[test]
    fn who_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(matches!(get(&address, "/status"), Err(AdminError::Timeout)));
    }
}
