//! Fake upstreams: they record exactly what arrives and answer as the test says.

mod frames;
mod http1;
mod http2;
mod tcp;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use frames::{Answer, FrameUpstream};
pub use http1::Upstream;
pub use http2::Http2Upstream;
pub use tcp::{TcpBehaviour, TcpUpstream};

use crate::message::{Request, Response};

/// What an upstream does with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Send this response and keep the connection.
    Respond(Response),
    /// Send this response with a chunked body, one chunk for each part (HTTP/1 only).
    Chunks(Response, Vec<Vec<u8>>),
    /// Send exactly these bytes and keep the connection (HTTP/1 only).
    Raw(Vec<u8>),
    /// Send this response, then close the connection (HTTP/2: like `Respond`).
    RespondThenClose(Response),
    /// Close the connection without an answer (HTTP/2: reset the stream).
    Close,
    /// Reset the connection (RST) without an answer (HTTP/2: reset the stream).
    Reset,
    /// Send the head, which announces a longer body, and half of the body; then reset the connection.
    ResetAfterHead(Response),
    /// Never answer; ends when the other side closes.
    Stall,
    /// Answer only after the gate has been opened.
    Hold(Gate, Box<Reply>),
}

impl Reply {
    /// A response with `status` and `body`.
    pub fn status(status: u16, body: &str) -> Self {
        Reply::Respond(Response::new(status, body))
    }
}

/// Decides the reply to each request. It may be changed at any time.
pub type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A gate that is closed until [`Gate::open`]; clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets all who wait, and all who come later, pass.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Blocks until the gate is open.
    pub fn wait(&self) {
        let mut open = lock(&self.0.0);
        while !*open {
            open = self.0.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// What every upstream keeps: the script and the record.
struct Record {
    script: Mutex<Script>,
    requests: Mutex<Vec<Request>>,
    /// Number of requests on each accepted connection.
    per_connection: Mutex<Vec<usize>>,
}

impl Record {
    fn new() -> Arc<Self> {
        let script: Script = Arc::new(|_: &Request| Reply::status(200, "ok"));
        Arc::new(Record {
            script: Mutex::new(script),
            requests: Mutex::default(),
            per_connection: Mutex::default(),
        })
    }

    /// Counts a new connection and gives its number.
    fn connection(&self) -> usize {
        let mut counts = lock(&self.per_connection);
        counts.push(0);
        counts.len() - 1
    }

    /// Records a request and asks the script for the reply.
    fn request(&self, request: Request) -> Reply {
        let script = lock(&self.script).clone();
        lock(&self.per_connection)[request.connection] += 1;
        let reply = script(&request);
        lock(&self.requests).push(request);
        reply
    }
}

/// The methods that all upstreams with a [`Record`] share.
macro_rules! recorded {
    ($upstream:ty) => {
        impl $upstream {
            /// Answers each request from now on by `script`.
            pub fn answer_with(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
                *lock(&self.record.script) = std::sync::Arc::new(script);
            }

            /// Answers each request from now on with `reply`.
            pub fn answer(&self, reply: Reply) {
                self.answer_with(move |_| reply.clone());
            }

            /// The requests that arrived since the last call.
            pub fn take_requests(&self) -> Vec<Request> {
                std::mem::take(&mut *lock(&self.record.requests))
            }

            /// How many requests came on each connection, in the order of accepting.
            pub fn requests_per_connection(&self) -> Vec<usize> {
                lock(&self.record.per_connection).clone()
            }

            /// How many requests are recorded and not yet taken; those that are held count too.
            pub fn recorded(&self) -> usize {
                lock(&self.record.requests).len()
            }

            /// How many connections were accepted.
            pub fn connections(&self) -> usize {
                lock(&self.record.per_connection).len()
            }

            /// Where it listens.
            pub fn addr(&self) -> std::net::SocketAddr {
                self.addr
            }
        }

        impl std::fmt::Debug for $upstream {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($upstream)).field("addr", &self.addr).finish_non_exhaustive()
            }
        }
    };
}
use recorded;

/// A test that panics in another thread must not hide its own message behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
