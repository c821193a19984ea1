//! Downstream connections: which HTTP they speak, and how they end.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::http1::BadHead;
use super::late_head::{self, LateHead};
use super::switched::Switched;
use crate::http::CodecType;
use crate::http::LiveConnectionManager;
use crate::net::Stream;
use crate::transport_socket::TlsInfo;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl From<Version> for http::Version {
    fn from(version: Version) -> Self {
        match version {
            Version::Http1 => http::Version::HTTP_11,
            Version::Http2 => http::Version::HTTP_2,
        }
    }
}

/// How a connection ended when it did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServeError {
    /// The client left in the middle of a head.
    Incomplete,
    /// The connection broke.
    Io,
}

/// How serving a connection ended when it ended well.
#[derive(Debug)]
pub(crate) enum Served {
    Closed,
    /// The connection has left HTTP.
    Switched(Switched),
    /// A head did not come in time.
    Late(LateHead),
    /// A head cannot be read.
    Bad(BadHead),
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds out what the client speaks: by configuration, by ALPN, else by its first bytes, which are returned. When these do not come
/// in time, HTTP/1 has an answer to that.
pub(crate) async fn detect(
    live: &LiveConnectionManager,
    tls: Option<&TlsInfo>,
    stream: &mut Stream,
) -> std::io::Result<(Version, Bytes)> {
    match live.connection.codec {
        CodecType::Http1 => return Ok((Version::Http1, Bytes::new())),
        CodecType::Http2 => return Ok((Version::Http2, Bytes::new())),
        CodecType::Auto => {}
    }
    match tls.and_then(|t| t.alpn.as_deref()) {
        Some("h2") => return Ok((Version::Http2, Bytes::new())),
        Some("http/1.1" | "http/1.0") => return Ok((Version::Http1, Bytes::new())),
        _ => {}
    }
    let mut first = BytesMut::with_capacity(1024);
    let mut deadline = None;
    loop {
        let known = first.len().min(PREFACE.len());
        if first[..known] != PREFACE[..known] {
            return Ok((Version::Http1, first.freeze()));
        }
        if known == PREFACE.len() {
            return Ok((Version::Http2, first.freeze()));
        }
        let read = stream.read_buf(&mut first);
        let read = match deadline {
            None => read.await,
            Some(deadline) => timeout_at(deadline, read).await.unwrap_or(Ok(0)),
        };
        if read? == 0 {
            return Ok((Version::Http1, first.freeze()));
        }
        if deadline.is_none() {
            deadline = late_head::limit(live).map(|(limit, _)| Instant::now() + limit);
        }
    }
}
