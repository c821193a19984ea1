//! How long a request's line and its head may be.

use outrigger_tests::Http2Client;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use serde_json::json;

const URL: &str =
    "the engine takes 65,534 bytes of a URL, whatever a head may have; Envoy has no limit of its own";

fn long_path(length: usize) -> String {
    format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(length - 1))
}

#[test]
fn lengths_of_urls() {
    let long = |case: Case| {
        [8_000, 50_000]
            .into_iter()
            .fold(case, |case, length| case.send(&format!("{length} bytes"), &long_path(length)))
    };
    compare_cases(&[
        long(Case::plain("by default")).send("more than a head may have", &long_path(70_000)),
        long(Case::plain("more allowed").hcm(json!({"max_request_headers_kb": 96})))
            .send("65534 bytes", &long_path(65_534))
            .send("70000 bytes", &long_path(70_000))
            .deviates("70000 bytes: client", URL)
            .deviates("70000 bytes: upstream", URL)
            .deviates("default log 4", URL)
            .deviates("istio log 4", URL),
        long(Case::plain("less allowed").hcm(json!({"max_request_headers_kb": 4}))),
        Case::plain("http2").drive(over_http2),
    ]);
}

fn over_http2(target: &Target<'_>, view: &mut View) {
    for length in [8_000, 50_000] {
        let client = Http2Client::connect(target.addr).unwrap();
        let answer = client.get("h", &format!("/{}", "a".repeat(length - 1)));
        view.add_answer(format!("{length} bytes"), &answer.map_err(std::io::Error::other));
    }
    let lengths = target.world.take_requests().iter().map(|request| request.target.len()).collect::<Vec<_>>();
    view.add("upstream", format!("  {lengths:?}\n"));
}
