//! The text forms of scalars and of the small well-known types.
//!
//! An error is only what was expected: the caller knows the place, what stands there, and whether it may be shown.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::tree::Value;
use crate::encoding::Written;
use crate::schema::{Enum, Scalar};

/// The largest Duration, in seconds: about 10,000 years (`google/protobuf/duration.proto`).
const MAX_DURATION_S: i64 = 315_576_000_000;

/// What would have been right, as in `a string`.
pub(super) type Expected = Cow<'static, str>;

/// Padding may be left out.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A scalar of a protobuf type; enums are read by [`enum_number`].
pub(super) fn scalar(scalar: Scalar, value: &Value) -> Result<Written, Expected> {
    match scalar {
        Scalar::Bool => boolean(value).map(|value| Written::Integer(value.into())),
        Scalar::String => text(value).map(|text| Written::Bytes(text.as_bytes().to_vec())),
        Scalar::Bytes => bytes(value).map(Written::Bytes),
        Scalar::Float => {
            let value = float(value)?;
            if value.is_finite() && value.abs() > f64::from(f32::MAX) {
                return Err("a number of 32 bits".into());
            }
            Ok(Written::Float(value))
        }
        Scalar::Double => float(value).map(Written::Float),
        _ => integer(scalar, value).map(Written::Integer),
    }
}

/// The value of an unset field, which is what `null` in a list stands for.
pub(super) fn default_of(scalar: Scalar) -> Written {
    match scalar {
        Scalar::String | Scalar::Bytes => Written::Bytes(Vec::new()),
        Scalar::Float | Scalar::Double => Written::Float(0.0),
        _ => Written::Integer(0),
    }
}

/// The number of an enum value given by name or number. A number may be undefined: the validation rules decide on it.
pub(super) fn enum_number(r#enum: Enum, value: &Value) -> Result<i32, Expected> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::String(text) => match r#enum.number(text) {
            Some(number) => return Ok(number),
            None => text.parse::<i128>().ok(),
        },
        _ => None,
    };
    let number = number.and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| format!("one of {}", some_names(r#enum)).into())
}

/// The first names of an enum, for an error message.
fn some_names(r#enum: Enum) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<&str> = r#enum.names().take(SHOWN + 1).collect();
    if names.len() > SHOWN {
        names[SHOWN] = "...";
    }
    names.join(", ")
}

fn boolean(value: &Value) -> Result<bool, Expected> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// A text. As in Envoy, an unquoted number with a fraction or beyond 32 bits is one too.
pub(super) fn text(value: &Value) -> Result<Cow<'_, str>, Expected> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Float(float) => Ok(Cow::Borrowed(&float.text)),
        Value::Int(number) if i32::try_from(*number).is_err() => Ok(Cow::Owned(number.to_string())),
        Value::Int(_) | Value::Bool(_) => Err("a string in quotes".into()),
        _ => Err("a string".into()),
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>, Expected> {
    let text = text(value)?;
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text.as_bytes()).map_err(|_| "bytes in base64".into())
}

/// Bytes in base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn integer(scalar: Scalar, value: &Value) -> Result<i128, Expected> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::Float(float) => whole(float.value),
        Value::String(text) => text.parse().ok().or_else(|| decimal(text).and_then(whole)),
        _ => None,
    };
    let number = number.ok_or(Cow::Borrowed("an integer"))?;
    let (min, max) = match scalar {
        Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
        Scalar::Uint32 | Scalar::Fixed32 => (0, i128::from(u32::MAX)),
        _ => (0, i128::from(u64::MAX)),
    };
    if (min..=max).contains(&number) { Ok(number) } else { Err(format!("{min} to {max}").into()) }
}

fn whole(value: f64) -> Option<i128> {
    // Beyond 2^100 no integer type fits anyway.
    (value.fract() == 0.0 && value.abs() < 2_f64.powi(100)).then_some(value as i128)
}

fn float(value: &Value) -> Result<f64, Expected> {
    let number = match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(float) => Some(float.value),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => decimal(text),
        },
        _ => None,
    };
    number.ok_or(Cow::Borrowed("a number"))
}

/// A finite decimal number; the spellings of infinity that Rust knows are none.
fn decimal(text: &str) -> Option<f64> {
    let is_decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    text.parse::<f64>().ok().filter(|value| is_decimal && value.is_finite())
}

/// Seconds and nanoseconds of a Duration such as `1.5s`.
pub(super) fn duration(text: &str) -> Result<(i64, i32), Expected> {
    let wrong = || Cow::Borrowed("a duration in seconds such as 1.5s");
    let number = text.strip_suffix('s').ok_or_else(wrong)?;
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (seconds, fraction) = match number.split_once('.') {
        Some((seconds, fraction)) if !fraction.is_empty() => (seconds, fraction),
        Some(_) => return Err(wrong()),
        None => (number, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !is_digits(seconds) || !is_digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    if seconds > MAX_DURATION_S || (seconds == MAX_DURATION_S && nanos > 0) {
        return Err(format!("a duration of at most {MAX_DURATION_S}s").into());
    }
    Ok(if is_negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// A Duration as text. What is out of range prints as it is.
pub(super) fn print_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), print_fraction(nanos))
}

fn print_fraction(nanos: i32) -> String {
    match nanos.unsigned_abs() {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    }
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 timestamp such as `2026-01-31T12:00:00.5Z`.
pub(super) fn timestamp(text: &str) -> Result<(i64, i32), Expected> {
    parse_timestamp(text).ok_or(Cow::Borrowed("a time such as 2026-01-31T12:00:00Z"))
}

fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let (date, time) = text.split_once(['T', 't'])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let offset_s = match zone {
        "Z" | "z" => 0,
        zone => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            if zone.starts_with('-') { -offset } else { offset }
        }
    };
    let (time, fraction) =
        time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    let nanos = match fraction {
        None => 0,
        Some(fraction)
            if (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("{fraction:0<9}").parse().ok()?
        }
        Some(_) => return None,
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let days = days_since_epoch(year, month, day);
    let is_valid =
        year >= 1 && civil_date(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    is_valid.then_some((days * 86_400 + hour * 3_600 + minute * 60 + second - offset_s, nanos))
}

/// The numbers between separators, each with a fixed count of digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// A Timestamp as text, in UTC.
pub(super) fn print_timestamp(seconds: i64, nanos: i32) -> String {
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        print_fraction(nanos)
    )
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; the year is taken to begin in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day that many days after 1970-01-01.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("1s", (1, 0)),
            ("1.5s", (1, 500_000_000)),
            ("0.000000001s", (0, 1)),
            ("-1.5s", (-1, -500_000_000)),
            ("315576000000s", (MAX_DURATION_S, 0)),
        ];
        for (text, expected) in good {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        // Envoy refuses each of these.
        for text in
            ["1", "1m", ".5s", "5.s", " 5s", "+5s", "1.0000000001s", "315576000001s", "s", "", "1e3s", "--1s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(print_duration(1, 500_000_000), "1.500s");
        assert_eq!(print_duration(-1, -1), "-1.000000001s");
        assert_eq!(print_duration(0, 1_000), "0.000001s");
        assert_eq!(print_duration(15, 0), "15s");
    }

    #[test]
    fn timestamps() {
        let good = [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("2000-02-29T12:30:15.25Z", (951_827_415, 250_000_000)),
            ("1969-12-31T23:59:59Z", (-1, 0)),
            ("2026-01-31T12:00:00+02:00", (1_769_853_600, 0)),
            ("9999-12-31T23:59:59.999999999Z", (253_402_300_799, 999_999_999)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
        ];
        for (text, expected) in good {
            assert_eq!(timestamp(text), Ok(expected), "{text}");
        }
        let bad = [
            "",
            "2026-01-31",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00:00+25:00",
        ];
        for text in bad {
            assert!(timestamp(text).is_err(), "{text}");
        }
        for seconds in (-62_135_596_800..253_402_300_799).step_by(86_400 * 97 + 12_345) {
            assert_eq!(timestamp(&print_timestamp(seconds, 5)), Ok((seconds, 5)));
        }
    }

    #[test]
    fn integers_keep_their_ranges() {
        let cases = [
            (Scalar::Int32, "2147483647", true),
            (Scalar::Int32, "2147483648", false),
            (Scalar::Uint32, "4294967295", true),
            (Scalar::Uint32, "-1", false),
            (Scalar::Uint64, "18446744073709551615", true),
            (Scalar::Uint64, "18446744073709551616", false),
            (Scalar::Int64, "-9223372036854775808", true),
            (Scalar::Uint32, "8e1", true),
            (Scalar::Uint32, "80.0", true),
            (Scalar::Uint32, "1.5", false),
            (Scalar::Uint32, "1e40", false),
            (Scalar::Uint32, " 5", false),
            (Scalar::Uint32, "x", false),
            (Scalar::Uint32, "", false),
        ];
        for (kind, text, is_good) in cases {
            assert_eq!(scalar(kind, &Value::String(text.to_owned())).is_ok(), is_good, "{kind:?} {text}");
        }
    }

    #[test]
    fn base64_with_or_without_padding_in_both_alphabets() {
        for text in ["YQ", "YQ=="] {
            assert_eq!(bytes(&Value::String(text.to_owned())), Ok(b"a".to_vec()));
        }
        assert_eq!(bytes(&Value::String("_-8".to_owned())), bytes(&Value::String("/+8=".to_owned())));
        assert!(bytes(&Value::String("_".to_owned())).is_err());
        assert!(bytes(&Value::Int(5)).is_err());
    }
}
