//! One probe of the application, as the kubelet would do it.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::application::{Application, Error, Exchange, Protocol, encrypt, exchange};
use super::probes::{Action, HttpGet, Probe};

/// Redirects that are followed, as the kubelet does.
const MAX_REDIRECTS: usize = 10;
/// How much of the application's answer is handed on.
const MAX_BODY_BYTES: usize = 10 << 10;

/// What the kubelet is told.
pub(super) type Verdict = (StatusCode, Bytes);

/// Asks the application. `headers` are those of the kubelet's request, `agent_port` the one that it was sent to.
pub(super) async fn probe(
    application: &Application,
    probe: &Probe,
    headers: &HeaderMap,
    agent_port: u16,
) -> Verdict {
    let asked = async {
        match &probe.action {
            Action::Http(get) => http(application, get, headers, agent_port).await,
            Action::Tcp { port } => {
                application.connect(*port).await?;
                Ok((StatusCode::OK, Bytes::new()))
            }
            Action::Grpc { port, service } => {
                grpc(application, *port, service, headers).await?;
                Ok((StatusCode::OK, Bytes::new()))
            }
        }
    };
    let failed = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(reason + "\n"));
    match tokio::time::timeout(probe.timeout, asked).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("no answer within {:?}", probe.timeout)),
    }
}

async fn http(
    application: &Application,
    get: &HttpGet,
    headers: &HeaderMap,
    agent_port: u16,
) -> Result<Verdict, Error> {
    let mut target = Uri::builder()
        .scheme(if get.tls { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(authority(application, get.port)?)
        .path_and_query(get.path.as_str())
        .build()?;
    let headers = forwarded(headers, get, agent_port);
    for _ in 0..=MAX_REDIRECTS {
        let Exchange { response, connection: _connection } = get_once(application, &target, &headers).await?;
        let status = response.status();
        if let Some(next) = redirect(&target, status, response.headers())? {
            if next.host() != target.host() {
                // It is alive enough to send others elsewhere; where, is no matter of this probe.
                return Ok((StatusCode::OK, Bytes::new()));
            }
            target = next;
            continue;
        }
        // A redirection that leads nowhere is a success too, and no answer without a location.
        let status = if status.is_redirection() { StatusCode::OK } else { status };
        return Ok((status, beginning(response.into_body()).await));
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects").into())
}

/// The first bytes of the answer; whatever happens after its head is no matter of the probe.
async fn beginning(mut body: Incoming) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < MAX_BODY_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.put(frame.into_data().unwrap_or_default());
    }
    bytes.truncate(MAX_BODY_BYTES);
    bytes.freeze()
}

fn authority(application: &Application, port: u16) -> Result<Authority, http::uri::InvalidUri> {
    std::net::SocketAddr::new(application.address, port).to_string().parse()
}

/// The kubelet's headers, but for those of its connection to us; those that the probe itself has come before.
fn forwarded(incoming: &HeaderMap, get: &HttpGet, agent_port: u16) -> HeaderMap {
    let mut headers = incoming.clone();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, HeaderName::from_static("keep-alive")] {
        headers.remove(name);
    }
    // The kubelet asked for our port, but means the application's.
    if let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok())
        && let Some(name) = host.strip_suffix(&format!(":{agent_port}"))
        && let Ok(host) = HeaderValue::try_from(format!("{name}:{}", get.port))
    {
        headers.insert(HOST, host);
    }
    for name in get.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &get.headers {
        headers.append(name, value.clone());
    }
    headers
}

async fn get_once(application: &Application, target: &Uri, headers: &HeaderMap) -> Result<Exchange, Error> {
    let tls = target.scheme() == Some(&Scheme::HTTPS);
    let port = target.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = application.connect(port).await?;
    if tls {
        let (stream, protocol) = encrypt(stream, application.address).await?;
        exchange(stream, protocol, request(protocol, target, headers)?).await
    } else {
        exchange(stream, Protocol::Http1, request(Protocol::Http1, target, headers)?).await
    }
}

fn request(protocol: Protocol, target: &Uri, headers: &HeaderMap) -> Result<Request<Full<Bytes>>, Error> {
    let mut headers = headers.clone();
    let host = match (headers.get(HOST), target.authority()) {
        (Some(host), _) => host.clone(),
        (None, Some(authority)) => HeaderValue::try_from(authority.as_str())?,
        (None, None) => HeaderValue::from_static(""),
    };
    let path = target.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = match protocol {
        Protocol::Http1 => {
            headers.insert(HOST, host);
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            Uri::from(path)
        }
        Protocol::Http2 => {
            headers.remove(HOST);
            Uri::builder().scheme(Scheme::HTTPS).authority(host.as_bytes()).path_and_query(path).build()?
        }
    };
    let mut request = Request::get(uri).body(Full::default())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Where this answer sends, if it does (RFC 9110 section 15.4).
fn redirect(base: &Uri, status: StatusCode, headers: &HeaderMap) -> Result<Option<Uri>, Error> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let location = location.to_str()?;
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) =
        (base.scheme_str().unwrap_or("http"), base.authority().map_or("", Authority::as_str));
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    Ok(Some(absolute.parse()?))
}

/// `grpc.health.v1.Health/Check`, in HTTP/2 without TLS.
async fn grpc(application: &Application, port: u16, service: &str, headers: &HeaderMap) -> Result<(), Error> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority(application, port)?)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()?;
    let mut request = Request::post(uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(health_check_request(service)))?;
    if let Some(agent) = headers.get(http::header::USER_AGENT) {
        request.headers_mut().insert(http::header::USER_AGENT, agent.clone());
    }
    let stream = application.connect(port).await?;
    let Exchange { response, connection: _connection } = exchange(stream, Protocol::Http2, request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await?;
    // An error without a body has its status among the headers.
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    match status.or(parts.headers.get("grpc-status")).map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"12") => return Err("the server does not implement grpc.health.v1.Health".into()),
        Some(code) => return Err(format!("gRPC status {}", String::from_utf8_lossy(code)).into()),
        None => return Err(format!("HTTP status {} is not an answer of gRPC", parts.status).into()),
    }
    match serving_status(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(status) => Err(format!("the service is not serving (status {status})").into()),
        None => Err("the answer is not a HealthCheckResponse".into()),
    }
}

/// `HealthCheckRequest { string service = 1; }` as a gRPC message.
fn health_check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` out of a gRPC message: 0 unknown, 1 serving.
fn serving_status(framed: &[u8]) -> Option<u8> {
    let ([0, length @ ..], message) = framed.split_first_chunk::<5>()? else { return None };
    if usize::try_from(u32::from_be_bytes(*length)).ok()? != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn sent_to(base: &str, status: u16, location: Option<&str>) -> Option<String> {
        let headers = location.map(|l| (LOCATION, HeaderValue::from_str(l).unwrap()));
        let headers = HeaderMap::from_iter(headers);
        redirect(&base.parse().unwrap(), StatusCode::from_u16(status).unwrap(), &headers)
            .unwrap()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn locations_are_resolved() {
        let base = "http://10.1.1.1:8080/a/b?c";
        for (location, target) in [
            ("/x?y#z", "http://10.1.1.1:8080/x?y"),
            ("x", "http://10.1.1.1:8080/a/x"),
            ("?x", "http://10.1.1.1:8080/a/b?x"),
            ("//other/x", "http://other/x"),
            ("https://10.1.1.1/x", "https://10.1.1.1/x"),
        ] {
            assert_eq!(sent_to(base, 302, Some(location)).as_deref(), Some(target), "{location}");
        }
        assert_eq!(sent_to(base, 304, Some("/x")), None);
        assert_eq!(sent_to(base, 200, Some("/x")), None);
        assert_eq!(sent_to(base, 301, None), None);
    }

    #[test]
    fn the_probes_own_headers_come_before_the_kubelets() {
        let incoming =
            [("host", "10.1.1.1:15020"), ("user-agent", "kube-probe/1.36"), ("connection", "close")];
        let incoming: HeaderMap =
            incoming.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let mut get = HttpGet { port: 8080, path: "/".to_owned(), tls: false, headers: HeaderMap::new() };
        let headers = forwarded(&incoming, &get, 15020);
        assert_eq!((headers["host"].as_bytes(), headers.len()), (&b"10.1.1.1:8080"[..], 2));
        get.headers.insert(HOST, HeaderValue::from_static("app.example"));
        get.headers.insert("user-agent", HeaderValue::from_static("mine"));
        let headers = forwarded(&incoming, &get, 15020);
        assert_eq!(
            (headers["host"].as_bytes(), headers["user-agent"].as_bytes()),
            (&b"app.example"[..], &b"mine"[..])
        );
    }

    #[test]
    fn health_messages_are_framed() {
        assert_eq!(health_check_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(health_check_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = health_check_request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8]), None);
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(serving_status(b""), None);
    }
}
