//! How many retries there may be at once, and which hosts they go to.

use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, World, compare_cases};
use serde_json::{Value, json};

use super::{quick, retrying};

fn limited(world: &World, name: &str, thresholds: Value) -> Vec<Value> {
    vec![bootstrap::cluster(
        name,
        &[world.up.addr()],
        json!({"circuit_breakers": {"thresholds": [thresholds]}}),
    )]
}

fn two_hosts(world: &World) -> Vec<Value> {
    vec![bootstrap::cluster("two", &[world.refusing(), world.up.addr()], Value::Null)]
}

#[test]
fn limits_and_hosts() {
    let policy = || quick(json!({"retry_on": "5xx", "num_retries": 2}));
    let previous = json!([{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]);
    compare_cases(&[
        retrying("no retries allowed", "no-retries", policy())
            .clusters(|world| limited(world, "no-retries", json!({"max_retries": 0})))
            .paths(&["/503", "/recovers/503"]),
        retrying("one retry allowed", "one-retry", policy())
            .clusters(|world| limited(world, "one-retry", json!({"max_retries": 1})))
            .paths(&["/503", "/recovers/503"]),
        retrying("empty budget", "no-budget", policy())
            .clusters(|world| {
                let budget =
                    json!({"retry_budget": {"budget_percent": {"value": 0}, "min_retry_concurrency": 0}});
                limited(world, "no-budget", budget)
            })
            .paths(&["/503"]),
        retrying("budget", "budget", policy())
            .clusters(|world| limited(world, "budget", json!({"max_retries": 0, "retry_budget": {}})))
            .paths(&["/503", "/recovers/503"]),
        Case::routes(
            "another host",
            json!([{"match": {"prefix": "/"}, "route": {"cluster": "two", "timeout": "0s", "retry_policy": quick(json!({
                "retry_on": "connect-failure", "retry_host_predicate": previous,
                "host_selection_retry_max_attempts": 5}))}}]),
        )
        .clusters(two_hosts)
        .without_logs()
        .paths(&["/1", "/2", "/3", "/4"]),
    ]);
}
