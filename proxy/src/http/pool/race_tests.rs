//! A host that closes a connection while a request is on its way to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use http::Method;

use super::*;
use crate::cluster::{SHORT_PAUSE, lb};
use crate::http::codec::Fate;
use crate::http::exchange_tests::{manager, run};
use crate::http::tests::read_head;
use crate::stats::Stats;
use crate::tcp::tests::{Running, Setup, cluster, wait_until};
use crate::transport_socket::UpstreamTransport;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// How a host ends a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Before a request can have reached it.
    Before,
    /// With a request unread: a reset.
    Unread,
    /// After it has read the request.
    Read,
}

/// The fate of a second request on a connection that the host ends.
fn fate_after(end: End) -> Fate {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(async {
        let stats = Stats::new();
        let cluster = cluster(&stats, &[address], UpstreamTransport::Plaintext);
        let (host, pools) = (lb::pick(&cluster, Default::default()).unwrap(), Pools::default());
        let checkout = || pools.checkout(&cluster, &host, Version::Http1, false, Reuse::Any);
        let post = || Request::builder().method(Method::POST).uri("/").body(RequestBody::Empty).unwrap();
        let mut lease = checkout().await.unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(OK).unwrap();
        lease.send(post(), None).await.map(drop).unwrap();
        lease.finish();
        let mut lease = checkout().await.unwrap();
        assert!(lease.is_reused());
        read_head(&mut far);
        // From here on the runtime does not hear of anything before the request is written.
        if let End::Before = end {
            drop(far);
            return lease.send(post(), None).await.unwrap_err().fate;
        }
        let reads = std::thread::spawn(move || {
            match end {
                End::Read => drop(read_head(&mut far)),
                _ => assert_eq!(far.peek(&mut [0]).unwrap(), 1),
            }
            drop(far);
        });
        let fate = lease.send(post(), None).await.unwrap_err().fate;
        reads.join().unwrap();
        fate
    })
}

#[test]
fn what_came_after_the_end_was_not_seen() {
    assert_eq!(fate_after(End::Before), Fate::Unseen);
    assert_eq!(fate_after(End::Unread), Fate::Unanswered);
    assert_eq!(fate_after(End::Read), Fate::Unanswered);
}

/// A host that answers the first request of each connection, reads as many others as it is told, and then closes. Tells what it read.
fn host(seconds: usize) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let last = if number == 0 { seconds } else { usize::MAX };
            for answered in 0.. {
                let Some(request) = read_request(&mut stream) else { break };
                seen.send(request).unwrap();
                if answered == last {
                    break;
                }
                stream.write_all(OK).unwrap();
            }
        }
    });
    (address, requests)
}

/// A head and, after PUT or POST, three bytes.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let is_whole = |text: &[u8]| match text.split_at_checked(4) {
        Some((b"PUT " | b"POST", _)) => text.ends_with(b"\r\n\r\nabc"),
        _ => text.ends_with(b"\r\n\r\n"),
    };
    while !is_whole(&text) {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap())
}

fn proxy_to(host: SocketAddr) -> Running {
    let setup = Setup::new();
    let cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    let manager = manager(&setup, cluster, None);
    run(setup, manager)
}

fn status(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).unwrap();
    let head = read_head(client);
    head.split(' ').nth(1).unwrap().to_owned()
}

/// The pause itself is what the proxy looks at.
fn rest(pause: Duration) {
    let begin = Instant::now();
    wait_until("the pause", || begin.elapsed() > pause);
}

#[test]
fn what_may_be_done_twice_is_sent_again_with_its_body() {
    let (address, requests) = host(1);
    let proxy = proxy_to(address);
    let mut client = proxy.client();
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(status(&mut client, get), "200");
    rest(SHORT_PAUSE);
    assert_eq!(status(&mut client, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"), "200");
    let stats = proxy.stats.cluster("upstream");
    assert_eq!((stats.upstream_rq_replayed.get(), stats.upstream_rq_total.get()), (1, 2));
    drop(client);
    assert_eq!(proxy.finish(), "GET 200 - via_upstream\nPUT 200 - via_upstream\n");
    let [_, put, again] = [(); 3].map(|()| requests.recv().unwrap());
    assert!(put.starts_with("PUT ") && put == again, "{put} {again}");
}

#[test]
fn what_may_not_be_done_twice_is_not() {
    let (address, requests) = host(1);
    let proxy = proxy_to(address);
    let mut client = proxy.client();
    assert_eq!(status(&mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), "200");
    assert_eq!(status(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"), "503");
    assert_eq!(proxy.stats.cluster("upstream").upstream_rq_replayed.get(), 0);
    drop(client);
    proxy.finish();
    assert_eq!(requests.iter().take(2).filter(|request| request.starts_with("POST")).count(), 1);
}

#[test]
fn what_fails_on_a_fresh_connection_is_not_sent_again() {
    let (address, requests) = host(0);
    let proxy = proxy_to(address);
    assert_eq!(status(&mut proxy.client(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), "503");
    assert_eq!(proxy.stats.cluster("upstream").upstream_rq_replayed.get(), 0);
    proxy.finish();
    assert_eq!(requests.try_iter().count(), 1);
}
