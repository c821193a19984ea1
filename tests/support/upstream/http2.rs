//! An HTTP/2 upstream with prior knowledge (h2c), on a small runtime of its own.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{Record, Reply, lock, recorded};
use crate::addr::pod_ip;
use crate::message::{Headers, Request, Response};

/// A listening h2c upstream. It answers `200 ok` until it is told otherwise.
pub struct Http2Upstream {
    addr: SocketAddr,
    record: Arc<Record>,
    runtime: Option<Runtime>,
}

recorded!(Http2Upstream);

impl Default for Http2Upstream {
    fn default() -> Self {
        Self::start()
    }
}

impl Http2Upstream {
    /// Starts one on an address of its own. CONNECT that it answers with 200 is an echo.
    pub fn start() -> Self {
        Self::start_at((IpAddr::from(pod_ip()), 0).into())
    }

    /// Starts one at `addr`; port 0 lets the kernel choose.
    pub fn start_at(addr: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(addr)).expect("bind a local address");
        let addr = listener.local_addr().expect("address of a bound socket");
        let record = Record::new();
        runtime.spawn(accept(listener, record.clone()));
        Http2Upstream { addr, record, runtime: Some(runtime) }
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, record: Arc<Record>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let record = record.clone();
        let connection = record.connection();
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(connection, peer, record.clone(), request));
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .enable_connect_protocol()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, io::Error>;

async fn serve(
    connection: usize,
    peer: SocketAddr,
    record: Arc<Record>,
    mut request: http::Request<Incoming>,
) -> io::Result<http::Response<Body>> {
    let upgrade = (request.method() == http::Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let trailers = body.trailers().map(fields).unwrap_or_default();
    let body = body.to_bytes().to_vec();
    let head_only = parts.method == http::Method::HEAD;
    let authority = parts.uri.authority().map(|authority| (":authority".to_owned(), authority.to_string()));
    let protocol = parts.extensions.get::<hyper::ext::Protocol>();
    let protocol = protocol.map(|protocol| (":protocol".to_owned(), protocol.as_str().to_owned()));
    let mut reply = record.request(Request {
        connection,
        peer,
        head: Vec::new(),
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or("*", |path| path.as_str()).to_owned(),
        version: "HTTP/2".into(),
        headers: Headers(authority.into_iter().chain(protocol).chain(fields(&parts.headers).0).collect()),
        body,
        trailers,
    });
    loop {
        return match reply {
            Reply::Respond(response) if upgrade.is_some() && response.status == 200 => {
                if let Some(upgrade) = upgrade {
                    tokio::spawn(echo(upgrade));
                }
                Ok(build(&response, Full::default().map_err(|never: Infallible| match never {}).boxed()))
            }
            Reply::Respond(mut response) | Reply::RespondThenClose(mut response) => {
                if head_only {
                    response.body.clear();
                }
                Ok(whole(response))
            }
            Reply::ResetAfterHead(response) => Ok(cut(response)),
            Reply::Stall => std::future::pending().await,
            Reply::Hold(gate, then) => {
                tokio::task::spawn_blocking(move || gate.wait()).await.map_err(io::Error::other)?;
                reply = *then;
                continue;
            }
            // An error of the service resets the stream.
            Reply::Close | Reply::Reset => Err(io::Error::other("reset as told")),
            Reply::Chunks(..) | Reply::Raw(_) => panic!("only an HTTP/1 upstream can do this"),
        };
    }
}

/// Repeats what comes on a stream that has left HTTP, until the other side ends it.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
}

fn fields(map: &http::HeaderMap) -> Headers {
    let pairs = map.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Headers(pairs.collect())
}

fn whole(response: Response) -> http::Response<Body> {
    let trailers = header_map(&response.trailers);
    let data = Bytes::from(response.body.clone());
    let body = if trailers.is_empty() {
        Full::new(data).map_err(|never: Infallible| match never {}).boxed()
    } else {
        // Like gRPC's servers, without a length.
        let frames = [Ok(Frame::data(data)), Ok(Frame::trailers(trailers))];
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    };
    build(&response, body)
}

fn cut(response: Response) -> http::Response<Body> {
    let half = Bytes::from(response.body[..response.body.len() / 2].to_vec());
    let frames = [Ok(Frame::data(half)), Err(io::Error::other("reset as told"))];
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    build(&response, body)
}

fn build(response: &Response, body: Body) -> http::Response<Body> {
    let mut built = http::Response::new(body);
    *built.status_mut() = http::StatusCode::from_u16(response.status).expect("a status code");
    *built.headers_mut() = header_map(&response.headers);
    built
}

fn header_map(headers: &Headers) -> http::HeaderMap {
    let pairs = headers.0.iter().map(|(name, value)| {
        (name.parse::<http::HeaderName>().expect("a header name"), value.parse().expect("a header value"))
    });
    pairs.collect()
}
