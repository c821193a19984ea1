//! HTTPRoute -> [`HttpRoute`].
//!
//! Only Services can be parents. Host names are refused: a mesh route applies to its Service whatever name the client
//! used (GAMMA).

use std::time::Duration;

use super::filters::Filters;
use super::{matches, references, wire};
use crate::api::values::number;
use crate::api::{Refusal, duration};
use crate::model::{Forward, HttpRoute, Name, PathMatch, Retry, RouteAction, RouteKind, RouteRule};
use crate::source::Object;

/// Decodes an HTTPRoute.
pub(in crate::api) fn http_route(object: &Object) -> Result<HttpRoute, Refusal> {
    references::read_route(object, RouteKind::Http, rule)
}

fn rule(rule: wire::HttpRule, route: &Name, field: String) -> Result<RouteRule, Refusal> {
    references::check_rule_name(&rule.name, &field)?;
    let matches = matches::of_rule(rule.matches, &field, matches::http)?;
    let filters = Filters::of_rule(rule.filters, route, &field)?;
    if filters.changes_prefix() && matches.iter().any(|request| !matches!(request.path, PathMatch::Prefix(_)))
    {
        let reason = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
        return Err(Refusal::new(format!("{field}.filters"), reason));
    }
    let Filters { headers, cors, redirect, rewrite, mirrors } = filters;
    let action = match redirect {
        Some(redirect) => {
            let timeouts = rule.timeouts.request.or(rule.timeouts.backend_request);
            let unheard = [
                ("backendRefs", "backends", !rule.backend_refs.is_empty()),
                ("timeouts", "timeouts", timeouts.is_some()),
                ("retry", "retries", rule.retry.is_some()),
                ("filters", "mirrors", !mirrors.is_empty()),
            ];
            if let Some((name, what, _)) = unheard.into_iter().find(|(.., is_there)| *is_there) {
                let reason = format!(
                    "a rule with a RequestRedirect filter forwards nothing, so it cannot have {what}"
                );
                return Err(Refusal::new(format!("{field}.{name}"), reason));
            }
            RouteAction::Redirect(redirect)
        }
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
        Some(attempts) => number(attempts, 1, 100, format!("{field}.attempts"))?,
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
