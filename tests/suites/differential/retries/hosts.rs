//! How many retries there may be at once, and which hosts they go to.

use std::collections::BTreeSet;

use outrigger_tests::bootstrap;
use outrigger_tests::differential::{Case, Target, View, World, compare_cases};
use outrigger_tests::{RawClient, Upstream};
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

const CANARY: &str = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const BY_METADATA: &str = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";
const PRIORITIES: &str = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

/// An extension of a policy.
fn extension(name: &str, of: &str, mut settings: Value) -> Value {
    settings["@type"] = format!("type.googleapis.com/{of}").into();
    json!({"name": name, "typed_config": settings})
}

/// A cluster of two hosts, each with what is said of it, in one locality or with a priority for each.
fn labelled(world: &World, name: &str, metadata: [Value; 2], priorities: [u32; 2]) -> Vec<Value> {
    let mut cluster = bootstrap::cluster(name, &[], Value::Null);
    let hosts = [(world.up.addr(), 0), (world.up2.addr(), 1)].map(|(addr, at)| {
        json!({"priority": priorities[at], "lb_endpoints": [{
            "endpoint": {"address": {"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}}},
            "metadata": {"filter_metadata": {"envoy.lb": metadata[at]}}}]})
    });
    cluster["load_assignment"]["endpoints"] = json!(hosts);
    vec![cluster]
}

/// Which upstream each attempt reached, in order.
fn attempts(target: &Target<'_>) -> Vec<(String, u8)> {
    let of = |upstream: &Upstream, number: u8| {
        let requests = upstream.take_requests().into_iter();
        requests
            .map(|request| (request.headers.get("x-envoy-attempt-count").unwrap().to_owned(), number))
            .collect::<Vec<_>>()
    };
    let mut attempts = [of(&target.world.up, 1), of(&target.world.up2, 2)].concat();
    attempts.sort();
    attempts
}

/// Requests whose first attempt goes anywhere: which upstreams all others reached.
fn ask_often(target: &Target<'_>, view: &mut View) {
    let mut later = BTreeSet::new();
    for _ in 0..10 {
        let mut client = RawClient::connect(target.addr).unwrap();
        let _ = client.get("h", "/503");
        later.extend(
            attempts(target).into_iter().filter(|(attempt, _)| attempt != "1").map(|(_, upstream)| upstream),
        );
    }
    view.add("retries", format!("  {later:?}\n"));
}

fn ask_once(target: &Target<'_>, view: &mut View) {
    let mut client = RawClient::connect(target.addr).unwrap();
    view.add_answer("client", &client.get("h", "/503"));
    view.add("attempts", format!("  {:?}\n", attempts(target)));
}

#[test]
fn hosts_by_what_they_are() {
    let with = |name: &'static str, cluster: &'static str, predicate: Value| {
        let policy = json!({"retry_on": "5xx", "num_retries": 4, "retry_host_predicate": [predicate],
            "host_selection_retry_max_attempts": 20});
        retrying(name, cluster, quick(policy)).without_logs().drive(ask_often)
    };
    let matched = |values: Value| json!({"metadata_match": {"filter_metadata": {"envoy.lb": values}}});
    compare_cases(&[
        with(
            "canary",
            "with-canary",
            extension("envoy.retry_host_predicates.omit_canary_hosts", CANARY, json!({})),
        )
        .clusters(|world| {
            labelled(world, "with-canary", [json!({"canary": true}), json!({"canary": false})], [0, 0])
        }),
        with(
            "all canaries",
            "canaries",
            extension("envoy.retry_host_predicates.omit_canary_hosts", CANARY, json!({})),
        )
        .clusters(|world| {
            labelled(world, "canaries", [json!({"canary": true}), json!({"canary": true})], [0, 0])
        }),
        with(
            "metadata",
            "staged",
            extension(
                "envoy.retry_host_predicates.omit_host_metadata",
                BY_METADATA,
                matched(json!({"stage": "old"})),
            ),
        )
        .clusters(|world| {
            labelled(
                world,
                "staged",
                [json!({"stage": "new"}), json!({"stage": ["older", "old"], "x": 1})],
                [0, 0],
            )
        }),
        with(
            "metadata of which half matches",
            "half",
            extension(
                "envoy.retry_host_predicates.omit_host_metadata",
                BY_METADATA,
                matched(json!({"stage": "old", "zone": "a"})),
            ),
        )
        .clusters(|world| {
            labelled(world, "half", [json!({"stage": "old"}), json!({"stage": "new"})], [0, 0])
        }),
    ]);
}

#[test]
fn other_priorities() {
    let with = |name: &'static str, cluster: &'static str, frequency: u32, retries: u32| {
        let priority = extension(
            "envoy.retry_priorities.previous_priorities",
            PRIORITIES,
            json!({"update_frequency": frequency}),
        );
        let policy = json!({"retry_on": "5xx", "num_retries": retries, "retry_priority": priority});
        retrying(name, cluster, quick(policy)).without_logs().drive(ask_once)
    };
    compare_cases(&[
        with("each attempt", "two-priorities", 1, 5)
            .clusters(|world| labelled(world, "two-priorities", [json!({}), json!({})], [0, 1])),
        with("every second attempt", "two-priorities", 2, 7),
        with("every third attempt", "two-priorities", 3, 4),
        with("one priority", "up", 1, 3),
    ]);
}
