//! Host names turned into addresses on a thread of their own: a resolver may take seconds, the event loop may not.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use mio::{Token, Waker};

/// Questions that wait, at most; what does not fit is asked again later.
const QUESTIONS_MAX: usize = 1024;

/// The helper thread as its event loop sees it; the thread ends with it.
pub(super) struct Resolver {
    questions: SyncSender<(Token, String)>,
    answers: Receiver<Resolved>,
}

/// An answer: for which connection, and the addresses.
pub(super) type Resolved = (Token, io::Result<Vec<SocketAddr>>);

impl Resolver {
    /// Starts the thread; it wakes the loop after each answer.
    pub(super) fn start(waker: Arc<Waker>) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<(Token, String)>(QUESTIONS_MAX);
        let (answer, answers) = sync_channel(QUESTIONS_MAX);
        thread::Builder::new().name("regency-resolver".into()).spawn(move || {
            while let Ok((token, name)) = asked.recv() {
                let resolved = name.to_socket_addrs().map(Iterator::collect);
                if answer.send((token, resolved)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }

    /// Asks for the addresses of `host:port`; false if too many questions wait.
    pub(super) fn ask(&self, token: Token, name: &str) -> bool {
        self.questions.try_send((token, name.to_owned())).is_ok()
    }

    /// The answers that have come since last asked.
    pub(super) fn answers(&self) -> Vec<Resolved> {
        self.answers.try_iter().collect()
    }
}
