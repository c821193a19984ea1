//! `envoy.filters.listener.tls_inspector`: whether a connection begins with a TLS ClientHello, and what it asks for.
//!
//! The bytes stay in the socket. `parse` is pure and takes anything.

use std::borrow::Cow;
use std::sync::Arc;

use super::inspect::InspectError;
use super::tls_fingerprint::{self, Fingerprinting};
use crate::net::RawStream;
use crate::stream_info::TlsFingerprints;

/// Longest ClientHello that is looked at, in bytes, record headers included (as in Envoy).
pub const MAX_CLIENT_HELLO_BYTES: usize = 16 << 10;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a ClientHello: more bytes are needed.
    Incomplete,
    /// Something else.
    NotTls,
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// `server_name`, lower case.
    pub sni: Option<Arc<str>>,
    /// `application_layer_protocol_negotiation`, in the client's order.
    pub alpn: Vec<Box<str>>,
    /// Those that were asked for.
    pub fingerprints: Option<Box<TlsFingerprints>>,
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8], wanted: Fingerprinting) -> Parsed {
    match handshake_message(bytes) {
        Ok(message) => match client_hello(&message) {
            Some(hello) => {
                Parsed::Hello(ClientHello { fingerprints: tls_fingerprint::of(&message, wanted), ..hello })
            }
            None => Parsed::NotTls,
        },
        Err(parsed) => parsed,
    }
}

/// The body of the first handshake message, which may be spread over several records.
fn handshake_message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Parsed> {
    let mut records = bytes;
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let fragment = record(&mut records)?;
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        if message.first().is_some_and(|kind| *kind != 1) {
            return Err(Parsed::NotTls);
        }
        if let [_, a, b, c, ..] = *message {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_CLIENT_HELLO_BYTES {
                return Err(Parsed::NotTls);
            }
            if message.len() >= 4 + length {
                return Ok(match message {
                    Cow::Borrowed(m) => Cow::Borrowed(&m[4..4 + length]),
                    Cow::Owned(m) => Cow::Owned(m[4..4 + length].to_vec()),
                });
            }
        }
    }
}

/// Takes one handshake record off the front and gives its content.
fn record<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Parsed> {
    // Checked byte by byte, so that anything else is known as early as possible.
    for (byte, allowed) in bytes.iter().zip([0x16..=0x16, 3..=3, 0..=4u8]) {
        if !allowed.contains(byte) {
            return Err(Parsed::NotTls);
        }
    }
    let [_, _, _, high, low, rest @ ..] = *bytes else { return Err(Parsed::Incomplete) };
    let length = usize::from(*high) << 8 | usize::from(*low);
    if length == 0 || length > 16 << 10 {
        return Err(Parsed::NotTls);
    }
    let Some((content, rest)) = rest.split_at_checked(length) else { return Err(Parsed::Incomplete) };
    *bytes = rest;
    Ok(content)
}

/// Reads big-endian lengths and the bytes that they count.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|b| usize::from(b[0]))
    }
    pub(super) fn u16(&mut self) -> Option<usize> {
        self.take(2).map(|b| usize::from(b[0]) << 8 | usize::from(b[1]))
    }
    pub(super) fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n)
    }
    pub(super) fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n)
    }
}

/// RFC 8446 4.1.2; `None` when malformed.
fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    let (_version, _random) = (body.u16()?, body.take(32)?);
    let (_session, _suites, _compression) = (body.vec8()?, body.vec16()?, body.vec8()?);
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vec16()?);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.vec16()?);
        match kind {
            0 => hello.sni = server_name(content)?,
            16 => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 3. The outer `None`: malformed; the inner one: no host name.
fn server_name(content: &[u8]) -> Option<Option<Arc<str>>> {
    let mut names = Reader(Reader(content).vec16()?);
    let (kind, name) = (names.u8()?, names.vec16()?);
    let is_name = kind == 0 && !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic());
    Some(is_name.then(|| String::from_utf8_lossy(name).to_ascii_lowercase().into()))
}

/// RFC 7301 3.1.
fn protocols(content: &[u8]) -> Option<Vec<Box<str>>> {
    let mut list = Reader(Reader(content).vec16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(String::from_utf8_lossy(list.vec8()?).into());
    }
    Some(protocols)
}

/// Waits until the first bytes tell what they are; `None` is not TLS.
///
/// # Errors
/// See [`InspectError`], and `inspect` for giving up.
pub async fn inspect(raw: &RawStream, wanted: Fingerprinting) -> Result<Option<ClientHello>, InspectError> {
    let known = |bytes: &[u8]| match parse(bytes, wanted) {
        Parsed::Hello(hello) => Some(Some(hello)),
        Parsed::NotTls => Some(None),
        Parsed::Incomplete => None,
    };
    super::inspect::inspect(raw, MAX_CLIENT_HELLO_BYTES, known).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use rustls_pki_types::ServerName;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::transport_socket::crypto_provider;

    fn parsed(bytes: &[u8]) -> Parsed {
        parse(bytes, Fingerprinting::default())
    }

    /// What rustls sends first.
    fn hello(sni: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(crypto_provider().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    fn fragmented(bytes: &[u8], size: usize) -> Vec<u8> {
        let record =
            |c: &[u8]| [&[0x16, 3, 1][..], &u16::try_from(c.len()).unwrap().to_be_bytes(), c].concat();
        bytes[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_real_hello_is_read() {
        let bytes = hello("WWW.example.com", &["h2", "http/1.1"]);
        let expected = Parsed::Hello(ClientHello {
            sni: Some("www.example.com".into()),
            alpn: vec!["h2".into(), "http/1.1".into()],
            fingerprints: None,
        });
        assert_eq!(parsed(&bytes), expected);
        for size in [1, 7, 100] {
            assert_eq!(parsed(&fragmented(&bytes, size)), expected);
        }
        for n in 0..bytes.len() {
            assert_eq!(parsed(&bytes[..n]), Parsed::Incomplete, "{n} bytes");
        }
    }

    #[test]
    fn a_mesh_name_is_read() {
        let name = "outbound_.8080_.v1_.reviews.default.svc.cluster.local";
        let Parsed::Hello(found) = parsed(&hello(name, &["istio"])) else { panic!("not read") };
        assert_eq!(found.sni.as_deref(), Some(name));
    }

    #[test]
    fn an_address_is_sent_without_a_name() {
        assert_eq!(parsed(&hello("127.0.0.1", &[])), Parsed::Hello(ClientHello::default()));
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        for other in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"\x16\x02", b"\x16\x03\x09", b"\x16\x03\x01\x00\x00"]
        {
            assert_eq!(parsed(other), Parsed::NotTls, "{other:?}");
        }
        // A handshake record with something else in it.
        assert_eq!(parsed(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"), Parsed::NotTls);
    }

    #[test]
    fn anything_is_taken() {
        let mut random = fastrand::Rng::with_seed(7);
        let good = hello("a.test", &["h2"]);
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            parsed(&bytes);
        }
    }

    #[tokio::test]
    async fn a_hello_that_comes_in_pieces_is_waited_for() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = RawStream::Unix(near);
        let bytes = hello("a.test", &[]);
        let inspected = tokio::spawn(async move { inspect(&near, Fingerprinting::default()).await });
        for piece in bytes.chunks(50) {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let found = inspected.await.unwrap().unwrap().unwrap();
        assert_eq!(found.sni.as_deref(), Some("a.test"));
    }

    #[tokio::test]
    async fn closing_in_the_middle_and_too_much_are_errors() {
        for (bytes, closed) in [
            (hello("a.test", &[])[..40].to_vec(), true),
            (Vec::new(), true),
            (fragmented(&[&[0; 5][..], &[1, 0, 0x3f, 0xff], &[0; 20_000]].concat(), 16_000), false),
        ] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(&bytes).await.unwrap();
            if closed {
                drop(far);
            }
            let error = inspect(&RawStream::Unix(near), Fingerprinting::default()).await.unwrap_err();
            assert_eq!(matches!(error, InspectError::Closed | InspectError::Ended), closed, "{error}");
        }
    }
}
