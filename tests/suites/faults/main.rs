//! What goes wrong while a proxy runs: the right status and flag, the last good state serves on, nothing leaks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
mod descriptors;
mod dns;
mod leaks;
mod overload;
mod tls;
mod upstreams;
mod xds;

use std::net::SocketAddr;

use outrigger_tests::bootstrap::{any_host, file_access_log, http_connection_manager, listener};
use outrigger_tests::{Bootstrap, Proxy, addr};
use serde_json::{Value, json};

/// The parts of an access log line that the suites look at.
const LOG_FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %REQ(:PATH)%\n";

/// One of our proxies with one HTTP listener and a log of codes and flags.
struct Fixture {
    proxy: Proxy,
    bootstrap: Bootstrap,
    addr: SocketAddr,
}

impl Fixture {
    fn start(routes: Value, clusters: &[Value]) -> Self {
        Self::prepare(routes, clusters, json!({}), |bootstrap| Proxy::outrigger(bootstrap))
    }

    fn prepare(
        routes: Value,
        clusters: &[Value],
        filter_chain: Value,
        start: impl FnOnce(&Bootstrap) -> Proxy,
    ) -> Self {
        let (bootstrap, addr) = (Bootstrap::new(), addr::free_addr());
        let log = file_access_log(&bootstrap.path("access.log"), Some(LOG_FORMAT));
        let manager = http_connection_manager(any_host(routes), json!({"access_log": [log]}));
        let mut listener = listener("ingress", addr, manager);
        outrigger_tests::bootstrap::overlay(&mut listener["filter_chains"][0], filter_chain);
        bootstrap.write(&[listener], clusters);
        let proxy = start(&bootstrap);
        Fixture { proxy, bootstrap, addr }
    }

    /// Stops the proxy, so that the log is whole, and gives its lines.
    fn into_log(self) -> Vec<String> {
        self.proxy.stop();
        self.bootstrap.take_log("access.log")
    }
}
