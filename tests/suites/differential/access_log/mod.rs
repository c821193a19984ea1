//! Access logs in formats of their own: a line says the same in both proxies.

mod closing;
mod filters;
mod fingerprints;
mod moments;
mod operators;
mod tls;
mod wire;

use std::net::SocketAddr;

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    any_host, cluster, file_access_log, http_connection_manager, http2_upstream, listener, overlay,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{Http2Upstream, Reply, Upstream};
use outrigger_tests::{Bootstrap, Response};
use serde_json::{Value, json};

/// A connection manager with one log, and what is sent through it.
struct Row {
    name: &'static str,
    /// The log's `log_format`.
    format: Value,
    /// The log's `filter`.
    filter: Value,
    routes: Value,
    hcm: Value,
    /// Requests, each on a connection of its own, or in turns on one.
    requests: Vec<Vec<String>>,
}

impl Row {
    /// A text format, and a `GET` for each path.
    fn text(name: &'static str, format: &str, paths: &[&str]) -> Self {
        Self::new(name, json!({"text_format_source": {"inline_string": format!("{format}\n")}}), paths)
    }

    fn new(name: &'static str, format: Value, paths: &[&str]) -> Self {
        Row {
            name,
            format,
            filter: Value::Null,
            routes: json!([
                {"match": {"prefix": "/h2/"}, "route": {"cluster": "h2"}, "name": "to-h2"},
                {"match": {"prefix": "/away"}, "route": {"cluster": "refusing"}},
                {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
                {"match": {"prefix": "/old"}, "route": {"cluster": "up", "prefix_rewrite": "/new"},
                    "request_headers_to_add": [{"header": {"key": "x-added", "value": "by route"}}]},
                {"match": {"prefix": "/"}, "route": {"cluster": "up"}, "name": "rest", "metadata": metadata()},
            ]),
            hcm: json!({}),
            requests: paths.iter().map(|path| vec![get(path, "")]).collect(),
        }
    }

    fn filter(mut self, filter: Value) -> Self {
        self.filter = filter;
        self
    }

    fn hcm(mut self, hcm: Value) -> Self {
        self.hcm = hcm;
        self
    }

    fn send(mut self, request: String) -> Self {
        self.requests.push(vec![request]);
        self
    }

    /// Several requests on one connection.
    fn send_in_turns(mut self, requests: &[&str]) -> Self {
        self.requests.push(requests.iter().map(|request| (*request).to_owned()).collect());
        self
    }

    fn listener(&self, bootstrap: &Bootstrap, number: usize, addr: SocketAddr) -> Value {
        let mut log = file_access_log(&bootstrap.path(&file(number)), None);
        log["typed_config"]["log_format"] = self.format.clone();
        if !self.filter.is_null() {
            log["filter"] = self.filter.clone();
        }
        let mut hcm = json!({"access_log": [log]});
        overlay(&mut hcm, self.hcm.clone());
        let mut listener =
            listener(self.name, addr, http_connection_manager(any_host(self.routes.clone()), hcm));
        listener["filter_chains"][0]["name"] = "the-chain".into();
        listener
    }
}

/// A `GET`; each of the header lines ends in `\r\n`.
fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h.example:80\r\n{lines}\r\n")
}

fn file(number: usize) -> String {
    format!("{number}.log")
}

fn metadata() -> Value {
    json!({"filter_metadata": {"ns": {
        "text": "a \"b\"", "number": 3, "half": 1.5, "yes": true, "list": [1, "a", null], "object": {"k": "v", "a": 1}}}})
}

/// The upstream's answer by the path's end.
fn answer(request: &outrigger_tests::Request) -> Reply {
    let ok = Response::new(200, "ok").header("x-from", "upstream");
    match request.target.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default() {
        "trailers" => {
            let mut response = ok.header("content-type", "application/grpc");
            response.trailers.0.push(("grpc-status".into(), "5".into()));
            response.trailers.0.push(("x-trailer".into(), "last".into()));
            Reply::Respond(response)
        }
        "grpc" => Reply::Respond(ok.header("grpc-status", "14")),
        "503" => Reply::status(503, "busy"),
        _ => Reply::Respond(ok),
    }
}

/// The same requests through both proxies: their logs must be equal.
#[track_caller]
fn compare_logs(rows: &[Row]) {
    let (up, h2) = (Upstream::start(), Http2Upstream::start());
    up.answer_with(answer);
    h2.answer_with(answer);
    let refusing = outrigger_tests::addr::RefusingAddr::reserve();
    let mut of_up = cluster("up", &[up.addr()], json!({"metadata": metadata(), "alt_stat_name": "other"}));
    of_up["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = metadata();
    let clusters = [
        of_up,
        cluster("h2", &[h2.addr()], http2_upstream()),
        cluster("refusing", &[refusing.addr()], Value::Null),
    ];
    let bootstrap = Bootstrap::new();
    let addrs: Vec<SocketAddr> = rows.iter().map(|_| free_addr()).collect();
    let listeners: Vec<Value> = (rows.iter().zip(&addrs).enumerate())
        .map(|(number, (row, addr))| row.listener(&bootstrap, number, *addr))
        .collect();
    bootstrap.write(&listeners, &clusters);
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut view = View::default();
        for (row, addr) in rows.iter().zip(&addrs) {
            for requests in &row.requests {
                let mut client = RawClient::connect(*addr).unwrap();
                for request in requests {
                    client.send(request.as_bytes());
                    let method = request.split(' ').next().unwrap_or_default();
                    let status = client.response_to(method).map(|response| response.status);
                    view.add(
                        format!("{}: status", row.name),
                        format!("{:?}\n", status.map_err(|e| e.kind())),
                    );
                }
            }
        }
        proxy.stop();
        for (number, row) in rows.iter().enumerate() {
            let lines = bootstrap.take_log(&file(number));
            for (at, line) in lines.iter().enumerate() {
                view.add(format!("{}: line {}", row.name, at + 1), format!("{line}\n"));
            }
        }
        Some(view)
    });
}
