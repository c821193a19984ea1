//! How long a request may take: the route's word, and what a gRPC client says of its own patience.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};

use crate::http::active_stream::{ActiveStream, Deadlines};
use crate::http::body::RequestBody;
use crate::http::headers::EXPECTED_TIMEOUT;
use crate::route::{GrpcTimeout, RouteAction};

/// The deadlines of a request that takes this route.
pub(crate) fn deadlines(stream: &ActiveStream, action: &RouteAction, headers: &HeaderMap) -> Deadlines {
    let limits = &stream.hcm.limits;
    let on = |timeout: Option<Duration>| timeout.filter(|t| !t.is_zero());
    let mut max_duration = match action.max_stream_duration {
        Some(own) => on(Some(own)),
        None => limits.max_stream_duration,
    };
    if let Some(allowed) = &action.grpc_stream_timeout
        && let Some(asked) = grpc_timeout(headers)
    {
        max_duration = on(Some(allowed.of(asked)));
    }
    Deadlines {
        request: limits.request_timeout,
        response: response_timeout(stream, action, headers),
        idle: action.idle_timeout.map_or(limits.stream_idle_timeout, |t| on(Some(t))),
        max_duration,
    }
}

/// The route's timeout, or with `max_grpc_timeout` the client's.
fn response_timeout(stream: &ActiveStream, action: &RouteAction, headers: &HeaderMap) -> Option<Duration> {
    let Some(allowed) = action.grpc_timeout.as_ref().filter(|_| stream.grpc) else { return action.timeout };
    let asked = grpc_timeout(headers).map_or(Duration::ZERO, |asked| allowed.less_offset(asked));
    let timeout = match (asked.is_zero(), allowed.max.is_zero()) {
        (true, _) => allowed.max,
        (false, true) => asked,
        (false, false) => asked.min(allowed.max),
    };
    Some(timeout).filter(|t| !t.is_zero())
}

/// Tells the upstream how long we wait.
pub(super) fn tell_upstream(stream: &ActiveStream, action: &RouteAction, request: &mut Request<RequestBody>) {
    let dynamic = match action.grpc_timeout.is_some() && stream.grpc {
        false => None,
        true => Some(response_timeout(stream, action, request.headers())),
    };
    let expected = match dynamic {
        None => action.expected_timeout.clone(),
        Some(timeout) => RouteAction::expected_timeout(timeout),
    };
    let headers = request.headers_mut();
    if let Some(Some(timeout)) = dynamic
        && let Ok(value) = HeaderValue::try_from(format!("{}m", timeout.as_millis()))
    {
        headers.insert("grpc-timeout", value);
    }
    if let Some(expected) = expected
        && !stream.hcm.suppress_envoy_headers
    {
        headers.insert(EXPECTED_TIMEOUT, expected);
    }
}

impl GrpcTimeout {
    /// What remains of the client's timeout, at most the maximum.
    fn of(&self, asked: Duration) -> Duration {
        let capped = if self.max.is_zero() { asked } else { asked.min(self.max) };
        self.less_offset(capped)
    }

    fn less_offset(&self, asked: Duration) -> Duration {
        if self.offset < asked { asked - self.offset } else { asked }
    }
}

/// `grpc-timeout`: up to eight digits and a unit, in whole milliseconds.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(match unit {
        "H" => n * 3_600_000,
        "M" => n * 60_000,
        "S" => n * 1_000,
        "m" => n,
        "u" => n.div_ceil(1_000),
        "n" => n.div_ceil(1_000_000),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn grpc_timeouts() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("4m", Some(4)),
            ("1u", Some(1)),
            ("1500u", Some(2)),
            ("2000000n", Some(2)),
            ("123456789m", None),
            ("m", None),
            ("5", None),
            ("-1S", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            assert_eq!(grpc_timeout(&headers), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn offsets_and_caps() {
        let ms = Duration::from_millis;
        let allowed = |max, offset| GrpcTimeout { max: ms(max), offset: ms(offset) };
        for (allowed, asked, expected) in
            [(allowed(0, 0), 50, 50), (allowed(30, 10), 50, 20), (allowed(0, 60), 50, 50)]
        {
            assert_eq!(allowed.of(ms(asked)), ms(expected));
        }
    }
}
