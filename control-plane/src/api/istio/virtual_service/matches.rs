//! Conditions of `http[].match`.

use super::{Context, wire};
use crate::api::Refusal;
use crate::api::values::{expression, header_name, port};
use crate::model::{HeaderMatch, PathMatch, QueryMatch, RequestMatch, Source, StringMatch};

/// Headers that stand for claims of a JWT, at an ingress gateway.
const CLAIMS: &str = "@request.auth.claims";

impl Context<'_> {
    /// One match; `None` when it is for other gateways.
    pub(super) fn http_match(
        &mut self,
        wire: wire::HttpMatch,
        field: String,
    ) -> Result<Option<RequestMatch>, Refusal> {
        if !self.is_for_mesh(&wire.gateways, &format!("{field}.gateways")) {
            return Ok(None);
        }
        let path = match wire.uri {
            None => PathMatch::Prefix("/".to_owned()),
            Some(uri) => match string_match(uri, &format!("{field}.uri"))? {
                StringMatch::Exact(path) => PathMatch::Exact(path),
                StringMatch::Prefix(path) if path == "/" => PathMatch::Prefix(path),
                StringMatch::Prefix(path) => PathMatch::Characters(path),
                StringMatch::Regex(expression) => PathMatch::Regex(expression),
                StringMatch::Present => PathMatch::Prefix("/".to_owned()),
            },
        };
        let mut headers = Vec::new();
        let with = wire.headers.into_iter().map(|header| (header, false));
        let without = wire.without_headers.into_iter().map(|header| (header, true));
        for ((name, value), is_inverted) in with.chain(without) {
            let list = if is_inverted { "withoutHeaders" } else { "headers" };
            let field = format!("{field}.{list}.{name}");
            if name.starts_with(CLAIMS) {
                return Err(Refusal::new(field, "claims of a JWT are not supported"));
            }
            let name = match name.as_str() {
                ":authority" | ":method" | ":path" | ":scheme" => name,
                _ => header_name(&name, &field)?,
            };
            headers.push(HeaderMatch { name, value: string_match(value, &field)?, is_inverted });
        }
        for (name, value) in [("authority", wire.authority), ("scheme", wire.scheme)] {
            if let Some(value) = value {
                let value = string_match(value, &format!("{field}.{name}"))?;
                headers.push(HeaderMatch { name: format!(":{name}"), value, is_inverted: false });
            }
        }
        let method =
            wire.method.map(|method| string_match(method, &format!("{field}.method"))).transpose()?;
        let mut query = Vec::new();
        for (name, value) in wire.query_params {
            if name.is_empty() {
                return Err(Refusal::new(format!("{field}.queryParams"), "a name must not be empty"));
            }
            let value = string_match(value, &format!("{field}.queryParams.{name}"))?;
            query.push(QueryMatch { name, value });
        }
        Ok(Some(RequestMatch {
            name: wire.name,
            path,
            ignore_case: wire.ignore_uri_case,
            method,
            headers,
            query,
            source: source(wire.source_labels, wire.source_namespace),
            port: wire.port.map(|number| port(number, format!("{field}.port"))).transpose()?,
            stat_prefix: wire.stat_prefix,
            field,
        }))
    }
}

pub(super) fn source(labels: std::collections::BTreeMap<String, String>, namespace: String) -> Source {
    Source { labels, namespace: Some(namespace).filter(|namespace| !namespace.is_empty()) }
}

/// Nothing said, or the expression `*`, means that it is there (Istio).
pub(super) fn string_match(wire: wire::StringMatch, field: &str) -> Result<StringMatch, Refusal> {
    match (wire.exact, wire.prefix, wire.regex) {
        (None, None, None) => Ok(StringMatch::Present),
        (Some(exact), None, None) => Ok(StringMatch::Exact(exact)),
        (None, Some(prefix), None) if prefix.is_empty() => {
            Err(Refusal::new(format!("{field}.prefix"), "must not be empty"))
        }
        (None, Some(prefix), None) => Ok(StringMatch::Prefix(prefix)),
        (None, None, Some(regex)) if regex == "*" => Ok(StringMatch::Present),
        (None, None, Some(regex)) => Ok(StringMatch::Regex(expression(regex, &format!("{field}.regex"))?)),
        _ => Err(Refusal::new(field, "only one of exact, prefix and regex can apply")),
    }
}
