//! `pods/portforward` over a WebSocket (subprotocol `v4.channel.k8s.io`), one port a connection.
//!
//! A real kubelet connects to the port inside of the Pod. Here a Pod has an address of this machine, so that is where the
//! connection goes.

use std::net::IpAddr;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, Request, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::access::{User, rbac};
use crate::cluster::Cluster;
use crate::http::path::{Target, Verb};
use crate::http::query::Query;
use crate::http::respond::{Answer, Reply};
use crate::kinds::Collection;
use crate::status::{Result, Status};

const PROTOCOL: &str = "v4.channel.k8s.io";
/// The channels of the only port.
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// One frame holds at most so much.
const BUFFER: usize = 16 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for it.
pub(crate) fn is_asked(target: &Target) -> bool {
    target.group.is_empty()
        && target.plural == "pods"
        && target.name.is_some()
        && target.subresource.as_deref() == Some("portforward")
}

/// Switches to a WebSocket and forwards.
pub(crate) fn start(
    cluster: &Cluster,
    user: &User,
    target: &Target,
    query: &Query,
    parts: Parts,
) -> Result<Reply> {
    // As for `exec`: reading is not enough, although the request is a GET.
    rbac::check(cluster, user, Verb::Create, target)?;
    let (namespace, name) =
        (target.namespace.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default());
    let pod = cluster.get(&Collection::new("", "pods"), namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", name))?;
    let key = websocket_key(&parts.headers)
        .ok_or_else(|| Status::bad_request(format!("only WebSocket with {PROTOCOL} is served")))?;
    let port: u16 = query.get("ports").parse().map_err(|_| Status::bad_request("ports: one is served"))?;
    let ip: Option<IpAddr> = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| Status::bad_request(format!("pod {name} has no address")))?;
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(Request::from_parts(parts, ())).await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        // A client that goes away is its own business.
        let _ = forward(socket, ip, port).await;
    });
    Ok(Answer::WebSocket { accept, protocol: PROTOCOL }.into())
}

fn websocket_key(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let speaks = text(header::SEC_WEBSOCKET_PROTOCOL).split(',').any(|protocol| protocol.trim() == PROTOCOL);
    let wants = text(header::UPGRADE).eq_ignore_ascii_case("websocket");
    (speaks && wants).then(|| text(header::SEC_WEBSOCKET_KEY).to_owned())
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
