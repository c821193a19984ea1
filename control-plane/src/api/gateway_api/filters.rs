//! Filters of rules and backends.

use std::time::Duration;

use super::matches::unknown_type;
use super::references::destination;
use super::wire;
use crate::api::values::{header_name, number, port};
use crate::api::{Refusal, names};
use crate::model::{
    ALL_PPM, Cors, HeaderChanges, HeaderOperations, Mirror, Name, PathRewrite, Redirect, RedirectPort,
    StringMatch,
};

/// Filters of HTTPRoutes that are supported.
const HTTP: &str =
    "RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, CORS";

/// Those of GRPCRoutes.
const GRPC: &str = "RequestHeaderModifier, ResponseHeaderModifier, RequestMirror";

/// Those of backends.
const BACKEND: &str = "RequestHeaderModifier, ResponseHeaderModifier";

/// How long browsers keep the answer to a preflight (Gateway API).
const CORS_MAX_AGE_S: i64 = 5;

/// What the filters of a rule come to.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) headers: HeaderChanges,
    pub(super) cors: Option<Cors>,
    pub(super) redirect: Option<Redirect>,
    /// New path and new host.
    pub(super) rewrite: Option<(Option<PathRewrite>, Option<String>)>,
    pub(super) mirrors: Vec<Mirror>,
}

impl Filters {
    /// Those of a rule of an HTTPRoute.
    pub(super) fn of_rule(wire: Vec<wire::Filter>, route: &Name, rule: &str) -> Result<Self, Refusal> {
        let filters = Self::of(wire, HTTP, route, rule)?;
        if filters.redirect.is_some() && filters.rewrite.is_some() {
            let reason = "a rule cannot both redirect and rewrite";
            return Err(Refusal::new(format!("{rule}.filters"), reason));
        }
        Ok(filters)
    }

    /// Those of a rule of a GRPCRoute.
    pub(super) fn of_grpc_rule(wire: Vec<wire::Filter>, route: &Name, rule: &str) -> Result<Self, Refusal> {
        Self::of(wire, GRPC, route, rule)
    }

    /// Whether something depends on the matched prefix.
    pub(super) fn changes_prefix(&self) -> bool {
        let redirect = self.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        let rewrite = self.rewrite.as_ref().and_then(|(path, _)| path.as_ref());
        redirect.into_iter().chain(rewrite).any(|path| matches!(path, PathRewrite::Prefix(_)))
    }

    fn of(wire: Vec<wire::Filter>, supported: &str, route: &Name, rule: &str) -> Result<Self, Refusal> {
        let mut filters = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (index, filter) in wire.into_iter().enumerate() {
            let field = format!("{rule}.filters[{index}]");
            let kind = filter.r#type.clone();
            if !supported.split(", ").any(|known| known == kind) {
                let reason = format!("filter {kind} is not supported; supported: {supported}");
                return Err(Refusal::new(format!("{field}.type"), reason));
            }
            if kind != "RequestMirror" && seen.contains(&kind) {
                return Err(Refusal::new(field, format!("only one {kind} can apply")));
            }
            filters.take(filter, route, &field)?;
            seen.push(kind);
        }
        Ok(filters)
    }

    fn take(&mut self, filter: wire::Filter, route: &Name, field: &str) -> Result<(), Refusal> {
        let missing = |name: &str| {
            let reason = format!("must be there for type {}", filter.r#type);
            Refusal::new(format!("{field}.{name}"), reason)
        };
        let at = |name: &str| format!("{field}.{name}");
        match filter.r#type.as_str() {
            "RequestHeaderModifier" => {
                let modifier =
                    filter.request_header_modifier.ok_or_else(|| missing("requestHeaderModifier"))?;
                self.headers.request = operations(modifier, &at("requestHeaderModifier"))?;
            }
            "ResponseHeaderModifier" => {
                let modifier =
                    filter.response_header_modifier.ok_or_else(|| missing("responseHeaderModifier"))?;
                self.headers.response = operations(modifier, &at("responseHeaderModifier"))?;
            }
            "RequestMirror" => {
                let mirror = filter.request_mirror.ok_or_else(|| missing("requestMirror"))?;
                self.mirrors.push(of_mirror(mirror, route, at("requestMirror"))?);
            }
            "RequestRedirect" => {
                let redirect = filter.request_redirect.ok_or_else(|| missing("requestRedirect"))?;
                self.redirect = Some(of_redirect(redirect, &at("requestRedirect"))?);
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.ok_or_else(|| missing("urlRewrite"))?;
                let field = at("urlRewrite");
                if let Some(hostname) = &rewrite.hostname {
                    names::subdomain(&format!("{field}.hostname"), hostname)?;
                }
                let path =
                    rewrite.path.map(|path| path_rewrite(path, &format!("{field}.path"))).transpose()?;
                self.rewrite = Some((path, rewrite.hostname));
            }
            _ => {
                let cors = filter.cors.ok_or_else(|| missing("cors"))?;
                self.cors = Some(of_cors(cors, &at("cors"))?);
            }
        }
        Ok(())
    }
}

/// The filters of one backend.
pub(super) fn of_backend(wire: Vec<wire::Filter>, field: &str) -> Result<HeaderChanges, Refusal> {
    // None of these names a backend, so the route's name does not matter.
    Filters::of(wire, BACKEND, &Name::new("", ""), field).map(|filters| filters.headers)
}

fn operations(modifier: wire::HeaderModifier, field: &str) -> Result<HeaderOperations, Refusal> {
    let headers = |headers: Vec<wire::Header>, list: &str| {
        let header = |(index, header): (usize, wire::Header)| {
            let field = format!("{field}.{list}[{index}]");
            let name = changeable(&header.name, &format!("{field}.name"))?;
            if header.value.chars().any(|c| c.is_control() && c != '\t') {
                let reason = "must not contain control characters";
                return Err(Refusal::new(format!("{field}.value"), reason));
            }
            // Envoy would read it as a format.
            Ok((name, header.value.replace('%', "%%")))
        };
        headers.into_iter().enumerate().map(header).collect::<Result<Vec<_>, _>>()
    };
    let remove = modifier.remove.iter().enumerate();
    let remove = remove.map(|(index, name)| changeable(name, &format!("{field}.remove[{index}]")));
    Ok(HeaderOperations {
        set: headers(modifier.set, "set")?,
        add: headers(modifier.add, "add")?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}

/// The name of a header that a rule may change.
fn changeable(name: &str, field: &str) -> Result<String, Refusal> {
    let name = header_name(name, field)?;
    if name == "host" {
        return Err(Refusal::new(field, "header host cannot be changed so; use URLRewrite with hostname"));
    }
    Ok(name)
}

fn of_mirror(mirror: wire::RequestMirror, route: &Name, field: String) -> Result<Mirror, Refusal> {
    let share = match (mirror.percent, mirror.fraction) {
        (None, None) => ALL_PPM,
        (Some(percent), None) => number(percent, 0, 100, format!("{field}.percent"))? * (ALL_PPM / 100),
        (None, Some(wire::Fraction { numerator, denominator })) => {
            let denominator = denominator.unwrap_or(100);
            if !(1..=i64::from(i32::MAX)).contains(&denominator) || !(0..=denominator).contains(&numerator) {
                let reason = format!("{numerator}/{denominator} is not a share of 1");
                return Err(Refusal::new(format!("{field}.fraction"), reason));
            }
            (numerator * i64::from(ALL_PPM) / denominator) as u32
        }
        (Some(_), Some(_)) => {
            return Err(Refusal::new(field, "only one of percent and fraction can apply"));
        }
    };
    let backend_field = format!("{field}.backendRef");
    if !mirror.backend_ref.filters.is_empty() || mirror.backend_ref.weight.is_some() {
        return Err(Refusal::new(backend_field, "a mirror has neither filters nor a weight"));
    }
    let destination = destination(mirror.backend_ref, route, &backend_field)?;
    Ok(Mirror { destination, share, field: backend_field })
}

fn of_redirect(wire: wire::RequestRedirect, field: &str) -> Result<Redirect, Refusal> {
    if let Some(scheme) = &wire.scheme
        && !matches!(scheme.as_str(), "http" | "https")
    {
        return Err(Refusal::new(format!("{field}.scheme"), format!("{scheme:?} is not http or https")));
    }
    if let Some(hostname) = &wire.hostname {
        names::subdomain(&format!("{field}.hostname"), hostname)?;
    }
    let status = match wire.status_code {
        None => 302,
        Some(code @ (301 | 302 | 303 | 307 | 308)) => code as u16,
        Some(code) => {
            let reason = format!("{code} is not one of 301, 302, 303, 307, 308");
            return Err(Refusal::new(format!("{field}.statusCode"), reason));
        }
    };
    let port = wire.port.map(|number| port(number, format!("{field}.port"))).transpose()?;
    let path = wire.path.map(|path| path_rewrite(path, &format!("{field}.path"))).transpose()?;
    // Without a port that of a new scheme is meant, else the one called. The scheme's own port is not written where there is a new host;
    // with the old one it takes the place of the port called.
    let of_scheme = if wire.scheme.as_deref() == Some("https") { 443 } else { 80 };
    let port = match (port, &wire.scheme, &wire.hostname) {
        (Some(number), _, Some(_)) if number == of_scheme => None,
        (Some(number), ..) => Some(RedirectPort::Number(number)),
        (None, Some(_), Some(_)) => None,
        (None, Some(_), None) => Some(RedirectPort::Number(of_scheme)),
        (None, None, Some(_)) => Some(RedirectPort::OfRequest),
        (None, None, None) => None,
    };
    Ok(Redirect { scheme: wire.scheme, hostname: wire.hostname, port, path, status })
}

fn path_rewrite(path: wire::PathModifier, field: &str) -> Result<PathRewrite, Refusal> {
    for (name, value) in
        [("replaceFullPath", &path.replace_full_path), ("replacePrefixMatch", &path.replace_prefix_match)]
    {
        // It ends up in a header.
        if value.as_ref().is_some_and(|value| value.chars().any(char::is_control)) {
            return Err(Refusal::new(format!("{field}.{name}"), "must not contain control characters"));
        }
    }
    let missing = |name: &str| {
        Refusal::new(format!("{field}.{name}"), format!("must be there for type {}", path.r#type))
    };
    match (path.r#type.as_str(), &path.replace_full_path, &path.replace_prefix_match) {
        ("ReplaceFullPath", Some(full), None) => Ok(PathRewrite::Full(full.clone())),
        ("ReplaceFullPath", None, _) => Err(missing("replaceFullPath")),
        ("ReplacePrefixMatch", None, Some(prefix)) => Ok(PathRewrite::Prefix(prefix.clone())),
        ("ReplacePrefixMatch", _, None) => Err(missing("replacePrefixMatch")),
        ("ReplaceFullPath" | "ReplacePrefixMatch", ..) => {
            Err(Refusal::new(field, "only one of replaceFullPath and replacePrefixMatch can apply"))
        }
        (other, ..) => Err(unknown_type(field, other, "ReplaceFullPath, ReplacePrefixMatch")),
    }
}

/// GEP-1767. In an origin `*` stands for any number of characters.
fn of_cors(cors: wire::Cors, field: &str) -> Result<Cors, Refusal> {
    let max_age = cors.max_age.unwrap_or(CORS_MAX_AGE_S);
    let max_age = u64::try_from(max_age)
        .ok()
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| Refusal::new(format!("{field}.maxAge"), format!("{max_age} is not 1 or more")))?;
    for (name, values) in [
        ("allowOrigins", &cors.allow_origins),
        ("allowMethods", &cors.allow_methods),
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        if let Some(index) = values.iter().position(|value| value.chars().any(|c| c.is_control() || c == ','))
        {
            let reason = "must not contain control characters or commas";
            return Err(Refusal::new(format!("{field}.{name}[{index}]"), reason));
        }
    }
    let origin = |origin: &String| match origin.as_str() {
        origin if origin == "*" || !origin.contains('*') => StringMatch::Exact(origin.to_owned()),
        origin => {
            let parts: Vec<String> = origin.split('*').map(regex::escape).collect();
            StringMatch::Regex(parts.join(".*"))
        }
    };
    Ok(Cors {
        origins: cors.allow_origins.iter().map(origin).collect(),
        methods: cors.allow_methods,
        headers: cors.allow_headers,
        expose: cors.expose_headers,
        max_age: Some(Duration::from_secs(max_age)),
        credentials: cors.allow_credentials,
        forward_unmatched: false,
    })
}
