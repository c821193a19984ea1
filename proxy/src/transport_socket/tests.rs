#![allow(clippy::unwrap_used, clippy::expect_used)]

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::test_certificates::{Authority, Issued, client, fixed, mutual, server};
use super::*;
use crate::config::live::Live;
use crate::net::{RawStream, Stream};
use crate::route::StringMatcher;
use crate::stats::SslStats;

const WEB: &str = "spiffe://test/ns/default/sa/web";
const REVIEWS: &str = "spiffe://test/ns/default/sa/reviews";

async fn sockets() -> (RawStream, RawStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connecting, listener.accept());
    (RawStream::Tcp(near.unwrap()), RawStream::Tcp(far.unwrap().0))
}

struct Outcome {
    server: Result<(Stream, TlsInfo), TransportError>,
    client: Result<(Stream, Arc<TlsInfo>), TransportError>,
    server_stats: SslStats,
    client_stats: SslStats,
}

async fn handshake(server: &DownstreamTls, client: &UpstreamTls) -> Outcome {
    let (near, far) = sockets().await;
    let (server_stats, client_stats) = (SslStats::default(), SslStats::default());
    let (client, server) =
        tokio::join!(client.connect(near, &client_stats), server.accept(far, &server_stats));
    Outcome { server, client, server_stats, client_stats }
}

async fn exchange(near: &mut Stream, far: &mut Stream) {
    let mut buf = [0; 4];
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"ping");
    far.write_all(b"pong").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"pong");
}

#[tokio::test]
async fn mutual_tls_gives_both_identities() {
    let (server, client) = mutual();
    let outcome = handshake(&server, &client).await;
    let (mut near, near_info) = outcome.client.unwrap();
    let (mut far, far_info) = outcome.server.unwrap();
    assert_eq!(far_info.peer_principal.as_deref(), Some(WEB));
    assert_eq!(far_info.local_principal.as_deref(), Some(REVIEWS));
    assert_eq!(near_info.peer_principal.as_deref(), Some(REVIEWS));
    assert_eq!(near_info.local_principal.as_deref(), Some(WEB));
    assert_eq!(far_info.version, "TLSv1.3");
    assert_eq!(far_info.sni.as_deref(), Some("outbound_.8080_._.reviews.default.svc.cluster.local"));
    assert_eq!(near_info.sni, far_info.sni);
    assert_eq!(far_info.cipher, "TLS_AES_128_GCM_SHA256");
    assert_eq!((outcome.server_stats.handshake.get(), outcome.client_stats.handshake.get()), (1, 1));
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(server(authority.issue(REVIEWS).load())).unwrap();
    let client = UpstreamTls::new(client(authority.trust(&[WEB, "spiffe://test/other"]))).unwrap();
    let outcome = handshake(&server, &client).await;
    let error = outcome.client.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::San);
    assert_eq!(
        &*error.reason,
        "TLS_error:|CERTIFICATE_VERIFY_FAILED:verify cert failed: verify SAN list:TLS_error_end"
    );
    assert_eq!(outcome.client_stats.fail_verify_san.get(), 1);
    assert_eq!(outcome.client_stats.connection_error.get(), 0);
    assert_eq!(outcome.server.unwrap_err().kind, TransportErrorKind::Connection);
    assert_eq!(outcome.server_stats.connection_error.get(), 1);
}

#[tokio::test]
async fn a_client_with_another_name_is_refused_and_learns_why() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(DownstreamTlsOptions {
        validation: Some(ValidationSource::Whole(fixed(authority.trust(&[WEB])))),
        require_client_certificate: true,
        ..server(authority.issue(REVIEWS).load())
    })
    .unwrap();
    for (certificate, kind) in [
        (Some(fixed(authority.issue("spiffe://test/stranger").load())), TransportErrorKind::San),
        (Some(fixed(Authority::new("other").issue(WEB).load())), TransportErrorKind::Certificate),
        (None, TransportErrorKind::NoCertificate),
    ] {
        let client =
            UpstreamTls::new(UpstreamTlsOptions { certificate, ..client(authority.trust(&[])) }).unwrap();
        let outcome = handshake(&server, &client).await;
        assert_eq!(outcome.server.unwrap_err().kind, kind);
        let (mut near, _) = outcome.client.unwrap();
        let error = near.read_u8().await.unwrap_err();
        let reason = failure_reason(&error).unwrap();
        assert!(reason.starts_with("TLS_error:|TLS_ALERT_"), "{reason}");
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_but_not_required() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(DownstreamTlsOptions {
        validation: Some(ValidationSource::Whole(fixed(authority.trust(&[])))),
        ..server(authority.issue(REVIEWS).load())
    })
    .unwrap();
    let without = UpstreamTls::new(client(authority.trust(&[]))).unwrap();
    let outcome = handshake(&server, &without).await;
    assert_eq!(outcome.server.unwrap().1.peer_principal, None);
    assert_eq!(outcome.server_stats.no_certificate.get(), 1);
    let foreign = UpstreamTls::new(UpstreamTlsOptions {
        certificate: Some(fixed(Authority::new("other").issue(WEB).load())),
        ..client(authority.trust(&[]))
    })
    .unwrap();
    let error = handshake(&server, &foreign).await.server.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Certificate, "one that is given must be good");
}

#[tokio::test]
async fn nothing_is_verified_without_a_validation_context() {
    let server = DownstreamTls::new(server(Authority::new("root").issue(REVIEWS).load())).unwrap();
    let client = UpstreamTls::new(UpstreamTlsOptions {
        validation: None,
        ..client(Authority::new("unused").trust(&[]))
    })
    .unwrap();
    let (_, info) = handshake(&server, &client).await.client.unwrap();
    assert_eq!(info.peer_principal, None, "an unverified name is no identity");
}

#[tokio::test]
async fn alpn_is_negotiated_and_a_mismatch_is_no_failure() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(DownstreamTlsOptions {
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ..server(authority.issue(REVIEWS).load())
    })
    .unwrap();
    for (offered, agreed) in [
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec!["istio"], None),
        (vec![], None),
    ] {
        let client = UpstreamTls::new(UpstreamTlsOptions {
            alpn: offered.iter().map(|p| p.as_bytes().to_vec()).collect(),
            ..client(authority.trust(&[]))
        })
        .unwrap();
        let outcome = handshake(&server, &client).await;
        assert_eq!(outcome.server.unwrap().1.alpn.as_deref(), agreed, "{offered:?}");
        assert_eq!(outcome.client.unwrap().1.alpn.as_deref(), agreed);
    }
}

#[tokio::test]
async fn versions_are_kept() {
    use TlsVersion::{V1_2, V1_3};
    let authority = Authority::new("root");
    for (ours, theirs, agreed) in [
        ((V1_2, V1_3), (V1_2, V1_2), Some("TLSv1.2")),
        ((V1_2, V1_2), (V1_2, V1_3), Some("TLSv1.2")),
        ((V1_3, V1_3), (V1_2, V1_3), Some("TLSv1.3")),
        ((V1_3, V1_3), (V1_2, V1_2), None),
    ] {
        let params = |(min, max)| TlsParams { min, max };
        let server = DownstreamTls::new(DownstreamTlsOptions {
            params: params(ours),
            ..server(authority.issue(REVIEWS).load())
        })
        .unwrap();
        let client =
            UpstreamTls::new(UpstreamTlsOptions { params: params(theirs), ..client(authority.trust(&[])) })
                .unwrap();
        let outcome = handshake(&server, &client).await;
        assert_eq!(outcome.server.ok().map(|(_, info)| info.version), agreed);
    }
    let inverted = TlsParams { min: V1_3, max: V1_2 };
    let options = UpstreamTlsOptions { params: inverted, ..client(authority.trust(&[])) };
    assert!(UpstreamTls::new(options).unwrap_err().contains("above the maximum"));
}

#[tokio::test]
async fn an_expired_certificate_loads_and_is_refused_by_the_peer() {
    let authority = Authority::new("root");
    let expired = authority.issue_until(REVIEWS, -Duration::hours(1)).load();
    let server = DownstreamTls::new(server(expired)).unwrap();
    let strict = UpstreamTls::new(client(authority.trust(&[REVIEWS]))).unwrap();
    let error = handshake(&server, &strict).await.client.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Certificate);
    assert!(error.reason.contains("certificate has expired"), "{error}");
    let options = ValidationOptions {
        trusted_ca: Some(authority.pem().into_bytes()),
        allow_expired: true,
        ..ValidationOptions::default()
    };
    let lenient = UpstreamTls::new(client(Arc::new(ValidationContext::new(options).unwrap()))).unwrap();
    handshake(&server, &lenient).await.client.unwrap();
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let authority = Authority::new("root");
    let (a, b) = (authority.issue(WEB), authority.issue(WEB));
    let error = TlsCertificate::from_pem(a.chain.as_bytes(), b.key.as_bytes()).unwrap_err();
    assert!(error.contains("key values mismatch"), "{error}");
    let error = TlsCertificate::from_pem(a.chain.as_bytes(), b"-----BEGIN").unwrap_err();
    assert!(error.starts_with("failed to load private key"), "{error}");
    let error = TlsCertificate::from_pem(b"nothing", a.key.as_bytes()).unwrap_err();
    assert!(error.contains("no certificate found"), "{error}");
    let not_one = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = TlsCertificate::from_pem(not_one, a.key.as_bytes());
    assert!(error.unwrap_err().contains("malformed certificate"));
}

#[test]
fn keys_are_never_printed() {
    let issued = Authority::new("root").issue(WEB);
    let printed = format!("{:?}", issued.load());
    assert!(printed.contains(WEB));
    let secret: String = issued.key.lines().nth(1).unwrap().chars().take(20).collect();
    assert!(!printed.contains(&secret) && !printed.to_lowercase().contains("key"), "{printed}");
}

#[test]
fn a_certificate_is_read() {
    let issued = Authority::new("root").issue(WEB);
    let loaded = issued.load();
    assert_eq!(loaded.leaf().sans, [San::Dns("localhost".into()), San::Uri(WEB.into())]);
    assert!(loaded.leaf().not_before < loaded.leaf().not_after);
    assert!(loaded.leaf().serial.chars().all(|c| c.is_ascii_hexdigit()) && !loaded.leaf().serial.is_empty());
}

#[tokio::test]
async fn a_rotated_secret_is_used_by_new_handshakes_and_old_connections_stay() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let certificate = Live::with("default", old.issue(REVIEWS).load());
    let roots = Live::with("ROOTCA", old.trust(&[]));
    let server = DownstreamTls::new(DownstreamTlsOptions {
        certificate: certificate.clone(),
        validation: Some(ValidationSource::Combined {
            default: fixed(Arc::new(ValidationContext::default())),
            secret: roots.clone(),
        }),
        require_client_certificate: true,
        ..server(old.issue(REVIEWS).load())
    })
    .unwrap();
    let client_of = |authority: &Authority| {
        let certificate = Some(fixed(authority.issue(WEB).load()));
        UpstreamTls::new(UpstreamTlsOptions { certificate, ..client(authority.trust(&[REVIEWS])) }).unwrap()
    };
    let (old_client, new_client) = (client_of(&old), client_of(&new));
    let outcome = handshake(&server, &old_client).await;
    let ((mut near, _), (mut far, _)) = (outcome.client.unwrap(), outcome.server.unwrap());
    exchange(&mut near, &mut far).await;
    assert!(handshake(&server, &new_client).await.server.is_err());

    certificate.publish(new.issue(REVIEWS).load());
    roots.publish(new.trust(&[]));
    exchange(&mut near, &mut far).await;
    handshake(&server, &new_client).await.server.unwrap();
    assert!(handshake(&server, &old_client).await.server.is_err(), "an old ticket must not get in either");
}

#[tokio::test]
async fn a_secret_that_is_not_there_refuses_with_its_name() {
    let authority = Authority::new("root");
    let certificate = Live::empty("default");
    let server = DownstreamTls::new(DownstreamTlsOptions {
        certificate: certificate.clone(),
        ..server(authority.issue(REVIEWS).load())
    })
    .unwrap();
    let client = UpstreamTls::new(client(authority.trust(&[]))).unwrap();
    assert_eq!(server.missing_secrets(), [Arc::from("default")]);
    let error = handshake(&server, &client).await.server.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Secret);
    assert!(error.reason.contains("'default'"), "{error}");
    certificate.publish(authority.issue(REVIEWS).load());
    assert!(server.missing_secrets().is_empty());
    handshake(&server, &client).await.server.unwrap();
}

#[tokio::test]
async fn sessions_are_resumed_unless_switched_off() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(server(authority.issue(REVIEWS).load())).unwrap();
    for (max_session_keys, resumed) in [(1, 1), (0, 0)] {
        let options = UpstreamTlsOptions { max_session_keys, ..client(authority.trust(&[REVIEWS])) };
        let client = UpstreamTls::new(options).unwrap();
        let first = handshake(&server, &client).await;
        // Tickets come with the first bytes of the server.
        exchange(&mut first.client.unwrap().0, &mut first.server.unwrap().0).await;
        let second = handshake(&server, &client).await;
        assert_eq!(second.client_stats.session_reused.get(), resumed);
        assert_eq!(second.server_stats.session_reused.get(), resumed);
        assert_eq!(second.client.unwrap().1.peer_principal.as_deref(), Some(REVIEWS));
    }
}

#[tokio::test]
async fn a_session_ends_with_what_it_was_made_with() {
    let authority = Authority::new("root");
    let server = DownstreamTls::new(server(authority.issue(REVIEWS).load())).unwrap();
    let certificate = Live::with("default", authority.issue(WEB).load());
    let roots = Live::with("ROOTCA", authority.trust(&[]));
    let client = UpstreamTls::new(UpstreamTlsOptions {
        certificate: Some(certificate.clone()),
        validation: Some(ValidationSource::Combined {
            default: fixed(Arc::new(ValidationContext::default())),
            secret: roots.clone(),
        }),
        ..client(authority.trust(&[]))
    })
    .unwrap();
    let resumed = async || {
        let outcome = handshake(&server, &client).await;
        // Tickets come with the first bytes of the server.
        exchange(&mut outcome.client.unwrap().0, &mut outcome.server.unwrap().0).await;
        outcome.client_stats.session_reused.get()
    };
    assert_eq!((resumed().await, resumed().await), (0, 1));
    certificate.publish(authority.issue(WEB).load());
    assert_eq!((resumed().await, resumed().await), (0, 1), "another identity");
    roots.publish(authority.trust(&[]));
    assert_eq!((resumed().await, resumed().await), (0, 1), "other roots, although they are the same");
    roots.publish(Authority::new("other").trust(&[]));
    assert!(handshake(&server, &client).await.client.is_err(), "an old ticket must not get in");
}

#[tokio::test]
async fn a_combined_context_matches_names_with_roots_from_the_secret() {
    let authority = Authority::new("root");
    let options = ValidationOptions {
        match_sans: vec![SanMatcher {
            san_type: SanType::Uri,
            matcher: StringMatcher::Prefix("spiffe://test/ns/default/".into()),
        }],
        ..ValidationOptions::default()
    };
    let source = ValidationSource::Combined {
        default: fixed(Arc::new(ValidationContext::new(options).unwrap())),
        secret: Live::with("ROOTCA", authority.trust(&[])),
    };
    let options = UpstreamTlsOptions { validation: Some(source), ..client(authority.trust(&[])) };
    let client = UpstreamTls::new(options).unwrap();
    for (uri, accepted) in [(REVIEWS, true), ("spiffe://test/ns/other/sa/reviews", false)] {
        let server = DownstreamTls::new(server(authority.issue(uri).load())).unwrap();
        assert_eq!(handshake(&server, &client).await.client.is_ok(), accepted, "{uri}");
    }
}

#[tokio::test]
async fn pinned_certificates() {
    let authority = Authority::new("root");
    let issued = authority.issue(REVIEWS);
    let hash_of = |issued: &Issued| {
        let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref().try_into().unwrap()
    };
    let server = DownstreamTls::new(server(issued.load())).unwrap();
    for (hash, accepted) in [(hash_of(&issued), true), (hash_of(&authority.issue(REVIEWS)), false)] {
        let options = ValidationOptions { certificate_hashes: vec![hash], ..ValidationOptions::default() };
        let validation = Arc::new(ValidationContext::new(options).unwrap());
        let client = UpstreamTls::new(client(validation)).unwrap();
        assert_eq!(handshake(&server, &client).await.client.is_ok(), accepted);
    }
}

#[tokio::test]
async fn a_trusted_certificate_may_be_the_peers_own() {
    let authority = Authority::new("root");
    let issued = authority.issue(REVIEWS);
    let options = ValidationOptions {
        trusted_ca: Some(issued.chain.clone().into_bytes()),
        ..ValidationOptions::default()
    };
    let validation = Arc::new(ValidationContext::new(options).unwrap());
    let server = DownstreamTls::new(server(issued.load())).unwrap();
    let client = UpstreamTls::new(client(validation)).unwrap();
    handshake(&server, &client).await.client.unwrap();
}

#[tokio::test]
async fn something_else_than_tls_is_a_connection_error() {
    let (server, _) = mutual();
    let (mut near, far) = sockets().await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let stats = SslStats::default();
    let error = server.accept(far, &stats).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Connection);
    assert!(error.reason.starts_with("TLS_error:|"), "{error}");
    drop(near);
    let (near, far) = sockets().await;
    drop(near);
    let error = server.accept(far, &stats).await.unwrap_err();
    assert!(error.reason.contains("closed by the peer"), "{error}");
    assert_eq!(stats.connection_error.get(), 2);
}
