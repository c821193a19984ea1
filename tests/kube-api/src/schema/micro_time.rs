//! `MicroTime`: a time with exactly six digits after the second.

/// The text of Go's `time.Parse` when a `MicroTime` has not exactly six digits after the second.
pub(super) fn error(text: &str) -> Option<String> {
    let problem = |rest: &str, wanted: &str| {
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {wanted:?}")
    };
    let seconds = text.get(..19)?;
    let shape: Vec<bool> = seconds.bytes().map(|byte| byte.is_ascii_digit()).collect();
    let expected: Vec<bool> = "0000-00-00T00:00:00".bytes().map(|byte| byte.is_ascii_digit()).collect();
    if shape != expected {
        return Some(problem(text, "2006"));
    }
    let rest = &text[19..];
    let fraction = rest.strip_prefix('.').and_then(|rest| rest.get(..6));
    match fraction {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let zone = &rest[7..];
            (zone != "Z" && !zone.starts_with(['+', '-'])).then(|| problem(zone, "Z07:00"))
        }
        _ => Some(problem(rest, ".000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_time_has_six_digits() {
        assert_eq!(error("2026-11-21T04:00:00.000000Z"), None);
        assert!(error("2026-11-21T04:00:04Z").unwrap().ends_with(r#"cannot parse "Z" as ".000000""#));
        assert!(
            error("2026-11-21T04:00:05.123456789Z").unwrap().ends_with(r#"cannot parse "789Z" as "Z07:00""#)
        );
    }
}
