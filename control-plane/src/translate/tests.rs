//! Structure of the resources, seen as a proxy sees them: through a snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod by_content;
mod captured;
mod causes;
mod checks;
mod connections;
mod destination_rule;
mod detect;
mod endpoint_policy;
mod grpc_route;
mod http_route;
mod inbound;
mod locality;
mod outbound;
mod own_policies;
mod proxyless;
mod routes;
mod service_entry;
mod subsets;
mod traffic_policy;
mod twins;
mod virtual_service;
mod workload_entry;

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::resource::unpack;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use outrigger_xds_api::wire::core::v3::{TransportSocket, address, socket_address, transport_socket};
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use outrigger_xds_api::wire::http_connection_manager::v3::HttpConnectionManager;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::{FilterChain, Listener, filter};
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::ClusterSpecifier;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::{Route, RouteConfiguration, VirtualHost};
use outrigger_xds_api::wire::tcp_proxy::v3::TcpProxy;
use outrigger_xds_api::wire::tls::v3::common_tls_context::ValidationContextType;
use outrigger_xds_api::wire::tls::v3::{DownstreamTlsContext, UpstreamTlsContext};
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::model::MeshSettings;
use crate::scope::{ProxyId, ScopeError, ScopeKey};
use crate::snapshot::{Engine, Resource, Snapshot};
use crate::source::{Event, test_objects};

const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: reviews},
 spec: {selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews-v1},
 spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 9080, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews-v2},
 spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 9080, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: cache, namespace: data},
 spec: {selector: {app: cache}, ports: [{name: redis, port: 6379}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}},
 spec: {serviceAccountName: web}, status: {podIP: 127.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-v1-a, labels: {app: reviews, version: v1}},
 spec: {serviceAccountName: reviews}, status: {podIP: 127.1.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-v2-a, labels: {app: reviews, version: v2}},
 spec: {serviceAccountName: reviews-two}, status: {podIP: 127.1.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cache-0, namespace: data, labels: {app: cache}},
 spec: {serviceAccountName: cache}, status: {podIP: 127.1.0.4}}
";

/// An HTTPRoute of the Service `reviews`. Each of `rules` begins on a line of its own, the first on line 8.
fn http_route(name: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: reviews}}]
  rules:{rules}
"
    )
}

/// 90 % to `reviews-v1`, 10 % to `reviews-v2`.
fn split() -> String {
    let backends = "[{name: reviews-v1, port: 9080, weight: 90}, {name: reviews-v2, port: 9080, weight: 10}]";
    http_route("split", &format!("\n  - backendRefs: {backends}"))
}

fn peer_authn(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

fn snapshot_of(texts: &[&str]) -> Arc<Snapshot> {
    with_settings(MeshSettings::default(), texts)
}

fn with_settings(settings: MeshSettings, texts: &[&str]) -> Arc<Snapshot> {
    let mut engine = Engine::new(settings);
    engine.apply(texts.iter().flat_map(|text| test_objects(text)).map(Event::Upsert));
    engine.publish().unwrap()
}

fn scope(snapshot: &Snapshot, namespace: &str, pod: &str, service_account: &str) -> ScopeKey {
    let (namespace, pod, service_account) = (namespace.into(), pod.into(), service_account.into());
    snapshot.scope_of(&ProxyId { namespace, pod, service_account, ip: None }).unwrap()
}

fn get<M: prost::Message + prost::Name + Default>(
    snapshot: &Snapshot,
    scope: &ScopeKey,
    of: ResourceType,
    name: &str,
) -> M {
    let set = snapshot.resources(scope, of);
    let found: &Arc<Resource> = set
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", set.iter().map(|r| &r.name).collect::<Vec<_>>()));
    unpack(&found.content).unwrap()
}

fn web(snapshot: &Snapshot) -> ScopeKey {
    scope(snapshot, "default", "web", "web")
}

fn cluster(snapshot: &Snapshot, name: &str) -> Cluster {
    get(snapshot, &web(snapshot), ResourceType::Cluster, name)
}

fn routes(snapshot: &Snapshot, host: &str) -> Vec<Route> {
    virtual_host(snapshot, &web(snapshot), host).routes
}

fn virtual_host(snapshot: &Snapshot, scope: &ScopeKey, host: &str) -> VirtualHost {
    let routes: RouteConfiguration = get(snapshot, scope, ResourceType::RouteConfiguration, "15001");
    routes.virtual_hosts.into_iter().find(|virtual_host| virtual_host.name == host).unwrap()
}

fn socket<M: prost::Message + prost::Name + Default>(socket: &Option<TransportSocket>) -> M {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.as_ref().unwrap().config_type else {
        panic!()
    };
    unpack(any).unwrap()
}

fn only_filter<M: prost::Message + prost::Name + Default>(chain: &FilterChain) -> M {
    let [filter] = chain.filters.as_slice() else { panic!() };
    let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else { panic!() };
    unpack(any).unwrap()
}

fn dialled(endpoint: &LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!() };
    text(endpoint.address.as_ref().unwrap())
}

fn text(address: &outrigger_xds_api::wire::core::v3::Address) -> String {
    let Some(address::Address::SocketAddress(address)) = &address.address else { panic!() };
    let Some(socket_address::PortSpecifier::PortValue(port)) = address.port_specifier else { panic!() };
    format!("{}:{port}", address.address)
}

fn endpoints(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let assignment: ClusterLoadAssignment =
        get(snapshot, &web(snapshot), ResourceType::ClusterLoadAssignment, name);
    assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints).map(dialled).collect()
}

fn chain_names(listener: &Listener) -> Vec<&str> {
    listener.filter_chains.iter().map(|chain| chain.name.as_str()).collect()
}

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const REVIEWS_HOST: &str = "reviews.default.svc.cluster.local:9080";

#[test]
fn outbound_cluster_with_mutual_tls() {
    let snapshot = snapshot_of(&[MESH]);
    let cluster = cluster(&snapshot, REVIEWS);
    assert_eq!(cluster.lb_policy, LbPolicy::LeastRequest as i32);
    assert_eq!(cluster.connect_timeout.unwrap().seconds, 10);
    let options = &cluster.typed_extension_protocol_options;
    assert!(options.contains_key("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"));
    let tls: UpstreamTlsContext = socket(&cluster.transport_socket);
    assert_eq!(tls.sni, "outbound_.9080_._.reviews.default.svc.cluster.local");
    let common = tls.common_tls_context.unwrap();
    assert_eq!(common.alpn_protocols, ["h2"]);
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "default");
    let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type
    else {
        panic!()
    };
    assert_eq!(combined.validation_context_sds_secret_config.unwrap().name, "ROOTCA");
    let names: Vec<_> = combined
        .default_validation_context
        .unwrap()
        .match_typed_subject_alt_names
        .into_iter()
        .map(|san| san.matcher.unwrap().match_pattern.unwrap())
        .collect();
    assert_eq!(
        names,
        [
            MatchPattern::Exact("spiffe://cluster.local/ns/default/sa/reviews".into()),
            MatchPattern::Exact("spiffe://cluster.local/ns/default/sa/reviews-two".into()),
        ]
    );
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006", "127.1.0.3:15006"]);
}

#[test]
fn endpoints_describe_their_workload() {
    let snapshot = snapshot_of(&[MESH]);
    let name = "outbound|9080||reviews-v1.default.svc.cluster.local";
    let assignment: ClusterLoadAssignment =
        get(&snapshot, &web(&snapshot), ResourceType::ClusterLoadAssignment, name);
    let endpoint = &assignment.endpoints[0].lb_endpoints[0];
    let value = &endpoint.metadata.as_ref().unwrap().filter_metadata["istio"].fields["workload"];
    let expected = "reviews-v1-a;default;reviews;v1;Kubernetes".to_owned();
    assert_eq!(value.kind, Some(outrigger_xds_api::wire::protobuf::value::Kind::StringValue(expected)));
}

#[test]
fn a_service_without_endpoints_trusts_nobody() {
    let snapshot = snapshot_of(&[
        MESH,
        "{apiVersion: v1, kind: Service, metadata: {name: empty}, spec: {selector: {app: none}, ports: [{port: 1}]}}",
    ]);
    let cluster = cluster(&snapshot, "outbound|1||empty.default.svc.cluster.local");
    let tls: UpstreamTlsContext = socket(&cluster.transport_socket);
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        tls.common_tls_context.unwrap().validation_context_type
    else {
        panic!()
    };
    assert_eq!(combined.default_validation_context.unwrap().match_typed_subject_alt_names.len(), 1);
}

#[test]
fn encoding_is_always_the_same() {
    let versions = |snapshot: &Snapshot| -> Vec<_> {
        let scope = web(snapshot);
        let all = ResourceType::ALL.into_iter().flat_map(|of| {
            let set = snapshot.resources(&scope, of);
            set.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect::<Vec<_>>()
        });
        all.collect()
    };
    let filters = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [reviews-v1]
  http:
  - fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}}
    corsPolicy: {allowOrigins: [{exact: a}]}
    route: [{destination: {host: reviews}}]
";
    let policy = "{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: p}, spec: {targetRefs: [{group: \
                  networking.istio.io, kind: VirtualService, name: v}, {group: '', kind: Service, name: web}], rateLimit: {requests: 5}, \
                  queryParameters: {remove: [a]}}}";
    let own = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80}]}}";
    let objects = [MESH, own, &split(), filters, policy];
    let first = versions(&snapshot_of(&objects));
    for _ in 0..20 {
        assert_eq!(versions(&snapshot_of(&objects)), first);
    }
}

#[test]
fn outlier_detection_and_limits() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 9}}
    outlierDetection: {consecutive5xxErrors: 3}
";
    let cluster = cluster(&snapshot_of(&[MESH, rule]), REVIEWS);
    let outlier = cluster.outlier_detection.unwrap();
    assert_eq!(outlier.consecutive_5xx.unwrap().value, 3);
    assert_eq!(outlier.interval.unwrap().seconds, 10);
    assert_eq!(outlier.base_ejection_time.unwrap().seconds, 30);
    assert_eq!(outlier.max_ejection_percent.unwrap().value, 10);
    assert!(!outlier.split_external_local_origin_errors);
    assert_eq!(outlier.enforcing_consecutive_gateway_failure.unwrap().value, 0);
    assert_eq!(cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 0.0);
    let limits = &cluster.circuit_breakers.unwrap().thresholds[0];
    assert_eq!(limits.max_requests.unwrap().value, 9);
    assert_eq!(limits.max_connections.unwrap().value, u32::MAX);

    let unused = snapshot_of(&[MESH, rule, &rule.replace("name: r}", "name: s}")]);
    assert!(unused.problems()[0].reason.contains("follows DestinationRule default/r"));
}

#[test]
fn detectors_of_outliers() {
    let detected = |more: &str| {
        let rule = format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r}},
spec: {{host: reviews, trafficPolicy: {{outlierDetection: {{{more}}}}}}}}}"
        );
        cluster(&snapshot_of(&[MESH, &rule]), REVIEWS).outlier_detection.unwrap()
    };
    let gateway = detected("consecutive5xxErrors: 0, consecutiveGatewayErrors: 3");
    assert_eq!(gateway.consecutive_gateway_failure.unwrap().value, 3);
    assert_eq!(gateway.enforcing_consecutive_gateway_failure.unwrap().value, 100);
    assert_eq!(gateway.enforcing_consecutive_5xx.unwrap().value, 0);
    let split = detected("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 7");
    assert!(split.split_external_local_origin_errors);
    assert_eq!(split.consecutive_local_origin_failure.unwrap().value, 7);
    assert_eq!(split.enforcing_local_origin_success_rate.unwrap().value, 0);
    let default = detected("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0");
    assert_eq!(default.consecutive_local_origin_failure.unwrap().value, 5);
    // Without the split it says nothing.
    assert!(detected("consecutiveLocalOriginFailures: 7").consecutive_local_origin_failure.is_none());
}

#[test]
fn clients_follow_peer_authentication() {
    let snapshot = snapshot_of(&[MESH, &peer_authn("{mtls: {mode: DISABLE}}")]);
    let cluster = cluster(&snapshot, REVIEWS);
    assert!(cluster.transport_socket.is_none());
    // The sidecar takes plaintext HTTP and tells ports apart by host.
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006", "127.1.0.3:15006"]);
}

#[test]
fn pods_without_a_sidecar() {
    let stranger = MESH.replace(
        "labels: {app: reviews, version: v2}",
        "labels: {app: reviews, version: v2, sidecar.istio.io/inject: 'false'}",
    );
    let snapshot = snapshot_of(&[&stranger]);
    let plain = "outbound|9080||reviews-v2.default.svc.cluster.local";
    assert!(cluster(&snapshot, plain).transport_socket.is_none());
    assert_eq!(endpoints(&snapshot, plain), ["127.1.0.3:8080"]);
    // Mixed: never in plaintext.
    assert!(cluster(&snapshot, REVIEWS).transport_socket.is_some());
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006"]);
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert_eq!(problem.object.as_ref().unwrap().name, "reviews");
    let pod = ProxyId {
        namespace: "default".into(),
        pod: "reviews-v2-a".into(),
        service_account: "reviews-two".into(),
        ip: None,
    };
    assert!(matches!(snapshot.scope_of(&pod), Err(ScopeError::UnknownPod { .. })));
}

#[test]
fn endpoint_slices_come_before_selectors() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-x, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- {addresses: [127.1.0.2], targetRef: {kind: Pod, name: reviews-v1-a}}
- {addresses: [127.1.0.3], conditions: {ready: false}}
ports: [{name: http, port: 8080}]
";
    let snapshot = snapshot_of(&[MESH, slice]);
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006"]);
    let outside = slice.replace(
        "addresses: [127.1.0.2], targetRef: {kind: Pod, name: reviews-v1-a}",
        "addresses: [10.0.0.1]",
    );
    let snapshot = snapshot_of(&[MESH, &outside.replace("127.1.0.3", "10.0.0.2")]);
    assert_eq!(endpoints(&snapshot, REVIEWS), ["10.0.0.1:8080"]);
    assert!(cluster(&snapshot, REVIEWS).transport_socket.is_none());
    // A slice that is told before its Pod: nobody may take it for a Pod without a sidecar.
    let early = slice.replace("name: reviews-v1-a}", "name: not-yet-known}");
    let snapshot = snapshot_of(&[MESH, &early]);
    assert_eq!(endpoints(&snapshot, REVIEWS), [""; 0]);
    assert!(cluster(&snapshot, REVIEWS).transport_socket.is_some());
}

#[test]
fn a_pod_with_two_addresses_is_one_endpoint() {
    let slice = |family: &str, address: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {}, labels: \
             {{kubernetes.io/service-name: reviews}}}}\naddressType: {family}\nendpoints: [{{addresses: ['{address}']}}]\nports: \
             [{{name: http, port: 8080}}]\n",
            family.to_lowercase()
        )
    };
    let (v4, v6) = (slice("IPv4", "10.0.0.1"), slice("IPv6", "fd00::1"));
    let with = |ips: &str| {
        let spec = "spec: {selector: {app: reviews}, ports";
        MESH.replace(spec, &format!("spec: {{clusterIPs: [{ips}], selector: {{app: reviews}}, ports"))
    };
    for (ips, expected) in
        [("10.96.0.1, 'fd96::1'", "10.0.0.1:8080"), ("'fd96::1', 10.96.0.1", "fd00::1:8080")]
    {
        assert_ne!(with(ips), MESH);
        assert_eq!(endpoints(&snapshot_of(&[&with(ips), &v4, &v6]), REVIEWS), [expected], "{ips}");
    }
    // One family is taken as it is.
    assert_eq!(endpoints(&snapshot_of(&[&with("10.96.0.1"), &v6]), REVIEWS), ["fd00::1:8080"]);
}

#[test]
fn a_proxy_gets_only_its_own_scope() {
    let snapshot = snapshot_of(&[MESH]);
    let id = |pod: &str, service_account: &str, ip: Option<&str>| ProxyId {
        namespace: "default".into(),
        pod: pod.into(),
        service_account: service_account.into(),
        ip: ip.map(|ip| ip.parse().unwrap()),
    };
    assert!(snapshot.scope_of(&id("web", "web", Some("127.1.0.1"))).is_ok());
    assert!(matches!(
        snapshot.scope_of(&id("reviews-v1-a", "web", None)),
        Err(ScopeError::WrongServiceAccount { .. })
    ));
    assert!(matches!(
        snapshot.scope_of(&id("web", "web", Some("127.1.0.2"))),
        Err(ScopeError::WrongAddress { .. })
    ));
    assert!(matches!(snapshot.scope_of(&id("nobody", "web", None)), Err(ScopeError::UnknownPod { .. })));
}

#[test]
fn every_resource_obeys_envoys_validation_rules() {
    let settings = MeshSettings { access_log: true, ..MeshSettings::default() };
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r}
spec: {host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0}}}
";
    assert_valid(&with_settings(settings, &[MESH, &split(), rule, proxyless::GRPC]));
}

/// Fails unless every resource obeys the validation rules of Envoy's messages, and what Envoy checks beside them.
fn assert_valid(snapshot: &Snapshot) {
    fn all_differ<T: PartialEq>(all: &[T]) -> bool {
        all.iter().enumerate().all(|(index, one)| !all[..index].contains(one))
    }
    for scope in snapshot.scopes() {
        for resource in snapshot.resources(scope, ResourceType::RouteConfiguration).iter() {
            let hosts = unpack::<RouteConfiguration>(&resource.content).unwrap().virtual_hosts;
            let names: Vec<_> = hosts.iter().map(|host| &host.name).collect();
            let domains: Vec<_> = hosts.iter().flat_map(|host| &host.domains).collect();
            assert!(all_differ(&names) && all_differ(&domains), "{names:?} {domains:?}");
        }
        for resource in snapshot.resources(scope, ResourceType::Listener).iter() {
            let chains = unpack::<Listener>(&resource.content).unwrap().filter_chains;
            let matches: Vec<_> = chains.iter().map(|chain| &chain.filter_chain_match).collect();
            assert!(all_differ(&matches), "{matches:?}");
        }
        for of in ResourceType::ALL {
            for resource in snapshot.resources(scope, of).iter() {
                let report =
                    outrigger_xds_api::validate::validate(of.message_name(), &resource.content.value);
                let name = &resource.name;
                assert!(report.violations.is_empty(), "{name}: {:?}", report.violations);
                assert!(report.unknown.is_empty(), "{name}: {:?}", report.unknown);
                assert!(report.deprecated.is_empty(), "{name}: {:?}", report.deprecated);
            }
        }
    }
}

#[test]
fn named_target_ports() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: named}, \
                   spec: {selector: {app: named}, ports: [{name: http, port: 80, targetPort: web}]}}";
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: named, labels: {app: named}}, \
               spec: {containers: [{ports: [{name: NAME, containerPort: 8080}]}]}, status: {podIP: 127.1.0.9}}";
    let name = "outbound|80||named.default.svc.cluster.local";
    let snapshot = snapshot_of(&[MESH, service, &pod.replace("NAME", "web")]);
    assert_eq!(endpoints(&snapshot, name), ["127.1.0.9:15006"]);
    let scope = scope(&snapshot, "default", "named", "default");
    let _: Cluster = get(&snapshot, &scope, ResourceType::Cluster, "inbound|8080||");
    let snapshot = snapshot_of(&[MESH, service, &pod.replace("NAME", "other")]);
    assert!(endpoints(&snapshot, name).is_empty());
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert!(problem.reason.contains("Pod default/named has no container port"), "{problem}");
}
