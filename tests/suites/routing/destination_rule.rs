//! DestinationRules: limits and lives of connections, what they speak, single ports.

use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_tests::upstream::{Gate, Reply, TcpBehaviour, TcpUpstream};
use outrigger_tests::{RawClient, wait};

use crate::world::World;

/// A DestinationRule of `host` with this policy.
fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: default}}\n\
         spec: {{host: {host}, trafficPolicy: {{{policy}}}}}\n---\n"
    )
}

/// Puts limits of connections to `reviews-v1` into force, whose one application is that of `reviews-0`, beside `more` objects.
///
/// Routes may be there before their clusters, so each time has a connect timeout of its own to be known by.
fn apply(world: &World, http: &str, tcp: &str, more: &str) {
    let timeout = format!("{}s", fastrand::u32(1_000..1_000_000));
    let pool = format!("connectionPool: {{http: {{{http}}}, tcp: {{connectTimeout: {timeout}, {tcp}}}}}");
    world.apply(&(rule("reviews-v1", &pool) + more));
    let sidecar = world.0.workload("web-0").sidecar();
    let clusters = || sidecar.admin("/config_dump?resource=dynamic_active_clusters").text();
    wait::until(&timeout, || clusters().contains(&format!("\"{timeout}\"")));
    assert_eq!(world.answer(ASK), "200 reviews-0");
    world.taken("reviews-0");
}

const ASK: &str = "//reviews-v1:9080/";
const CLUSTER: &str = "cluster.outbound|9080||reviews-v1.default.svc.cluster.local";

/// A counter of the caller's cluster.
fn counted(world: &World, name: &str) -> u64 {
    world.0.workload("web-0").sidecar().stat(&format!("{CLUSTER}.{name}")).unwrap_or_default()
}

/// How many connections the caller's sidecar makes for so many requests, one after the other.
fn connections(world: &World, requests: usize) -> u64 {
    let before = counted(world, "upstream_cx_total");
    for _ in 0..requests {
        assert_eq!(world.answer(ASK), "200 reviews-0");
    }
    counted(world, "upstream_cx_total") - before
}

#[test]
fn a_connection_has_so_many_requests() {
    let world = World::start();
    apply(&world, "maxRequestsPerConnection: 1", "", "");
    assert_eq!(connections(&world, 10), 10);
    apply(&world, "maxRequestsPerConnection: 5", "", "");
    assert!((2..=3).contains(&connections(&world, 10)));
    apply(&world, "maxRequestsPerConnection: 0", "", "");
    assert!(connections(&world, 10) <= 1);
}

#[test]
fn a_connection_without_requests_ends() {
    let world = World::start();
    apply(&world, "idleTimeout: 200ms", "", "");
    wait::until("no connection", || counted(&world, "upstream_cx_active") == 0);
    assert_eq!(connections(&world, 1), 1);
    apply(&world, "idleTimeout: 0s", "", "");
    assert_eq!(counted(&world, "upstream_cx_active"), 1);
}

/// So many requests at a time, and so many connections and waiting requests of HTTP/1: the rest is refused at once.
#[test]
fn so_much_at_a_time() {
    let world = World::start();
    let open = || {
        let mut client = RawClient::connect(world.0.workload("web-0").outbound()).unwrap();
        client.send(b"GET / HTTP/1.1\r\nhost: reviews-v1:9080\r\nconnection: close\r\n\r\n");
        client
    };
    let upstream = &world.0.workload("reviews-0").upstream;
    for (http, tcp, held) in [
        ("http2MaxRequests: 2", "", 2),
        ("h2UpgradePolicy: DO_NOT_UPGRADE, http1MaxPendingRequests: 1", "maxConnections: 2", 3),
    ] {
        apply(&world, http, tcp, "");
        let gate = Gate::closed();
        upstream.answer(Reply::Hold(gate.clone(), Box::new(Reply::status(200, "held"))));
        let mut clients: Vec<RawClient> = Vec::new();
        let before = counted(&world, "upstream_rq_pending_overflow");
        for number in 1..=held {
            clients.push(open());
            let taken =
                || counted(&world, "upstream_rq_active") + counted(&world, "upstream_rq_pending_active");
            wait::until("a request on its way", || taken() >= number);
        }
        let refused = open().response().unwrap();
        assert_eq!(refused.status, 503, "{http}");
        assert_eq!(refused.headers.get("x-envoy-overloaded"), Some("true"), "{http}");
        assert!(counted(&world, "upstream_rq_pending_overflow") > before, "{http}");
        gate.open();
        for mut client in clients {
            assert_eq!(client.response().unwrap().text(), "held", "{http}");
        }
        world.answer_as_usual();
    }
}

#[test]
fn so_many_retries_at_a_time() {
    let world = World::start();
    let retries = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: retries, namespace: default}\nspec:\n  \
                   hosts: [reviews-v1]\n  http: [{retries: {attempts: 1, retryOn: '503', backoff: 1ms}, \
                   route: [{destination: {host: reviews-v1}}]}]\n";
    apply(&world, "maxRetries: 1", "", retries);
    let upstream = &world.0.workload("reviews-0").upstream;
    let gate = Gate::closed();
    let held = gate.clone();
    // The first request fails at once; its retry is held.
    let attempts = AtomicUsize::new(0);
    upstream.answer_with(move |_| match attempts.fetch_add(1, Ordering::Relaxed) {
        1 => Reply::Hold(held.clone(), Box::new(Reply::status(200, "late"))),
        _ => Reply::status(503, "not now"),
    });
    let mut first = RawClient::connect(world.0.workload("web-0").outbound()).unwrap();
    first.send(b"GET / HTTP/1.1\r\nhost: reviews-v1:9080\r\n\r\n");
    wait::until("a retry", || upstream.recorded() == 2);
    assert_eq!(world.answer(ASK), "503 not now");
    assert_eq!(counted(&world, "upstream_rq_retry_overflow"), 1);
    gate.open();
    assert_eq!(first.response().unwrap().text(), "late");
}

/// Between sidecars requests share a connection, unless they must not; streams of one are limited.
#[test]
fn what_is_spoken() {
    let world = World::start();
    let upstream = &world.0.workload("reviews-0").upstream;
    for (http, connections) in [
        ("h2UpgradePolicy: DEFAULT", 1),
        ("h2UpgradePolicy: DO_NOT_UPGRADE", 4),
        ("maxConcurrentStreams: 2", 2),
    ] {
        apply(&world, http, "", "");
        let gate = Gate::closed();
        upstream.answer(Reply::Hold(gate.clone(), Box::new(Reply::status(200, "held"))));
        let mut clients = Vec::new();
        for number in 1..=4 {
            let mut client = RawClient::connect(world.0.workload("web-0").outbound()).unwrap();
            client.send(b"GET / HTTP/1.1\r\nhost: reviews-v1:9080\r\n\r\n");
            wait::until("a request on its way", || upstream.recorded() == number);
            clients.push(client);
        }
        assert_eq!(counted(&world, "upstream_cx_active"), connections, "{http}");
        gate.open();
        clients.iter_mut().for_each(|client| assert_eq!(client.response().unwrap().status, 200));
        world.answer_as_usual();
        world.taken("reviews-0");
    }
}

#[test]
fn connections_that_are_not_http() {
    let world = World::start();
    let service = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: stream, namespace: default}}\nspec: {{selector: {{app: reviews}}, \
             ports: [{{name: tcp, port: 7000}}]}}\n---\n{more}"
        )
    };
    let greeters = ["reviews-0", "reviews-1"].map(|pod| {
        let ip = world.0.workload(pod).ip;
        TcpUpstream::start_at((ip, 7000).into(), TcpBehaviour::Greet(b"hello".to_vec()))
    });
    let connect = || {
        let mut client = RawClient::connect((world.0.workload("web-0").ip, 7000).into()).ok()?;
        client.read_exactly(5).ok().map(|_| client)
    };
    for policy in ["idleTimeout: 300ms", "maxConnectionDuration: 300ms"] {
        world.apply(&service(""));
        wait::until("a greeting", || connect().is_some());
        world.apply(&service(&rule("stream", &format!("connectionPool: {{tcp: {{{policy}}}}}"))));
        wait::until(policy, || connect().is_some_and(|mut client| client.closes_within(wait::PATIENCE / 10)));
    }
    assert!(greeters.iter().any(|greeter| greeter.connections() > 0));
}

/// The caller speaks plaintext where it must: a callee that wants certificates refuses it.
#[test]
fn plaintext_by_the_callers_rule() {
    let world = World::start();
    let mode = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: default}}\n\
             spec: {{mtls: {{mode: {mode}}}}}\n---\n"
        )
    };
    let plaintext = rule("reviews-v1", "tls: {mode: DISABLE}");
    let dump = || world.0.workload("reviews-0").sidecar().admin("/config_dump").text();
    let open = [("response_code", "200"), ("connection_security_policy", "none")];
    let seen_open = || world.0.workload("reviews-0").scrape().sum("istio_requests_total", &open);
    world.apply(&(mode("PERMISSIVE") + &plaintext));
    wait::until("plaintext is taken", || {
        dump().contains("\"plaintext\"") && world.answer(ASK) == "200 reviews-0"
    });
    assert!(seen_open() >= 1.0);
    world.apply(&(mode("STRICT") + &plaintext));
    wait::until("plaintext is refused", || world.answer(ASK).starts_with("503"));
    let before = seen_open();
    world.apply(&(mode("STRICT") + &rule("reviews-v1", "tls: {mode: ISTIO_MUTUAL}")));
    wait::until("with certificates", || world.answer(ASK) == "200 reviews-0");
    assert!((seen_open() - before).abs() < 0.5);
}

/// What is said of a port stands in the place of all that is said of the others.
#[test]
fn single_ports() {
    let world = World::start();
    let ports = "apiVersion: v1\nkind: Service\nmetadata: {name: ports, namespace: default}\nspec: {selector: {app: reviews, version: v1}, \
                 ports: [{name: http, port: 80, targetPort: 9080}, {name: http-b, port: 81, targetPort: 9080}]}\n---\n";
    let policy = "connectionPool: {http: {maxRequestsPerConnection: 1}}, portLevelSettings: [{port: {number: 81}, connectionPool: {http: \
                  {maxRetries: 1}}}]";
    world.apply(&(ports.to_owned() + &rule("ports", policy)));
    let made = |port: u16| {
        let name = format!("cluster.outbound|{port}||ports.default.svc.cluster.local.upstream_cx_total");
        let made = || world.0.workload("web-0").sidecar().stat(&name).unwrap();
        let ask = || world.answer(&format!("//ports:{port}/"));
        // The callee's sidecar has to hear of the Service too.
        wait::until("an answer", || ask() == "200 reviews-0");
        let before = made();
        (0..5).for_each(|_| assert_eq!(ask(), "200 reviews-0"));
        made() - before
    };
    assert_eq!((made(80), made(81)), (5, 0));
}
