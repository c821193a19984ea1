//! HTTPRoute -> [`HttpRoute`].
//!
//! Only Services can be parents. Host names are refused: a mesh route applies to its Service whatever name the client
//! used (GAMMA).

use std::time::Duration;

use super::filters::Filters;
use super::{matches, references, wire};
use crate::api::{Refusal, duration, name_of, names};
use crate::model::{
    Forward, HttpRoute, Name, PathMatch, RequestMatch, Retry, RouteAction, RouteKey, RouteKind, RouteRule,
};
use crate::source::Object;

/// Decodes an HTTPRoute.
pub(in crate::api) fn http_route(object: &Object) -> Result<HttpRoute, Refusal> {
    let name = name_of(object);
    let references::Written { parents, others, rules: written, created } =
        references::read_route(object, &name)?;
    let mut rules = Vec::new();
    for (index, wire_rule) in written.into_iter().enumerate() {
        rules.push(rule(wire_rule, &name, format!("spec.rules[{index}]"))?);
    }
    let key = RouteKey { kind: RouteKind::Http, name };
    Ok(HttpRoute { key, parents, others, rules, created, origin: object.origin.clone() })
}

fn rule(rule: wire::HttpRule, route: &Name, field: String) -> Result<RouteRule, Refusal> {
    // It becomes a part of the route's name, which is logged.
    if !rule.name.is_empty() {
        names::subdomain(&format!("{field}.name"), &rule.name)?;
    }
    let mut matches = Vec::new();
    for (index, wire_match) in rule.matches.into_iter().enumerate() {
        matches.push(matches::http(wire_match, format!("{field}.matches[{index}]"))?);
    }
    if matches.is_empty() {
        matches.push(RequestMatch::everything());
    }
    let filters = Filters::of_rule(rule.filters, route, &field)?;
    if filters.changes_prefix() && matches.iter().any(|request| !matches!(request.path, PathMatch::Prefix(_)))
    {
        let reason = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
        return Err(Refusal::new(format!("{field}.filters"), reason));
    }
    let Filters { headers, cors, redirect, rewrite, mirrors } = filters;
    let action = match redirect {
        Some(_) if !rule.backend_refs.is_empty() => {
            let reason = "a rule with a RequestRedirect filter forwards nothing, so it cannot have backends";
            return Err(Refusal::new(format!("{field}.backendRefs"), reason));
        }
        Some(redirect) => RouteAction::Redirect(redirect),
        None => {
            let retry = rule.retry.map(|retry| of_retry(retry, &field)).transpose()?;
            let (timeout, retry) = timeouts(rule.timeouts, retry, &field)?;
            let (path, host) = rewrite.unwrap_or_default();
            let backends = references::backends(rule.backend_refs, route, &field)?;
            RouteAction::Forward(Box::new(Forward { backends, timeout, retry, mirrors, path, host }))
        }
    };
    Ok(RouteRule { name: rule.name, matches, action, headers, fault: None, cors, field })
}

/// Limits of the request and of one attempt. Where nothing is tried again, the smaller one is that of the request.
fn timeouts(
    timeouts: wire::Timeouts,
    retry: Option<Retry>,
    field: &str,
) -> Result<(Option<Duration>, Option<Retry>), Refusal> {
    let read = |text: Option<String>, name: &str| {
        let refuse = |reason| Refusal::new(format!("{field}.timeouts.{name}"), reason);
        text.map(|text| duration::parse_gateway_api(&text).map_err(refuse)).transpose()
    };
    // Zero is no limit.
    let is_set = |limit: &Duration| !limit.is_zero();
    let request = read(timeouts.request, "request")?;
    let attempt = read(timeouts.backend_request, "backendRequest")?.filter(is_set);
    match (request.filter(is_set), attempt, retry) {
        (Some(request), Some(attempt), _) if attempt > request => {
            let reason = "must not be longer than timeouts.request";
            Err(Refusal::new(format!("{field}.timeouts.backendRequest"), reason))
        }
        (_, Some(attempt), None) => Ok((Some(attempt), None)),
        (_, per_try_timeout, Some(retry)) => Ok((request, Some(Retry { per_try_timeout, ..retry }))),
        (_, None, None) => Ok((request, None)),
    }
}

/// GEP-1731. Whatever the codes, a connection that fails is tried again.
fn of_retry(retry: wire::Retry, field: &str) -> Result<Retry, Refusal> {
    let field = format!("{field}.retry");
    let mut status_codes = Vec::new();
    for (index, code) in retry.codes.into_iter().enumerate() {
        match u32::try_from(code) {
            Ok(code @ 400..=599) => status_codes.push(code),
            _ => {
                let reason = format!("{code} is not a status from 400 to 599");
                return Err(Refusal::new(format!("{field}.codes[{index}]"), reason));
            }
        }
    }
    let mut on = vec!["connect-failure".to_owned(), "refused-stream".to_owned(), "reset".to_owned()];
    if !status_codes.is_empty() {
        on.push("retriable-status-codes".to_owned());
    }
    let attempts = match retry.attempts {
        None => 1,
        Some(attempts) => match u32::try_from(attempts) {
            Ok(attempts @ 1..=100) => attempts,
            _ => {
                let reason = format!("{attempts} is not between 1 and 100");
                return Err(Refusal::new(format!("{field}.attempts"), reason));
            }
        },
    };
    let backoff = match retry.backoff {
        None => None,
        Some(text) => match duration::parse_gateway_api(&text) {
            Ok(backoff) if backoff.is_zero() => {
                return Err(Refusal::new(format!("{field}.backoff"), "must be more than 0"));
            }
            Ok(backoff) => Some(backoff),
            Err(reason) => return Err(Refusal::new(format!("{field}.backoff"), reason)),
        },
    };
    Ok(Retry {
        attempts,
        on,
        status_codes,
        per_try_timeout: None,
        backoff,
        elsewhere: true,
        other_localities: false,
    })
}
