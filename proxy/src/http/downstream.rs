//! One downstream connection as its requests share it: what is checked and changed on every request, and what is counted.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{EXPECT, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use smallvec::SmallVec;

use super::body::RequestBody;
use super::codec::{Refusal, Version};
use super::connection_manager::with_routes;
use super::filters::ConnectionLimiter;
use super::headers::{self, EXPECTED_TIMEOUT, X_REQUEST_ID};
use super::mesh_metrics::MeshSeries;
use super::origin::{self, Origin};
use super::upgrade::Exchange;
use super::{HttpConnectionManager, LiveConnectionManager, Underscores, repeated};
use crate::net::Address;
use crate::overload::Pressed;
use crate::route::PeerCertificate;
use crate::stats::HttpStats;
use crate::stream_info::{ConnectionInfo, details};
use crate::worker::{ConnectionHandle, Worker};

/// One downstream connection; its streams share it.
#[derive(Debug)]
pub(crate) struct DownstreamConnection {
    pub(crate) worker: Rc<Worker>,
    /// What serves it: each request loads the present one.
    pub(crate) live: Arc<LiveConnectionManager>,
    /// Where the connection itself counts, from its beginning to its end.
    pub(crate) stats: Arc<HttpStats>,
    pub(crate) info: Arc<ConnectionInfo>,
    pub(crate) handle: Rc<ConnectionHandle>,
    pub(crate) version: Version,
    /// `http` or `https`: what the client speaks to us.
    pub(crate) scheme: &'static str,
    pub(crate) mesh: MeshSeries,
    /// The last `host` value and its parsed form: clients repeat themselves.
    pub(super) authority: RefCell<Option<(HeaderValue, Authority)>>,
    pub(super) requests: Cell<u32>,
    /// What upstreams are told of the client's certificate.
    pub(super) client_cert: OnceCell<Option<HeaderValue>>,
    /// The stream that goes on when an HTTP/1 connection has left HTTP.
    pub(super) exchange: RefCell<Option<Box<Exchange>>>,
    /// Token buckets of its own, when a local rate limit wants them.
    pub(super) limiter: RefCell<Option<Box<ConnectionLimiter>>>,
}

impl DownstreamConnection {
    /// Checks host and path, and brings both HTTP versions to one form: `host` header set, authority parsed.
    pub(super) fn normalise(
        &self,
        hcm: &HttpConnectionManager,
        request: &mut Request<RequestBody>,
    ) -> Result<Authority, Refusal> {
        let refuse = |status, details| Refusal { status, details, protocol_error: false };
        let bad = |details| Refusal { protocol_error: true, ..refuse(StatusCode::BAD_REQUEST, details) };
        // The HTTP/1 engine has counted them.
        let limit = self.live.connection.max_headers_count as usize;
        if self.version == Version::Http2 && request.headers().len() > limit {
            return Err(Refusal {
                protocol_error: true,
                ..refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, details::HTTP2_TOO_MANY_HEADERS)
            });
        }
        if hcm.underscores != Underscores::Allow {
            self.look_for_underscores(hcm.underscores, request.headers_mut())?;
        }
        // Before all else, so that nothing that is checked or added from here on can be taken away by a `connection` header.
        headers::remove_hop_by_hop(request.headers_mut());
        repeated::join_in_request(request.headers_mut());
        if self.version == Version::Http2 {
            headers::join_cookies(request.headers_mut());
        }
        if self.version == Version::Http1 {
            if request.version() < http::Version::HTTP_11 && !hcm.http1.accept_http_10 {
                return Err(Refusal {
                    protocol_error: true,
                    ..refuse(StatusCode::UPGRADE_REQUIRED, details::LOW_VERSION)
                });
            }
            if let Some(refusal) = request.extensions_mut().remove::<Refusal>() {
                return Err(refusal);
            }
            // RFC 9112 section 3.2: one host field at most; and only CONNECT may name nothing but an authority.
            let uri = request.uri();
            let authority_form = uri.scheme().is_none() && uri.authority().is_some();
            if authority_form && request.method() != Method::CONNECT {
                return Err(bad(details::HTTP1_CODEC_ERROR));
            }
            if request.headers().get_all(HOST).iter().nth(1).is_some() {
                return Err(bad(details::INVALID_AUTHORITY));
            }
        }
        // HTTP/2's `:authority`, or the absolute form of HTTP/1, beats the host header.
        if let Some(authority) = request.uri().authority()
            && (self.version == Version::Http2
                || hcm.http1.allow_absolute_url
                || request.method() == Method::CONNECT)
        {
            let authority = authority.clone();
            if let Some(host) = self.host_value(&authority) {
                request.headers_mut().insert(HOST, host);
            }
            if self.version == Version::Http1
                && let Some(path) = request.uri().path_and_query().cloned()
            {
                *request.uri_mut() = path.into();
            }
        }
        if let (None, Some(default)) = (request.headers().get(HOST), &hcm.http1.default_host_for_http_10)
            && request.version() < http::Version::HTTP_11
        {
            request.headers_mut().insert(HOST, default.clone());
        }
        let Some(host) = request.headers().get(HOST) else {
            return Err(refuse(StatusCode::BAD_REQUEST, details::MISSING_HOST));
        };
        let mut authority = self.parsed_authority(host).ok_or(bad(details::INVALID_AUTHORITY))?;
        if let Some(stripped) = self.stripped(hcm, &authority, request.method())
            && let Ok(host) = HeaderValue::from_str(stripped.as_str())
        {
            request.headers_mut().insert(HOST, host);
            authority = stripped;
        }
        match request.uri().path() {
            path if path.starts_with('/') => Ok(authority),
            "" if request.method() == Method::CONNECT => Ok(authority),
            "" => Err(refuse(StatusCode::NOT_FOUND, details::MISSING_PATH)),
            _ => {
                hcm.stats.downstream_rq_non_relative_path.inc();
                Err(refuse(StatusCode::NOT_FOUND, details::ABSOLUTE_PATH))
            }
        }
    }

    /// The host without what `strip_trailing_host_dot`, `strip_any_host_port` and `strip_matching_host_port` take away. `None`: it stays.
    pub(super) fn stripped(
        &self,
        hcm: &HttpConnectionManager,
        authority: &Authority,
        method: &Method,
    ) -> Option<Authority> {
        let dotless = if hcm.strip_trailing_host_dot { without_trailing_dot(authority) } else { None };
        let any_port = hcm.strip_host_port.filter(|_| method != Method::CONNECT);
        let portless = any_port.and_then(|any_port| {
            without_port(dotless.as_ref().unwrap_or(authority), &self.info.local_address, any_port)
        });
        portless.or(dotless)
    }

    /// `headers_with_underscores_action`.
    fn look_for_underscores(&self, action: Underscores, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let with_underscores = headers.keys().filter(|name| name.as_str().contains('_'));
        let names: SmallVec<[HeaderName; 2]> = with_underscores.cloned().collect();
        let details = match self.version {
            Version::Http1 => details::HTTP1_UNEXPECTED_UNDERSCORE,
            Version::Http2 => details::HTTP2_UNEXPECTED_UNDERSCORE,
        };
        match action {
            Underscores::Reject if !names.is_empty() => {
                Err(Refusal { status: StatusCode::BAD_REQUEST, details, protocol_error: true })
            }
            _ => {
                names.iter().for_each(|name| _ = headers.remove(name));
                Ok(())
            }
        }
    }

    fn parsed_authority(&self, host: &HeaderValue) -> Option<Authority> {
        let mut cached = self.authority.borrow_mut();
        if let Some((value, authority)) = &*cached
            && value == host
        {
            return Some(authority.clone());
        }
        let authority = Authority::try_from(host.as_bytes()).ok()?;
        // A copy: the request's own value holds the whole buffer that it was read into.
        *cached = HeaderValue::from_bytes(host.as_bytes()).ok().map(|host| (host, authority.clone()));
        Some(authority)
    }

    fn host_value(&self, authority: &Authority) -> Option<HeaderValue> {
        if let Some((value, cached)) = &*self.authority.borrow()
            && cached == authority
        {
            return Some(value.clone());
        }
        // Credentials in an absolute-form target are not part of the host (RFC 9110 section 4.2.4).
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        HeaderValue::from_str(host).ok()
    }

    /// What the client has shown.
    pub(super) fn peer_certificate(&self) -> PeerCertificate {
        let tls = self.info.tls.as_ref();
        PeerCertificate {
            presented: tls.is_some_and(|tls| tls.peer.is_some()),
            validated: tls.is_some_and(|tls| tls.peer_is_verified),
        }
    }

    /// What clients must not say goes; forwarding headers and the request id come.
    pub(super) fn mutate_headers(
        &self,
        hcm: &HttpConnectionManager,
        request: &mut Request<RequestBody>,
    ) -> Origin {
        let headers = request.headers_mut();
        // It is answered as soon as somebody asks for the body. Other expectations are the upstream's business.
        if !hcm.proxy_100_continue
            && headers
                .get(EXPECT)
                .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        {
            headers.remove(EXPECT);
        }
        let (peer, local) = (&self.info.peer_address, &self.info.local_address);
        let mut origin = Origin::find(hcm, headers, peer, local, self.scheme);
        let is_heard = origin.is_heard(hcm.reporter, self.info.tls.as_ref());
        origin.asks_router = headers::remove_internal(headers, origin.internal, origin.edge, is_heard)
            || (is_heard && hcm.respect_expected_timeout && headers.contains_key(EXPECTED_TIMEOUT));
        if !origin.internal {
            with_routes(hcm, |routes| {
                for name in &routes.internal_only_headers {
                    headers.remove(name);
                }
            });
        }
        origin.tell(headers, peer);
        if let Some(via) = &hcm.via {
            origin::append_via(headers, via);
        }
        if hcm.generate_request_id {
            let keep =
                headers.contains_key(X_REQUEST_ID) && (!origin.edge || hcm.preserve_external_request_id);
            if !keep {
                headers.insert(X_REQUEST_ID, headers::new_request_id());
            }
        }
        self.live.connection.forward_client_cert.apply(headers, self.info.tls.as_ref(), &self.client_cert);
        origin
    }

    /// The request that reaches the connection's maximum is the last one.
    pub(super) fn count_request(&self, hcm: &HttpConnectionManager, version: http::Version) {
        self.handle.record.version.set(Some(version));
        let requests = self.requests.get().saturating_add(1);
        self.requests.set(requests);
        if requests == self.live.connection.max_requests {
            hcm.stats.downstream_cx_max_requests_reached.inc();
            self.handle.drain();
        }
    }

    /// What is shed under pressure, if anything is.
    pub(super) fn pressed(&self) -> Option<Pressed<'_>> {
        match self.handle.is_spared() {
            true => None,
            false => self.worker.shared.overload.pressed(),
        }
    }

    /// The last response of an HTTP/1 connection says so.
    pub(super) fn is_last_response(&self) -> bool {
        self.version == Version::Http1 && self.handle.is_draining()
    }
}

/// `strip_any_host_port`, or `strip_matching_host_port`: only the port that the connection came in on. `None`: it stays.
fn without_port(authority: &Authority, local: &Address, any_port: bool) -> Option<Authority> {
    let port = authority.port()?;
    let matches = matches!(local, Address::Ip(ip) if ip.port() == port.as_u16());
    if !any_port && !matches {
        return None;
    }
    let host = authority.as_str().strip_suffix(port.as_str())?.strip_suffix(':')?;
    Authority::try_from(host).ok()
}

/// `strip_trailing_host_dot`: the dot at the end of a full name, before its port. `None`: there is none.
fn without_trailing_dot(authority: &Authority) -> Option<Authority> {
    let (host, rest) = authority.as_str().rsplit_once('.')?;
    (rest.is_empty() || rest.starts_with(':')).then(|| Authority::try_from(format!("{host}{rest}")).ok())?
}

/// `downstream_cx_*` of one connection.
pub(super) struct CountedConnection {
    stats: Arc<HttpStats>,
    version: Version,
    tls: bool,
    handle: Rc<ConnectionHandle>,
    opened: Instant,
}

impl CountedConnection {
    pub(super) fn new(
        stats: &Arc<HttpStats>,
        version: Version,
        tls: bool,
        handle: &Rc<ConnectionHandle>,
        opened: Instant,
    ) -> Self {
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        match version {
            Version::Http1 => {
                stats.downstream_cx_http1_total.inc();
                stats.downstream_cx_http1_active.inc();
            }
            Version::Http2 => {
                stats.downstream_cx_http2_total.inc();
                stats.downstream_cx_http2_active.inc();
            }
        }
        if tls {
            stats.downstream_cx_ssl_total.inc();
            stats.downstream_cx_ssl_active.inc();
        }
        Self { stats: stats.clone(), version, tls, handle: handle.clone(), opened }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        match self.version {
            Version::Http1 => stats.downstream_cx_http1_active.dec(),
            Version::Http2 => stats.downstream_cx_http2_active.dec(),
        }
        if self.tls {
            stats.downstream_cx_ssl_active.dec();
        }
        if self.handle.is_client_ended() {
            stats.downstream_cx_destroy_remote.inc();
        } else {
            stats.downstream_cx_destroy_local.inc();
        }
        if self.handle.streams() > 0 {
            stats.downstream_cx_destroy_active_rq.inc();
        }
        stats.downstream_cx_length_ms.observe_duration(self.opened.elapsed());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dot_at_the_end_is_stripped_from_hosts() {
        let stripped = |host| without_trailing_dot(&Authority::from_static(host)).map(|a| a.to_string());
        assert_eq!(stripped("a.b.").as_deref(), Some("a.b"));
        assert_eq!(stripped("a.:80").as_deref(), Some("a:80"));
        assert_eq!(stripped("a.b:80"), None);
        assert_eq!(stripped("a"), None);
    }

    #[test]
    fn ports_are_stripped_from_hosts() {
        let local = Address::Ip(([127, 0, 0, 1], 8080).into());
        let stripped = |host: &str, any_port| {
            let authority = Authority::try_from(host).unwrap();
            without_port(&authority, &local, any_port).map(|a| a.to_string())
        };
        for (host, any_port, expected) in [
            ("a:8080", false, Some("a")),
            ("a:80", false, None),
            ("a:80", true, Some("a")),
            ("[::1]:8080", false, Some("[::1]")),
            ("[::1]", true, None),
            ("a", true, None),
        ] {
            assert_eq!(stripped(host, any_port).as_deref(), expected, "{host} {any_port}");
        }
    }
}
