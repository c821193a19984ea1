//! Back-pressure: who sends faster than the other side takes is made to wait, and the proxy holds no more than the buffer limits of
//! listener and cluster (`per_connection_buffer_limit_bytes`), for each of many exchanges at once. When the other side goes on,
//! everything arrives.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, http2_upstream, listener, to};
use outrigger_tests::{Bootstrap, Proxy, addr, wait};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What one side sends: more than the kernel holds.
const BODY: u64 = 16 << 20;
/// What the kernel holds at the ends of a connection.
const SOCKET_BUFFER: u32 = 64 << 10;
const CHUNK: usize = 16 << 10;
/// Nothing more is sent once nothing was for so long.
const QUIET: Duration = Duration::from_millis(700);
/// What an exchange may cost beside its bytes, and all of them together.
const PER_EXCHANGE: u64 = 48 << 10;
const SLACK: u64 = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Http {
    One,
    Two,
}

/// What both ends share: who counts, and when the reader begins to read.
#[derive(Clone, Debug)]
struct World {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    finished: Arc<AtomicUsize>,
    reading: watch::Receiver<bool>,
}

type Body = BoxBody<Bytes, Infallible>;

fn empty() -> Body {
    Empty::new().boxed()
}

impl World {
    /// The whole body, counted as it is taken by the connection.
    fn body(&self) -> Body {
        let (sent, chunk) = (self.sent.clone(), Bytes::from(vec![b'x'; CHUNK]));
        let chunks = (0..BODY / CHUNK as u64).map(move |_| {
            sent.fetch_add(CHUNK as u64, Relaxed);
            Ok(Frame::data(chunk.clone()))
        });
        BodyExt::boxed(StreamBody::new(stream::iter(chunks)))
    }

    /// Reads the body once reading is allowed, and counts.
    async fn read(mut self, mut body: Incoming) {
        if self.reading.wait_for(|reading| *reading).await.is_err() {
            return;
        }
        while let Some(Ok(frame)) = body.frame().await {
            self.received.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Relaxed);
        }
        self.finished.fetch_add(1, Relaxed);
    }

    /// Waits until the sender has to wait, and gives what it could send.
    fn stalled(&self) -> u64 {
        let (mut last, mut since) = (0, Instant::now());
        wait::until("the sender waits", || {
            let sent = self.sent.load(Relaxed);
            if sent != last {
                (last, since) = (sent, Instant::now());
            }
            sent > 0 && since.elapsed() > QUIET
        });
        last
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    socket
}

async fn connect(addr: SocketAddr) -> TokioIo<TcpStream> {
    TokioIo::new(socket().connect(addr).await.unwrap())
}

/// Listens on an address of its own.
async fn listen() -> TcpListener {
    let socket = socket();
    socket.bind((addr::pod_ip(), 0).into()).unwrap();
    socket.listen(1024).unwrap()
}

/// Answers each request with a body, or reads its body.
async fn serve(listener: TcpListener, http: Http, world: World, answers: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        let world = world.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let world = world.clone();
            async move {
                let body = match answers {
                    true => world.body(),
                    false => {
                        world.read(request.into_body()).await;
                        empty()
                    }
                };
                Ok::<_, Infallible>(http::Response::new(body))
            }
        });
        let io = TokioIo::new(stream);
        match http {
            Http::One => tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }),
            Http::Two => tokio::spawn(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(65_535).max_concurrent_streams(1000);
                let _ = builder.serve_connection(io, service).await;
            }),
        };
    }
}

/// Starts so many exchanges at once: over one HTTP/2 connection, or over as many of HTTP/1.
async fn ask(http: Http, addr: SocketAddr, world: World, number: usize, sends: bool) {
    let request = |world: &World| {
        let body = if sends { world.body() } else { empty() };
        http::Request::builder()
            .method(if sends { "POST" } else { "GET" })
            .uri("http://h/")
            .header("host", "h")
            .body(body)
            .unwrap()
    };
    let exchange = async |answer: hyper::Result<http::Response<Incoming>>, world: World| {
        if let Ok(answer) = answer {
            assert_eq!(answer.status(), 200);
            world.read(answer.into_body()).await;
        }
    };
    match http {
        Http::One => {
            for _ in 0..number {
                let io = connect(addr).await;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                let (request, world) = (request(&world), world.clone());
                tokio::spawn(async move { exchange(sender.send_request(request).await, world).await });
            }
        }
        Http::Two => {
            let io = connect(addr).await;
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(65_535);
            let (sender, connection) = builder.handshake(io).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..number {
                let (mut sender, request, world) = (sender.clone(), request(&world), world.clone());
                tokio::spawn(async move { exchange(sender.send_request(request).await, world).await });
            }
        }
    }
}

struct Case {
    client: Http,
    upstream: Http,
    /// The client sends, or else the upstream.
    uploads: bool,
    /// Of listener and cluster; `None`: the default, 1 MiB.
    limit: Option<u64>,
    exchanges: usize,
}

fn run(case: &Case) {
    let Case { client, upstream, uploads, limit, exchanges } = *case;
    let what = format!("{client:?} to {upstream:?}, uploads: {uploads}, limit {limit:?}");
    let runtime = Runtime::new().unwrap();
    let (read, reading) = watch::channel(false);
    let world = World { sent: Arc::default(), received: Arc::default(), finished: Arc::default(), reading };
    let server = runtime.block_on(listen());
    let at = server.local_addr().unwrap();
    runtime.spawn(serve(server, upstream, world.clone(), !uploads));

    let (bootstrap, addr) = (Bootstrap::new(), addr::free_addr());
    let codec = json!({"codec_type": if client == Http::One { "HTTP1" } else { "HTTP2" }});
    let mut listener = listener("ingress", addr, http_connection_manager(any_host(to("up")), codec));
    let more = if upstream == Http::Two { http2_upstream() } else { json!({}) };
    let mut cluster = cluster("up", &[at], more);
    if let Some(limit) = limit {
        listener["per_connection_buffer_limit_bytes"] = json!(limit);
        cluster["per_connection_buffer_limit_bytes"] = json!(limit);
    }
    bootstrap.write(&[listener], &[cluster]);
    let proxy = Proxy::outrigger(&bootstrap);
    let before = proxy.resident_bytes();

    runtime.block_on(ask(client, addr, world.clone(), exchanges, uploads));
    let sent = world.stalled();
    let grown = proxy.resident_bytes().saturating_sub(before);
    let most = exchanges as u64 * (2 * limit.unwrap_or(1 << 20) + PER_EXCHANGE) + SLACK;
    assert!(sent < exchanges as u64 * BODY, "{what}: nobody had to wait");
    assert!(grown <= most, "{what}: {} KiB are held, {} KiB at most", grown >> 10, most >> 10);

    read.send(true).unwrap();
    let bytes = exchanges as u64 * BODY;
    wait::until("everything has arrived", || world.received.load(Relaxed) == bytes);
    // The head that answers an upload has a body too, of nothing.
    let bodies = if uploads { 2 * exchanges } else { exchanges };
    wait::until("every exchange has ended", || world.finished.load(Relaxed) == bodies);
}

/// All pairs of versions, with these limits.
fn every_pair(uploads: bool, limit: Option<u64>, exchanges: usize) {
    for client in [Http::One, Http::Two] {
        for upstream in [Http::One, Http::Two] {
            run(&Case { client, upstream, uploads, limit, exchanges });
        }
    }
}

#[test]
fn a_client_that_does_not_read_holds_back_the_upstream() {
    every_pair(false, Some(64 << 10), 40);
}

#[test]
fn an_upstream_that_does_not_read_holds_back_the_client() {
    every_pair(true, Some(64 << 10), 40);
}

#[test]
fn by_default_an_exchange_holds_a_mebibyte_each_side() {
    every_pair(false, None, 8);
    every_pair(true, None, 8);
}
