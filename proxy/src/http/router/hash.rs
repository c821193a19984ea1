//! The hash of a request: what its route's hash policies make of it, for clusters that pick by one.

use http::header::SET_COOKIE;
use http::uri::Authority;
use http::{HeaderValue, Request, Response};

use crate::cluster::Cluster;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::connection_manager::view;
use crate::http::origin;
use crate::route::{HashedRequest, RequestHash, RouteAction};

/// Cookies that the response is to bring the client, so that it is known the next time.
pub(super) type Cookies = Vec<HeaderValue>;

/// Notes the hash in the stream, where the cluster asks for it. The request is as the route has made it.
pub(super) fn note(
    stream: &mut ActiveStream,
    cluster: &Cluster,
    action: &RouteAction,
    request: &Request<RequestBody>,
    authority: &Authority,
) -> Cookies {
    if action.hash_policies.is_empty() || cluster.lb.hashing().is_none() {
        return Cookies::new();
    }
    let connection = &stream.connection;
    let ends = &connection.info;
    let forwarded = origin::forwarded_address(&stream.hcm, request.headers());
    let made = RequestHash::of(
        &action.hash_policies,
        &HashedRequest {
            request: view(request, authority.as_str(), connection.scheme),
            remote: forwarded.or_else(|| stream.remote_ip()),
            connection: format_args!("{}{}", ends.peer_address, ends.local_address),
        },
    );
    stream.hash = made.hash;
    made.cookies
}

pub(super) fn set<B>(cookies: Cookies, response: &mut Response<B>) {
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}
