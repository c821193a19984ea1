//! The order of filters, and filters that are switched off.

use outrigger_tests::differential::{Case, compare_cases};
use serde_json::{Value, json};

use super::{chain, filter, filter_config, route, says, typed};

fn adds(name: &str, value: &str) -> Value {
    let mutation = json!({"append": {"header": {"key": "x-order", "value": value}}});
    let mut filter = filter(
        "header_mutation",
        "header_mutation.v3.HeaderMutation",
        json!({"mutations": {"request_mutations": [mutation], "response_mutations": [mutation]}}),
    );
    filter["name"] = json!(name);
    filter
}

fn switched_off(mut filter: Value) -> Value {
    filter["disabled"] = json!(true);
    filter
}

#[test]
fn order_and_switches() {
    let fault = filter(
        "fault",
        "fault.v3.HTTPFault",
        json!({"abort": {"http_status": 503,
        "percentage": {"numerator": 100}}, "headers": [{"name": "x-fault"}]}),
    );
    let lines = ["", "x-fault: 1\r\n"];
    let enabled = || typed("header_mutation.v3.HeaderMutationPerRoute", json!({"mutations": {}}));
    compare_cases(&[
        Case::plain("two").hcm(chain(&[adds("a", "first"), adds("b", "second")])).header_lines(&lines),
        Case::plain("a reply between two")
            .hcm(chain(&[adds("a", "first"), fault.clone(), adds("b", "second")]))
            .header_lines(&lines),
        Case::plain("off")
            .hcm(chain(&[switched_off(adds("a", "first")), adds("b", "second")]))
            .header_lines(&lines),
        Case::routes(
            "switched by routes",
            json!([
                route("/on", json!({"a": enabled(), "b": filter_config(json!({"disabled": true}))})),
                route("/", json!({}))
            ]),
        )
        .hcm(chain(&[switched_off(adds("a", "first")), adds("b", "second")]))
        .paths(&["/on", "/"]),
        Case::hosts(
            "switched by the virtual host, and back by a route",
            json!([{"name": "v", "domains": ["*"],
                "typed_per_filter_config": {"a": filter_config(json!({"disabled": true}))},
                "routes": [route("/on", json!({"a": enabled()})), route("/", json!({}))]}]),
        )
        .hcm(chain(&[adds("a", "first")]))
        .paths(&["/on", "/"]),
        Case::routes(
            "no route",
            json!([route("/only", says("none", filter_config(json!({"disabled": true}))))]),
        )
        .hcm(chain(&[adds("a", "first"), fault]))
        .header_lines(&lines),
    ]);
}

/// What each of two filters of one kind keeps for the response is its own.
#[test]
fn two_of_one_kind() {
    let named = |mut filter: Value, name: &str| {
        filter["name"] = json!(name);
        filter
    };
    let limit = |name: &str, tokens: u32, share: u32| {
        let always = json!({"default_value": {"numerator": share}});
        let config = json!({"stat_prefix": name, "filter_enabled": always, "filter_enforced": always,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "token_bucket": {"max_tokens": tokens, "fill_interval": "3600s"}});
        named(filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", config), name)
    };
    let fault = |name: &str, config: Value| named(filter("fault", "fault.v3.HTTPFault", config), name);
    let percent = json!({"numerator": 100});
    let slow = |name: &str| {
        fault(
            name,
            json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 1000}, "percentage": percent}}),
        )
    };
    let abort = fault(
        "c",
        json!({"abort": {"http_status": 418, "percentage": percent}, "headers": [{"name": "x-fault"}]}),
    );
    let stats =
        |name: &str, config: Value| named(filter("grpc_stats", "grpc_stats.v3.FilterConfig", config), name);
    let call =
        "POST /s/m/grpc-0 HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let method = "POST /service/grpc-5 HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    compare_cases(&[
        Case::plain("limits").hcm(chain(&[limit("a", 5, 100), limit("b", 3, 100)])).paths(&["/1", "/2", "/3", "/4", "/5", "/6"]),
        Case::plain("a limit and one that is off")
            .hcm(chain(&[limit("a", 2, 100), limit("b", 3, 0)]))
            .paths(&["/1", "/2", "/3"]),
        Case::plain("faults")
            .hcm(chain(&[slow("a"), slow("b"), abort.clone()]))
            .header_lines(&["", "x-fault: 1\r\n"])
            .statistics("\\.fault\\."),
        Case::plain("a fault that nobody has set").hcm(chain(&[slow("a"), abort])).paths(&["/"]).statistics("\\.fault\\."),
        Case::plain("calls")
            .hcm(chain(&[
                stats("a", json!({"stats_for_all_methods": true})),
                stats("b", json!({"individual_method_stats_allowlist": {"services": [{"name": "other", "method_names": ["m"]}]}})),
            ]))
            .send("no method", call)
            .send("a method", method)
            .statistics("grpc"),
    ]);
}
