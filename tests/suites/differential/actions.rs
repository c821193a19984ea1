//! What a matched route does.

use outrigger_tests::Http2Client;
use outrigger_tests::RawClient;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use serde_json::{Value, json};

fn redirect(name: &'static str, condition: Value, redirect: Value) -> Case {
    Case::routes(name, json!([{"match": condition, "redirect": redirect}]))
}

#[test]
fn redirects() {
    let any = || json!({"prefix": "/"});
    let paths = ["/", "/a/b?x=1&y=2", "/old/x?q"];
    compare_cases(&[
        redirect("https", any(), json!({"https_redirect": true}))
            .paths(&paths)
            .authorities(&["h:80", "h:8080", "H.com"]),
        redirect("scheme", any(), json!({"scheme_redirect": "https"})).paths(&paths).authorities(&["h:80"]),
        redirect("host", any(), json!({"host_redirect": "new.example.com"}))
            .paths(&paths)
            .authorities(&["h:8080"]),
        redirect("port", any(), json!({"port_redirect": 8443})).paths(&paths).authorities(&["h:80"]),
        redirect(
            "host, port and scheme",
            any(),
            json!({"host_redirect": "n", "port_redirect": 443, "https_redirect": true}),
        )
        .paths(&paths),
        redirect("path", any(), json!({"path_redirect": "/new"})).paths(&paths),
        redirect("path with a query", any(), json!({"path_redirect": "/new?z=1"})).paths(&paths),
        redirect("path, query stripped", any(), json!({"path_redirect": "/new", "strip_query": true}))
            .paths(&paths),
        redirect("query stripped", any(), json!({"host_redirect": "n", "strip_query": true})).paths(&paths),
        redirect("prefix rewrite", json!({"prefix": "/old"}), json!({"prefix_rewrite": "/new"}))
            .paths(&["/old", "/old/x?q", "/older"]),
        redirect("prefix rewrite of a path", json!({"path": "/old"}), json!({"prefix_rewrite": "/new"}))
            .paths(&["/old?x"]),
        redirect(
            "separated prefix rewrite",
            json!({"path_separated_prefix": "/old"}),
            json!({"prefix_rewrite": "/new"}),
        )
        .paths(&["/old", "/old/x?q", "/old?x"]),
        redirect("301", any(), json!({"host_redirect": "n", "response_code": "MOVED_PERMANENTLY"}))
            .paths(&["/"]),
        redirect("302", any(), json!({"host_redirect": "n", "response_code": "FOUND"})).paths(&["/"]),
        redirect("303", any(), json!({"host_redirect": "n", "response_code": "SEE_OTHER"})).paths(&["/"]),
        redirect("307", any(), json!({"host_redirect": "n", "response_code": "TEMPORARY_REDIRECT"}))
            .paths(&["/"]),
        redirect("308", any(), json!({"host_redirect": "n", "response_code": "PERMANENT_REDIRECT"}))
            .send("POST", "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
            .send("HEAD", "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
            .deviates("HEAD: client", "Envoy announces a chunked body that a HEAD never has"),
    ]);
}

#[test]
fn direct_responses() {
    let answer = |name: &'static str, direct: Value| {
        Case::routes(name, json!([{"match": {"prefix": "/"}, "direct_response": direct}]))
    };
    compare_cases(&[
        answer("with a body", json!({"status": 200, "body": {"inline_string": "hello"}}))
            .paths(&["/"])
            .send("HEAD", "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
            .send("POST", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello")
            .send_for(
                2,
                "two on one connection",
                "GET / HTTP/1.1\r\nhost: h\r\n\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n",
            ),
        answer("without a body", json!({"status": 403})).paths(&["/"]),
        answer("bytes", json!({"status": 404, "body": {"inline_bytes": "bm90IGhlcmU="}})).paths(&["/"]),
        answer("204", json!({"status": 204})).paths(&["/"]),
        answer("503", json!({"status": 503, "body": {"inline_string": "later"}})).paths(&["/"]),
        answer("599", json!({"status": 599, "body": {"inline_string": "odd"}})).paths(&["/"]),
        answer("http2 client", json!({"status": 200, "body": {"inline_string": "hello"}})).drive(http2_get),
    ]);
}

fn http2_get(target: &Target<'_>, view: &mut View) {
    let client = Http2Client::connect(target.addr).unwrap();
    let answer = client.get("h", "/").map_err(std::io::Error::other);
    view.add_answer("h2 client", &answer);
}

#[test]
fn timeouts() {
    let route = |name: &'static str, action: Value| {
        Case::routes(name, json!([{"match": {"prefix": "/"}, "route": action}]))
    };
    compare_cases(&[
        route("times out", json!({"cluster": "up", "timeout": "0.2s"}))
            .paths(&["/stall", "/fast"])
            .send("POST", "POST /stall HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello"),
        route("times out on http2", json!({"cluster": "h2", "timeout": "0.2s"})).paths(&["/stall", "/fast"]),
        route("no timeout", json!({"cluster": "up", "timeout": "0s"})).paths(&["/fast"]),
        route("the default is 15 s", json!({"cluster": "up"})).paths(&["/fast"]),
        route("header lowers it", json!({"cluster": "up", "timeout": "5s"}))
            .send("100 ms", "GET /stall HTTP/1.1\r\nhost: h\r\nx-envoy-upstream-rq-timeout-ms: 100\r\n\r\n"),
    ]);
}

#[test]
fn weighted_clusters() {
    let weighted = |clusters: Value| json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}]);
    compare_cases(&[
        Case::routes(
            "90 to 10",
            weighted(json!([{"name": "up", "weight": 90}, {"name": "up2", "weight": 10}])),
        )
        .drive(|target, view| split(target, view, 0.1))
        .without_logs(),
        Case::routes("1 to 3", weighted(json!([{"name": "up", "weight": 1}, {"name": "up2", "weight": 3}])))
            .drive(|target, view| split(target, view, 0.75))
            .without_logs(),
        Case::routes(
            "all to one",
            weighted(json!([{"name": "up", "weight": 0}, {"name": "up2", "weight": 5}])),
        )
        .paths(&["/", "/", "/"]),
    ]);
}

/// Sends 2,000 requests and tells whether the share of `up2` is within the 99.9 % bounds of a binomial distribution.
fn split(target: &Target<'_>, view: &mut View, share: f64) {
    const REQUESTS: u32 = 2_000;
    const SIGMAS: f64 = 3.29;
    let mut client = RawClient::connect(target.addr).unwrap();
    let answers = (0..REQUESTS).map(|_| client.get("h", "/").unwrap());
    let second = answers.filter(|response| response.text() == "second").count();
    target.world.take_requests();
    let expected = f64::from(REQUESTS) * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    let off = (second as f64 - expected).abs() / deviation;
    view.add(
        "split",
        if off <= SIGMAS { "within bounds\n".into() } else { format!("{second}: {off} sigmas off\n") },
    );
}
