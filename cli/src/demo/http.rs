//! A small HTTP/1 client: one connection, reused, that notices when it is closed.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One client connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let socket =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One request; an error means that the connection is gone.
    pub(super) async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::get(path).header("host", host).body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// One GET on a connection of its own; the body of a 200.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let (status, body) = Connection::open(address).await?.get(&address.to_string(), path).await?;
    if status != StatusCode::OK {
        bail!("GET http://{address}{path}: {status}");
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
