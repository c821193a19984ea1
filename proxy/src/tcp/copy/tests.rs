#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::net::RawStream;
use crate::stats::SslStats;
use crate::transport_socket::test_certificates::mutual;

const BULK: usize = 24 << 20;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp,
    Unix,
    Tls,
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connecting, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn pair(kind: Kind) -> (Stream, Stream) {
    match kind {
        Kind::Tcp => {
            let (near, far) = tcp().await;
            (Stream::Tcp(near), Stream::Tcp(far))
        }
        Kind::Unix => {
            let (near, far) = UnixStream::pair().unwrap();
            (Stream::Unix(near), Stream::Unix(far))
        }
        Kind::Tls => {
            let (server, client) = mutual();
            let (near, far) = tcp().await;
            let stats = SslStats::default();
            let (near, far) = tokio::join!(
                client.connect(RawStream::Tcp(near), &stats),
                server.accept(RawStream::Tcp(far), &stats)
            );
            (near.unwrap().0, far.unwrap().0)
        }
    }
}

/// A client and a server with the copy between them.
struct Bench {
    client: Stream,
    server: Stream,
    copy: JoinHandle<(CopyEnd, u64, u64)>,
    /// How often bytes were reported.
    reports: Rc<Cell<u32>>,
}

async fn bench(downstream: Kind, upstream: Kind, limits: CopyLimits) -> Bench {
    let (client, mut near) = pair(downstream).await;
    let (mut far, server) = pair(upstream).await;
    let reports = Rc::new(Cell::new(0));
    let reported = reports.clone();
    let copy = tokio::task::spawn_local(async move {
        let bytes = ByteCounts::default();
        let report = || reported.set(reported.get() + 1);
        let end = copy_bidirectional(&mut near, &mut far, &bytes, limits, report).await;
        if let CopyEnd::Downstream(_) = end {
            far.reset_on_close();
        }
        (end, bytes.to_upstream.get(), bytes.to_downstream.get())
    });
    Bench { client, server, copy, reports }
}

fn pattern(seed: usize, n: usize) -> Vec<u8> {
    (0..n).map(|i| ((i + seed) * 31 % 253) as u8).collect()
}

/// Sends everything and ends, while everything of the peer is received.
async fn talk(stream: Stream, send: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        write.write_all(&send).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let receiving = read.read_to_end(&mut received);
    let ((), got) = tokio::join!(sending, receiving);
    got.unwrap();
    received
}

#[tokio::test(flavor = "local")]
async fn bulk_both_ways_at_once() {
    for (downstream, upstream) in
        [(Kind::Tcp, Kind::Tcp), (Kind::Unix, Kind::Tcp), (Kind::Tcp, Kind::Tls), (Kind::Tls, Kind::Tls)]
    {
        let bench = bench(downstream, upstream, CopyLimits::default()).await;
        let (request, response) = (pattern(1, BULK), pattern(2, BULK / 2 + 17));
        let (at_client, at_server) =
            tokio::join!(talk(bench.client, request.clone()), talk(bench.server, response.clone()));
        assert!(at_client == response && at_server == request, "{downstream:?} {upstream:?}");
        let (end, to_upstream, to_downstream) = bench.copy.await.unwrap();
        assert!(matches!(end, CopyEnd::Finished), "{end:?}");
        assert_eq!((to_upstream, to_downstream), (request.len() as u64, response.len() as u64));
        assert!(crate::tcp::splice::has_spliced(), "plain TCP comes first, and goes through a pipe");
    }
}

#[tokio::test(flavor = "local")]
async fn one_side_may_end_while_the_other_goes_on() {
    for kind in [Kind::Tcp, Kind::Unix, Kind::Tls] {
        let Bench { mut client, mut server, copy, .. } = bench(kind, kind, CopyLimits::default()).await;
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"request");
        assert!(!copy.is_finished());
        server.write_all(b"late answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"late answer");
        assert!(matches!(copy.await.unwrap().0, CopyEnd::Finished));
    }
}

#[tokio::test(flavor = "local")]
async fn messages_between_bulk_transfers_arrive_at_once() {
    let Bench { mut client, mut server, copy, .. } = bench(Kind::Tcp, Kind::Tcp, CopyLimits::default()).await;
    let bulk = pattern(3, 4 << 20);
    for _ in 0..3 {
        for size in [1, 100, 10_000] {
            let mut got = vec![0; size];
            client.write_all(&bulk[..size]).await.unwrap();
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, bulk[..size]);
        }
        let mut got = vec![0; bulk.len()];
        let (sent, received) = tokio::join!(client.write_all(&bulk), server.read_exact(&mut got));
        sent.unwrap();
        received.unwrap();
        assert!(got == bulk);
    }
    drop(client);
    drop(server);
    copy.await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn a_receiver_that_does_not_read_stops_the_sender() {
    for kind in [Kind::Tcp, Kind::Tls] {
        let Bench { mut client, server, copy, .. } = bench(kind, kind, CopyLimits::default()).await;
        let chunk = pattern(4, 64 << 10);
        let mut sent = 0;
        // Under paused time the clock moves only when nothing else can happen: then nothing more is taken.
        tokio::time::pause();
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), client.write(&chunk)).await {
            sent += written.unwrap();
            assert!(sent < 256 << 20, "nothing holds the sender back");
        }
        tokio::time::resume();
        let receiving = tokio::spawn(talk(server, Vec::new()));
        client.shutdown().await.unwrap();
        assert_eq!(receiving.await.unwrap().len(), sent);
        assert!(matches!(copy.await.unwrap().0, CopyEnd::Finished));
    }
}

#[tokio::test(flavor = "local")]
async fn a_reset_is_told_and_passed_on() {
    let Bench { client, mut server, copy, .. } = bench(Kind::Tcp, Kind::Tcp, CopyLimits::default()).await;
    client.reset_on_close();
    drop(client);
    let (end, ..) = copy.await.unwrap();
    assert!(matches!(end, CopyEnd::Downstream(_)), "{end:?}");
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "local")]
async fn a_dead_upstream_is_told() {
    let Bench { mut client, server, copy, .. } = bench(Kind::Tcp, Kind::Tcp, CopyLimits::default()).await;
    server.reset_on_close();
    drop(server);
    let (end, ..) = copy.await.unwrap();
    assert!(matches!(end, CopyEnd::Upstream(_)), "{end:?}");
    let _ = client.read(&mut [0]).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn idleness_counts_from_the_last_byte() {
    let limits = CopyLimits { idle: Some(Duration::from_secs(10)), deadline: None };
    let Bench { mut client, mut server, copy, .. } = bench(Kind::Tcp, Kind::Tcp, limits).await;
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(7)).await;
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    let (end, ..) = copy.await.unwrap();
    assert!(matches!(end, CopyEnd::Idle), "{end:?}");
    let lasted = begin.elapsed();
    assert!(lasted >= Duration::from_secs(17) && lasted < Duration::from_secs(20), "{lasted:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn bytes_are_reported_while_the_connection_lasts_and_only_when_there_are_some() {
    let Bench { mut client, mut server, reports, .. } =
        bench(Kind::Tcp, Kind::Tcp, CopyLimits::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(reports.get(), 0);
    for round in 1..=2 {
        for _ in 0..3 {
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(reports.get(), round);
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_deadline_ends_a_busy_connection() {
    let deadline = Some(Instant::now() + Duration::from_secs(5));
    let Bench { mut client, server, copy, .. } =
        bench(Kind::Tcp, Kind::Tcp, CopyLimits { idle: None, deadline }).await;
    let (mut read, _write) = tokio::io::split(server);
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    while client.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(copy.await.unwrap().0, CopyEnd::TooLong));
}
