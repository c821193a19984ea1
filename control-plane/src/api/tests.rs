#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::model::{
    Forward, HeaderMatch, LoadBalancing, MutualTlsMode, PathMatch, PathRewrite, Protocol, RouteAction,
    ServiceRef, StringMatch, TargetPort,
};
use crate::source::test_objects;

fn decode_one(text: &str) -> Result<Option<Decoded>, Refusal> {
    let objects = test_objects(text);
    assert_eq!(objects.len(), 1);
    decode(&objects[0], &MeshSettings::default())
}

/// What must be refused, by field and a part of the reason.
#[track_caller]
fn refused(text: &str, field: &str, reason: &str) {
    let refusal = decode_one(text).expect_err("must be refused");
    assert_eq!(refusal.field, field, "{}", refusal.reason);
    assert!(refusal.reason.contains(reason), "{}", refusal.reason);
}

fn http_route(spec: &str) -> String {
    format!("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n{spec}")
}

fn rule(rule: &str) -> String {
    http_route(&format!(
        "  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules:\n  - {rule}\n"
    ))
}

fn destination_rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\n\
         spec:\n  host: reviews\n  trafficPolicy:\n    {policy}\n"
    )
}

#[test]
fn service() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 10.0.0.1
  selector: {app: reviews}
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: db, port: 5432}
  - {name: dns, port: 53, protocol: UDP}
  - {name: api, port: 9090, targetPort: 9091, appProtocol: grpc}
";
    let Some(Decoded::Service(service)) = decode_one(text).unwrap() else { panic!() };
    assert_eq!(service.name, Name::new("shop", "reviews"));
    let ports: Vec<_> =
        service.ports.iter().map(|port| (port.number, port.target.clone(), port.protocol)).collect();
    assert_eq!(
        ports,
        [
            (80, TargetPort::Named("web".into()), Protocol::Http),
            (5432, TargetPort::Number(5432), Protocol::Tcp),
            (9090, TargetPort::Number(9091), Protocol::Http2),
        ]
    );
}

#[test]
fn service_refusals() {
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: 80}}, {port}]}}"
        )
    };
    refused(&service("{port: 70000}"), "spec.ports[1].port", "70000");
    refused(&service("{port: 80}"), "spec.ports[1].port", "twice");
    refused(&service("{port: 81, targetPort: 0}"), "spec.ports[1].targetPort", "between 1 and 65535");
    refused("apiVersion: v1\nkind: Service\nmetadata: {name: a}", "", "missing field `spec`");
}

#[test]
fn pod() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: reviews-v1-5d4f-abc
  labels: {app: reviews, version: v1, pod-template-hash: 5d4f}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: reviews-v1-5d4f, uid: u, controller: true}]
spec:
  serviceAccountName: reviews
  containers: [{name: app, image: x, ports: [{name: web, containerPort: 9080}, {containerPort: 1}]}]
status:
  podIP: 127.1.0.2
  podIPs: [{ip: 127.1.0.2}, {ip: 'fd00::2'}]
  conditions: [{type: Ready, status: 'False'}, {type: Initialized, status: 'True'}]
";
    let Some(Decoded::Workload(pod)) = decode_one(text).unwrap() else { panic!() };
    assert_eq!(pod.controller, "reviews-v1");
    assert_eq!((pod.canonical_name(), pod.canonical_revision()), ("reviews", "v1"));
    assert_eq!(pod.spiffe_id("td"), "spiffe://td/ns/default/sa/reviews");
    assert_eq!(pod.ips.len(), 2);
    assert_eq!(pod.named_ports["web"], 9080);
    assert!(pod.sidecar && !pod.ready);
}

#[test]
fn pod_without_sidecar_or_status() {
    for switch in ["labels", "annotations"] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, {switch}: {{sidecar.istio.io/inject: 'false'}}}}\n\
             spec: {{}}\n"
        );
        let Some(Decoded::Workload(pod)) = decode_one(&text).unwrap() else { panic!() };
        assert!(!pod.sidecar);
        assert!(pod.ready && pod.ips.is_empty());
        assert_eq!(pod.service_account, "default");
    }
}

#[test]
fn endpoint_slice() {
    let text = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-x, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- addresses: [127.1.0.2]
  conditions: {ready: false}
  targetRef: {kind: Pod, name: a, namespace: default}
- addresses: [127.1.0.3]
ports:
- {name: http, port: 9080, protocol: TCP}
- {name: dns, port: 53, protocol: UDP}
";
    let Some(Decoded::EndpointSlice(slice)) = decode_one(text).unwrap() else { panic!() };
    assert_eq!(slice.service, Name::new("default", "reviews"));
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(slice.endpoints[0].pod.as_deref(), Some("a"));
    assert!(!slice.endpoints[0].ready && slice.endpoints[1].ready);
    let bad = text.replace("127.1.0.3", "127.1.0.x");
    refused(&bad, "endpoints[1].addresses[0]", "no IP address");
}

#[test]
fn http_route_rules() {
    let text = http_route(
        "  parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}]
  rules:
  - name: split
    matches:
    - path: {type: Exact, value: /a}
      method: GET
      headers: [{name: X-User, value: '7'}, {type: RegularExpression, name: cookie, value: '.*x.*'}]
    - path: {type: RegularExpression, value: '/b/[0-9]+'}
    - path: {value: /c/}
    backendRefs: [{name: v1, port: 9080, weight: 90}, {name: v2, port: 9080, weight: 10}]
    timeouts: {request: 1s500ms}
  - filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
",
    );
    let Some(Decoded::HttpRoute(route)) = decode_one(&text).unwrap() else { panic!() };
    assert_eq!(route.parents[0].service, Name::new("default", "reviews"));
    assert_eq!(route.parents[0].port, Some(9080));
    let first = &route.rules[0];
    let header = |name: &str, value| HeaderMatch { name: name.into(), value, is_inverted: false };
    assert_eq!(first.matches[0].path, PathMatch::Exact("/a".into()));
    assert_eq!(first.matches[0].method, Some(StringMatch::Exact("GET".into())));
    assert_eq!(
        first.matches[0].headers,
        [
            header("x-user", StringMatch::Exact("7".into())),
            header("cookie", StringMatch::Regex(".*x.*".into())),
        ]
    );
    assert_eq!(first.matches[1].path, PathMatch::Regex("/b/[0-9]+".into()));
    assert_eq!(first.matches[2].path, PathMatch::Prefix("/c".into()));
    let Forward { backends, timeout, .. } = first.action.forward().unwrap();
    assert_eq!(backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [90, 10]);
    assert_eq!(*timeout, Some(Duration::from_millis(1500)));
    let RouteAction::Redirect(redirect) = &route.rules[1].action else { panic!() };
    assert_eq!(redirect.status, 301);
    assert_eq!(redirect.path, Some(PathRewrite::Prefix("/new".into())));
}

#[test]
fn http_route_refusals_name_field_and_reason() {
    let parents = |refs: &str| http_route(&format!("  parentRefs: [{refs}]\n  rules: [{{}}]\n"));
    refused(&parents(""), "spec.parentRefs", "must name a Service");
    let Some(Decoded::HttpRoute(route)) = decode_one(&parents("{name: gw}")).unwrap() else { panic!() };
    assert_eq!(route.others, [("Gateway gw".to_owned(), "spec.parentRefs[0]".to_owned())]);
    refused(&parents("{kind: Service, name: a}"), "spec.parentRefs[0].group", "must be \"\"");
    refused(
        &http_route(
            "  parentRefs: [{group: '', kind: Service, name: a}]\n  hostnames: [a.example]\n  rules: [{}]\n",
        ),
        "spec.hostnames",
        "host names are not supported",
    );
    let backend = |fields: &str| rule(&format!("backendRefs: [{{name: a, port: 1}}, {{name: b, {fields}}}]"));
    refused(
        &backend("port: 80, weight: -1"),
        "spec.rules[0].backendRefs[1].weight",
        "-1 is not between 0 and",
    );
    refused(&backend("port: 80, weight: ten"), "spec.rules[0].backendRefs[1].weight", "invalid type: string");
    refused(&backend("port: 0"), "spec.rules[0].backendRefs[1].port", "0 is not a port");
    refused(&backend("weight: 1"), "spec.rules[0].backendRefs[1].port", "must be there");
    refused(
        &backend("port: 1, filters: [{type: URLRewrite, urlRewrite: {hostname: x}}]"),
        "spec.rules[0].backendRefs[1].filters[0].type",
        "filter URLRewrite is not supported; supported: RequestHeaderModifier",
    );
    refused(
        &rule("backendRefz: []"),
        "spec.rules[0].backendRefz",
        "unknown or unsupported field `backendRefz`",
    );
    refused(
        &rule("filters: [{type: ExtensionRef, extensionRef: {name: x}}]"),
        "spec.rules[0].filters[0].type",
        "filter ExtensionRef is not supported; supported: RequestHeaderModifier",
    );
    refused(
        &rule("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 300}}]"),
        "spec.rules[0].filters[0].requestRedirect.statusCode",
        "300",
    );
    refused(&rule("matches: [{path: {value: a}}]"), "spec.rules[0].matches[0].path.value", "begin with /");
    refused(
        &rule("matches: [{path: {type: Suffix, value: /}}]"),
        "spec.rules[0].matches[0].path.type",
        "Suffix",
    );
    refused(
        &rule("matches: [{path: {type: RegularExpression, value: '('}}]"),
        "spec.rules[0].matches[0].path.value",
        "not a valid expression: unclosed group",
    );
    refused(&rule("matches: [{method: get}]"), "spec.rules[0].matches[0].method", "\"get\" is not one of");
    refused(
        &rule("matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]"),
        "spec.rules[0].matches[0].queryParams[1].name",
        "parameter a is there twice",
    );
    refused(
        &rule("matches: [{headers: [{name: 'a b', value: c}]}]"),
        "spec.rules[0].matches[0].headers[0].name",
        "no header name",
    );
    refused(&rule("timeouts: {request: 1.5s}"), "spec.rules[0].timeouts.request", "not a duration");
    refused(
        &rule("timeouts: {request: 1s, backendRequest: 2s}"),
        "spec.rules[0].timeouts.backendRequest",
        "must not be longer",
    );
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}";
    for (field, filters, more) in [
        ("timeouts", "", "timeouts: {backendRequest: 1s}"),
        ("retry", "", "retry: {attempts: 1}"),
        ("filters", mirror, "name: a"),
    ] {
        let route = format!(
            "  parentRefs: [{{group: '', kind: Service, name: a}}]\n  rules: [{{filters: [{{type: RequestRedirect, \
             requestRedirect: {{port: 1}}}}, {filters}], {more}}}]\n"
        );
        refused(&http_route(&route), &format!("spec.rules[0].{field}"), "forwards nothing");
    }
    refused(&rule("retry: {attempts: 0}"), "spec.rules[0].retry.attempts", "0 is not between 1 and 100");
}

#[test]
fn destination_rule_policy() {
    let text = destination_rule(
        "loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {maxConnections: 5, connectTimeout: 2s}, http: {http1MaxPendingRequests: 6, http2MaxRequests: 7}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, maxEjectionPercent: 100}",
    );
    let Some(Decoded::DestinationPolicy(policy)) = decode_one(&text).unwrap() else { panic!() };
    assert_eq!(policy.service, ServiceRef::Name(Name::new("default", "reviews")));
    let policy = policy.settings.all;
    assert_eq!(policy.load_balancing, Some(LoadBalancing::RoundRobin));
    let outlier = policy.outlier_detection.unwrap();
    assert_eq!(outlier.consecutive_5xx, 3);
    assert_eq!(outlier.interval, Duration::from_secs(1));
    assert_eq!(outlier.base_ejection_time, Duration::from_secs(30));
    assert_eq!((outlier.max_ejection_percent, outlier.min_health_percent), (100, 0));
    let pool = policy.connection_pool;
    assert_eq!(
        (pool.max_connections, pool.max_pending_requests, pool.max_requests),
        (Some(5), Some(6), Some(7))
    );
    assert_eq!(pool.connect_timeout, Some(Duration::from_secs(2)));
}

#[test]
fn destination_rule_refusals() {
    let at = |name: &str| format!("spec.trafficPolicy.{name}");
    refused(
        &destination_rule("outlierDetection: {consecutiveErrors: 3}"),
        &at("outlierDetection.consecutiveErrors"),
        "unknown or unsupported",
    );
    refused(
        &destination_rule("outlierDetection: {maxEjectionPercent: 101}"),
        &at("outlierDetection.maxEjectionPercent"),
        "101 is not between 0 and 100",
    );
    refused(&destination_rule("outlierDetection: {interval: 0s}"), &at("outlierDetection.interval"), "1ms");
    refused(
        &destination_rule("loadBalancer: {simple: PASSTHROUGH}"),
        &at("loadBalancer.simple"),
        "PASSTHROUGH",
    );
    refused(
        &destination_rule("tls: {mode: SIMPLE}"),
        &at("tls.caCertificates"),
        "must name a file of the sidecar",
    );
    for (pool, reason) in [
        ("http: {maxRequestsPerConnection: 536870913}", "is not between 0 and 536870912"),
        ("http: {maxRetries: 0}", "0 is not between 1 and"),
        ("http: {idleTimeout: one}", "is not a duration"),
        ("http: {h2UpgradePolicy: MAYBE}", "is none of DEFAULT, DO_NOT_UPGRADE, UPGRADE"),
        ("http: {maxConcurrentStreams: 0}", "0 is not between 1 and 2147483647"),
        ("tcp: {maxConnectionDuration: 0s}", "is less than 1ms"),
        ("tcp: {tcpKeepalive: {time: 1500ms}}", "is no number of seconds, 1 or more"),
        ("tcp: {tcpKeepalive: {interval: 0s}}", "is no number of seconds, 1 or more"),
        ("tcp: {tcpKeepalive: {probes: 0}}", "0 is not between 1 and"),
    ] {
        let (part, field) = pool.split_once(": {").unwrap();
        let field = field.replace(": {", ".");
        let field = field.split(':').next().unwrap();
        let field = at(&format!("connectionPool.{part}.{field}"));
        refused(&destination_rule(&format!("connectionPool: {{{pool}}}")), &field, reason);
    }
    let port = |ports: &str| destination_rule(&format!("portLevelSettings: [{ports}]"));
    let field = at("portLevelSettings[1].port.number");
    refused(&port("{port: {number: 1}}, {port: {number: 1}}"), &field, "port 1 is there twice");
    refused(&port("{port: {number: 1}}, {port: {number: 0}}"), &field, "0 is not a port");
    let field = at("portLevelSettings[0].connectionPool.http.maxRetries");
    refused(&port("{port: {number: 1}, connectionPool: {http: {maxRetries: -1}}}"), &field, "-1 is not");
    let host = |host: &str| destination_rule("{}").replace("host: reviews", &format!("host: '{host}'"));
    refused(&host("*.default.svc.cluster.local"), "spec.host", "not supported");
    assert!(decode_one(&host("reviews.default.svc.cluster.local")).is_ok());
    assert!(decode_one(&host("reviews.other.svc.cluster.local")).is_ok());
}

#[test]
fn peer_authentication() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {spec}"
        )
    };
    let text = policy(
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
    );
    let Some(Decoded::PeerAuthn(decoded)) = decode_one(&text).unwrap() else { panic!() };
    assert_eq!(decoded.mode, Some(MutualTlsMode::Strict));
    assert_eq!(decoded.port_modes[&8080], Some(MutualTlsMode::Disable));
    refused(&policy("{mtls: {mode: SOMETIMES}}"), "spec.mtls.mode", "unknown variant `SOMETIMES`");
    refused(&policy("{portLevelMtls: {8080: {mode: DISABLE}}}"), "spec.portLevelMtls", "needs a selector");
    refused(
        &policy("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: DISABLE}}}"),
        "spec.portLevelMtls.http",
        "not a port",
    );
    refused(&policy("{mtlz: {}}"), "spec.mtlz", "unknown or unsupported field");
}

#[test]
fn kinds_that_would_have_no_effect() {
    let of = |api_version: &str, kind: &str| {
        format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n")
    };
    refused(&of("networking.istio.io/v1", "Gateway"), "kind", "this mesh has no gateways, only sidecars");
    refused(&of("networking.istio.io/v1alpha3", "EnvoyFilter"), "kind", "never of foreign configuration");
    refused(&of("gateway.networking.k8s.io/v1", "TCPRoute"), "kind", "TCPRoute is not supported");
    refused(&of("gateway.networking.k8s.io/v1alpha2", "HTTPRoute"), "apiVersion", "v1alpha2 of HTTPRoute");
    assert!(decode_one(&of("apps/v1", "Deployment")).unwrap().is_none());
    let external =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ExternalName, externalName: x.y}";
    assert!(decode_one(external).unwrap().is_none());
}

#[test]
fn names_that_could_pass_for_others() {
    let service =
        |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: '{name}'}}\nspec: {{}}");
    refused(&service("a.b"), "metadata.name", "must be 1 to 63");
    refused(&service("a|b"), "metadata.name", "must be 1 to 63");
    let pod = |namespace: &str, account: &str, label: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: '{namespace}', labels: {{app: '{label}'}}}}\n\
             spec: {{serviceAccountName: '{account}'}}"
        )
    };
    refused(&pod("x/sa/admin", "a", "b"), "metadata.namespace", "must be 1 to 63");
    refused(&pod("x", "a/b", "b"), "spec.serviceAccountName", "must be made of");
    refused(&pod("x", "a", "b;c"), "metadata.labels.app", "at most 63");
    refused(&rule(r#"name: "a\nb""#), "spec.rules[0].name", "must be made of");
    refused(
        &rule("filters: [{type: RequestRedirect, requestRedirect: {hostname: 'a b'}}]"),
        "spec.rules[0].filters[0].requestRedirect.hostname",
        "must be made of",
    );
}
