//! CORS: preflight and other requests across origins.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::{chain, filter, says, typed};

fn policy(config: Value) -> Value {
    says("cors", typed("cors.v3.CorsPolicy", config))
}

fn hosts(of_host: Value, of_route: Value) -> Value {
    json!([{"name": "v", "domains": ["*"], "typed_per_filter_config": of_host, "routes": [
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}, "typed_per_filter_config": of_route},
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}, "typed_per_filter_config": of_route,
            "response_headers_to_add": [{"header": {"key": "x-route", "value": "1"}}]}]}])
}

fn case(name: &'static str, hosts: Value) -> Case {
    let preflight = |origin: &str, more: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nhost: h\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\n{more}\r\n"
        )
    };
    let get = |path: &str, lines: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n");
    Case::hosts(name, hosts)
        .hcm(chain(&[filter("cors", "cors.v3.Cors", json!({}))]))
        .send("preflight", &preflight("https://a.example.com", ""))
        .send("preflight of another", &preflight("https://evil.example.org", ""))
        .send(
            "preflight, private network",
            &preflight("https://a.example.com", "access-control-request-private-network: true\r\n"),
        )
        .send("OPTIONS", "OPTIONS / HTTP/1.1\r\nhost: h\r\norigin: https://a.example.com\r\n\r\n")
        .send("GET", &get("/", "origin: https://a.example.com\r\n"))
        .send("GET of another", &get("/", "origin: https://evil.example.org\r\n"))
        .send("GET without an origin", &get("/", ""))
        .send("GET, refused upstream", &get("/503", "origin: https://a.example.com\r\n"))
        .send("direct", &get("/direct", "origin: https://a.example.com\r\n"))
}

#[test]
fn policies() {
    let all = json!({
        "allow_origin_string_match": [{"exact": "https://a.example.com"}],
        "allow_methods": "GET,PUT", "allow_headers": "x-a", "expose_headers": "x-b", "max_age": "60",
        "allow_credentials": true, "allow_private_network_access": true,
    });
    let origins = |matcher: Value| json!({ "allow_origin_string_match": [matcher] });
    compare_cases(&[
        case("everything", hosts(json!({}), policy(all.clone()))),
        case("virtual host", hosts(policy(all.clone()), json!({}))),
        case("no policy", hosts(json!({}), json!({}))),
        case("origin alone", hosts(json!({}), policy(origins(json!({"exact": "https://a.example.com"}))))),
        case("any origin", hosts(json!({}), policy(origins(json!({"exact": "*"}))))),
        case("prefix", hosts(json!({}), policy(origins(json!({"prefix": "https://a."}))))),
        case(
            "regex",
            hosts(
                json!({}),
                policy(origins(json!({"safe_regex": {"regex": "https://[a-c]\\.example\\.com"}}))),
            ),
        ),
        case(
            "both places",
            hosts(policy(all), policy(json!({"allow_methods": "DELETE", "allow_credentials": false}))),
        ),
        case(
            "switched off",
            hosts(
                json!({}),
                policy(json!({"allow_origin_string_match": [{"exact": "*"}],
                    "filter_enabled": {"default_value": {"numerator": 0}}})),
            ),
        ),
        case(
            "preflights of others are answered",
            hosts(
                json!({}),
                policy(json!({"allow_origin_string_match": [{"exact": "https://a.example.com"}],
                    "forward_not_matching_preflights": false})),
            ),
        ),
    ]);
}
