//! `InternalRedirectPolicy`: which redirects of an upstream the proxy follows itself.

use http::HeaderName;

/// `envoy.config.route.v3.InternalRedirectPolicy`, compiled.
#[derive(Debug)]
pub struct InternalRedirectPolicy {
    /// `max_internal_redirects` of one request, default 1.
    pub max: u32,
    /// `redirect_response_codes`, default 302.
    pub statuses: Box<[u16]>,
    /// `predicates`: all must accept.
    pub predicates: Box<[RedirectPredicate]>,
    /// `allow_cross_scheme_redirect`.
    pub cross_scheme: bool,
    /// `response_headers_to_copy` into the next request.
    pub copied_headers: Box<[HeaderName]>,
}

/// `predicates`.
#[derive(Debug)]
pub enum RedirectPredicate {
    /// `PreviousRoutesConfig`: no route is gone to twice from the same one.
    PreviousRoutes,
    /// `AllowListedRoutesConfig`: only to routes of these names.
    AllowListedRoutes(Box<[Box<str>]>),
    /// `SafeCrossSchemeConfig`: not from http to https.
    SafeCrossScheme,
}
