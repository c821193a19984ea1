//! `RetryPolicy`: which outcomes of an attempt are tried again, how often and how soon.

use std::num::NonZeroU32;
use std::ops::BitOr;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::{HeaderMatcher, HostPredicate};

/// The words of `retry_on`, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! retry_on {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$name, $word)),*];
        }
    };
}

retry_on! {
    /// Any 5xx, or no response.
    FIVE_XX = 0, "5xx";
    /// 502, 503 and 504.
    GATEWAY_ERROR = 1, "gateway-error";
    /// No response.
    RESET = 2, "reset";
    /// The connection could not be made.
    CONNECT_FAILURE = 3, "connect-failure";
    /// 409.
    RETRIABLE_4XX = 4, "retriable-4xx";
    /// The upstream refused the stream.
    REFUSED_STREAM = 5, "refused-stream";
    /// `retriable_status_codes`.
    STATUS_CODES = 6, "retriable-status-codes";
    /// `retriable_headers`.
    HEADERS = 7, "retriable-headers";
    /// An `x-envoy-ratelimited` header.
    ENVOY_RATE_LIMITED = 8, "envoy-ratelimited";
    /// No response, and the upstream got nothing of the request.
    RESET_BEFORE_REQUEST = 9, "reset-before-request";
    /// gRPC status 1.
    GRPC_CANCELLED = 10, "cancelled";
    /// gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = 11, "deadline-exceeded";
    /// gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = 12, "resource-exhausted";
    /// gRPC status 14.
    GRPC_UNAVAILABLE = 13, "unavailable";
    /// gRPC status 13.
    GRPC_INTERNAL = 14, "internal";
    /// Has no effect: upstreams are never asked by HTTP/3.
    HTTP3_POST_CONNECT_FAILURE = 15, "http3-post-connect-failure";
}

impl RetryOn {
    /// No word.
    pub const NONE: Self = Self(0);
    /// The words of `x-envoy-retry-grpc-on`.
    pub const GRPC: Self = Self(
        Self::GRPC_CANCELLED.0
            | Self::GRPC_DEADLINE_EXCEEDED.0
            | Self::GRPC_RESOURCE_EXHAUSTED.0
            | Self::GRPC_UNAVAILABLE.0
            | Self::GRPC_INTERNAL.0,
    );

    /// The words of a comma-separated list; what is no such word is left out, as in Envoy.
    pub fn parse(list: &str) -> Self {
        list.split(',').filter_map(|word| Self::word(word.trim())).fold(Self::NONE, BitOr::bitor)
    }

    /// One word.
    pub fn word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, w)| *w == word).map(|(on, _)| *on)
    }

    /// Whether one of `words` is in the set.
    pub fn any(self, words: Self) -> bool {
        self.0 & words.0 != 0
    }
}

impl BitOr for RetryOn {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `envoy.config.route.v3.RetryPolicy`, compiled.
#[derive(Debug)]
pub struct RetryPolicy {
    /// `retry_on`.
    pub on: RetryOn,
    /// `num_retries`, default 1.
    pub retries: u32,
    /// `per_try_timeout`.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`.
    pub per_try_idle_timeout: Option<Duration>,
    /// `retry_host_predicate`: a retry goes to another host if one of them rejects the first that is drawn.
    pub host_predicates: Box<[HostPredicate]>,
    /// `host_selection_retry_max_attempts`, default 1: so often another host is drawn for one that is rejected.
    pub redraws: u32,
    /// `update_frequency` of a `retry_priority`.
    pub previous_priorities: Option<NonZeroU32>,
    /// `retriable_status_codes`.
    pub status_codes: Box<[u16]>,
    /// `retriable_headers`.
    pub headers: Box<[HeaderMatcher]>,
    /// `retriable_request_headers`: none, or one must match.
    pub request_headers: Box<[HeaderMatcher]>,
    /// `retry_back_off`.
    pub back_off: BackOff,
    /// `rate_limited_retry_back_off`.
    pub rate_limited: Option<RateLimitedBackOff>,
}

/// What holds where no policy is written: nothing is retried, and what a request itself wants retried is so once.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::NONE,
            retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            host_predicates: Box::default(),
            redraws: 1,
            previous_priorities: None,
            status_codes: Box::default(),
            headers: Box::default(),
            request_headers: Box::default(),
            back_off: BackOff::default(),
            rate_limited: None,
        }
    }
}

/// `RetryPolicy.RetryBackOff`: exponential, fully jittered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// `base_interval`, default 25 ms.
    pub base: Duration,
    /// `max_interval`, default ten times the base.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        let base = Duration::from_millis(25);
        Self { base, max: base * 10 }
    }
}

/// `RetryPolicy.RateLimitedRetryBackOff`.
#[derive(Debug)]
pub struct RateLimitedBackOff {
    /// `reset_headers`, in order.
    pub headers: Box<[(HeaderName, ResetFormat)]>,
    /// `max_interval`, default 300 s: a header that asks for more is passed over.
    pub max: Duration,
}

/// `RetryPolicy.ResetHeaderFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// `SECONDS`.
    Seconds,
    /// `UNIX_TIMESTAMP`, seconds.
    UnixTimestamp,
}

impl BackOff {
    /// How long to wait before the retry of this number (0-based): less than the base, doubled each time; `random` is uniform.
    pub fn before(self, retry: u32, random: u64) -> Duration {
        let ceiling = self.base.saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX)).min(self.max);
        let ceiling_ms = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(random % ceiling_ms)
    }
}

impl RateLimitedBackOff {
    /// How long the response asks to wait. `unix_seconds` is the time now.
    pub fn asked_by(&self, response: &HeaderMap, unix_seconds: u64) -> Option<Duration> {
        self.headers.iter().find_map(|(name, format)| {
            let number: u64 = response.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let seconds = match format {
                ResetFormat::Seconds => number,
                ResetFormat::UnixTimestamp => number.checked_sub(unix_seconds)?,
            };
            let wait = Duration::from_secs(seconds);
            (!wait.is_zero() && wait <= self.max).then_some(wait)
        })
    }

    /// What is asked for and up to a half more, so that not all come back at once.
    pub fn jittered(asked: Duration, random: u64) -> Duration {
        let half_ms = u64::try_from(asked.as_millis() / 2).unwrap_or(u64::MAX).max(1);
        asked + Duration::from_millis(random % half_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words() {
        let on = RetryOn::parse("5xx, connect-failure,nonsense,cancelled");
        assert_eq!(on, RetryOn::FIVE_XX | RetryOn::CONNECT_FAILURE | RetryOn::GRPC_CANCELLED);
        assert!(!on.any(RetryOn::RESET | RetryOn::GATEWAY_ERROR));
        assert_eq!(RetryOn::parse(""), RetryOn::NONE);
    }

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let back_off = BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        let longest = |retry| back_off.before(retry, u64::MAX - u64::MAX % 5_000_000 - 1).as_millis();
        for (retry, ceiling) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
            assert_eq!(longest(retry), ceiling - 1, "{retry}");
            assert_eq!(back_off.before(retry, 0), Duration::ZERO);
        }
    }

    #[test]
    fn what_a_response_asks_for() {
        let policy = RateLimitedBackOff {
            headers: [
                (HeaderName::from_static("retry-after"), ResetFormat::Seconds),
                (HeaderName::from_static("x-reset"), ResetFormat::UnixTimestamp),
            ]
            .into(),
            max: Duration::from_secs(300),
        };
        for (name, value, expected) in [
            ("retry-after", "3", Some(3)),
            ("retry-after", "301", None),
            ("retry-after", "soon", None),
            ("retry-after", "0", None),
            ("x-reset", "1010", Some(10)),
            ("x-reset", "990", None),
            ("x-other", "3", None),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(policy.asked_by(&headers, 1000), expected.map(Duration::from_secs), "{name}: {value}");
        }
        let jittered = RateLimitedBackOff::jittered(Duration::from_secs(2), 1_700);
        assert_eq!(jittered, Duration::from_millis(2_700));
    }
}
