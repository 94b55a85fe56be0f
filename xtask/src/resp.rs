//! A small Redis client for tests: sends commands as they are, reads replies into one printable form.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A reply later than this is a failure.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// More than any reply of the tests.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// One connection to a server that speaks RESP2 or RESP3.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of this machine.
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends one command and returns its reply.
    pub(crate) fn call(&mut self, words: &[Vec<u8>]) -> Result<String> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.send(&bytes)?;
        self.reply()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("the server closed the connection")
    }

    /// Reads one reply.
    pub(crate) fn reply(&mut self) -> Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).with_context(|| format!("an odd reply {line:?}"))?;
        let count = || rest.parse::<i64>().with_context(|| format!("an odd length in {line:?}"));
        Ok(match kind {
            "+" | "-" | ":" | "," | "#" | "(" | "_" => line,
            "$" | "=" => match usize::try_from(count()?) {
                Ok(length) => format!("{kind}{:?}", String::from_utf8_lossy(&self.bytes(length)?)),
                Err(_) => "$nil".to_owned(),
            },
            "*" | "~" | ">" => match usize::try_from(count()?) {
                Ok(length) => format!("{kind}[{}]", self.replies(length)?.join(", ")),
                Err(_) => "*nil".to_owned(),
            },
            "%" => {
                let length = usize::try_from(count()?)? * 2;
                format!("%[{}]", self.replies(length)?.join(", "))
            }
            _ => bail!("an odd reply {line:?}"),
        })
    }

    /// Reads the elements of an array and prints them in order of their text, where order means nothing.
    pub(crate) fn sorted(reply: &str) -> String {
        let mut elements: Vec<&str> = reply.trim_matches(['*', '[', ']', '~']).split(", ").collect();
        elements.sort_unstable();
        elements.join(", ")
    }

    fn replies(&mut self, count: usize) -> Result<Vec<String>> {
        (0..count).map(|_| self.reply()).collect()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).context("no reply")?;
        if read == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        if length > REPLY_BYTES_MAX {
            bail!("a reply of {length} bytes");
        }
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes).context("a reply is cut off")?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
