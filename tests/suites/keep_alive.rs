//! The keep-alive race: a host that closes connections which are idle for 200 ms, without a word, and requests that come after
//! pauses of just that length. Clients see nothing of it, no retry policy is needed, and no POST is done twice.
//!
//! `KEEP_ALIVE_REQUESTS` is how many requests are sent (10,000). The figures of a real Envoy are printed beside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use outrigger_tests::bootstrap::{any_host, cluster, http_connection_manager, listener, to};
use outrigger_tests::{Bootstrap, Engine, Proxy, addr};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// After this pause the host closes a connection.
const IDLE_LIMIT: Duration = Duration::from_millis(200);
/// How much pauses between requests differ from that, milliseconds.
const AROUND: u64 = 10;
/// Longer than pauses differ, so that each client's requests need a connection of their own.
const THINKING: Duration = Duration::from_millis(40);
const CLIENTS: usize = 250;

/// What the host saw.
#[derive(Debug, Default)]
struct Host {
    connections: AtomicUsize,
    /// How often each POST was done.
    posts: Mutex<HashMap<String, usize>>,
}

impl Host {
    /// Answers requests on one connection until there is none for too long.
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        self.connections.fetch_add(1, Relaxed);
        let mut received = Vec::new();
        let mut limit = Duration::MAX;
        while let Ok(Ok(1..)) = timeout(limit, stream.read_buf(&mut received)).await {
            let text = String::from_utf8_lossy(&received).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if head.starts_with("POST") && body.len() < BODY.len() {
                continue;
            }
            received.clear();
            sleep(THINKING).await;
            if head.starts_with("POST") {
                let number = head.lines().next().unwrap().to_owned();
                *self.posts.lock().unwrap().entry(number).or_default() += 1;
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                return;
            }
            limit = IDLE_LIMIT;
        }
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().serve(stream));
        }
    }
}

const BODY: &str = "once!";

type Sender = SendRequest<Full<Bytes>>;

async fn connect(addr: SocketAddr) -> Sender {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Every other request is a POST. Gives the status.
async fn ask(sender: &mut Sender, number: usize) -> u16 {
    let (method, body) = if number.is_multiple_of(2) { ("GET", "") } else { ("POST", BODY) };
    let request = http::Request::builder().method(method).uri(format!("/{number}")).header("host", "h");
    let answer = sender.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    status
}

/// What clients got and the host saw.
struct Figures {
    errors: usize,
    posts_done_twice: usize,
    said: String,
}

/// The pause after an answer at that time: about the host's limit, and such that all clients keep step.
fn pause(now: Duration) -> Duration {
    let round = (IDLE_LIMIT + THINKING).as_millis();
    let is_early = (now + IDLE_LIMIT).as_millis() % round > round / 2;
    let shift = fastrand::u64(0..=AROUND);
    let millis = IDLE_LIMIT.as_millis() as u64;
    Duration::from_millis(if is_early { millis + shift } else { millis - shift })
}

fn run(engine: Engine, requests: usize) -> Option<Figures> {
    let runtime = Runtime::new().unwrap();
    let host = Arc::new(Host::default());
    let socket = runtime.block_on(TcpListener::bind((addr::pod_ip(), 0))).unwrap();
    let upstream = socket.local_addr().unwrap();
    runtime.spawn(host.clone().listen(socket));
    let front = addr::free_addr();
    let bootstrap = Bootstrap::of(
        &[listener("front", front, http_connection_manager(any_host(to("up")), json!({})))],
        &[cluster("up", &[upstream], json!({}))],
    );
    let proxy = Proxy::start(engine, &bootstrap)?;
    let (sent, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    let client = async || {
        let mut sender = connect(front).await;
        while sent.load(Relaxed) < requests {
            let status = ask(&mut sender, sent.fetch_add(1, Relaxed)).await;
            errors.fetch_add(usize::from(status != 200), Relaxed);
            // The pause is what this is about.
            sleep(pause(begin.elapsed())).await;
        }
    };
    runtime.block_on(join_all((0..CLIENTS).map(|_| client())));
    let posts = host.posts.lock().unwrap();
    let posts_done_twice = posts.values().filter(|times| **times > 1).count();
    let (sent, errors) = (sent.into_inner(), errors.into_inner());
    let connections = host.connections.load(Relaxed);
    let replayed = proxy.stat("cluster.up.upstream_rq_replayed").unwrap_or(0);
    let said = format!(
        "{engine}: {sent} requests, {errors} errors, {posts_done_twice} POSTs done twice, {connections} connections, {replayed} sent again"
    );
    println!("{said}");
    Some(Figures { errors, posts_done_twice, said })
}

#[test]
fn clients_see_nothing_of_a_host_that_closes_idle_connections() {
    let requests = std::env::var("KEEP_ALIVE_REQUESTS").map_or(10_000, |number| number.parse().unwrap());
    let ours = run(Engine::Outrigger, requests).unwrap();
    // To be read beside ours.
    let _ = run(Engine::Envoy, requests);
    assert_eq!((ours.errors, ours.posts_done_twice), (0, 0), "{}", ours.said);
}
