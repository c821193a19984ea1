//! What a rule does to requests on their way: retries, faults, CORS, headers.

use std::collections::BTreeMap;

use super::matches::string_match;
use super::{format, wire};
use crate::api::Refusal;
use crate::api::values::{go_duration, header_name, number, positive};
use crate::model::{
    ALL_PPM, Abort, AbortStatus, Cors, Delay, Fault, HeaderChanges, HeaderOperations, Ppm, Retry, StringMatch,
};

/// Conditions that Envoy knows for HTTP and for gRPC.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// What Istio tries again where a rule does not say it (pilot/pkg/networking/core/route/retry).
const DEFAULT_RETRY_ON: [&str; 5] =
    ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"];

/// Names of gRPC's status codes, in the order of their numbers.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `retries`. No attempts switch them off.
pub(super) fn retry(wire: wire::Retries, field: &str) -> Result<Option<Retry>, Refusal> {
    let attempts = number(wire.attempts, 0, 100, format!("{field}.attempts"))?;
    let (mut on, mut status_codes) = (Vec::new(), Vec::new());
    for part in wire.retry_on.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code @ 100..=599) => status_codes.push(code),
            _ if RETRY_ON.contains(&part) => on.push(part.to_owned()),
            _ => {
                let reason = format!("{part:?} is neither a condition that Envoy knows nor a status");
                return Err(Refusal::new(format!("{field}.retryOn"), reason));
            }
        }
    }
    if on.is_empty() && status_codes.is_empty() {
        on = DEFAULT_RETRY_ON.map(str::to_owned).into();
        status_codes = vec![503];
    }
    if !status_codes.is_empty() && !on.iter().any(|on| on == "retriable-status-codes") {
        on.push("retriable-status-codes".to_owned());
    }
    let retry = Retry {
        attempts,
        on,
        status_codes,
        per_try_timeout: go_duration(wire.per_try_timeout, format!("{field}.perTryTimeout"))?,
        backoff: positive(wire.backoff, format!("{field}.backoff"))?,
        elsewhere: wire.retry_ignore_previous_hosts.unwrap_or(true),
        other_localities: wire.retry_remote_localities.unwrap_or(false),
    };
    Ok((attempts > 0).then_some(retry))
}

pub(super) fn share(percent: &wire::Percent, field: &str) -> Result<Ppm, Refusal> {
    if (0.0..=100.0).contains(&percent.value) {
        Ok((percent.value * f64::from(ALL_PPM / 100)).round() as Ppm)
    } else {
        let reason = format!("{} is not between 0 and 100", percent.value);
        Err(Refusal::new(format!("{field}.value"), reason))
    }
}

/// `fault`. Where no share is said it is nobody's (Istio).
pub(super) fn fault(wire: wire::Fault, field: &str) -> Result<Fault, Refusal> {
    let delay = match wire.delay {
        None => None,
        Some(wire::Delay { fixed_delay, percentage, percent }) => {
            let field = format!("{field}.delay");
            let time = positive(Some(fixed_delay), format!("{field}.fixedDelay"))?.unwrap_or_default();
            let share = match (percentage, percent) {
                (Some(percentage), _) => share(&percentage, &format!("{field}.percentage"))?,
                (None, Some(percent)) => {
                    number(percent, 0, 100, format!("{field}.percent"))? * (ALL_PPM / 100)
                }
                (None, None) => 0,
            };
            Some(Delay { time, share })
        }
    };
    let abort = match wire.abort {
        None => None,
        Some(wire::Abort { http_status, grpc_status, percentage }) => {
            let field = format!("{field}.abort");
            let status = match (http_status, grpc_status) {
                (Some(status), None) => {
                    AbortStatus::Http(number(status, 200, 599, format!("{field}.httpStatus"))? as u16)
                }
                (None, Some(name)) => match GRPC_STATUS.iter().position(|known| *known == name) {
                    Some(number) => AbortStatus::Grpc(number as u16),
                    None => {
                        let reason = format!("{name:?} is no status of gRPC");
                        return Err(Refusal::new(format!("{field}.grpcStatus"), reason));
                    }
                },
                _ => return Err(Refusal::new(field, "must have one of httpStatus and grpcStatus")),
            };
            let share = percentage.map(|percent| share(&percent, &format!("{field}.percentage")));
            Some(Abort { status, share: share.transpose()?.unwrap_or_default() })
        }
    };
    if delay.is_none() && abort.is_none() {
        return Err(Refusal::new(field, "must have delay or abort"));
    }
    Ok(Fault { delay, abort })
}

/// `corsPolicy`
pub(super) fn cors(wire: wire::Cors, field: &str) -> Result<Cors, Refusal> {
    let mut origins: Vec<StringMatch> = wire.allow_origin.into_iter().map(StringMatch::Exact).collect();
    if !wire.allow_origins.is_empty() {
        origins.clear();
    }
    for (index, origin) in wire.allow_origins.into_iter().enumerate() {
        origins.push(match string_match(origin, &format!("{field}.allowOrigins[{index}]"))? {
            StringMatch::Present => StringMatch::Regex(".*".to_owned()),
            origin => origin,
        });
    }
    let forward_unmatched = match wire.unmatched_preflights.as_deref() {
        None | Some("UNSPECIFIED" | "FORWARD") => true,
        Some("IGNORE") => false,
        Some(other) => {
            let reason = format!("{other:?} is neither FORWARD nor IGNORE");
            return Err(Refusal::new(format!("{field}.unmatchedPreflights"), reason));
        }
    };
    Ok(Cors {
        origins,
        methods: wire.allow_methods,
        headers: wire.allow_headers,
        expose: wire.expose_headers,
        max_age: go_duration(wire.max_age, format!("{field}.maxAge"))?,
        credentials: wire.allow_credentials,
        forward_unmatched,
    })
}

/// `headers`, and the host that it makes of `host` or `:authority` (Istio).
pub(super) fn headers(wire: wire::Headers, field: &str) -> Result<(HeaderChanges, Option<String>), Refusal> {
    let mut host = None;
    let request = operations(wire.request, &format!("{field}.request"), Some(&mut host))?;
    let response = operations(wire.response, &format!("{field}.response"), None)?;
    Ok((HeaderChanges { request, response }, host))
}

fn operations(
    wire: wire::HeaderOperations,
    field: &str,
    mut host: Option<&mut Option<String>>,
) -> Result<HeaderOperations, Refusal> {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let mut values = |list: BTreeMap<String, String>, named: &str| {
        let mut headers = Vec::new();
        for (name, value) in list {
            let field = format!("{field}.{named}.{name}");
            format::check(&value, &field)?;
            match &mut host {
                Some(host) if is_host(&name) => {
                    host.get_or_insert(value);
                }
                _ => headers.push((header_name(&name, &field)?, value)),
            }
        }
        Ok(headers)
    };
    let (set, add) = (values(wire.set, "set")?, values(wire.add, "add")?);
    let remove = wire.remove.iter().enumerate();
    let remove = remove.map(|(index, name)| {
        let field = format!("{field}.remove[{index}]");
        if is_host(name) {
            Err(Refusal::new(field, "the host cannot be removed"))
        } else {
            header_name(name, &field)
        }
    });
    Ok(HeaderOperations { set, add, remove: remove.collect::<Result<_, _>>()? })
}
