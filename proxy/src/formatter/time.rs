//! `%START_TIME(...)%` and its like: strftime formats, compiled; the current second is broken down once.

use std::time::{SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;

/// What is known about the last second that was printed. One per worker.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<Second>,
}

#[derive(Debug, Clone, Copy)]
struct Second {
    unix_s: i64,
    date: OffsetDateTime,
    /// `2026-11-21T05:00:00`.
    iso: [u8; 19],
}

impl Clock {
    fn second(&mut self, unix_s: i64) -> &Second {
        match &mut self.second {
            Some(second) if second.unix_s == unix_s => {}
            cached => {
                // Out of range is the year 9999 and later.
                let date = OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                let mut iso = *b"0000-00-00T00:00:00";
                write_digits(&mut iso[0..4], date.year().unsigned_abs());
                write_digits(&mut iso[5..7], u8::from(date.month()).into());
                write_digits(&mut iso[8..10], date.day().into());
                write_digits(&mut iso[11..13], date.hour().into());
                write_digits(&mut iso[14..16], date.minute().into());
                write_digits(&mut iso[17..19], date.second().into());
                *cached = Some(Second { unix_s, date, iso });
            }
        }
        // Filled above.
        self.second.get_or_insert(Second { unix_s, date: OffsetDateTime::UNIX_EPOCH, iso: [b'0'; 19] })
    }
}

/// Fills all of `out` with the last digits of `n`.
fn write_digits(out: &mut [u8], mut n: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

fn push_digits(out: &mut Vec<u8>, n: u32, width: usize) {
    let at = out.len();
    out.resize(at + width, b'0');
    write_digits(&mut out[at..], n);
}

/// A compiled time format, always UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeFormat(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// `%Y-%m-%dT%H:%M:%S`, from the cache.
    Iso,
    Year,
    YearOfCentury,
    Month,
    MonthName,
    MonthAbbreviation,
    Day,
    DaySpacePadded,
    DayOfYear,
    WeekdayName,
    WeekdayAbbreviation,
    WeekdayNumber,
    Hour,
    Hour12,
    AmPm,
    Minute,
    Second,
    UnixSeconds,
    /// The first digits of the nanoseconds.
    Fraction(usize),
    Century,
    IsoYear,
    IsoYearOfCentury,
    IsoWeek,
    SundayWeek,
    MondayWeek,
    WeekdayNumberFromMonday,
    HourSpacePadded,
    Hour12SpacePadded,
    LowerAmPm,
    /// The nanoseconds without the zeros at their end; with a point before them, when there are any.
    AllDigits {
        with_point: bool,
    },
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Default for TimeFormat {
    /// `%Y-%m-%dT%H:%M:%E3SZ`, Envoy's default.
    fn default() -> Self {
        Self(vec![Part::Iso, Part::Literal(".".into()), Part::Fraction(3), Part::Literal("Z".into())])
    }
}

impl TimeFormat {
    /// Compiles what stands between the brackets of `START_TIME(...)`.
    ///
    /// # Errors
    /// Names a conversion that is not known. (Envoy prints those as they are.)
    pub(super) fn compile(format: &str) -> Result<Self, String> {
        let mut parts = Parts::default();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            parts.literal(&rest[..at]);
            rest = parts.conversion(&rest[at + 1..]).ok_or_else(|| {
                let spec: String = rest[at..].chars().take(4).collect();
                format!("START_TIME: unsupported time conversion at '{spec}'")
            })?;
        }
        parts.literal(rest);
        Ok(Self(parts.0))
    }

    /// The same, the default for no format.
    pub(super) fn compile_or_default(format: &str) -> Result<Self, String> {
        if format.is_empty() { Ok(Self::default()) } else { Self::compile(format) }
    }

    /// Appends `time`.
    pub(super) fn append(&self, time: SystemTime, clock: &mut Clock, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = clock.second(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let date = &second.date;
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Iso => out.extend_from_slice(&second.iso),
                Part::Year => push_digits(out, date.year().unsigned_abs(), 4),
                Part::YearOfCentury => push_digits(out, date.year().unsigned_abs() % 100, 2),
                Part::Month => push_digits(out, u8::from(date.month()).into(), 2),
                Part::MonthName => out.extend_from_slice(month(date).as_bytes()),
                Part::MonthAbbreviation => out.extend_from_slice(&month(date).as_bytes()[..3]),
                Part::Day => push_digits(out, date.day().into(), 2),
                Part::DaySpacePadded if date.day() < 10 => out.extend_from_slice(&[b' ', b'0' + date.day()]),
                Part::DaySpacePadded => push_digits(out, date.day().into(), 2),
                Part::DayOfYear => push_digits(out, date.ordinal().into(), 3),
                Part::WeekdayName => out.extend_from_slice(weekday(date).as_bytes()),
                Part::WeekdayAbbreviation => out.extend_from_slice(&weekday(date).as_bytes()[..3]),
                Part::WeekdayNumber => push_digits(out, date.weekday().number_days_from_sunday().into(), 1),
                Part::Hour => push_digits(out, date.hour().into(), 2),
                Part::Hour12 => push_digits(out, u32::from((date.hour() + 11) % 12 + 1), 2),
                Part::AmPm => out.extend_from_slice(if date.hour() < 12 { b"AM" } else { b"PM" }),
                Part::Minute => push_digits(out, date.minute().into(), 2),
                Part::Second => push_digits(out, date.second().into(), 2),
                Part::UnixSeconds => {
                    out.extend_from_slice(itoa::Buffer::new().format(second.unix_s).as_bytes())
                }
                Part::Century => push_digits(out, date.year().unsigned_abs() / 100, 2),
                Part::IsoYear => push_digits(out, date.to_iso_week_date().0.unsigned_abs(), 4),
                Part::IsoYearOfCentury => push_digits(out, date.to_iso_week_date().0.unsigned_abs() % 100, 2),
                Part::IsoWeek => push_digits(out, date.iso_week().into(), 2),
                Part::SundayWeek => push_digits(out, date.sunday_based_week().into(), 2),
                Part::MondayWeek => push_digits(out, date.monday_based_week().into(), 2),
                Part::WeekdayNumberFromMonday => {
                    push_digits(out, date.weekday().number_from_monday().into(), 1);
                }
                Part::HourSpacePadded => push_padded(out, date.hour()),
                Part::Hour12SpacePadded => push_padded(out, (date.hour() + 11) % 12 + 1),
                Part::LowerAmPm => out.extend_from_slice(if date.hour() < 12 { b"am" } else { b"pm" }),
                Part::AllDigits { with_point } => {
                    let at = out.len();
                    push_digits(out, since.subsec_nanos(), 9);
                    while out.len() > at && out.ends_with(b"0") {
                        out.pop();
                    }
                    match (out.len() > at, with_point) {
                        (true, true) => out.insert(at, b'.'),
                        (false, false) => out.push(b'0'),
                        _ => {}
                    }
                }
                Part::Fraction(digits) => {
                    let at = out.len();
                    push_digits(out, since.subsec_nanos(), 9);
                    out.truncate(at + digits);
                }
            }
        }
    }
}

fn push_padded(out: &mut Vec<u8>, n: u8) {
    if n < 10 {
        out.push(b' ');
    }
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn month(date: &OffsetDateTime) -> &'static str {
    MONTHS[usize::from(u8::from(date.month())) - 1]
}

fn weekday(date: &OffsetDateTime) -> &'static str {
    WEEKDAYS[usize::from(date.weekday().number_days_from_monday())]
}

#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn literal(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(Part::Literal(text.into()));
        }
    }

    fn sequence(&mut self, format: &str) {
        // Only formats of this file come here, and all of their conversions are known.
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            self.literal(&rest[..at]);
            rest = self.conversion(&rest[at + 1..]).unwrap_or_default();
        }
        self.literal(rest);
    }

    /// Reads one conversion behind its `%`; gives what follows it, `None` when it is not known.
    fn conversion<'a>(&mut self, spec: &'a str) -> Option<&'a str> {
        let mut chars = spec.chars();
        let part = match chars.next()? {
            'Y' => Part::Year,
            'y' => Part::YearOfCentury,
            'm' => Part::Month,
            'B' => Part::MonthName,
            'b' | 'h' => Part::MonthAbbreviation,
            'd' => Part::Day,
            'e' => Part::DaySpacePadded,
            'j' => Part::DayOfYear,
            'A' => Part::WeekdayName,
            'a' => Part::WeekdayAbbreviation,
            'w' => Part::WeekdayNumber,
            'H' => Part::Hour,
            'I' => Part::Hour12,
            'p' => Part::AmPm,
            'M' => Part::Minute,
            'S' => Part::Second,
            's' => Part::UnixSeconds,
            'f' => Part::Fraction(9),
            'C' => Part::Century,
            'G' => Part::IsoYear,
            'g' => Part::IsoYearOfCentury,
            'V' => Part::IsoWeek,
            'U' => Part::SundayWeek,
            'W' => Part::MondayWeek,
            'u' => Part::WeekdayNumberFromMonday,
            'k' => Part::HourSpacePadded,
            'l' => Part::Hour12SpacePadded,
            'P' => Part::LowerAmPm,
            't' => Part::Literal("\t".into()),
            'Z' => Part::Literal("UTC".into()),
            'z' => Part::Literal("+0000".into()),
            '%' => Part::Literal("%".into()),
            'F' => {
                self.sequence("%Y-%m-%d");
                return Some(chars.as_str());
            }
            'T' => {
                self.sequence("%H:%M:%S");
                return Some(chars.as_str());
            }
            'c' => {
                self.sequence("%a %b %e %H:%M:%S %Y");
                return Some(chars.as_str());
            }
            'r' => {
                self.sequence("%I:%M:%S %p");
                return Some(chars.as_str());
            }
            'x' => {
                self.sequence("%m/%d/%y");
                return Some(chars.as_str());
            }
            'X' => {
                self.sequence("%H:%M:%S");
                return Some(chars.as_str());
            }
            'R' => {
                self.sequence("%H:%M");
                return Some(chars.as_str());
            }
            'D' => {
                self.sequence("%m/%d/%y");
                return Some(chars.as_str());
            }
            // `%3f`: milliseconds.
            digit @ '1'..='9' if chars.next() == Some('f') => Part::Fraction(digit as usize - '0' as usize),
            'E' => match chars.next()? {
                'z' => Part::Literal("+00:00".into()),
                'T' => Part::Literal("T".into()),
                '*' => match chars.next()? {
                    'S' => {
                        self.0.push(Part::Second);
                        Part::AllDigits { with_point: true }
                    }
                    'f' => Part::AllDigits { with_point: false },
                    _ => return None,
                },
                // `%E3S`: seconds with a fraction.
                digit @ '1'..='9' if chars.next() == Some('S') => {
                    self.0.push(Part::Second);
                    self.literal(".");
                    Part::Fraction(digit as usize - '0' as usize)
                }
                _ => return None,
            },
            _ => return None,
        };
        self.0.push(part);
        Some(chars.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    fn print(format: &TimeFormat, clock: &mut Clock, unix_ms: u64) -> String {
        let mut out = Vec::new();
        format.append(UNIX_EPOCH + Duration::from_millis(unix_ms), clock, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn default_format() {
        let (format, mut clock) = (TimeFormat::default(), Clock::default());
        assert_eq!(print(&format, &mut clock, 1_795_239_037_138), "2026-11-21T05:30:37.138Z");
        assert_eq!(print(&format, &mut clock, 1_795_239_037_999), "2026-11-21T05:30:37.999Z");
        assert_eq!(print(&format, &mut clock, 1_795_239_038_001), "2026-11-21T05:30:38.001Z");
        assert_eq!(print(&format, &mut clock, 0), "1970-01-01T00:00:00.000Z");
    }

    /// What Envoy 1.40 printed for the same formats at this time.
    #[test]
    fn formats_as_envoy_prints_them() {
        for (format, expected) in [
            ("%Y/%m/%dT%H:%M:%S%z", "2026/11/21T05:30:37+0000"),
            ("%s.%3f", "1795239037.138"),
            ("%b|%e|%a|%j|%y|%I|%p", "Nov|21|Sat|325|26|05|AM"),
            ("%F|%T|%f|%6f|%9f|%E6S", "2026-11-21|05:30:37|138000000|138000|138000000|37.138000"),
            ("%D|%Z|%B|%A|%R", "11/21/26|UTC|November|Saturday|05:30"),
            ("%c|%C|%g|%G|%U|%V|%W|%u", "Sat Nov 21 05:30:37 2026|20|26|2026|46|47|46|6"),
            ("%x|%X|%r|%t|%k|%l|%P", "11/21/26|05:30:37|05:30:37 AM|\t| 5| 5|am"),
            ("%E*S|%E*f|%ET", "37.138|138|T"),
        ] {
            let compiled = TimeFormat::compile(format).unwrap();
            assert_eq!(print(&compiled, &mut Clock::default(), 1_795_239_037_138), expected, "{format}");
        }
    }

    #[test]
    fn unknown_conversions_are_refused() {
        for format in ["%Q", "%E#S", "%", "%3", "%E", "a%Lb"] {
            let error = TimeFormat::compile(format).unwrap_err();
            assert!(error.starts_with("START_TIME: unsupported time conversion at '%"), "{error}");
        }
    }
}
