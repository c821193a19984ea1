//! What Istio's samples do with the calls of a mesh, by an application of our own, and the same by the Gateway API: both route the same
//! traffic alike.
//!
//! Istio's way of naming versions is a subset, the Gateway API's a Service for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use outrigger_tests::mesh::APP_PORT;

use crate::world::World;

/// A shop: a caller, three versions of one Service, and two of another.
const PODS: [(&str, &str, &str); 6] = [
    ("web-0", "web", "v1"),
    ("stock-1", "stock", "v1"),
    ("stock-2", "stock", "v2"),
    ("stock-3", "stock", "v3"),
    ("price-1", "price", "v1"),
    ("price-2", "price", "v2-sql"),
];

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: stock, namespace: default}
spec: {host: stock, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: price, namespace: default}
spec: {host: price, subsets: [{name: v1, labels: {version: v1}}, {name: v2-sql, labels: {version: v2-sql}}]}
---
";

const STOCK: &str = "//stock:9080/";
const ANNS: &str = "//stock:9080/ x-user:ann";
const PRICE: &str = "//price:9080/";

/// Requests of a check of shares, and how far a share may be off: more than five standard deviations.
const REQUESTS: usize = 300;
const TOLERANCE: usize = 15;

/// An answer to a request, and of how many such requests, in percent.
type Expected = (&'static str, &'static str, usize);

/// `http` of a VirtualService of `host`.
fn istio(host: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: default}}\n\
         spec: {{hosts: [{host}], http: [{http}]}}\n---\n"
    )
}

/// Where an `http` rule leads, by subset and weight.
fn to_subsets(host: &str, shares: &[(&str, u32)]) -> String {
    let share = |(subset, weight): &(&str, u32)| {
        format!("{{destination: {{host: {host}, subset: {subset}}}, weight: {weight}}}")
    };
    format!("route: [{}]", shares.iter().map(share).collect::<Vec<_>>().join(", "))
}

/// The rules of an HTTPRoute of `host`.
fn twin(host: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {host}, namespace: default}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: {host}}}], rules: [{rules}]}}\n---\n"
    )
}

/// Where a rule of a route leads, by version and weight.
fn to_services(host: &str, shares: &[(&str, u32)]) -> String {
    let share = |(version, weight): &(&str, u32)| {
        format!("{{name: {host}-{version}, port: {APP_PORT}, weight: {weight}}}")
    };
    format!("backendRefs: [{}]", shares.iter().map(share).collect::<Vec<_>>().join(", "))
}

/// Puts rules into force and compares the traffic.
#[track_caller]
fn routes(world: &World, rules: &str, expected: &[Expected]) {
    world.apply(&(SUBSETS.to_owned() + rules));
    let mut requests: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for (request, answer, percent) in expected {
        let is_share = *percent < 100;
        let count = if is_share { REQUESTS } else { 10 };
        let seen = requests.entry(request).or_insert_with(|| world.answers(request, count));
        let found = seen.remove(*answer).unwrap_or_default() * 100 / count;
        let tolerance = if is_share { TOLERANCE } else { 0 };
        assert!(found.abs_diff(*percent) <= tolerance, "{request}: {found} % of {answer}\n{rules}");
    }
    requests.retain(|_, unexpected| !unexpected.is_empty());
    assert!(requests.is_empty(), "{requests:?}\n{rules}");
}

/// Both APIs, for one share of each Service.
#[track_caller]
fn alike(world: &World, shares: &[(&str, &[(&str, u32)])], expected: &[Expected]) {
    let by_istio =
        shares.iter().map(|(host, shares)| istio(host, &format!("{{{}}}", to_subsets(host, shares))));
    routes(world, &by_istio.collect::<String>(), expected);
    let by_twin =
        shares.iter().map(|(host, shares)| twin(host, &format!("{{{}}}", to_services(host, shares))));
    routes(world, &by_twin.collect::<String>(), expected);
}

/// `virtual-service-all-v1`, `-reviews-v3`, `-details-v2`, `-ratings-db`, `-ratings-mysql`, `-ratings-mysql-vm`.
#[test]
fn one_version_of_each() {
    let world = World::of(&PODS);
    let first: &[_] = &[("v1", 100)];
    let all_first = [(STOCK, "200 stock-1", 100), (PRICE, "200 price-1", 100)];
    alike(&world, &[("stock", first), ("price", first)], &all_first);
    alike(&world, &[("stock", &[("v3", 100)])], &[(STOCK, "200 stock-3", 100)]);
    alike(&world, &[("stock", &[("v2", 100)])], &[(STOCK, "200 stock-2", 100)]);
    alike(
        &world,
        &[("stock", &[("v3", 100)]), ("price", &[("v2-sql", 100)])],
        &[(STOCK, "200 stock-3", 100), (PRICE, "200 price-2", 100)],
    );
}

/// `virtual-service-reviews-50-v3`, `-80-20`, `-90-10`, `-v2-v3`, and the split of helloworld.
#[test]
fn shares_of_two_versions() {
    let world = World::of(&PODS);
    alike(
        &world,
        &[("stock", &[("v1", 50), ("v3", 50)])],
        &[(STOCK, "200 stock-1", 50), (STOCK, "200 stock-3", 50)],
    );
    alike(
        &world,
        &[("stock", &[("v2", 50), ("v3", 50)])],
        &[(STOCK, "200 stock-2", 50), (STOCK, "200 stock-3", 50)],
    );
    alike(
        &world,
        &[("stock", &[("v1", 80), ("v2", 20)])],
        &[(STOCK, "200 stock-1", 80), (STOCK, "200 stock-2", 20)],
    );
    alike(
        &world,
        &[("stock", &[("v1", 90), ("v2", 10)])],
        &[(STOCK, "200 stock-1", 90), (STOCK, "200 stock-2", 10)],
    );
}

/// `virtual-service-reviews-test-v2`, `-jason-v2-v3`.
#[test]
fn one_user_to_another_version() {
    let world = World::of(&PODS);
    for (others, answer) in [("v1", "200 stock-1"), ("v3", "200 stock-3")] {
        let expected = [(STOCK, answer, 100), (ANNS, "200 stock-2", 100)];
        let (second, rest) = ([("v2", 100)], [(others, 100)]);
        let rules = format!(
            "{{match: [{{headers: {{x-user: {{exact: ann}}}}}}], {}}}, {{{}}}",
            to_subsets("stock", &second),
            to_subsets("stock", &rest)
        );
        routes(&world, &istio("stock", &rules), &expected);
        let rules = format!(
            "{{matches: [{{headers: [{{name: x-user, value: ann}}]}}], {}}}, {{{}}}",
            to_services("stock", &second),
            to_services("stock", &rest)
        );
        routes(&world, &twin("stock", &rules), &expected);
    }
}

/// `virtual-service-ratings-test-abort`, `-test-delay`, `fault-injection-details-v1`. They have no twin: neither the Gateway API nor a
/// TrafficPolicy injects faults. Nor has the split of tcp-echo (see `connections`): its TCPRoute is no part of the standard channel.
#[test]
fn faults_for_one_user() {
    let world = World::of(&PODS);
    let first = to_subsets("stock", &[("v1", 100)]);
    let fault = |fault: &str| {
        let user = "match: [{headers: {x-user: {exact: ann}}}]";
        istio("stock", &format!("{{{user}, fault: {{{fault}}}, {first}}}, {{{first}}}"))
    };
    let abort = "abort: {percentage: {value: 100.0}, httpStatus: 555}";
    let expected = [(STOCK, "200 stock-1", 100), (ANNS, "555 fault filter abort", 100)];
    routes(&world, &fault(abort), &expected);
    routes(
        &world,
        &istio("stock", &format!("{{fault: {{{abort}}}, {first}}}")),
        &[(STOCK, "555 fault filter abort", 100)],
    );
    world.apply(&(SUBSETS.to_owned() + &fault("delay: {percentage: {value: 100.0}, fixedDelay: 400ms}")));
    let begin = Instant::now();
    assert_eq!(world.answer(ANNS), "200 stock-1");
    assert!(begin.elapsed() >= Duration::from_millis(400));
    let sidecar = world.0.workload("web-0").sidecar();
    let delayed = || sidecar.stat("http.outbound_0.0.0.0_15001.fault.delays_injected");
    assert_eq!((world.answer(STOCK).as_str(), delayed()), ("200 stock-1", Some(1)));
}
