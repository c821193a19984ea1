//! `envoy.filters.http.cors`: what browsers ask before, and need to see after, a request across origins (Fetch standard, section 3.2).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use super::{Decision, FilterReply, Kept, Override, is_drawn};
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::route::StringMatcher;
use crate::stream_info::{ResponseFlags, details};

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`, compiled. What is unset is the less specific place's word.
#[derive(Debug, Clone, Default)]
pub struct CorsPolicy {
    /// `allow_origin_string_match`: one of them.
    pub allow_origins: Vec<std::sync::Arc<StringMatcher>>,
    /// `allow_methods`.
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`.
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`.
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`.
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`.
    pub allow_credentials: Option<bool>,
    /// `allow_private_network_access`.
    pub allow_private_network: Option<bool>,
    /// `forward_not_matching_preflights`, default true.
    pub forward_not_matching: Option<bool>,
    /// `filter_enabled` in parts per million, default always.
    pub enabled_ppm: Option<u32>,
}

const REQUEST_PRIVATE_NETWORK: &str = "access-control-request-private-network";
const ALLOW_PRIVATE_NETWORK: &str = "access-control-allow-private-network";

impl CorsPolicy {
    /// This policy, where it says nothing the less specific one.
    pub(super) fn or(&self, less: &Self) -> Self {
        let (more, less) = (self.clone(), less.clone());
        Self {
            allow_origins: if more.allow_origins.is_empty() {
                less.allow_origins
            } else {
                more.allow_origins
            },
            allow_methods: more.allow_methods.or(less.allow_methods),
            allow_headers: more.allow_headers.or(less.allow_headers),
            expose_headers: more.expose_headers.or(less.expose_headers),
            max_age: more.max_age.or(less.max_age),
            allow_credentials: more.allow_credentials.or(less.allow_credentials),
            allow_private_network: more.allow_private_network.or(less.allow_private_network),
            forward_not_matching: more.forward_not_matching.or(less.forward_not_matching),
            enabled_ppm: more.enabled_ppm.or(less.enabled_ppm),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let is_any =
            |matcher: &StringMatcher| matches!(matcher, StringMatcher::Exact(text) if &**text == "*");
        self.allow_origins.iter().any(|matcher| is_any(matcher) || matcher.matches(origin))
    }
}

pub(super) fn on_request(
    said: Option<&Override>,
    at: usize,
    stream: &mut ActiveStream,
    request: &Request<RequestBody>,
) -> Decision {
    let Some(Override::Cors(policy)) = said else { return Decision::Continue };
    // Only for what goes upstream, as in Envoy.
    if stream.chosen_cluster().is_none() {
        return Decision::Continue;
    }
    if policy.enabled_ppm.is_some_and(|ppm| !is_drawn(ppm)) {
        return Decision::Continue;
    }
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
        return Decision::Continue;
    };
    let is_preflight = request.method() == Method::OPTIONS
        && headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
    let mut answer = HeaderMap::new();
    if policy.allows(origin) {
        stream.hcm.stats.cors_origin_valid.inc();
        stream.filter_state.get_or_insert_default().keep(at, Kept::CorsOrigin(origin.clone()));
        if !is_preflight {
            return Decision::Continue;
        }
        let mut set = |name, value: &Option<HeaderValue>| {
            if let Some(value) = value {
                answer.insert(name, value.clone());
            }
        };
        set(ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods);
        set(ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers);
        set(ACCESS_CONTROL_MAX_AGE, &policy.max_age);
        if policy.allow_private_network == Some(true)
            && headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|asked| asked == "true")
        {
            answer.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
    } else {
        stream.hcm.stats.cors_origin_invalid.inc();
        if !is_preflight || policy.forward_not_matching.unwrap_or(true) {
            return Decision::Continue;
        }
    }
    Decision::Reply(Box::new(FilterReply {
        status: StatusCode::OK,
        grpc_status: None,
        body: Default::default(),
        headers: answer,
        takes_route_headers: false,
        flag: ResponseFlags::NONE,
        details: details::CORS_RESPONSE,
    }))
}

pub(super) fn on_response(said: Option<&Override>, kept: Option<&Kept>, headers: &mut HeaderMap) {
    let Some(Override::Cors(policy)) = said else { return };
    let Some(Kept::CorsOrigin(origin)) = kept else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials == Some(true) {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(exposed) = &policy.expose_headers {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}
