//! Values of headers, which Envoy reads as formats: `%REQ(x-user)%` is the header `x-user` of the request, `%%` a `%`.
//!
//! A proxy refuses a route configuration with a format that it cannot read, so a value that is none is refused here.

use crate::api::Refusal;

/// Operators that have a value where headers are changed. (Envoy's.)
const OPERATORS: &[&str] = &[
    "CONNECTION_ID",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "HOSTNAME",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "ROUTE_NAME",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
];

/// Operators that need arguments.
const WITH_ARGUMENTS: &[&str] = &["REQ", "RESP", "START_TIME"];

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
        if arguments.is_empty() || arguments.contains('%') {
            return None;
        }
        rest = after;
    }
    if let Some(length) = rest.strip_prefix(':') {
        rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == length.len() {
            return None;
        }
    }
    let is_known = match has_arguments {
        true => WITH_ARGUMENTS.contains(&name),
        false => OPERATORS.contains(&name) || name == "START_TIME",
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
            "a\nb",
            "%%%",
        ] {
            assert!(check(bad, "f").is_err(), "{bad}");
        }
    }
}
