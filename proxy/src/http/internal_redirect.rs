//! Redirects of an upstream that the proxy follows itself (`internal_redirect_policy`): the client sees only the last answer.
//!
//! As in Envoy each one ends its stream, with a line in the log, and the next is another stream: route and filters are found and run
//! again, for the request as it went upstream. A redirect that must not be followed goes to the client as it is.

use std::sync::Arc;

use http::header::{HOST, LOCATION};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body as _;

use super::active_stream::ActiveStream;
use super::body::RequestBody;
use super::connection_manager::{Found, find_route, view, with_routes};
use super::path::Normalised;
use super::router::{SentRequest, UpstreamBody};
use crate::route::{Action, InternalRedirectPolicy, RedirectPredicate, RequestView, Route};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// The redirects that a request has taken.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    made: u32,
    /// From which route to which, by their names.
    taken: Vec<(Name, Name)>,
}

type Name = Option<Arc<str>>;

/// The next request of a redirect.
pub(crate) struct Next {
    request: Request<RequestBody>,
    authority: Authority,
    redirects: Box<Redirects>,
    /// Its route; `None`: the client is sent to https.
    route: Option<Arc<Route>>,
}

impl Next {
    /// Ends the stream that was redirected, and begins the next one.
    pub(crate) fn begin(
        self,
        ended: Box<ActiveStream>,
    ) -> (Box<ActiveStream>, Request<RequestBody>, Authority) {
        let mut stream = ActiveStream::begin(&ended.connection, ended.hcm.clone(), &self.request);
        stream.info.remote_address = ended.info.remote_address;
        stream.request_id.clone_from(&ended.request_id);
        stream.redirects = Some(self.redirects);
        // The upstream may have said something by headers that are copied.
        stream.asks_router = true;
        stream.capture_request(&self.request);
        (stream, self.request, self.authority)
    }
}

/// Follows the response if it is such a redirect; `None`: it is for the client.
pub(crate) fn follow(
    stream: &mut ActiveStream,
    response: &Response<UpstreamBody>,
    scheme: &str,
) -> Option<Next> {
    let route = stream.route.clone()?;
    let Action::Route(action) = &route.action else { return None };
    let policy = action.internal_redirects.as_ref()?;
    let sent = stream.sent.take()?;
    let next = next(stream, policy, *sent, response, scheme);
    if let Some(cluster) = &stream.info.upstream_cluster {
        match &next {
            Some(_) => cluster.stats.upstream_internal_redirect_succeeded_total.inc(),
            None => cluster.stats.upstream_internal_redirect_failed_total.inc(),
        }
    }
    let next = next?;
    if response.body().is_end_stream() {
        stream.upstream_complete();
    }
    stream.end_by_redirect(response.status());
    // Its line in the log tells where it went, as in Envoy.
    if let Some(route) = &next.route {
        stream.take(route, &view(&next.request, next.authority.as_str(), scheme));
        stream.info.upstream_cluster = None;
        stream.note_cluster();
    }
    stream.capture_request(&next.request);
    stream.capture_response(response.headers());
    Some(next)
}

fn next(
    stream: &mut ActiveStream,
    policy: &InternalRedirectPolicy,
    sent: SentRequest,
    response: &Response<UpstreamBody>,
    scheme: &str,
) -> Option<Next> {
    let hcm = stream.hcm.clone();
    let stats = &hcm.stats;
    let location = response.headers().get(LOCATION)?;
    if !sent.is_whole() {
        return None;
    }
    let Some(Target { is_http, authority, path }) = Target::of(location) else {
        stats.passthrough_internal_redirect_bad_location.inc();
        return None;
    };
    let from_http = scheme == "http" || stream.connection.info.tls.is_none();
    if !policy.cross_scheme && from_http != is_http {
        stats.passthrough_internal_redirect_unsafe_scheme.inc();
        return None;
    }
    let mut redirects = stream.redirects.take().unwrap_or_default();
    if redirects.made >= policy.max {
        stats.passthrough_internal_redirect_too_many_redirects.inc();
        return None;
    }
    let mut request = sent.again(response.status() == StatusCode::SEE_OTHER);
    let url = original_url(&request, from_http);
    copy_headers(&policy.copied_headers, response.headers(), request.headers_mut());
    let authority = stream.connection.stripped(&hcm, &authority, request.method()).unwrap_or(authority);
    let host = HeaderValue::from_str(authority.as_str()).ok()?;
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = Uri::from(path);
    // Not a path that this proxy would take from a client.
    if !hcm.path.is_idle() && !matches!(hcm.path.apply(&mut request), Normalised::Continue) {
        return None;
    }
    let peer = stream.connection.peer_certificate();
    let request_view = RequestView { peer, ..view(&request, authority.as_str(), scheme) };
    let found =
        with_routes(&hcm, |routes| match find_route(routes, Some(request.uri().path()), &request_view) {
            Found::Route(route) => Some(Some(route.clone())),
            Found::RequiresTls => Some(None),
            Found::NoRoute | Found::NoHost => None,
        });
    let Some(route) = found.flatten() else {
        stats.passthrough_internal_redirect_no_route.inc();
        return None;
    };
    let target = route.as_ref().and_then(|route| route.name.clone());
    let source = stream.route.as_ref().and_then(|route| route.name.clone());
    if !policy.predicates.iter().all(|p| redirects.accept(p, &source, &target, !from_http, !is_http)) {
        stats.passthrough_internal_redirect_predicate.inc();
        return None;
    }
    redirects.made += 1;
    if let Some(url) = url {
        request.headers_mut().insert(ORIGINAL_URL, url);
    }
    Some(Next { request, authority, redirects, route })
}

/// Where a redirect leads.
struct Target {
    is_http: bool,
    authority: Authority,
    path: PathAndQuery,
}

impl Target {
    /// Of an absolute URL; its fragment is the client's business.
    fn of(location: &HeaderValue) -> Option<Self> {
        let parts = Uri::try_from(location.as_bytes()).ok()?.into_parts();
        Some(Self {
            is_http: parts.scheme?.as_str().eq_ignore_ascii_case("http"),
            authority: parts.authority?,
            path: parts.path_and_query.unwrap_or(PathAndQuery::from_static("/")),
        })
    }
}

impl Redirects {
    fn accept(
        &mut self,
        predicate: &RedirectPredicate,
        source: &Name,
        target: &Name,
        from_https: bool,
        to_https: bool,
    ) -> bool {
        match predicate {
            RedirectPredicate::PreviousRoutes => {
                let step = (source.clone(), target.clone());
                let is_new = !self.taken.contains(&step);
                if is_new {
                    self.taken.push(step);
                }
                is_new
            }
            RedirectPredicate::AllowListedRoutes(names) => {
                let target = target.as_deref().unwrap_or_default();
                names.iter().any(|name| **name == *target)
            }
            RedirectPredicate::SafeCrossScheme => from_https || !to_https,
        }
    }
}

/// What is absent in the response is absent in the request.
fn copy_headers(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        to.remove(name);
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

fn original_url(request: &Request<RequestBody>, is_http: bool) -> Option<HeaderValue> {
    let host = request.headers().get(HOST)?.to_str().ok()?;
    let path = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let scheme = if is_http { "http" } else { "https" };
    HeaderValue::try_from(format!("{scheme}://{host}{path}")).ok()
}
