//! Which virtual host a request's authority picks.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

/// A virtual host that answers with its own name.
fn host(domains: &[&str]) -> Value {
    json!({"name": domains.join(","), "domains": domains, "routes": [{
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": domains.join(",")}},
    }]})
}

#[test]
fn virtual_hosts() {
    compare_cases(&[
        Case::hosts(
            "exact before suffix before prefix before any",
            json!([
                host(&["*"]),
                host(&["foo.*", "foo-*"]),
                host(&["*.example.com", "*-bar.example.com"]),
                host(&["a.example.com", "b.example.com:8080"]),
                host(&["*.long.example.com"]),
                host(&["foo.bar.*"]),
            ]),
        )
        .authorities(&[
            "a.example.com",
            "A.EXAMPLE.com",
            "a.example.com:80",
            "a.example.com:8080",
            "b.example.com:8080",
            "b.example.com",
            "x.example.com",
            "x.y.example.com",
            "x.long.example.com",
            ".example.com",
            "example.com",
            "x-bar.example.com",
            "-bar.example.com",
            "foo.com",
            "foo.bar.com",
            "foo.",
            "foo-1",
            "foo",
            "x.example.com:8080",
            "127.0.0.1",
            "[::1]:80",
            "[::1]",
            "a.example.com.",
        ]),
        Case::hosts("no host for it", json!([host(&["a.example.com"])])).authorities(&["a.example.com", "b"]),
        Case::hosts("suffix with a port", json!([host(&["*.example.com:81"]), host(&["*"])])).authorities(&[
            "x.example.com:81",
            "x.example.com",
            "x.example.com:82",
        ]),
        Case::hosts("upper case in the file", json!([host(&["UP.Example.com"]), host(&["*"])]))
            .authorities(&["up.example.com", "UP.Example.com"]),
    ]);
}
