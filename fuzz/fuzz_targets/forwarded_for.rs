//! `x-forwarded-for`: the client's address behind trusted proxies. The first byte is their number, each line a header line.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_proxy::fuzzing::forwarded_for;

use crate::input::choose;

/// Lines are as one line, joined by commas (RFC 9110 section 5.3), and the address is the one at its place from the end.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((hops, rest)) = choose(&[0, 1, 2, 3], bytes) else { return };
    let lines: Vec<HeaderValue> =
        rest.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let name = HeaderName::from_static("x-forwarded-for");
    let headers: HeaderMap = lines.iter().map(|line| (name.clone(), line.clone())).collect();
    let found = forwarded_for(&headers, hops);
    let Ok(texts) = lines.iter().map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>() else { return };
    let joined = texts.join(",");
    let expected = joined.rsplit(',').nth(hops).and_then(|part| part.trim().parse::<IpAddr>().ok());
    assert_eq!(found, expected, "{joined:?}");
}
