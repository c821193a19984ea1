//! DestinationRules that not all clients of a Service follow.

use super::*;

/// A caller in each of three namespaces, and a second one in `shop`.
const CALLERS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop}, spec: {clusterIP: 10.0.0.1, selector: {app: s}, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s, namespace: shop, labels: {app: s, version: v1}}, spec: {}, status: {podIP: 127.1.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: near, namespace: shop, labels: {app: near}}, spec: {}, status: {podIP: 127.1.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: web, labels: {app: web}}, spec: {}, status: {podIP: 127.1.0.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: other, labels: {app: other}}, spec: {}, status: {podIP: 127.1.0.5}}
";

/// A rule in a namespace that allows so many retries at once.
fn rule(namespace: &str, name: &str, retries: u32, more: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{host: \
         s.shop.svc.cluster.local, trafficPolicy: {{connectionPool: {{http: {{maxRetries: {retries}}}}}}}{more}}}}}"
    )
}

/// The retries that each caller is allowed: in `shop`, `web` and `other`.
fn allowed(rules: &[String]) -> [u32; 3] {
    let texts: Vec<&str> = [CALLERS].into_iter().chain(rules.iter().map(String::as_str)).collect();
    let snapshot = snapshot_of(&texts);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    [("shop", "near"), ("web", "web"), ("other", "other")].map(|(namespace, pod)| {
        let scope = scope(&snapshot, namespace, pod, "default");
        let name = "outbound|80||s.shop.svc.cluster.local";
        let cluster: Cluster = get(&snapshot, &scope, ResourceType::Cluster, name);
        let retries = cluster.circuit_breakers.unwrap().thresholds[0].max_retries.unwrap().value;
        if retries == u32::MAX { 0 } else { retries }
    })
}

#[test]
fn whose_rule_a_client_follows() {
    let producer = rule("shop", "p", 1, "");
    let root = rule("istio-system", "r", 2, "");
    let consumer = rule("web", "c", 3, "");
    assert_eq!(allowed(std::slice::from_ref(&root)), [2, 2, 2]);
    assert_eq!(
        allowed(&[root.clone(), producer.clone()]),
        [1, 1, 1],
        "the Service's namespace before the root"
    );
    assert_eq!(allowed(&[root.clone(), producer, consumer.clone()]), [1, 3, 1], "the client's before all");
    assert_eq!(allowed(&[consumer]), [0, 3, 0], "and for no one else");
    let private = rule("shop", "p", 1, ", exportTo: [.]");
    assert_eq!(allowed(&[root.clone(), private.clone()]), [1, 2, 2]);
    assert_eq!(allowed(&[private]), [1, 0, 0]);
    let shared = rule("shop", "p", 1, ", exportTo: [other]");
    assert_eq!(allowed(&[root, shared]), [1, 2, 1]);
}

#[test]
fn a_rule_may_be_for_some_workloads() {
    let all = rule("shop", "all", 1, "");
    let selects =
        |app: &str| rule("shop", "a", 2, &format!(", workloadSelector: {{matchLabels: {{app: {app}}}}}"));
    assert_eq!(allowed(&[all.clone(), selects("near")]), [2, 1, 1]);
    assert_eq!(allowed(&[all, selects("web")]), [1, 1, 1], "of its own namespace only");
    assert_eq!(allowed(&[selects("near")]), [2, 0, 0]);
}

#[test]
fn subsets_and_routes_follow_the_clients_rule() {
    let own = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: c, namespace: web}, spec: {host: \
               s.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}, subsets: [{name: v1, labels: \
               {version: v1}}]}}";
    let snapshot = snapshot_of(&[CALLERS, own]);
    assert_eq!((snapshot.rejections(), snapshot.problems()), (&[][..], &[][..]));
    let name = "outbound|80|v1|s.shop.svc.cluster.local";
    for (namespace, has_subset) in [("web", true), ("other", false)] {
        let scope = scope(&snapshot, namespace, namespace, "default");
        for of in [ResourceType::Cluster, ResourceType::ClusterLoadAssignment] {
            assert_eq!(snapshot.resources(&scope, of).get(name).is_some(), has_subset, "{of} of {namespace}");
        }
        let routes: RouteConfiguration = get(&snapshot, &scope, ResourceType::RouteConfiguration, "15001");
        let host = routes.virtual_hosts.iter().find(|host| host.name.starts_with("s.shop")).unwrap();
        let Some(Action::Route(action)) = &host.routes[0].action else { panic!() };
        assert_eq!(action.hash_policy.len(), usize::from(has_subset), "{namespace}");
    }
}

#[test]
fn captured_connections_follow_the_clients_rule() {
    let captured = CALLERS
        .replace("labels: {app", "annotations: {sidecar.istio.io/interceptionMode: REDIRECT}, labels: {app");
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: c, namespace: web}, spec: {host: \
                s.shop.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 9s}}}}}";
    let snapshot = snapshot_of(&[&captured, rule]);
    for (namespace, idle) in [("web", Some(9)), ("other", None)] {
        let scope = scope(&snapshot, namespace, namespace, "default");
        let listener: Listener = get(&snapshot, &scope, ResourceType::Listener, "10.0.0.1_90");
        let proxy: TcpProxy = only_filter(&listener.filter_chains[0]);
        assert_eq!(proxy.idle_timeout.map(|timeout| timeout.seconds), idle, "{namespace}");
    }
}

#[test]
fn a_rule_that_nobody_follows_says_so() {
    let problems = |rules: &[String]| -> Vec<String> {
        let texts: Vec<&str> = [CALLERS].into_iter().chain(rules.iter().map(String::as_str)).collect();
        snapshot_of(&texts).problems().iter().map(ToString::to_string).collect()
    };
    let producer = rule("shop", "p", 1, "");
    let [problem] = &problems(&[producer.clone(), rule("istio-system", "r", 2, "")])[..] else { panic!() };
    assert!(problem.contains("has no effect: Service shop/s follows DestinationRule shop/p"), "{problem}");
    let [problem] = &problems(&[rule("web", "c", 3, ", exportTo: [other]")])[..] else { panic!() };
    assert!(problem.contains("spec.exportTo: has no effect in other namespaces"), "{problem}");
    assert_eq!(problems(&[producer, rule("web", "c", 3, "")]), [""; 0]);
}
