//! Durations as Kubernetes APIs write them.

use std::time::Duration;

/// Reads a duration of Go's form, as Istio's kinds have it: one or more decimal numbers with a unit, `h`, `m`, `s`, `ms`
/// or `us`, for example `1.5s` or `1h30m`.
///
/// # Errors
/// A sentence saying what is expected.
pub(crate) fn parse_go(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a duration such as 10s, 1m30s or 500ms");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let number: f64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            _ => return Err(malformed()),
        };
        rest = &rest[unit..];
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| malformed())?;
        total = total.checked_add(part).ok_or_else(malformed)?;
    }
    Ok(total)
}

/// Reads a duration of the Gateway API (GEP-2257): `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
///
/// # Errors
/// A sentence saying what is expected.
pub(crate) fn parse_gateway_api(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a duration such as 10s, 1m30s or 500ms");
    let mut parts = 0;
    let mut digits = 0;
    for c in text.chars() {
        if c == '.' || (c.is_ascii_digit() && digits == 5) {
            return Err(malformed());
        }
        if c.is_ascii_digit() {
            parts += u32::from(digits == 0);
            digits += 1;
        } else {
            digits = 0;
        }
    }
    if parts > 4 || text.contains('u') {
        return Err(malformed());
    }
    parse_go(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        assert_eq!(parse_go("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_go("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_go("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_go("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "10", "s", "-1s", "1d", "1s ", "1..2s", "99999999999999999999h"] {
            assert!(parse_go(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gateway_api_durations() {
        assert_eq!(parse_gateway_api("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_gateway_api("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
        for bad in ["1.5s", "123456s", "1us", "1h1h1h1h1h", ""] {
            assert!(parse_gateway_api(bad).is_err(), "{bad:?}");
        }
    }
}
