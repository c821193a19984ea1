//! The agent of a running proxy, asked over its port, with applications of all kinds behind it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::agent::AgentOptions;
use super::application::Protocol;
use super::metrics::ApplicationMetrics;
use super::probes::Probes;
use crate::admin::ServerState;
use crate::bootstrap::Document;
use crate::logging::Logging;
use crate::server::{Options, Server, SidecarDrain};
use crate::transport_socket::crypto_provider;
use crate::transport_socket::test_certificates::Authority;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Body = BoxBody<Bytes, Infallible>;

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let builder = headers.iter().fold(Response::builder().status(status), |b, (n, v)| b.header(*n, *v));
    builder.body(Full::new(body.into()).boxed()).unwrap()
}

/// An application on a port that the system picked.
async fn application(
    protocol: Protocol,
    tls: bool,
    respond: impl Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (respond, acceptor) = (Arc::new(respond), tls.then(|| acceptor(protocol)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (respond, acceptor) = (respond.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => serve(protocol, acceptor.accept(stream).await.unwrap(), respond).await,
                    None => serve(protocol, stream, respond).await,
                }
            });
        }
    });
    port
}

/// With a certificate of nobody whom the sidecar knows.
fn acceptor(protocol: Protocol) -> TlsAcceptor {
    let issued = Authority::new("unknown").issue("spiffe://unknown");
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols =
        vec![if protocol == Protocol::Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    protocol: Protocol,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    respond: Arc<impl Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static>,
) {
    let service = service_fn(move |request| {
        let respond = respond.clone();
        async move { Ok::<_, Infallible>(respond(&request)) }
    });
    let stream = TokioIo::new(stream);
    let _ = match protocol {
        Protocol::Http1 => http1::Builder::new().serve_connection(stream, service).await,
        Protocol::Http2 => http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await,
    };
}

/// Accepts and says nothing.
async fn silent_application() -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    port
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap().port()
}

async fn start(metrics: Option<ApplicationMetrics>, probes: Probes) -> (Server, SocketAddr) {
    let mut document = Document::default();
    document.merge("test.yaml", "static_resources: {}").unwrap();
    let agent = AgentOptions { address: (HERE, 0).into(), instance_ip: HERE, source: None, metrics, probes };
    let options = Options {
        agent: Some(agent),
        sidecar_drain: Some(SidecarDrain { minimum: Duration::ZERO }),
        ..Options::new(Arc::new(Logging::detached()))
    };
    let server = Server::start(document, options).await.unwrap();
    server.initialized().await;
    while server.view().state() != ServerState::Live {
        tokio::task::yield_now().await;
    }
    let address = server.agent_address().unwrap();
    (server, address)
}

/// Status, head and body of an answer.
async fn ask(address: SocketAddr, request: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

fn metrics_at(port: u16) -> Option<ApplicationMetrics> {
    let json = format!(r#"{{"scrape":"true","path":"/m?a=b","port":"{port}"}}"#);
    ApplicationMetrics::parse(&json, 15020).unwrap()
}

const OWN: &str = "\nenvoy_server_live 1\n";

#[tokio::test]
async fn both_pages_are_one() {
    let port = application(Protocol::Http1, false, |request| {
        let seen = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let body = format!(
            "app{{target=\"{}\",accept=\"{}\",agent=\"{}\"}} 1\n",
            request.uri(),
            seen("accept"),
            seen("user-agent")
        );
        answer(200, &[("content-type", "utter nonsense")], body)
    })
    .await;
    let (_server, agent) = start(metrics_at(port), Probes::default()).await;
    for path in ["/stats/prometheus", "/metrics"] {
        let headers = "accept: text/plain\r\nuser-agent: Prometheus\r\n";
        let (status, head, body) = ask(agent, &format!("GET {path}"), headers).await;
        assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains(OWN), "{body}");
        assert!(
            body.ends_with("app{target=\"/m?a=b\",accept=\"text/plain\",agent=\"Prometheus\"} 1\n"),
            "{body}"
        );
    }
    let (_, _, body) = ask(agent, "GET /stats/prometheus?filter=server.live", "").await;
    assert!(body.contains("envoy_server_live 1\n") && !body.contains("envoy_server_uptime"), "{body}");
    assert_eq!(ask(agent, "GET /stats/prometheus?filter=(", "").await.0, 400);
}

#[tokio::test]
async fn open_metrics_stay_open_metrics() {
    let port = application(Protocol::Http1, false, |_| {
        let format = ("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8");
        answer(200, &[format], "app_total 1\n# EOF\n")
    })
    .await;
    let (_server, agent) = start(metrics_at(port), Probes::default()).await;
    let (_, head, body) = ask(agent, "GET /stats/prometheus", "").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains(OWN) && body.ends_with("app_total 1\n# EOF\n"), "{body}");
}

#[tokio::test]
async fn an_application_that_fails_costs_only_its_own_part() {
    let failing = application(Protocol::Http1, false, |_| answer(500, &[], "oops 1\n")).await;
    for port in [failing, closed_port(), silent_application().await] {
        let (_server, agent) = start(metrics_at(port), Probes::default()).await;
        let limit = "x-prometheus-scrape-timeout-seconds: 0.2\r\n";
        let (status, head, body) = ask(agent, "GET /stats/prometheus", limit).await;
        assert!(status == 200 && head.contains("content-type: text/plain"), "{head}");
        assert!(body.contains(OWN) && !body.contains("oops"), "{body}");
        let (_, _, body) = ask(agent, "GET /stats/prometheus", limit).await;
        assert!(body.contains("\noutrigger_application_scrape_failures_total 1\n"), "{body}");
    }
}

#[tokio::test]
async fn http_probes_are_handed_on() {
    let plain = application(Protocol::Http1, false, |request| {
        let seen = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        match request.uri().path() {
            "/ok" => answer(200, &[], format!("{} {} {}", seen("host"), seen("user-agent"), seen("x-token"))),
            "/bad" => answer(503, &[], "x".repeat(20 << 10)),
            "/here" => answer(302, &[("location", "/bad")], ""),
            "/loop" => answer(302, &[("location", "loop")], ""),
            "/away" => answer(302, &[("location", "http://elsewhere.example/")], ""),
            "/nowhere" => answer(301, &[], ""),
            _ => answer(404, &[], ""),
        }
    })
    .await;
    let page =
        |path: &str| format!(r#"{{"httpGet": {{"path": "{path}", "port": {plain}}}, "timeoutSeconds": 9}}"#);
    let token = r#""httpHeaders": [{"name": "x-token", "value": "t"}]"#;
    let json = format!(
        r#"{{"/app-health/ok/livez": {{"httpGet": {{"path": "/ok", "port": {plain}, {token}}}, "timeoutSeconds": 9}},
            "/app-health/bad/livez": {}, "/app-health/here/readyz": {}, "/app-health/loop/readyz": {},
            "/app-health/away/readyz": {}, "/app-health/nowhere/startupz": {}}}"#,
        page("bad"),
        page("here"),
        page("loop"),
        page("away"),
        page("nowhere")
    );
    let (_server, agent) = start(None, Probes::parse(&json).unwrap()).await;
    let probe = async |path: &str| {
        let (status, _, body) =
            ask(agent, &format!("GET /app-health/{path}"), "user-agent: kube-probe\r\n").await;
        (status, body)
    };
    // The kubelet asked for the agent's port; the application sees its own.
    assert_eq!(probe("ok/livez").await, (200, format!("127.0.0.1:{plain} kube-probe t")));
    let (status, body) = probe("bad/livez").await;
    assert_eq!((status, body.len()), (503, 10 << 10));
    assert_eq!(probe("here/readyz").await.0, 503);
    assert_eq!(probe("loop/readyz").await, (500, "stopped after 10 redirects\n".to_owned()));
    assert_eq!(probe("away/readyz").await, (200, String::new()));
    assert_eq!(probe("nowhere/startupz").await, (200, String::new()));
    assert_eq!(probe("ok/readyz").await.0, 400);
}

#[tokio::test]
async fn https_probes_believe_every_certificate() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let port =
            application(protocol, true, |request| answer(200, &[], format!("{:?}", request.version()))).await;
        let json = format!(
            r#"{{"/app-health/a/livez": {{"httpGet": {{"path": "/", "port": {port}, "scheme": "HTTPS"}}, "timeoutSeconds": 9}}}}"#
        );
        let (_server, agent) = start(None, Probes::parse(&json).unwrap()).await;
        let (status, _, body) = ask(agent, "GET /app-health/a/livez", "").await;
        let version = if protocol == Protocol::Http2 { "HTTP/2.0" } else { "HTTP/1.1" };
        assert_eq!((status, body.as_str()), (200, version));
    }
}

#[tokio::test]
async fn tcp_probes_want_somebody_to_accept() {
    let (open, closed) = (silent_application().await, closed_port());
    let json = format!(
        r#"{{"/app-health/a/livez": {{"tcpSocket": {{"port": {open}}}}},
            "/app-health/b/livez": {{"tcpSocket": {{"port": {closed}}}}}}}"#
    );
    let (_server, agent) = start(None, Probes::parse(&json).unwrap()).await;
    assert_eq!(ask(agent, "GET /app-health/a/livez", "").await.0, 200);
    assert_eq!(ask(agent, "GET /app-health/b/livez", "").await.0, 500);
}

#[tokio::test]
async fn a_late_answer_is_none() {
    let port = silent_application().await;
    let json =
        format!(r#"{{"/app-health/a/livez": {{"httpGet": {{"port": {port}}}, "timeoutSeconds": 1}}}}"#);
    let (_server, agent) = start(None, Probes::parse(&json).unwrap()).await;
    let (status, _, body) = ask(agent, "GET /app-health/a/livez", "").await;
    assert_eq!((status, body.as_str()), (500, "no answer within 1s\n"));
}

#[tokio::test]
async fn grpc_probes_ask_for_health() {
    let port = application(Protocol::Http2, false, |request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let service = request.headers()["user-agent"].to_str().unwrap();
        let (message, status): (&'static [u8], &str) = match service {
            "serving" => (&[0, 0, 0, 0, 2, 8, 1], "0"),
            "not-serving" => (&[0, 0, 0, 0, 2, 8, 2], "0"),
            "unimplemented" => (&[], "12"),
            _ => (&[], "5"),
        };
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_str(status).unwrap(),
        )]);
        let body = Full::new(Bytes::from_static(message)).with_trailers(async move { Some(Ok(trailers)) });
        Response::new(body.boxed())
    })
    .await;
    let plain = application(Protocol::Http2, false, |_| answer(404, &[], "")).await;
    let json = format!(
        r#"{{"/app-health/a/livez": {{"grpc": {{"port": {port}, "service": "s"}}, "timeoutSeconds": 9}},
            "/app-health/b/livez": {{"grpc": {{"port": {plain}}}, "timeoutSeconds": 9}}}}"#
    );
    let (_server, agent) = start(None, Probes::parse(&json).unwrap()).await;
    for (name, status, reason) in [
        ("serving", 200, ""),
        ("not-serving", 500, "not serving (status 2)"),
        ("unimplemented", 500, "does not implement"),
        ("unknown", 500, "gRPC status 5"),
    ] {
        let answer = ask(agent, "GET /app-health/a/livez", &format!("user-agent: {name}\r\n")).await;
        assert!(answer.0 == status && answer.2.contains(reason), "{name}: {answer:?}");
    }
    let (status, _, body) = ask(agent, "GET /app-health/b/livez", "").await;
    assert!(status == 500 && body.contains("HTTP status 404"), "{body}");
}

#[tokio::test]
async fn drain_ends_readiness_and_quit_ends_all() {
    let (server, agent) = start(None, Probes::default()).await;
    let running = tokio::spawn(server.run());
    assert_eq!(ask(agent, "GET /healthz/ready", "").await.0, 200);
    for path in ["/drain", "/quitquitquit"] {
        assert_eq!(ask(agent, &format!("GET {path}"), "").await.0, 405, "{path}");
    }
    assert_eq!(ask(agent, "GET /elsewhere", "").await.0, 404);
    assert_eq!(ask(agent, "GET /healthz/ready", "").await.0, 200);
    assert_eq!(ask(agent, "POST /drain", "").await.0, 200);
    while ask(agent, "GET /healthz/ready", "").await.0 == 200 {
        tokio::task::yield_now().await;
    }
    let (status, _, body) = ask(agent, "GET /healthz/ready", "").await;
    assert_eq!((status, body.as_str()), (503, "DRAINING\n"));
    assert!(!running.is_finished());
    assert_eq!(ask(agent, "POST /quitquitquit", "").await.0, 200);
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
}
