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
