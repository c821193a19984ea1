//! Which endpoints come first for whom, and when others take over.

use outrigger_tests::mesh::APP_PORT;
use outrigger_tests::wait;

use crate::world::World;

/// Two endpoints in zone `z1` and one in `z2`, each with whether it is ready.
fn endpoints(world: &World, ready: [bool; 3]) -> String {
    let places = [("reviews-0", "z1"), ("reviews-1", "z1"), ("reviews-2", "z2")];
    let endpoints = places.iter().zip(ready).map(|((pod, zone), ready)| {
        let ip = world.0.workload(pod).ip;
        format!(
            "- {{addresses: [{ip}], zone: {zone}, conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: {pod}}}}}\n"
        )
    });
    let endpoints: String = endpoints.collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: reviews, namespace: default, labels: \
         {{kubernetes.io/service-name: reviews}}}}\naddressType: IPv4\nports: [{{name: http, port: {APP_PORT}}}]\nendpoints:\n{endpoints}---\n"
    )
}

/// A DestinationRule of `reviews` that prefers by these labels.
fn prefer(label: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\nspec: {{host: \
         reviews, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{failoverPriority: [{label}]}}}}}}}}\n---\n"
    )
}

/// How many of a hundred requests of a caller each pod answers.
fn spread(world: &World, caller: &str) -> [usize; 3] {
    let answers = world.answers(&format!("{caller}> /"), 100);
    assert_eq!(answers.values().sum::<usize>(), 100);
    ["200 reviews-0", "200 reviews-1", "200 reviews-2"]
        .map(|answer| answers.get(answer).copied().unwrap_or_default())
}

/// Without outlier detection: readiness alone moves traffic, as much of it as there are too few endpoints.
#[test]
fn others_take_over_what_is_not_ready() {
    let pods = [
        ("web-0", "web", "v1"),
        ("reviews-0", "reviews", "v1"),
        ("reviews-1", "reviews", "v1"),
        ("reviews-2", "reviews", "v2"),
    ];
    let world = World::of(&pods);
    let rule = prefer("topology.kubernetes.io/zone=z1");
    let apply = |ready| world.apply(&(endpoints(&world, ready) + &rule));
    apply([true; 3]);
    wait::until("the near zone alone", || matches!(spread(&world, "web-0"), [1..=99, 1..=99, 0]));
    apply([false, true, true]);
    // Half of the zone is 70 % of what it should have.
    wait::until("30 % elsewhere", || matches!(spread(&world, "web-0"), [0, 55..=85, 15..=45]));
    apply([false, false, true]);
    wait::until("the other zone", || spread(&world, "web-0") == [0, 0, 100]);
    apply([true; 3]);
    wait::until("back again", || matches!(spread(&world, "web-0"), [1..=99, 1..=99, 0]));
}

/// Callers of one Service get different orders.
#[test]
fn each_caller_has_its_own_near() {
    let pods = [
        ("web-0", "web", "v1"),
        ("web-1", "web", "v2"),
        ("reviews-0", "reviews", "v1"),
        ("reviews-1", "reviews", "v1"),
        ("reviews-2", "reviews", "v2"),
    ];
    let world = World::of(&pods);
    world.apply(&prefer("version"));
    wait::until("v1 for v1", || matches!(spread(&world, "web-0"), [1..=99, 1..=99, 0]));
    wait::until("v2 for v2", || spread(&world, "web-1") == [0, 0, 100]);
}

/// The client's own namespace before the Service's, and nobody else's.
#[test]
fn a_client_namespace_has_rules_of_its_own() {
    let world = World::with_callers();
    let rule = |namespace: &str, version: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{host: \
             reviews.default.svc.cluster.local, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{failoverPriority: \
             [version={version}]}}}}}}}}\n---\n"
        )
    };
    world.apply(&(rule("default", "v1") + &rule("client", "v2")));
    let answers = |caller: &str| {
        let host = format!("{caller}> //reviews.default:{APP_PORT}/");
        world.answers(&host, 20).into_keys().collect::<Vec<_>>()
    };
    wait::until("the Service's rule", || answers("web-0") == ["200 reviews-0"]);
    wait::until("the client's rule", || answers("guest-0") == ["200 reviews-1"]);
    world.apply(&rule("default", "v1"));
    wait::until("the Service's rule for all", || answers("guest-0") == ["200 reviews-0"]);
}
