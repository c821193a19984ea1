//! The first bytes of a TLS connection (`envoy.filters.listener.tls_inspector`), beside rustls.

use outrigger_proxy::listener::tls_fingerprint::Fingerprinting;
use outrigger_proxy::listener::tls_inspector::{ClientHello, Parsed, parse};
use rustls::server::Acceptor;

/// What is known is known for good, and is what the TLS engine will find.
pub(crate) fn fuzz(bytes: &[u8]) {
    let wanted = Fingerprinting { ja3: true, ja4: true };
    let known = parse(bytes, wanted);
    if known == Parsed::Incomplete {
        assert!((0..bytes.len()).all(|n| parse(&bytes[..n], wanted) == Parsed::Incomplete));
        return;
    }
    let more = [bytes, b"\x16\x03\x01\x00\x01\x01"].concat();
    assert_eq!(parse(&more, wanted), known);
    if let (Parsed::Hello(ours), Some(theirs)) = (known, rustls(bytes)) {
        // rustls gives only names that may be one; ours is taken as it is, for matching.
        assert!(theirs.sni.is_none() || theirs.sni == ours.sni, "{theirs:?} {ours:?}");
        assert_eq!(theirs.alpn, ours.alpn);
    }
}

fn rustls(mut bytes: &[u8]) -> Option<ClientHello> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut bytes).ok()?;
    let accepted = acceptor.accept().ok()??;
    let hello = accepted.client_hello();
    let alpn = hello.alpn().into_iter().flatten();
    Some(ClientHello {
        sni: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
        alpn: alpn.map(|protocol| String::from_utf8_lossy(protocol).into()).collect(),
        fingerprints: None,
    })
}
