//! The change of a request to a WebSocket (RFC 6455), with one of Kubernetes' subprotocols.

use http::{HeaderMap, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::respond::Answer;
use crate::status::{Result, Status};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answer to a request that asks for a WebSocket with this subprotocol.
pub(crate) fn accept(headers: &HeaderMap, protocol: &'static str) -> Result<Answer> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let offers = text(header::SEC_WEBSOCKET_PROTOCOL).split(',').any(|offered| offered.trim() == protocol);
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket") || !offers {
        return Err(Status::bad_request(format!("only a WebSocket with {protocol} is served")));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    Ok(Answer::WebSocket { accept: derive_accept_key(key.as_bytes()), protocol })
}

/// The WebSocket, once the answer has been written; `None`: the client is gone.
pub(crate) async fn open(upgrade: OnUpgrade) -> Option<Socket> {
    let upgraded = upgrade.await.ok()?;
    Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await)
}
