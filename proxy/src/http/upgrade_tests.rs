//! Upgrades over real sockets: one proxy, and two with HTTP/2 between them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::HttpConnectionManager;
use super::exchange_tests::{manager, run};
use super::tests::read_head;
use crate::cluster::UpstreamProtocol;
use crate::route::{Upgrade, Upgrades};
use crate::tcp::tests::{Running, Setup, cluster, read_to_end};
use crate::transport_socket::UpstreamTransport;

const LOG: &str = "%PROTOCOL% %REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n";

const ASK: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\n";

/// Answers each head with this, after an acceptance repeats all that comes, and ends when the client has; gives the heads.
fn upstream(answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, heads) = (stream.unwrap(), heads.clone());
            std::thread::spawn(move || {
                loop {
                    let head = read_head(&mut stream);
                    if head.is_empty() || heads.send(head).is_err() {
                        return;
                    }
                    stream.write_all(answer.as_bytes()).unwrap();
                    if answer == ACCEPT {
                        let mut from = stream.try_clone().unwrap();
                        let _ = std::io::copy(&mut from, &mut stream);
                        let _ = stream.write_all(b"bye");
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

/// A proxy to this host; its cluster speaks this HTTP.
fn proxy_to(
    host: SocketAddr,
    protocol: UpstreamProtocol,
    timeout: Option<Duration>,
    change: impl FnOnce(&mut HttpConnectionManager),
) -> Running {
    let setup = Setup::new();
    let mut cluster = cluster(&setup.stats, &[host], UpstreamTransport::Plaintext);
    Arc::get_mut(&mut Arc::get_mut(&mut cluster).unwrap().connection).unwrap().protocol = protocol;
    let mut manager = manager(&setup, cluster, timeout);
    manager.access_logs.logs = vec![setup.access_log(LOG)];
    change(&mut manager);
    run(setup, manager)
}

fn exactly(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).unwrap();
    read
}

/// Upgrades, has its bytes repeated, ends its half and reads what comes after.
fn chat(proxy: &Running) {
    let mut client = proxy.client();
    client.write_all(ASK).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for header in ["connection: ", "upgrade: websocket", "sec-websocket-accept: a"] {
        assert!(head.contains(&format!("\r\n{header}")), "{head}");
    }
    client.write_all(b"one").unwrap();
    assert_eq!(exactly(&mut client, 3), b"one");
    let long = vec![b'x'; 300_000];
    let mut writer = client.try_clone().unwrap();
    let sender = std::thread::spawn({
        let long = long.clone();
        move || {
            writer.write_all(&long).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let rest = read_to_end(&mut client);
    sender.join().unwrap();
    assert_eq!(rest.len(), long.len() + 3);
    assert!(rest.starts_with(&long) && rest.ends_with(b"bye"));
}

const CHATTED: &str = "GET 101 - via_upstream 300003 300006\n";

#[test]
fn an_upgrade_becomes_bytes_both_ways_until_both_have_ended() {
    let (host, heads) = upstream(ACCEPT);
    let proxy = proxy_to(host, UpstreamProtocol::Http1, None, |_| {});
    let (http, upstream) = (proxy.stats.http("test"), proxy.stats.cluster("upstream"));
    chat(&proxy);
    chat(&proxy);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    for header in ["connection: keep-alive, Upgrade", "upgrade: websocket", "sec-websocket-key: k"] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{head}");
    }
    assert_eq!(proxy.finish(), format!("HTTP/1.1 {CHATTED}").repeat(2));
    assert_eq!((http.downstream_cx_upgrades_total.get(), http.downstream_cx_upgrades_active.get()), (2, 0));
    assert_eq!((upstream.upstream_cx_total.get(), upstream.upstream_cx_active.get()), (2, 0));
    assert_eq!(upstream.upstream_rq_active.get(), 0);
}

#[test]
fn what_comes_with_either_head_is_not_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(format!("{ACCEPT}early").as_bytes()).unwrap();
        exactly(&mut stream, 6)
    });
    let proxy = proxy_to(address, UpstreamProtocol::Http1, None, |_| {});
    let mut client = proxy.client();
    client.write_all(&[ASK, b"hasty!"].concat()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    assert_eq!(exactly(&mut client, 5), b"early");
    assert_eq!(server.join().unwrap(), b"hasty!");
    drop(client);
    proxy.finish();
}

#[test]
fn between_proxies_it_is_an_extended_connect() {
    let (host, heads) = upstream(ACCEPT);
    let second = proxy_to(host, UpstreamProtocol::Http1, None, |_| {});
    let first = proxy_to(second.address, UpstreamProtocol::Http2, None, |_| {});
    chat(&first);
    chat(&first);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    for header in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: k", "host: a"] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{head}");
    }
    let between = first.stats.cluster("upstream");
    assert_eq!(first.finish(), format!("HTTP/1.1 {CHATTED}").repeat(2));
    assert_eq!((between.upstream_cx_http2_total.get(), between.upstream_rq_active.get()), (1, 0));
    let http = second.stats.http("test");
    assert_eq!(second.finish(), format!("HTTP/2 {CHATTED}").repeat(2));
    assert_eq!((http.downstream_cx_upgrades_total.get(), http.downstream_cx_upgrades_active.get()), (2, 0));
}

#[test]
fn an_upstream_that_does_not_agree_answers_as_ever() {
    const NO: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    for between in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (host, _heads) = upstream(NO);
        let second = proxy_to(host, UpstreamProtocol::Http1, None, |_| {});
        let first = proxy_to(second.address, between, None, |_| {});
        let mut client = first.client();
        client.write_all(ASK).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "), "{between:?}");
        assert_eq!(exactly(&mut client, 2), b"no");
        drop(client);
        assert_eq!(first.finish(), "HTTP/1.1 GET 403 - via_upstream 0 2\n");
        drop(second.finish());
    }
}

#[test]
fn what_is_not_allowed_is_403() {
    let off = || Upgrades::new(vec![Upgrade { name: "WebSocket".into(), enabled: false, terminates: false }]);
    let (host, _heads) = upstream(ACCEPT);
    for upgrades in [Upgrades::default(), off()] {
        let proxy = proxy_to(host, UpstreamProtocol::Http1, None, |manager| manager.upgrades = upgrades);
        let mut client = proxy.client();
        client.write_all(ASK).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "));
        drop(client);
        let http = proxy.stats.http("test");
        assert_eq!(proxy.finish(), "HTTP/1.1 GET 403 - upgrade_failed 0 0\n");
        assert_eq!(
            (http.downstream_rq_ws_on_non_ws_route.get(), http.downstream_cx_upgrades_total.get()),
            (1, 0)
        );
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_protocol_error() {
    let (host, _heads) = upstream(ACCEPT);
    let proxy = proxy_to(host, UpstreamProtocol::Http1, None, |_| {});
    let mut client = proxy.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "));
    drop(client);
    assert!(proxy.finish().starts_with("HTTP/1.1 GET 502 UPE "));
}

#[test]
fn only_silence_ends_an_upgraded_stream() {
    let (host, _heads) = upstream(ACCEPT);
    let route_timeout = Some(Duration::from_millis(50));
    let proxy = proxy_to(host, UpstreamProtocol::Http1, route_timeout, |manager| {
        manager.limits.stream_idle_timeout = Some(Duration::from_millis(300));
    });
    let mut client = proxy.client();
    client.write_all(ASK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    let begin = std::time::Instant::now();
    // Longer than either timeout, never silent.
    while begin.elapsed() < Duration::from_millis(600) {
        client.write_all(b"x").unwrap();
        assert_eq!(exactly(&mut client, 1), b"x");
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(client.read(&mut [0]).is_err(), "nothing but what was sent");
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    assert_eq!(read_to_end(&mut client), b"");
    assert!(proxy.finish().starts_with("HTTP/1.1 GET 101 SI stream_idle_timeout "));
}
