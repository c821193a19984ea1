//! What the overload manager does to connections and requests of HTTP. Nothing of this runs while there is no pressure.

use http::header::HOST;
use http::{HeaderValue, Method, Request};

use super::HttpConnectionManager;
use super::body::RequestBody;
use super::codec::{Refusal, Version};
use super::downstream::DownstreamConnection;
use crate::overload::Pressed;
use crate::stats::{HttpStats, LoadShedPoint, OverloadAction};
use crate::worker::{ConnectionHandle, Worker};

/// Whether a connection ends here, before there is a codec for it.
pub(super) fn closes(handle: &ConnectionHandle, worker: &Worker, stats: &HttpStats) -> bool {
    if handle.is_spared() {
        return false;
    }
    let closes =
        worker.shared.overload.pressed().is_some_and(|pressed| pressed.sheds(LoadShedPoint::CreatingCodec));
    if closes {
        // To Envoy it is a connection that speaks nothing.
        stats.downstream_cx_total.inc();
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_destroy_local.inc();
        stats.downstream_rq_overload_close.inc();
        handle.record.was_shed.set(true);
    }
    closes
}

/// Whether this request is refused. Its response may be the connection's last one, refused or not.
pub(super) fn refuses(
    connection: &DownstreamConnection,
    hcm: &HttpConnectionManager,
    pressed: Pressed<'_>,
    request: &mut Request<RequestBody>,
) -> bool {
    // To Envoy's codec what cannot be read is no request.
    if !is_readable(connection.version, request) {
        return false;
    }
    // Envoy ends connections of HTTP/1 here too, whatever the name says.
    if pressed.sheds(LoadShedPoint::Http2GoAway) {
        connection.handle.drain();
    }
    if !connection.handle.is_draining() && pressed.does(OverloadAction::DisableHttpKeepalive) {
        hcm.stats.downstream_cx_overload_disable_keepalive.inc();
        if connection.version == Version::Http2 {
            hcm.stats.downstream_cx_drain_close.inc();
        }
        connection.handle.drain();
    }
    let refuses =
        pressed.sheds(LoadShedPoint::DecodeHeaders) || pressed.does(OverloadAction::StopAcceptingRequests);
    if refuses
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        // For the log: it is not looked at otherwise.
        request.headers_mut().insert(HOST, host);
    }
    refuses
}

fn is_readable(version: Version, request: &Request<RequestBody>) -> bool {
    let uri = request.uri();
    let is_authority_form = uri.scheme().is_none() && uri.authority().is_some();
    version == Version::Http2
        || (request.extensions().get::<Refusal>().is_none()
            && (!is_authority_form || request.method() == Method::CONNECT))
}
