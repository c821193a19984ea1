//! An HTTP/2 client: prior knowledge over plain TCP, or over TLS.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::Tls;
use crate::message::{Headers, Response};
use crate::wait::PATIENCE;

/// One connection with its own runtime.
pub struct Http2Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http2Client")
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Pending(JoinHandle<anyhow::Result<Response>>);

impl Http2Client {
    /// Connects with prior knowledge.
    ///
    /// # Errors
    /// A connection or a preface that fails.
    pub fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let stream = runtime.block_on(TcpStream::connect(addr))?;
        Self::over(runtime, stream)
    }

    /// Connects over TLS; `tls` should offer `h2`.
    ///
    /// # Errors
    /// A connection, a handshake or a preface that fails.
    pub fn connect_tls(addr: SocketAddr, tls: &Tls) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let connector = tokio_rustls::TlsConnector::from(tls.config());
        let stream = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await?;
            connector.connect(tls.server_name(), stream).await
        })?;
        Self::over(runtime, stream)
    }

    fn over<S>(runtime: Runtime, stream: S) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = runtime
            .block_on(hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)))?;
        runtime.spawn(connection);
        Ok(Http2Client { runtime, sender })
    }

    /// Sends a request and waits for the whole response, at most [`PATIENCE`].
    ///
    /// # Errors
    /// A reset stream, a broken connection or no answer in time.
    pub fn send(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response> {
        self.wait(self.start(request))
    }

    /// A `GET` with this authority and path.
    ///
    /// # Errors
    /// As [`Http2Client::send`].
    pub fn get(&self, authority: &str, path: &str) -> anyhow::Result<Response> {
        self.send(http::Request::get(format!("http://{authority}{path}")).body(Full::default())?)
    }

    /// Sends a request without waiting, so that several share the connection.
    pub fn start(&self, request: http::Request<Full<Bytes>>) -> Pending {
        let mut sender = self.sender.clone();
        Pending(self.runtime.spawn(async move {
            let exchange = async {
                sender.ready().await?;
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = body.collect().await?;
                let trailers = body.trailers().map(fields).unwrap_or_default();
                anyhow::Ok(Response {
                    version: "HTTP/2".into(),
                    status: head.status.as_u16(),
                    headers: fields(&head.headers),
                    body: body.to_bytes().to_vec(),
                    trailers,
                })
            };
            tokio::time::timeout(PATIENCE, exchange).await?
        }))
    }

    /// Waits for the response of a started request.
    ///
    /// # Errors
    /// As [`Http2Client::send`].
    pub fn wait(&self, pending: Pending) -> anyhow::Result<Response> {
        self.runtime.block_on(pending.0)?
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn fields(map: &http::HeaderMap) -> Headers {
    let pairs = map.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Headers(pairs.collect())
}
