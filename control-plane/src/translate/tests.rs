//! Structure of the resources, seen as a proxy sees them: through a snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v1}
spec:
  selector: {app: reviews, version: v1}
  ports: [{name: http, port: 9080, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2}
spec:
  selector: {app: reviews, version: v2}
  ports: [{name: http, port: 9080, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: cache, namespace: data}
spec:
  selector: {app: cache}
  ports: [{name: redis, port: 6379}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIP: 127.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1-a, labels: {app: reviews, version: v1}}
spec: {serviceAccountName: reviews}
status: {podIP: 127.1.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2-a, labels: {app: reviews, version: v2}}
spec: {serviceAccountName: reviews-two}
status: {podIP: 127.1.0.3}
---
apiVersion: v1
kind: Pod
metadata: {name: cache-0, namespace: data, labels: {app: cache}}
spec: {serviceAccountName: cache}
status: {podIP: 127.1.0.4}
";

const SPLIT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - backendRefs: [{name: reviews-v1, port: 9080, weight: 90}, {name: reviews-v2, port: 9080, weight: 10}]
";

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
    let first = versions(&snapshot_of(&[MESH, SPLIT]));
    for _ in 0..20 {
        assert_eq!(versions(&snapshot_of(&[MESH, SPLIT])), first);
    }
}

#[test]
fn virtual_hosts_and_their_domains() {
    let snapshot = snapshot_of(&[
        MESH,
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: {ports: [{name: http, port: 80}]}}",
    ]);
    let own = virtual_host(&snapshot, &web(&snapshot), REVIEWS_HOST);
    assert_eq!(
        own.domains,
        [
            "reviews.default.svc.cluster.local:9080",
            "reviews.default.svc:9080",
            "reviews.default:9080",
            "reviews:9080"
        ]
    );
    let Some(Action::Route(action)) = &own.routes[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(REVIEWS.into())));
    assert_eq!(action.timeout.unwrap().seconds, 0);
    let foreign = virtual_host(&snapshot, &web(&snapshot), "a.x.svc.cluster.local:80");
    assert_eq!(
        foreign.domains,
        ["a.x.svc.cluster.local:80", "a.x.svc:80", "a.x:80", "a.x.svc.cluster.local", "a.x.svc", "a.x"]
    );
    // From another namespace there is no short name. TCP ports have no virtual host.
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    let from_data = virtual_host(&snapshot, &cache, REVIEWS_HOST);
    assert!(!from_data.domains.contains(&"reviews:9080".to_owned()));
    let all: RouteConfiguration = get(&snapshot, &cache, ResourceType::RouteConfiguration, "15001");
    assert!(all.virtual_hosts.iter().all(|host| !host.name.starts_with("cache.")));
}

#[test]
fn weights() {
    let snapshot = snapshot_of(&[MESH, SPLIT]);
    let routes = routes(&snapshot, REVIEWS_HOST);
    let Some(Action::Route(action)) = &routes[0].action else { panic!() };
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier else { panic!() };
    let shares: Vec<_> =
        weighted.clusters.iter().map(|share| (share.name.as_str(), share.weight.unwrap().value)).collect();
    assert_eq!(
        shares,
        [
            ("outbound|9080||reviews-v1.default.svc.cluster.local", 90),
            ("outbound|9080||reviews-v2.default.svc.cluster.local", 10)
        ]
    );
    assert_eq!(routes[0].name, "default.split.0");
}

#[test]
fn missing_backends() {
    let missing = SPLIT.replace("reviews-v2", "reviews-v9");
    let snapshot = snapshot_of(&[MESH, &missing]);
    let Some(Action::Route(action)) = &routes(&snapshot, REVIEWS_HOST)[0].action else { panic!() };
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier else { panic!() };
    assert_eq!(weighted.clusters[1].name, "BlackHoleCluster");
    assert_eq!(cluster(&snapshot, "BlackHoleCluster").load_assignment, None);
    let [problem] = snapshot.problems() else { panic!("{:?}", snapshot.problems()) };
    assert_eq!(problem.field, "spec.rules[0].backendRefs[1]");
    assert_eq!(problem.position.unwrap().line, 8);

    let none = missing.replace("reviews-v1", "reviews-v8");
    let snapshot = snapshot_of(&[MESH, &none]);
    let Some(Action::DirectResponse(answer)) = &routes(&snapshot, REVIEWS_HOST)[0].action else { panic!() };
    assert_eq!(answer.status, 500);
}

#[test]
fn precedence_of_matches() {
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - {name: any, backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: long, matches: [{path: {value: /a/b}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: regex, matches: [{path: {type: RegularExpression, value: '/x.*'}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: short, matches: [{path: {value: /a}}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: header, matches: [{path: {value: /a}, headers: [{name: h, value: v}]}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: method, matches: [{path: {value: /a}, method: GET}], backendRefs: [{name: reviews-v1, port: 9080}]}
  - {name: exact, matches: [{path: {type: Exact, value: /}}], backendRefs: [{name: reviews-v1, port: 9080}]}
";
    let routes = routes(&snapshot_of(&[MESH, route]), REVIEWS_HOST);
    let names: Vec<_> = routes.iter().map(|route| route.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["exact", "regex", "long", "method", "header", "short", "any"]);
    let path = |index: usize| routes[index].r#match.as_ref().unwrap().path_specifier.clone().unwrap();
    assert_eq!(path(2), PathSpecifier::PathSeparatedPrefix("/a/b".into()));
    assert_eq!(path(6), PathSpecifier::Prefix("/".into()));
    assert_eq!(routes[3].r#match.as_ref().unwrap().headers[0].name, ":method");
}

#[test]
fn consumer_routes_replace_producer_routes() {
    let consumer = SPLIT
        .replace("name: split", "name: mine, namespace: data")
        .replace("kind: Service, name: reviews", "kind: Service, namespace: default, name: reviews")
        .replace("name: reviews-v1, port: 9080", "name: cache, port: 6379");
    let snapshot = snapshot_of(&[MESH, SPLIT, &consumer]);
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    assert_eq!(virtual_host(&snapshot, &cache, REVIEWS_HOST).routes[0].name, "data.mine.0");
    assert_eq!(routes(&snapshot, REVIEWS_HOST)[0].name, "default.split.0");
}

#[test]
fn redirects() {
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
";
    let routes = routes(&snapshot_of(&[MESH, route]), REVIEWS_HOST);
    assert_eq!(routes.len(), 2);
    let Some(Action::Redirect(redirect)) = &routes[0].action else { panic!() };
    assert_eq!(redirect.port_redirect, 443);
    assert_eq!(
        redirect.response_code,
        outrigger_xds_api::wire::route::v3::redirect_action::RedirectResponseCode::PermanentRedirect as i32
    );
    assert_eq!(
        routes[0].r#match.as_ref().unwrap().path_specifier,
        Some(PathSpecifier::Prefix("/old/".into()))
    );
    assert_eq!(routes[1].r#match.as_ref().unwrap().path_specifier, Some(PathSpecifier::Path("/old".into())));
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
    assert_eq!(cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 0.0);
    let limits = &cluster.circuit_breakers.unwrap().thresholds[0];
    assert_eq!(limits.max_requests.unwrap().value, 9);
    assert_eq!(limits.max_connections.unwrap().value, u32::MAX);

    let unused = snapshot_of(&[MESH, rule, &rule.replace("name: r}", "name: s}")]);
    assert!(unused.problems()[0].reason.contains("follows DestinationRule default/r"));
}

fn inbound(snapshot: &Snapshot) -> Listener {
    let scope = scope(snapshot, "default", "reviews-v1-a", "reviews");
    get(snapshot, &scope, ResourceType::Listener, "virtualInbound")
}

fn chain_names(listener: &Listener) -> Vec<&str> {
    listener.filter_chains.iter().map(|chain| chain.name.as_str()).collect()
}

const SNIS: [&str; 2] = [
    "outbound_.9080_._.reviews.default.svc.cluster.local",
    "outbound_.9080_._.reviews-v1.default.svc.cluster.local",
];

#[test]
fn inbound_listener() {
    let snapshot = snapshot_of(&[MESH]);
    let listener = inbound(&snapshot);
    assert_eq!(text(listener.address.as_ref().unwrap()), "127.1.0.2:15006");
    assert_eq!(listener.listener_filters[0].name, "envoy.filters.listener.tls_inspector");
    assert_eq!(chain_names(&listener), [SNIS[0], SNIS[1], "plaintext"]);
    let chain = &listener.filter_chains[0];
    let matched = chain.filter_chain_match.as_ref().unwrap();
    assert_eq!(
        (matched.transport_protocol.as_str(), matched.server_names.as_slice()),
        ("tls", &[SNIS[0].to_owned()][..])
    );
    let tls: DownstreamTlsContext = socket(&chain.transport_socket);
    assert!(tls.require_client_certificate.unwrap().value);
    let manager: HttpConnectionManager = only_filter(chain);
    assert_eq!(manager.stat_prefix, "inbound_0.0.0.0_8080;");
    assert!(manager.access_log.is_empty());
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
    assert_eq!(routes.name, "inbound|9080||");
    assert_eq!(routes.virtual_hosts[0].name, "inbound|http|9080");
    let Some(Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster("inbound|8080||".into())));

    let scope = scope(&snapshot, "default", "reviews-v1-a", "reviews");
    let cluster: Cluster = get(&snapshot, &scope, ResourceType::Cluster, "inbound|8080||");
    assert_eq!(
        cluster.cluster_discovery_type,
        Some(outrigger_xds_api::wire::cluster::v3::cluster::ClusterDiscoveryType::Type(
            DiscoveryType::Static as i32
        ))
    );
    let assignment = cluster.load_assignment.unwrap();
    assert_eq!(dialled(&assignment.endpoints[0].lb_endpoints[0]), "127.1.0.2:8080");
    let services = &cluster.metadata.unwrap().filter_metadata["istio"].fields["services"];
    let Some(outrigger_xds_api::wire::protobuf::value::Kind::ListValue(list)) = &services.kind else {
        panic!()
    };
    assert_eq!(list.values.len(), 2);
}

#[test]
fn peer_authentication_modes() {
    let chains = |spec: &str| {
        let snapshot = snapshot_of(&[MESH, &peer_authn(spec)]);
        let listener = inbound(&snapshot);
        chain_names(&listener).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(chains("{mtls: {mode: STRICT}}"), SNIS);
    assert_eq!(chains("{mtls: {mode: DISABLE}}"), ["plaintext"]);
    assert_eq!(chains("{mtls: {mode: UNSET}}").len(), 3);
    let selector = "selector: {matchLabels: {app: reviews}}";
    assert_eq!(chains(&format!("{{{selector}, portLevelMtls: {{8080: {{mode: STRICT}}}}}}")), SNIS);
    assert_eq!(chains(&format!("{{{selector}, portLevelMtls: {{9080: {{mode: STRICT}}}}}}")).len(), 3);

    // The whole mesh, by a policy of the root namespace; the namespace's own one is stronger.
    let strict = peer_authn("{mtls: {mode: STRICT}}");
    let mesh = strict.replace("name: p", "name: m, namespace: istio-system");
    assert_eq!(chain_names(&inbound(&snapshot_of(&[MESH, &mesh]))), SNIS);
    let own = peer_authn("{mtls: {mode: DISABLE}}");
    assert_eq!(chain_names(&inbound(&snapshot_of(&[MESH, &mesh, &own]))), ["plaintext"]);
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
fn outbound_listeners() {
    let settings = MeshSettings { access_log: true, ..MeshSettings::default() };
    let snapshot = with_settings(settings, &[MESH]);
    let http: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_15001");
    assert_eq!(text(http.address.as_ref().unwrap()), "127.1.0.1:15001");
    let manager: HttpConnectionManager = only_filter(&http.filter_chains[0]);
    assert_eq!(manager.stat_prefix, "outbound_0.0.0.0_15001");
    assert_eq!(manager.access_log.len(), 1);
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, "15001");
    let tcp: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    let proxy: TcpProxy = only_filter(&tcp.filter_chains[0]);
    assert_eq!(
        proxy.cluster_specifier,
        Some(outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::ClusterSpecifier::Cluster(
            "outbound|6379||cache.data.svc.cluster.local".into()
        ))
    );
    // `web` has no Service, so no inbound listener; `cache-0` listens on 6379 itself.
    let names = |scope: &ScopeKey| {
        let set = snapshot.resources(scope, ResourceType::Listener);
        set.iter().map(|listener| listener.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&web(&snapshot)), ["127.1.0.1_15001", "127.1.0.1_6379"]);
    let cache = scope(&snapshot, "data", "cache-0", "cache");
    assert_eq!(names(&cache), ["127.1.0.4_15001", "virtualInbound"]);
    let inbound: Listener = get(&snapshot, &cache, ResourceType::Listener, "virtualInbound");
    let _: TcpProxy = only_filter(&inbound.filter_chains[0]);
    assert_eq!(chain_names(&inbound)[1], "plaintext");
}

#[test]
fn tcp_ports_that_clash() {
    let other = "{apiVersion: v1, kind: Service, metadata: {name: redis}, spec: {ports: [{port: 6379}, {port: 15006}]}}";
    let snapshot = snapshot_of(&[MESH, other]);
    let tcp: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    let proxy: TcpProxy = only_filter(&tcp.filter_chains[0]);
    assert_eq!(proxy.stat_prefix, "outbound|6379||redis.default.svc.cluster.local");
    let reasons: Vec<_> = snapshot.problems().iter().map(|problem| problem.reason.as_str()).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("clients in namespace default cannot use TCP port 6379"))
    );
    assert!(reasons.iter().any(|reason| reason.contains("TCP port 15006 is the sidecar's own")));
}

#[test]
fn plaintext_to_several_ports_goes_by_host() {
    let admin = "
apiVersion: v1
kind: Service
metadata: {name: reviews-admin}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8081}]}
";
    let listener = inbound(&snapshot_of(&[MESH, admin]));
    let plaintext = listener.filter_chains.last().unwrap();
    let manager: HttpConnectionManager = only_filter(plaintext);
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
    assert_eq!(routes.virtual_hosts.len(), 3);
    assert!(routes.virtual_hosts[1].domains.contains(&"reviews-admin".to_owned()));
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
