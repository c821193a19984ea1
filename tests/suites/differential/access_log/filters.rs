//! Which requests a log has a line for.

use outrigger_tests::bootstrap::type_url;
use serde_json::{Value, json};

use super::{Row, compare_logs, get};

const FORMAT: &str = "%REQ(:PATH)% %RESPONSE_CODE%";

fn compared(op: &str, value: u32) -> Value {
    json!({"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "a.key"}}})
}

fn status(op: &str, value: u32) -> Value {
    json!({"status_code_filter": compared(op, value)})
}

#[test]
fn by_status_and_time() {
    let row = |name, filter| Row::text(name, FORMAT, &["/", "/503", "/direct"]).filter(filter);
    compare_logs(&[
        row("equal", status("EQ", 503)),
        row("at least", status("GE", 418)),
        row("at most", status("LE", 418)),
        row("other than", status("NE", 200)),
        row("fast", json!({"duration_filter": compared("LE", 60_000)})),
        row("slow", json!({"duration_filter": compared("GE", 60_000)})),
        row("no health check", json!({"not_health_check_filter": {}})),
        row("health checks among them", json!({"not_health_check_filter": {}})).hcm(json!({"http_filters": [
            {"name": "check", "typed_config": {
                "@type": type_url("extensions.filters.http.health_check.v3.HealthCheck"),
                "pass_through_mode": true,
                "headers": [{"name": ":path", "string_match": {"exact": "/503"}}],
            }},
            {"name": "router", "typed_config": {"@type": type_url("extensions.filters.http.router.v3.Router")}},
        ]})),
        row("traced", json!({"traceable_filter": {}})),
        row("both", json!({"and_filter": {"filters": [status("GE", 400), status("LE", 450)]}})),
        row("either", json!({"or_filter": {"filters": [status("EQ", 200), status("EQ", 418)]}})),
    ]);
}

#[test]
fn by_request() {
    let header = |name: &str, more: Value| {
        let mut matcher = json!({"name": name});
        outrigger_tests::bootstrap::overlay(&mut matcher, more);
        json!({"header_filter": {"header": matcher}})
    };
    let row = |name, filter| {
        Row::text(name, FORMAT, &["/a", "/old/b"])
            .filter(filter)
            .send(get("/c", "x-wanted: yes\r\n"))
            .send(get("/d", "x-wanted: no\r\nx-wanted: yes\r\n"))
            .send("nonsense\r\n\r\n".into())
    };
    compare_logs(&[
        row("present", header("x-wanted", json!({"present_match": true}))),
        row("value", header("x-wanted", json!({"string_match": {"exact": "yes"}}))),
        row("not", header("x-wanted", json!({"string_match": {"exact": "yes"}, "invert_match": true}))),
        row("path", header(":path", json!({"string_match": {"prefix": "/new"}}))),
        row("of the route", header("x-added", json!({"present_match": true}))),
    ]);
}

#[test]
fn by_outcome() {
    let flag = |flags: &[&str]| json!({"response_flag_filter": {"flags": flags}});
    let grpc = |statuses: &[&str], exclude: bool| json!({"grpc_status_filter": {"statuses": statuses, "exclude": exclude}});
    let row = |name, filter| {
        Row::text(name, FORMAT, &["/", "/503", "/away", "/grpc", "/h2/trailers"]).filter(filter)
    };
    compare_logs(&[
        row("any flag", flag(&[])),
        row("this flag", flag(&["UF", "UAEX"])),
        row("another flag", flag(&["NR"])),
        row("grpc", grpc(&["UNAVAILABLE"], false)),
        row("other grpc", grpc(&["UNAVAILABLE"], true)),
        row("grpc in trailers", grpc(&["NOT_FOUND"], false)),
        row(
            "of a filter",
            json!({"metadata_filter": {"matcher": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}}}),
        ),
        row(
            "not of a filter",
            json!({"metadata_filter": {"matcher": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}},
                "match_if_key_not_found": false}}),
        ),
    ]);
}

/// The request's id decides: all proxies on its way log the same requests.
#[test]
fn by_sample() {
    let sample = |numerator: u32, denominator: &str| json!({"runtime_filter": {"runtime_key": "a.key", "percent_sampled": {"numerator": numerator, "denominator": denominator}}});
    let row = |name, filter| {
        (0..12).fold(Row::text(name, "%REQ(:PATH)%", &[]).filter(filter), |row, n: u32| {
            let id = format!("{:08x}-237b-4f1d-9d5c-0123456789ab", n.wrapping_mul(0x9e37_79b9));
            row.send(get(&format!("/{n}"), &format!("x-request-id: {id}\r\n")))
        })
    };
    compare_logs(&[
        row("half", sample(50, "HUNDRED")),
        row("some of many", sample(3_000, "TEN_THOUSAND")),
        row("of a million", sample(700_000, "MILLION")),
        row("all", sample(100, "HUNDRED")),
        row("none", sample(0, "HUNDRED")),
    ]);
}
