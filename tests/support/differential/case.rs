//! One row of a differential table.

use std::fmt;

use serde_json::{Value, json};

use super::{Target, View, World};
use crate::bootstrap::any_host;

/// A route table, settings around it, and what is sent through it.
pub struct Case {
    pub(super) name: &'static str,
    pub(super) virtual_hosts: Value,
    pub(super) hcm: Value,
    pub(super) clusters: fn(&World) -> Vec<Value>,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) drive: Option<fn(&Target<'_>, &mut View)>,
    pub(super) statistics: Option<&'static str>,
    pub(super) compare_logs: bool,
    pub(super) deviations: Vec<(&'static str, &'static str)>,
}

/// One request on a connection of its own.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What the report calls it.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the bytes are the start of a request that is then cut off.
    pub half_close: bool,
    /// Number of responses to read.
    pub responses: usize,
    /// Whether to look if the connection is closed after the last response.
    pub look_for_close: bool,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    /// A case with these virtual hosts.
    pub fn hosts(name: &'static str, virtual_hosts: Value) -> Self {
        let hcm = json!({});
        Case {
            name,
            virtual_hosts,
            hcm,
            clusters: |_| Vec::new(),
            exchanges: Vec::new(),
            drive: None,
            statistics: None,
            compare_logs: true,
            deviations: Vec::new(),
        }
    }

    /// A case with these routes for every domain.
    pub fn routes(name: &'static str, routes: Value) -> Self {
        Self::hosts(name, any_host(routes))
    }

    /// A case that routes everything to the HTTP/1 upstream.
    pub fn plain(name: &'static str) -> Self {
        Self::routes(name, crate::bootstrap::to("up"))
    }

    /// Lays these members over the HttpConnectionManager.
    #[must_use]
    pub fn hcm(mut self, hcm: Value) -> Self {
        self.hcm = hcm;
        self
    }

    /// Adds clusters beside those of the [`World`].
    #[must_use]
    pub fn clusters(mut self, clusters: fn(&World) -> Vec<Value>) -> Self {
        self.clusters = clusters;
        self
    }

    /// Sends a `GET` for each path.
    #[must_use]
    pub fn paths(mut self, paths: &[&str]) -> Self {
        for path in paths {
            self = self.send(&format!("GET {path}"), &format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
        }
        self
    }

    /// Sends a `GET /` with each `Host`.
    #[must_use]
    pub fn authorities(mut self, hosts: &[&str]) -> Self {
        for host in hosts {
            self = self.send(&format!("Host: {host}"), &format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        }
        self
    }

    /// Sends a `GET /` for each set of header lines, each ending in `\r\n`.
    #[must_use]
    pub fn header_lines(mut self, sets: &[&str]) -> Self {
        for lines in sets {
            self = self.send(lines.trim_end(), &format!("GET / HTTP/1.1\r\nhost: h\r\n{lines}\r\n"));
        }
        self
    }

    /// Sends exactly these bytes and reads one response.
    #[must_use]
    pub fn send(mut self, name: &str, bytes: &str) -> Self {
        self.exchanges.push(Exchange {
            name: name.into(),
            bytes: bytes.into(),
            half_close: false,
            responses: 1,
            look_for_close: false,
        });
        self
    }

    /// Sends these bytes, reads one response and looks whether the connection is then closed.
    #[must_use]
    pub fn send_and_look(mut self, name: &str, bytes: &str) -> Self {
        self = self.send(name, bytes);
        self.with_last(|exchange| exchange.look_for_close = true)
    }

    /// Sends these bytes, says that no more will come and reads what is answered.
    #[must_use]
    pub fn send_cut_off(mut self, name: &str, bytes: &str) -> Self {
        self = self.send(name, bytes);
        self.with_last(|exchange| exchange.half_close = true)
    }

    /// Sends these bytes and reads this many responses from the one connection.
    #[must_use]
    pub fn send_for(mut self, responses: usize, name: &str, bytes: &str) -> Self {
        self = self.send(name, bytes);
        self.with_last(|exchange| exchange.responses = responses)
    }

    /// Drives the case by hand: for concurrency, other clients, counting.
    #[must_use]
    pub fn drive(mut self, drive: fn(&Target<'_>, &mut View)) -> Self {
        self.drive = Some(drive);
        self
    }

    /// Compares what counters and gauges whose dotted name this regex finds say at the end.
    #[must_use]
    pub fn statistics(mut self, filter: &'static str) -> Self {
        self.statistics = Some(filter);
        self
    }

    /// Says that ours differs on purpose in the block of this name, and why. The block is then expected to differ: a
    /// deviation that is none any more fails the test as well.
    #[must_use]
    pub fn deviates(mut self, block: &'static str, reason: &'static str) -> Self {
        self.deviations.push((block, reason));
        self
    }

    /// Leaves the access logs out: for cases whose requests take a random way.
    #[must_use]
    pub fn without_logs(mut self) -> Self {
        self.compare_logs = false;
        self
    }

    fn with_last(mut self, change: impl FnOnce(&mut Exchange)) -> Self {
        if let Some(exchange) = self.exchanges.last_mut() {
            change(exchange);
        }
        self
    }
}
