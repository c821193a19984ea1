//! What is around the proxy under comparison: upstreams whose answer the request's path asks for, and the file.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, View, mask_log_line};
use crate::addr::{RefusingAddr, free_addr};
use crate::bootstrap::{
    Bootstrap, cluster, file_access_log, http_connection_manager, http2_upstream, listener, overlay,
};
use crate::client::RawClient;
use crate::message::{Request, Response};
use crate::proxy::{Engine, Launch};
use crate::upstream::{FrameUpstream, Gate, Http2Upstream, Reply, Upstream};
use crate::wait;

/// Istio's default text format.
pub const ISTIO_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// The upstreams and the file of a group of cases.
///
/// Clusters that every case can name: `up` and `up2` (HTTP/1), `h2` (HTTP/2), `frames` (HTTP/2, frame by frame), `refusing` (nobody
/// listens), `empty` (no endpoint).
#[derive(Debug)]
pub struct World {
    /// The HTTP/1 upstream of the cluster `up`.
    pub up: Upstream,
    /// The HTTP/1 upstream of the cluster `up2`.
    pub up2: Upstream,
    /// The HTTP/2 upstream of the cluster `h2`.
    pub h2: Http2Upstream,
    /// The HTTP/2 upstream of the cluster `frames`.
    pub frames: FrameUpstream,
    refusing: RefusingAddr,
    /// The file that both run; its admin address serves the one that runs now.
    pub bootstrap: Bootstrap,
    listeners: Vec<SocketAddr>,
}

/// One case while it runs.
#[derive(Debug)]
pub struct Target<'a> {
    /// The listener of the case.
    pub addr: SocketAddr,
    /// What is around it.
    pub world: &'a World,
}

impl World {
    /// Starts the upstreams and writes the file.
    pub fn new(cases: &[Case]) -> Self {
        Self::under(&json!({}), cases)
    }

    /// Starts the upstreams and writes the file, with these members of the bootstrap laid over it.
    pub fn under(bootstrap: &Value, cases: &[Case]) -> Self {
        let world = World {
            up: Upstream::start(),
            up2: Upstream::start(),
            h2: Http2Upstream::start(),
            frames: FrameUpstream::start(),
            refusing: RefusingAddr::reserve(),
            bootstrap: Bootstrap::new(),
            listeners: cases.iter().map(|_| free_addr()).collect(),
        };
        world.reset_scripts();
        let mut clusters = vec![
            cluster("up", &[world.up.addr()], Value::Null),
            cluster("up2", &[world.up2.addr()], Value::Null),
            cluster("h2", &[world.h2.addr()], http2_upstream()),
            cluster("frames", &[world.frames.addr()], http2_upstream()),
            cluster("refusing", &[world.refusing.addr()], Value::Null),
            cluster("empty", &[], Value::Null),
        ];
        clusters.extend(cases.iter().flat_map(|case| (case.clusters)(&world)));
        let listeners = cases.iter().zip(&world.listeners).enumerate();
        let listeners: Vec<Value> =
            listeners.map(|(number, (case, addr))| world.listener(number, case, *addr)).collect();
        let mut file = json!({
            "node": {"id": "node", "cluster": "service"},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        overlay(&mut file, bootstrap.clone());
        world.bootstrap.write_value(&file);
        world
    }

    /// The address of the cluster `refusing`.
    pub fn refusing(&self) -> SocketAddr {
        self.refusing.addr()
    }

    /// Where the case of this number listens.
    pub fn listener_addr(&self, case: usize) -> SocketAddr {
        self.listeners[case]
    }

    fn listener(&self, number: usize, case: &Case, addr: SocketAddr) -> Value {
        let mut more = json!({"access_log": [
            file_access_log(&self.bootstrap.path(&default_log(number)), None),
            file_access_log(&self.bootstrap.path(&istio_log(number)), Some(ISTIO_FORMAT)),
        ]});
        overlay(&mut more, case.hcm.clone());
        listener(case.name, addr, http_connection_manager(case.virtual_hosts.clone(), more))
    }

    fn reset_scripts(&self) {
        self.up.answer_with(answer);
        self.up2.answer_with(|request| match answer(request) {
            Reply::Respond(response) => Reply::Respond(Response { body: b"second".into(), ..response }),
            other => other,
        });
        self.h2.answer_with(answer);
    }

    /// Runs all cases through `engine`; `None` when Envoy is not installed.
    pub fn observe(&self, engine: Engine, cases: &[Case]) -> Option<View> {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&self.bootstrap)?;
        let mut seen: Vec<View> = Vec::new();
        for (case, addr) in cases.iter().zip(&self.listeners) {
            let mut view = View::default();
            self.run(case, *addr, &mut view);
            seen.push(view);
        }
        // Logs are whole only after the end: both proxies buffer them.
        proxy.stop();
        let mut all = View::default();
        for (number, (case, view)) in cases.iter().zip(seen).enumerate() {
            all.append(case.name, view);
            if !case.compare_logs {
                continue;
            }
            for (kind, file) in [("default log", default_log(number)), ("istio log", istio_log(number))] {
                // A block for each line, so that one line's difference hides no other's.
                for (line, text) in self.bootstrap.take_log(&file).iter().enumerate() {
                    let text = mask_log_line(text);
                    all.add(format!("{}: {kind} {}", case.name, line + 1), format!("  {text}\n"));
                }
            }
        }
        Some(all)
    }

    fn run(&self, case: &Case, addr: SocketAddr, view: &mut View) {
        self.take_requests();
        for exchange in &case.exchanges {
            let mut client = match RawClient::connect(addr) {
                Ok(client) => client,
                Err(error) => {
                    view.add(format!("{}: connect", exchange.name), format!("{error}\n"));
                    continue;
                }
            };
            client.send(&exchange.bytes);
            if exchange.half_close {
                client.finish();
            }
            let method = exchange.bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            let method = String::from_utf8_lossy(method).into_owned();
            let mut announced = true;
            for _ in 0..exchange.responses {
                let answer = client.response_to(&method);
                announced =
                    !answer.as_ref().is_ok_and(|response| !response.headers.lists("connection", "close"));
                view.add_answer(format!("{}: client", exchange.name), &answer);
            }
            if exchange.look_for_close {
                // An announced close may come late: Envoy waits up to a second for the client to go first.
                let limit = Duration::from_millis(if announced { 3_000 } else { 100 });
                let closed = client.closes_within(limit);
                view.add(format!("{}: closed", exchange.name), format!("  {closed}\n"));
            }
            view.add_requests(format!("{}: upstream", exchange.name), &self.take_requests());
        }
        if let Some(drive) = case.drive {
            drive(&Target { addr, world: self }, view);
            self.reset_scripts();
        }
        if let Some(filter) = case.statistics {
            view.add("statistics", self.statistics(filter));
        }
    }

    /// The counters and gauges that this regex finds, once no request is in flight.
    fn statistics(&self, filter: &str) -> String {
        wait::until("all requests have ended", || {
            // Envoy's admin listener counts the very request that asks.
            let active = self.stats("downstream_rq_active");
            active.lines().all(|line| line.ends_with(": 0") || line.starts_with("http.admin."))
        });
        let used = self.stats(filter);
        let used = used.lines().filter(|line| !line.ends_with(": 0") && !line.contains(": P"));
        used.map(|line| format!("  {line}\n")).collect()
    }

    fn stats(&self, filter: &str) -> String {
        self.admin("GET", &format!("/stats?usedonly&filter={filter}")).text()
    }

    /// The answer of the admin listener of the proxy that runs now.
    pub fn admin(&self, method: &str, path: &str) -> Response {
        let mut client = RawClient::connect(self.bootstrap.admin).expect("connect to the admin listener");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n");
        client.send(format!("{head}content-length: 0\r\n\r\n").as_bytes());
        client.response().expect("an answer of the admin listener")
    }

    /// The requests that reached any upstream since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        let mut requests = self.up.take_requests();
        requests.extend(self.up2.take_requests());
        requests.extend(self.h2.take_requests());
        requests
    }
}

impl View {
    fn append(&mut self, case: &str, view: View) {
        for (name, text) in view.blocks() {
            self.add(format!("{case}: {name}"), text);
        }
    }
}

fn default_log(case: usize) -> String {
    format!("{case}-default.log")
}

fn istio_log(case: usize) -> String {
    format!("{case}-istio.log")
}

/// The answer that the last segment of the path asks for.
fn answer(request: &Request) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    let ok = || Response::new(200, "ok").header("x-from", "upstream");
    // A second attempt is told from the first by the header that a virtual host adds when it is asked to.
    let second_attempt = request.headers.get("x-envoy-attempt-count").is_some_and(|count| count != "1");
    if path.contains("/recovers/") && second_attempt {
        return Reply::Respond(ok());
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "404" => Reply::status(404, "not here"),
        "503" => Reply::status(503, "busy"),
        "204" => Reply::Respond(Response::new(204, "")),
        "304" => Reply::Respond(Response::new(304, "").header("etag", "\"1\"")),
        "chunked" => Reply::Chunks(ok(), vec![b"one ".into(), b"two".into()]),
        "trailers" => {
            let mut response = ok();
            response.trailers.0.push(("x-trailer".into(), "last".into()));
            Reply::Chunks(response, vec![b"body".into()])
        }
        "large" => Reply::Respond(Response::new(200, vec![b'x'; 1 << 20])),
        "until-close" => Reply::Raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nno length".into()),
        "close-header" => Reply::RespondThenClose(ok().header("connection", "close")),
        "hop-by-hop" => Reply::Respond(
            ok().header("connection", "x-hop")
                .header("x-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("proxy-connection", "keep-alive"),
        ),
        "headers" => Reply::Respond(
            ok().header("Set-Cookie", "a=1")
                .header("set-cookie", "b=2")
                .header("X-Mixed-Case", "Yes")
                .header("server", "mine")
                .header("x-empty", ""),
        ),
        "repeated" => Reply::Respond(
            [
                "vary",
                "etag",
                "cache-control",
                "location",
                "via",
                "server",
                "content-language",
                "link",
                "x-own",
            ]
            .iter()
            .fold(ok(), |response, name| response.header(name, "a").header(name, "b")),
        ),
        "mixed-case" => Reply::Respond(ok().header("X-Mixed-CASE", "Yes").header("Etag", "\"1\"")),
        "http10" => Reply::RespondThenClose(Response { version: "HTTP/1.0".into(), ..ok() }),
        "close" => Reply::Close,
        "reset" => Reply::Reset,
        "reset-after-head" => Reply::ResetAfterHead(Response::new(200, "half of this is lost")),
        "garbage" => Reply::Raw(b"this is not HTTP\r\n\r\n".into()),
        "stall" => Reply::Stall,
        "half" => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".into()),
        "retry-after" => Reply::Respond(Response::new(503, "later").header("retry-after", "1")),
        "rate-limited" => Reply::Respond(Response::new(429, "").header("x-envoy-ratelimited", "true")),
        "overloaded" => Reply::Respond(Response::new(503, "").header("x-envoy-overloaded", "true")),
        "retriable" => Reply::Respond(Response::new(200, "again").header("x-retriable", "yes")),
        head if head.starts_with("kilobytes-") => {
            // In headers of one kilobyte: names, values and what is between them.
            let count = head.trim_start_matches("kilobytes-").parse().unwrap_or(0);
            Reply::Respond((0..count).fold(ok(), |response, number| {
                response.header(&format!("x-{number:02}"), &"v".repeat(1024 - 8))
            }))
        }
        head if head.starts_with("fields-") => {
            // With those that every response has.
            let count = head.trim_start_matches("fields-").parse().unwrap_or(0);
            Reply::Respond((0..count).fold(Response::new(200, "ok"), |response, number| {
                response.header(&format!("x-{number}"), "v")
            }))
        }
        grpc if grpc.starts_with("grpc-") => Reply::Respond(
            Response::new(200, "")
                .header("content-type", "application/grpc")
                .header("grpc-status", grpc.trim_start_matches("grpc-")),
        ),
        status if status.parse::<u16>().is_ok_and(|s| (200..600).contains(&s)) => {
            Reply::status(status.parse().unwrap_or(500), "as asked")
        }
        _ => Reply::Respond(ok()),
    }
}

/// Makes the upstream hold every answer until the gate is opened.
pub fn hold(upstream: &Upstream) -> Gate {
    let gate = Gate::closed();
    let held = gate.clone();
    upstream.answer_with(move |request| Reply::Hold(held.clone(), Box::new(answer(request))));
    gate
}
