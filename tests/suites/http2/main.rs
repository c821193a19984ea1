//! HTTP/2 by the sections of RFC 9113: what clients do wrong, frame by frame, asked of a real Envoy too, so that an expectation which
//! nobody meets is not a rule; and what they send too much of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abuse;
mod conformance;

use std::net::SocketAddr;

use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, overlay, to};
use outrigger_tests::client::frames::{Frame, FrameClient, PREFACE, block, flag, kind};
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::{Bootstrap, Engine, Proxy, Upstream, addr};
use serde_json::{Value, json};

/// Error codes (RFC 9113 section 7).
mod code {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const PROTOCOL: u32 = 1;
    pub(crate) const FLOW_CONTROL: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION: u32 = 9;
    pub(crate) const CALM: u32 = 11;
}

/// One proxy before one upstream that answers everything.
struct Fixture {
    proxy: Proxy,
    upstream: Option<Upstream>,
    addr: SocketAddr,
    _bootstrap: Bootstrap,
}

impl Fixture {
    /// `None`: it is not installed.
    #[track_caller]
    fn start(engine: Engine, manager: Value) -> Option<Self> {
        let upstream = Upstream::start();
        let at = upstream.addr();
        Some(Self { upstream: Some(upstream), ..Self::before(engine, manager, at)? })
    }

    /// The same before an upstream of the test's own.
    #[track_caller]
    fn before(engine: Engine, manager: Value, upstream: SocketAddr) -> Option<Self> {
        let (bootstrap, addr) = (Bootstrap::new(), addr::free_addr());
        let mut settings = json!({"codec_type": "HTTP2"});
        overlay(&mut settings, manager);
        let manager = http_connection_manager(any_host(to("up")), settings);
        bootstrap.write(&[listener("ingress", addr, manager)], &[cluster("up", &[upstream], json!({}))]);
        let proxy = Proxy::start(engine, &bootstrap)?;
        Some(Self { proxy, upstream: None, addr, _bootstrap: bootstrap })
    }

    /// Requests that reached the upstream since the last call.
    fn take_requests(&self) -> usize {
        self.upstream.as_ref().map_or(0, |upstream| upstream.take_requests().len())
    }

    /// Whether a client that does everything right is served.
    fn serves(&self) -> bool {
        let mut client = FrameClient::connect(self.addr);
        client.send(&get(1));
        let ended = std::iter::from_fn(|| client.frame()).find(|frame| frame.stream == 1 && frame.is_last());
        ended.is_some_and(|frame| frame.kind != kind::RESET)
    }
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h")];

/// A whole request of these fields.
fn request(stream: u32, fields: &[(&str, &str)]) -> Frame {
    Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, block(fields))
}

/// A whole GET.
fn get(stream: u32) -> Frame {
    request(stream, &GET)
}

/// The head of a POST, whose body is to come.
fn post(stream: u32, more: &[(&str, &str)]) -> Frame {
    let fields: Vec<_> = [(":method", "POST")].iter().chain(&GET[1..]).chain(more).copied().collect();
    Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block(&fields))
}
