//! From a matched route to the upstream's response head: what the route changes of the request, then one attempt or several.

mod asked;
mod attempt;
mod first_frame;
mod hash;
mod mirror;
mod replay;
mod retry;
mod rewrite;
mod spare;
mod timeout;
mod tunnel;

use http::uri::Authority;
use http::{Request, Response};

use asked::Asked;

use super::active_stream::ActiveStream;
use super::body::RequestBody;
use super::connection_manager;
use super::error::{Failure, StreamError};
use crate::route::{Route, RouteAction};

pub(crate) use first_frame::UpstreamBody;
pub(crate) use mirror::{Copied, CopiedBody};
pub(crate) use replay::{ReplayedBody, SentRequest};
#[cfg(feature = "fuzzing")]
pub(crate) use timeout::grpc_timeout;
pub(crate) use timeout::{Timeouts, deadlines};
pub(crate) use tunnel::open_tunnel;

/// Sends the request to the route's cluster and waits for the response's head.
pub(crate) async fn forward(
    stream: &mut ActiveStream,
    route: &Route,
    action: &RouteAction,
    mut request: Request<RequestBody>,
    mut authority: Authority,
) -> Result<Response<UpstreamBody>, StreamError> {
    let Some(cluster) = stream.cluster(action) else {
        return Err(Failure::NoCluster(action.cluster_not_found).into());
    };
    stream.info.upstream_cluster = Some(cluster.clone());
    let scheme = stream.connection.scheme;
    stream.count_in(route, || connection_manager::view(&request, authority.as_str(), scheme));
    timeout::limit_attempts(stream, action, &cluster);
    timeout::tell_upstream(stream, action, &mut request);
    rewrite::rewrite(stream, route, action, &mut request, &mut authority);
    let asked = if stream.asks_router { Asked::take(request.headers_mut()) } else { None };
    let cookies = hash::note(stream, &cluster, action, &request, &authority);
    stream.recapture_request(&request);
    if !action.mirrors.is_empty() {
        mirror::start(stream, action, &mut request);
    }
    let mut response = match retry::plan(stream, action, asked) {
        Some(plan) if stream.upgrade.is_none() => {
            // On the heap, so that routes without retries do not carry its state.
            Box::pin(retry::forward(stream, route, action, plan, &cluster, request, &authority)).await?
        }
        _ => {
            let sent = attempt::send(stream, &cluster, action, request, &authority, Default::default());
            sent.await?.map(UpstreamBody::from)
        }
    };
    hash::set(cookies, &mut response);
    Ok(response)
}
