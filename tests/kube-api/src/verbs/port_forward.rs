//! `pods/portforward` over a WebSocket (subprotocol `v4.channel.k8s.io`), one port a connection.
//!
//! A real kubelet connects to the port inside of the Pod. Here a Pod has an address of this machine, so that is where the
//! connection goes.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::access::{User, rbac};
use crate::cluster::Cluster;
use crate::http::path::{Target, Verb};
use crate::http::query::Query;
use crate::http::respond::Answer;
use crate::http::websocket::{self, Socket};
use crate::kinds::Collection;
use crate::status::{Result, Status};

const PROTOCOL: &str = "v4.channel.k8s.io";
/// The channels of the only port.
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// One frame holds at most so much.
const BUFFER: usize = 16 * 1024;

/// Switches to a WebSocket and forwards.
pub(crate) fn start(
    cluster: &Arc<Cluster>,
    user: &User,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
) -> Result<Answer> {
    // As for `exec`: reading is not enough, although the request is a GET.
    rbac::check(cluster, user, Verb::Create, target)?;
    let (namespace, name) =
        (target.namespace.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default());
    let pod = cluster.get(&Collection::new("", "pods"), namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", name))?;
    let answer = websocket::accept(headers, PROTOCOL)?;
    let port: u16 = query.get("ports").parse().map_err(|_| Status::bad_request("ports: one is served"))?;
    let ip: Option<IpAddr> = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| Status::bad_request(format!("pod {name} has no address")))?;
    tokio::spawn(async move {
        if let Some(socket) = websocket::open(upgrade).await {
            // A client that goes away is its own business.
            let _ = forward(socket, ip, port).await;
        }
    });
    Ok(answer)
}

type Failure = tokio_tungstenite::tungstenite::Error;

async fn forward(socket: Socket, ip: IpAddr, port: u16) -> std::result::Result<(), Failure> {
    let (mut sink, stream) = socket.split();
    let [low, high] = port.to_le_bytes();
    for channel in [DATA, ERROR] {
        sink.send(Message::binary(vec![channel, low, high])).await?;
    }
    match TcpStream::connect((ip, port)).await {
        Ok(pod) => {
            let (from_pod, to_pod) = pod.into_split();
            tokio::select! {
                result = out_of_pod(from_pod, &mut sink) => result?,
                result = into_pod(stream, to_pod) => result?,
            }
        }
        Err(error) => {
            let text = format!("failed to connect to localhost:{port} inside the pod: {error}");
            let mut frame = vec![ERROR];
            frame.extend_from_slice(text.as_bytes());
            sink.send(Message::binary(frame)).await?;
        }
    }
    sink.close().await
}

async fn out_of_pod(
    mut pod: tokio::net::tcp::OwnedReadHalf,
    sink: &mut SplitSink<Socket, Message>,
) -> std::result::Result<(), Failure> {
    let mut frame = vec![DATA; BUFFER];
    loop {
        let length = pod.read(&mut frame[1..]).await?;
        if length == 0 {
            return Ok(());
        }
        sink.send(Message::binary(frame[..=length].to_vec())).await?;
    }
}

async fn into_pod(
    mut stream: SplitStream<Socket>,
    mut pod: tokio::net::tcp::OwnedWriteHalf,
) -> std::result::Result<(), Failure> {
    while let Some(message) = stream.next().await {
        if let Message::Binary(frame) = message?
            && let Some((&DATA, bytes)) = frame.split_first()
        {
            pod.write_all(bytes).await?;
        }
    }
    Ok(())
}
