//! Speaking to the kernel without any program: for images that have none.
//!
//! The rules as a table of nf_tables: `table`, `expressions`. An address of the loopback interface: `address`. Both are
//! [transactions](Transaction), encoded by `message`, sent through a `socket`. Why this is no crate's work: `docs/adr/0009-capture-by-netlink.md`.

pub(super) mod address;
mod expressions;
pub(crate) mod message;
mod socket;
pub(super) mod table;

use std::fmt;

use message::Message;
use socket::{Refusal, Subsystem};

/// Requests that take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    subsystem: Subsystem,
    requests: Vec<Request>,
    /// What it does, as a command of a shell that would do the same.
    words: String,
}

/// One request of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    /// What it is about, for a complaint.
    what: String,
    message: Message,
}

impl Transaction {
    /// Does it.
    ///
    /// # Errors
    /// The kernel refuses it; then nothing has changed.
    pub fn run(&self) -> Result<(), String> {
        let messages: Vec<Message> = self.requests.iter().map(|one| one.message.clone()).collect();
        socket::transact(self.subsystem, &messages).map_err(|Refusal { request, error }| {
            match request.and_then(|at| self.requests.get(at)) {
                Some(Request { what, .. }) => format!("{what}: {error}"),
                None => error.to_string(),
            }
        })
    }
}

impl fmt::Display for Transaction {
    /// As a command that would do the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
