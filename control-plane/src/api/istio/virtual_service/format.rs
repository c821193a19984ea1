//! Values of headers, which Envoy reads as formats: `%REQ(x-user)%` is the header `x-user` of the request, `%%` a `%`.
//!
//! A proxy refuses a route configuration with a format that it cannot read, so a value that is none is refused here.

use crate::api::Refusal;

/// Operators that have a value where headers are changed, and take neither arguments nor a length. (Envoy's.)
const OPERATORS: &[&str] = &[
    "BYTES_RECEIVED",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "DURATION",
    "FILTER_CHAIN_NAME",
    "HOSTNAME",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "ROUTE_NAME",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
];

/// Operators that need arguments, and may be cut to a length.
const WITH_ARGUMENTS: &[&str] = &["ENVIRONMENT", "QUERY_PARAM", "REQ", "RESP"];

/// Those that may have arguments.
const WITH_FORMAT: &[&str] = &["DOWNSTREAM_PEER_CERT_V_END", "DOWNSTREAM_PEER_CERT_V_START", "START_TIME"];

/// Checks the value of a header.
pub(super) fn check(value: &str, field: &str) -> Result<(), Refusal> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Refusal::new(field, "must not contain control characters"));
    }
    let mut rest = value;
    while let Some((_, operator)) = rest.split_once('%') {
        if let Some(after) = operator.strip_prefix('%') {
            rest = after;
            continue;
        }
        let Some(after) = skip(operator) else {
            let shown = operator.split_inclusive('%').next().unwrap_or_default();
            let reason = format!(
                "%{shown} is no operator of a format that is supported; a % that means itself is written %%"
            );
            return Err(Refusal::new(field, reason));
        };
        rest = after;
    }
    Ok(())
}

/// What comes after an operator, whose first `%` is taken off.
fn skip(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, mut rest) = text.split_at(end);
    let has_arguments = rest.starts_with('(');
    if has_arguments {
        let (arguments, after) = rest[1..].split_once(')')?;
        if arguments.is_empty() || arguments.contains('%') && !WITH_FORMAT.contains(&name) {
            return None;
        }
        rest = after;
    }
    let takes_length = WITH_ARGUMENTS.contains(&name);
    if let Some(length) = rest.strip_prefix(':').filter(|_| takes_length) {
        rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == length.len() {
            return None;
        }
    }
    let is_known = match has_arguments {
        true => takes_length || WITH_FORMAT.contains(&name),
        false => OPERATORS.contains(&name) || WITH_FORMAT.contains(&name),
    };
    rest.strip_prefix('%').filter(|_| is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_what_is_none() {
        for good in [
            "",
            "plain",
            "100%%",
            "%REQ(x-user)%",
            "a%START_TIME%b",
            "%DOWNSTREAM_REMOTE_ADDRESS%",
            "%REQ(:path):9%x",
            "%START_TIME(%s)%",
            "%QUERY_PARAM(a):3%%DOWNSTREAM_PEER_SUBJECT%",
        ] {
            assert_eq!(check(good, "f"), Ok(()), "{good}");
        }
        for bad in [
            "100%",
            "%REQ%",
            "%REQ(x%",
            "%REQ()%",
            "%NOTHING%",
            "%REQ(x):%",
            "%ROUTE_NAME(x)%",
            "%ROUTE_NAME:3%",
            "%START_TIME:3%",
            "a\nb",
            "%%%",
        ] {
            assert!(check(bad, "f").is_err(), "{bad}");
        }
    }
}
