//! DestinationRules: limits and lives of connections, what they speak, single ports.

use outrigger_xds_api::wire::core::v3::TcpKeepalive;
use outrigger_xds_api::wire::http_protocol_options::v3::HttpProtocolOptions;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::UpstreamProtocolOptions;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use outrigger_xds_api::wire::protobuf::{Duration, UInt32Value};

use super::*;

/// A DestinationRule of a Service with this policy, in YAML's flow form.
fn rule(host: &str, policy: &str) -> String {
    let (namespace, name) = host.split_once('/').unwrap_or(("default", host));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\n\
         spec: {{host: {name}, trafficPolicy: {{{policy}}}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}, \
         trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}]}}\n"
    )
}

fn with(policy: &str) -> Arc<Snapshot> {
    let snapshot = snapshot_of(&[MESH, &rule("reviews", policy)]);
    assert_eq!((snapshot.rejections(), snapshot.problems()), (&[][..], &[][..]), "{policy}");
    assert_valid(&snapshot);
    snapshot
}

fn options(cluster: &Cluster) -> Option<HttpProtocolOptions> {
    cluster.typed_extension_protocol_options.values().next().map(|any| unpack(any).unwrap())
}

/// `h1`, `h2` or `same`, and the ALPN.
fn spoken(snapshot: &Snapshot, name: &str) -> (&'static str, Vec<String>) {
    let cluster = cluster(snapshot, name);
    let spoken = match options(&cluster).and_then(|options| options.upstream_protocol_options) {
        None => "h1",
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match config.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => "h2",
            _ => "h1",
        },
        Some(_) => "same",
    };
    let socket = cluster.transport_socket.as_ref();
    let tls = socket.map(|_| self::socket::<UpstreamTlsContext>(&cluster.transport_socket));
    (spoken, tls.map(|tls| tls.common_tls_context.unwrap().alpn_protocols).unwrap_or_default())
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

const fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[test]
fn limits_of_a_pool() {
    let snapshot = with(
        "connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s, idleTimeout: 9s, tcpKeepalive: {probes: 3, time: 60s}}, http: \
         {http1MaxPendingRequests: 4, http2MaxRequests: 5, maxRequestsPerConnection: 6, maxRetries: 7, idleTimeout: 8s, \
         maxConcurrentStreams: 10}}",
    );
    for name in [REVIEWS, "outbound|9080|v1|reviews.default.svc.cluster.local"] {
        let cluster = cluster(&snapshot, name);
        assert_eq!(cluster.connect_timeout, seconds(2));
        let limits = &cluster.circuit_breakers.as_ref().unwrap().thresholds[0];
        assert_eq!((limits.max_connections, limits.max_pending_requests), (number(1), number(4)));
        assert_eq!((limits.max_requests, limits.max_retries), (number(5), number(7)));
        let keepalive = cluster.upstream_connection_options.unwrap().tcp_keepalive.unwrap();
        let expected = TcpKeepalive {
            keepalive_probes: number(3),
            keepalive_time: number(60),
            keepalive_interval: None,
        };
        assert_eq!(keepalive, expected);
        let options = options(&cluster).unwrap();
        let common = options.common_http_protocol_options.unwrap();
        assert_eq!((common.max_requests_per_connection, common.idle_timeout), (number(6), seconds(8)));
        let Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) = options.upstream_protocol_options
        else {
            panic!()
        };
        let Some(ProtocolConfig::Http2ProtocolOptions(http2)) = config.protocol_config else { panic!() };
        assert_eq!(http2.max_concurrent_streams, number(10));
    }
    let plain = cluster(&with(""), REVIEWS);
    assert_eq!(plain.upstream_connection_options, None);
    assert_eq!(options(&plain).unwrap().common_http_protocol_options, None);
    // 0 requests and no time are no limit.
    let none =
        cluster(&with("connectionPool: {http: {maxRequestsPerConnection: 0, idleTimeout: 0s}}"), REVIEWS);
    let common = options(&none).unwrap().common_http_protocol_options.unwrap();
    assert_eq!((common.max_requests_per_connection, common.idle_timeout), (None, seconds(0)));
}

#[test]
fn lives_of_connections() {
    let policy = "connectionPool: {tcp: {idleTimeout: 9s, maxConnectionDuration: 90s}}";
    let snapshot = snapshot_of(&[MESH, &rule("data/cache", policy)]);
    assert_eq!(snapshot.problems(), []);
    assert_valid(&snapshot);
    let listener: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    let proxy: TcpProxy = only_filter(&listener.filter_chains[0]);
    assert_eq!((proxy.idle_timeout, proxy.max_downstream_connection_duration), (seconds(9), seconds(90)));
    // Along a rule it is the word of the first destination's subset.
    let service = super::virtual_service::virtual_service(
        "data/v",
        "hosts: [cache], tcp: [{route: [{destination: {host: cache, subset: v1}, weight: 1}, {destination: {host: cache}, weight: 1}]}]",
    );
    let snapshot = snapshot_of(&[MESH, &rule("data/cache", policy), &service]);
    let listener: Listener = get(&snapshot, &web(&snapshot), ResourceType::Listener, "127.1.0.1_6379");
    assert_eq!(only_filter::<TcpProxy>(&listener.filter_chains[0]).idle_timeout, seconds(9));

    // HTTP has an idle timeout of its own.
    let of_http = cluster(&with(policy), REVIEWS);
    let common = options(&of_http).unwrap().common_http_protocol_options.unwrap();
    assert_eq!((common.idle_timeout, common.max_connection_duration), (None, seconds(90)));
}

#[test]
fn http2_where_it_is_wanted() {
    let upgrade = |policy: &str| format!("connectionPool: {{http: {{h2UpgradePolicy: {policy}}}}}");
    let stranger =
        MESH.replace("labels: {app: reviews,", "labels: {sidecar.istio.io/inject: 'false', app: reviews,");
    for (policy, in_mesh, outside) in [
        ("DEFAULT", ("h2", "h2"), "h1"),
        ("UPGRADE", ("h2", "h2"), "h2"),
        ("DO_NOT_UPGRADE", ("h1", "http/1.1"), "h1"),
    ] {
        let (protocol, alpn) = in_mesh;
        assert_eq!(spoken(&with(&upgrade(policy)), REVIEWS), (protocol, vec![alpn.to_owned()]), "{policy}");
        let plain = snapshot_of(&[&stranger, &rule("reviews", &upgrade(policy))]);
        assert_eq!(spoken(&plain, REVIEWS), (outside, vec![]), "{policy}");
    }
}

#[test]
fn single_ports() {
    let two = MESH.replace(
        "ports: [{name: http, port: 9080, targetPort: 8080}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: reviews-v1}",
        "ports: [{name: http, port: 9080, targetPort: 8080}, {name: http-b, port: 9081, targetPort: 8080}]}}\n---\n{apiVersion: v1, kind: \
         Service, metadata: {name: reviews-v1}",
    );
    assert_ne!(two, MESH);
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {http: {maxRetries: 1}}, portLevelSettings: [{port: {number: 9081}, \
                  connectionPool: {http: {maxRetries: 2}}}]";
    let own = rule("reviews", policy).replace(
        "{loadBalancer: {simple: RANDOM}}",
        "{loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 9081}, outlierDetection: {}}]}",
    );
    let shown = |rule: &str, port: u16, subset: &str| {
        let snapshot = snapshot_of(&[&two, rule]);
        assert_eq!((snapshot.rejections(), snapshot.problems()), (&[][..], &[][..]));
        let name = format!("outbound|{port}|{subset}|reviews.default.svc.cluster.local");
        let cluster = cluster(&snapshot, &name);
        let retries = cluster.circuit_breakers.as_ref().unwrap().thresholds[0].max_retries.unwrap().value;
        (cluster.lb_policy(), retries, cluster.outlier_detection.is_some())
    };
    use LbPolicy::{LeastRequest, Random, RoundRobin};
    let rule = rule("reviews", policy);
    assert_eq!(shown(&rule, 9080, ""), (RoundRobin, 1, false));
    assert_eq!(shown(&rule, 9081, ""), (LeastRequest, 2, false), "the rest is not inherited");
    assert_eq!(shown(&rule, 9080, "v2"), (Random, 1, false));
    assert_eq!(shown(&rule, 9081, "v2"), (Random, 2, false), "a subset's parts, and the port's for the rest");
    assert_eq!(shown(&own, 9081, "v2"), (LeastRequest, u32::MAX, true), "the subset's own word for the port");
    assert_eq!(shown(&own, 9081, "v1"), (LeastRequest, 2, false));
}

#[test]
fn tls_of_clients() {
    let snapshot = with("tls: {mode: DISABLE}");
    assert!(cluster(&snapshot, REVIEWS).transport_socket.is_none());
    // The sidecar takes plaintext HTTP and tells ports apart by host.
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:15006", "127.1.0.3:15006"]);
    let mutual = "{mode: ISTIO_MUTUAL}";
    let off = peer_authn("{mtls: {mode: DISABLE}}");
    let snapshot = snapshot_of(&[MESH, &off, &rule("reviews", &format!("tls: {mutual}"))]);
    assert!(cluster(&snapshot, REVIEWS).transport_socket.is_some());
    assert_eq!(endpoints(&snapshot, REVIEWS), [""; 0]);
}

#[test]
fn new_endpoints_warm_up() {
    use outrigger_xds_api::wire::cluster::v3::cluster::{LbConfig, SlowStartConfig};
    let of = |balancer: &str| -> Option<(i64, f64, f64)> {
        let config = cluster(&with(&format!("loadBalancer: {balancer}")), REVIEWS).lb_config?;
        let slow_start = match config {
            LbConfig::LeastRequestLbConfig(config) => config.slow_start_config,
            LbConfig::RoundRobinLbConfig(config) => config.slow_start_config,
            other => panic!("{other:?}"),
        };
        let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = slow_start.unwrap();
        Some((slow_start_window?.seconds, aggression?.default_value, min_weight_percent?.value))
    };
    assert_eq!(of("{simple: LEAST_REQUEST}"), None);
    assert_eq!(of("{warmupDurationSecs: 30s}"), Some((30, 1.0, 10.0)));
    assert_eq!(
        of("{simple: ROUND_ROBIN, warmup: {duration: 1m, minimumPercent: 5, aggression: 1.5}}"),
        Some((60, 1.5, 5.0))
    );
    for (balancer, reason) in [
        (
            "{simple: RANDOM, warmupDurationSecs: 30s}",
            "warmupDurationSecs: is for LEAST_REQUEST and ROUND_ROBIN only",
        ),
        ("{warmup: {aggression: 2}}", "warmup.duration: must be said"),
        ("{warmup: {duration: 1s, aggression: 0.5}}", "warmup.aggression: 0.5 is not between"),
        (
            "{warmup: {duration: 1s, minimumPercent: 101}}",
            "warmup.minimumPercent: 101 is not between 0 and 100",
        ),
        (
            "{warmup: {duration: 1s}, warmupDurationSecs: 1s}",
            "warmup: only one of warmup and warmupDurationSecs",
        ),
    ] {
        let snapshot = snapshot_of(&[&rule("reviews", &format!("loadBalancer: {balancer}"))]);
        let [refused] = snapshot.rejections() else { panic!("{balancer}: {:?}", snapshot.rejections()) };
        assert!(
            refused.to_string().contains(&format!("spec.trafficPolicy.loadBalancer.{reason}")),
            "{refused}"
        );
    }
}

#[test]
fn the_clients_protocol_goes_on() {
    for policy in ["useClientProtocol: true", "useClientProtocol: true, h2UpgradePolicy: UPGRADE"] {
        let snapshot = with(&format!("connectionPool: {{http: {{{policy}}}}}"));
        assert_eq!(spoken(&snapshot, REVIEWS), ("same", vec![]), "{policy}");
    }
}

fn filename(source: &Option<outrigger_xds_api::wire::core::v3::DataSource>) -> String {
    use outrigger_xds_api::wire::core::v3::data_source::Specifier;
    match source.as_ref().unwrap().specifier.as_ref().unwrap() {
        Specifier::Filename(file) => file.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tls_with_servers_outside() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [out.example], resolution: DNS, \
                 ports: [{number: 443, name: http}, {number: 444, name: tcp}]}}";
    // SNI, roots, names, certificate, ALPN.
    let of = |tls: &str, port: u16| {
        let rule = rule("out.example", &format!("tls: {tls}"));
        let snapshot = snapshot_of(&[MESH, entry, &rule]);
        assert_eq!(snapshot.rejections(), []);
        assert_valid(&snapshot);
        let cluster = cluster(&snapshot, &format!("outbound|{port}||out.example"));
        let tls: UpstreamTlsContext = socket(&cluster.transport_socket);
        let common = tls.common_tls_context.unwrap();
        let validation = match common.validation_context_type {
            Some(ValidationContextType::ValidationContext(context)) => {
                let names = context
                    .match_typed_subject_alt_names
                    .into_iter()
                    .map(|name| name.matcher.unwrap().match_pattern);
                let names: Vec<_> = names
                    .map(|name| match name {
                        Some(MatchPattern::Exact(name)) => name,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                format!("{} {}", filename(&context.trusted_ca), names.join(","))
            }
            None => "anybody".to_owned(),
            other => panic!("{other:?}"),
        };
        let certificate = common.tls_certificates.first().map(|certificate| {
            filename(&certificate.certificate_chain) + " " + &filename(&certificate.private_key)
        });
        (tls.sni, validation, certificate.unwrap_or_default(), common.alpn_protocols.join(","))
    };
    let texts = |sni: &str, validation: &str, certificate: &str, alpn: &str| {
        (sni.to_owned(), validation.to_owned(), certificate.to_owned(), alpn.to_owned())
    };
    assert_eq!(
        of("{mode: SIMPLE, caCertificates: /roots}", 443),
        texts("out.example", "/roots out.example", "", "http/1.1")
    );
    assert_eq!(
        of("{mode: SIMPLE, caCertificates: /roots}", 444),
        texts("out.example", "/roots out.example", "", "")
    );
    assert_eq!(
        of("{mode: SIMPLE, insecureSkipVerify: true, sni: a.example}", 443),
        texts("a.example", "anybody", "", "http/1.1")
    );
    let mutual = "{mode: MUTUAL, caCertificates: /roots, clientCertificate: /cert, privateKey: /key, subjectAltNames: [b.example, 'spiffe://x/y']}";
    assert_eq!(
        of(mutual, 443),
        texts("out.example", "/roots b.example,spiffe://x/y", "/cert /key", "http/1.1")
    );
    // The application takes it, not its sidecar.
    let snapshot = with("tls: {mode: SIMPLE, caCertificates: /roots}");
    assert_eq!(endpoints(&snapshot, REVIEWS), ["127.1.0.2:8080", "127.1.0.3:8080"]);
}

#[test]
fn what_cannot_be_said_of_clients() {
    for (policy, reason) in [
        ("tls: {mode: SIMPLE}", "tls.caCertificates: must name a file of the sidecar"),
        ("tls: {mode: SIMPLE, caCertificates: system}", "tls.caCertificates: must be the whole path"),
        (
            "tls: {mode: SIMPLE, credentialName: c}",
            "tls.credentialName: is not supported: a sidecar has no Secrets",
        ),
        ("tls: {mode: SIMPLE, caCertificates: /a, caCrl: /b}", "tls.caCrl: is not supported"),
        (
            "tls: {mode: SIMPLE, caCertificates: /a, clientCertificate: /b}",
            "tls.clientCertificate: is for mode MUTUAL only",
        ),
        (
            "tls: {mode: MUTUAL, caCertificates: /a, clientCertificate: /b}",
            "tls.privateKey: must name a file",
        ),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}",
            "tls.subjectAltNames: cannot be verified",
        ),
        ("tls: {mode: DISABLE, sni: a}", "tls.mode: is DISABLE or ISTIO_MUTUAL, which nothing else"),
        ("tls: {mode: OTHER}", "tls.mode: \"OTHER\" is none of DISABLE, SIMPLE"),
        ("tunnel: {targetHost: a, targetPort: 1}", "tunnel: is not supported"),
        ("proxyProtocol: {version: V2}", "proxyProtocol: is not supported"),
        ("loadBalancer: {simple: PASSTHROUGH}", "loadBalancer.simple: PASSTHROUGH is not supported"),
    ] {
        let snapshot = snapshot_of(&[&rule("reviews", policy)]);
        let [refused] = snapshot.rejections() else { panic!("{policy}: {:?}", snapshot.rejections()) };
        assert!(refused.to_string().contains(&format!("spec.trafficPolicy.{reason}")), "{refused}");
    }
}

#[test]
fn a_service_may_keep_callers_at_their_endpoint() {
    let sticky = MESH.replace(
        "spec: {selector: {app: reviews}, ports",
        "spec: {sessionAffinity: ClientIP, selector: {app: reviews}, ports",
    );
    assert_ne!(sticky, MESH);
    let of = |texts: &[&str]| {
        let snapshot = snapshot_of(texts);
        assert_valid(&snapshot);
        let Some(Action::Route(action)) =
            &routes(&snapshot, "reviews.default.svc.cluster.local:9080")[0].action
        else {
            panic!()
        };
        (cluster(&snapshot, REVIEWS).lb_policy(), action.hash_policy.len())
    };
    assert_eq!(of(&[&sticky]), (LbPolicy::RingHash, 1));
    assert_eq!(
        of(&[&sticky, &rule("reviews", "connectionPool: {http: {maxRetries: 1}}")]),
        (LbPolicy::RingHash, 1)
    );
    assert_eq!(
        of(&[&sticky, &rule("reviews", "loadBalancer: {simple: ROUND_ROBIN}")]),
        (LbPolicy::RoundRobin, 0)
    );
}
