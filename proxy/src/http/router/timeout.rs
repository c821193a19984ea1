//! How long a request may take: the route's word, what a gRPC client says of its own patience, and what a caller that is heard asks for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::asked::take_number;
use crate::cluster::Cluster;
use crate::http::active_stream::ActiveStream;
use crate::http::body::RequestBody;
use crate::http::deadlines::Deadlines;
use crate::http::headers::EXPECTED_TIMEOUT;
use crate::route::{GrpcTimeout, RouteAction};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The timeouts of one request, where they are not simply its route's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// From the request's last byte to the response's last byte.
    all: Option<Duration>,
    /// Of one attempt, up to the response's head; shorter than `all`.
    pub(super) attempt: Option<Duration>,
    /// Of one attempt, up to the response's last byte.
    pub(super) upstream: Option<Duration>,
    /// One that has passed is answered with 204.
    pub(crate) answers_no_content: bool,
}

/// The deadlines of a request that takes this route. Takes what the request itself says of them.
pub(crate) fn deadlines(
    stream: &mut ActiveStream,
    action: &RouteAction,
    headers: &mut HeaderMap,
) -> Deadlines {
    stream.timeouts = Timeouts::of_request(stream, action, headers);
    let limits = &stream.hcm.limits;
    let allowed = action.grpc_stream_timeout.as_ref();
    // Nothing left of what the client asks for is a deadline that has passed.
    let asked = allowed.and_then(|allowed| Some(allowed.of(grpc_timeout(headers)?)));
    let max_duration = asked.or_else(|| match action.max_stream_duration {
        Some(own) => on(own),
        None => limits.max_stream_duration,
    });
    if stream.grpc && action.limits_stream {
        tell_of_stream(max_duration, limits.max_stream_duration.is_some(), headers);
    }
    Deadlines {
        request: limits.request_timeout,
        response: stream.timeouts.map_or(action.timeout, |own| own.all),
        idle: action.idle_timeout.map_or(limits.stream_idle_timeout, on),
        max_duration,
    }
}

/// A route that limits the whole stream tells a gRPC upstream of that. `overrides`: where it does not, it takes back the connection manager's
/// limit, and what the client has said goes with it.
fn tell_of_stream(max_duration: Option<Duration>, overrides: bool, headers: &mut HeaderMap) {
    match max_duration {
        Some(limit) => {
            let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            if let Ok(value) = HeaderValue::try_from(grpc_timeout_text(ms)) {
                headers.insert(GRPC_TIMEOUT, value);
            }
        }
        None if overrides => {
            headers.remove(GRPC_TIMEOUT);
        }
        None => {}
    }
}

/// The cluster's own limit of an attempt, where the caller asks for none.
pub(super) fn limit_attempts(stream: &mut ActiveStream, action: &RouteAction, cluster: &Cluster) {
    let limit = cluster.connection.max_stream_duration;
    if limit.is_some() {
        let own = stream.timeouts.get_or_insert_with(|| Timeouts::of_route(action));
        own.upstream = own.upstream.or(limit);
    }
}

impl Timeouts {
    /// The route's.
    pub(super) fn of_route(action: &RouteAction) -> Self {
        let attempt = action.retry.as_ref().and_then(|policy| policy.per_try_timeout);
        Self { all: action.timeout, attempt, upstream: None, answers_no_content: false }
    }

    /// The request's own; `None`: they are the route's.
    fn of_request(stream: &ActiveStream, action: &RouteAction, headers: &mut HeaderMap) -> Option<Self> {
        let of_grpc = action.grpc_timeout.as_ref().filter(|_| stream.grpc);
        if of_grpc.is_none() && !stream.asks_router {
            return None;
        }
        let mut timeouts = Self::of_route(action);
        if let Some(allowed) = of_grpc {
            timeouts.all = on(allowed.timeout(grpc_timeout(headers)));
        }
        if stream.asks_router {
            timeouts.take(headers, stream.hcm.respect_expected_timeout);
        }
        timeouts.attempt = timeouts.attempt.filter(|one| timeouts.all.is_none_or(|all| *one < all));
        Some(timeouts)
    }

    /// Takes what a caller asks for. `respects_expected`: what a proxy before us has said counts more, and stays.
    fn take(&mut self, headers: &mut HeaderMap, respects_expected: bool) {
        match headers.get(EXPECTED_TIMEOUT).filter(|_| respects_expected) {
            Some(expected) => {
                if let Some(all) = expected.to_str().ok().and_then(|ms| ms.parse().ok()).and_then(timeout) {
                    self.all = on(all);
                }
            }
            None => {
                if let Some(all) = take_timeout(headers, "x-envoy-upstream-rq-timeout-ms") {
                    self.all = on(all);
                }
            }
        }
        if let Some(attempt) = take_timeout(headers, "x-envoy-upstream-rq-per-try-timeout-ms") {
            self.attempt = on(attempt);
        }
        self.upstream = take_timeout(headers, "x-envoy-upstream-stream-duration-ms").and_then(on);
        self.answers_no_content = headers.remove("x-envoy-upstream-rq-timeout-alt-response").is_some();
        // Nothing is hedged, and statistics are not named by callers: there is no bound to how many they would be.
        headers.remove("x-envoy-hedge-on-per-try-timeout");
        headers.remove("x-envoy-upstream-alt-stat-name");
    }

    /// How long the upstream has for its answer, in milliseconds; `None`: as long as it likes.
    fn expected_ms(&self, elapsed: Duration) -> Option<u64> {
        let left = self.all.map(|all| all.saturating_sub(elapsed).max(Duration::from_millis(1)));
        let expected = match (self.attempt, left) {
            (Some(one), Some(all)) => one.min(all),
            (one, all) => one.or(all)?,
        };
        u64::try_from(expected.as_millis()).ok()
    }

    /// Tells the upstream how long we wait, so much after the request has begun.
    pub(super) fn tell(
        &self,
        stream: &ActiveStream,
        action: &RouteAction,
        headers: &mut HeaderMap,
        elapsed: Duration,
    ) {
        let Some(ms) = self.expected_ms(elapsed) else { return };
        if !stream.hcm.suppress_envoy_headers {
            headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(ms));
        }
        if stream.grpc
            && action.grpc_timeout.is_some()
            && let Ok(value) = HeaderValue::try_from(grpc_timeout_text(ms))
        {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }
}

/// Tells the upstream how long we wait.
pub(super) fn tell_upstream(stream: &ActiveStream, action: &RouteAction, request: &mut Request<RequestBody>) {
    match stream.timeouts {
        Some(own) => own.tell(stream, action, request.headers_mut(), Duration::ZERO),
        None => {
            if let Some(expected) = &action.expected_timeout
                && !stream.hcm.suppress_envoy_headers
            {
                request.headers_mut().insert(EXPECTED_TIMEOUT, expected.clone());
            }
        }
    }
}

/// Zero switches a timeout off.
fn on(timeout: Duration) -> Option<Duration> {
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

fn take_timeout(headers: &mut HeaderMap, name: &'static str) -> Option<Duration> {
    take_number(headers, name).and_then(timeout)
}

/// Envoy counts milliseconds in a signed number.
fn timeout(ms: u64) -> Option<Duration> {
    i64::try_from(ms).is_ok().then(|| Duration::from_millis(ms))
}

impl GrpcTimeout {
    /// What stands for the route's timeout, zero = none.
    fn timeout(&self, asked: Option<Duration>) -> Duration {
        let asked = asked.map_or(Duration::ZERO, |asked| self.less_offset(asked));
        match (asked.is_zero(), self.max.is_zero()) {
            (true, _) => self.max,
            (false, true) => asked,
            (false, false) => asked.min(self.max),
        }
    }

    /// What remains of the client's timeout, at most the maximum.
    fn of(&self, asked: Duration) -> Duration {
        let capped = if self.max.is_zero() { asked } else { asked.min(self.max) };
        capped.saturating_sub(self.offset)
    }

    fn less_offset(&self, asked: Duration) -> Duration {
        if self.offset < asked { asked - self.offset } else { asked }
    }
}

/// `grpc-timeout`: up to eight digits and a unit, in whole milliseconds.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
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

/// Up to eight digits and the smallest unit that allows it.
fn grpc_timeout_text(ms: u64) -> String {
    const MOST: u64 = 99_999_999;
    let units = [('m', 1), ('S', 1_000), ('M', 60_000), ('H', 3_600_000)];
    let fits = units.iter().find(|(_, length)| ms / length <= MOST);
    fits.map_or_else(|| format!("{MOST}H"), |(unit, length)| format!("{}{unit}", ms / length))
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
    fn grpc_timeouts_have_eight_digits() {
        for (ms, expected) in [
            (7, "7m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (360_000_000_000, "6000000M"),
            (u64::MAX, "99999999H"),
        ] {
            assert_eq!(grpc_timeout_text(ms), expected);
        }
    }

    #[test]
    fn offsets_and_caps() {
        let ms = Duration::from_millis;
        let allowed = |max, offset| GrpcTimeout { max: ms(max), offset: ms(offset) };
        for (allowed, asked, expected) in
            [(allowed(0, 0), 50, 50), (allowed(30, 10), 50, 20), (allowed(0, 60), 50, 0)]
        {
            assert_eq!(allowed.of(ms(asked)), ms(expected));
        }
    }
}
