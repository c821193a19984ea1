//! HTTPRoute -> [`HttpRoute`].
//!
//! Only Services can be parents. Host names are refused: a mesh route applies to its Service whatever name the client
//! used (GAMMA). Backends are Services of the route's own namespace, as there is no ReferenceGrant here.

use crate::api::gateway_api::wire;
use crate::api::{Refusal, Strict, duration, name_of, names, read};
use crate::model::{
    Backend, HeaderMatch, HttpRoute, Name, Parent, PathMatch, PathRewrite, Redirect, RequestMatch,
    RouteAction, RouteRule, StringMatch,
};
use crate::source::Object;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Largest weight of a backend (Gateway API).
const MAX_WEIGHT: i64 = 1_000_000;

/// Decodes an HTTPRoute.
pub(in crate::api) fn http_route(object: &Object) -> Result<HttpRoute, Refusal> {
    let Strict { metadata, spec, .. }: Strict<wire::HttpRouteSpec> = read(object)?;
    let name = name_of(object);
    if !spec.hostnames.is_empty() {
        let reason = "host names are not supported for a route whose parent is a Service: \
                      it applies to every name of the Service";
        return Err(Refusal::new("spec.hostnames", reason));
    }
    if spec.parent_refs.is_empty() {
        return Err(Refusal::new("spec.parentRefs", "must name a Service"));
    }
    if spec.rules.is_empty() {
        return Err(Refusal::new("spec.rules", "must hold a rule"));
    }
    let mut parents = Vec::new();
    for (index, parent_ref) in spec.parent_refs.into_iter().enumerate() {
        parents.push(parent(parent_ref, &name, format!("spec.parentRefs[{index}]"))?);
    }
    let mut rules = Vec::new();
    for (index, wire_rule) in spec.rules.into_iter().enumerate() {
        rules.push(rule(wire_rule, &name, format!("spec.rules[{index}]"))?);
    }
    let created = metadata.creation_timestamp.unwrap_or_default();
    Ok(HttpRoute { name, parents, rules, created, origin: object.origin.clone() })
}

fn parent(parent: wire::ParentRef, route: &Name, field: String) -> Result<Parent, Refusal> {
    if parent.kind.as_deref() != Some("Service") {
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        return Err(Refusal::new(
            format!("{field}.kind"),
            format!("kind {kind} is not supported; supported: Service"),
        ));
    }
    // The default group is the Gateway API's; that of Services is the empty one and must be written.
    if parent.group.as_deref() != Some("") {
        return Err(Refusal::new(format!("{field}.group"), "must be \"\" for a Service"));
    }
    if parent.section_name.is_some() {
        return Err(Refusal::new(format!("{field}.sectionName"), "is not supported; use port"));
    }
    let port = match parent.port {
        Some(number) => Some(port(number, format!("{field}.port"))?),
        None => None,
    };
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    Ok(Parent { service: Name::new(namespace, parent.name), port, field })
}

fn rule(rule: wire::Rule, route: &Name, field: String) -> Result<RouteRule, Refusal> {
    // It becomes a part of the route's name, which is logged.
    if !rule.name.is_empty() {
        names::subdomain(&format!("{field}.name"), &rule.name)?;
    }
    let mut matches = Vec::new();
    for (index, request_match) in rule.matches.into_iter().enumerate() {
        matches.push(request_match_of(request_match, &format!("{field}.matches[{index}]"))?);
    }
    if matches.is_empty() {
        matches.push(RequestMatch { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new() });
    }
    let timeout = match rule.timeouts.request {
        None => None,
        Some(text) => Some(
            duration::parse_gateway_api(&text)
                .map_err(|reason| Refusal::new(format!("{field}.timeouts.request"), reason))?,
        ),
    };
    let mut redirect = None;
    for (index, filter) in rule.filters.into_iter().enumerate() {
        let field = format!("{field}.filters[{index}]");
        if filter.r#type != "RequestRedirect" {
            let reason = format!("filter {} is not supported; supported: RequestRedirect", filter.r#type);
            return Err(Refusal::new(format!("{field}.type"), reason));
        }
        if redirect.is_some() {
            return Err(Refusal::new(field, "only one redirect can apply"));
        }
        let field = format!("{field}.requestRedirect");
        let Some(wire_redirect) = filter.request_redirect else {
            return Err(Refusal::new(field, "must be there for type RequestRedirect"));
        };
        redirect = Some(redirect_of(wire_redirect, &matches, &field)?);
    }
    let action = match redirect {
        Some(_) if !rule.backend_refs.is_empty() => {
            let reason = "a rule with a RequestRedirect filter forwards nothing, so it cannot have backends";
            return Err(Refusal::new(format!("{field}.backendRefs"), reason));
        }
        Some(redirect) => RouteAction::Redirect(redirect),
        None => {
            let mut backends = Vec::new();
            for (index, backend_ref) in rule.backend_refs.into_iter().enumerate() {
                backends.push(backend(backend_ref, route, format!("{field}.backendRefs[{index}]"))?);
            }
            RouteAction::Forward { backends, timeout }
        }
    };
    Ok(RouteRule { name: rule.name, matches, action, field })
}

fn request_match_of(wire: wire::Match, field: &str) -> Result<RequestMatch, Refusal> {
    if let Some(method) = &wire.method
        && !METHODS.contains(&method.as_str())
    {
        let reason = format!("{method:?} is not one of {}", METHODS.join(", "));
        return Err(Refusal::new(format!("{field}.method"), reason));
    }
    let path = match wire.path {
        Some(path) => path_match(path, &format!("{field}.path"))?,
        None => PathMatch::Prefix("/".into()),
    };
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (index, header) in wire.headers.into_iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        let name = http::HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
            Refusal::new(format!("{field}.name"), format!("{:?} is no header name", header.name))
        })?;
        if headers.iter().any(|other| other.name == name.as_str()) {
            return Err(Refusal::new(format!("{field}.name"), format!("header {name} is there twice")));
        }
        let value = match header.r#type.as_deref().unwrap_or("Exact") {
            "Exact" => StringMatch::Exact(header.value),
            "RegularExpression" => StringMatch::Regex(expression(header.value, &format!("{field}.value"))?),
            other => return Err(unknown_type(&field, other, "Exact, RegularExpression")),
        };
        headers.push(HeaderMatch { name: name.as_str().to_owned(), value });
    }
    Ok(RequestMatch { path, method: wire.method, headers })
}

fn path_match(path: wire::ValueMatch, field: &str) -> Result<PathMatch, Refusal> {
    let value_field = format!("{field}.value");
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let kind = path.r#type.as_deref().unwrap_or("PathPrefix");
    if kind == "RegularExpression" {
        return Ok(PathMatch::Regex(expression(value, &value_field)?));
    }
    if !value.starts_with('/') {
        return Err(Refusal::new(value_field, format!("{value:?} must begin with /")));
    }
    let bad = ["//", "/./", "/../", "%2f", "%2F", "#", "?"].into_iter().find(|bad| value.contains(bad));
    if let Some(bad) = bad {
        return Err(Refusal::new(value_field, format!("{value:?} must not contain {bad}")));
    }
    match kind {
        "Exact" => Ok(PathMatch::Exact(value)),
        "PathPrefix" => {
            let trimmed = value.trim_end_matches('/');
            Ok(PathMatch::Prefix(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }))
        }
        other => Err(unknown_type(field, other, "Exact, PathPrefix, RegularExpression")),
    }
}

fn redirect_of(
    wire: wire::RequestRedirect,
    matches: &[RequestMatch],
    field: &str,
) -> Result<Redirect, Refusal> {
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
    let port = match wire.port {
        Some(number) => Some(port(number, format!("{field}.port"))?),
        None => None,
    };
    let path = match wire.path {
        None => None,
        Some(path) => Some(path_rewrite(path, matches, &format!("{field}.path"))?),
    };
    Ok(Redirect { scheme: wire.scheme, hostname: wire.hostname, port, path, status })
}

fn path_rewrite(
    path: wire::PathModifier,
    matches: &[RequestMatch],
    field: &str,
) -> Result<PathRewrite, Refusal> {
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
        ("ReplacePrefixMatch", None, Some(prefix)) => {
            if matches.iter().any(|request| !matches!(request.path, PathMatch::Prefix(_))) {
                let reason = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
                return Err(Refusal::new(format!("{field}.type"), reason));
            }
            Ok(PathRewrite::Prefix(prefix.clone()))
        }
        ("ReplacePrefixMatch", _, None) => Err(missing("replacePrefixMatch")),
        ("ReplaceFullPath" | "ReplacePrefixMatch", ..) => {
            Err(Refusal::new(field, "only one of replaceFullPath and replacePrefixMatch can apply"))
        }
        (other, ..) => Err(unknown_type(field, other, "ReplaceFullPath, ReplacePrefixMatch")),
    }
}

fn backend(backend: wire::BackendRef, route: &Name, field: String) -> Result<Backend, Refusal> {
    if let Some(kind) = backend.kind.as_deref().filter(|kind| *kind != "Service") {
        let reason = format!("kind {kind} is not supported; supported: Service");
        return Err(Refusal::new(format!("{field}.kind"), reason));
    }
    if let Some(group) = backend.group.as_deref().filter(|group| !group.is_empty()) {
        return Err(Refusal::new(format!("{field}.group"), format!("group {group:?} is not supported")));
    }
    if let Some(namespace) = backend.namespace.as_deref().filter(|namespace| **namespace != route.namespace) {
        let reason =
            format!("a backend in namespace {namespace} needs a ReferenceGrant, which is not supported");
        return Err(Refusal::new(format!("{field}.namespace"), reason));
    }
    let Some(number) = backend.port else {
        return Err(Refusal::new(format!("{field}.port"), "must be there for a Service"));
    };
    let number = port(number, format!("{field}.port"))?;
    let weight = backend.weight.unwrap_or(1);
    if !(0..=MAX_WEIGHT).contains(&weight) {
        let reason = format!("{weight} is not between 0 and {MAX_WEIGHT}");
        return Err(Refusal::new(format!("{field}.weight"), reason));
    }
    let service = Name::new(&route.namespace, backend.name);
    Ok(Backend { service, port: number, weight: weight as u32, field })
}

fn port(number: i64, field: String) -> Result<u16, Refusal> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Refusal::new(field, format!("{number} is not a port (1 to 65535)"))),
    }
}

fn expression(value: String, field: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::new(field, "an expression must not be empty"));
    }
    match regex::Regex::new(&value) {
        Ok(_) => Ok(value),
        Err(error) => {
            // The first lines of the message draw a picture; the last one says what is wrong.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(Refusal::new(field, format!("{value:?} is not a valid expression: {reason}")))
        }
    }
}

fn unknown_type(field: &str, found: &str, supported: &str) -> Refusal {
    Refusal::new(format!("{field}.type"), format!("{found:?} is not supported; supported: {supported}"))
}
