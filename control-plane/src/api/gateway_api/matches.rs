//! Conditions of HTTPRoutes and GRPCRoutes.

use super::wire;
use crate::api::Refusal;
use crate::api::values::{expression, header_name};
use crate::model::{HeaderMatch, PathMatch, QueryMatch, RequestMatch, StringMatch};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The conditions of a rule, each read by `read` with the path of its field. A rule without any is for everything.
pub(super) fn of_rule<M>(
    written: Vec<M>,
    rule: &str,
    read: impl Fn(M, String) -> Result<RequestMatch, Refusal>,
) -> Result<Vec<RequestMatch>, Refusal> {
    if written.is_empty() {
        return Ok(vec![RequestMatch::everything()]);
    }
    let all = written.into_iter().enumerate();
    all.map(|(index, written)| read(written, format!("{rule}.matches[{index}]"))).collect()
}

/// Conditions of one HTTP match.
pub(super) fn http(wire: wire::HttpMatch, field: String) -> Result<RequestMatch, Refusal> {
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
    let headers = headers(wire.headers, &field)?;
    let mut query: Vec<QueryMatch> = Vec::new();
    for (index, parameter) in wire.query_params.into_iter().enumerate() {
        let field = format!("{field}.queryParams[{index}]");
        if parameter.name.is_empty() {
            return Err(Refusal::new(format!("{field}.name"), "must not be empty"));
        }
        if query.iter().any(|other| other.name == parameter.name) {
            let reason = format!("parameter {} is there twice", parameter.name);
            return Err(Refusal::new(format!("{field}.name"), reason));
        }
        let value = string_match(parameter.r#type.as_deref(), parameter.value, &field)?;
        query.push(QueryMatch { name: parameter.name, value });
    }
    let method = wire.method.map(StringMatch::Exact);
    Ok(RequestMatch { path, method, headers, query, field, ..RequestMatch::everything() })
}

/// Conditions of one gRPC match.
pub(super) fn grpc(wire: wire::GrpcMatch, field: String) -> Result<RequestMatch, Refusal> {
    let path = match wire.method {
        None => PathMatch::Prefix("/".into()),
        Some(method) => {
            let field = format!("{field}.method");
            let part = |part: Option<String>, name: &str| {
                let field = format!("{field}.{name}");
                match (part.filter(|part| !part.is_empty()), method.r#type.as_deref().unwrap_or("Exact")) {
                    (None, _) => Ok(None),
                    (Some(part), "Exact") if part.contains('/') || part.chars().any(char::is_control) => {
                        Err(Refusal::new(field, format!("{part:?} is no name of gRPC")))
                    }
                    (Some(part), "Exact") => Ok(Some(StringMatch::Exact(part))),
                    (Some(part), "RegularExpression") => {
                        Ok(Some(StringMatch::Regex(expression(part, &field)?)))
                    }
                    (Some(_), other) => {
                        let at = field.rsplit_once('.').map_or(field.as_str(), |(at, _)| at);
                        Err(unknown_type(at, other, "Exact, RegularExpression"))
                    }
                }
            };
            let (service, method) = (part(method.service, "service")?, part(method.method, "method")?);
            if service.is_none() && method.is_none() {
                return Err(Refusal::new(field, "must name a service or a method"));
            }
            PathMatch::Grpc { service, method }
        }
    };
    let headers = headers(wire.headers, &field)?;
    Ok(RequestMatch { path, headers, field, ..RequestMatch::everything() })
}

fn headers(wire: Vec<wire::NamedMatch>, field: &str) -> Result<Vec<HeaderMatch>, Refusal> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (index, header) in wire.into_iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        let name = header_name(&header.name, &format!("{field}.name"))?;
        if headers.iter().any(|other| other.name == name) {
            return Err(Refusal::new(format!("{field}.name"), format!("header {name} is there twice")));
        }
        // An HTTP/2 request has no other name for it.
        let name = if name == "host" { ":authority".to_owned() } else { name };
        let value = string_match(header.r#type.as_deref(), header.value, &field)?;
        headers.push(HeaderMatch { name, value, is_inverted: false });
    }
    Ok(headers)
}

fn string_match(kind: Option<&str>, value: String, field: &str) -> Result<StringMatch, Refusal> {
    match kind.unwrap_or("Exact") {
        "Exact" => Ok(StringMatch::Exact(value)),
        "RegularExpression" => Ok(StringMatch::Regex(expression(value, &format!("{field}.value"))?)),
        other => Err(unknown_type(field, other, "Exact, RegularExpression")),
    }
}

fn path_match(path: wire::PathMatch, field: &str) -> Result<PathMatch, Refusal> {
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

pub(super) fn unknown_type(field: &str, found: &str, supported: &str) -> Refusal {
    Refusal::new(format!("{field}.type"), format!("{found:?} is not supported; supported: {supported}"))
}
