//! What a request asks of the router by `x-envoy-*` headers. They are taken out: no upstream is to follow them again.
//!
//! Whose headers are here to be read is decided before (`http/origin.rs`); filters and routes may add some. As in Envoy, what is
//! malformed says nothing. Timeouts are read by `timeout`, before the route changes headers; retries after that.

use std::ops::BitOr;

use http::header::{Entry, HeaderMap, HeaderName};

use crate::route::RetryOn;

/// What a request wants to be retried, beside what the route's policy says.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) on: RetryOn,
    /// In place of the policy's number.
    pub(super) retries: Option<u32>,
    pub(super) status_codes: Vec<u16>,
    /// Response headers, whatever they say.
    pub(super) headers: Vec<HeaderName>,
}

impl Asked {
    /// Takes it out of the request; `None`: there is nothing. On the heap: nearly no request asks for anything.
    pub(super) fn take(headers: &mut HeaderMap) -> Option<Box<Self>> {
        let words = |list: Vec<RetryOn>, of_grpc: bool| {
            let wanted = list.into_iter().filter(|word| word.any(RetryOn::GRPC) == of_grpc);
            wanted.fold(RetryOn::NONE, BitOr::bitor)
        };
        let asked = Self {
            on: words(take_list(headers, "x-envoy-retry-on", RetryOn::word), false)
                | words(take_list(headers, "x-envoy-retry-grpc-on", RetryOn::word), true),
            // Of a longer number Envoy takes the lower half.
            retries: take_number(headers, "x-envoy-max-retries").map(|number| number as u32),
            status_codes: take_list(headers, "x-envoy-retriable-status-codes", |code| code.parse().ok()),
            headers: take_list(headers, "x-envoy-retriable-header-names", |name| name.parse().ok()),
        };
        let Self { on, retries, status_codes, headers } = &asked;
        let is_nothing =
            *on == RetryOn::NONE && retries.is_none() && status_codes.is_empty() && headers.is_empty();
        (!is_nothing).then(|| Box::new(asked))
    }
}

/// Takes what is understood of the comma-separated lists of this name.
fn take_list<T>(
    headers: &mut HeaderMap,
    name: &'static str,
    understood: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let Entry::Occupied(entry) = headers.entry(name) else { return Vec::new() };
    let (_, lines) = entry.remove_entry_mult();
    let mut list = Vec::new();
    for line in lines {
        list.extend(line.to_str().unwrap_or_default().split(',').filter_map(|part| understood(part.trim())));
    }
    list
}

/// Takes the number of this name. Two say nothing: to Envoy they are one value with a comma in it.
pub(super) fn take_number(headers: &mut HeaderMap, name: &'static str) -> Option<u64> {
    let Entry::Occupied(entry) = headers.entry(name) else { return None };
    let (_, mut values) = entry.remove_entry_mult();
    let (value, second) = (values.next()?, values.next());
    value.to_str().ok().filter(|_| second.is_none())?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn numbers() {
        for (values, expected) in [
            (&["7"][..], Some(7)),
            (&["+7"], Some(7)),
            (&["-7"], None),
            (&["7s"], None),
            (&[""], None),
            (&["7", "8"], None),
            (&["18446744073709551615"], Some(u64::MAX)),
            (&["18446744073709551616"], None),
        ] {
            let lines: Vec<_> = values.iter().map(|value| ("n", *value)).collect();
            let mut headers = of(&lines);
            assert_eq!(take_number(&mut headers, "n"), expected, "{values:?}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn all_of_it_is_taken() {
        let mut headers = of(&[
            ("x-envoy-retry-on", "5xx, nonsense"),
            ("x-envoy-retry-on", "reset,cancelled"),
            ("x-envoy-retry-grpc-on", "internal, gateway-error"),
            ("x-envoy-max-retries", "4294967297"),
            ("x-envoy-retriable-status-codes", "404 , x,500,70000"),
            ("x-envoy-retriable-header-names", "X-A, not a name"),
            ("x-other", "1"),
        ]);
        let asked = Asked::take(&mut headers).unwrap();
        assert_eq!(headers.len(), 1);
        assert_eq!(asked.on, RetryOn::FIVE_XX | RetryOn::RESET | RetryOn::GRPC_INTERNAL);
        assert_eq!(asked.retries, Some(1));
        assert_eq!(asked.status_codes, [404, 500]);
        assert_eq!(asked.headers, ["x-a"]);
        assert!(Asked::take(&mut headers).is_none());
    }
}
